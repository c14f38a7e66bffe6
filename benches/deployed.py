"""Makes the files that are timed, and times them in turns. For `latency.py` and `sizes.py`; needs numpy, onnx and onnxruntime.

Made files are kept in a folder, each named after what it was made from (program, model, flags), so that a second call only times.

Refused, by a `Problem`: a network whose file is not there, an lsqc that fails.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from accuracy_runs import machine
from accuracy_table import Problem
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from support import FIXTURES, images, ort_library

CALIBRATION_IMAGES, TEST_SHARE = 40, 0.2
"""For lsqc and quantize_static: few, as nothing that is measured here depends on them."""
LARGE = (3, 224, 224)
SMOOTH = 8
"""Noise for the large networks is drawn in squares of this many pixels, as in fixtures/imagenet.py."""
LEAST_S = 0.1
"""In a round a side runs until so much time is gone, and at least once; the median counts. As long it is warmed up before the first."""


@dataclass(frozen=True)
class Network:
    """A float model, and images for it."""

    name: str
    model: Path

    @staticmethod
    def find(name: str, folder: Path) -> Network:
        """A fixture, or a network that fixtures/imagenet.py has put into `folder`."""
        model = FIXTURES[name] / "model.onnx" if name in FIXTURES else folder / f"{name}.onnx"
        if not model.is_file():
            raise Problem(f"there is no {model}: `fixtures/imagenet.py --out {folder} {name}` writes it")
        return Network(name, model)

    def images(self, count: int) -> np.ndarray:
        """As the network takes them: training images of a fixture, smooth noise for the others."""
        if self.name in FIXTURES:
            return images(FIXTURES[self.name], np.arange(count))[0]
        channels, *size = LARGE
        coarse = np.random.default_rng(0).standard_normal((count, channels, *(extent // SMOOTH for extent in size)), np.float32)
        return np.kron(coarse, np.ones((1, 1, SMOOTH, SMOOTH), np.float32))


@dataclass(frozen=True)
class Maker:
    """Makes files in `folder` with the program `lsqc`."""

    lsqc: Path
    folder: Path

    def by_lsqc(self, network: Network, flags: list[object]) -> Path:
        """`lsqc quantize` with `flags`, calibrated, not trained."""
        # Re-estimating BatchNorm changes no shape and takes long.
        words = ["--epochs", "0", "--bn", "frozen", "--batch", "8", "--proof-images", "4", "--test-fraction", TEST_SHARE, *flags]
        return self._made(network, [_digest(self.lsqc), *map(str, words)], "lsqc", lambda to: self._run_lsqc(network, words, to))

    def by_onnxruntime(self, network: Network) -> Path:
        """`quantize_static` with its documented types for CPUs and a scale for each output channel."""
        settings = [onnxruntime.__version__, "per_channel", "QUInt8", "QInt8", str(CALIBRATION_IMAGES)]
        return self._made(network, settings, "quantize_static", lambda to: _quantize_static(network, to))

    def version(self) -> str:
        """lsqc's."""
        return _called([self.lsqc, "--version"]).split()[-1]

    def _made(self, network: Network, by: list[str], tool: str, make: Callable[[Path], None]) -> Path:
        key = hashlib.sha256("\0".join([_digest(network.model), *by]).encode()).hexdigest()[:12]
        path = self.folder / f"{network.name}.{tool}.{key}.onnx"
        if not path.is_file():
            print(f"making {path.name}", flush=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder) as begun:
                make(Path(begun) / path.name)
                os.replace(Path(begun) / path.name, path)
        return path

    def _run_lsqc(self, network: Network, words: list[object], to: Path) -> None:
        data, settings = to.parent / "images.npz", to.parent / "lsqc.toml"
        np.savez(data, image=network.images(CALIBRATION_IMAGES))
        # A fixture's own settings would preprocess the images again.
        settings.write_text("")
        files = ["--data", data, "--config", settings, "-o", to, "--report", to.parent / "report.json"]
        _called([self.lsqc, "quantize", network.model, *words, *files, "--quiet"])


def interleaved(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each side in each round. In every round each has its turn, a different one first."""
    for side in sides.values():
        _turn(side)
    times: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(rounds):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            times[name].append(_turn(sides[name]))
    return times


def ratios(times: list[float], to: list[float]) -> list[float]:
    """Round by round."""
    return [one / other for one, other in zip(times, to, strict=True)]


def session(model: Path, threads: int, **more: str) -> onnxruntime.InferenceSession:
    """As stock ONNX Runtime opens it; only the threads of a session that is not running do not spin, as others have their turn then."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for key, value in more.items():
        setattr(options, key, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def circumstances(maker: Maker, **versions: str) -> dict:
    """Versions and machine, for an entry."""
    return {"versions": {"lsqc": maker.version()} | versions, "machine": machine()}


def _turn(side: Callable[[], object]) -> float:
    runs: list[float] = []
    while not runs or sum(runs) < LEAST_S:
        start = time.perf_counter()
        side()
        runs.append(time.perf_counter() - start)
    return 1000 * statistics.median(runs)


class _Reader(CalibrationDataReader):
    """Hands quantize_static its images one by one."""

    def __init__(self, calibration: np.ndarray) -> None:
        self._images = iter(calibration)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image, or `None` behind the last."""
        image = next(self._images, None)
        return None if image is None else {"image": image[np.newaxis]}


def _quantize_static(network: Network, to: Path) -> None:
    prepared = to.parent / "prepared.onnx"
    quant_pre_process(network.model, prepared, skip_symbolic_shape=True)
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(prepared, to, _Reader(network.images(CALIBRATION_IMAGES)), per_channel=True, **types)


def _called(command: list[object]) -> str:
    """Standard output of a program that succeeds."""
    environment = os.environ | {"ORT_DYLIB_PATH": str(ort_library())}
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        cure = "`cargo build --release --locked` makes target/release/lsqc, or name one with --lsqc"
        raise Problem(f"{words[0]} cannot be run ({error}): {cure}") from error
    if done.returncode:
        raise Problem(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise Problem(f"{path} cannot be read ({error}): `cargo build --release --locked`, or name a program with --lsqc") from error
