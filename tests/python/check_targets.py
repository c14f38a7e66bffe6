"""The file for each target equals the trained network, and computes the same levels where it will run.

    python tests/python/check_targets.py target/release/lsqc [--all] [--match 'tensorrt, mobilenet'] [--table]

Each case trains a fixture for a few steps for one target, per tensor or per channel. Then, besides what check_lowered.py checks of every
file: the example of its hand-over folder runs; each layer, cut out between its integer inputs and its integer result, gives the same levels in another runtime than ONNX Runtime:
OpenVINO for `openvino`, where every convolution must also run in integers, and the onnx package's reference evaluator for `tensorrt` and
`portable`, whose levels must be int8 with zero point 0 and whose biases are floats. `--all`: every number of bits, fixture and
granularity, on all test images; `--table` also prints them as a table.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx.reference import ReferenceEvaluator

from check_lowered import FEW_STEPS, FEW_TEST_IMAGES, STEPS, TEST_IMAGES, check_model, check_report, test_set
from support import FIXTURES, Tally, check, images, lsqc

TARGETS = ("ort", "openvino", "tensorrt", "portable")
BITS = (2, 3, 4, 8)
PROOF_IMAGES = 64
BATCH = 32
IMAGES = {"openvino": 16, "tensorrt": 1, "portable": 1}
"""Images that go through other runtimes; the reference evaluator is slow."""

ONE_LEVEL = 1e-4
"""The share of levels that may differ by one. Runtimes round the float scale of an accumulator differently, which shows where a value lies at
a half: of 8-bit levels, which have the most, several in 100,000 do."""

Levels = dict[str, np.ndarray]
Runner = Callable[[onnx.ModelProto, Levels], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One run of `lsqc quantize`."""

    target: str
    fixture: str
    bits: int
    per_channel: bool
    engine: str = "ort"

    def __str__(self) -> str:
        granularity = "per channel" if self.per_channel else "per tensor"
        return f"{self.target}, {self.fixture}, {self.bits} bits, {granularity}"

    @property
    def placement(self) -> str:
        """Shortcuts alone are quantized for runtimes that add them at the end of a layer."""
        return "shortcut" if self.target in ("openvino", "tensorrt") else "q8"


def every_case() -> Iterator[Case]:
    """The whole matrix."""
    return itertools.starmap(Case, itertools.product(TARGETS, FIXTURES, BITS, (False, True)))


def is_usual(case: Case) -> bool:
    """Does the case run without `--all`? The fixtures differ in where they add, the bits in what is clipped; check_lowered.py has `ort` per
    tensor."""
    if case.target == "ort":
        return case.per_channel and case.bits == 4
    return (case.fixture, case.bits, case.per_channel) in {("resnet20", 3, True), ("mobilenet", 8, False)}


@dataclass
class Row:
    """What one case came to."""

    case: Case
    lost: float
    mismatches: int
    ties: int
    changed: int


