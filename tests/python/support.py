"""What the Python tests share: the fixtures, running lsqc, reading images, and running a step graph in onnxruntime.

Each test is a program: `python tests/python/check_….py target/release/lsqc`. It prints a line for each case and ends with an `N passed,
N failed` line and the exit code 0 or 1.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = {name: ROOT / "fixtures" / f"fashion-{name}" for name in ("resnet20", "mobilenet")}


class Failed(Exception):
    """A check that does not hold; the message says which and by how much."""


def check(holds: bool, message: str) -> None:
    """Fails the case unless `holds`."""
    if not holds:
        raise Failed(message)


class Tally:
    """Runs cases one after another, and counts."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def case(self, name: str, body: Callable[[], str | None]) -> None:
        """Runs `body`, which gives a remark or raises `Failed`."""
        try:
            remark = body()
        except Failed as failure:
            self.failed += 1
            print(f"FAILED {name}: {failure}", flush=True)
        else:
            self.passed += 1
            print(f"ok {name}" + (f": {remark}" if remark else ""), flush=True)

    def finish(self) -> None:
        """Prints the sum and ends the program."""
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed or not self.passed else 0)


def ort_library() -> Path:
    """The ONNX Runtime library of this Python's own package."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    return min(path for pattern in ("libonnxruntime.*", "onnxruntime.dll") for path in folder.glob(pattern))


def lsqc(binary: Path, *arguments: object, folder: Path) -> None:
    """Runs lsqc in `folder`, with this Python's ONNX Runtime if no other is named; fails with what it said if it fails."""
    environment = {"ORT_DYLIB_PATH": str(ort_library())} | os.environ
    command = [binary, *map(str, arguments)]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    check(run.returncode == 0, f"lsqc {' '.join(map(str, arguments))} ended with {run.returncode}:\n{run.stderr.strip()}")


def images(fixture: Path, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training images of a fixture as its network takes them, (x · scale − mean) / std in NCHW, and their labels."""
    settings = tomllib.loads((fixture / "lsqc.toml").read_text())
    files, spelled = settings["data"]["train"], settings["input"]["image"]
    pixels = _idx(fixture / files["images"], header=16).reshape(-1, 1, 28, 28)[indices]
    labels = _idx(fixture / files["labels"], header=8)[indices]
    scale, mean, std = (np.float32(np.ravel(spelled[key])[0]) for key in ("scale", "mean", "std"))
    return (pixels.astype(np.float32) * scale - mean) / std, labels.astype(np.int64)


def few_test_images(fixture: Path, count: int, folder: Path) -> str:
    """The first test images of a fixture as files of their own in `folder`; gives what `--test` takes. For tests that measure nothing."""
    files = tomllib.loads((fixture / "lsqc.toml").read_text())["data"]["test"]
    paths = []
    for key, header, size in (("images", 16, 28 * 28), ("labels", 8, 1)):
        content = gzip.decompress((fixture / files[key]).read_bytes())
        # The number of samples is the first extent, behind the magic number.
        few = content[:4] + count.to_bytes(4, "big") + content[8 : header + count * size]
        paths.append(folder / f"{key}.idx")
        paths[-1].write_bytes(few)
    return ",".join(map(str, paths))


def _idx(path: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


@dataclass
class StepResult:
    """What one run of a step graph gave."""

    loss: float
    gradients: dict[str, np.ndarray]
    """∂loss/∂p by the name of p; of a step, times g."""
    codes: dict[str, np.ndarray]
    """v̄ by the name of the quantizer."""
    ratios: dict[str, np.ndarray]
    """v/s, on which the masks stand, by the name of the quantizer."""


class StepGraph:
    """The files of `--emit-step DIR --emit-gradients`, run in onnxruntime as they are but for one more output for each quantizer: its v/s.

    Levels alone do not show the mask: v/s just under Q_P rounds to the level of v/s just above it.
    """

    def __init__(self, folder: Path) -> None:
        description = json.loads((folder / "step.json").read_text())
        self.inputs, self.outputs = description["inputs"], description["outputs"]
        with np.load(folder / "state.npz") as arrays:
            self.state = {port["name"]: arrays[port["initial"]] for port in self.inputs if "initial" in port}
        model = onnx.load(folder / "step.onnx")
        self._codes = [port["name"] for port in self.outputs if port["role"] == "code"]
        self._ratios = [_ratio_of(model.graph, code) for code in self._codes]
        have = {output.name for output in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(self._ratios) if name not in have)
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def names(self, role: str) -> list[str]:
        """The inputs that play `role`."""
        return [port["name"] for port in self.inputs if port["role"] == role]

    def run(self, image: np.ndarray, label: np.ndarray) -> StepResult:
        """One step from `state`, at learning rate 0."""
        (batch,), (labels,), (rate,) = self.names("batch"), self.names("label"), self.names("learning_rate")
        feeds = self.state | {batch: image, labels: label, rate: np.zeros((), np.float32)}
        (loss,) = (port["name"] for port in self.outputs if port["role"] == "loss")
        gradients = {port["of"]: port["name"] for port in self.outputs if port["role"] == "gradient"}
        wanted = list(dict.fromkeys([loss, *gradients.values(), *self._codes, *self._ratios]))
        values = dict(zip(wanted, self._session.run(wanted, feeds)))
        sites = [name.removeprefix("code/") for name in self._codes]
        return StepResult(
            float(values[loss]),
            {of: values[name] for of, name in gradients.items()},
            {site: values[name] for site, name in zip(sites, self._codes)},
            {site: values[name] for site, name in zip(sites, self._ratios)},
        )


def _ratio_of(graph: onnx.GraphProto, code: str) -> str:
    """The value v/s behind the level v̄ = round(clip(v/s)): the nearest Div above it."""
    producers = {output: node for node in graph.node for output in node.output}
    name = code
    while producers[name].op_type != "Div":
        name = producers[name].input[0]
    return name
