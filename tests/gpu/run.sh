#!/usr/bin/env bash
# run.sh [BUILD] - everything on a machine with a GPU, in under eight minutes: builds, runs the tests labelled gpu, compute-sanitizer where it is installed, times models on
# the device, and puts the results into docs/gpu.md between its markers. Models: QONNX_MODELS (default samples/models).
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build}
export QONNX_MODELS=${QONNX_MODELS:-$PWD/samples/models} QONNX_PLUGIN_PATH=$PWD/$build OMP_WAIT_POLICY=passive
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

cmake -G Ninja -B "$build" -DCMAKE_BUILD_TYPE=Release -DQONNX_CUDA=ON >"$out/cmake"
cmake --build "$build" --target qonnx_cli qonnx_plugin_cuda plugin_test_models node_cases
name=$(tests/gpu/with_device.sh "$build" sh -c "'$build/qonnx' run tests/data/mlp/model.onnx -i tests/data/mlp/calib.npz --device cuda --json" | sed -n 's/.*"device": "\(.*\)".*/\1/p')
[ -n "$name" ] || { echo "no device: nothing to do"; exit 1; }

ctest --test-dir "$build" -L gpu --output-on-failure | tee "$out/ctest"
passed=$(grep -E 'tests passed' "$out/ctest")

checked="compute-sanitizer is not installed"
if command -v compute-sanitizer >/dev/null; then
  first=$(ls -d "$QONNX_MODELS"/*/ | head -1)
  for tool in memcheck racecheck; do
    compute-sanitizer --tool $tool --error-exitcode 9 "$build/qonnx" run "$first/model.onnx" -i "$first/sample.npz" --device cuda >"$out/$tool" 2>&1 || { cat "$out/$tool"; exit 1; }
  done
  checked="memcheck and racecheck: nothing found"
fi

# One line a model and format: milliseconds on the device, on the CPU, and how far apart the outputs are.
row() { # MODEL SAMPLE LABEL
  gpu=$("$build/qonnx" bench "$1" -i "$2" -n 20 --device cuda --allow-fallback --json | sed -n 's/.*"median_seconds": *\([0-9.e-]*\).*/\1/p' | awk 'NR == 1 { printf "%.2f", 1000 * $1 }')
  cpu=$("$build/qonnx" bench "$1" -i "$2" -n 3 --device cpu --json | sed -n 's/.*"median_seconds": *\([0-9.e-]*\).*/\1/p' | awk 'NR == 1 { printf "%.2f", 1000 * $1 }')
  echo "| $3 | $gpu | $cpu |"
}
{
  echo "Device: $name. $passed. $checked."
  echo
  echo "| model | device, ms | CPU, ms |"
  echo "|---|---|---|"
  for dir in "$QONNX_MODELS"/*/; do
    m=$dir/model.onnx s=$dir/sample.npz
    [ -f "$m" ] && [ -f "$s" ] || continue
    label=$(basename "$dir")
    row "$m" "$s" "$label"
    for format in fp8 int8; do
      "$build/qonnx" quantize "$m" --$format --calib "$s" -o "$out/$format.onnx" --force --no-verify --device cuda -q >/dev/null 2>&1 || continue
      row "$out/$format.onnx" "$s" "$label, $format"
    done
  done
} >"$out/table"
cat "$out/table"

awk -v table="$out/table" '
  /<!-- measured -->/ { print; while ((getline line < table) > 0) print line; skip = 1; next }
  /<!-- end -->/ { skip = 0 }
  !skip' docs/gpu.md >"$out/gpu.md"
cp "$out/gpu.md" docs/gpu.md
