#!/usr/bin/env bash
# Installs what is missing and builds the release preset into build/. Options go to cmake: scripts/build.sh -DQONNX_DNNL=OFF
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh
cmake --preset release "$@" >build-configure.log 2>&1 || { cat build-configure.log; exit 1; }
rm -f build-configure.log
cmake --build --preset release
