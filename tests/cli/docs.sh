#!/bin/bash
# docs.sh BUILD SOURCE [WORD] - runs the commands of README.md and docs/ as they are written (with WORD: those with WORD in them): indented
# lines that begin with qonnx, qonnx-sdxl or qonnx-llm, and `qonnx quantize FILE.onnx ...` within a line. The files that they name are small
# models of samples/models under those names. Left out: what needs a card, qonnx-sdxl (tests/cli/sdxl.t), lines with "..." in them, and jq's
# where it is not installed (nothing of ours needs it).
set -u
build=$1 only=${3:-} models=$2/samples/models cache=$2/tests/data/cache
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export PATH=$build:$PATH LC_ALL=C COLUMNS=120
cd "$2" || exit 1

commands() {
    sed -nE 's/^    (\$ )?((qonnx|qonnx-sdxl|qonnx-llm) .*)$/\2/p' README.md docs/*.md docs/passes/*.md
    grep -hoE '`qonnx quantize [a-z]+\.onnx [^`]*`' docs/*.md docs/passes/*.md | tr -d '`'
}

# Without what is said behind a command; sizes and steps are those of small models.
plain() { sed -E 's/ {2,}.*$//; s/ +# .*$//; s/samples\/models\///; s/300M/4M/; s/--steps 25/--steps 2/'; }

prose() { head -c 12000 "$models/micro-llama/calib.txt" >"$1"; }

letters() { # a tokenizer of the 48 letters that the decoders of tests/data/cache know
    awk 'BEGIN { printf "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},"
        printf "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{"
        for (i = 0; i < 48; i++) printf "%s\"%c\":%d", i ? "," : "", i < 26 ? 65 + i : 71 + i, i
        print "}}}" }'
}

folder() { # kind: the files that commands of this kind name
    case $1 in
    *unet*) ln -s "$models"/micro-sdxl/unet/model.onnx unet.onnx; cp "$models"/micro-sdxl/unet/sample.npz sample.npz
            mkdir DIR && cp -r "$models"/micro-sdxl/unet DIR/unet ;;
    *transformer*) ln -s "$models"/sd3-mmdit-dynamo/model.onnx transformer.onnx; cp "$models"/sd3-mmdit-dynamo/sample.npz calls.npz; cp calls.npz sample.npz ;;
    *vae_decoder*) cp -r "$models"/micro-sdxl/vae_decoder . ;;
    *resnet.onnx*|*mobilenet.onnx*|*net.onnx*) for n in resnet mobilenet net; do ln -s "$models"/micro-sdxl/vae_encoder/model.onnx $n.onnx; done
            cp "$models"/micro-sdxl/vae_encoder/sample.npz samples.npz; mkdir DIR; cp samples.npz DIR ;;
    *enc.onnx*) ln -s "$models"/bert/model.onnx enc.onnx; mkdir DIR; cp "$models"/bert/sample.npz DIR ;;
    *kv-cache*) case $1 in *"kv-cache(int4"*) form=gqa ;; *) form=concat ;; esac
            ln -s "$cache"/$form.onnx llm.onnx; cp "$cache"/ids.npz samples.npz; letters >tokenizer.json
            for _ in 1 2 3 4 5 6 7 8; do printf 'TheKingSaidToTheKingAndHeRodeAwayABCDEFGHIJKLMNOPQRSTUVabcdefghijklmno'; done >calib.txt ;;
    *) for n in llm model m NEW; do ln -s "$models"/micro-llama/model.onnx $n.onnx; done
       cp "$models"/micro-llama/tokenizer.json .; prose t.txt; prose calib.txt; cp "$models"/micro-llama/sample.npz samples.npz; cp samples.npz sample.npz ;;
    esac
    case $1 in *llm-bf16*) qonnx quantize llm.onnx --float bf16 -o llm-bf16.onnx -q --no-verify ;; esac
    case $1 in *unet.stats*) qonnx quantize DIR/unet/model.onnx --preset sdxl-fp8 -q --no-verify -o first.onnx --save-stats unet.stats --calib sample.npz ;; esac
    case $1 in *"load-stats F"*|*"stats show F"*) qonnx quantize llm.onnx --int8 -q --no-verify -o first.onnx --save-stats F --text t.txt ;; esac
    case $1 in *q.onnx*) qonnx quantize llm.onnx --int4 -o q.onnx -q --no-verify ;; esac
}

ran=0 bad=0
while read -r line; do
    case $line in *$only*) ;; *) continue ;; esac
    case $line in *...*|*cuda*|*MODEL*|*qonnx-sdxl*) continue ;; *"| jq "*) command -v jq >"$dir/jq" || continue ;; esac
    mkdir -p "$dir/work" && cd "$dir/work" || exit 1
    folder "$line" >"$dir/made" 2>&1
    if ! bash --norc -c "$line" >"$dir/said" 2>&1 </dev/null; then
        bad=$((bad + 1)); echo "fails: $line"; sed 's/^/    /' "$dir/said" | tail -4
    fi
    ran=$((ran + 1)); cd "$dir" && rm -rf "$dir/work"
done < <(commands | plain | sort -u)
echo "$ran commands of the documentation, $bad fail"
[ "$bad" = 0 ] && { [ "$only" ] || [ "$ran" -ge 40 ]; } # so many are there: fewer, and they were not found
