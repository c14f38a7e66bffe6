#!/usr/bin/env python3
"""What gpu.sh runs: parity of two engines in losses and in what comes out, whether a run repeats, then speed and memory beside torch. Exit
code 1 if the engines differ."""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import shutil
import site
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ["mobilenet", "resnet20"]
CLASSIFIER = "/fc/*"
"""The one layer that is quantized where nearly nothing is: lsqc refuses to quantize nothing."""

STEPS = 20
BATCH = 16
RATE = 0.001
TOLERANCE = 1e-3
"""As in tests/step_parity.rs: twenty steps of float32, each from the one before."""
FIRST_TOLERANCE = 0.05
"""At 3 bits one level that rounds the other way moves a loss by percents, in the first step already; a wrong operator moves it by its size."""
TOP1_TOLERANCE = 0.5
"""Points between the files of two engines after one step at 8 bits: ten of 2,000 images, which rounding alone moves by a few. Losses do not show
the statistics that BatchNormalization has outside training."""
WARM_UP = 20
"""Steps that a timing leaves out: the first run of every operator, filling of the batch queue."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lsqc", type=Path, default=ROOT / "target" / "release" / "lsqc")
    parser.add_argument("--ort-lib", type=Path, default=os.environ.get("ORT_DYLIB_PATH"))
    parser.add_argument("--step-parity", type=Path)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--fixture", choices=FIXTURES, action="append", help="one of them, instead of both")
    parser.add_argument("--batch", type=int, default=128, help="samples in a step that is timed")
    parser.add_argument("--steps", type=int, default=200, help="steps that are timed, beyond the first")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.ort_lib is None:
        parser.error("--ort-lib is missing")
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(arguments, Path(scratch))
        fixtures = arguments.fixture or FIXTURES
        good = [check(fixture) for fixture in fixtures for check in (bench.parity, bench.files)] + [bench.single_steps()]
        for fixture in fixtures:
            bench.repeats(fixture)
        for fixture in fixtures:
            bench.speed(fixture)
    sys.exit(0 if all(good) else 1)


class Bench:
    """The programs and folders of one run."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.lsqc, self.ort_lib = arguments.lsqc.resolve(), Path(arguments.ort_lib).resolve()
        self.step_parity, self.scratch = arguments.step_parity, scratch
        self.batch, self.steps, self.threads = arguments.batch, arguments.steps, arguments.threads
        self.engine, self.reference = ("ort", "tract") if arguments.cpu else ("ort-cuda", "ort")
        self.device = "cpu" if arguments.cpu else "cuda"
        self.data = few_images(scratch / "data")

    def parity(self, fixture: str) -> bool:
        """Do both engines lose alike, with nearly all layers in float, and in the first step at 3 bits?"""
        config = self.scratch / f"{fixture}.toml"
        rules = f'[quantize]\nlayers = {{ "*" = "float", "{CLASSIFIER}" = "w8a8" }}\n'
        config.write_text(preprocessing(fixture) + rules)
        short = ["--batch", BATCH, "--lr", RATE, "--steps", STEPS, "--proof-images", 16, "--data", self.data]
        good = True
        for about, more, steps, tolerance in [
            ("nearly float", ["--bits", 8, "--config", config], STEPS, TOLERANCE),
            ("w3a3", ["--bits", 3], 1, FIRST_TOLERANCE),
        ]:
            found, expected = (
                [point["loss"] for point in self.quantize(fixture, engine, [*short, *more])[0]["training"]["losses"]][:steps]
                for engine in (self.engine, self.reference)
            )
            apart = max(abs(a - b) for a, b in zip(found, expected, strict=True))
            agrees = apart <= tolerance
            said(
                {
                    "parity": fixture,
                    "what": about,
                    "engines": [self.engine, self.reference],
                    "losses": len(found),
                    "first": [found[0], expected[0]],
                    "apart": apart,
                    "tolerance": tolerance,
                    "agrees": agrees,
                }
            )
            good = good and agrees
        return good

    def files(self, fixture: str) -> bool:
        """Are the files that both engines come to right as often?"""
        once = ["--bits", 8, "--steps", 1, "--lr", RATE, "--proof-images", 16, "--data", ROOT / "fixtures" / "fashion"]
        found, expected = (
            100 * self.quantize(fixture, engine, once)[0]["metrics"]["lowered"]["top1"] for engine in (self.engine, self.reference)
        )
        agrees = abs(found - expected) <= TOP1_TOLERANCE
        engines = [self.engine, self.reference]
        said({"parity": fixture, "what": "files", "engines": engines, "top1": [found, expected], "agrees": agrees})
        return agrees

    def repeats(self, fixture: str) -> None:
        """Do two runs with one seed write the same bytes? A question, not a check: cuDNN has convolutions that add up in any order."""
        run = ["--bits", 3, "--batch", BATCH, "--steps", STEPS, "--proof-images", 16, "--data", self.data]
        files = [self.quantize(fixture, self.engine, run)[0]["outputs"] for _ in range(2)]
        one, other = (next(file["file"]["sha256"] for file in of if file["role"] == "model") for of in files)
        said({"repeats": fixture, "engine": self.engine, "same_bytes": one == other})

    def single_steps(self) -> bool:
        """tests/step_parity.rs on these engines, if its program is given."""
        if self.step_parity is None:
            return True
        environment = libraries() | {"ORT_DYLIB_PATH": str(self.ort_lib), "LSQC_REQUIRE_ORT": "1"}
        if self.device == "cuda":
            environment["LSQC_TEST_CUDA"] = "1"
        run = subprocess.run([self.step_parity, "--nocapture"], env=environment, check=False)
        said({"parity": "single steps", "agrees": run.returncode == 0})
        return run.returncode == 0

    def speed(self, fixture: str) -> None:
        """Steps in a second and peak memory of lsqc, then of torch on the same step graph."""
        folder = self.scratch / f"{fixture}.step"
        timed = ["--bits", 3, "--batch", self.batch, "--loss", "both"]
        warm, _ = self.quantize(fixture, self.engine, [*timed, "--steps", WARM_UP, "--emit-step", folder])
        report, memory = self.quantize(fixture, self.engine, [*timed, "--steps", WARM_UP + self.steps])
        seconds = training_seconds(report) - training_seconds(warm)
        # A few steps may be lost in what differs between two runs.
        rate = self.steps / seconds if seconds > 0 else None
        result = {"speed": fixture, "by": f"lsqc, {report['engine']['description']}", "batch": report["settings"]["batch"]}
        said(result | {"steps_per_second": rate, "peak_bytes": memory})
        if importlib.util.find_spec("torch") is None or not (ROOT / "benches" / "torch_step.py").is_file():
            said({"speed": fixture, "by": "torch", "skipped": "this Python has no torch, or the repository no benches/torch_step.py"})
            return
        for variant in ("eager", "composed", "compiled"):
            rounds = ["--rounds", self.steps, "--warm-up", WARM_UP, "--threads", self.threads, "--device", self.device]
            command = [sys.executable, ROOT / "benches" / "torch_step.py", fixture, folder, "--variant", variant, *rounds]
            run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
            if run.returncode != 0:
                said({"speed": fixture, "by": f"torch {variant}", "failed": run.stderr.strip().splitlines()[-1:]})
                continue
            measured = json.loads(run.stdout.strip().splitlines()[-1])
            rate = 1000 / statistics.median(measured["milliseconds"])
            said({"speed": fixture, "by": f"torch {variant}", "steps_per_second": rate, "peak_bytes": measured["peak_bytes"]})

    def quantize(self, fixture: str, engine: str, more: list[object]) -> tuple[dict, int | None]:
        """Runs lsqc; gives its report, and the most memory that it held, on the device or resident, if that can be told."""
        report = self.scratch / "out.report.json"
        line = [self.lsqc, "quantize", ROOT / "fixtures" / f"fashion-{fixture}" / "model.onnx", "--engine", engine, "--quiet"]
        line += ["--ort-lib", self.ort_lib] if engine.startswith("ort") else []
        line += ["--threads", self.threads, "-o", self.scratch / "out.onnx", "--report", report, *more]
        watch = DeviceMemory() if self.device == "cuda" and shutil.which("nvidia-smi") else None
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(list(map(str, line)), env=libraries(), stderr=errors)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            resident = usage.ru_maxrss * 1024 if self.device == "cpu" else None
            memory = watch.most() if watch else resident
            if process.returncode != 0:
                errors.seek(0)
                sys.exit(f"{' '.join(map(str, line))}\nended with {process.returncode}:\n{errors.read().decode(errors='replace')}")
        return json.loads(report.read_text()), memory


