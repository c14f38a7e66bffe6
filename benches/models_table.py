"""docs/models.md, from the entries of `models.json`. Needs nothing but Python.

An entry is a model and a number of bits; a later one takes the place of an earlier. Refused, by a `Problem`: results that cannot be read, a
page without the table's markers.
"""

from __future__ import annotations

import json
from pathlib import Path

from accuracy import replace
from accuracy_table import Problem, insert, row

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
RESULTS = ROOT / "benches" / "models.json"
BEGIN, END = "<!-- models:begin -->", "<!-- models:end -->"
HEADINGS = ["model", "bits", "result", "learning rate", "layers quantized", "multiply-adds in integers", "levels proven", "mismatches", "signal to noise", "loads in ONNX Runtime", "what stays float, and why"]
BITS = (8, 4)
OUTCOMES = {0: "passed", 4: "refused", 5: "engine", 6: "proof failed"}


def entries(names: list[str]) -> list[dict]:
    """All of them, in the order of `names`."""
    try:
        found = json.loads(RESULTS.read_text())
        return sorted((entry for entry in found if entry["model"] in names), key=lambda entry: (names.index(entry["model"]), -entry["bits"]))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Problem(f"{RESULTS} cannot be read ({error}): take it from git again, or remove it to begin anew") from error


def add(entry: dict, names: list[str]) -> None:
    """Puts in an entry, and writes both files."""
    kept = [old for old in entries(names) if (old["model"], old["bits"]) != (entry["model"], entry["bits"])]
    RESULTS.write_text(json.dumps([*kept, entry]))
    replace(RESULTS, json.dumps(entries(names), indent=1, ensure_ascii=False) + "\n")
    write(names)


def write(names: list[str]) -> None:
    """Writes the page."""
    if (new := page(names)) != PAGE.read_text():
        replace(PAGE, new)


def in_step(names: list[str]) -> bool:
    """Is the page what the entries give?"""
    return page(names) == PAGE.read_text()


def page(names: list[str]) -> str:
    """The page with the table that the entries give."""
    try:
        return insert(PAGE.read_text(), render(entries(names), names), BEGIN, END)
    except OSError as error:
        raise Problem(f"{PAGE} cannot be read ({error})") from error


def render(found: list[dict], names: list[str]) -> str:
    """A line for each run; below, what was not run yet."""
    lines = [row(HEADINGS), row(["---", "---:", "---", *["---:"] * 6, "---", "---"])]
    lines += [row(_cells(entry)) for entry in found]
    versions = sorted({f"lsqc {entry['versions']['lsqc']}, ONNX Runtime {entry['versions']['onnxruntime']}" for entry in found})
    made = f"Run with {'; '.join(versions)}." if versions else "No run is stored yet."
    there = {(entry["model"], entry["bits"]) for entry in found}
    missing = [f"{name} ({', '.join(map(str, bits))} bits)" for name in names if (bits := [bits for bits in BITS if (name, bits) not in there])]
    rest = f"Not run yet: {', '.join(missing)}." if missing else ""
    return "\n".join([*lines, "", " ".join(filter(None, [made, rest])), ""])


def _cells(entry: dict) -> list[str]:
    name = f"{entry['model']}: {entry['about']}"
    outcome = OUTCOMES.get(entry["code"], f"exit code {entry['code']}")
    if entry["code"]:
        return [name, str(entry["bits"]), f"{outcome}: {entry['message']}", *[""] * (len(HEADINGS) - 3)]
    share = "?" if entry["share"] is None else f"{100 * entry['share']:.1f} %"
    ratio = "exact" if entry["snr"] is None else f"{entry['snr']:.1f} dB"
    stays = "; ".join(f"{count} {op}: {reason}" for op, reason, count in entry["stays"]) or "nothing"
    left = sum(count for op, _, count in entry["stays"] if op != "BatchNormalization")
    layers = f"{entry['layers']} of {entry['layers'] + left}"
    rate = "as calibrated" if entry["rate"] is None else f"{entry['rate']:g}"
    oldest = f"{entry['requires']} (tried: {entry['loaded']})" if "requires" in entry else "?"
    return [name, str(entry["bits"]), outcome, rate, layers, share, f"{entry['levels']:,}", str(entry["mismatches"]), ratio, oldest, stays]
