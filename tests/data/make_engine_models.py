"""Writes the models of tests/engine_*.rs beside this file: `python make_engine_models.py` (needs onnx and numpy).

The weights follow formulas, so that the tests can compute what a model must give without reading it.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

HERE = Path(__file__).parent


def save(name, nodes, inputs, outputs, initializers=(), opset=17, domains=()):
    graph = h.make_graph(nodes, name, inputs, outputs, [numpy_helper.from_array(a, n) for n, a in initializers])
    imports = [h.make_opsetid("", opset)] + [h.make_opsetid(d, 1) for d in domains]
    model = h.make_model(graph, opset_imports=imports, ir_version=8, producer_name="make_engine_models.py")
    if not domains:
        onnx.checker.check_model(model, full_check=True)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


def tensor(name, dtype, shape):
    return h.make_tensor_value_info(name, dtype, shape)


def wave(shape, scale):
    """Smooth, irregular, and the same on every machine."""
    n = int(np.prod(shape))
    return (scale * np.sin(1.7 * np.arange(n) + 0.3)).astype(np.float32).reshape(shape)


def cnn():
    """A convolutional classifier with a symbolic batch."""
    save(
        "engine_cnn",
        [
            h.make_node("Conv", ["x", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            h.make_node("BatchNormalization", ["c1", "gamma", "beta", "mean", "var"], ["n1"]),
            h.make_node("Relu", ["n1"], ["r1"]),
            h.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
            h.make_node("Conv", ["p1", "w2"], ["c2"], kernel_shape=[3, 3], group=4, strides=[2, 2], pads=[0, 0, 1, 1]),
            h.make_node("Relu", ["c2"], ["r2"]),
            h.make_node("Flatten", ["r2"], ["f"]),
            h.make_node("Gemm", ["f", "w3", "b3"], ["g"], transB=1),
            h.make_node("LogSoftmax", ["g"], ["y"], axis=1),
        ],
        [tensor("x", T.FLOAT, ["N", 2, 8, 8])],
        [tensor("y", T.FLOAT, ["N", 3]), tensor("p1", T.FLOAT, ["N", 4, 4, 4])],
        [
            ("w1", wave((4, 2, 3, 3), 0.4)),
            ("b1", wave((4,), 0.1)),
            ("gamma", 1 + wave((4,), 0.2)),
            ("beta", wave((4,), 0.3)),
            ("mean", wave((4,), 0.2)),
            ("var", 1 + wave((4,), 0.5)),
            ("w2", wave((4, 1, 3, 3), 0.5)),
            ("w3", wave((3, 16), 0.3)),
            ("b3", wave((3,), 0.1)),
        ],
    )


def momentum():
    """One step of linear regression by SGD with momentum 0.9: m' = 0.9 m + dL/dw, w' = w - lr m'."""
    save(
        "engine_momentum",
        [
            h.make_node("MatMul", ["x", "w"], ["p"]),
            h.make_node("Sub", ["p", "y"], ["e"]),
            h.make_node("Mul", ["e", "e"], ["ee"]),
            h.make_node("ReduceMean", ["ee"], ["loss"], keepdims=0),
            h.make_node("Transpose", ["x"], ["xt"], perm=[1, 0]),
            h.make_node("MatMul", ["xt", "e"], ["xe"]),
            h.make_node("Shape", ["x"], ["n0"], start=0, end=1),
            h.make_node("Cast", ["n0"], ["n"], to=T.FLOAT),
            h.make_node("Div", ["two", "n"], ["k"]),
            h.make_node("Mul", ["xe", "k"], ["grad"]),
            h.make_node("Mul", ["m", "mu"], ["mm"]),
            h.make_node("Add", ["mm", "grad"], ["m_next"]),
            h.make_node("Mul", ["m_next", "lr"], ["d"]),
            h.make_node("Sub", ["w", "d"], ["w_next"]),
        ],
        [
            tensor("w", T.FLOAT, [4, 1]),
            tensor("x", T.FLOAT, ["N", 4]),
            tensor("m", T.FLOAT, [4, 1]),
            tensor("y", T.FLOAT, ["N", 1]),
            tensor("lr", T.FLOAT, []),
        ],
        [tensor("m_next", T.FLOAT, [4, 1]), tensor("loss", T.FLOAT, []), tensor("w_next", T.FLOAT, [4, 1])],
        [("two", np.float32([2])), ("mu", np.float32(0.9))],
    )


