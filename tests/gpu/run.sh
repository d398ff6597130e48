#!/usr/bin/env bash
# run.sh [--host] [BUILD] - everything on a machine with a GPU, in under eight minutes: builds, runs the tests labelled gpu, compute-sanitizer where it is installed, times models
# with the shapes of SDXL's UNet and Llama 8B (made on the spot, random weights) and those of QONNX_MODELS (default samples/models), and puts the results into
# docs/gpu.md between its markers. The parts stand in the order of what they are worth: a smoke test of a minute first, compute-sanitizer last. One that would start too late is left out by name, one that
# fails or hangs stops no other, and what is known so far stands in QONNX_GPU_RESULTS (default BUILD/gpu-results; BUILD: build/gpu) at any time: table.md, gpu.md, what each test said, and in notes.log
# what the vendor's libraries refused. QONNX_GPU_PARTS: other parts or another order ("unet llama"), for machines that are lent for minutes at a time.
# --host: the same script with the host form of the plugin, small shapes and a copy of the page, which it prints: what a machine without a GPU can check of it.
# --prepare DIR [--host] [BUILD]: makes a bundle of all that for a machine without a compiler (prepare.sh). In a bundle BUILD has a file `bundle`, and nothing is built.
set -eu
cd "$(dirname "$0")/../.."
host=
case ${1:-} in
  --prepare)
    shift
    exec tests/gpu/prepare.sh "$@"
    ;;
  --host)
    host=1
    shift
    ;;
esac
# Without BUILD: a build of its own, for the card at hand only.
default=build/gpu archs=
if [ -n "$host" ]; then default=build; fi
mkdir -p "${1:-$default}"
build=$(cd "${1:-$default}" && pwd)
if [ $# -eq 0 ]; then archs=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. '); fi
case $archs in '') ;; 90) archs=90a-real ;; *) archs=$archs-real ;; esac
bundle=$(cat "$build/bundle" 2>/dev/null || true)
if [ "$bundle" = host ]; then host=1; fi
results=${QONNX_GPU_RESULTS:-$build/gpu-results}
mkdir -p "$results"
page=docs/gpu.md limit=${QONNX_GPU_SECONDS:-400} plugin=$build size=full runs=30
kernels=gpu_test_kernels box=150 piece=40
best_rows="8192 8192" few_rows="8 8192" tokens=2048 near=2 far=6 few=2 more=6
# Models of tens of GB go to memory where there is enough of it.
room=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
if [ "${room:-0}" -gt 40000000 ]; then scratch=/dev/shm; else scratch=${TMPDIR:-/tmp}; fi
out=$(mktemp -d "$scratch/qonnx-gpu.XXXXXX")
trap 'rm -rf "$out"' EXIT
if [ -n "$host" ]; then
  kernels=plugin_test_kernels box=3600 limit=${QONNX_GPU_SECONDS:-3600} piece=0 # on a loaded machine too
  size=tiny runs=1 best_rows="64 128" few_rows="8 128" tokens=6 near=1 far=2 few=1 more=2
  if [ -z "$bundle" ]; then plugin=$build/plugin-host; fi
  cp docs/gpu.md "$out/gpu.md"
  page=$out/gpu.md
fi
export QONNX_MODELS=${QONNX_MODELS:-$PWD/samples/models} QONNX_PLUGIN_PATH=$plugin OMP_WAIT_POLICY=passive
q=$build/qonnx shapes=$build/bin/gpu_shapes table=$results/table.md
if [ -d "$build/node-standard" ]; then export QONNX_NODE_DATA=$build/node-standard; fi
publish() { # the table into the page, and the page to where the results go
  awk -v table="$table" '
    /<!-- measured -->/ { print; while ((getline line < table) > 0) print line; skip = 1; next }
    /<!-- end -->/ { skip = 0 }
    !skip' "$page" >"$out/page"
  cp "$out/page" "$page"
  cp "$out/page" "$results/gpu.md"
}
# CUDA's libraries where the loader does not look by itself: what pip has installed for the python3 at hand, toolkits, other environments of Python. One folder of each is enough.
folder_of() { # NAME ROOT...
  local name=$1
  shift
  timeout 20 find "$@" -maxdepth 10 -name "$name" -print -quit 2>/dev/null | xargs -r dirname
}
pip=$(python3 -c 'import nvidia; print("\n".join(nvidia.__path__))' 2>/dev/null || true)
vendor=
for name in 'libcublasLt.so.1[23]' libcudnn.so.9 'libnvrtc.so.1[23]'; do # the last is what cuDNN compiles most of its engines with
  for root in $pip /usr/local /usr/lib /opt "${HOME:-/root}"; do
    found=$(folder_of "$name" "$root")
    [ -z "$found" ] || { vendor=$vendor$found:; break; }
  done
