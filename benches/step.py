#!/usr/bin/env python3
"""The training step of lsqc beside the same step in torch, interleaved: time and memory.

    python benches/step.py [--network resnet20] [--threads 1 2] [--rounds 5] [--tract]

Run it with a Python that has the packages of fixtures/requirements.txt (torch, onnxruntime) and after `cargo build --release`. In each
round every side runs once, as a process of its own: it warms up, takes STEPS steps and gives their median. Shown are the medians over the
rounds and their ratio to `torch eager`, round by round; memory is what was resident at the peak above that before the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "python"))
from support import ort_library  # noqa: E402

STEPS = 4
"""Steps of each side in each round."""
BITS, BATCH = "3", "128"
TORCH = {"torch eager": "eager", "torch composed": "composed", "torch compiled": "compiled"}


def run(command: list[str]) -> str:
    """Standard output; ends the benchmark where the command fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"ORT_DYLIB_PATH": str(ort_library())})
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def lsqc(binary: Path, model: Path, engine: str, threads: int, steps: int) -> tuple[float, int]:
    """Milliseconds of a step, and bytes."""
    settings = ["--bits", BITS, "--batch", BATCH, "--threads", str(threads)]
    text = run([str(binary), "bench", str(model), *settings, "--engine", engine, "--rounds", str(steps), "--json", "-q"])
    (timed,) = json.loads(text)["engines"]
    step = next(row for row in timed["rows"] if row["what"] == "training_step")
    return step["seconds"] * 1000, step["memory_peak"] or 0


def torch(network: str, step: Path, variant: str, threads: int) -> tuple[float, int]:
    """Milliseconds of a step, and bytes."""
    script = str(ROOT / "benches" / "torch_step.py")
    text = run([sys.executable, script, network, str(step), "--variant", variant, "--threads", str(threads), "--rounds", str(STEPS)])
    result = json.loads(text.strip().splitlines()[-1])
    return statistics.median(result["milliseconds"]), result["peak_bytes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=["resnet20", "mobilenet"], default="resnet20")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tract", action="store_true", help="the embedded engine too")
    parser.add_argument("--lsqc", type=Path, default=ROOT / "target" / "release" / "lsqc")
    arguments = parser.parse_args()
    binary = arguments.lsqc.resolve()
    model = ROOT / "fixtures" / f"fashion-{arguments.network}" / "model.onnx"
    with tempfile.TemporaryDirectory() as folder:
        step = Path(folder) / "step"
        emitted = ["--emit-step", str(step), "-o", str(Path(folder) / "model.onnx"), "--proof-images", "1", "--steps", "1"]
        run([str(binary), "quantize", str(model), "--bits", BITS, "--batch", BATCH, *emitted, "-q"])
        for threads in arguments.threads:
            sides = {"lsqc": lambda: lsqc(binary, model, "ort", threads, STEPS)}
            if arguments.tract:
                sides["lsqc on tract"] = lambda: lsqc(binary, model, "tract", threads, 1)
            for label, variant in TORCH.items():
                sides[label] = lambda variant=variant: torch(arguments.network, step, variant, threads)
            rounds = [{label: side() for label, side in sides.items()} for _ in range(arguments.rounds)]
            print(f"{arguments.network}, batch {BATCH}, {BITS} bits, threads {threads}, {len(rounds)} rounds")
            for label in sides:
                times = [measured[label][0] for measured in rounds]
                ratios = [measured[label][0] / measured["torch eager"][0] for measured in rounds]
                memory = statistics.median(measured[label][1] for measured in rounds)
                spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
                print(
                    f"  {label:15} {statistics.median(times):8.1f} ms  {statistics.median(ratios):5.2f} of torch eager ({spread})"
                    f"  {memory / 1e6:6.0f} MB"
                )


if __name__ == "__main__":
    main()
