"""The step graph of `--emit-step --emit-gradients`, run in plain onnxruntime, gives torch's gradients for every parameter and step.

    python tests/python/check_gradients.py target/release/lsqc

The reference, from an independent torch model in double precision, is stored in `fixtures/fashion-*/gradients.npz`: for every tensor its
norm and its values at some positions, and what each quantizer chose. `fixtures/make_gradient_reference.py` makes it and compares every
value; run that after a change of the models, of lsqc's placement or of its gradients.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from support import FIXTURES, StepGraph, Tally, check, images, lsqc

BITS = 3
"""Bits of the layers between the first and the last."""
BATCH = 4
"""Images in the batch: enough for batch statistics, few enough to find a batch without a rounding flip soon."""
KEPT_VALUES = 256
"""Values of each gradient that the stored reference has, at even distances."""

MEDIAN = 1e-5
"""Half of the tensors agree to a hundred roundings of a float."""
WORST_PARAMETER = 1e-3
"""Batch statistics over a few images subtract numbers that are nearly equal, layer upon layer, in single precision."""
WORST_STEP = 1e-2
"""A step's gradient is one sum over a whole tensor, of terms of both signs that cancel."""
FLOOR = 1e-6
"""Share of the largest gradient under which a gradient counts as zero: single precision has no smaller part of it."""
START = 1e-4
"""Initial steps are means over thousands of values: sums in another order, on another processor, differ by far less."""
REMAKE = "make the reference again with fixtures/make_gradient_reference.py"


@dataclass
class Comparison:
    """How far gradients are from the reference."""

    median: float
    parameter: tuple[float, str]
    step: tuple[float, str]
    complaints: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"median {self.median:.1e}, worst parameter {self.parameter[0]:.1e} ({self.parameter[1]}), "
            f"worst step {self.step[0]:.1e} ({self.step[1]})"
        )


def compare(
    expected: dict[str, np.ndarray],
    actual: dict[str, np.ndarray],
    steps: set[str],
    floor: float | None = None,
) -> Comparison:
    """‖difference‖ / max(‖gradient‖, floor) of every tensor, against the bounds."""
    if set(expected) != set(actual):
        return Comparison(np.inf, (np.inf, ""), (np.inf, ""), [f"no gradient on one side: {sorted(set(expected) ^ set(actual))}"])
    norms = {name: np.linalg.norm(gradient) for name, gradient in expected.items()}
    floor = FLOOR * max(norms.values()) if floor is None else floor
    errors = {name: np.linalg.norm(actual[name] - expected[name]) / max(norms[name], floor) for name in expected}
    worst = lambda names: max(((float(errors[name]), name) for name in names), default=(0.0, "none"))  # noqa: E731
    result = Comparison(float(np.median(list(errors.values()))), worst(set(errors) - steps), worst(set(errors) & steps))
    # `not <` rather than `>=`: NaN is a complaint too.
    if not result.median < MEDIAN:
        result.complaints.append(f"the median of the relative differences is {result.median:.2e}, over {MEDIAN:.0e}")
    for name, error in errors.items():
        bound = WORST_STEP if name in steps else WORST_PARAMETER
        if not error < bound:
            result.complaints.append(f"the gradient of '{name}' is off by {error:.2e}, over {bound:.0e} (its norm is {norms[name]:.2e})")
    return result


def kept(gradient: np.ndarray) -> np.ndarray:
    """The values that are stored: at most `KEPT_VALUES`. An odd stride would leave out no axis of even extents."""
    stride = -(-gradient.size // KEPT_VALUES) | 1
    return gradient.reshape(-1)[::stride]


def pattern(ratio: np.ndarray, q_n: int, q_p: int) -> np.ndarray:
    """What a quantizer chooses: twice the level, plus one inside the mask."""
    level = np.rint(np.clip(ratio, -q_n, q_p)).astype(np.int16)
    return (level * 2 + ((ratio > -q_n) & (ratio < q_p))).astype(np.int16)


def emit(binary: Path, fixture: Path, folder: Path) -> StepGraph:
    """The step graph of a fixture before the first step."""
    asked = ["--bits", BITS, "--steps", 0, "--batch", BATCH, "--init", "lsq", "--loss", "both", "--placement", "q8"]
    outputs = ["-o", folder / "model.onnx", "--emit-step", folder / "step", "--emit-gradients", "--proof-images", 1]
    lsqc(binary, "quantize", fixture / "model.onnx", *asked, *outputs, "--quiet", "--engine", "ort", folder=folder)
    return StepGraph(folder / "step")


def run(binary: Path, fixture: Path) -> str:
    """Compares one fixture with its stored reference."""
    with np.load(fixture / "gradients.npz") as stored:
        reference = dict(stored)
    digest = hashlib.sha256((fixture / "model.onnx").read_bytes()).hexdigest()
    check(digest == str(reference["model_sha256"]), f"the reference belongs to another model.onnx: {REMAKE}")
    part = lambda prefix: {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)}  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        step = emit(binary, fixture, Path(folder))

    steps = set(step.names("step"))
    start = part("start/")
    check(set(start) == steps, f"the steps are others than in the reference: {sorted(set(start) ^ steps)}; {REMAKE}")
    for name, value in start.items():
        check(abs(step.state[name] / value - 1) < START, f"'{name}' starts at {step.state[name]}, in the reference at {value}")
    # To the last bit: a step that is one rounding off may move a level.
    step.state |= start
    result = step.run(*images(fixture, reference["indices"]))

    bounds = part("bounds/")
    check(set(result.ratios) == set(bounds), "the quantizers are others than in the reference")
    for site, digest in part("pattern/").items():
        chosen = pattern(result.ratios[site], *bounds[site])
        same = hashlib.sha256(chosen.tobytes()).digest() == digest.tobytes()
        check(same, f"'{site}' chooses other levels or masks than the reference: {REMAKE}, or lsqc's forward pass has changed")
        check(np.array_equal(result.codes[site], chosen >> 1), f"the levels of '{site}' are not round(clip(v/s))")

    # The floor is that of whole tensors, and whole norms are compared as well.
    norms = part("norm/")
    floor = FLOOR * max(norms.values())
    comparison = compare(part("values/"), {name: kept(value) for name, value in result.gradients.items()}, steps, floor)
    check(not comparison.complaints, "; ".join(comparison.complaints))
    for name, norm in norms.items():
        error = abs(np.linalg.norm(result.gradients[name].astype(np.float64)) - norm) / max(norm, floor)
        check(error < (WORST_STEP if name in steps else WORST_PARAMETER), f"the norm of the gradient of '{name}' is off by {error:.2e}")
    return f"{len(norms)} tensors, seed {reference['seed']} (the first of {reference['seed'] + 1} to agree): {comparison}"


def main() -> None:
    binary = Path(sys.argv[1]).resolve()
    tally = Tally()
    for name, fixture in FIXTURES.items():
        tally.case(f"gradients of {name}", lambda: run(binary, fixture))
    tally.finish()


if __name__ == "__main__":
    main()