def run(binary: Path, case: Case, test_images: int, rows: list[Row]) -> str:
    """Runs and checks one case."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Without VNNI, processors add up pairs of products in 16 bits, also in OpenVINO, which has no setting against it.
        sums = ["--no-vnni"] if case.target == "openvino" else []
        flags = ["--target", case.target, "--bits", case.bits, "--engine", "ort", "--proof-images", PROOF_IMAGES, *sums]
        flags += ["--per-channel"] if case.per_channel else []
        training = ["--steps", STEPS.get(case.bits, FEW_STEPS), "--batch", BATCH]
        training += test_set(FIXTURES[case.fixture], test_images, folder)
        lowered = folder / "lowered.onnx"
        outputs = ["-o", lowered, "--report", folder / "report.json", "--deploy", folder / "handover", "--quiet"]
        lsqc(binary, "quantize", FIXTURES[case.fixture] / "model.onnx", *flags, *training, *outputs, folder=folder)
        report = json.loads((folder / "report.json").read_text())
        check(report["settings"]["target"] == case.target, "it is for another target")
        check(report["settings"]["placement"] == case.placement, f"its placement is {report['settings']['placement']}")
        check_report(report, case, PROOF_IMAGES, test_images)
        check_model(lowered)
        steps = {layer["weights"]["steps"] for layer in report["layers"] if layer["weights"]}
        check((steps != {1}) == case.per_channel, f"weights have {sorted(steps)} steps")
        check_handover(folder / "handover", lowered, case)
        remark = ""
        if case.target != "ort":
            remark = check_elsewhere(lowered, case)
        if case.target in ("tensorrt", "portable"):
            check_signed_bytes(lowered)
    same = report["metrics"]["fake_quantized_lowered"]["same_top1"]
    layers = report["proof"]["layers"]
    ties, mismatches = (sum(layer[key] for layer in layers) for key in ("ties", "mismatches"))
    rows.append(Row(case, report["metrics"]["drop"]["points"], mismatches, ties, test_images - same))
    return f"{test_images - same} classes change, {ties} ties{remark}, {time.monotonic() - start:.0f} s"


def check_handover(folder: Path, lowered: Path, case: Case) -> None:
    """The folder has the same model, its manifest is right about it, and its example runs the sample and gets lsqc's class: or, where sums
    saturate, that of ONNX Runtime with its usual kernels, which the example has."""
    manifest = json.loads((folder / "manifest.json").read_text())
    model = (folder / "model.onnx").read_bytes()
    check(model == lowered.read_bytes(), "the folder's model is not the lowered one")
    check(manifest["model"]["sha256"] == hashlib.sha256(model).hexdigest(), "the manifest has another hash")
    example = subprocess.run([sys.executable, folder / "example.py"], capture_output=True, text=True, check=False)
    check(example.returncode == 0, f"the example ended with {example.returncode}: {example.stderr}")
    with np.load(folder / "sample.npz") as sample:
        best = int(sample["output_0"].argmax())
        if case.target != "openvino" and sums_saturate():
            session = onnxruntime.InferenceSession(lowered, providers=["CPUExecutionProvider"])
            feeds = {port["name"]: sample[port["array"]] for port in manifest["inputs"]}
            best = int(session.run(None, feeds)[0].argmax())
    check(f"classes [[{best}, " in example.stdout, f"the example has not the class {best}: {example.stdout}")


@functools.cache
def sums_saturate() -> bool:
    """Is this an x86 processor without VNNI? lsqc asks the runtime for its precise kernels there."""
    return platform.machine() in ("x86_64", "AMD64") and "vnni" not in Path("/proc/cpuinfo").read_text()


def check_signed_bytes(path: Path) -> None:
    """Levels are int8 around 0, nothing stands between a quantizer's two halves, biases are floats."""
    graph = onnx.load(path).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            check(zero.dtype == np.int8 and not zero.any(), f"{node.name} has the zero point {zero}")
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants:
            check(makers[node.input[0]].op_type == "QuantizeLinear", f"{node.name} does not follow its quantizer")
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2:
            check(constants[node.input[2]].dtype == np.float32, f"{node.name} has no float bias")


def check_elsewhere(path: Path, case: Case) -> str:
    """Every layer gives the levels that ONNX Runtime gives, from the same levels."""
    model = onnx.load(path)
    integer, floats = openvino_convolutions(path) if case.target == "openvino" else (0, 0)
    check(floats == 0, f"{floats} of {integer + floats} convolutions run in floats in OpenVINO")
    runner = in_openvino if case.target == "openvino" else in_reference
    batch, _ = images(FIXTURES[case.fixture], np.arange(IMAGES[case.target]))
    pieces, values = cut(model, batch)
    compared = near = 0
    for piece, result in pieces:
        feeds = {each.name: values[each.name] for each in piece.graph.input}
        difference = np.abs(runner(piece, feeds).astype(np.int32) - values[result].astype(np.int32))
        check(int(difference.max()) <= 1, f"'{result}' differs by {difference.max()} levels")
        compared, near = compared + difference.size, near + int(difference.sum())
    check(bool(pieces), "no layer was compared")
    check(near <= ONE_LEVEL * compared, f"{near} of {compared} levels differ by one")
    where = f", all {integer} convolutions in integers" if integer else ""
    return f", {near} of {compared} levels elsewhere{where}"


