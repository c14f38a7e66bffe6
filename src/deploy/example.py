"""Runs the model in its runtime; see runtime.py.

    pip install -r requirements.txt
    python example.py                  the sample that came with the model, compared with what lsqc computed for it
    python example.py image.png        an image, or a .npy file with raw values
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from runtime import run

ROOT = Path(__file__).resolve().parent
MANIFEST = json.loads((ROOT / "manifest.json").read_text())


def prepared(path: Path, port: dict) -> np.ndarray:
    """An image or an array as the model takes it: `lsqc` wrote into the manifest how."""
    how = MANIFEST["preprocessing"].get(port["name"], {})
    raw = np.load(path) if path.suffix == ".npy" else image(path, how, port["shape"])
    if raw.ndim == len(port["shape"]) - 1:
        raw = raw[None]
    axis = 1 if how.get("layout", "NCHW") == "NCHW" else raw.ndim - 1
    scale, mean, std = (along(how.get(key, default), axis, raw.ndim) for key, default in (("scale", 1), ("mean", 0), ("std", 1)))
    return ((raw.astype(np.float32) * scale - mean) / std).astype(np.float32)


def along(value: float | list[float], axis: int, rank: int) -> np.ndarray:
    """One number, or one for each channel, to be broadcast along `axis`."""
    array = np.asarray(value, np.float32)
    return array if array.ndim == 0 or array.size == 1 else array.reshape([-1 if at == axis else 1 for at in range(rank)])


def image(path: Path, how: dict, shape: list[int]) -> np.ndarray:
    """The pixels of an image file, resized and cropped, in the layout of the model's input."""
    from PIL import Image  # only images need it

    picture = Image.open(path)
    channels = shape[1] if how.get("layout", "NCHW") == "NCHW" else shape[-1]
    color = how.get("color") or ("GRAY" if channels == 1 else "RGB")
    picture = picture.convert("L" if color == "GRAY" else "RGB")
    resize, crop = how.get("resize"), how.get("crop")
    if isinstance(resize, int):
        width, height = picture.size
        shorter = min(width, height)
        picture = picture.resize((width * resize // shorter, height * resize // shorter), Image.Resampling.BILINEAR)
    elif resize:
        picture = picture.resize((resize[1], resize[0]), Image.Resampling.BILINEAR)
    if crop:
        height, width = (crop, crop) if isinstance(crop, int) else crop
        left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
        picture = picture.crop((left, top, left + width, top + height))
    pixels = np.asarray(picture)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = pixels[..., ::-1] if color == "BGR" else pixels
    return pixels.transpose(2, 0, 1) if how.get("layout", "NCHW") == "NCHW" else pixels


def main() -> None:
    """Runs the sample, or the files that are named: one for each input of the model."""
    sample = np.load(ROOT / "sample.npz")
    paths = [Path(name) for name in sys.argv[1:]]
    if paths and len(paths) != len(MANIFEST["inputs"]):
        names = ", ".join(port["name"] for port in MANIFEST["inputs"])
        sys.exit(f"give a file for each input: {names}")
    if paths:
        feeds = {port["name"]: prepared(path, port) for port, path in zip(MANIFEST["inputs"], paths, strict=True)}
    else:
        feeds = {port["name"]: sample[port["array"]] for port in MANIFEST["inputs"]}
    results = run(ROOT / MANIFEST["model"]["name"], feeds)
    for port in MANIFEST["outputs"]:
        name, result = port["name"], results[port["name"]]
        said = [f"shape {list(result.shape)}"]
        if result.ndim == 2:
            said.append(f"classes {result.argsort(axis=1)[:, ::-1][:, :5].tolist()}")
        if not paths:
            difference = np.abs(result - sample[port["array"]]).max()
            said.append(f"largest difference to what lsqc has: {difference:.3g}")
        print(f"{name}: {', '.join(said)}")


if __name__ == "__main__":
    main()