done
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}${vendor%:}"

in_time() { # WHAT: false, with a line, when it is too late to start
  [ "$SECONDS" -lt "$limit" ] && return 0
  echo "Left out after $SECONDS s: $1." | tee -a "$table"
  return 1
}
boxed() { # COMMAND...: with what is left of the time, and at most $box seconds of it
  local left=$((limit + 60 - SECONDS))
  timeout $((left < 5 ? 5 : left < box ? left : box)) "$@"
}
number() { sed -n "s/.*\"$2\": *\\([-0-9.e+]*\\).*/\\1/p" "$1" | head -n 1; } # FILE KEY: the first of that name
calc() { awk "BEGIN { x = sprintf(\"%.${2:-2}f\", $1); print x ~ /^-?[0-9.]+\$/ ? x : \"-\" }" 2>/dev/null || echo -; } # "-": divided by zero
calibrated() { awk '/"name": "calibrate"/ { getline; sub(/.*: */, ""); print $0 + 0; exit }' "$1"; }
# Seconds and calls of the steps that KERNELS (separated by |) ran, from a bench with --profile.
kernel_seconds() { awk -v want="^($2)\$" '/"kernel":/ { split($0, p, "\""); k = p[4] } /"seconds":/ && k != "" { if (k ~ want) { sub(/.*: */, ""); s += $0 } k = "" } END { print s + 0 }' "$1"; }
timed() { # MODEL SAMPLE JSON [OPTION...]: false, with the reason, when it cannot run
  local model=$1 sample=$2 json=$3 label
  shift 3
  label=$(basename "$(dirname "$model")")/$(basename "$model")
  if boxed "$q" bench "$model" -i "$sample" -n $runs --device cuda --profile --json "$@" >"$json" 2>"$json.err"; then
    awk -v label="$label" '/"notes": \[/ { on = !/\]/; next } /^ *\]/ { on = 0 } on { sub(/^ */, ""); print label ": " $0 }' "$json" >>"$results/notes.log"
    return 0
  fi
  echo "Not run: $label: $(tail -n 1 "$json.err")" | tee -a "$table"
  # Errors of the device come up later than where they belong: once more with launches that are waited for, which names the node.
  CUDA_LAUNCH_BLOCKING=1 boxed "$q" run "$model" -i "$sample" --device cuda >/dev/null 2>"$json.err" || echo "$label, step by step: $(tail -n 1 "$json.err")" | tee -a "$table" >>"$results/notes.log"
  return 1
}
quantized() { # MODEL OUT JSON OPTION...: calibrates on the device
  local model=$1 to=$2 json=$3
  shift 3
  boxed "$q" quantize "$model" -o "$to" --force --no-verify --device cuda --json "$@" >"$json" 2>"$json.err" && return 0
  echo "Not quantized: $(basename "$to"): $(tail -n 1 "$json.err")" | tee -a "$table"
  return 1
}
made() { # NAME KIND ARGUMENT...: a model in $out/NAME, its flops in $out/NAME/about
  local name=$1 kind=$2
  shift 2
  mkdir -p "$out/$name" && boxed "$shapes" "$kind" "$out/$name" $size "$@" >"$out/$name/about"
}

# ---- build and tests ----

if [ -z "$host$bundle" ]; then
  cmake -G Ninja -B "$build" -DCMAKE_BUILD_TYPE=Release -DQONNX_CUDA=ON ${archs:+-DQONNX_CUDA_ARCHITECTURES=$archs} >"$out/cmake" 2>&1 || { tail -n 30 "$out/cmake"; exit 1; }
  cmake --build "$build" --target qonnx_cli qonnx_plugin_cuda gpu_test_kernels plugin_test_models plugin_test_steps node_cases gpu_shapes >"$out/made" || { tail -n 30 "$out/made"; exit 1; }
