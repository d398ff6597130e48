#!/usr/bin/env bash
# The whole check, from a bare Debian 12: installs what is needed, builds, passes the tests. Options go to ctest: scripts/test.sh -L short
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh --tests
scripts/build.sh

# The tests that compare with onnx and onnxruntime have a Python environment of their own, made once.
venv=build/venv wanted=$(cat tests/interop/requirements.txt)
if [ "$(cat $venv/made-from 2>/dev/null)" != "$wanted" ]; then
  rm -rf $venv
  python3 -m venv $venv
  scripts/again.sh $venv/bin/python -m pip install -q --disable-pip-version-check --retries 5 -r tests/interop/requirements.txt
  printf '%s\n' "$wanted" >$venv/made-from
fi

# The CUDA kernels compile for five architectures, also where no toolkit is installed (skipped with a line where nvcc cannot be had).
scripts/cuda.sh

# Tests run beside each other: a thread that waits must not keep a core from another test.
export OMP_WAIT_POLICY=passive
export QONNX_MODELS=${QONNX_MODELS:-$PWD/samples/models}
ctest --test-dir build --output-on-failure -j "$(nproc)" --timeout 3600 "$@" # one that hangs ends; the slowest takes a minute or two
