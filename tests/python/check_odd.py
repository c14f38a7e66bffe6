"""What lsqc does not know passes through unharmed: odd models, made here, each around three layers that are quantized.

    python tests/python/check_odd.py target/release/lsqc
    python tests/python/check_odd.py target/release/lsqc --large      with tensors over 2 GB, which takes minutes, 5 GB of disk and more of memory

Ops of other domains, branches and loops that take values from outside, functions in functions, sparse and external tensors, half precision.
Each is quantized to 8 bits in onnxruntime, two steps of training among it; the file passes the onnx package's checker, gives nearly what the
model gave, has the odd nodes as they were, and all three layers take levels. A model with an op that no runtime knows is refused by its name,
and nothing is written.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.external_data_helper import convert_model_to_external_data

from support import Tally, check, lsqc

SAMPLES = 32
NEAR = 20.0
"""Decibels that the file is above its own error at least: with 8 bits three layers of random weights have 30 and more."""
LAYERS = {"first", "second", "last"}
ROWS, WIDTH = 560_000, 1024
"""A table of 2.3 GB."""
TRAIN = ("--steps", "2", "--batch", "8", "--lr", "1e-5", "--test-fraction", "0.5", "--proof-images", "4")
RANDOM = np.random.default_rng(0)
IMPORTS = '"" : 17, "com.microsoft" : 1, "ai.onnx.ml" : 3, "here" : 1'


@dataclass
class Odd:
    """A model; `body` makes `odd` of `t`, float[N,6,8,8]."""

    name: str
    body: str
    kept: tuple[str, ...]
    """Ops of which the file has as many as the model."""
    functions: str = ""
    change: Callable[[onnx.ModelProto], onnx.ModelProto] = lambda model: model
    said: str = ""
    """What the report says of what stays in floats."""

    def model(self) -> onnx.ModelProto:
        """The model, with its weights."""
        text = f"""<ir_version: 9, opset_import: [{IMPORTS}]>
            odd (float[N,3,8,8] x) => (float[N,4] y) {{
                [first] c = Conv <pads = [1, 1, 1, 1]> (x, w)
                t = Relu (c)
                {self.body}
                [second] d = Conv (odd, v)
                e = Relu (d)
                p = GlobalAveragePool (e)
                f = Flatten (p)
                [last] y = Gemm (f, u, b)
            }}
            {self.functions}"""
        model = parser.parse_model(text)
        weights = {"w": (6, 3, 3, 3), "v": (8, 6, 3, 3), "u": (8, 4), "b": (4,)}
        constants = [numpy_helper.from_array((RANDOM.normal(size=shape) / 3).astype(np.float32), name) for name, shape in weights.items()]
        model.graph.initializer.extend(constants)
        used = {node.domain for graph in graphs(model) for node in graph.node}
        kept = [entry for entry in model.opset_import if entry.domain in used | {""}]
        del model.opset_import[:]
        model.opset_import.extend(kept)
        return self.change(model)


def graphs(model: onnx.ModelProto) -> list[onnx.GraphProto | onnx.FunctionProto]:
    """The main graph, functions, and all graphs in them."""
    found, pending = [], [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        found.append(graph)
        pending += [attribute.g for node in graph.node for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
    return found


def ops(model: onnx.ModelProto, names: tuple[str, ...]) -> list[tuple[str, str, list[str]]]:
    """Nodes of these ops with their attributes, without those that are graphs."""
    nodes = [node for graph in graphs(model) for node in graph.node if node.op_type in names]
    plain = lambda node: sorted(str(attribute) for attribute in node.attribute if attribute.type != onnx.AttributeProto.GRAPH)
    return sorted((node.domain, node.op_type, plain(node)) for node in nodes)


def sparse(model: onnx.ModelProto) -> onnx.ModelProto:
    """With a sparse constant: a map that is 2 at two places and 0 elsewhere, added to the features."""
    dense = np.zeros((1, 6, 8, 8), np.float32)
    places = np.array([7, 200], np.int64)
    dense.ravel()[places] = 2
    constant = helper.make_sparse_tensor(
        helper.make_tensor("map", TensorProto.FLOAT, [2], dense.ravel()[places]), helper.make_tensor("", TensorProto.INT64, [2], places), dense.shape
    )
    model.graph.sparse_initializer.append(constant)
    return model


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """In float16."""
    for index, constant in enumerate(model.graph.initializer):
        model.graph.initializer[index].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant).astype(np.float16), constant.name))
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


ODD = [
    Odd("ops of ONNX Runtime's own domain", "a = Constant <value = int32 {2}> ()  g = com.microsoft.ExpandDims (t, a)  q = Constant <value = int64[1] {2}> ()  odd = Squeeze (g, q)", ("ExpandDims",)),
    Odd("ops of ONNX's other domain", "h = ai.onnx.ml.Scaler <offset = [0.1], scale = [0.5]> (t)  odd = Identity (h)", ("Scaler",)),
    Odd(
        "a branch that is taken at run time",
        """m = ReduceMean <keepdims = 0> (t)  o = Constant <value = float {0.2}> ()  more = Greater (m, o)
           odd = If (more) <then_branch = yes () => (float[N,6,8,8] a) { a = Sub (t, o) },
                            else_branch = no () => (float[N,6,8,8] s) {
                                k = Constant <value = float[6,6,1,1] {0.1, 0, 0, 0, 0, 0, 0, 0.1, 0, 0, 0, 0, 0, 0, 0.1, 0, 0, 0, 0, 0, 0, 0.1, 0, 0, 0, 0, 0, 0, 0.1, 0, 0, 0, 0, 0, 0, 0.1}> ()
                                [inner] s = Conv (t, k) }>""",
        ("If", "Sub"),
        said="it stands in a branch or a loop of",
    ),
    Odd(
        "a loop around a value from outside",
        """three = Constant <value = int64 {3}> ()  yes = Constant <value = bool {1}> ()
           odd = Loop (three, yes, t) <body = once (int64 i, bool on, float[N,6,8,8] a) => (bool still, float[N,6,8,8] s) {
                still = Identity (on)  h = Constant <value = float {0.5}> ()  r = Mul (t, h)  s = Max (a, r) }>""",
        ("Loop", "Max"),
    ),
    Odd(
        "functions in functions",
        "odd = here.Twice (t)",
        (),
        """<domain: "here", opset_import: ["" : 17, "here" : 1]> Twice (a) => (s) { b = here.Half (a)  c = here.Half (b)  s = Add (b, c) }
           <domain: "here", opset_import: ["" : 17]> Half (a) => (s) { h = Constant <value = float {0.5}> ()  s = Mul (a, h) }""",
    ),
    Odd("a sparse constant", "odd = Add (t, map)", (), change=sparse),
    Odd("half precision", "odd = Identity (t)", (), change=half),
]


def data(folder: Path, **more: np.ndarray) -> dict[str, np.ndarray]:
    """Writes data; gives one batch of it."""
    arrays = {"x": RANDOM.normal(size=(SAMPLES, 3, 8, 8)).astype(np.float32), **more}
    np.savez(folder / "data.npz", **arrays, label=RANDOM.integers(0, 4, SAMPLES))
    return {name: array[:8] for name, array in arrays.items()}


def run(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """What a file gives in onnxruntime, in double precision."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    half = {"tensor(float16)": np.float16}
    fed = {port.name: feeds[port.name].astype(half.get(port.type, feeds[port.name].dtype)) for port in session.get_inputs()}
    return session.run(None, fed)[0].astype(np.float64)


