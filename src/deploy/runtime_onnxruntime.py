"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime


def run(model: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model gives for prepared inputs, by the names of its outputs."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))
