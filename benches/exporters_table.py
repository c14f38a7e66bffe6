"""The second table of docs/models.md, from the entries of `exporters.json`. Needs nothing but Python.

An entry is a file: a network, an exporter, an operator set. Refused, by a `Problem`: results that cannot be read, a page without the
table's markers.
"""

from __future__ import annotations

import json
from pathlib import Path

from accuracy import replace
from accuracy_table import Problem, insert, row

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
RESULTS = ROOT / "benches" / "exporters.json"
BEGIN, END = "<!-- exporters:begin -->", "<!-- exporters:end -->"
HEADINGS = ["network", "exporter", "operator sets", "layers quantized", "products quantized", "same as the network's first", "levels proven", "mismatches", "what stays float"]


def entries() -> list[dict]:
    """All of them, in the order of their runs."""
    try:
        return json.loads(RESULTS.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise Problem(f"{RESULTS} cannot be read ({error}): take it from git again, or remove it to begin anew") from error


def add(entry: dict) -> None:
    """Puts in an entry, at the place of an older one of this file if there is one, and writes both files."""
    key = ("network", "exporter", "opset")
    found = entries()
    there = [at for at, old in enumerate(found) if all(old[part] == entry[part] for part in key)]
    for at in there:
        found[at] = entry
    if not there:
        found.append(entry)
    replace(RESULTS, "[\n" + ",\n".join(json.dumps(each) for each in found) + "\n]\n")
    write()


def write() -> None:
    """Writes the page."""
    if (new := page()) != PAGE.read_text():
        replace(PAGE, new)


def in_step() -> bool:
    """Is the page what the entries give?"""
    return page() == PAGE.read_text()


def page() -> str:
    """The page with the table that the entries give."""
    return insert(PAGE.read_text(), render(entries()), BEGIN, END)


def same(entry: dict, found: list[dict]) -> bool:
    """Are its sites those of the first file of its network?"""
    first = next(other for other in found if other["network"] == entry["network"] and other.get("code") == 0)
    return all(entry[part] == first[part] for part in ("sites", "products"))


def failed(entry: dict) -> bool:
    """Did lsqc fail on the file, or does it differ from the first of its network?"""
    return "refused" not in entry and (entry["code"] != 0 or entry["mismatches"] != 0 or not same(entry, entries()))


def said(entry: dict) -> str:
    """One line on a file."""
    if "refused" in entry:
        return f"not written by the exporter: {entry['refused']}"
    if entry["code"]:
        return f"exit code {entry['code']}: {entry['message']}"
    alike = "same sites" if same(entry, entries()) else "OTHER SITES"
    return f"{len(entry['sites'])} layers, {entry['products']} products, {alike}, {entry['levels']:,} levels, {entry['mismatches']} mismatches"


def render(found: list[dict]) -> str:
    """A line for the files of one network and exporter that came out alike."""
    groups: dict[tuple, list[str]] = {}
    for entry in found:
        groups.setdefault((entry["network"], entry["exporter"], *_cells(entry, found)), []).append(_opset(entry))
    lines = [row(HEADINGS), row(["---", "---", "---", *["---:"] * 2, "---", *["---:"] * 2, "---"])]
    lines += [row([network, exporter, ", ".join(opsets), *cells]) for (network, exporter, *cells), opsets in groups.items()]
    versions = sorted({f"torch {entry['versions']['torch']}, ONNX Runtime {entry['versions']['onnxruntime']}" for entry in found})
    return "\n".join([*lines, "", f"Run with {'; '.join(versions)}." if versions else "No run is stored yet.", ""])


def _opset(entry: dict) -> str:
    asked, written = entry["opset"], entry.get("written", entry["opset"])
    return str(asked) if asked == written else f"{asked} (it writes {written})"


def _cells(entry: dict, found: list[dict]) -> list[str]:
    if "refused" in entry:
        return ["the exporter does not write it", *[""] * 5]
    if entry["code"]:
        return [f"exit code {entry['code']}: {entry['message'].splitlines()[0]}", *[""] * 5]
    alike = "yes" if same(entry, found) else "no"
    counts = [str(len(entry["sites"])), str(entry["products"]), alike, f"{entry['levels']:,}", str(entry["mismatches"])]
    return [*counts, ", ".join(entry["stays"]) or "nothing"]
