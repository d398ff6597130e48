#!/usr/bin/env bash
# quantized.sh BUILD - the models of QONNX_MODELS in every format that qonnx writes, on the CUDA plugin in its host form without fallback: an operator that a quantized form needs and
# that has no kernel fails by name. Results are held against the CPU's: where only weights are codes as those of float models are. Codes of activations that lie between two may differ
# by one.
set -eu
build=$1
[ -n "${QONNX_MODELS:-}" ] || { echo "skipped: QONNX_MODELS is not set"; exit 77; }
formats="int8 fp8 smoothquant,int8(zero-point) int8-dynamic int8-dynamic(scale=tensor) int4 int8-weights fp8-weights nvfp4 mxfp8 mxfp4 fp8(attention) int8(attention) int4(accuracy-level=0)@ort"
most=24000000 # bytes of a model: the host form is slow
to=$(mktemp -d "${TMPDIR:-/tmp}/qonnx-quantized.XXXXXX")
trap 'rm -rf "$to"' EXIT
mkdir "$to/weights" "$to/activations"
for dir in "$QONNX_MODELS"/*/; do
  model=$dir/model.onnx sample=$dir/sample.npz
  { [ -f "$model" ] && [ -f "$sample" ] && [ "$(stat -Lc %s "$model")" -lt $most ]; } || continue
  for format in $formats; do
    case $format in int8 | int8-dynamic* | fp8 | fp8\(* | int8\(* | smooth*) kind=activations ;; *) kind=weights ;; esac
    out=$to/$kind/$(basename "$dir")-$(echo "$format" | tr -c 'a-z0-9\n' -)
    target="--target generic"
    [ "${format#*@}" != ort ] || target="--target ort --set *embed*=int4(block=32,accuracy-level=0)" # MatMulNBits, whose input the plugin does not round, and tables that are gathered as codes
    mkdir "$out"
    if "$build/qonnx" quantize "$model" -o "$out/model.onnx" --passes "${format%@*}" $target --calib "$sample" --no-verify --device cpu >"$out/said" 2>&1; then
      ln -s "$(realpath "$sample")" "$out/sample.npz"
    else
      echo "not written: $(basename "$out"): $(tail -n 1 "$out/said")"
      rm -r "$out"
    fi
  done
done
QONNX_MODELS=$to/weights "$build/bin/plugin_test_models"
QONNX_MODELS=$to/activations "$build/bin/plugin_test_models" 15
