"""EfficientNet-lite0 as an ONNX file, from the weights that a package has for torch. Needs numpy and onnx, not torch.

torch's file before 1.6 is a row of pickles (a number, a version, facts about the machine, the tensors without their elements, the names of
the storages), then each storage as a count and its elements. The network is MBConv blocks without squeeze and excitation (arXiv 1905.11946;
lite0 has ReLU6 and no Swish); convolutions of stride 2 pad one pixel more at the end, as TensorFlow does. BatchNorm stands behind its convolution, or is folded into it.

Refused, by a `Problem`: a file of another form.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct

import numpy as np
import onnx
from accuracy_table import Problem
from onnx import TensorProto, helper, numpy_helper

REPEATS, STRIDES = (1, 2, 2, 3, 3, 4, 1), (1, 2, 2, 2, 1, 2, 1)
EPSILON = 1e-3
TYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}


def export(weights: bytes) -> bytes:
    """The model for images `[N, 3, 224, 224]`, of operator set 13."""
    return _Export(_state(weights), folded=False).model()


def export_folded(weights: bytes) -> bytes:
    """The same without BatchNorm."""
    return _Export(_state(weights), folded=True).model()


class _Unpickler(pickle.Unpickler):
    """Makes descriptions of tensors, and nothing else."""

    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, stride, *_: (storage, offset, shape, stride)
        if module == "torch" and name in TYPES:
            return np.dtype(TYPES[name]).type
        raise Problem(f"the weights hold a {module}.{name}, which is not expected")

    def persistent_load(self, saved):
        _, kind, key, *_ = saved
        return kind, key


def _state(weights: bytes) -> dict[str, np.ndarray]:
    file = io.BytesIO(weights)
    for _ in range(3):
        pickle.Unpickler(file).load()
    described = _Unpickler(file).load()
    kinds = {key: kind for (kind, key), *_ in described.values()}
    storages = {}
    for key in pickle.Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        kind = np.dtype(kinds[key])
        storages[key] = np.frombuffer(file.read(count * kind.itemsize), kind)
    state = {}
    for name, ((_, key), offset, shape, stride) in described.items():
        elements = storages[key][offset:]
        steps = [step * elements.itemsize for step in stride]
        state[name] = np.ascontiguousarray(np.lib.stride_tricks.as_strided(elements, shape, steps))
    return state


class _Export:
    def __init__(self, state: dict[str, np.ndarray], folded: bool) -> None:
        self.state, self.folded, self.nodes, self.initializers = state, folded, [], []
        self.constant("zero", np.float32(0))
        self.constant("six", np.float32(6))

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], name: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_output"], name=name, **attributes))
        return f"{name}_output"

    def conv(self, x: str, name: str, norm: str, stride: int, clipped: bool) -> str:
        weight = self.state[f"{name}.weight"]
        kernel = weight.shape[2]
        if stride == 2:
            before = (kernel - 2) // 2
            ends = [0, 0, before, before, 0, 0, kernel - 2 - before, kernel - 2 - before]
            x = self.node("Pad", [x, self.constant(f"{name}.pads", np.array(ends, np.int64))], f"{name}/Pad")
        pads = [0 if stride == 2 else kernel // 2] * 4
        groups = weight.shape[0] if weight.shape[1] == 1 else 1
        parameters = {part: self.state[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
        bias = []
        if self.folded:
            factor = parameters["weight"] / np.sqrt(parameters["running_var"] + np.float32(EPSILON))
            weight = weight * factor[:, None, None, None]
            bias = [self.constant(f"{name}.bias", parameters["bias"] - parameters["running_mean"] * factor)]
        inputs = [x, self.constant(f"{name}.weight", weight), *bias]
        x = self.node("Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=groups)
        if not self.folded:
            inputs = [x, *(self.constant(f"{norm}.{part}", values) for part, values in parameters.items())]
            x = self.node("BatchNormalization", inputs, norm, epsilon=EPSILON)
        return self.node("Clip", [x, "zero", "six"], f"{norm}/Clip") if clipped else x

    def model(self) -> bytes:
        x = self.conv("image", "_conv_stem", "_bn0", 2, clipped=True)
        strides = [stride if first == 0 else 1 for stride, repeats in zip(STRIDES, REPEATS) for first in range(repeats)]
        for number, stride in enumerate(strides):
            block, before = f"_blocks.{number}", x
            if f"{block}._expand_conv.weight" in self.state:
                x = self.conv(x, f"{block}._expand_conv", f"{block}._bn0", 1, clipped=True)
            x = self.conv(x, f"{block}._depthwise_conv", f"{block}._bn1", stride, clipped=True)
            x = self.conv(x, f"{block}._project_conv", f"{block}._bn2", 1, clipped=False)
            channels = self.state[f"{block}._project_conv.weight"].shape[0]
            taken = self.state.get(f"{block}._expand_conv.weight", self.state[f"{block}._depthwise_conv.weight"])
            if stride == 1 and channels == (taken.shape[1] if f"{block}._expand_conv.weight" in self.state else taken.shape[0]):
                x = self.node("Add", [x, before], f"{block}/Add")
        x = self.conv(x, "_conv_head", "_bn1", 1, clipped=True)
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x], "_avg_pooling")], "flatten")
        head = [self.constant(f"_fc.{part}", self.state[f"_fc.{part}"]) for part in ("weight", "bias")]
        self.nodes.append(helper.make_node("Gemm", [x, *head], ["logits"], name="_fc", transB=1))
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])
        graph = helper.make_graph(self.nodes, "efficientnet_lite0", [image], [logits], self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        return model.SerializeToString()
