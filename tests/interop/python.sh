#!/bin/sh
# python.sh BUILD PROGRAM ARGS... - runs a program of this folder with a Python that has onnx and onnxruntime: $QONNX_PYTHON, BUILD/venv
# (scripts/test.sh makes it), or python3. Without one the test is skipped (77).
build=$1
program=$(dirname "$0")/$2
shift 2
for python in "${QONNX_PYTHON:-}" "$build/venv/bin/python" python3; do
  [ -n "$python" ] && "$python" -c 'import numpy, onnx, onnxruntime' 2>/dev/null && exec "$python" "$program" "$@"
done
echo "skipped: no Python with onnx and onnxruntime (scripts/test.sh makes one)"
exit 77
