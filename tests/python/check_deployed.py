"""README's tables of latency and size are what benches/latency.json and benches/sizes.json give, and the tables are as they should be.

    python tests/python/check_deployed.py

Times nothing: the entries of the first cases are made up.
"""

from __future__ import annotations

import sys

from support import ROOT, Failed, Tally, check

sys.path.insert(0, str(ROOT / "benches"))
import deployed_table  # noqa: E402
import latency  # noqa: E402
import sizes  # noqa: E402

MADE = {"versions": {"lsqc": "0.1.0", "onnxruntime": "1.2.3"}, "machine": {"cpu": "a CPU", "cores": 2, "features": ["avx2"]}}
TIMED = {
    "float": {"ms": 10.0},
    "quantize_static": {"ms": 5.0, "to_float": 0.5},
    "lsqc-8": {"ms": 4.0, "to_float": 0.4, "to_quantize_static": 0.8},
}
LATENCY = {"engine": "onnxruntime", "network": "resnet20", "batch": 64, "threads": 2, "candidates": TIMED} | MADE
BYTES = {"float": 100_000_000, "int8": 26_000_000, "packed": 8_000_000}
SIZES = {"network": "resnet50", "bits": 2, "bytes": BYTES, "load_ms": {"int8": 90.0, "packed": 120.4}} | MADE
SIZES["latency"] = [{"threads": 1, "ratio": 1.004}, {"threads": 2, "ratio": 0.98}]


def same(found: object, expected: object) -> None:
    """The two are equal."""
    check(found == expected, f"found\n{found}\nwhere this is right:\n{expected}")


def latency_table() -> None:
    """Ratios to float, and to quantize_static in brackets; what was not run is a dash; lines in order."""
    first = LATENCY | {"batch": 1}
    lines = deployed_table.render_latency([LATENCY, first]).splitlines()
    same(lines[2], "| ONNX Runtime | resnet20 | 1 | 2 | 10.00 ms | 0.50 | 0.40 (0.80) | – | – | – |")
    same(lines[3].split(" | ")[2], "64")
    same(lines[-1], "Run with lsqc 0.1.0, ONNX Runtime 1.2.3 on a CPU, 2 cores, avx2, no VNNI.")


def sizes_table() -> None:
    """Sizes with their share, the ratio for each number of threads."""
    (line,) = [line for line in deployed_table.render_sizes([SIZES]).splitlines() if line.startswith("| resnet50")]
    cells = "100.00 MB | 26.00 MB, 26.0 % | 8.00 MB, 8.0 % | 1.00 (1 thread)<br>0.98 (2 threads) | 90 ms, 120 ms"
    same(line, f"| resnet50 | 2 | {cells} |")


def turns() -> None:
    """In every round each side has its turn, another one first; a side gives one time for each round."""
    import deployed

    order: list[str] = []
    deployed.LEAST_S = 0.0
    times = deployed.interleaved({name: lambda name=name: order.append(name) for name in "abc"}, rounds=2)
    same("".join(order), "abc" + "abc" + "bca")
    same({name: len(each) for name, each in times.items()}, {"a": 2, "b": 2, "c": 2})
    same(deployed.ratios([2.0, 9.0], [1.0, 3.0]), [2.0, 3.0])


def refusals() -> None:
    """A network that is not there is named with the cure."""
    import deployed

    try:
        deployed.Network.find("resnet18", ROOT / "nowhere")
    except deployed_table.Problem as problem:
        check("fixtures/imagenet.py" in str(problem), f"no cure in '{problem}'")
    else:
        raise Failed("a network that is not there was found")


def in_step() -> None:
    """README is as the committed results give it."""
    for bench in (latency, sizes):
        name = bench.RESULTS.name
        check(bench.RESULTS.in_step(), f"README.md's table is not that of benches/{name}.json: run `benches/{name}.py --render`")


def main() -> None:
    """Runs the cases."""
    tally = Tally()
    for body in (latency_table, sizes_table, turns, refusals, in_step):
        tally.case(f"deployed files: {body.__name__}", body)
    tally.finish()


if __name__ == "__main__":
    main()
