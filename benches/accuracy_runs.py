"""The runs of the accuracy study: each function does one and gives its entry. Needs numpy, onnx and onnxruntime.

What a run made is measured here, in onnxruntime with default session options, and not by lsqc: images are preprocessed in numpy as the
fixture's lsqc.toml says. lsqc's own counts stand beside it.

Refused, by a `Problem`: data that is not what `--data` must hold, a fixture without [input.image], an lsqc that fails or that ran on
other data.
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from accuracy_table import Problem
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "python"))
from support import FIXTURES, ort_library  # noqa: E402

FILES = {part: (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")}
WHOLE = {"train": 60_000, "t10k": 10_000}
BATCH = 500
"""Images that are measured at once; a result does not depend on it."""
CALIBRATION_BATCH = 32
FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp")
"""Of the processor, those that decide which integer kernels ONNX Runtime takes."""
INTERRUPTED = (130, 143)


class Data:
    """A folder with Fashion-MNIST's four files."""

    def __init__(self, folder: Path, counts: dict[str, int] | None) -> None:
        """Reads it; without `counts` it may be a part of the whole."""
        self.folder = folder.resolve()
        self.images, self.labels = {}, {}
        for part, (images, labels) in FILES.items():
            self.images[part], self.labels[part] = _idx(folder / images, rank=3), _idx(folder / labels, rank=1)
            found = {len(self.images[part]), len(self.labels[part])}
            expected = {counts[part]} if counts else {len(self.images[part])}
            if found != expected:
                cure = "the study is of the whole data set; `fixtures/fashion/layout.py --full DIR` writes it"
                raise Problem(f"{folder}: '{part}' has {sorted(found)} images and labels, not {max(expected)}: {cure}")

    @cache  # noqa: B019 - there is one Data for the life of the program
    def test_set(self, network: str) -> tuple[np.ndarray, np.ndarray]:
        """All test images as the network takes them, and their labels."""
        return _preprocessed(network, self.images["t10k"]), self.labels["t10k"]

    def calibration_set(self, network: str, count: int) -> np.ndarray:
        """`count` training images, evenly spread, as the network takes them."""
        total = len(self.images["train"])
        return _preprocessed(network, self.images["train"][np.arange(count) * total // count])

    @cache  # noqa: B019
    def float_right(self, network: str) -> np.ndarray:
        """Which test images the float model has right."""
        return right(_float_model(network), *self.test_set(network))


def bring_data(folder: Path) -> None:
    """Makes the four files in `folder` if none of them is there."""
    names = [name for pair in FILES.values() for name in pair]
    there = [name for name in names if (folder / name).is_file()]
    if len(there) == len(names):
        return
    if there:
        missing = ", ".join(sorted(set(names) - set(there)))
        raise Problem(f"{folder} has some of Fashion-MNIST's files but not {missing}: give a folder with all four, or an empty one")
    folder.mkdir(parents=True, exist_ok=True)
    print(f"writing Fashion-MNIST into {folder}", flush=True)
    # Beside their place first: what is there is whole.
    with tempfile.TemporaryDirectory(dir=folder) as begun:
        command = [sys.executable, str(ROOT / "fixtures" / "fashion" / "layout.py"), "--full", begun]
        made = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if made.returncode != 0:
            last = (made.stderr.strip().splitlines() or ["it said nothing"])[-1]
            cure = "it needs apt-get and dpkg-deb; or put the four idx.gz files into a folder yourself and name it with --data"
            raise Problem(f"fixtures/fashion/layout.py could not make the data ({last}): {cure}")
        for name in names:
            os.replace(Path(begun) / name, folder / name)


def run_float(network: str, data: Data) -> dict:
    """The float model itself."""
    start = time.monotonic()
    entry = {"measured": _measured(data.float_right(network), data, network), "seconds": _since(start)}
    return entry | {"sizes": {"float_model": _float_model(network).stat().st_size}} | _circumstances()


def run_onnxruntime(network: str, data: Data, calibration_images: int) -> dict:
    """ONNX Runtime's own quantizer, as it is by default, but for its documented types for CPUs: uint8 activations, int8 weights."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        prepared, quantized = Path(name) / "prepared.onnx", Path(name) / "quantized.onnx"
        # Symbolic shapes need a further package and add nothing here: ONNX's own inference finds all shapes of these networks.
        quant_pre_process(_float_model(network), prepared, skip_symbolic_shape=True)
        reader = _Reader(data.calibration_set(network, calibration_images))
        quantize_static(prepared, quantized, reader, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        entry = {"measured": _measured(right(quantized, *data.test_set(network)), data, network), "seconds": _since(start)}
        sizes = {"float_model": _float_model(network).stat().st_size, "lowered_model": quantized.stat().st_size}
        return entry | {"sizes": sizes} | _circumstances()


def run_lsqc(binary: Path, library: Path | None, network: str, data: Data, flags: list[object]) -> dict:
    """`lsqc quantize` with `flags`, and its file measured. `library`: lsqc's ONNX Runtime, if it is not the one that measures."""
    with tempfile.TemporaryDirectory() as name:
        lowered, report_file = Path(name) / "lowered.onnx", Path(name) / "report.json"
        command = [binary, "quantize", _float_model(network), "--data", data.folder, *flags]
        command += ["-o", lowered, "--report", report_file, *([] if sys.stderr.isatty() else ["--quiet"])]
        _call([str(word) for word in command], library or ort_library())
        report = json.loads(report_file.read_text())
        _check_data(report["data"], data)
        measured = _measured(right(lowered, *data.test_set(network)), data, network)
    layers, metrics, settings = report["proof"]["layers"], report["metrics"], report["settings"]
    sums = {key: sum(layer[key] for layer in layers) for key in ("compared", "mismatches", "ties")}
    return {
        "measured": measured,
        "lsqc": {of: round(metrics[of]["top1"] * metrics[of]["samples"]) for of in ("float", "fake_quantized", "lowered")},
        "steps": settings["steps"],
        "batch": settings["batch"],
        "threads": settings["threads"],
        "engine": report["engine"]["description"],
        "seconds": round(report["timing"]["seconds"], 1),
        "proof": {"images": report["proof"]["images"]} | sums,
        "sizes": report["sizes"],
        "sha256": next(output["file"]["sha256"] for output in report["outputs"] if output["role"] == "model"),
    } | _circumstances(lsqc=report["tool"]["version"])


def right(model: Path, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which images have their own class first; the first of equal scores counts, as in lsqc."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (fed,) = (port.name for port in session.get_inputs())
    starts = range(0, len(images), BATCH)
    first = [session.run(None, {fed: images[start : start + BATCH]})[0].argmax(axis=1) for start in starts]
    return np.concatenate(first) == labels


class _Reader(CalibrationDataReader):
    """Hands quantize_static its images."""

    def __init__(self, images: np.ndarray) -> None:
        self._batches = iter([images[start : start + CALIBRATION_BATCH] for start in range(0, len(images), CALIBRATION_BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, or `None` behind the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def _call(command: list[str], library: Path) -> None:
    """Runs lsqc to its end; it ends with this program."""
    environment = os.environ | {"ORT_DYLIB_PATH": str(library)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as child:
        try:
            code = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if code in INTERRUPTED:
        raise KeyboardInterrupt
    if code != 0:
        raise Problem(f"lsqc ended with {code}: {' '.join(command)}")


def _check_data(said: dict, data: Data) -> None:
    used = said["train_samples"], said["test_samples"]
    given = len(data.images["train"]), len(data.images["t10k"])
    if used != given:
        raise Problem(f"lsqc trained and measured on {used} images, but {data.folder} has {given}")


def _measured(now_right: np.ndarray, data: Data, network: str) -> dict:
    float_right = data.float_right(network)
    return {
        "samples": len(now_right),
        "right": int(now_right.sum()),
        "lost": int((float_right & ~now_right).sum()),
        "gained": int((now_right & ~float_right).sum()),
    }


def _circumstances(**versions: str) -> dict:
    return {"versions": versions | {"onnxruntime": onnxruntime.__version__}, "machine": machine()}


@cache
def machine() -> dict:
    """The processor by name, and by family and model where Linux tells them: virtual machines give several kinds one name."""
    facts: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, colon, value = line.partition(":")
            if colon:
                facts.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in facts and "model" in facts:
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    has = (facts.get("flags") or facts.get("Features") or "").split()
    return {"cpu": name, "cores": os.cpu_count() or 1, "features": [feature for feature in FEATURES if feature in has]}


def _preprocessed(network: str, pixels: np.ndarray) -> np.ndarray:
    """(x · scale − mean) / std in NCHW, by the fixture's lsqc.toml."""
    path = FIXTURES[network] / "lsqc.toml"
    try:
        spelled = tomllib.loads(path.read_text())["input"]["image"]
        scale, mean, std = (np.float32(np.ravel(spelled[key])[0]) for key in ("scale", "mean", "std"))
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        cure = "it needs scale, mean and std in [input.image]"
        raise Problem(f"{path} does not say how images are preprocessed ({error}): {cure}") from error
    return (pixels[:, np.newaxis].astype(np.float32) * scale - mean) / std


def _float_model(network: str) -> Path:
    return FIXTURES[network] / "model.onnx"


def _since(start: float) -> float:
    return round(time.monotonic() - start, 1)


def _idx(path: Path, rank: int) -> np.ndarray:
    """An idx file of bytes, gzipped."""
    try:
        content = gzip.decompress(path.read_bytes())
        magic, *shape = struct.unpack_from(f">{1 + rank}I", content)
        if magic != 0x800 + rank:
            raise ValueError(f"no idx file of bytes of rank {rank}")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise Problem(f"{path} cannot be read ({error}): `fixtures/fashion/layout.py --full DIR` writes it") from error