def quantized(folder: Path, binary: Path, feeds: dict[str, np.ndarray]) -> tuple[onnx.ModelProto, dict, str]:
    """The file that becomes of `model.onnx`, without tensors outside of it, its report, and a remark."""
    lsqc(binary, "quantize", "model.onnx", "--data", "data.npz", "--engine", "ort", "--bits", "8", "-o", "out.onnx", *TRAIN, folder=folder)
    report = json.loads((folder / "out.report.json").read_text())
    onnx.checker.check_model(folder / "out.onnx")
    levels = {layer["name"] for layer in report["layers"] if layer["weights"]}
    check(levels == LAYERS, f"the layers with levels are {levels}")
    exact, got = run(folder / "model.onnx", feeds), run(folder / "out.onnx", feeds)
    ratio = 10 * np.log10((exact**2).sum() / max(((exact - got) ** 2).sum(), 1e-30))
    check(ratio > NEAR, f"the file is {ratio:.1f} dB from the model")
    return onnx.load(folder / "out.onnx", load_external_data=False), report, f"{ratio:.0f} dB"


def passes(odd: Odd, binary: Path, external: bool = False) -> str:
    """The model, all of its tensors outside if asked for, goes through."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = odd.model()
        if external:
            convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
        onnx.save(model, folder / "model.onnx")
        out, report, remark = quantized(folder, binary, data(folder))
        before, after = ops(onnx.load(folder / "model.onnx"), odd.kept), ops(out, odd.kept)
        check(before == after and len(after) >= len(odd.kept), f"{before} became {after}")
        said = [site["reason"] for site in report["not_quantized"]]
        check(any(odd.said in reason for reason in said) or not odd.said, f"of what stays in floats is said: {said}")
        return remark


def unknown(binary: Path) -> str:
    """An op that no runtime knows: an error that names it, and no file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        odd = Odd("", "odd = here.Secret (t)", ())
        onnx.save(odd.model(), folder / "model.onnx")
        data(folder)
        there = sorted(folder.iterdir())
        command = [binary, "quantize", "model.onnx", "--data", "data.npz", "--engine", "tract", "-o", "out.onnx"]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        check(ended.returncode == 5, f"it ended with {ended.returncode}: {ended.stderr}")
        check("Secret" in ended.stderr, f"the op is not named: {ended.stderr}")
        check(sorted(folder.iterdir()) == there, "a file was left")
        return "refused"


