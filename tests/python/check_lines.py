"""A network that others trained and exported, on a folder of PNG files: PaddlePaddle's MobileNetV3 for the direction of a line of text.

    python tests/python/check_lines.py BINARY

Trained for two epochs at 8 bits, it keeps its accuracy in stock onnxruntime and every layer is proven. Its data is not what it was trained
on: statistics of BatchNorm stay the model's own, with a warning, and those of the data, asked for, ruin it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from support import ROOT, Tally, check, lsqc

MODEL = ROOT / "fixtures" / "ppocr-cls" / "model.onnx"
MOST_LOST = 2.0
"""Points of the 300 test images that may be lost: 6 images, for lines that are right by little."""
LEAST_RUINED = 10.0
"""Points that the data's own statistics cost at least."""
ONE = 1e-3
"""How far two probabilities of a float Softmax may be from adding up to 1, by far."""
LAYERS = 54
"""Convolutions and the classifier."""


def quantized(binary: Path, folder: Path, *more: object) -> dict:
    """The report of a run."""
    lsqc(binary, "quantize", MODEL, "-o", folder / "out.onnx", "--report", folder / "report.json", "--quiet", *more, folder=folder)
    return json.loads((folder / "report.json").read_text())


def lost(report: dict) -> float:
    return report["metrics"]["drop"]["points"]


def main() -> None:
    tally, binary = Tally(), Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def trained() -> str:
            report = quantized(binary, folder)
            check(lost(report) <= MOST_LOST, f"{lost(report)} points are lost")
            weighted = [layer for layer in report["layers"] if layer["weights"]]
            check(len(weighted) == LAYERS, f"{len(weighted)} layers are quantized")
            mismatches = sum(layer["mismatches"] for layer in report["proof"]["layers"])
            check(mismatches == 0, f"{mismatches} mismatches")
            check(report["settings"]["batch_norm"] == "frozen", "its statistics were not kept")
            warned = [warning for warning in report["warnings"] if "has other BatchNorm statistics than the model" in warning]
            check(len(warned) == 1, f"warnings: {report['warnings']}")
            return f"{lost(report):.2f} points lost"

        def in_stock() -> None:
            onnx.checker.check_model(str(folder / "out.onnx"), full_check=True)
            noise = np.random.default_rng(0).uniform(-1, 1, (3, 3, 48, 192)).astype(np.float32)
            given = onnxruntime.InferenceSession(folder / "out.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": noise})[0]
            check(given.shape == (3, 2) and np.allclose(given.sum(axis=1), 1, atol=ONE), f"it gives {given}")

        def other_statistics() -> str:
            report = quantized(binary, folder, "--epochs", 0, "--bn", "batch")
            check(lost(report) >= LEAST_RUINED, f"only {lost(report)} points are lost")
            return f"{lost(report):.2f} points lost"

        tally.case("lines: two epochs at 8 bits", trained)
        tally.case("lines: the file in onnxruntime", in_stock)
        tally.case("lines: the statistics of other data", other_statistics)
    tally.finish()


if __name__ == "__main__":
    main()
