"""What the accuracy study says: README's table, from the entries of `accuracy.json`. Needs nothing but Python.

A cell has the mean top-1 of its runs and the points lost against the float model: with one run, the paired 95 % interval (Agresti and
Min's, as in lsqc's report); with several, the range over the seeds. A dash: not run.

Refused, by a `Problem`: a README without the two markers, or with them in the wrong order.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

BEGIN, END = "<!-- accuracy:begin -->", "<!-- accuracy:end -->"

NETWORKS = ("resnet20", "mobilenet")
BITS = (8, 4, 3, 2)
COLUMNS = {
    "float": "float",
    "onnxruntime": "ONNX Runtime's `quantize_static`",
    "calibrate": "`lsqc`, calibrated only",
    "ce": "`--loss ce`",
    "kd": "`--loss kd`",
    "both": "`--loss both`",
    "channels": "`--loss both --per-channel`",
}
"""Method to heading."""
TRAINED = {"ce": "ce", "kd": "kd", "both": "both", "channels": "both"}
"""Method with training to its loss."""

Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""

NOT_RUN = "–"
USUAL_BATCH = 128
"""What lsqc takes where it is told nothing."""


class Problem(Exception):
    """What keeps the study from being run or shown, with its cure."""


def render(entries: list[dict]) -> str:
    """README's table and what stands below it, without the markers."""
    headings = ["network", "bits", *COLUMNS.values(), "epochs, lr, batch"]
    lines = [row(headings), row(["---", "---:", *["---:"] * len(COLUMNS), "---"])]
    for network in NETWORKS:
        for bits in BITS:
            of_row = [entry for entry in entries if entry["network"] == network and entry["bits"] in (bits, None)]
            cells = [_cell([entry for entry in of_row if entry["method"] == method]) for method in COLUMNS]
            lines.append(row([network, str(bits), *cells, _training(of_row)]))
    return "\n".join([*lines, "", _caption(entries), ""])


def insert(readme: str, table: str, begin: str = BEGIN, end: str = END) -> str:
    """`readme` with `table` between the markers."""
    before, begun, rest = readme.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise Problem(f"README.md has no place for the table: it needs the lines '{begin}' and '{end}', in this order")
    return f"{before}{begin}\n{table}{end}{after}"


def paired_drop(lost: int, gained: int, samples: int) -> tuple[float, tuple[float, float]]:
    """Points of top-1 lost, and Agresti and Min's 95 % interval: Wald's, after half a sample is added to each cell of the 2 × 2 table."""
    difference, adjusted = lost - gained, samples + 2
    center = difference / adjusted
    half = Z * max(lost + gained + 1 - difference**2 / adjusted, 0.0) ** 0.5 / adjusted
    return 100 * difference / samples, (100 * (center - half), 100 * (center + half))


def row(cells: Iterable[str]) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def machine_text(machine: dict) -> str:
    """What README says of a machine."""
    return ", ".join([machine["cpu"], f"{machine['cores']} cores", *machine["features"]])


def alternatives(texts: Iterable[str]) -> str:
    """Each text once."""
    return " or ".join(sorted(set(texts)))


def _cell(runs: list[dict]) -> str:
    if not runs:
        return NOT_RUN
    measured = [run["measured"] for run in runs]
    top1 = f"{fmean(100 * one['right'] / one['samples'] for one in measured):.2f} %"
    if runs[0]["method"] == "float":
        return top1
    drops = [paired_drop(one["lost"], one["gained"], one["samples"]) for one in measured]
    points = [point for point, _ in drops]
    if len(runs) == 1:
        ((_, (low, high)),) = drops
        return f"{top1}<br>lost {_number(points[0])} ({_number(low)} to {_number(high)})"
    spread = f"{_number(min(points))} to {_number(max(points))}"
    return f"{top1}<br>lost {_number(fmean(points))} ({spread}, {len(runs)} seeds)"


def _training(runs: list[dict]) -> str:
    """Epochs, learning rate and batch, as they were; more than one where the runs of a row differ."""
    trained = [run["settings"] for run in runs if run["method"] in TRAINED]
    used = {f"{_length(settings)}, {settings['lr']:g}, {settings.get('batch', USUAL_BATCH)}" for settings in trained}
    return " or ".join(sorted(used)) or NOT_RUN


def _length(settings: dict) -> str:
    return str(settings["epochs"]) if "epochs" in settings else f"{settings['steps']} steps"


def _number(points: float) -> str:
    """Two digits, a true minus, and no minus before zero."""
    text = f"{points:.2f}".replace("-", "−")
    return "0.00" if text == "−0.00" else text


def _caption(entries: list[dict]) -> str:
    if not entries:
        return "No run is stored yet."
    samples = alternatives(f"{entry['measured']['samples']:,}" for entry in entries)
    lines = [
        f"Top-1 on {samples} test images, and the points of it that are lost against the float model: in parentheses the paired",
        "95 % interval of a single run, or the range over several seeds.",
    ]
    versions = alternatives(entry["versions"]["onnxruntime"] for entry in entries)
    own = alternatives(entry["versions"]["lsqc"] for entry in entries if "lsqc" in entry["versions"])
    machines = alternatives(machine_text(entry["machine"]) for entry in entries)
    lines.append(f"Run with {f'lsqc {own} and ' if own else ''}ONNX Runtime {versions} on {machines}.")
    compared = sum(entry["proof"]["compared"] for entry in entries if "proof" in entry)
    if compared:
        mismatches = sum(entry["proof"]["mismatches"] for entry in entries if "proof" in entry)
        hours = sum(entry["seconds"] for entry in entries) / 3600
        lines.append(f"All runs together took {hours:.1f} hours; their proofs found {mismatches} mismatches in {compared:,} levels.")
    return "\n".join(lines)
