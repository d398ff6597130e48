#!/bin/bash
# smollm2_layers.sh QONNX TEXT - SmolLM2-135M (SMOLLM2: a folder with model.onnx and hf/tokenizer.json) calibrated for int8 end to end, layer by layer within 200 MB, and so again
# but killed at several points and gone on with: the same statistics file and the same weights, byte for byte.
set -eu
qonnx=$1 text=$2
[ -f "${SMOLLM2:-}/model.onnx" ] || { echo "skipped: SMOLLM2 names no folder with model.onnx"; exit 77; }
dir=$(mktemp -d /var/tmp/smollm2.XXXXXX)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

quantize() # NAME OPTIONS
{
  local name=$1
  shift
  "$qonnx" quantize "$SMOLLM2/model.onnx" -o "$name.onnx" --external-data --passes int8 --save-stats "$name.stats" --text "$text" --tokenizer "$SMOLLM2/hf/tokenizer.json" --seq-len 256 \
    --samples 8 --no-verify --force "$@" 2>&1
}
same() { cmp plain.stats "$1.stats" && cmp plain.onnx.data "$1.onnx.data" && rm "$1".*; }

quantize plain -q
start=$SECONDS
quantize layers --max-memory 200M | tee layers.log
took=$((SECONDS - start))
grep -q "layer by layer" layers.log
same layers
went_on=0
for share in 40 60 80; do # of the time that it takes: the rest is gone on with, and killed again
  timeout -s KILL "$((took * share / 100 + 1))" bash -c "$(declare -f quantize); qonnx=$qonnx text=$text quantize killed --max-memory 200M --resume killed.part" >killed.log || true
  grep "going on" killed.log && went_on=1
  ls -l killed.part* || true
done
quantize killed -q --max-memory 200M --resume killed.part
[ -z "$(ls killed.part* 2>/dev/null)" ]
same killed
[ $went_on = 1 ] || echo "killed before the first checkpoint each time"
