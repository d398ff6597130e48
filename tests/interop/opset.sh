#!/bin/sh
# opset.sh BUILD TOOL - runs opset.py with a Python that has onnx and onnxruntime (see run.sh); 77 without one.
build=$1
here=$(dirname "$0")
for python in "${QONNX_PYTHON:-}" "$build/venv/bin/python" python3; do
  [ -n "$python" ] && "$python" -c 'import numpy, onnx, onnxruntime' 2>/dev/null && exec "$python" "$here/opset.py" --tool "$2"
done
echo "skipped: no Python with onnx and onnxruntime (scripts/test.sh makes one)"
exit 77
