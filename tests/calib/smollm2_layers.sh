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
quantize layers --max-memory 200M | tee layers.log
grep -q "layer by layer" layers.log
same layers
# Goes on where a kill left a checkpoint, and says so.
went_on() { if [ "$1" = left ]; then grep "going on" killed.log; fi; }
left() { if [ -f killed.part ]; then echo left; fi; }
for more in 0 2; do # seconds after a checkpoint was written; a fast machine may be done before, which is no failure
  was=$(left)
  touch before
  quantize killed --max-memory 200M --resume killed.part >killed.log &
  while kill -0 $! 2>/dev/null && [ ! killed.part -nt before ]; do sleep 0.3; done
  sleep $more
  pkill -KILL -P $! 2>/dev/null || true
  wait $! || true
  went_on "$was"
done
was=$(left)
quantize killed --max-memory 200M --resume killed.part >killed.log
went_on "$was"
[ -z "$(ls killed.part* 2>/dev/null)" ]
same killed