class DeviceMemory(threading.Thread):
    """The most of the first GPU's memory in use since this began, above what was in use then. Others must leave the GPU alone."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.peak = self.used()
        self.done = False
        self.start()

    @staticmethod
    def used() -> int:
        command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]) << 20

    def run(self) -> None:
        while not self.done:
            self.peak = max(self.peak, self.used())
            time.sleep(0.1)

    def most(self) -> int:
        self.done = True
        self.join()
        return self.peak - self.before


def libraries() -> dict[str, str]:
    """The environment, in which the libraries of this Python's wheels nvidia-* are found: the ONNX Runtime may lie elsewhere."""
    folders = [str(lib) for packages in site.getsitepackages() for lib in sorted(Path(packages).glob("nvidia/*/lib"))]
    folders += filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    return os.environ | ({"LD_LIBRARY_PATH": ":".join(folders)} if folders else {})


def training_seconds(report: dict) -> float:
    return next(phase["seconds"] for phase in report["timing"]["phases"] if phase["name"] == "training")


def preprocessing(fixture: str) -> str:
    """The tables of a fixture's lsqc.toml that say how an image becomes an input."""
    lines, keep = [], False
    for line in (ROOT / "fixtures" / f"fashion-{fixture}" / "lsqc.toml").read_text().splitlines():
        keep = line.startswith("[input") if line.startswith("[") else keep
        lines += [line] if keep else []
    return "\n".join(lines) + "\n"


def few_images(folder: Path) -> Path:
    """A part of the fixtures' data, so that measuring the result takes no time."""
    folder.mkdir()
    for name, prefix, count in [("train", "train", 1024), ("test", "t10k", 64)]:
        images, labels = (
            np.frombuffer(gzip.open(ROOT / "fixtures" / "fashion" / f"{prefix}-{what}.gz").read(), np.uint8, offset=header)
            for what, header in [("images-idx3-ubyte", 16), ("labels-idx1-ubyte", 8)]
        )
        np.savez(folder / f"{name}.npz", image=images.reshape(-1, 28, 28)[:count], label=labels[:count].astype(np.int64))
    return folder


def said(result: dict) -> None:
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
