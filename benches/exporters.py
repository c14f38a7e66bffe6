#!/usr/bin/env python3
"""What both of torch's exporters write of the same networks, through `lsqc quantize`: the second table of docs/models.md.

    benches/exporters.py                     every network, exporter and operator set
    benches/exporters.py --networks vit --opsets 17 23
    benches/exporters.py --render            docs/models.md again

The fixtures' networks (their BatchNorm as it is, weights drawn at random) and a vision transformer of two blocks (attention
spelled out, and as torch's fused operator) are exported by the
TorchScript exporter and by the one of torch.export; each file goes through `lsqc quantize --bits 4` with two steps of training on made-up
data and its proof in ONNX Runtime. Told are the layers and activation products that are quantized, as a row of their weights' sizes and
multiply-adds, which must be the same for all files of a network, and what the proof says. An exporter that does not write an operator set
is told by its own error, or writes a later one. Needs the packages of fixtures/requirements-imagenet.txt. Results are in `exporters.json`.

Exit codes: 0 good; 2 something is missing; 3 a file failed, or has other sites than the first of its network.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "fixtures"), str(ROOT / "tests" / "python")]
import exporters_table as table  # noqa: E402
from accuracy_table import Problem  # noqa: E402

NETWORKS = ("resnet20", "mobilenet", "vit", "vit-fused")
EXPORTERS = ("torchscript", "dynamo")
OPSETS = (11, 13, 17, 20, 23)
SAMPLES = 8
BITS, STEPS, BATCH = 4, 2, 4
SIZE = 28


def network(name: str):
    """The network in evaluation mode, its weights drawn from a seed."""
    import nets
    import torch
    import torchvision

    torch.manual_seed(0)
    if not name.startswith("vit"):
        return nets.NETS[name]().eval()
    net = torchvision.models.VisionTransformer(
        image_size=SIZE, patch_size=7, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10
    )
    net.conv_proj = torch.nn.Conv2d(1, 64, 7, 7)
    # As torchvision leaves it, the last layer is zeros.
    torch.nn.init.normal_(net.heads.head.weight, std=0.1)
    if name == "vit":
        for block in net.encoder.layers:
            block.self_attention = _spelled_attention(block.self_attention)
    return net.eval()


def _spelled_attention(fused):
    """The same self-attention in matrix products and a softmax, as many write it; with the call of nn.MultiheadAttention."""
    import torch

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = fused.num_heads
            self.qkv = torch.nn.Linear(fused.embed_dim, 3 * fused.embed_dim)
            self.proj = fused.out_proj
            self.qkv.weight, self.qkv.bias = fused.in_proj_weight, fused.in_proj_bias

        def forward(self, x, _key, _value, need_weights: bool):
            del need_weights
            count, length, width = x.shape
            q, k, v = self.qkv(x).reshape(count, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            scores = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5
            mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(count, length, width)
            return self.proj(mixed), None

    return Attention()


def export(net, exporter: str, opset: int, path: Path) -> int:
    """Writes the file; gives the operator set that it has, which is a later one where the exporter does not write the one that was asked for."""
    import onnx
    import torch

    sample, words = torch.randn(2, 1, SIZE, SIZE), io.StringIO()
    names = {"input_names": ["image"], "output_names": ["logits"], "opset_version": opset}
    with contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
        if exporter == "dynamo":
            torch.onnx.export(net, (sample,), path, dynamo=True, external_data=False, dynamic_shapes=({0: torch.export.Dim("N")},), **names)
        else:
            kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
            torch.onnx.export(net, (sample,), path, dynamo=False, dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}}, **kept, **names)
    return next(entry.version for entry in onnx.load(path).opset_import if entry.domain == "")


def run(lsqc: Path, path: Path, data: Path) -> dict:
    """The entry of a file: its sites and its proof, or what failed."""
    from support import ort_library

    environment = os.environ | {"ORT_DYLIB_PATH": str(ort_library())}
    with tempfile.TemporaryDirectory() as work:
        out, report = Path(work) / "out.onnx", Path(work) / "report.json"
        training = ["--steps", STEPS, "--batch", BATCH, "--seed", 0, "--lr", "1e-3", "--test-fraction", 0.5, "--engine", "ort", "--quiet"]
        words = [lsqc, "quantize", path, "--bits", BITS, "--data", data, *training, "-o", out, "--report", report]
        done = subprocess.run([str(word) for word in words], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"code": done.returncode, "message": done.stderr.strip().replace(f"{path}: ", "")}
        found = json.loads(report.read_text())
        looked = [str(word) for word in (lsqc, "inspect", path, "--bits", BITS, "--json")]
        seen = json.loads(subprocess.run(looked, env=environment, capture_output=True, text=True, check=True).stdout)
    sites = sorted([math.prod(layer["weight_shape"]), layer["multiply_adds"]] for layer in seen["layers"])
    proof = found["proof"]["layers"]
    entry = {"code": 0, "sites": sites, "products": len(seen["products"]), "stays": sorted({left["op"] for left in found["not_quantized"]})}
    return entry | {"levels": sum(layer["compared"] for layer in proof), "mismatches": sum(layer["mismatches"] for layer in proof)}


def study(arguments: argparse.Namespace) -> int:
    """Does all of it; gives the exit code."""
    import numpy as np
    import onnxruntime
    import torch

    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    data = arguments.folder / "images.npy"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    np.save(data, np.random.default_rng(0).standard_normal((SAMPLES, 1, SIZE, SIZE)).astype(np.float32))
    failed = 0
    for name in arguments.networks:
        net = network(name)
        for exporter in arguments.exporters:
            for opset in arguments.opsets:
                path = arguments.folder / f"{name}.{exporter}.{opset}.onnx"
                path.unlink(missing_ok=True)
                entry = {"network": name, "exporter": exporter, "opset": opset, "versions": versions}
                try:
                    entry["written"] = export(net, exporter, opset, path)
                except Exception as error:  # It refuses in many ways.
                    entry["refused"] = str(error).strip().splitlines()[0]
                else:
                    entry |= run(arguments.lsqc.resolve(), path, data)
                table.add(entry)
                print(f"{name}, {exporter}, operator set {opset}: {table.said(entry)}", flush=True)
                failed += table.failed(entry)
    return 3 if failed else 0


def main() -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--exporters", nargs="+", choices=EXPORTERS, default=EXPORTERS, metavar="NAME", help=", ".join(EXPORTERS))
    parser.add_argument("--opsets", nargs="+", type=int, default=OPSETS, metavar="N", help=f"{OPSETS}")
    parser.add_argument("--folder", type=Path, default=ROOT / "target" / "exporters", metavar="DIR", help="[target/exporters]")
    parser.add_argument("--lsqc", type=Path, default=ROOT / "target" / "release" / "lsqc", metavar="FILE", help="[target/release/lsqc]")
    parser.add_argument("--render", action="store_true", help="only write docs/models.md again")
    arguments = parser.parse_args()
    if arguments.render:
        table.write()
        return 0
    try:
        return study(arguments)
    except ImportError as error:
        raise Problem(f"a package is missing ({error}): make an environment of fixtures/requirements-imagenet.txt") from error


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"exporters.py: {problem}", file=sys.stderr)
        sys.exit(2)
