#!/usr/bin/env bash
# Installs what is missing and builds the release preset into build/, or with --only TARGET a part of it. Options go to cmake:
#   scripts/build.sh -DQONNX_DNNL=OFF
set -eu
cd "$(dirname "$0")/.."
only=()
[ "${1:-}" != --only ] || { only=(--target "$2"); shift 2; }
scripts/setup.sh
cmake --preset release "$@" >build-configure.log 2>&1 || { cat build-configure.log; exit 1; }
rm -f build-configure.log
cmake --build --preset release "${only[@]}"
