"""Fused ops and functions, spelled in standard ops, compute in onnxruntime what they computed before.

    python tests/python/check_fused.py target/release/lsqc

Four kinds of cases. Ops of ONNX Runtime's domain `com.microsoft`, in small models of a free batch and length: `lsqc opt` with the pass
`expand-fused`, and with the whole of what `quantize` runs first, leaves none, and results stay. The `onnx` package's node cases of Attention
and RotaryEmbedding: those that are expanded give the package's own results, and no others than the listed forms are declined. What
onnxruntime's own optimizer makes of the fixtures and of an encoder: no fused op is left of it, and it computes what it did. Models of
functions (references to attributes, defaults, functions in functions, in subgraphs): `inline-functions` leaves none. At the end a block of an
encoder in fused ops and one of a decoder in ONNX's own are quantized: every product is, on both sides, and the proof holds.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.backend.test.case import node as node_cases

from support import FIXTURES, Tally, check, lsqc

SAME = 2e-5
"""Of the largest result, or of 1: sums of a few hundred products in single precision in another order, and the runtime's own approximations of
erf, tanh and exp inside fused kernels."""

PLAIN = "freeze-defaults,inline-functions,lift-constants,upgrade-opset,expand-fused,fold-shapes,fold-constants,inline-branches,fold-shapes"
PLAIN += ",remove-identities,remove-dead,infer-types"
"""What `quantize` runs first."""

DECLINED = ("past", "present", "nonpad", "padded_kv", "qk_matmul", "fp16", "bf16", "window", "ext_cache", "precision")
"""Words in the names of node cases whose form has no spelling."""

B, S, T, D, HEADS = 2, 5, 6, 16, 4
RANDOM = np.random.default_rng(0)
FUSED = "com.microsoft"


def values(*shape: int) -> np.ndarray:
    """Floats around 0."""
    return RANDOM.normal(size=shape).astype(np.float32)


@dataclass
class Case:
    """One node of a fused op. Operands with a name of axes are fed; constants have none."""

    op: str
    operands: list[tuple[np.ndarray, list | None] | None]
    attributes: dict = field(default_factory=dict)
    about: str = ""
    outputs: tuple[str, ...] = ("y",)
    domain: str = FUSED
    opsets: tuple[int, ...] = (13,)

    def model(self, opset: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
        """The model, and what it is fed."""
        names, inputs, constants, feeds = [], [], [], {}
        for index, operand in enumerate(self.operands):
            name = f"x{index}" if operand is not None else ""
            names.append(name)
            if operand is None:
                continue
            value, axes = operand
            if axes is None:
                constants.append(numpy_helper.from_array(value, name))
            else:
                inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), axes))
                feeds[name] = value
        node = helper.make_node(self.op, names, list(self.outputs), "fused", domain=self.domain, **self.attributes)
        integers = {"length": TensorProto.INT32}
        results = [helper.make_tensor_value_info(name, integers.get(name, TensorProto.FLOAT), None) for name in self.outputs if name]
        graph = helper.make_graph([node], "g", inputs, results, constants)
        imports = [helper.make_opsetid("", opset), helper.make_opsetid(FUSED, 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10), feeds


def fed(value: np.ndarray, *axes: object) -> tuple[np.ndarray, list]:
    """An operand that is fed."""
    return value, list(axes) or [f"d{axis}" for axis in range(value.ndim)]


def constant(value: np.ndarray) -> tuple[np.ndarray, None]:
    """An operand that the model has."""
    return value, None


def sequence(length: int = S, width: int = D, name: str = "S") -> tuple[np.ndarray, list]:
    """Features of a sequence of any length."""
    return fed(values(B, length, width), "N", name, width)


def kept(*shape: int) -> np.ndarray:
    """A mask of integers; the first key always takes part."""
    mask = (RANDOM.random(shape) < 0.6).astype(np.int32)
    mask[..., 0] = 1
    return mask


def contrib() -> list[Case]:
    """The cases of ops of `com.microsoft`."""
    x, skip, gamma, beta, bias = sequence(), sequence(), *(constant(values(D)) for _ in range(3))
    weights, three = constant(values(D, 3 * D) / 4), constant(values(3 * D))
    norms = (13, 17, 18, 23)
    cases = [
        Case("Gelu", [x]),
        Case("FastGelu", [x]),
        Case("FastGelu", [x, bias], about="bias"),
        Case("BiasGelu", [x, bias]),
        Case("QuickGelu", [x], {"alpha": 1.5}),
        Case("SkipLayerNormalization", [x, skip, gamma], {"epsilon": 1e-3}, opsets=norms),
        Case("SkipLayerNormalization", [x, skip, gamma, beta, bias], {}, "all", ("y", "", "", "sum"), opsets=norms),
        Case("SkipSimplifiedLayerNormalization", [x, skip, gamma, bias], {}, "", ("y", "", "", "sum"), opsets=norms),
        Case("SimplifiedLayerNormalization", [x, gamma], {"axis": -1, "epsilon": 1e-4}, domain="", opsets=norms),
        Case("SimplifiedLayerNormalization", [x, gamma], {"axis": 2}, "axis 2", domain=""),
        Case("LayerNormalization", [x, gamma, beta], {"axis": -1}, "of operator set 13", domain=""),
    ]
    matrix = lambda *shape: fed(values(*shape))
    for a, b in itertools.product((0, 1), repeat=2):
        left = matrix(3, 2, 4, 5) if not a else matrix(3, 2, 5, 4)
        right = matrix(3, 2, 5, 6) if not b else matrix(3, 2, 6, 5)
        cases.append(Case("FusedMatMul", [left, right], {"transA": a, "transB": b, "alpha": 0.5}, f"transposed {a} {b}"))
    cases.append(Case("FusedMatMul", [matrix(4, 3, 2, 5), matrix(3, 2, 5, 6)], {"transBatchA": 1}, "batch of A"))
    cases.append(Case("FusedMatMul", [matrix(3, 2, 4, 5), matrix(5, 3, 2, 6)], {"transBatchB": 1}, "batch of B"))
    cases.append(
        Case("FusedMatMul", [matrix(5, 3, 2, 4), matrix(3, 2, 5, 6)], {"transBatchA": 1, "transA": 1}, "batch of A, transposed")
    )
    for name, given in [("Relu", {}), ("Tanh", {}), ("Sigmoid", {}), ("LeakyRelu", {"activation_alpha": 0.2})]:
        operands = [fed(values(4, 6), "N", 6), constant(values(8, 6)), constant(values(8))]
        cases.append(Case("FusedGemm", operands, {"transB": 1, "alpha": 0.5, "activation": name} | given, name))
    picture = fed(values(1, 3, 8, 8), "N", 3, "H", "W")
    for name, given in [
        ("Relu", None),
        ("Tanh", None),
        ("Sigmoid", None),
        ("LeakyRelu", [0.3]),
        ("Clip", [-0.5, 0.75]),
        ("HardSigmoid", [0.3, 0.4]),
    ]:
        attributes = {"activation": name, "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
        attributes |= {"activation_params": given} if given else {}
        operands = [picture, constant(values(4, 3, 3, 3)), constant(values(4))]
        cases.append(Case("FusedConv", operands, attributes, name))
        cases.append(Case("FusedConv", [*operands, fed(values(1, 4, 8, 8))], attributes, f"{name}, sum"))
    cases += attentions(x, weights, three)
    ids = fed(RANDOM.integers(0, 9, (B, S)).astype(np.int32), "N", "S")
    parts = [constant(values(9, D)), constant(values(12, D)), constant(values(2, D)), gamma, beta]
    segments = fed(RANDOM.integers(0, 2, (B, S)).astype(np.int32), "N", "S")
    places = fed(RANDOM.integers(0, 12, (B, S)).astype(np.int32), "N", "S")
    mask = fed(kept(B, S), "N", "S")
    cases += [
        Case("EmbedLayerNormalization", [ids, segments, *parts], {}, "", ("y", "unused"), opsets=(13, 17)),
        Case("EmbedLayerNormalization", [ids, segments, *parts, mask, places], {}, "places", ("y", "length", "sum")),
        Case("EmbedLayerNormalization", [ids, None, *parts[:2], None, *parts[3:]], {}, "no segments", ("y", "unused")),
    ]
    return cases


def attentions(x: tuple, weights: tuple, three: tuple) -> list[Case]:
    """The cases of Attention and MultiHeadAttention."""
    heads = {"num_heads": HEADS}
    mask = fed(kept(B, S), "N", "S")
    lengths = fed(np.array([3, S], np.int32), "N")
    square = fed(kept(B, S, S), "N", "S", "S")
    scores = fed(values(1, HEADS, S, S), 1, HEADS, "S", "S")
    # The product of Q, K and V at other widths.
    wide, widths = constant(values(D, D + D + 24) / 4), {"qkv_hidden_sizes": [D, D, 24]}
    q, k, v = sequence(), sequence(T, D, "T"), sequence(T, 24, "T")
    padding = fed(kept(B, T), "N", "T")
    bias = constant(values(D + D + 24))
    apart = fed(values(B, HEADS, S, T), "N", HEADS, "S", "T")
    attention = lambda operands, given, about: Case("Attention", operands, heads | given, about, opsets=(13, 18))
    multi = lambda operands, given, about: Case("MultiHeadAttention", operands, heads | given, about, opsets=(13, 18))
    return [
        attention([x, weights, three], {}, ""),
        attention([x, weights], {"scale": 0.3}, "no bias, scale"),
        attention([x, weights, three, mask], {"mask_filter_value": -100.0}, "mask of keys"),
        attention([x, weights, three, lengths], {}, "lengths"),
        attention([x, weights, three, lengths], {"unidirectional": 1}, "causal, lengths"),
        attention([x, weights, three, square], {}, "mask of pairs"),
        attention([x, weights, three], {"unidirectional": 1}, "causal"),
        attention([x, weights, three, mask], {"unidirectional": 1}, "causal, mask of keys"),
        attention([x, wide, constant(values(D + D + 24))], widths, "other widths"),
        attention([x, weights, three, None, None, scores], {}, "bias of scores"),
        attention([x, weights, three, mask, None, scores], {}, "mask and bias of scores"),
        multi([q, k, v], {}, ""),
        multi([q, k, v, bias], {"scale": 0.4}, "bias, scale"),
        multi([q, k, v, bias, padding], {}, "bias, padding"),
        multi([q, k, v, None, lengths], {}, "lengths"),
        multi([q, k, v, None, None, apart], {}, "bias of scores"),
        multi([q, k, v, bias, padding, apart], {}, "all"),
        multi([x, sequence(), sequence()], {"unidirectional": 1}, "causal"),
    ]


def session(model: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    """A session without fusions, which would undo what is compared."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def ops(graph: onnx.GraphProto) -> set[tuple[str, str]]:
    """Domain and name of every op, in subgraphs too."""
    found = set()
    for node in graph.node:
        found.add((node.domain, node.op_type))
        for attribute in node.attribute:
            found |= ops(attribute.g)
    return found