fi
"$q" run tests/data/mlp/model.onnx -i tests/data/mlp/calib.npz --device cuda --json >"$out/first" 2>"$results/first.err" || {
  echo "The device cannot be used: $(tail -n 1 "$results/first.err")" | tee "$table"
  { nvidia-smi || true; ldd "$plugin/qonnx-cuda.so" || true; echo "CUDA's libraries: $vendor"; } >>"$results/first.err" 2>&1
  exit 1
}
: >"$table"
: >"$results/notes.log"
trap 'publish; rm -rf "$out"' EXIT
name=$(sed -n 's/.*"device": "\(.*\)".*/\1/p' "$out/first")
echo "Device: $name. $(tail -n 1 "$results/first.err" | cut -c 1-300)" | tee -a "$table"
echo >>"$table"

# ---- tests ----

suite() { # NAME COMMAND...: what it said stays in the results
  local name=$1 rc=0
  shift
  QONNX_TEST_PLUGIN=$plugin boxed "$@" >"$results/$name.log" 2>&1 || rc=$?
  case $rc in
    0) rc=passed ;;
    77) rc=skipped ;;
    124) rc="stopped, out of time" ;;
    *) rc="failed ($rc)" ;;
  esac
  echo "Test $name: $rc. $(tail -n 1 "$results/$name.log" | cut -c 1-200)" | tee -a "$table"
  echo >>"$table"
}
# A minute that says what works at all: a few pieces, each in a process of its own.
part_smoke() {
  local rc=0
  QONNX_TEST_PLUGIN=$plugin boxed "$build/bin/plugin_test_steps" --smoke $piece >"$results/smoke.log" 2>"$results/smoke.err" || rc=$?
  { cat "$results/smoke.log"; echo; [ $rc -eq 0 ] || { echo "What failed said:"; sed 's/^/    /' "$results/smoke.err" | tail -n 20; echo; }; } | tee -a "$table"
}
part_tests() {
  suite kernels "$build/bin/$kernels"
  suite steps "$build/bin/plugin_test_steps"
  suite models "$build/bin/plugin_test_models"
  if [ -z "$host" ]; then suite node tests/node/run.sh "$build" "$build/bin/node_cases" --plugin "$plugin"; fi
}

# ---- the libraries' best rate, and 2:4 against dense ----

rate_fp16=0 rate_fp8=0 rate_int8=0
part_products() {
  # shellcheck disable=SC2086
  made best products $best_rows || return 0
  flops=$(number "$out/best/about" flops)
  { echo "Products of [${best_rows/ /, }] by a square weight: cuBLASLt with what stands around it (scales, sums)."; echo; echo "| format | TFLOP/s |"; echo "|---|---|"; } >>"$table"
  for format in fp16 fp8 int8; do
    model=$out/best/model.onnx
    if [ $format != fp16 ]; then
      quantized "$model" "$out/best/$format.onnx" "$out/json" --$format --random 1 || continue
      model=$out/best/$format.onnx
    fi
    timed "$model" "$out/best/sample.npz" "$out/json" || continue
    rate=$(calc "$flops / $(kernel_seconds "$out/json" 'cublasLt|product') / 1e12" 3)
    printf -v "rate_$format" %s "$rate"
    echo "| $format | $rate |" >>"$table"
  done
  echo >>"$table"
}

part_sparse() {
  # shellcheck disable=SC2086
  made few products $few_rows && quantized "$out/few/model.onnx" "$out/few/sparse.onnx" "$out/json" --passes sparsity || return 0
  { echo "2:4 weights, [${few_rows/ /, }] by a square weight, the products alone:"; echo; echo "| format | dense, ms | 2:4, ms | times |"; echo "|---|---|---|---|"; } >>"$table"
  for format in fp16 fp8 int8; do
    model=$out/few/sparse.onnx
    if [ $format != fp16 ]; then
      quantized "$out/few/model.onnx" "$out/few/$format.onnx" "$out/json" --passes "sparsity,$format" --random 1 || continue
      model=$out/few/$format.onnx
    fi
    timed "$model" "$out/few/sample.npz" "$out/json" --sparse || continue
    dense=$(awk '/"sparse": true/ { exit } 1' "$out/json" >"$out/dense"; kernel_seconds "$out/dense" 'cublasLt|product')
    sparse=$(awk '/"sparse": true/ { on = 1 } on' "$out/json" >"$out/only"; kernel_seconds "$out/only" mma.sp)
    echo "| $format | $(calc "1e3 * $dense" 4) | $(calc "1e3 * $sparse" 4) | $(calc "$dense / $sparse") |" >>"$table"
  done
  echo >>"$table"
}