def cut(model: onnx.ModelProto, batch: np.ndarray) -> tuple[list[tuple[onnx.ModelProto, str]], Levels]:
    """The model in pieces that take levels (or the input) and give levels, and what ONNX Runtime has there for `batch`."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    taken = [node.input[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] not in constants]
    # A weight that is packed has a Cast before it, and is no level of an activation.
    levels = list(dict.fromkeys(name for name in taken if makers[name].op_type != "Cast"))
    source = graph.input[0].name
    kind = onnx.TensorProto.UINT8 if constants_dtype(model, makers, levels[0]) == np.uint8 else onnx.TensorProto.INT8

    whole = onnx.ModelProto.FromString(model.SerializeToString())
    whole.graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name in levels)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = dict(zip(names, session.run(None, {source: batch}), strict=True)) | {source: batch}

    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
    pieces = []
    for result in levels:
        inputs, pending, seen = [], [result], set()
        while pending:
            name = pending.pop()
            if name != result and (name in levels or name == source):
                if name not in inputs:
                    inputs.append(name)
            elif name in makers and name not in seen:
                seen.add(name)
                pending.extend(each for each in makers[name].input if each and each not in constants)
        piece = extractor.extract_model(inputs, [result])
        for each in piece.graph.input:
            value = values[each.name]
            dtype = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            each.type.CopyFrom(onnx.helper.make_tensor_type_proto(dtype, value.shape))
        for each in piece.graph.output:
            each.type.CopyFrom(onnx.helper.make_tensor_type_proto(kind, None))
        pieces.append((piece, result))
    return pieces, values


def constants_dtype(model: onnx.ModelProto, makers: dict[str, onnx.NodeProto], levels: str) -> np.dtype:
    """The type of a quantizer's levels, by its zero point."""
    node = makers[levels]
    while node.op_type != "QuantizeLinear":
        node = makers[node.input[0]]
    return next(onnx.numpy_helper.to_array(each).dtype for each in model.graph.initializer if each.name == node.input[2])


def in_reference(piece: onnx.ModelProto, feeds: Levels) -> np.ndarray:
    """The piece's result in the onnx package's reference evaluator, which has quantizers from operator set 19 on; what the ops of a piece mean
    did not change there."""
    for each in piece.opset_import:
        each.version = max(each.version, 19)
    return ReferenceEvaluator(piece).run(None, feeds)[0]


def in_openvino(piece: onnx.ModelProto, feeds: Levels) -> np.ndarray:
    """The piece's result in OpenVINO."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "piece.onnx"
        onnx.save(piece, path)
        compiled = openvino.Core().compile_model(path, "CPU")
        return compiled({each.get_any_name(): feeds[each.get_any_name()] for each in compiled.inputs})[compiled.output(0)]


def openvino_convolutions(path: Path) -> tuple[int, int]:
    """Convolutions that OpenVINO computes in integers, and those that it does not."""
    integer = floats = 0
    for op in openvino.Core().compile_model(path, "CPU").get_runtime_model().get_ops():
        info = op.get_rt_info()
        if info["layerType"].astype(str) == "Convolution":
            in_integers = info["runtimePrecision"].astype(str) in ("u8", "i8")
            integer, floats = integer + in_integers, floats + (not in_integers)
    return integer, floats


def table(rows: list[Row]) -> str:
    """The cases as a Markdown table."""
    lines = ["| target | network | bits | weights' steps | mismatches | ties | classes that change |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        case = row.case
        steps = "per channel" if case.per_channel else "per tensor"
        lines.append(f"| {case.target} | {case.fixture} | {case.bits} | {steps} | {row.mismatches} | {row.ties} | {row.changed} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lsqc", type=Path)
    parser.add_argument("--all", action="store_true", help="the whole matrix")
    parser.add_argument("--match", metavar="TEXT", default="", help="only cases whose name has this in it")
    parser.add_argument("--table", action="store_true", help="print a table of the cases")
    arguments = parser.parse_args()
    binary = arguments.lsqc.resolve()
    tally, rows = Tally(), []
    test_images = TEST_IMAGES if arguments.all else FEW_TEST_IMAGES
    for case in every_case():
        if (arguments.all or is_usual(case)) and arguments.match in str(case):
            tally.case(f"target {case}", lambda: run(binary, case, test_images, rows))
    if arguments.table:
        print(table(rows))
    tally.finish()


if __name__ == "__main__":
    main()