def compare(wanted: list[np.ndarray], given: list[np.ndarray]) -> float:
    """The largest difference, of the largest result or of 1."""
    worst = 0.0
    for one, other in zip(wanted, given, strict=True):
        check(one.shape == other.shape, f"a result has the shape {other.shape}, not {one.shape}")
        check(bool(np.isfinite(other).all()), "a result is not finite")
        worst = max(worst, float(np.abs(one - other).max(initial=0) / max(1.0, np.abs(one).max(initial=0))))
    check(worst <= SAME, f"results differ by {worst:.1e}")
    return worst


def expanded(binary: Path, model: onnx.ModelProto, feeds: dict, passes: str, gone: set, wanted: list | None = None) -> float:
    """Runs passes, checks that these ops are gone, and compares results."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(model, folder / "model.onnx")
        lsqc(binary, "opt", "model.onnx", "-p", passes, "-o", "plain.onnx", folder=folder)
        plain = onnx.load(folder / "plain.onnx")
        onnx.checker.check_model(plain, full_check=True)
        left = ops(plain.graph) & gone
        check(not left, f"left are {sorted(left)}")
        wanted = session(model).run(None, feeds) if wanted is None else wanted
        return compare(wanted, session(folder / "plain.onnx").run(None, feeds))


def contrib_case(binary: Path, case: Case) -> str:
    """One op in each operator set, by the pass alone and by all."""
    worst = 0.0
    for opset, passes in itertools.product(case.opsets, ("infer-types,expand-fused", PLAIN)):
        model, feeds = case.model(opset)
        # A result that is not wanted is not compared.
        if "unused" in case.outputs:
            del model.graph.output[list(case.outputs).index("unused")]
        standard = case.domain == "" and opset >= 17 and case.op == "LayerNormalization"
        gone = set() if standard else {(case.domain, case.op)}
        worst = max(worst, expanded(binary, model, feeds, passes, gone))
    return f"{worst:.0e}"


def node_case(binary: Path, case: object) -> str:
    """A node case of the onnx package against its own results."""
    inputs, outputs = case.data_sets[0]
    feeds = {value.name: array for value, array in zip(case.model.graph.input, inputs)}
    op = case.model.graph.node[0].op_type
    declined = any(word in case.name for word in DECLINED)
    gone = set() if declined else {("", op)}
    if declined:
        with tempfile.TemporaryDirectory() as name:
            onnx.save(case.model, Path(name) / "model.onnx")
            lsqc(binary, "opt", "model.onnx", "-p", "expand-fused", "-o", "plain.onnx", folder=Path(name))
            left = ops(onnx.load(Path(name) / "plain.onnx").graph)
        check(("", op) in left, "it is expanded, and its name says that it is declined")
        return "declined"
    return f"{expanded(binary, case.model, feeds, 'expand-fused', gone, list(outputs)):.0e}"


FUNCTIONS = """
<ir_version: 10, opset_import: ["" : 17, "local" : 1, "inner" : 1]>
network (float[N, 8] x, bool choice) => (float[N, 8] y, float[N, 8] z)
<float[8, 8] w = {%s}>
{
    t = local.layer <slope: float = 0.3> (x, w)
    y = If (choice) <then_branch = yes () => (a) { a = local.layer (t, w) }, else_branch = no () => (a) { a = Neg (t) }>
    z = local.layer <axes: ints = [0]> (y, w)
}
<domain: "local", opset_import: ["" : 17, "inner" : 1]>
layer <slope: float = 0.1, axes: ints = [1]> (x, w, bias) => (y)
{
    m = MatMul (x, w)
    a = inner.activate <alpha: float = @slope> (m)
    n = inner.centre <over: ints = @axes> (a)
    y = Add (n, x)
}
<domain: "inner", opset_import: ["" : 17]>
activate <alpha> (x) => (y)
{
    y = LeakyRelu <alpha: float = @alpha> (x)
}
<domain: "inner", opset_import: ["" : 16]>
centre <over> (x) => (y)
{
    mean = ReduceMean <axes: ints = @over, keepdims = 1> (x)
    y = Sub (x, mean)
}
"""


def functions(binary: Path) -> str:
    """A model of functions, by the pass alone and by all."""
    weight = ", ".join(f"{value:.3f}" for value in values(64) / 4)
    model = parser.parse_model(FUNCTIONS % weight)
    onnx.checker.check_model(model)
    gone = {("local", "layer"), ("inner", "activate"), ("inner", "centre")}
    worst = 0.0
    for passes, choice in itertools.product(("inline-functions", PLAIN), (True, False)):
        feeds = {"x": values(B, 8), "choice": np.array(choice)}
        worst = max(worst, expanded(binary, model, feeds, passes, gone))
    return f"{worst:.0e}"


def encoder(folder: Path) -> tuple[Path, Path]:
    """A block of an encoder in fused ops, and data for it."""
    rows, width, hidden, classes = 8, 32, 64, 4
    sizes = {"w": (width, 3 * width), "o": (width, width), "u": (width, hidden), "d": (hidden, width), "c": (width, classes)}
    constants = {name: values(*shape) / np.sqrt(shape[0]) for name, shape in sizes.items()}
    constants |= {"wb": values(3 * width) / 4, "ob": values(width) / 4, "ub": values(hidden) / 4, "db": values(width) / 4}
    constants |= {name: np.ones(width, np.float32) for name in ("g1", "g2")} | {name: values(width) / 4 for name in ("b1", "b2")}
    fused = lambda op, inputs, name, **given: helper.make_node(op, inputs, [name], name, domain=FUSED, **given)
    plain = lambda op, inputs, name, **given: helper.make_node(op, inputs, [name], name, **given)
    nodes = [
        fused("Attention", ["x", "w", "wb", "mask"], "attention", num_heads=4),
        plain("MatMul", ["attention", "o"], "out"),
        fused("SkipLayerNormalization", ["out", "x", "g1", "b1", "ob"], "norm1"),
        plain("MatMul", ["norm1", "u"], "up"),
        fused("BiasGelu", ["up", "ub"], "gelu"),
        plain("MatMul", ["gelu", "d"], "down"),
        fused("SkipLayerNormalization", ["down", "norm1", "g2", "b2", "db"], "norm2"),
        plain("ReduceMean", ["norm2"], "mean", axes=[1], keepdims=0),
        fused("FastGelu", ["mean"], "fast"),
        plain("MatMul", ["fast", "c"], "y"),
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", rows, width]),
            helper.make_tensor_value_info("mask", TensorProto.INT32, ["N", rows]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
    model, data = folder / "model.onnx", folder / "data.npz"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), model)
    np.savez(data, x=values(48, rows, width), mask=kept(48, rows), label=np.arange(48) % classes)
    return model, data


def optimized(binary: Path, source: Path) -> str:
    """What onnxruntime's own optimizer makes of a network, spelled in standard ops again, computes what the network computes."""
    with tempfile.TemporaryDirectory() as name:
        fused = Path(name) / "fused.onnx"
        options = onnxruntime.SessionOptions()
        # One more level makes layouts of this machine's own.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(fused)
        inputs = onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"]).get_inputs()
        feeds = {}
        for given in inputs:
            shape = [extent if isinstance(extent, int) else B for extent in given.shape]
            feeds[given.name] = values(*shape) if given.type == "tensor(float)" else kept(*shape)
        model = onnx.load(fused)
        gone = {op for op in ops(model.graph) if op[0]}
        check(bool(gone), "nothing is fused")
        off = expanded(binary, model, feeds, PLAIN, gone, session(source).run(None, feeds))
    return f"{', '.join(sorted(op for _, op in gone))}, {off:.0e}"


