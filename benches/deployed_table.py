"""What `latency.py` and `sizes.py` say: README's tables, from the entries of `latency.json` and `sizes.json`. Needs nothing but Python.

Each file is a list of entries. Ratios are of times in the same round; a cell has their median over the rounds.

Refused, by a `Problem`: results that cannot be read, a README without a table's markers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from accuracy import replace
from accuracy_table import NOT_RUN, Problem, alternatives, insert, machine_text, row

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"

CANDIDATES = {
    "float": "float",
    "quantize_static": "`quantize_static`",
    "lsqc-8": "`lsqc`, 8 bits",
    "lsqc-8-per-channel": "8, per channel",
    "lsqc-3": "3 bits",
    "lsqc-3-per-channel": "3, per channel",
}
"""Name to heading, as they stand in the table."""
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
NETWORKS = ("resnet18", "resnet20", "mobilenet")


@dataclass(frozen=True)
class Results:
    """A file of entries and its table in README, between the markers `<!-- NAME:begin -->` and `<!-- NAME:end -->`."""

    name: str
    key: Callable[[dict], tuple]
    """What an entry is of: a later one takes its place. Entries are in its order."""
    render: Callable[[list[dict]], str]

    @property
    def path(self) -> Path:
        """The file."""
        return ROOT / "benches" / f"{self.name}.json"

    def entries(self) -> list[dict]:
        """All of them, in order."""
        try:
            return sorted(json.loads(self.path.read_text()), key=self.key)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Problem(f"{self.path} cannot be read ({error}): take it from git again, or remove it to begin anew") from error

    def add(self, entry: dict) -> None:
        """Puts in an entry, and writes both files."""
        entries = [old for old in self.entries() if self.key(old) != self.key(entry)] + [entry]
        replace(self.path, json.dumps(sorted(entries, key=self.key), indent=1, ensure_ascii=False) + "\n")
        self.write()

    def readme(self) -> str:
        """README with the table that the entries give."""
        begin, end = f"<!-- {self.name}:begin -->", f"<!-- {self.name}:end -->"
        return insert(README.read_text(), self.render(self.entries()), begin, end)

    def write(self) -> None:
        """Writes the table."""
        new = self.readme()
        if new != README.read_text():
            replace(README, new)

    def in_step(self) -> bool:
        """Is README's table what the entries give?"""
        return self.readme() == README.read_text()


def latency_key(entry: dict) -> tuple:
    """Engine, network, batch and threads."""
    places = list(ENGINES).index(entry["engine"]), NETWORKS.index(entry["network"])
    return *places, entry["batch"], entry["threads"]


def render_latency(entries: list[dict]) -> str:
    """A line for each measurement; below, what the ratios are and of which machine."""
    lines = [row(["runtime", "network", "batch", "threads", *CANDIDATES.values()]), row(["---", "---", *["---:"] * (2 + len(CANDIDATES))])]
    for entry in sorted(entries, key=latency_key):
        cells = [_latency(name, entry["candidates"].get(name)) for name in CANDIDATES]
        lines.append(row([ENGINES[entry["engine"]], entry["network"], str(entry["batch"]), str(entry["threads"]), *cells]))
    caption = "Float: milliseconds for a batch. The others: share of float's time, in brackets share of `quantize_static`'s."
    return "\n".join([*lines, "", caption, _made(entries), ""])


def sizes_key(entry: dict) -> tuple:
    """Network and bits."""
    return entry["network"], -entry["bits"]


def render_sizes(entries: list[dict]) -> str:
    """A line for each number of bits."""
    headings = ["network", "bits", "float", "`--storage int8`", "`--storage packed`", "latency: packed to int8", "loading: int8, packed"]
    lines = [row(headings), row(["---", *["---:"] * (len(headings) - 1)])]
    for entry in sorted(entries, key=sizes_key):
        sizes = entry["bytes"]
        shares = [f"{sizes[of] / 1e6:.2f} MB, {100 * sizes[of] / sizes['float']:.1f} %" for of in ("int8", "packed")]
        ratios = [f"{one['ratio']:.2f} ({_threads(one['threads'])})" for one in entry["latency"]]
        loading = f"{entry['load_ms']['int8']:.0f} ms, {entry['load_ms']['packed']:.0f} ms"
        lines.append(row([entry["network"], str(entry["bits"]), f"{sizes['float'] / 1e6:.2f} MB", *shares, "<br>".join(ratios), loading]))
    caption = "First and last layer have 8 bits. Latency with batch 1, after loading: median of the ratios of each round."
    return "\n".join([*lines, "", caption, _made(entries), ""])


def _latency(name: str, timed: dict | None) -> str:
    if timed is None:
        return NOT_RUN
    if name == "float":
        return f"{timed['ms']:.2f} ms" if timed["ms"] < 100 else f"{timed['ms']:.0f} ms"
    beside = f" ({timed['to_quantize_static']:.2f})" if name != "quantize_static" and "to_quantize_static" in timed else ""
    return f"{timed['to_float']:.2f}{beside}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _made(entries: list[dict]) -> str:
    if not entries:
        return "No run is stored yet."
    of = {name: [entry["versions"][name] for entry in entries if name in entry["versions"]] for name in ("lsqc", *ENGINES)}
    versions = [f"{ENGINES.get(name, name)} {alternatives(found)}" for name, found in of.items() if found]
    return f"Run with {', '.join(versions)} on {alternatives(_machine(entry['machine']) for entry in entries)}."


def _machine(machine: dict) -> str:
    """Says too what is not there, as integer products depend on it."""
    features = machine["features"]
    lacking = any(feature.startswith("avx") for feature in features) and not any("vnni" in feature for feature in features)
    return machine_text(machine) + (", no VNNI" if lacking else "")


def shared_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of both benchmarks of lowered files."""
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N", help="[1 2]")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="[7]")
    parser.add_argument("--dry", action="store_true", help="store nothing")
    parser.add_argument("--nets", type=Path, default=ROOT / "target" / "imagenet", metavar="DIR", help="of fixtures/imagenet.py")
    parser.add_argument("--folder", type=Path, default=ROOT / "target" / "deployed", metavar="DIR", help="for the files that are made")
    parser.add_argument("--lsqc", type=Path, default=ROOT / "target" / "release" / "lsqc", metavar="FILE", help="[target/release/lsqc]")
    parser.add_argument("--render", action="store_true", help="only write README's table again")
    parser.add_argument("--check", action="store_true", help="only say whether README's table is in step")


def act(arguments: argparse.Namespace, results: Results, run: Callable[[argparse.Namespace], None]) -> int:
    """Does what the arguments of a benchmark say; gives the exit code."""
    try:
        if arguments.check:
            return 0 if results.in_step() else 1
        if arguments.render:
            results.write()
        else:
            run(arguments)
    except Problem as problem:
        print(f"{Path(sys.argv[0]).name}: {problem}", file=sys.stderr)
        return 2
    return 0
