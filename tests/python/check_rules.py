"""The rules of `lsqc check --target ort` against ONNX Runtime itself: small files, right ones and ones that break a rule.

    python tests/python/check_rules.py target/release/lsqc

Of each file ONNX Runtime is asked whether it loads and runs it, which of its layers stay in floats under its default optimizations, and whether
it computes with them what it computes without. A file of which all is well must break no rule, another one just the rule that is named. Not
asked here are rules on time (int8 activations, a table that is dequantized as a whole), and what other versions do with float biases.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser
from support import Tally, check

# Ops that are computed in floats, and must not be left of a quantized layer.
FLOAT_OPS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "MatMulNBits", "FusedMatMul", "Add", "LeakyRelu"}
# Between results that are levels of steps of 0.02 and more, or sums of few products: float rounding is far below, a level far above.
SAME = 1e-3

X = "xq = QuantizeLinear(x, sx, z) xd = DequantizeLinear(xq, sx, z) "
W = "wd = DequantizeLinear(w, sw, zi) bd = DequantizeLinear(b, sb, zb) "
CONV = X + W + "c = Conv(xd, wd, bd) "
OUT = "yq = QuantizeLinear(c, sy, z) y = DequantizeLinear(yq, sy, z)"
SECOND = "ud = DequantizeLinear(u, sw, zi) e = Conv(p, ud) eq = QuantizeLinear(e, sz, z) y = DequantizeLinear(eq, sz, z)"
Q = "q = QuantizeLinear(c, sy, z) d = DequantizeLinear(q, sy, z) "
GEMM = "hd = DequantizeLinear(h, sw, zi) bd = DequantizeLinear(b, sb, zb) "
# Weights of at most 60: beside uint8 their sums of two stay within the 16 bits of processors without VNNI.
INITIAL = """float sx = {0.0173}, float sw = {0.0211}, float sy = {0.0237}, float sz = {0.0331}, uint8 z = {0}, uint8 z128 = {128}, int8 zi = {0},
    int32 zb = {0}, float sb = {0}, int32 one = {200}, int8[2,2,1,1] w = {30, -50, 60, 40}, int8[2,2,1,1] u = {30, -50, 60, 40},
    float[2] bf = {0.5, -1.5}, int32[2] b = {10000, -3000}, uint8 lo = {0}, uint8 hi = {15}, float f0 = {0}, float f1 = {1}, float f6 = {6.1},
    float[2] s2 = {0.02, 0.05}, int8[2] z2 = {0, 0}, uint8[2] zz = {0, 0}, int8[2,2] h = {30, -50, 60, 40}, float[1,1,2] b3 = {1, 2},
    int64[2] flat = {1, 32}, int64[4] shape = {1, 2, 4, 4}, int8[32,2] m = {%s}, int8[2,2] t = {1, 2, 3, 4}""" % ", ".join(
    str(index * 37 % 101 - 50) for index in range(64)
)
IMAGE, MATRIX, CUBE = "float[1,2,4,4] x", "float[1,2] x", "float[1,1,2] x"

# Name, rule (None: all is well), operator set, inputs, outputs, body.
CASES = [
    ("a convolution", None, 17, IMAGE, "float[A,B,C,D] y", CONV + OUT),
    ("levels that a Clip narrows", None, 17, IMAGE, "float[A,B,C,D] y", CONV + "yq = QuantizeLinear(c, sy, z) k = Clip(yq, lo, hi) y = DequantizeLinear(k, sy, z)"),
    ("uint16", "activation-uint8", 21, IMAGE, "float[A,B,C,D] y", CONV.replace(", z)", ", z16)") + OUT),
    ("uint4", "activation-uint8", 21, IMAGE, "float[A,B,C,D] y", CONV.replace(", z)", ", z4)") + OUT),
    ("scales of an activation's channels", "activation-per-tensor", 17, IMAGE, "float[A,B,C,D] y",
     "xq = QuantizeLinear <axis = 1> (x, s2, zz) xd = DequantizeLinear <axis = 1> (xq, s2, zz) wd = DequantizeLinear(w, sw, zi) c = Conv(xd, wd) " + OUT),
    ("no zero points around a convolution", None, 17, IMAGE, "float[A,B,C,D] y", CONV.replace(", z)", ")").replace(", zi)", ")").replace(", zb)", ")") + OUT.replace(", z)", ")")),
    ("a Relu that the levels hold", None, 17, IMAGE, "float[A,B,C,D] y", CONV + "r = Relu(c) " + OUT.replace("(c,", "(r,")),
    ("the same, and a Clip of levels", None, 17, IMAGE, "float[A,B,C,D] y",
     CONV + "r = Relu(c) yq = QuantizeLinear(r, sy, z) k = Clip(yq, lo, hi) y = DequantizeLinear(k, sy, z)"),
    ("a Relu before signed levels", "clamp-before-quantizer", 17, IMAGE, "float[A,B,C,D] y", CONV + "r = Relu(c) " + OUT.replace("(c,", "(r,").replace("z)", "z128)")),
    ("a Clip within the levels", "clamp-before-quantizer", 17, IMAGE, "float[A,B,C,D] y", CONV + "r = Clip(c, f0, f1) " + OUT.replace("(c,", "(r,")),
    ("a Clip around the levels", None, 17, IMAGE, "float[A,B,C,D] y", CONV + "r = Clip(c, f0, f6) " + OUT.replace("(c,", "(r,")),
    ("two quantizers", "one-quantizer", 17, IMAGE, "float[A,B,C,D] y, float[A,B,C,D] v", CONV + OUT + " q2 = QuantizeLinear(c, sz, z) v = DequantizeLinear(q2, sz, z)"),
    ("two quantizers of one grid", None, 17, IMAGE, "float[A,B,C,D] y, float[A,B,C,D] v", CONV + OUT + " q2 = QuantizeLinear(c, sy, z) v = DequantizeLinear(q2, sy, z)"),
    ("a pair behind a pair", "second-clip", 17, IMAGE, "float[A,B,C,D] y",
     CONV + "q = QuantizeLinear(c, sx3, z) d = DequantizeLinear(q, sx3, z) q2 = QuantizeLinear(d, s5, z) y = DequantizeLinear(q2, s5, z)"),
    ("the same with a Clip", None, 17, IMAGE, "float[A,B,C,D] y",
     CONV + "q = QuantizeLinear(c, sx3, z) d = DequantizeLinear(q, sx3, z) q2 = QuantizeLinear(d, s5, z) k = Clip(q2, lo, hi) y = DequantizeLinear(k, s5, z)"),
    ("a MaxPool between", None, 17, IMAGE, "float[A,B,C,D] y", CONV + Q + "p = MaxPool <kernel_shape = [2, 2]> (d) " + SECOND),
    ("a Reshape between", None, 17, IMAGE, "float[A,B,C,D] y", CONV + Q + "p = Reshape(d, shape) " + SECOND),
    ("a Transpose between", None, 17, IMAGE, "float[A,B,C,D] y", CONV + Q + "p = Transpose <perm = [0, 1, 3, 2]> (d) " + SECOND),
    ("a GlobalMaxPool between", "repeat-behind-moves", 17, IMAGE, "float[A,B,C,D] y", CONV + Q + "p = GlobalMaxPool(d) " + SECOND),
    ("a Concat between", "repeat-behind-moves", 17, IMAGE, "float[A,B,C,D] y", CONV + Q + "p = Concat <axis = 0> (d, d) " + SECOND),
    ("a Flatten before a Gemm", "repeat-behind-moves", 17, IMAGE, "float[A,B] y", X + "f = Flatten(xd) md = DequantizeLinear(m, sw, zi) bd = DequantizeLinear(b, sb, zb) y = Gemm(f, md, bd)"),
    ("a Flatten and a quantizer", None, 17, IMAGE, "float[A,B] y",
     X + "f = Flatten(xd) fq = QuantizeLinear(f, sx, z) fd = DequantizeLinear(fq, sx, z) md = DequantizeLinear(m, sw, zi) bd = DequantizeLinear(b, sb, zb) y = Gemm(fd, md, bd)"),
    ("scales of output channels", None, 17, IMAGE, "float[A,B,C,D] y", X + "wd = DequantizeLinear <axis = 0> (w, s2, z2) c = Conv(xd, wd) " + OUT),
    ("scales of input channels", "weight-axis", 17, IMAGE, "float[A,B,C,D] y", X + "wd = DequantizeLinear <axis = 1> (w, s2, z2) c = Conv(xd, wd) " + OUT),
    ("weights in floats behind a quantizer", None, 17, IMAGE, "float[A,B,C,D] y", X + "wq = QuantizeLinear(wf, sw, zi) wd = DequantizeLinear(wq, sw, zi) c = Conv(xd, wd) " + OUT),
    ("int4 behind a Cast", None, 21, IMAGE, "float[A,B,C,D] y", X + "wc = Cast <to = 3> (w4) wd = DequantizeLinear(wc, sw, zi) c = Conv(xd, wd) " + OUT),
    ("int4 in a convolution", "packed-cast", 21, IMAGE, "float[A,B,C,D] y", X + "wd = DequantizeLinear(w4, sw, zi4) c = Conv(xd, wd) " + OUT),
    ("int4 in a MatMul", "packed-cast", 21, CUBE, "float[A,B,C] y", X + "wd = DequantizeLinear(h4, sw, zi4) y = MatMul(xd, wd)"),
    ("int4 in an old operator set", "opset-forms", 17, IMAGE, "float[A,B,C,D] y", X + "wc = Cast <to = 3> (w4) wd = DequantizeLinear(wc, sw, zi) c = Conv(xd, wd) " + OUT),
    ("a bias on another grid", "bias-grid", 17, IMAGE, "float[A,B,C,D] y", CONV.replace("(b, sb,", "(b, sb_wrong,") + OUT),
    ("a bias with a zero point", "bias-grid", 17, IMAGE, "float[A,B,C,D] y", CONV.replace("(b, sb, zb)", "(b, sb, one)") + OUT),
    ("a Gemm", None, 17, MATRIX, "float[A,B] y", X + GEMM + "y = Gemm(xd, hd, bd)"),
    ("a Gemm without a zero point of its input", "zero-point-written", 17, MATRIX, "float[A,B] y", X.replace(", z)", ")") + GEMM + "y = Gemm(xd, hd, bd)"),
    ("a Gemm without a zero point of its weight", "zero-point-written", 17, MATRIX, "float[A,B] y", X + GEMM.replace(", zi)", ")") + "y = Gemm(xd, hd, bd)"),
    ("a Gemm without a zero point of its bias", None, 17, MATRIX, "float[A,B] y", X + GEMM.replace(", zb)", ")") + "y = Gemm(xd, hd, bd)"),
    ("a Gemm with a float bias", "bias-int32", 17, MATRIX, "float[A,B] y", X + GEMM + "y = Gemm(xd, hd, bf)"),
    ("a MatMul", None, 17, CUBE, "float[A,B,C] y", X + GEMM + "y = MatMul(xd, hd)"),
    ("a MatMul without zero points", None, 17, CUBE, "float[A,B,C] y", (X + GEMM).replace(", z)", ")").replace(", zi)", ")") + "y = MatMul(xd, hd)"),
    ("a MatMul and a bias", "matmul-bias", 17, CUBE, "float[A,B,C] y", X + GEMM + "n = MatMul(xd, hd) y = Add(n, bf)"),
    ("a MatMul, a bias and a quantizer", None, 17, CUBE, "float[A,B,C] y", X + GEMM + "n = MatMul(xd, hd) c = Add(n, bf) " + OUT),
    ("a MatMul of a matrix and a bias", "matmul-bias", 17, MATRIX, "float[A,B] y", X + GEMM + "n = MatMul(xd, hd) y = Add(n, bf)"),
    ("an addition", None, 17, IMAGE, "float[A,B,C,D] y", CONV + Q + "a = Add(d, xd) " + OUT.replace("(c,", "(a,")),
    ("an addition with one input in floats", "add-sides", 17, IMAGE, "float[A,B,C,D] y", CONV + "a = Add(c, xd) " + OUT.replace("(c,", "(a,")),
    ("an addition with a result in floats", "add-sides", 17, IMAGE, "float[A,B,C,D] y", CONV + Q + "y = Add(d, xd)"),
]
# Weights of less than a byte, which the parser does not pack: name, type, elements, shape.
PACKED = [("w4", onnx.TensorProto.INT4, [3, -5, 7, 6], [2, 2, 1, 1]), ("h4", onnx.TensorProto.INT4, [3, -5, 7, 6], [2, 2]), ("zi4", onnx.TensorProto.INT4, [0], [])]


def model(opset: int, inputs: str, outputs: str, body: str) -> onnx.ModelProto:
    """The file of a case, with the constants that it uses."""
    version = {17: 8, 21: 10}[opset]
    text = f'<ir_version: {version}, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs}) <{INITIAL}> {{ {body} }}'
    made = parser.parse_model(text)
    graph = made.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    values["sb"] = values["sx"] * values["sw"]
    values["sb_wrong"] = values["sb"] * np.float32(1.01)
    values |= {"wf": np.float32([0.3, -0.5, 0.7, 0.9]).reshape(2, 2, 1, 1), "sx3": np.float32(0.0517), "s5": np.float32(0.0713)}
    values |= {"z16": np.uint16(0)}
    tensors = {name: numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()}
    for name, dtype, elements, shape in PACKED:
        nibbles = [*(element & 15 for element in elements), 0]
        packed = bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2]))
        tensors[name] = onnx.helper.make_tensor(name, dtype, shape, packed, raw=True)
    tensors["z4"] = onnx.helper.make_tensor("z4", onnx.TensorProto.UINT4, [], b"\0", raw=True)
    used = dict.fromkeys(name for node in graph.node for name in node.input if name in tensors)
    del graph.initializer[:]
    graph.initializer.extend(tensors[name] for name in used)
    return made


def asked(file: Path, shape: list[int]) -> str | None:
    """What ONNX Runtime does with the file that a rule is against; None where all is well."""
    feeds = {"x": np.random.default_rng(0).normal(scale=2, size=shape).astype(np.float32)}
    optimized = file.with_suffix(".optimized.onnx")
    results = []
    for level in (onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.log_severity_level = 4
        if not results:
            options.optimized_model_filepath = str(optimized)
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            results.append(session.run(None, feeds))
        except Exception as error:  # noqa: BLE001 - the binding has no class of its own for some of them
            return f"refuses it: {str(error)[:120]}"
    left = [node.op_type for node in onnx.load(str(optimized)).graph.node if node.op_type in FLOAT_OPS]
    if left:
        return f"computes {', '.join(left)} in floats"
    apart = max(float(np.abs(one - other).max()) for one, other in zip(*results))
    return f"gives results that are {apart:.3f} apart" if apart > SAME else None


def broken(binary: Path, file: Path) -> list[str]:
    """The rules that the file breaks."""
    run = subprocess.run([binary, "check", file, "--target", "ort", "--json"], env=os.environ, capture_output=True, text=True, check=False)
    check(run.returncode in (0, 3), f"lsqc check ended with {run.returncode}: {run.stderr.strip()}")
    return sorted({finding["rule"] for finding in json.loads(run.stdout)["findings"]})


def main() -> None:
    binary = Path(sys.argv[1]).resolve()
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        for name, rule, opset, inputs, outputs, body in CASES:

            def case() -> str | None:
                file = Path(folder) / "file.onnx"
                made = model(opset, inputs, outputs, body)
                onnx.save(made, str(file))
                shape = [dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim]
                what, rules = asked(file, shape), broken(binary, file)
                check(rules == ([rule] if rule else []), f"breaks {rules}, not {rule}; ONNX Runtime {what}")
                check((what is None) == (rule is None), f"breaks {rules}; ONNX Runtime {what or 'has nothing against it'}")
                return what

            tally.case(name, case)
    tally.finish()


if __name__ == "__main__":
    main()