def optimized_encoder(binary: Path) -> str:
    """The same of the encoder, spelled in standard ops before."""
    with tempfile.TemporaryDirectory() as name:
        encoder(Path(name))
        lsqc(binary, "opt", "model.onnx", "-p", PLAIN, "-o", "plain.onnx", folder=Path(name))
        return optimized(binary, Path(name) / "plain.onnx")


def decoder(folder: Path) -> tuple[Path, Path]:
    """A block of a decoder in ONNX's own ops: positions turned, a causal mask, a mask of keys, heads of queries that share keys."""
    rows, width, shared, classes = 8, 32, 16, 4
    sizes = {"wq": (width, width), "wk": (width, shared), "wv": (width, shared), "wo": (width, width), "wc": (width, classes)}
    constants = {name: values(*shape) / np.sqrt(shape[0]) for name, shape in sizes.items()}
    angles = np.arange(rows)[:, None] * 0.5 ** np.arange(4)
    constants |= {"cos": np.cos(angles), "sin": np.sin(angles)}
    nodes = [helper.make_node("MatMul", ["x", f"w{name}"], [name], name) for name in "qkv"]
    for name, heads in (("q", 4), ("k", 2)):
        nodes.append(helper.make_node("RotaryEmbedding", [name, "cos", "sin", "place"], [f"{name}r"], num_heads=heads))
    given = {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": 1}
    nodes += [
        helper.make_node("Attention", ["qr", "kr", "v", "mask"], ["a"], "attention", **given),
        helper.make_node("MatMul", ["a", "wo"], ["out"], "out"),
        helper.make_node("ReduceMean", ["out", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "wc"], ["y"], "y"),
    ]
    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", rows, width]),
            helper.make_tensor_value_info("place", TensorProto.INT64, ["N", rows]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, ["N", 1, 1, rows]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
        + [numpy_helper.from_array(np.array([1]), "axes")],
    )
    model, data = folder / "model.onnx", folder / "data.npz"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), model)
    mask = kept(48, 1, 1, rows).astype(bool)
    # A sample without any key.
    mask[0] = False
    places = np.tile(np.arange(rows), (48, 1))
    np.savez(data, x=values(48, rows, width), place=places, mask=mask, label=np.arange(48) % classes)
    return model, data


