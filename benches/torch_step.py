#!/usr/bin/env python3
"""The training step that lsqc runs, written in torch: the other side of the step benchmark.

    python benches/torch_step.py FIXTURE STEP_DIR [--variant eager|composed|compiled] [--threads N] [--device cpu|cuda] [--rounds N]

FIXTURE is `resnet20` or `mobilenet`; STEP_DIR is what `lsqc quantize … --emit-step STEP_DIR` wrote, from which the start (weights, steps), the
batch and the loss are taken, so that both sides take the same step: same quantizers, same teacher, same optimizer. Prints one line of
JSON: the loss of the first step, the time of each round in milliseconds, and the peak memory above that before the first step in bytes.

Variants: `eager`, LSQ as an autograd function with a hand-written backward; `composed`, LSQ from torch's own operators, as most people
write it; `compiled`, the eager one through torch.compile (which needs a C++ compiler on the CPU).

As a module, `Step` is one such training step.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "fixtures"), str(ROOT / "tests" / "python")]
import nets  # noqa: E402
from quantized_net import QuantizedNet  # noqa: E402

MOMENTUM = 0.9
WEIGHT_DECAY = 0.5e-4
RUNNING = 0.1
"""How much of a batch's statistics enters the running ones."""


class HandWritten(torch.autograd.Function):
    """LSQ with the backward of the paper's equations 3 and 5, in as few passes over memory as torch's operators allow."""

    @staticmethod
    def forward(ctx, v: Tensor, s: Tensor, q_n: int, q_p: int, g: float) -> Tensor:
        u = v / s
        code = u.clamp(-q_n, q_p).round_()
        ctx.save_for_backward(u, code)
        ctx.constants = q_n, q_p, g
        return code * s

    @staticmethod
    def backward(ctx, dy: Tensor):
        u, code = ctx.saved_tensors
        q_n, q_p, g = ctx.constants
        dv = dy * ((u > -q_n) & (u < q_p))
        ds = (dy * code).sum() - (dv * u).sum()
        return dv, ds * g, None, None, None


def composed(v: Tensor, s: Tensor, q_n: int, q_p: int, g: float) -> Tensor:
    """LSQ by straight-through tricks, as most re-implementations have it."""
    s = (s - s * g).detach() + s * g
    u = (v / s).clamp(-q_n, q_p)
    return ((u.round() - u).detach() + u) * s


class Net(QuantizedNet):
    """The reference network in training: BatchNorm keeps running statistics, and LSQ is a choice."""

    def __init__(self, *arguments, lsq, running: dict[str, Tensor]) -> None:
        super().__init__(*arguments)
        self.quantizer, self.running = lsq, running
        self.keep_sites = False

    def norm(self, path: str, x: Tensor) -> Tensor:
        """BatchNorm by the batch."""
        mean, variance = self.running[f"{path}.running_mean"], self.running[f"{path}.running_var"]
        gamma, beta = self.state[f"{path}.weight"], self.state[f"{path}.bias"]
        return F.batch_norm(x, mean, variance, gamma, beta, True, RUNNING, self.modules[path].eps)


class Step:
    """One training step: forward, loss, teacher, backward, update."""

    def __init__(self, fixture: str, folder: Path, variant: str, device: str) -> None:
        import onnx

        model = onnx.load(ROOT / "fixtures" / f"fashion-{fixture}" / "model.onnx")
        floats = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
        roles, arrays = json.loads((folder / "step.json").read_text()), np.load(folder / "state.npz")
        ports = {port["name"]: port for port in roles["inputs"]}
        self.image_shape = next(port["shape"] for port in ports.values() if port["role"] == "batch")
        self.teacher = None
        if any(name.startswith("teacher/") for name in self.node_names(folder)):
            self.teacher = nets.NETS[fixture]()
            self.teacher.load_state_dict(floats, strict=False)
            self.teacher.eval().to(device)
        start = {name: torch.from_numpy(arrays[port["initial"]]).to(device) for name, port in ports.items() if "initial" in port}
        of = lambda *wanted: {name: start[name] for name, port in ports.items() if port["role"] in wanted}
        self.state = {name: tensor.requires_grad_() for name, tensor in of("parameter", "step").items()}
        lsq = composed if variant == "composed" else HandWritten.apply
        running = of("running_mean", "running_variance")
        self.net = Net(nets.NETS[fixture](), self.state, 3, lsq=lsq, running=running)
        decayed = [tensor for name, tensor in self.state.items() if tensor.dim() > 1]
        rest = [tensor for tensor in self.state.values() if tensor.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=0.003, momentum=MOMENTUM)
        self.loss = torch.compile(self.loss_of) if variant == "compiled" else self.loss_of

    @staticmethod
    def node_names(folder: Path) -> list[str]:
        """The names of all values of the step graph."""
        import onnx

        graph = onnx.load(folder / "step.onnx").graph
        return [name for node in graph.node for name in node.output]

    def loss_of(self, image: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy, with the distillation loss where lsqc's step has a teacher."""
        log_p = F.log_softmax(self.net.logits(image), 1)
        loss = F.nll_loss(log_p, label)
        if self.teacher is not None:
            with torch.no_grad():
                log_t = F.log_softmax(self.teacher(image), 1)
            loss = loss + F.kl_div(log_p, log_t, reduction="batchmean", log_target=True)
        return loss

    def __call__(self, image: Tensor, label: Tensor) -> float:
        """Takes the step; gives its loss, which also waits for the device."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(image, label)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def batch(self, device: str) -> tuple[Tensor, Tensor]:
        """Noise: how long a step takes does not depend on it."""
        rng = np.random.default_rng(0)
        image = torch.from_numpy(rng.standard_normal(self.image_shape, np.float32)).to(device)
        return image, torch.from_numpy(rng.integers(0, 10, self.image_shape[0])).to(device)


def resident() -> int:
    """The process's peak of resident memory, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixture", choices=sorted(nets.NETS))
    parser.add_argument("step", type=Path, metavar="STEP_DIR")
    parser.add_argument("--variant", choices=["eager", "composed", "compiled"], default="eager")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--interactive", action="store_true", help="take a round for each line read, print its time; for interleaving")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    step = Step(arguments.fixture, arguments.step, arguments.variant, arguments.device)
    batch = step.batch(arguments.device)
    before = resident()
    losses = [step(*batch) for _ in range(arguments.warm_up)]

    def timed() -> float:
        start = time.perf_counter()
        step(*batch)
        return (time.perf_counter() - start) * 1000

    if arguments.interactive:
        for _ in sys.stdin:
            print(f"{timed():.3f}", flush=True)
        return
    times = [timed() for _ in range(arguments.rounds)]
    memory = torch.cuda.max_memory_allocated() if arguments.device == "cuda" else resident() - before
    result = {"variant": arguments.variant, "loss": losses[0] if losses else None, "milliseconds": times, "peak_bytes": memory}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