def dtypes():
    """Every type that lsqc hands to an engine, through an operator where both engines have one for it."""
    kinds = {"f32": T.FLOAT, "f64": T.DOUBLE, "f16": T.FLOAT16, "i64": T.INT64, "i32": T.INT32, "u8": T.UINT8, "i8": T.INT8, "bool": T.BOOL}
    nodes = [h.make_node("Add", [f"{k}_in", f"{k}_in"], [f"{k}_out"]) for k in ("f32", "f64", "i64", "i32")]
    nodes += [h.make_node("Reshape", [f"{k}_in", "flat"], [f"{k}_out"]) for k in ("f16", "u8", "i8")]
    nodes += [h.make_node("Not", ["bool_in"], ["bool_out"])]
    flat = {"f16", "u8", "i8"}
    save(
        "engine_dtypes",
        nodes,
        [tensor(f"{k}_in", t, [2, 3]) for k, t in kinds.items()],
        [tensor(f"{k}_out", t, [6] if k in flat else [2, 3]) for k, t in kinds.items()],
        [("flat", np.int64([-1]))],
    )


def qdq():
    """A lowered convolution, as `lower` writes it: uint8 levels in and out, int8 weights and int32 biases per output channel."""
    channels, inputs = 4, 3
    o, c, i, j = np.meshgrid(range(channels), range(inputs), range(3), range(3), indexing="ij")
    weight = ((7 * o + 5 * c + 3 * i + 2 * j) % 15 - 7).astype(np.int8) * 8
    sx, sw, sy = np.float32(0.0314), (0.00271 * (1 + np.arange(channels))).astype(np.float32), np.float32(0.117)
    bias = np.int32([40, -700, 1300, 0])
    zero8, zero32 = np.zeros(channels, np.int8), np.zeros(channels, np.int32)
    save(
        "engine_qdq",
        [
            h.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
            h.make_node("Clip", ["xq", "xlo", "xhi"], ["x_levels"]),
            h.make_node("DequantizeLinear", ["x_levels", "sx", "zx"], ["xd"]),
            h.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], axis=0),
            h.make_node("DequantizeLinear", ["b", "sb", "zb"], ["bd"], axis=0),
            h.make_node("Conv", ["xd", "wd", "bd"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            h.make_node("QuantizeLinear", ["c", "sy", "zy"], ["cq"]),
            h.make_node("Clip", ["cq", "ylo", "yhi"], ["y_levels"]),
            h.make_node("DequantizeLinear", ["y_levels", "sy", "zy"], ["y"]),
        ],
        [tensor("x", T.FLOAT, ["N", inputs, 5, 5])],
        [
            tensor("y", T.FLOAT, ["N", channels, 5, 5]),
            tensor("x_levels", T.UINT8, ["N", inputs, 5, 5]),
            tensor("y_levels", T.UINT8, ["N", channels, 5, 5]),
        ],
        [
            ("sx", sx), ("zx", np.uint8(0)), ("xlo", np.uint8(0)), ("xhi", np.uint8(15)),
            ("w", weight), ("sw", sw), ("zw", zero8),
            ("b", bias), ("sb", (sx * sw).astype(np.float32)), ("zb", zero32),
            ("sy", sy), ("zy", np.uint8(128)), ("ylo", np.uint8(124)), ("yhi", np.uint8(131)),
        ],
        opset=13,
    )


def gather():
    """Fails while it runs, if an index is out of range."""
    save(
        "engine_gather",
        [h.make_node("Gather", ["rows", "i"], ["y"], axis=0)],
        [tensor("i", T.INT64, [3])],
        [tensor("y", T.FLOAT, [3])],
        [("rows", np.float32([0, 1, 2, 3]))],
    )


def unknown():
    """An operator that no engine has."""
    save(
        "engine_unknown",
        [h.make_node("Frobnicate", ["x"], ["y"], domain="com.example")],
        [tensor("x", T.FLOAT, [2])],
        [tensor("y", T.FLOAT, [2])],
        domains=["com.example"],
    )


if __name__ == "__main__":
    for make in (cnn, momentum, dtypes, qdq, gather, unknown):
        make()