def quantized(binary: Path, network: Callable[[Path], tuple[Path, Path]], wanted: dict[str, int]) -> str:
    """Every product of a network is quantized on both sides, and trained, and the proof holds; `wanted` has the bits of weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, data = network(folder)
        flags = ["--bits", "w4a8", "--steps", 3, "--batch", 8, "--proof-images", 8, "--engine", "ort", "--threads", 1, "--quiet"]
        lsqc(binary, "quantize", model, "--data", data, *flags, "-o", "lowered.onnx", "--report", "report.json", folder=folder)
        report = json.loads((folder / "report.json").read_text())
        layers = {layer["name"]: layer["weights"]["bits"] for layer in report["layers"] if layer["weights"]}
        check(layers == wanted, f"the layers are {layers}")
        products = {layer["name"]: layer["activations"] for layer in report["layers"] if not layer["weights"]}
        check(products.keys() == {"attention/scores", "attention/context"}, f"the products are {sorted(products)}")
        check(all(len(operands) == 2 for operands in products.values()), "a product is not quantized on both sides")
        signs = [operand["signed"] for operand in products["attention/context"]]
        check(signs == [False, True], f"the signs of probabilities and values are {signs}")
        proven = {layer["name"]: layer["mismatches"] for layer in report["proof"]["layers"]}
        check(bool(proven) and not any(proven.values()), f"the proof says {proven}")
        left = ops(onnx.load(folder / "lowered.onnx").graph)
        fused = {op for domain, op in left if domain or op in ("Attention", "RotaryEmbedding")}
        check(not fused, f"the lowered file has {sorted(fused)}")
    return f"{len(layers)} layers, {len(products)} products"


def main() -> None:
    binary = Path(sys.argv[1]).resolve()
    tally = Tally()
    for case in contrib():
        tally.case(f"{case.op} {case.about}".strip(), lambda case=case: contrib_case(binary, case))
    for case in node_cases.collect_testcases(None):
        wanted = case.name.startswith(("test_attention", "test_rotary_embedding")) and not case.name.endswith("_expanded")
        if wanted:
            tally.case(case.name, lambda case=case: node_case(binary, case))
    for name, folder in FIXTURES.items():
        tally.case(f"{name}, optimized", lambda folder=folder: optimized(binary, folder / "model.onnx"))
    tally.case("an encoder, optimized", lambda: optimized_encoder(binary))
    tally.case("functions", lambda: functions(binary))
    # First and last layers have 8 bits; `up` has the shortcut before it, on which there is no other layer.
    parts = {"attention/query": 8, "attention/key": 8, "attention/value": 8, "out": 4, "up": 8, "down": 4, "y": 8}
    tally.case("an encoder is quantized", lambda: quantized(binary, encoder, parts))
    parts = {"q": 8, "k": 8, "v": 8, "out": 4, "y": 8}
    tally.case("a decoder is quantized", lambda: quantized(binary, decoder, parts))
    tally.finish()


if __name__ == "__main__":
    main()
