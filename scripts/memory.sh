#!/bin/bash
# memory.sh QONNX [MODEL.onnx ...] - what qonnx says that jobs will take and what they took, in MB with the process: the bundled language model, those given (made-up samples), and SmolLM2 where
# SMOLLM2 names a folder with model.onnx and hf/tokenizer.json. The table of docs/calibration.md.
set -u
[ $# -ge 1 ] && [ "$1" != --help ] || { sed -n '2,3s/^# //p' "$0"; exit 2; }
qonnx=$1
shift
llama=$(dirname "$0")/../samples/models/micro-llama
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

job() # NAME MODEL OPTIONS
{
  local name=$1 model=$2
  shift 2
  "$qonnx" quantize "$model" -o "$dir/out.onnx" --external-data --force --threads 2 "$@" 2>&1 |
    sed -nE "s/^ *memory ([0-9.]+ [KMG]B) \(([0-9.]+ [KMG]B) expected\).*/| $name | \2 | \1 |/p"
}

echo "| job | said | used |"
echo "|---|---|---|"
for p in int8 smoothquant,int8 gptq,int4 sparsity,int8 awq,int4; do job "micro-llama \`$p\`" "$llama/model.onnx" --passes $p --text "$llama/calib.txt" --seq-len 256 --samples 8; done
for m; do
  for p in int8 gptq,int8; do job "$(basename "$(dirname "$m")") \`$p\`" "$m" --passes $p --random 8; done
done
[ -f "${SMOLLM2:-}/model.onnx" ] || exit 0
for p in int8 smoothquant,int8 gptq,int4 awq,int4 "int8 --max-memory 200M"; do
  job "SmolLM2-135M \`$p\`" "$SMOLLM2/model.onnx" --text "$llama/calib.txt" --tokenizer "$SMOLLM2/hf/tokenizer.json" --seq-len 256 --samples 8 --no-verify --passes $p
done
