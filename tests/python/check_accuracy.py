"""README's accuracy table is what benches/accuracy.json gives, and the study keeps its results sound.

    python tests/python/check_accuracy.py

Trains nothing: the entries of the first cases are made up, and the programs that stand in for lsqc end at once or wait.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support import ROOT, Failed, Tally, check

sys.path.insert(0, str(ROOT / "benches"))
import accuracy  # noqa: E402
import accuracy_table  # noqa: E402
from accuracy import Cell, Results  # noqa: E402

PATIENCE_S = 180
"""For a study to start or to end; it takes a second or two."""

CAPTION = """\
Top-1 on 1,000 test images, and the points of it that are lost against the float model: in parentheses the paired
95 % interval of a single run, or the range over several seeds.
Run with lsqc 0.1.0 and ONNX Runtime 1.2.3 on a CPU, 2 cores, avx2.
All runs together took 5.0 hours; their proofs found 0 mismatches in 3,000 levels.
"""


def entry(method: str, bits: int | None = 3, seed: int | None = 0, lost: int = 0, gained: int = 0, **more: object) -> dict:
    """A made-up run of resnet20, whose float model has 900 of 1,000 images right."""
    measured = {"samples": 1000, "right": 900 - lost + gained, "lost": lost, "gained": gained}
    made = {"network": "resnet20", "bits": bits, "method": method, "seed": seed, "settings": {"epochs": 3, "lr": 0.01}}
    made |= {"measured": measured, "seconds": 3600.0, "machine": {"cpu": "a CPU", "cores": 2, "features": ["avx2"]}}
    made |= {"versions": {"lsqc": "0.1.0", "onnxruntime": "1.2.3"}}
    if method in accuracy.TRAINED:
        made["proof"] = {"images": 256, "compared": 1000, "mismatches": 0, "ties": 0}
    return made | more


ENTRIES = [
    entry("float", None, None),
    entry("onnxruntime", 8, None, lost=2, gained=5, versions={"onnxruntime": "1.2.3"}),
    entry("both", lost=30, gained=10),
    entry("kd", seed=0, lost=30),
    entry("kd", seed=1, lost=41, gained=1),
]


def same(found: object, expected: object) -> None:
    """The two are equal."""
    check(found == expected, f"found\n{found}\nwhere this is right:\n{expected}")


def table() -> None:
    """The cells, from entries."""
    lines = accuracy_table.render(ENTRIES).splitlines()
    rows = {tuple(line.split(" | ")[:2]): line for line in lines if line.startswith("| ")}
    # 20/1002 ± 1.959964 · √(41 − 400/1002) / 1002, in points.
    single = "88.00 %<br>lost 2.00 (0.75 to 3.24)"
    several = "86.50 %<br>lost 3.50 (3.00 to 4.00, 2 seeds)"
    same(rows["| resnet20", "3"], f"| resnet20 | 3 | 90.00 % | – | – | – | {several} | {single} | – | 3, 0.01, 128 |")
    # −3/1002 ± 1.959964 · √(8 − 9/1002) / 1002.
    gained = "90.30 %<br>lost −0.30 (−0.85 to 0.25)"
    same(rows["| resnet20", "8"], f"| resnet20 | 8 | 90.00 % | {gained} | – | – | – | – | – | – |")
    same(rows["| mobilenet", "2"], "| mobilenet | 2 | – | – | – | – | – | – | – | – |")
    same("\n".join(lines[-4:]) + "\n", CAPTION)


def stored() -> None:
    """Entries are kept sorted and replaced, whatever the order of their runs, and README follows."""
    with tempfile.TemporaryDirectory() as name:
        path, readme = Path(name) / "results.json", Path(name) / "README.md"
        readme.write_text(f"before\n{accuracy_table.BEGIN}\nold\n{accuracy_table.END}\nafter\n")
        results = Results(path, readme)
        results.add(Cell.of(ENTRIES[2]), entry("both", lost=99))
        for one in reversed(ENTRIES):
            results.add(Cell.of(one), one)
        expected = [ENTRIES[index] for index in (0, 1, 3, 4, 2)]
        same(json.loads(path.read_text()), expected)
        block = f"{accuracy_table.BEGIN}\n{accuracy_table.render(expected)}{accuracy_table.END}"
        same(readme.read_text(), f"before\n{block}\nafter\n")
        check(results.in_step(), "the table just written is not in step")
        readme.write_text(readme.read_text().replace("88.00", "88.01"))
        check(not results.in_step(), "a changed table is in step")
        same(sorted(file.name for file in Path(name).iterdir()), ["README.md", "results.json"])
        path.write_text("[{")
        refused(results.entries, "cannot be read")
        readme.write_text(accuracy_table.END + accuracy_table.BEGIN)
        path.unlink()
        refused(results.render, "has no place for the table")


def refused(call, text: str) -> None:
    """`call` gives a `Problem` with `text` in it."""
    try:
        call()
    except accuracy_table.Problem as problem:
        check(text in str(problem), f"it says: {problem}")
    else:
        raise Failed(f"nothing is refused where '{text}' should be")


def resumed() -> None:
    """What is there is not run again, unless the settings have changed; the most telling runs come first."""
    cells = accuracy.chosen(accuracy.parse(["--networks", "resnet20"]))
    firsts = ["resnet20 float", "resnet20 8 bits onnxruntime", *(f"resnet20 {bits} bits both, seed 0" for bits in (3, 4, 2, 8))]
    same([str(cell) for cell in cells[: len(firsts)]], firsts)
    cell = Cell("resnet20", 3, "both", 0)
    there = entry("both", settings=cell.settings(rehearsed=False))
    same(accuracy.state(cell, [there], rehearsed=False), "there")
    same(accuracy.state(cell, [there | {"settings": {"epochs": 99}}], rehearsed=False), "other settings")
    same(accuracy.state(Cell("resnet20", 3, "both", 1), [there], rehearsed=False), "missing")


def agreement() -> None:
    """lsqc's own counts may differ from Python's by AGREEMENT images and no more, of integers by more where the processor saturates; those that
    are committed do not."""
    usual, saturating = accuracy.AGREEMENT, accuracy.AGREEMENT_WITHOUT_VNNI
    for features, of, most in (
        (["avx2", "avx512_vnni"], "float", usual),
        (["avx2", "avx512_vnni"], "lowered", usual),
        (["avx2"], "float", usual),
        (["avx2"], "lowered", saturating),
    ):
        for off, fine in ((most, True), (most + 1, False)):
            counts = {"float": 900, "lowered": 880, "fake_quantized": 880}
            counts[of] -= off
            one = entry("both", lost=30, gained=10, lsqc=counts)
            one["machine"] = one["machine"] | {"features": features}
            found = accuracy.disagreement(one)
            check((found is None) == fine, f"{of} off by {off} with {features}: {found}")
    committed = Results(accuracy.RESULTS, None).entries()
    differ = [f"{Cell.of(one)}: {text}" for one in committed if (text := accuracy.disagreement(one))]
    check(not differ, "; ".join(differ))


def in_step() -> None:
    """README is what the committed entries give."""
    results = Results(accuracy.RESULTS, accuracy.README)
    check(results.in_step(), "README.md's table is not that of benches/accuracy.json: run `benches/accuracy.py --render`")


def rehearsal(folder: Path, program: str | None, *more: str) -> subprocess.Popen:
    """The study of one run, with a shell script in lsqc's place."""
    stand_in = folder / "lsqc"
    if program is not None:
        stand_in.write_text(f"#!/bin/sh\n{program}\n")
        stand_in.chmod(0o755)
    one = ["--networks", "resnet20", "--bits", "3", "--methods", "both"]
    command = [sys.executable, accuracy.__file__, "--rehearse", folder / "results.json", "--lsqc", stand_in, *one, *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def refusals() -> None:
    """No program, no data, a failing program: one message each, and its exit code."""
    cases = [
        (None, [], 2, "there is no program"),
        ("exit 0", ["--data", "/nowhere"], 2, "/nowhere/train-images-idx3-ubyte.gz cannot be read"),
        ("exit 5", [], 1, "lsqc ended with 5"),
    ]
    for program, more, code, text in cases:
        with tempfile.TemporaryDirectory() as folder:
            study = rehearsal(Path(folder), program, *more)
            said = study.communicate(timeout=PATIENCE_S)[1]
            check(study.returncode == code, f"exit code {study.returncode}, not {code}: {said}")
            check(text in said and "Traceback" not in said, f"it says: {said}")


def interrupted() -> None:
    """Signals end the study and the run, and what was stored stays."""
    # Whoever runs the tests in the background may ignore it, and what is ignored stays so in every child.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            Results(folder / "results.json", None).add(Cell.of(ENTRIES[0]), ENTRIES[0])
            # `exec`, so that the signal reaches what waits.
            study = rehearsal(folder, f'touch "{folder}/started"; exec sleep {PATIENCE_S}')
            deadline = time.monotonic() + PATIENCE_S
            while not (folder / "started").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            check((folder / "started").exists(), "the study did not start its run")
            study.send_signal(number)
            said = study.communicate(timeout=PATIENCE_S)[1]
            check(study.returncode == code, f"exit code {study.returncode}, not {code}: {said}")
            check("Traceback" not in said, f"it says: {said}")
            same(json.loads((folder / "results.json").read_text()), [ENTRIES[0]])
            same(sorted(file.name for file in folder.iterdir()), ["lsqc", "results.json", "started"])


def main() -> None:
    tally = Tally()
    for body in (table, stored, resumed, agreement, in_step, refusals, interrupted):
        tally.case(f"accuracy: {body.__name__}", body)
    tally.finish()


if __name__ == "__main__":
    main()
