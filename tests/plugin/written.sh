#!/bin/sh
# written.sh ROOT - every operator that a pass writes has a kernel for CUDA: those that stand in a golden case's output and not in its input (tests/golden) have one in a row of onnx/ops.def.
set -eu
cd "$1"
grep -oE '= ([a-z]+\.)*[A-Z][A-Za-z0-9]* ?[<(]' tests/golden/*/in.txt tests/golden/*/out.txt | awk -F: '
  { case_ = $1; sub(/\/[a-z]*\.txt$/, "", case_); op = $2; gsub(/^= | ?[<(]$/, "", op); sub(/com\.microsoft\./, "ms_", op) }
  $1 ~ /in\.txt$/ { had[case_, op] = 1; next }
  { wrote[case_ SUBSEP op] = op }
  # A mixture of experts for --target ort: the executor takes it back to the CPU, as it does its float form.
  # What TensorRT alone runs: the executor does it on the CPU.
  BEGIN { kernel["ms_QMoE"] = kernel["trt.TRT_FP4DynamicQuantize"] = kernel["trt.TRT_MXFP8DynamicQuantize"] = kernel["trt.TRT_MXFP8DequantizeLinear"] = 1 }
  END {
    while ((getline line < "onnx/ops.def") > 0)
      if (line ~ /^QX_OP/ && line !~ /, none\)$/) { split(line, f, /[(,] */); kernel[f[2] f[3]] = 1 }
    for (k in wrote) if (!(k in had)) written[wrote[k]] = 1
    for (op in written) { n++; if (!(op in kernel)) { print op " is written by a pass and has no CUDA kernel"; bad = 1 } }
    if (n < 15) { print "only " n + 0 " operators were found"; bad = 1 }
    exit bad
  }'