# ---- SDXL's UNet ----

part_unet() {
  products='cublasLt|cuDNN|attention|mma.sp|product|patches' # what the step is measured against: products, convolutions, attention
  made unet unet || return 0
  flops=$(number "$out/unet/about" flops)
  {
    echo "SDXL's UNet ($size shapes, batch 2), $(calc "$flops / 1e12") TFLOP a step; share: of the best product rate above; library: products, convolutions and attention alone."
    echo
    echo "| format | step, ms | TFLOP/s | share | library, ms | of that our own products, ms | step over library | fp16 over it |"
    echo "|---|---|---|---|---|---|---|---|"
  } >>"$table"
  plain=
  for format in fp16 fp8 int8; do
    model=$out/unet/model.onnx
    if [ $format != fp16 ]; then
      in_time "the UNet in $format" && quantized "$model" "$out/unet/$format.onnx" "$out/unet/$format.json" --$format --random $few || continue
      model=$out/unet/$format.onnx
    fi
    timed "$model" "$out/unet/sample.npz" "$out/json" || continue
    s=$(number "$out/json" median_seconds) l=$(kernel_seconds "$out/json" "$products") best=rate_$format
    [ $format = fp16 ] && plain=$s
    echo "| $format | $(calc "1e3 * $s") | $(calc "$flops / $s / 1e12" 1) | $(calc "$flops / $s / 1e12 / ${!best}") | $(calc "1e3 * $l") | $(calc "1e3 * $(kernel_seconds "$out/json" 'product|patches')") | $(calc "$s / $l") | $(calc "${plain:-0} / $s") |" >>"$table"
  done
  echo >>"$table"
  if [ -s "$out/unet/fp8.json" ] && in_time "calibration" && quantized "$out/unet/model.onnx" "$out/unet/fp8.onnx" "$out/unet/more.json" --fp8 --random $more; then
    each=$(calc "($(calibrated "$out/unet/more.json") - $(calibrated "$out/unet/fp8.json")) / ($more - $few)" 5)
    {
      echo "Calibration for FP8: $(calc "1e3 * $each") ms a sample, from $few and $more samples: 32 prompts of 20 steps would take $(calc "640 * $each" 1) s (extrapolated)."
      echo "Observers: a sample takes $(calc "$each / ${plain:-0}") of a plain step."
      echo
    } >>"$table"
  fi
  rm -rf "$out/unet"
}

# ---- Llama 8B: two and six of its layers, and from both the 32 that it has ----

of_all() { echo "($2 + (32 - $far) * ($2 - $1) / ($far - $near))"; } # from $near and $far layers
llama() { # PHASE TOKENS PAST
  local phase=$1 count=$2 past=$3 format n model
  in_time "Llama, $phase" || return 0
  for n in $near $far; do made "llama$n" llama "$n" "$count" "$past" || return 0; done
  for format in fp16 fp8 int4; do
    for n in $near $far; do
      model=$out/llama$n/model.onnx
      if [ $format != fp16 ]; then
        in_time "Llama, $phase, $format" && quantized "$model" "$out/llama$n/$format.onnx" "$out/json" --$format --calib "$out/llama$n/sample.npz" || continue 2
        model=$out/llama$n/$format.onnx
      fi
      timed "$model" "$out/llama$n/sample.npz" "$out/llama$n/json" || continue 2
    done
    local a b all alone
    a=$(number "$out/llama$near/json" median_seconds) b=$(number "$out/llama$far/json" median_seconds)
    all=$(of_all "$a" "$b") alone=$(of_all "$(kernel_seconds "$out/llama$near/json" '.*')" "$(kernel_seconds "$out/llama$far/json" '.*')")
    echo "| $phase | $format | $(calc "1e3 * $a") | $(calc "1e3 * $b") | $(calc "1e3 * $all") | $(calc "$count / $all" 0) | $(calc "1e3 * $alone") | $(calc "$count / $alone" 0) |" >>"$table"
  done
  rm -rf "$out/llama$near" "$out/llama$far"
}
part_llama() {
  {
    echo "Llama 8B ($size shapes), one sequence: $tokens tokens at once, and one token behind $tokens. All 32 layers: extrapolated from $near and $far. A run takes its caches from the host and gives them back: the device's own time is that of the steps alone."
    echo
    echo "| phase | format | $near layers, ms | $far layers, ms | 32 layers, ms | tokens/s | on the device, ms | tokens/s |"
    echo "|---|---|---|---|---|---|---|---|"
  } >>"$table"
  llama prefill $tokens 0
  llama decode 1 $tokens
  echo >>"$table"
}

