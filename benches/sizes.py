#!/usr/bin/env python3
"""Size of packed weights, and what they cost in ONNX Runtime: `--storage packed` beside `--storage int8` and the float model.

    benches/sizes.py                        4 and 2 bits
    benches/sizes.py --bits 2 --rounds 9
    benches/sizes.py --render               README's table again; --check: is it in step?

Run it with .venv/bin/python, which tests/run makes, after `fixtures/imagenet.py --out target/imagenet resnet50`. Loading and inference are
each timed in turns. Loading is from a file that the system has in memory. Also compared: the outputs of both for one image. Weights are the
same numbers in both; where biases stand on the grid of the stored weights, packed ones have a coarser grid and the outputs differ.
Results are in `sizes.json`, an entry for each network and number of bits; --dry stores nothing.

Exit codes: 0 good; 1 README is not in step; 2 something is missing or fails.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tests" / "python")]
from deployed_table import Problem, Results, act, render_sizes, shared_arguments, sizes_key  # noqa: E402

RESULTS = Results("sizes", sizes_key, render_sizes)
STORAGES = ("int8", "packed")


def run(arguments: argparse.Namespace) -> None:
    """Makes, times and stores."""
    try:
        import deployed
        import onnxruntime
    except ImportError as error:
        raise Problem(f"a package is missing ({error}): run this with .venv/bin/python, which tests/run makes") from error
    maker = deployed.Maker(arguments.lsqc.resolve(), arguments.folder)
    network = deployed.Network.find(arguments.network, arguments.nets)
    fed = network.images(1)
    for bits in arguments.bits:
        files = {"float": network.model}
        files |= {storage: maker.by_lsqc(network, ["--bits", bits, "--storage", storage]) for storage in STORAGES}
        sizes = {of: file.stat().st_size for of, file in files.items()}
        shares = ", ".join(f"{of} {size / 1e6:.2f} MB ({100 * size / sizes['float']:.2f} %)" for of, size in sizes.items())
        print(f"{network.name}, {bits} bits: {shares}")
        outputs = [deployed.session(files[storage], 1).run(None, {"image": fed})[0] for storage in STORAGES]
        difference = float(abs(outputs[0] - outputs[1]).max())
        print(f"  outputs of packed and int8 differ by {difference:.2e} at most, of {abs(outputs[0]).max():.2e}")
        loads = deployed.interleaved({of: lambda file=file: deployed.session(file, 1) for of, file in files.items()}, arguments.rounds)
        load = {of: round(statistics.median(times), 2) for of, times in loads.items()}
        print("  loading: " + ", ".join(f"{of} {ms:.0f} ms" for of, ms in load.items()), flush=True)
        latency = [_latency(deployed, files, fed, threads, arguments.rounds) for threads in arguments.threads]
        entry = {"network": network.name, "bits": bits, "rounds": arguments.rounds, "bytes": sizes, "largest_difference": difference}
        entry |= {"load_ms": load, "latency": latency}
        if not arguments.dry:
            RESULTS.add(entry | deployed.circumstances(maker, onnxruntime=onnxruntime.__version__))


def _latency(deployed, files: dict[str, Path], fed, threads: int, rounds: int) -> dict:
    sessions = {of: deployed.session(file, threads) for of, file in files.items()}
    sides = {of: lambda session=session: session.run(None, {"image": fed}) for of, session in sessions.items()}
    times = deployed.interleaved(sides, rounds)
    each = deployed.ratios(times["packed"], times["int8"])
    timed = {"threads": threads, "batch": len(fed), "ms": {of: round(statistics.median(own), 3) for of, own in times.items()}}
    timed |= {"ratio": round(statistics.median(each), 4), "range": [round(min(each), 4), round(max(each), 4)]}
    shown = ", ".join(f"{of} {ms:.1f} ms" for of, ms in timed["ms"].items())
    print(f"  threads {threads}: {shown}; packed to int8 {timed['ratio']:.3f} ({min(each):.3f} to {max(each):.3f})", flush=True)
    return timed


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50", metavar="NET", help="[resnet50]")
    parser.add_argument("--bits", nargs="+", type=int, default=[4, 2], choices=(4, 3, 2), metavar="N", help="[4 2]")
    shared_arguments(parser)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(act(parse(), RESULTS, run))
