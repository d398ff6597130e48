#!/bin/sh
# Prints the table of docs/accuracy.md: every pass on one language model, measured on text that calibration did not see.
#
#   scripts/accuracy.sh [--peers PYTHON] [--modelopt PYTHON] [--only PASSES] QONNX MODEL_DIR [CALIBRATION_WINDOWS [EVALUATION_WINDOWS]]
#
# MODEL_DIR holds model.onnx, tokenizer.json, calib.txt and heldout.txt (samples/models/micro-llama does). Windows are of 256 tokens. With
# --peers, an interpreter that tests/bench/llm_peers.py can run with, rows of ONNX Runtime's quantizers stand below: same windows, same
# held-out tokens, evaluated by ONNX Runtime; with --modelopt, one that has nvidia-modelopt[onnx], of Model Optimizer's too. --only: one of our rows.
#
# With --peers, MODEL_DIR may be a diffusion pipeline (samples/models/micro-sdxl): its UNet quantized by qonnx and by peers
# (tests/bench/sdxl_peers.py), judged on pictures.
set -eu
peers= modelopt= only=
while :; do
    case ${1:-} in
    --peers) peers=$2 ;;
    --modelopt) modelopt=$2 ;;
    --only) only=$2 ;;
    *) break ;;
    esac
    shift 2
done
[ $# -ge 2 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
qonnx=$1 dir=$2 calib=${3:-32} windows=${4:-40}
bench=$(dirname "$0")/../tests/bench
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT INT TERM
: >"$tmp/sizes"

if [ -d "$dir/unet" ]; then
    [ "$peers" ] || { echo "accuracy.sh: a pipeline needs --peers PYTHON" >&2; exit 2; }
    "$peers" "$bench/sdxl_peers.py" "$(dirname "$qonnx")" "$dir" "$tmp/work" ${modelopt:+--modelopt "$modelopt"}
    exit
fi

number() { sed -n "s/^ *\"$1\": \([-0-9.e+]*\),*\$/\1/p" "$2"; }

quantize() { # pipeline
    "$qonnx" quantize "$dir/model.onnx" -o "$tmp/out.onnx" --passes "$1" --text "$dir/calib.txt" --tokenizer "$dir/tokenizer.json" \
        --seq-len 256 --samples "$calib" --no-verify --force --quiet >"$tmp/log" 2>&1
}

size_in_table() { awk -F '\t' -v p="$1" '$1 == p { print $2; exit }' "$tmp/sizes"; }

bytes_of() { # pipeline
    if [ -z "$(size_in_table "$1")" ]; then
        quantize "$1" && printf '%s\t%s\n' "$1" "$(cat "$tmp"/out.onnx* | wc -c)" >>"$tmp/sizes"
        rm -f "$tmp"/out.onnx*
    fi
    size_in_table "$1"
}

row() { # pipeline; "mixed(size=@P)": at the bytes of P
    case $1 in *@*) base=${1#*@}; set -- "${1%%@*}$(bytes_of "${base%)}"))" ;; esac
    start=$(date +%s.%N)
    quantize "$1" || { echo "| \`$1\` | failed: $(tail -1 "$tmp/log" | cut -c1-80) | | | | |"; return; }
    seconds=$(echo "$(date +%s.%N) $start" | awk '{printf "%.1f", $1 - $2}')
    "$qonnx" eval "$tmp/out.onnx" --ref "$dir/model.onnx" --text "$dir/heldout.txt" --tokenizer "$dir/tokenizer.json" \
        --seq-len 256 --samples "$windows" --quiet --json >"$tmp/eval.json"
    bytes=$(cat "$tmp"/out.onnx* | wc -c)
    printf '%s\t%s\n' "$1" "$bytes" >>"$tmp/sizes"
    awk -v p="$1" -v ppl="$(number perplexity "$tmp/eval.json")" -v kl="$(number mean_kl "$tmp/eval.json")" -v top="$(number top1_agreement "$tmp/eval.json")" \
        -v b="$bytes" -v s="$seconds" 'BEGIN { printf "| `%s` | %.3f | %.4f | %.1f %% | %.2f | %s |\n", p, ppl, kl, 100 * top, b / 1e6, s }'
    rm -f "$tmp"/out.onnx*
}

"$qonnx" eval "$dir/model.onnx" --text "$dir/heldout.txt" --tokenizer "$dir/tokenizer.json" --seq-len 256 --samples "$windows" --quiet --json >"$tmp/float.json"
echo "| passes | perplexity | mean KL | same top-1 | MB | seconds |"
echo "|---|---|---|---|---|---|"
awk -v p="$(number perplexity "$tmp/float.json")" -v b="$(wc -c <"$dir/model.onnx")" 'BEGIN { printf "| (float) | %.3f | 0 | 100 %% | %.2f | |\n", p, b / 1e6 }'
while read -r passes; do
    case $passes in ''|\#*) continue ;; esac
    [ -z "$only" ] || [ "$only" = "$passes" ] || continue
    row "$passes"
done <<'LIST'
int8
int8(act=max)
int8(act=percentile)
int8(act=entropy)
int8(act=mse)
smoothquant,bias-correction,int8
int8-dynamic
smoothquant,int8-dynamic
rotate,int8-dynamic
fp8
smoothquant,fp8
smoothquant,gptq,fp8
int8-weights
fp8-weights
int4(block=32)
awq,int4(block=32)
gptq,int4(block=32)
int4(block=128)
awq,int4(block=128)
gptq,int4(block=128)
gptq,int4(block=128,zero-point=true)
awq,gptq,int4(block=128)
mxfp8
mxfp4
nvfp4
gptq,nvfp4
mxfp8-dynamic
nvfp4-dynamic
smoothquant,nvfp4-dynamic
rotate,int8
rotate,int4(block=128)
role-mix
mixed(size=@int4(block=128))
gptq,mixed(size=@int4(block=128))
mixed(size=@int4(block=32))
gptq,mixed(size=@int4(block=32))
mixed(size=@role-mix)
mixed(size=23%)
mixed(size=25%)
sparsity(method=magnitude),int8
sparsity(method=wanda),int8
sparsity(method=sparsegpt),int8
LIST
[ -z "$peers" ] || "$peers" "$bench/llm_peers.py" "$dir" --calib "$calib" --held "$windows" --rows ${modelopt:+--modelopt "$modelopt"}
