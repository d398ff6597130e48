#!/usr/bin/env bash
# prepare.sh DIR [--host] [BUILD] - what run.sh needs, in DIR/payload.tar.gz, and DIR/run.sh, which unpacks and runs it: for a machine that has a driver, perhaps the libraries of CUDA, and
# nothing else (no compiler, no packages of ours, no network, another glibc). Programs take their libraries from the payload; glibc's own only where the machine's is too old.
# --host: with the host form of the plugin, to try all of it where there is no GPU.
set -eu
cd "$(dirname "$0")/../.."
[ $# -ge 1 ] || { echo "usage: run.sh --prepare DIR [--host] [BUILD]" >&2; exit 2; }
to=$1 kind=device limit=$((64 << 20))
shift
if [ "${1:-}" = --host ]; then
  kind=host
  shift
fi
build=$(cd "${1:-build}" && pwd)
plugin=$build/qonnx-cuda.so kernels=gpu_test_kernels
[ $kind = device ] || { plugin=$build/plugin-host/qonnx-cuda.so kernels=plugin_test_kernels; }
programs="qonnx bin/gpu_shapes bin/$kernels bin/plugin_test_models bin/plugin_test_steps bin/node_cases"
for f in $programs "$plugin"; do
  case $f in /*) ;; *) f=$build/$f ;; esac
  [ -f "$f" ] || { echo "prepare: $f has not been built" >&2; exit 1; }
done
mkdir -p "$to"
to=$(cd "$to" && pwd)
tree=$(mktemp -d "${TMPDIR:-/tmp}/qonnx-bundle.XXXXXX")
trap 'rm -rf "$tree"' EXIT

# ---- what the script reads ----
mkdir -p "$tree/tests/gpu" "$tree/tests/data" "$tree/tests/node" "$tree/docs" "$tree/samples/models" "$tree/build/real" "$tree/build/bin" "$tree/build/lib/glibc"
cp tests/gpu/run.sh tests/gpu/with_device.sh "$tree/tests/gpu/"
cp -r tests/data/mlp "$tree/tests/data/"
cp tests/node/run.sh "$tree/tests/node/"
cp docs/gpu.md "$tree/docs/"
for m in clip-text bert micro-llama; do
  if [ -d samples/models/$m ]; then cp -r samples/models/$m "$tree/samples/models/"; fi
done
data=/usr/share/libonnx-testdata/data/node
if [ -d $data ]; then cp -r $data "$tree/build/node-standard"; fi
echo $kind >"$tree/build/bundle"

# ---- programs, and the libraries that they need ----
cp "$plugin" "$tree/build/qonnx-cuda.so"
for p in $programs; do
  cp "$build/$p" "$tree/build/real/"
  cat >"$tree/build/$p" <<'START'
#!/bin/sh
# Starts the real program with the libraries of the bundle; with the bundle's glibc where the machine's is too old for it.
root=$(cd "$(dirname "$0")" && pwd)
[ -d "$root/real" ] || root=$(dirname "$root")
name=$(basename "$0") libs=$root/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
if LD_LIBRARY_PATH=$libs "$root/real/qonnx" --version >/dev/null 2>&1; then
  export LD_LIBRARY_PATH="$libs"
  exec "$root/real/$name" "$@"
fi
exec "$root/lib/glibc/ld-linux-x86-64.so.2" --library-path "$root/lib/glibc:$libs" "$root/real/$name" "$@"
START
  chmod +x "$tree/build/$p"
done
strip "$tree"/build/real/* "$tree/build/qonnx-cuda.so" 2>/dev/null || true
for f in "$tree"/build/real/* "$tree/build/qonnx-cuda.so"; do
  ldd "$f" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /ld-linux/ { print $1 }'
done | sort -u | while read -r lib; do
  case $(basename "$lib") in
    ld-linux* | libc.so* | libm.so* | libdl.so* | librt.so* | libpthread.so*) cp -L "$lib" "$tree/build/lib/glibc/" ;;
    *) cp -L "$lib" "$tree/build/lib/" ;;
  esac
done

# ---- the bundle ----
tar -C "$tree" -czf "$to/payload.tar.gz" .
cat >"$to/run.sh" <<'RUN'
#!/bin/sh
# Unpacks the payload and runs it; results are written as they come to QONNX_GPU_RESULTS (default: $OUT, else results beside this file).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/qonnx-gpu-bundle.XXXXXX")
trap 'rm -rf "$work"' EXIT
tar -C "$work" -xzf "$here/payload.tar.gz"
QONNX_GPU_RESULTS=${QONNX_GPU_RESULTS:-${OUT:-$here/results}}
export QONNX_GPU_RESULTS
"$work/tests/gpu/run.sh" "$work/build"
RUN
chmod +x "$to/run.sh"
size=$(wc -c <"$to/payload.tar.gz")
echo "prepare: $to: $((size >> 10)) KiB"
[ "$size" -le $limit ] || { echo "prepare: that is more than $((limit >> 20)) MiB" >&2; exit 1; }
