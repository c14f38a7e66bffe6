#!/usr/bin/env python3
"""The accuracy study: what quantization to few bits costs, on all of Fashion-MNIST, against the float model and ONNX Runtime's quantizer.

    .venv/bin/python benches/accuracy.py                    every run that is missing, with seed 0
    .venv/bin/python benches/accuracy.py --bits 3 --seeds 0 1 2
    .venv/bin/python benches/accuracy.py --list             what is there and what is missing
    .venv/bin/python benches/accuracy.py --render           README's table again; --check: is it in step?
    .venv/bin/python benches/accuracy.py --rehearse FILE    two steps each on the committed images, into FILE

Results are in `accuracy.json`, an entry for each run, written whole after each: the study may be broken off at any time, and goes on
where it stopped. Several may run beside each other. An entry counts as missing when SETTINGS has changed since.

An entry has its run's `network`, `bits`, `method`, `seed` and `settings`; what was `measured` here in onnxruntime, in images (`lost`: only
the float model has them right, `gained`: only this one); from lsqc's report, its own counts of right images (`lsqc`), `steps`, `batch`,
`threads`, `proof`, `sizes` and the file's `sha256`; `seconds`, `versions` and `machine`. lsqc's counts must agree with what was measured
but for AGREEMENT images, or AGREEMENT_WITHOUT_VNNI.

Exit codes: 0 good; 1 a run failed, or README is not in step; 2 something is missing or cannot be read; 3 the two counts of a run do not
agree; 130, 143 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benches"))
from accuracy_table import BITS, COLUMNS, NETWORKS, TRAINED, Problem, insert, render  # noqa: E402

RESULTS = ROOT / "benches" / "accuracy.json"
README = ROOT / "README.md"

SETTINGS = {  # (network, bits): training from the float model, with batches of 128 but where there is another `batch`
    ("resnet20", 8): {"epochs": 1, "lr": 0.001},
    ("resnet20", 4): {"epochs": 1, "lr": 0.005, "batch": 64},
    ("resnet20", 3): {"epochs": 3, "lr": 0.01, "batch": 64},
    ("resnet20", 2): {"epochs": 3, "lr": 0.003, "batch": 64},
    ("mobilenet", 8): {"epochs": 1, "lr": 0.001},
    ("mobilenet", 4): {"epochs": 1, "lr": 0.02},
    ("mobilenet", 3): {"epochs": 1, "lr": 0.02},
    ("mobilenet", 2): {"epochs": 5, "lr": 0.01},
}
PLACEMENT = "q8"
CALIBRATION_IMAGES = 512
"""For ONNX Runtime: as many as lsqc calibrates on."""
PROOF_REHEARSED = {"proof_images": 1}

SEEDLESS = {"float": None, "onnxruntime": 8}
"""Methods without a seed, and the only bits that they have."""
METHOD_ORDER = ("float", "onnxruntime", "both", "channels", "calibrate", "ce", "kd")
BITS_ORDER = (None, 3, 4, 2, 8)
"""The most telling first."""

AGREEMENT = 2
"""Images of which lsqc may count more or fewer right than onnxruntime in Python: preprocessing rounds otherwise, and an image whose input
lies at a tie may take another level."""
AGREEMENT_WITHOUT_VNNI = 10
"""The same where the processor has no VNNI instructions: there onnxruntime's usual kernels, which the table is about, add up pairs of products in
16 bits and saturate now and then; lsqc counts with its precise ones."""


@dataclass(frozen=True)
class Cell:
    """One run of the study."""

    network: str
    bits: int | None
    method: str
    seed: int | None

    @staticmethod
    def of(entry: dict) -> Cell:
        """The run that an entry is of."""
        return Cell(entry["network"], entry["bits"], entry["method"], entry["seed"])

    def __str__(self) -> str:
        bits = "" if self.bits is None else f" {self.bits} bits"
        return f"{self.network}{bits} {self.method}" + ("" if self.seed is None else f", seed {self.seed}")

    def key(self) -> tuple:
        """The place of its entry in the file."""
        rank = list(COLUMNS).index(self.method)
        return NETWORKS.index(self.network), -(self.bits or 99), rank, -1 if self.seed is None else self.seed

    def settings(self, rehearsed: bool) -> dict:
        """What decides the result; an entry with other settings is not of this run."""
        if self.method == "float":
            return {}
        if self.method == "onnxruntime":
            return {"calibration_images": CALIBRATION_IMAGES}
        if self.method == "calibrate":
            return {"placement": PLACEMENT, "epochs": 0} | (PROOF_REHEARSED if rehearsed else {})
        trained = SETTINGS[self.network, self.bits]
        grain = {"per_channel": True} if self.method == "channels" else {}
        return {"placement": PLACEMENT} | grain | ({"steps": 2, "lr": trained["lr"]} | PROOF_REHEARSED if rehearsed else trained)


class Results:
    """The file of entries, and README's table beside it."""

    def __init__(self, path: Path, readme: Path | None) -> None:
        self.path, self.readme = path, readme

    def entries(self) -> list[dict]:
        """All of them, in order."""
        try:
            entries = json.loads(self.path.read_text())
            return sorted(entries, key=lambda entry: Cell.of(entry).key())
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Problem(f"{self.path} cannot be read ({error}): take it from git again, or remove it to begin anew") from error

    def add(self, cell: Cell, entry: dict) -> None:
        """Puts in the entry of `cell`, in place of an older one."""
        named = {"network": cell.network, "bits": cell.bits, "method": cell.method, "seed": cell.seed} | entry
        with self._locked():
            entries = [old for old in self.entries() if Cell.of(old) != cell] + [named]
            entries.sort(key=lambda entry: Cell.of(entry).key())
            replace(self.path, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
            self._render(entries)

    def render(self) -> None:
        """Writes README's table."""
        with self._locked():
            self._render(self.entries())

    def in_step(self) -> bool:
        """Is README's table what the entries give?"""
        if self.readme is None:
            return True
        text = self.readme.read_text()
        return insert(text, render(self.entries())) == text

    def _render(self, entries: list[dict]) -> None:
        if self.readme is not None:
            old = self.readme.read_text()
            new = insert(old, render(entries))
            if new != old:
                replace(self.readme, new)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one study at a time reads, changes and writes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as out:
            out.write(text)
        os.chmod(name, path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def chosen(arguments: argparse.Namespace) -> list[Cell]:
    """The runs that the arguments ask for, the most telling first, all of a seed before the next."""
    cells = []
    for network in arguments.networks:
        for method in arguments.methods:
            if method in SEEDLESS:
                only = SEEDLESS[method]
                if only is None or only in arguments.bits:
                    cells.append(Cell(network, only, method, None))
            else:
                cells += [Cell(network, bits, method, seed) for bits in arguments.bits for seed in arguments.seeds]

    def rank(cell: Cell) -> tuple:
        seed = -1 if cell.seed is None else cell.seed
        return seed, METHOD_ORDER.index(cell.method), BITS_ORDER.index(cell.bits), NETWORKS.index(cell.network)

    return sorted(set(cells), key=rank)


def state(cell: Cell, entries: list[dict], rehearsed: bool) -> str:
    """`there`, `missing`, or there with `other settings`."""
    for entry in entries:
        if Cell.of(entry) == cell:
            return "there" if entry["settings"] == cell.settings(rehearsed) else "other settings"
    return "missing"


def disagreement(entry: dict) -> str | None:
    """What lsqc counts otherwise than onnxruntime in Python, if it is more than AGREEMENT images."""
    if "lsqc" not in entry:
        return None
    measured = entry["measured"]
    python = {"float": measured["right"] + measured["lost"] - measured["gained"], "lowered": measured["right"]}
    pairs = [(of, entry["lsqc"][of], count) for of, count in python.items()]
    has_vnni = any("vnni" in feature for feature in entry["machine"]["features"])
    allowed = {"float": AGREEMENT, "lowered": AGREEMENT if has_vnni else AGREEMENT_WITHOUT_VNNI}
    differ = [f"{of}: {own} by lsqc, {count} in Python" for of, own, count in pairs if abs(own - count) > allowed[of]]
    return "; ".join(differ) or None


def flags_of(cell: Cell, settings: dict, arguments: argparse.Namespace) -> list[object]:
    """What `lsqc quantize` is told for a run."""
    flags: list[object] = ["--bits", cell.bits, "--placement", PLACEMENT, "--seed", cell.seed]
    flags += ["--threads", arguments.threads, "--engine", arguments.engine]
    flags += ["--steps", settings["steps"]] if "steps" in settings else ["--epochs", settings["epochs"]]
    if cell.method in TRAINED:
        flags += ["--loss", TRAINED[cell.method], "--lr", settings["lr"]]
    flags += ["--per-channel"] if settings.get("per_channel") else []
    if "batch" in settings:
        flags += ["--batch", settings["batch"]]
    if "proof_images" in settings:
        flags += ["--proof-images", settings["proof_images"]]
    return flags


def study(cells: list[Cell], results: Results, arguments: argparse.Namespace) -> int:
    """Does the missing runs; gives the exit code."""
    rehearsed = arguments.rehearse is not None
    missing = [cell for cell in cells if state(cell, results.entries(), rehearsed) != "there"]
    failed = 0
    if missing:
        runs = _runs()
        binary = arguments.lsqc.resolve()
        if not os.access(binary, os.X_OK) or binary.is_dir():
            cure = "`cargo build --release --locked` makes target/release/lsqc, or name one with --lsqc"
            raise Problem(f"there is no program {arguments.lsqc}: {cure}")
        if not rehearsed:
            runs.bring_data(arguments.data)
        data = runs.Data(arguments.data, None if rehearsed else runs.WHOLE)
    for number, cell in enumerate(missing, 1):
        # Another study beside this one may have done it.
        if state(cell, results.entries(), rehearsed) == "there":
            continue
        print(f"[{number}/{len(missing)}] {cell}", flush=True)
        settings = cell.settings(rehearsed)
        try:
            match cell.method:
                case "float":
                    entry = runs.run_float(cell.network, data)
                case "onnxruntime":
                    entry = runs.run_onnxruntime(cell.network, data, CALIBRATION_IMAGES)
                case _:
                    flags = flags_of(cell, settings, arguments)
                    entry = runs.run_lsqc(binary, arguments.ort_lib, cell.network, data, flags)
        except Problem as problem:
            failed += 1
            print(f"    FAILED: {problem}", file=sys.stderr, flush=True)
            continue
        results.add(cell, {"settings": settings} | entry)
        measured = entry["measured"]
        top1 = 100 * measured["right"] / measured["samples"]
        print(f"    {top1:.2f} %, {measured['lost']} images lost, {measured['gained']} gained, {entry['seconds']:.0f} s", flush=True)
    # Of earlier runs too: it stays an error until it is looked into.
    of_these = [entry for entry in results.entries() if Cell.of(entry) in cells]
    disagreements = [f"{Cell.of(entry)}: {text}" for entry in of_these if (text := disagreement(entry))]
    for text in disagreements:
        print(f"!!! THE COUNTS OF RIGHT IMAGES DO NOT AGREE for {text}", file=sys.stderr)
    if failed:
        print(f"{failed} of {len(missing)} runs failed; the same command tries them again", file=sys.stderr)
    return 3 if disagreements else 1 if failed else 0


def _runs():
    """The module that needs packages, so that the table needs none."""
    try:
        import accuracy_runs
    except ImportError as error:
        cure = "run this with .venv/bin/python, which tests/run makes, or install tests/python/requirements.txt"
        raise Problem(f"a package is missing ({error}): {cure}") from error
    return accuracy_runs


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NET", help=", ".join(NETWORKS))
    parser.add_argument("--bits", nargs="+", type=int, choices=BITS, default=BITS, metavar="N", help="8, 4, 3, 2")
    parser.add_argument("--methods", nargs="+", choices=COLUMNS, default=list(COLUMNS), metavar="METHOD", help=", ".join(COLUMNS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N")
    parser.add_argument("--data", type=Path, metavar="DIR", help="all of Fashion-MNIST, made there if missing [target/fashion]")
    parser.add_argument("--lsqc", type=Path, default=ROOT / "target" / "release" / "lsqc", metavar="FILE", help="[target/release/lsqc]")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of lsqc; 0: one for each core [0]")
    engines = ("ort", "ort-cuda")
    parser.add_argument("--engine", choices=engines, default="ort", help="what trains; files are measured on the CPU all the same [ort]")
    parser.add_argument("--ort-lib", type=Path, metavar="FILE", help="for lsqc, where it is not this Python's own: a build with CUDA")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--list", action="store_true", help="what is there and what is missing")
    mode.add_argument("--render", action="store_true", help="only write README's table again")
    mode.add_argument("--check", action="store_true", help="only say whether README's table is in step")
    mode.add_argument("--rehearse", type=Path, metavar="FILE", help="two steps each, results into FILE, README as it is")
    arguments = parser.parse_args(words)
    if arguments.data is None:
        arguments.data = ROOT / ("target/fashion" if arguments.rehearse is None else "fixtures/fashion")
    return arguments


def main(arguments: argparse.Namespace) -> int:
    """Does what the arguments say; gives the exit code."""
    rehearsed = arguments.rehearse is not None
    results = Results(arguments.rehearse.resolve(), None) if rehearsed else Results(RESULTS, README)
    cells = chosen(arguments)
    if arguments.check:
        if results.in_step():
            return 0
        print("README.md's table is not what benches/accuracy.json gives: `benches/accuracy.py --render` writes it", file=sys.stderr)
        return 1
    if arguments.render:
        results.render()
        return 0
    if arguments.list:
        entries = results.entries()
        states = [state(cell, entries, rehearsed) for cell in cells]
        for cell, found in zip(cells, states):
            print(f"{found:14} {cell}")
        print(f"{states.count('there')} of {len(cells)} runs are there")
        return 0
    code = study(cells, results, arguments)
    if rehearsed:
        print(render(results.entries()), end="")
    return code


def _terminated(*_: object) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    try:
        sys.exit(main(parse()))
    except Problem as problem:
        print(f"accuracy.py: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted: what is done is stored, and the same command goes on", file=sys.stderr)
        sys.exit(130)
