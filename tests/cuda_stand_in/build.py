#!/usr/bin/env python3
"""Builds stand-ins for CUDA's libraries, with which ONNX Runtime's real CUDA provider starts on a machine without a GPU.

    build.py FOLDER [PROVIDER]

PROVIDER is libonnxruntime_providers_cuda.so as the wheel onnxruntime-gpu for CUDA 13 has it; without it, that of the Python that runs
this. FOLDER gets one library of functions, and empty ones that lead to it under the names that the provider and lsqc open:

    FOLDER/driver      libcuda.so.1, NVIDIA's driver: never in a wheel
    FOLDER/toolkit     the rest, which the wheels nvidia-* have

What tests may conclude: where the provider's own registry of kernels places each node, which copies between memories it adds, that
tensors lie in device memory. What they may not: any number, any speed. A convolution does not run at all: cuDNN's stand-in has no engine for
it. by_hand.c has the functions that must do something; all others that the provider asks for return 0.

Needs a C compiler and binutils' nm, nothing of Python beyond its standard library.
"""

import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
DRIVER = ["libcuda.so.1"]
TOOLKIT = [
    "libcudart.so.13",
    "libnvrtc.so.13",
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcufft.so.12",
    "libcurand.so.10",
    "libcudnn.so.9",
]
# What belongs to CUDA among the symbols that the provider leaves open.
CUDA = re.compile(r"_*(cu[A-Z]|cuda|cublas|cudnn|cufft|curand|nvrtc)\w+")
# Functions that write a new handle where their first argument points.
MAKES_A_HANDLE = re.compile(r"cuda(Stream|Event|MemPool)Create\w*|cublas(Lt)?Create\w*|cudnn\w*Create\w*")
# cuDNN is not linked: its functions are looked up by these names, which stand between zero bytes.
LOOKED_UP = re.compile(rb"\0(cudnn[A-Z]\w{3,60})(?=\0)")


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1]).resolve()
    provider = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else installed_provider()
    wanted = symbols("--undefined-only", provider) | {name.decode() for name in LOOKED_UP.findall(provider.read_bytes())}
    wanted = {name for name in wanted if CUDA.fullmatch(name)}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        by_hand, rest = pathlib.Path(scratch, "by_hand.o"), pathlib.Path(scratch, "rest.c")
        compile_c("-c", HERE / "by_hand.c", "-o", by_hand)
        missing = sorted(wanted - symbols("--defined-only", by_hand, "-g"))
        rest.write_text("#include <stdlib.h>\n" + "".join(map(trivial, missing)))
        functions = folder / "libstandin.so"
        compile_c("-shared", by_hand, rest, "-o", functions)
        empty = pathlib.Path(scratch, "empty.c")
        empty.touch()
        for part, names in {"driver": DRIVER, "toolkit": TOOLKIT}.items():
            (folder / part).mkdir(exist_ok=True)
            for name in names:
                # A loader that has the library already finds it by the name inside, as it finds NVIDIA's.
                named = [f"-Wl,-soname,{name}", "-Wl,--no-as-needed", functions]
                compile_c("-shared", empty, *named, "-o", folder / part / name)
    print(f"{folder}: {len(wanted)} functions, {len(missing)} of which do nothing")


def installed_provider() -> pathlib.Path:
    """The provider in this Python's own packages."""
    package = importlib.util.find_spec("onnxruntime")
    if package is None or package.origin is None:
        sys.exit("build.py: this Python has no onnxruntime-gpu")
    return pathlib.Path(package.origin).parent / "capi" / "libonnxruntime_providers_cuda.so"


def symbols(which: str, file: pathlib.Path, table: str = "-D") -> set[str]:
    """Names in the dynamic (or, with -g, the external) symbol table, without their versions."""
    listing = subprocess.run(["nm", table, which, file], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].partition("@")[0] for line in listing.splitlines() if line.strip()}


def trivial(name: str) -> str:
    """A function that succeeds and does nothing else, unless it must give a handle."""
    if MAKES_A_HANDLE.fullmatch(name):
        return f"int {name}(void **handle) {{ *handle = malloc(64); return 0; }}\n"
    return f"int {name}(void) {{ return 0; }}\n"


def compile_c(*arguments: object) -> None:
    subprocess.run(["cc", "-std=gnu11", "-O1", "-fPIC", "-w", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
