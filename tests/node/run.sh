#!/bin/sh
# run.sh BUILD PROGRAM [OPTIONS] - the standard's node tests: Debian's libonnx-testdata, the newer cases that an installed onnx package generates, and cases of
# com.microsoft's operators whose outputs come from ONNX Runtime (BUILD/venv, made by scripts/test.sh). What is not there is skipped with a line; with neither, the test is skipped (77).
build=$1 program=$2
shift 2
options="$*"
here=$(dirname "$0")
data=/usr/share/libonnx-testdata/data
set --
[ -d "$data" ] && set -- "$data" || echo "libonnx-testdata is not installed"
python="$build/venv/bin/python"
if [ -n "${QONNX_NODE_DATA:-}" ]; then
  set -- "$@" "$QONNX_NODE_DATA"
elif [ -x "$python" ]; then
  [ -d "$build/node-data/node" ] || "$python" -W ignore "$here/generate.py" "$build/node-data" >"$build/node-data.log" 2>&1 || echo "the onnx package could not generate its cases: see node-data.log"
  [ -d "$build/node-data/node" ] && set -- "$@" "$build/node-data"
  # com.microsoft, judged by ONNX Runtime
  "$python" -W ignore "$here/generate_contrib.py" "$build/contrib-data" >"$build/contrib-data.log" 2>&1 || grep "not written" "$build/contrib-data.log" # an older ONNX Runtime has not all
  set -- "$@" "$build/contrib-data"
fi
[ $# -gt 0 ] || { echo "skipped: no node tests here"; exit 77; }
exec "$program" $options "$@"
