"""TensorRT, through the execution provider of ONNX Runtime. Where there is no GPU it runs on the CPU, and says so.

Without Python: trtexec --onnx=model.onnx --stronglyTyped
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def run(model: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model gives for prepared inputs, by the names of its outputs."""
    wanted = ["TensorrtExecutionProvider", "CPUExecutionProvider"]
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(model, providers=providers)
    taken = session.get_providers()[0]
    if taken != wanted[0]:
        print(f"TensorRT is not there: {taken} runs the model", file=sys.stderr)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))
