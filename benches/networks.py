#!/usr/bin/env python3
"""The networks of the LSQ paper with random weights through `lsqc quantize`: time of the passes, memory of a step, integers in ONNX Runtime.

    benches/networks.py [--networks resnet18 resnet50 …]
    benches/networks.py --render             the third table of docs/models.md again

First: fixtures/imagenet.py --out target/imagenet resnet18 resnet50 resnet152 vgg16_bn squeezenext23_2x. Each network gets 16 images of
noise at 224 pixels, two training steps at 4 bits and batch 8, BatchNorm on batches' statistics, and its proof; `lsqc inspect --confirm` asks
ONNX Runtime's own graph which layers are integers. Run it with .venv/bin/python, which tests/run makes. Results are in `networks.json`.

Exit codes: 0 good; 2 something is missing; 3 a run failed, or a layer is in floats.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tests" / "python")]
from accuracy import replace  # noqa: E402
from accuracy_table import Problem, insert, row  # noqa: E402

NETWORKS = ("resnet18", "resnet50", "resnet152", "vgg16_bn", "squeezenext23_2x")
PAGE = ROOT / "docs" / "models.md"
RESULTS = ROOT / "benches" / "networks.json"
BEGIN, END = "<!-- networks:begin -->", "<!-- networks:end -->"
SAMPLES, SIZE, BATCH, STEPS, BITS = 16, 224, 8, 2, 4
HEADINGS = ["network", "nodes", "passes to the step graph", "first steps set", "a node", "memory at most", "layers in integers", "levels proven", "mismatches"]
PASS = re.compile(r"^ +([0-9.]+) ms +(\S+)$")


def run(lsqc: Path, model: Path, samples: Path) -> dict:
    """The entry of a network."""
    from support import ort_library

    environment = os.environ | {"ORT_DYLIB_PATH": str(ort_library())}

    def called(*words: object) -> subprocess.CompletedProcess:
        done = subprocess.run([str(word) for word in (lsqc, *words)], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Problem(f"{model.name}: lsqc ended with {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
        return done

    with tempfile.TemporaryDirectory() as work:
        out, report = Path(work) / "out.onnx", Path(work) / "report.json"
        shared = ["--steps", STEPS, "--batch", BATCH, "--bn", "batch", "--test-fraction", 0.25, "--proof-images", 2, "--engine", "ort", "-v"]
        said = called("quantize", model, "--bits", BITS, "--data", samples, *shared, "-o", out, "--report", report).stderr
        found = json.loads(report.read_text())
        seen = json.loads(called("inspect", model, "--bits", BITS, "--confirm", "--json").stdout)
    passes = [(match[2], float(match[1])) for match in map(PASS.match, said.splitlines()) if match]
    last = max(at for at, (name, _) in enumerate(passes) if name == "attach-optimizer")
    step = next(at for at, (name, _) in enumerate(passes) if at > last and name == "legalize")
    setting = sum(time for name, time in passes if name == "set-steps")
    entry = {"nodes": count_nodes(model), "passes_ms": round(sum(time for _, time in passes[: step + 1]) - setting, 1), "set_steps_ms": round(setting, 1)}
    proof = found["proof"]["layers"]
    weighted = seen["layers"]
    confirmed = seen["confirmation"]
    entry |= {"memory": found["timing"]["memory_peak"], "layers": len(weighted), "integers": sum(layer["integers"] for layer in weighted), "differ": len(confirmed["differ"])}
    return entry | {"levels": sum(layer["compared"] for layer in proof), "mismatches": sum(layer["mismatches"] for layer in proof)}


def count_nodes(model: Path) -> int:
    """How many nodes the file has."""
    import onnx

    return len(onnx.load(model, load_external_data=False).graph.node)


def entries() -> dict[str, dict]:
    """What is stored, by network."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def page() -> str:
    """docs/models.md with the table that the entries give."""
    lines = [row(HEADINGS), row(["---", *["---:"] * (len(HEADINGS) - 1)])]
    for name, entry in entries().items():
        total = entry["passes_ms"]
        each = f"{1000 * total / entry['nodes']:.0f} µs"
        cells = [str(entry["nodes"]), f"{total:.0f} ms", f"{entry['set_steps_ms']:.0f} ms", each, f"{entry['memory'] / 1e9:.1f} GB"]
        kept = f"{entry['integers']} of {entry['layers']}" + (f", ONNX Runtime differs in {entry['differ']}" if entry["differ"] else "")
        lines.append(row([name, *cells, kept, f"{entry['levels']:,}", str(entry["mismatches"])]))
    machines = sorted({entry["machine"] for entry in entries().values()})
    return insert(PAGE.read_text(), "\n".join([*lines, "", f"Run on {'; '.join(machines)}.", ""]), BEGIN, END)


def machine() -> str:
    """The processor and its cores."""
    names = {line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")}
    return f"{', '.join(sorted(names))}, {os.cpu_count()} cores"


def main() -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--folder", type=Path, default=ROOT / "target" / "imagenet", metavar="DIR", help="[target/imagenet]")
    parser.add_argument("--lsqc", type=Path, default=ROOT / "target" / "release" / "lsqc", metavar="FILE", help="[target/release/lsqc]")
    parser.add_argument("--render", action="store_true", help="only write docs/models.md again")
    arguments = parser.parse_args()
    bad = 0
    if not arguments.render:
        import numpy as np

        for name in arguments.networks:
            model = arguments.folder / f"{name}.onnx"
            if not model.is_file():
                raise Problem(f"{model} is missing: fixtures/imagenet.py --out {arguments.folder} {name} makes it")
            with tempfile.TemporaryDirectory() as work:
                samples = Path(work) / "noise.npy"
                np.save(samples, np.random.default_rng(0).standard_normal((SAMPLES, 3, SIZE, SIZE)).astype(np.float32))
                entry = run(arguments.lsqc.resolve(), model, samples) | {"machine": machine()}
            print(f"{name}: {entry}", flush=True)
            bad += entry["mismatches"] != 0 or entry["integers"] != entry["layers"] or entry["differ"] != 0
            found = entries() | {name: entry}
            kept = {name: found[name] for name in NETWORKS if name in found}
            replace(RESULTS, json.dumps(kept, indent=1) + "\n")
    replace(PAGE, page())
    return 3 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"networks.py: {problem}", file=sys.stderr)
        sys.exit(2)