def large(binary: Path) -> str:
    """A table over 2 GB outside the file, of which rows are gathered and added to the features of the last layer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Odd("", "odd = Identity (t)", ()).model()
        table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[ROWS, WIDTH], data_location=TensorProto.EXTERNAL)
        table.external_data.add(key="location", value="table.bin")
        model.graph.initializer.append(table)
        model.graph.input.append(helper.make_tensor_value_info("row", TensorProto.INT64, ["N"]))
        gather = [
            helper.make_node("Gather", ["table", "row"], ["whole"], "gather"),
            helper.make_node("Slice", ["whole", "from", "to", "axis"], ["part"], "slice"),
            helper.make_node("Add", ["f", "part"], ["sum"], "sum"),
        ]
        last = next(node for node in model.graph.node if node.name == "last")
        last.input[0] = "sum"
        nodes = [*model.graph.node[:-1], *gather, last]
        model.graph.initializer.extend(numpy_helper.from_array(np.array([at], np.int64), key) for key, at in (("from", 0), ("to", 8), ("axis", 1)))
        model.graph.ClearField("node")
        model.graph.node.extend(nodes)
        rows = np.memmap(folder / "table.bin", np.float32, "w+", shape=(ROWS, WIDTH))
        row = np.linspace(0, ROWS - 1, SAMPLES).astype(np.int64)
        rows[row] = RANDOM.normal(size=(SAMPLES, WIDTH))
        rows.flush()
        del rows
        onnx.save(model, folder / "model.onnx")
        _, _, remark = quantized(folder, binary, data(folder, row=row))
        sizes = {path.name: path.stat().st_size for path in folder.glob("out.onnx*")}
        check(sizes["out.onnx"] < 2**20 and sizes["out.onnx.data"] >= ROWS * WIDTH * 4, f"{sizes}")
        return f"{remark}, {sizes['out.onnx.data'] / 1e9:.2f} GB"


def main() -> None:
    """Runs every case."""
    binary = Path(sys.argv[1]).resolve()
    tally = Tally()
    for odd in ODD:
        tally.case(odd.name, lambda odd=odd: passes(odd, binary))
    tally.case("tensors outside the file", lambda: passes(Odd("", "odd = Identity (t)", ()), binary, external=True))
    tally.case("an op that nobody knows", lambda: unknown(binary))
    if "--large" in sys.argv:
        tally.case("tensors over 2 GB", lambda: large(binary))
    tally.finish()


if __name__ == "__main__":
    main()