# ---- models at hand: milliseconds on the device and on the CPU ----

milliseconds() { calc "1e3 * $(number "$1" median_seconds)"; }
row() { # MODEL SAMPLE LABEL
  timed "$1" "$2" "$out/json" --allow-fallback || return 0
  local gpu
  gpu=$(milliseconds "$out/json")
  boxed "$q" bench "$1" -i "$2" -n 3 --device cpu --json >"$out/json"
  echo "| $3 | $gpu | $(milliseconds "$out/json") |" >>"$table"
}
part_models() {
  {
    echo "| model | device, ms | CPU, ms |"
    echo "|---|---|---|"
  } >>"$table"
  for dir in "$QONNX_MODELS"/*/; do
    m=$dir/model.onnx s=$dir/sample.npz label=$(basename "$dir")
    { [ -f "$m" ] && [ -f "$s" ] && in_time "$label"; } || continue
    row "$m" "$s" "$label"
    for format in fp8 int8; do
      quantized "$m" "$out/$format.onnx" "$out/json" --$format --calib "$s" && row "$out/$format.onnx" "$s" "$label, $format"
    done
    [ -z "$host" ] || break
  done
  echo >>"$table"
}

# ---- compute-sanitizer, on every kernel by itself: slow, and mostly of use when something above went wrong ----

part_sanitizer() {
  checked="compute-sanitizer is not installed"
  if [ -z "$host" ] && command -v compute-sanitizer >/dev/null; then
    checked=
    local tool rc
    for tool in memcheck racecheck synccheck; do
      rc=0
      boxed compute-sanitizer --tool $tool --error-exitcode 9 "$build/bin/$kernels" >"$results/$tool.log" 2>&1 || rc=$?
      case $rc in
        0) checked="$checked$tool: nothing found. " ;;
        124) checked="$checked$tool: stopped, out of time; $(grep -c '========= [A-Z]' "$results/$tool.log") lines so far ($tool.log). " ;;
        *) checked="$checked$tool: $(grep -m 1 'ERROR SUMMARY\|Error\|hazard' "$results/$tool.log" || echo "failed ($rc)"). " ;;
      esac
    done
  fi
  {
    echo "$checked"
    echo
  } >>"$table"
}

for part in ${QONNX_GPU_PARTS:-smoke tests products sparse unet llama models sanitizer}; do
  if in_time "$part"; then "part_$part" || echo "Not finished: $part." | tee -a "$table"; fi
  publish
done
[ ! -s "$results/notes.log" ] || { echo "Libraries refused $(wc -l <"$results/notes.log") problems, which other kernels did (notes.log); the first: $(head -n 1 "$results/notes.log" | cut -c 1-300)"; echo; } >>"$table"
echo "The whole took $SECONDS s." >>"$table"

publish
sed -n '/<!-- measured -->/,/<!-- end -->/p' "$page"
if [ -n "$host" ] && [ -z "${QONNX_GPU_PARTS:-}" ]; then # as a test: everything ran, and every table has its rows
  ! grep -E '^(Not|Left)|^Test .*: (failed|stopped)|too few|[*]stopped' "$table" && [ "$(grep -c '^| [a-z]' "$table")" -eq 44 ]
fi
