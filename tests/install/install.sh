#!/bin/sh
# install.sh SOURCE BUILD - `cmake --install` into an empty folder, and what a user does with it: a program through
# pkg-config, one through CMake, the command, the man page, the completions.
set -eu
source=$1 build=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$1"; exit 1; }

cmake --install "$build" --prefix "$dir/usr" >"$dir/log" || { cat "$dir/log"; fail "cmake --install failed"; }
lib=$(dirname "$(find "$dir/usr" -name 'libqonnx.so' | head -n 1)")
for f in bin/qonnx include/qonnx.h share/man/man1/qonnx.1 share/bash-completion/completions/qonnx share/zsh/site-functions/_qonnx; do
  [ -s "$dir/usr/$f" ] || fail "$f was not installed"
done

cd "$dir"
PKG_CONFIG_PATH=$lib/pkgconfig
export PKG_CONFIG_PATH
prefix=$(pkg-config --variable=prefix qonnx)
[ -n "$prefix" ] || fail "pkg-config does not find qonnx"
# shellcheck disable=SC2046
cc -Wall -Werror "$source/samples/quantize/quantize.c" $(pkg-config --cflags --libs qonnx) -o through-pkg-config
LD_LIBRARY_PATH=$lib ./through-pkg-config 2>said && fail "a program without arguments succeeded"
grep -q usage said || fail "the program linked through pkg-config did not run: $(cat said)"

mkdir cm && cp "$source/samples/quantize/quantize.c" cm/
cat >cm/CMakeLists.txt <<'C'
cmake_minimum_required(VERSION 3.25)
project(user C)
find_package(qonnx 0.1 REQUIRED)
add_executable(user quantize.c)
target_link_libraries(user PRIVATE qonnx::qonnx)
C
cmake -S cm -B cm/build -DCMAKE_PREFIX_PATH="$dir/usr" >log 2>&1 && cmake --build cm/build >>log 2>&1 || { cat log; fail "the CMake package does not work"; }
if LD_LIBRARY_PATH=$lib cm/build/user no-such-file.onnx out.onnx int8 2>said; then fail "a missing file was quantized"; fi
grep -q no-such-file.onnx said || fail "no message about the missing file: $(cat said)"

usr/bin/qonnx help >said || fail "qonnx help failed"
grep -q quantize said || fail "qonnx help does not name quantize"
bash -n usr/share/bash-completion/completions/qonnx || fail "the bash completion does not parse"
grep -q '^\.TH QONNX' usr/share/man/man1/qonnx.1 || fail "the man page has no title"
# Only the public interface can be seen in the shared library.
others=$(nm -D --defined-only "$lib/libqonnx.so" | awk '$2 == "T" && $3 !~ /^qonnx_/ { print $3 }' | head)
[ -z "$others" ] || fail "the shared library shows $others"
echo ok
