"""The lowered file equals the trained network and runs in integers.

    python tests/python/check_lowered.py target/release/lsqc [--all] [--match 'mobilenet, 3 bits']

Each case trains a fixture for a few steps. Then: no mismatch in any layer, and nearly every test image keeps its class (from lsqc's
report); the file passes `onnx.checker` and loads; in ONNX Runtime's optimised model of placements q8 and shared every convolution is a
QLinearConv and the classifier runs in integers. `--all`: every number of bits, placement and engine; else those that differ most.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime

from support import FIXTURES, Tally, check, few_test_images, lsqc

BITS = (2, 3, 4, 8)
PLACEMENTS = ("q8", "shared", "paper")
ENGINES = ("ort", "tract")

TEST_IMAGES = 2000
"""All test images of the fixtures."""
FEW_TEST_IMAGES = 500
"""Of them in a usual run, whose time is that of measuring three networks."""
TOP1_CHANGES_AT_8_BITS = {TEST_IMAGES: 8, FEW_TEST_IMAGES: 3}
"""By the number of images. At a tie both neighbours are right, and one other level cascades through the layers behind it; 8-bit quantizers
have the most ties. Of few images one more is allowed than the share that is allowed of all: single images come unevenly."""
TOP1_CHANGES_BELOW = {TEST_IMAGES: 4, FEW_TEST_IMAGES: 2}
"""The same below 8 bits."""
PROOF_IMAGES = 256
BATCH = 32
STEPS = {2: 24}
"""Steps by bits: at 2 bits a network must be trained a little to classify; before that its images lie at random on both sides of every
boundary."""
FEW_STEPS = 3
"""Steps at other bits."""

INTEGER_CLASSIFIERS = {"QGemm", "MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul"}
FLOAT_PRODUCTS = {"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


@dataclass(frozen=True)
class Case:
    """One run of `lsqc quantize`."""

    fixture: str
    bits: int
    placement: str
    engine: str

    def __str__(self) -> str:
        return f"{self.fixture}, {self.bits} bits, {self.placement}, {self.engine}"


def every_case() -> Iterator[Case]:
    """The whole matrix."""
    return itertools.starmap(Case, itertools.product(FIXTURES, BITS, PLACEMENTS, ENGINES))


def is_usual(case: Case) -> bool:
    """Does the case run without `--all`? Bits do not change where quantizers stand, so that one placement takes all of them; the
    embedded engine is slower and takes the fewest and the most."""
    if case.engine == "tract":
        return case.placement == "q8" and case.bits in (3, 8)
    return case.placement == "q8" or case.bits == 3


def test_set(fixture: Path, test_images: int, folder: Path) -> list[object]:
    """What lsqc is told, to measure on so many images."""
    return [] if test_images == TEST_IMAGES else ["--test", few_test_images(fixture, test_images, folder)]


def run(binary: Path, case: Case, test_images: int) -> str:
    """Runs and checks one case."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = ["--bits", case.bits, "--placement", case.placement, "--engine", case.engine, "--proof-images", PROOF_IMAGES]
        training = ["--steps", STEPS.get(case.bits, FEW_STEPS), "--batch", BATCH]
        training += test_set(FIXTURES[case.fixture], test_images, folder)
        outputs = ["-o", folder / "lowered.onnx", "--report", folder / "report.json", "--quiet"]
        lsqc(binary, "quantize", FIXTURES[case.fixture] / "model.onnx", *flags, *training, *outputs, folder=folder)
        report = json.loads((folder / "report.json").read_text())
        check_report(report, case, PROOF_IMAGES, test_images)
        check_model(folder / "lowered.onnx")
        if case.placement != "paper":
            check_integers(folder / "lowered.onnx", folder / "optimised.onnx")
    same = report["metrics"]["fake_quantized_lowered"]["same_top1"]
    ties = sum(layer["ties"] for layer in report["proof"]["layers"])
    return f"{test_images - same} classes change, {ties} ties, {time.monotonic() - start:.0f} s"


def check_report(report: dict, case: Case, proof_images: int, test_images: int) -> None:
    """The proof holds on as many images as asked, and classes stay; of `case` its engine and bits are looked at."""
    check(report["engine"]["name"] == case.engine, f"it ran on {report['engine']['name']}")
    proof = report["proof"]
    check(proof["images"] == proof_images, f"the proof ran on {proof['images']} images")
    check(bool(proof["layers"]), "the proof has no layer")
    broken = [layer["name"] for layer in proof["layers"] if layer["mismatches"] or not layer["compared"]]
    check(not broken, f"mismatches, or nothing compared, in {broken}")
    agreement = report["metrics"]["fake_quantized_lowered"]
    check(agreement["samples"] == test_images, f"measured on {agreement['samples']} images")
    changes = agreement["samples"] - agreement["same_top1"]
    allowed = (TOP1_CHANGES_AT_8_BITS if case.bits == 8 else TOP1_CHANGES_BELOW)[test_images]
    check(changes <= allowed, f"{changes} images change their class, more than {allowed}")


def check_model(path: Path) -> None:
    """The file is valid ONNX and loads with the runtime's default settings."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - any failure is the finding
        check(False, f"the file is refused: {error}")


def check_integers(path: Path, optimised: Path) -> None:
    """ONNX Runtime fuses every convolution and the classifier into integer ops."""
    before = [node.op_type for node in onnx.load(path).graph.node]
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimised)
    # Extended, not all: what is beyond lays convolutions out for one processor.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3  # it warns that the optimised file is for this machine
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    after = [(node.op_type, node.name) for node in onnx.load(optimised).graph.node]
    floats = [f"{op} {name}" for op, name in after if op in FLOAT_PRODUCTS]
    check(not floats, f"these stay in floats: {floats}")
    ops = [op for op, _ in after]
    convolutions, classifiers = before.count("Conv"), before.count("Gemm") + before.count("MatMul")
    check(convolutions > 0 and classifiers > 0, "the lowered file has no convolution or no classifier")
    check(ops.count("QLinearConv") == convolutions, f"{ops.count('QLinearConv')} QLinearConv for {convolutions} Conv")
    integer = sum(op in INTEGER_CLASSIFIERS for op in ops)
    check(integer == classifiers, f"{integer} of {classifiers} classifiers run in integers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lsqc", type=Path)
    parser.add_argument("--all", action="store_true", help="the whole matrix")
    parser.add_argument("--match", metavar="TEXT", default="", help="only cases whose name has this in it")
    arguments = parser.parse_args()
    binary = arguments.lsqc.resolve()
    tally = Tally()
    test_images = TEST_IMAGES if arguments.all else FEW_TEST_IMAGES
    for case in every_case():
        if (arguments.all or is_usual(case)) and arguments.match in str(case):
            tally.case(f"lowered {case}", lambda: run(binary, case, test_images))
    tally.finish()


if __name__ == "__main__":
    main()
