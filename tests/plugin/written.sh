#!/bin/sh
# written.sh ROOT - every operator that a pass writes has a kernel for CUDA: those that stand in a golden case's output and not in its input (tests/golden) have one in a row of onnx/ops.def.
set -eu
cd "$1"
operators() { grep -ohE '= ([a-z]+\.)*[A-Z][A-Za-z0-9]* ?[<(]' "$1" | sed -E 's/= //; s/ ?[<(]$//; s/com\.microsoft\./ms_/' | sort -u; }
written=$(for out in tests/golden/*/out.txt; do
  case=$(dirname "$out")
  operators "$case/in.txt" >"${TMPDIR:-/tmp}/written.$$"
  operators "$out" | comm -13 "${TMPDIR:-/tmp}/written.$$" -
done | sort -u)
rm -f "${TMPDIR:-/tmp}/written.$$"
[ "$(echo "$written" | wc -l)" -ge 15 ] || { echo "only these were found: $written"; exit 1; }
bad=0
for op in $written; do
  name=${op#ms_}
  prefix=${op%"$name"}
  grep -E "^QX_OP\($prefix, $name, " onnx/ops.def | grep -qv ', none)$' || { echo "$op is written by a pass and has no CUDA kernel"; bad=1; }
done
exit $bad
