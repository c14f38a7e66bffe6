"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino


def run(model: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model gives for prepared inputs, by the names of its outputs."""
    compiled = openvino.Core().compile_model(model, "CPU")
    results = compiled(feeds)
    return {output.get_any_name(): results[output] for output in compiled.outputs}
