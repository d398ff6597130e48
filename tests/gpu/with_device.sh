#!/bin/sh
# with_device.sh BUILD COMMAND... - runs the command when a CUDA device can be used; else says why not and is skipped (77).
build=$1
shift
[ -f "$build/qonnx-cuda.so" ] || { echo "skipped: the CUDA plugin was not built"; exit 77; }
here=$(cd "$(dirname "$0")" && pwd)
why=$(QONNX_PLUGIN_PATH="$build" "$build/qonnx" run "$here/../data/mlp/model.onnx" -i "$here/../data/mlp/calib.npz" --device cuda 2>&1 >/dev/null) || { echo "skipped: $why"; exit 77; }
exec "$@"
