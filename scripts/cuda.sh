#!/usr/bin/env bash
# Compiles the CUDA kernels on a machine without a CUDA toolkit: nvcc comes from PyPI into an environment of its own (300 MB, once). Where that is not possible it says so and
# is content: the plugin itself is built by CMake where a toolkit is installed, and the kernels are tested in their host form everywhere.
set -eu
cd "$(dirname "$0")/.."
if command -v nvcc >/dev/null; then
  echo "cuda: nvcc is installed, CMake builds the plugin"
  exit 0
fi
venv=build/cuda-venv wanted="nvidia-cuda-nvcc==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88"
if [ "$(cat $venv/made-from 2>/dev/null)" != "$wanted" ]; then
  rm -rf $venv
  # shellcheck disable=SC2086
  if ! { python3 -m venv $venv && $venv/bin/python -m pip install -q --disable-pip-version-check --retries 2 --timeout 20 $wanted; } >build/cuda-venv.log 2>&1; then
    echo "cuda: skipped, nvcc could not be had (build/cuda-venv.log)"
    exit 0
  fi
  printf '%s\n' "$wanted" >$venv/made-from
fi
root=$(echo $venv/lib/python3*/site-packages/nvidia/cu13)
flags="-std=c++17 -O3 -fmad=false --Werror=all-warnings -I. -I$root/include -Xcompiler -fPIC"
for arch in 80 89 90a 100 120; do flags="$flags -gencode arch=compute_$arch,code=sm_$arch"; done
compile() {
  # shellcheck disable=SC2086
  "$root/bin/nvcc" $flags -c "$1" -o "build/cuda-venv/$(basename "$1").o"
}
export -f compile
export root flags
printf '%s\n' kernels/cuda/*.cu | xargs -P "$(nproc)" -I{} bash -c 'compile {}'
echo "cuda: $(ls kernels/cuda/*.cu | wc -l) files of kernels compiled for five architectures"
