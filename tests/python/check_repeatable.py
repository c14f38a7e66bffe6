"""The same seed, engine and threads give the same bytes, in another working folder too.

    python tests/python/check_repeatable.py target/release/lsqc

Compared are the lowered model and the whole report but for its `timing`. Another seed gives another model: else the comparison would say
nothing.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from support import FIXTURES, Tally, check, few_test_images, lsqc

SHORT = ["--bits", 3, "--steps", 2, "--batch", 16, "--proof-images", 16]
THREADS = 2
TEST_IMAGES = 64


def produce(binary: Path, model: str | Path, engine: str, seed: int, test: str, folder: Path) -> tuple[bytes, dict]:
    """Runs lsqc in `folder`, with output names of its own choice; gives the model and the report without timing."""
    flags = [*SHORT, "--engine", engine, "--seed", seed, "--threads", THREADS, "--test", test, "--quiet"]
    lsqc(binary, "quantize", model, *flags, folder=folder)
    report = json.loads((folder / "model.w3a3.report.json").read_text())
    check("timing" in report, "the report has no timing")
    del report["timing"]
    return (folder / "model.w3a3.onnx").read_bytes(), report


def run(binary: Path, fixture: Path, engine: str) -> None:
    """Runs twice in different folders, the model named by different paths, and once with another seed."""
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        inner = Path(b) / "deeper" / "folder"
        inner.mkdir(parents=True)
        path, test = fixture / "model.onnx", few_test_images(fixture, TEST_IMAGES, Path(a))
        first = produce(binary, path, engine, 0, test, Path(a))
        second = produce(binary, os.path.relpath(path, inner), engine, 0, test, inner)
        check(first[0] == second[0], "the models differ")
        differ = [key for key in first[1].keys() | second[1].keys() if first[1].get(key) != second[1].get(key)]
        check(not differ, f"the reports differ in {sorted(differ)}")
        other = produce(binary, path, engine, 1, test, Path(b))
        check(other[0] != first[0], "another seed gives the same model")


def main() -> None:
    binary = Path(sys.argv[1]).resolve()
    tally = Tally()
    for engine, name in (("ort", "resnet20"), ("tract", "mobilenet")):
        tally.case(f"repeatable {name}, {engine}", lambda: run(binary, FIXTURES[name], engine))
    tally.finish()


if __name__ == "__main__":
    main()
