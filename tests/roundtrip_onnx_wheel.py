"""Reading and then writing a model gives an equal message: the fixtures, every model in the `onnx` wheel, and every node case that its
backend tests generate.

    python tests/roundtrip_onnx_wheel.py target/release/lsqc [MODEL...]

Needs the packages onnx and numpy. Runs `lsqc opt MODEL -o OUT` and compares the two messages; presence of fields and order of lists
count. With paths it compares those instead.
"""

import argparse
import collections.abc
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import onnx

FIXTURES = pathlib.Path(__file__).resolve().parents[1] / "fixtures"
# Models that may differ, each with the reason. Nothing is excepted.
EXCEPTIONS: dict[str, str] = {}


def wheel_models(folder: pathlib.Path):
    """The `.onnx` files of the wheel, and the generated node cases, written to `folder`."""
    root = pathlib.Path(onnx.__file__).parent
    for path in sorted(root.rglob("*.onnx")):
        yield str(path.relative_to(root)), path
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases overflow and divide by zero on purpose
        cases = collect_testcases(None)
    for case in cases:
        if case.model is not None:
            path = folder / f"{case.name}.onnx"
            path.write_bytes(case.model.SerializeToString())
            yield f"node/{case.name}", path


def serialised(message):
    """One spelling for equal messages, presence included. (`==` would call NaN unequal to itself.)"""
    return message.SerializeToString(deterministic=True)


def first_difference(a, b, where=""):
    """Where two messages of one type differ first."""
    for field in a.DESCRIPTOR.fields:
        name, path = field.name, f"{where}.{field.name}"
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, collections.abc.Sequence) and not isinstance(left, (str, bytes)):
            if len(left) != len(right):
                return f"{path}: {len(left)} and {len(right)} entries"
            if field.message_type is None:
                if list(left) != list(right):
                    return path
                continue
            for index, (x, y) in enumerate(zip(left, right)):
                found = first_difference(x, y, f"{path}[{index}]")
                if found:
                    return found
        elif a.HasField(name) != b.HasField(name):
            return f"{path}: present in one only"
        elif field.message_type is not None:
            found = a.HasField(name) and first_difference(left, right, path)
            if found:
                return found
        elif left != right:
            return f"{path}: {left!r} and {right!r}"
    return None


def check(lsqc: str, name: str, path: pathlib.Path, folder: pathlib.Path):
    """None if the model survives, else what happened to it."""
    out = folder / (name.replace(os.sep, "_").replace("/", "_") + ".out.onnx")
    result = subprocess.run([lsqc, "opt", str(path), "-o", str(out)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return f"exit code {result.returncode}: {result.stderr.strip()}"
    source, written = onnx.ModelProto(), onnx.ModelProto()
    source.ParseFromString(path.read_bytes())
    written.ParseFromString(out.read_bytes())
    out.unlink()
    if serialised(source) == serialised(written):
        return None
    return f"differs: {first_difference(source, written) or 'in its bytes'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lsqc", help="the executable")
    parser.add_argument("models", nargs="*", type=pathlib.Path, help="compare these instead of the wheel's")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        named = arguments.models or sorted(FIXTURES.glob("*/model.onnx"))
        models = [(str(path), path) for path in named]
        if not arguments.models:
            models += wheel_models(folder)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(lambda model: check(arguments.lsqc, *model, folder), models))
    failed = 0
    for (name, _), result in zip(models, results):
        if (result is None) == (name not in EXCEPTIONS):
            continue
        failed += 1
        print(f"{name}: {result or 'is equal now: drop its exception'}")
    print(f"{len(models) - failed} passed, {failed} failed")
    return 1 if failed or not models else 0


if __name__ == "__main__":
    sys.exit(main())
