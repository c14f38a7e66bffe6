"""Weights alone, read back by numpy: what the file's bytes stand for is the trained weight, and other evaluators compute what was trained.

    python tests/python/check_weight_only.py target/release/lsqc

Each case trains a small network for two steps with `--bits wB` for one target, and also has lsqc write the trained model with its quantizers
simulated in floats. `MatMulNBits` and blocks of int4 are unpacked here by their documents alone and must equal its weights bit for bit. The
file for `ort` runs in onnxruntime, that for `tensorrt` in the onnx package's reference evaluator; both must give what the simulated model gives.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from support import Tally, check, lsqc

CASES = [("ort", 2, 32), ("ort", 3, 16), ("ort", 4, 256), ("ort", 8, 64), ("tensorrt", 2, 64), ("tensorrt", 4, 128)]
"""Target, bits, block."""

SUMS = 1e-5
"""Of the largest output: sums of 160 products in single precision, in another order, through three layers."""

INPUTS, HIDDEN, CLASSES = 128, 160, 4
"""160 is no multiple of 64: a short last block for `ort`, and a layer in floats for `tensorrt`."""


def network(folder: Path) -> tuple[Path, Path, np.ndarray]:
    """A model, data for it, and samples: products of rank 3, a mean, and a Gemm whose weight lies the other way."""
    random = np.random.default_rng(0)
    weights = {
        "a": random.normal(0, 0.1, (INPUTS, HIDDEN)),
        "ab": random.normal(0, 0.1, HIDDEN),
        "b": random.normal(0, 0.1, (HIDDEN, INPUTS)),
        "c": random.normal(0, 0.1, (CLASSES, INPUTS)),
        "cb": random.normal(0, 0.1, CLASSES),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["t"], "up"),
        helper.make_node("Add", ["t", "ab"], ["u"]),
        helper.make_node("Relu", ["u"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["v"], "down"),
        helper.make_node("ReduceMean", ["v"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["m", "c", "cb"], ["y"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model, data = folder / "model.onnx", folder / "data.npz"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    samples = random.normal(size=(32, 3, INPUTS)).astype(np.float32)
    np.savez(data, x=samples, label=np.arange(32) % CLASSES)
    return model, data, samples


def products(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> np.ndarray:
    """The weight of a MatMulNBits, [K, N]."""
    given = {each.name: each.i for each in node.attribute}
    inputs, outputs, bits, block = (given[name] for name in ("K", "N", "bits", "block_size"))
    check(given["accuracy_level"] == 1, f"{node.name} may round activations: accuracy_level {given['accuracy_level']}")
    stored, scales = constants[node.input[1]], constants[node.input[2]]
    blocks = -(-inputs // block)
    check(stored.shape == (outputs, blocks, block * bits // 8), f"{node.name}: levels are {stored.shape}")
    check(scales.shape == (outputs, blocks), f"{node.name}: scales are {scales.shape}")
    places = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (stored[..., None] >> places) & np.uint8((1 << bits) - 1)
    levels = codes.reshape(outputs, blocks, block).astype(np.float32) - np.float32(1 << (bits - 1))
    return (levels * scales[..., None]).reshape(outputs, -1)[:, :inputs].T


def blocks_of_int4(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> np.ndarray:
    """What a DequantizeLinear of blocks gives."""
    given = {each.name: each.i for each in node.attribute}
    levels, scales = constants[node.input[0]].astype(np.float32), constants[node.input[1]]
    return levels * np.repeat(scales, given["block_size"], axis=given["axis"])


def weights_of(path: Path) -> tuple[dict[str, np.ndarray], set[str]]:
    """The weight of each layer of a file, by the layer's name, and which of them are quantized."""
    model = onnx.load(path)
    onnx.checker.check_model(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights, quantized = {}, set()
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            constants[node.output[0]] = blocks_of_int4(node, constants)
            quantized.add(node.output[0])
        elif node.op_type == "MatMulNBits":
            weights[node.name] = products(node, constants)
            quantized.add(node.name)
        elif node.op_type in ("MatMul", "Gemm"):
            weights[node.name] = constants[node.input[1]]
            if node.input[1] in quantized:
                quantized.add(node.name)
    return weights, quantized


def run(binary: Path, target: str, bits: int, block: int) -> str:
    """Runs and checks one case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, data, samples = network(folder)
        lowered, simulated = folder / "lowered.onnx", folder / "simulated.onnx"
        flags = ["--bits", f"w{bits}", "--block", block, "--target", target, "--data", data, "--engine", "ort", "--threads", 1]
        training = ["--steps", 2, "--batch", 8, "--proof-images", 4, "--quiet"]
        lsqc(binary, "quantize", model, *flags, *training, "-o", lowered, "--emit-fakequant", simulated, folder=folder)

        found, quantized = weights_of(lowered)
        trained, _ = weights_of(simulated)
        check(found.keys() == trained.keys() == {"up", "down", "head"}, f"the layers are {sorted(found)}")
        expected = {"up", "down", "head"} if target == "ort" else {"up", "head"}
        check({"up", "down", "head"} & quantized == expected, f"quantized are {sorted(quantized)}")
        for layer, weight in found.items():
            turned = weight.T if weight.shape != trained[layer].shape else weight
            check(bool(np.array_equal(turned, trained[layer])), f"the weight of {layer} is another")

        wanted = ReferenceEvaluator(onnx.load(simulated)).run(None, {"x": samples})[0]
        if target == "ort":
            given = onnxruntime.InferenceSession(lowered, providers=["CPUExecutionProvider"]).run(None, {"x": samples})[0]
        else:
            given = ReferenceEvaluator(onnx.load(lowered)).run(None, {"x": samples})[0]
        off = float(np.abs(given - wanted).max() / np.abs(wanted).max())
        check(off <= SUMS, f"outputs differ by {off:.1e} of the largest")
    return f"outputs differ by {off:.0e} of the largest"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lsqc", type=Path)
    binary = parser.parse_args().lsqc.resolve()
    tally = Tally()
    for target, bits, block in CASES:
        tally.case(f"{target}, w{bits} in blocks of {block}", lambda: run(binary, target, bits, block))
    tally.finish()


if __name__ == "__main__":
    main()
