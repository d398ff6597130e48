#!/usr/bin/env bash
# Installs what qonnx builds with, from packages.txt and with apt. Quick when all of it is there.
#   scripts/setup.sh          what the build and the tests need
#   scripts/setup.sh --tests  also clang, through whose front end every file goes, and OpenMP's header for it
#   scripts/setup.sh --dev    these, LLVM's tools and ccache: sanitizers with clang, fuzzing
set -eu
cd "$(dirname "$0")/.."

packages=$(grep -v '^#' packages.txt)
case "${1:-}" in
--tests) packages="$packages clang libomp-dev" ;;
--dev) packages="$packages clang libomp-dev llvm ccache" ;;
esac

missing=
for p in $packages; do
  dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q '^install ok installed$' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
echo "installing:$missing"
scripts/again.sh $sudo apt-get update -q -o Acquire::Retries=3
# shellcheck disable=SC2086
scripts/again.sh $sudo apt-get install -y -q --no-install-recommends -o Acquire::Retries=3 $missing
