#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: does the engine ort-cuda compute what ONNX Runtime's CPU provider computes, how fast, in how much memory,
# and how does torch compare? Needs no Rust and no network:
#
#     benches/gpu.sh --lsqc FILE --ort-lib FILE [--step-parity FILE] [--python FILE] [options of gpu.py]
#     benches/gpu.sh --cpu …        the same on the CPU, ONNX Runtime against tract: to try the script
#
#   --lsqc FILE         the program, built elsewhere; default target/release/lsqc
#   --ort-lib FILE      libonnxruntime.so of a build with CUDA (unpacked wheel onnxruntime-gpu); default ORT_DYLIB_PATH
#   --step-parity FILE  the test program that `cargo test --release --test step_parity --no-run` built, in a repository at the same path as
#                       there: also compares single steps
#   --python FILE       a Python with numpy; torch and onnx are used if it has them, and its wheels nvidia-*. Default python3
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")

python=python3
arguments=()
while (($#)); do
    case $1 in
        --python)
            python=${2:?--python needs a file}
            shift 2
            ;;
        *)
            arguments+=("$1")
            shift
            ;;
    esac
done

# TF32 rounds the operands of products to 10 bits. lsqc's engine does without; torch is to do so too.
export NVIDIA_TF32_OVERRIDE=0
exec "$python" "$here/gpu.py" ${arguments[@]+"${arguments[@]}"}
