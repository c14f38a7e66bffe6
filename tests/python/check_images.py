"""A folder of PNG files in class subfolders gives the same result, bit for bit, as idx files written in the folder's sorted order.

    python tests/python/check_images.py target/release/lsqc

Compared are the lowered model and the whole report but for its `timing` and the names of the data files. idx files in another order give
another model: else the comparison would say nothing.
"""

from __future__ import annotations

import gzip
import json
import struct
import sys
import tempfile
import tomllib
import zlib
from pathlib import Path

import numpy as np
from support import FIXTURES, Tally, check, few_test_images, lsqc

IMAGES = 2000
TEST_IMAGES = 64
SHORT = ["--bits", 4, "--steps", 2, "--batch", 16, "--proof-images", 16, "--threads", 2, "--quiet"]


def png(image: np.ndarray) -> bytes:
    """A grey image of 8 bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def idx(array: np.ndarray) -> bytes:
    """An idx file of bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def training_images(fixture: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first images of the fixture's training set, as bytes, and their labels."""
    files = tomllib.loads((fixture / "lsqc.toml").read_text())["data"]["train"]
    read = lambda key, header: np.frombuffer(gzip.decompress((fixture / files[key]).read_bytes()), np.uint8, offset=header)
    return read("images", 16).reshape(-1, 28, 28)[:IMAGES], read("labels", 8)[:IMAGES]


def produce(binary: Path, fixture: Path, data: object, test: str, folder: Path) -> tuple[bytes, dict, dict]:
    """Runs lsqc in a folder of its own; gives the model, the report without timing and data, and its data."""
    folder.mkdir()
    lsqc(binary, "quantize", fixture / "model.onnx", *SHORT, "--data", data, "--test", test, folder=folder)
    report = json.loads((folder / "model.w4a4.report.json").read_text())
    del report["timing"]
    return (folder / "model.w4a4.onnx").read_bytes(), report, report.pop("data")


def run(binary: Path, fixture: Path) -> str:
    """The three runs."""
    images, labels = training_images(fixture)
    # Not padded with zeros: so the order of names is not that of numbers.
    names = [f"{index}.png" for index in range(IMAGES)]
    order = sorted(range(IMAGES), key=lambda index: (labels[index], names[index]))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for image, label, name in zip(images, labels, names):
            path = folder / "images" / str(label) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(image))
        for kind, chosen in (("sorted", order), ("unsorted", range(IMAGES))):
            (folder / f"{kind}-images").write_bytes(idx(images[list(chosen)]))
            (folder / f"{kind}-labels").write_bytes(idx(labels[list(chosen)]))
        test = few_test_images(fixture, TEST_IMAGES, folder)
        pair = lambda kind: f"{folder / kind}-images,{folder / kind}-labels"

        model, report, data = produce(binary, fixture, folder / "images", test, folder / "a")
        same_model, same_report, same_data = produce(binary, fixture, pair("sorted"), test, folder / "b")
        check(model == same_model, "the models differ")
        differ = [key for key in report.keys() | same_report.keys() if report.get(key) != same_report.get(key)]
        check(not differ, f"the reports differ in {sorted(differ)}")
        files, same_files = data.pop("files"), same_data.pop("files")
        check(data == same_data, "the reports differ in their data")
        check(data["train_samples"] == IMAGES, f"there are {data['train_samples']} training samples")
        check([file["name"] for file in files] == ["images", "images.idx", "labels.idx"], f"the files are {files}")
        check(files[1:] == same_files[2:], "the test files differ")

        other_model, _, _ = produce(binary, fixture, pair("unsorted"), test, folder / "c")
        check(other_model != model, "another order gives the same model")
    return f"{len(model)} equal bytes"


def main() -> None:
    binary = Path(sys.argv[1]).resolve()
    tally = Tally()
    tally.case("a folder of images is its idx files", lambda: run(binary, FIXTURES["mobilenet"]))
    tally.finish()


if __name__ == "__main__":
    main()
