#!/usr/bin/env python3
"""Models that ship in packages, each through `lsqc quantize`: docs/models.md, one row for each model and number of bits.

    benches/models.py                        all that is missing, 8 and 4 bits
    benches/models.py --models magika nudenet --again
    benches/models.py --facts                what takes no training, again: multiply-adds, and the oldest runtime that loads a file
    benches/models.py --render               docs/models.md again; --check: is it in step?

Run it with .venv/bin/python, which tests/run makes. Packages are fetched into target/models, once; models_data.py names them with their
digests, and makes the data. Each run trains 20 steps in ONNX Runtime and proves the file; what the table says of a file is from its report,
from `lsqc inspect` (the share of multiply-adds) and from onnxruntime in Python (the file against the float model on samples that were not
trained on). Results are in `models.json`; a run that is there is not done again.

Exit codes: 0 good; 1 the page is not in step; 2 something is missing; 3 a run failed otherwise than by refusing its model.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tests" / "python")]
import models_table as table  # noqa: E402
from accuracy_table import Problem  # noqa: E402

STEPS, BATCH, PROOF = 20, 2, 1
REFUSED = (0, 4)
"""A good file, or a model that is refused by name."""
TIMEOUT_S = 1800
OLDEST = "1.15"
"""The oldest ONNX Runtime that there is for Python 3.11."""


def study(arguments: argparse.Namespace, data) -> int:
    """Does the missing runs; gives the exit code."""
    names = [case.name for case in data.CASES]
    there = {(entry["model"], entry["bits"]) for entry in table.entries(names)}
    failed = 0
    for bits in arguments.bits:
        for case in data.CASES:
            if case.name not in arguments.models or ((case.name, bits) in there and not arguments.again):
                continue
            print(f"{case.name}, {bits} bits", flush=True)
            entry = _run(case, bits, arguments)
            failed += entry["code"] not in REFUSED
            print(f"    {entry.get('message') or _said(entry)}", flush=True)
            if not arguments.dry:
                table.add(entry, names)
    return 3 if failed else 0


def _said(entry: dict) -> str:
    ratio = "exact" if entry["snr"] is None else f"{entry['snr']:.1f} dB"
    return f"{entry['layers']} layers, {entry['levels']:,} levels, {entry['mismatches']} mismatches, {ratio}, {entry['seconds']:.0f} s"


def _run(case, bits: int, arguments: argparse.Namespace) -> dict:
    import numpy as np
    import onnxruntime

    folder = arguments.folder
    model = case.model(folder / "wheels", folder / "onnx")
    lsqc = arguments.lsqc.resolve()
    shared = ["--bits", str(bits), *case.flags]
    training = ["--steps", arguments.steps, "--batch", BATCH, "--proof-images", PROOF, "--test-fraction", "0.34", "--threads", arguments.threads]
    with tempfile.TemporaryDirectory() as work:
        samples, out, report = (Path(work) / name for name in ("data.npz", "out.onnx", "report.json"))
        arrays = case.data()
        np.savez(samples, **arrays)
        words = ["quantize", model, *shared, *training, "--data", samples, "-o", out, "--report", report, "--quiet"]
        begin = time.monotonic()
        code, _, errors = _called([lsqc, *words])
        versions = {"lsqc": _called([lsqc, "--version"])[1].split()[-1], "onnxruntime": onnxruntime.__version__}
        entry = {"model": case.name, "about": case.about, "bits": bits, "flags": " ".join(case.flags), "steps": int(arguments.steps)}
        entry |= {"code": code, "seconds": round(time.monotonic() - begin, 1), "versions": versions}
        if code:
            said = [line for line in errors.splitlines() if line.startswith("error: ")] or errors.splitlines()[-1:] or ["nothing was said"]
            return entry | {"message": said[0].removeprefix("error: ").replace(f"{model}: ", "")}
        found = json.loads(report.read_text())
        proof = found["proof"]["layers"]
        stays = collections.Counter((left["op"], left["reason"]) for left in found["not_quantized"])
        # Without weights it is a product of two activations, or an addition or the like, which has no multiply-adds.
        layers = [layer for layer in found["layers"] if layer["weights"] or layer["op"] == "MatMul"]
        entry |= {"rate": found["settings"]["learning_rate"] if found["settings"]["steps"] else None, "layers": len(layers), "levels": sum(layer["compared"] for layer in proof)}
        entry |= {"mismatches": sum(layer["mismatches"] for layer in proof), "ties": sum(layer["ties"] for layer in proof)}
        warnings = [warning.replace(str(samples), samples.name) for warning in found["warnings"]]
        entry |= {"stays": [[op, reason, count] for (op, reason), count in sorted(stays.items())], "warnings": warnings}
        entry |= {"share": _share(case, bits, model, lsqc)} | _loaded(out, found["requires"]["version"], folder)
        return entry | {"snr": _signal_to_noise(onnxruntime, np, model, out, arrays)}


def _share(case, bits: int, model: Path, lsqc: Path) -> float | None:
    """The share of the multiply-adds that layers have which ONNX Runtime computes in integers."""
    shapes = [word for name, shape in case.shapes.items() for word in ("--shape", f"{name}={shape}")]
    done, text, _ = _called([lsqc, "inspect", model, "--bits", bits, *case.flags, *shapes, "--json"])
    found = json.loads(text) if done == 0 else None
    if not found or not found["multiply_adds"]["total"]:
        return None
    counted = [layer["multiply_adds"] for layer in (*found["layers"], *found["products"]) if layer["integers"]]
    return sum(counted) / found["multiply_adds"]["total"]


def facts(arguments: argparse.Namespace, data) -> int:
    """What takes no training, again for every run that is stored: the share of multiply-adds, and the oldest runtime that loads a file."""
    import numpy as np

    names, lsqc = [case.name for case in data.CASES], arguments.lsqc.resolve()
    for entry in table.entries(names):
        case = next(case for case in data.CASES if case.name == entry["model"])
        if entry["code"] or case.name not in arguments.models:
            continue
        bits, model = entry["bits"], case.model(arguments.folder / "wheels", arguments.folder / "onnx")
        with tempfile.TemporaryDirectory() as work:
            samples, out, report = (Path(work) / name for name in ("data.npz", "out.onnx", "report.json"))
            np.savez(samples, **case.data())
            flags = ["--bits", bits, *case.flags, "--steps", 0, "--proof-images", 1, "--test-fraction", "0.34", "--data", samples]
            code, _, errors = _called([lsqc, "quantize", model, *flags, "-o", out, "--report", report, "--quiet"])
            if code:
                raise Problem(f"{case.name} at {bits} bits, calibrated only, ends with {code}: {errors.strip()}")
            found = {"share": _share(case, bits, model, lsqc)} | _loaded(out, json.loads(report.read_text())["requires"]["version"], arguments.folder)
        print(f"{case.name}, {bits} bits: {found}", flush=True)
        if not arguments.dry:
            table.add(entry | found, names)
    return 0


def _loaded(file: Path, requires: str, folder: Path) -> dict:
    """Loads a file in the oldest runtime that the report names, or the oldest one that this Python has; fails where that refuses it."""
    version = max(requires, OLDEST, key=lambda version: tuple(map(int, version.split("."))))
    python = folder / "runtimes" / version / "bin" / "python"
    if not python.is_file():
        venv.create(python.parents[1], with_pip=True)
        words = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"onnxruntime=={version}.*", "numpy<2"]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(python.parents[1])
            raise Problem(f"onnxruntime {version} cannot be had: {done.stderr.strip()}")
    load = "import sys, onnxruntime as o; o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider']); print(o.__version__)"
    done = subprocess.run([python, "-c", load, file], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem(f"onnxruntime {version} does not load the file: {done.stderr.strip().splitlines()[-1]}")
    return {"requires": requires, "loaded": done.stdout.strip()}


def _session(onnxruntime, path: Path):
    """With precise kernels, as lsqc asks for them on x86 without VNNI, where sums of 8-bit products saturate; with the usual ones where layers
    share a weight, which onnxruntime cannot load so."""
    for precise in ("1", "0"):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.x64quantprecision", precise)
        try:
            return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            if precise == "0":
                raise
    raise AssertionError("one of the two returns or raises")


def _signal_to_noise(onnxruntime, np, float_model: Path, lowered: Path, arrays: dict) -> float | None:
    """10·log10(Σy² / Σ(y − ŷ)²) over all float outputs and a sample at a time, in dB; none where nothing differs."""
    sessions = [_session(onnxruntime, path) for path in (float_model, lowered)]
    fed = {given.name: given for given in sessions[0].get_inputs()}
    taken = {given.name for given in sessions[1].get_inputs()}
    signal = noise = 0.0
    for at in range(len(next(iter(arrays.values())))):
        feeds = {}
        for name, given in fed.items():
            # A state, or an input that --fix-input made a constant.
            value = arrays[name][at] if name in arrays else np.array(16000, np.int64)
            feeds[name] = value if value.ndim == len(given.shape) else value[None]
        given = [session.run(None, {name: value for name, value in feeds.items() if own is None or name in own}) for session, own in zip(sessions, (None, taken))]
        for float_output, output in zip(*given):
            if float_output.dtype.kind == "f":
                exact = float_output.astype(np.float64)
                signal, noise = signal + float((exact**2).sum()), noise + float(((exact - output) ** 2).sum())
    return None if noise == 0 else round(float(10 * np.log10(signal / noise)), 2)


def _called(words: list) -> tuple[int, str, str]:
    from support import ort_library

    environment = os.environ | {"ORT_DYLIB_PATH": str(ort_library())}
    try:
        done = subprocess.run([str(word) for word in words], env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return 124, "", f"error: it took more than {TIMEOUT_S} s"
    except OSError as error:
        cure = "`cargo build --release --locked` makes target/release/lsqc, or name one with --lsqc"
        raise Problem(f"{words[0]} cannot be run ({error}): {cure}") from error
    return done.returncode, done.stdout, done.stderr


def main() -> int:
    """The command line; gives the exit code."""
    try:
        import models_data as data
    except ImportError as error:
        raise Problem(f"a package is missing ({error}): run this with .venv/bin/python, which tests/run makes") from error
    names = [case.name for case in data.CASES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--bits", nargs="+", type=int, choices=range(2, 9), default=table.BITS, metavar="N", help="[8 4]")
    parser.add_argument("--steps", default=str(STEPS), metavar="N", help=f"[{STEPS}]")
    parser.add_argument("--threads", default="0", metavar="N", help="of lsqc; 0: one for each core [0]")
    parser.add_argument("--again", action="store_true", help="also what is there")
    parser.add_argument("--facts", action="store_true", help="only what takes no training, again")
    parser.add_argument("--dry", action="store_true", help="store nothing")
    parser.add_argument("--folder", type=Path, default=ROOT / "target" / "models", metavar="DIR", help="[target/models]")
    parser.add_argument("--lsqc", type=Path, default=ROOT / "target" / "release" / "lsqc", metavar="FILE", help="[target/release/lsqc]")
    parser.add_argument("--render", action="store_true", help="only write docs/models.md again")
    parser.add_argument("--check", action="store_true", help="only say whether docs/models.md is in step")
    arguments = parser.parse_args()
    if arguments.check:
        return 0 if table.in_step(names) else 1
    if arguments.render:
        table.write(names)
        return 0
    return facts(arguments, data) if arguments.facts else study(arguments, data)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"models.py: {problem}", file=sys.stderr)
        sys.exit(2)
