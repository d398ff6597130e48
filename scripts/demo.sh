#!/usr/bin/env bash
# Installs what is needed, builds, and quantizes the bundled language model: float against INT8 with SmoothQuant, and what that cost on unseen text.
set -eu
cd "$(dirname "$0")/.."
scripts/build.sh --only qonnx
model=samples/models/micro-llama
build/qonnx quantize $model/model.onnx -o build/micro-llama.int8.onnx --int8 --text $model/calib.txt --tokenizer $model/tokenizer.json \
  --seq-len 256 --samples 32 --force
build/qonnx eval build/micro-llama.int8.onnx --ref $model/model.onnx --text $model/heldout.txt --tokenizer $model/tokenizer.json --seq-len 256 --samples 8
