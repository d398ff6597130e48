#!/usr/bin/env bash
# Every C file through clang's front end with the build's own flags, warnings as errors: what gcc does not see.
#   clang.sh BUILD      a build folder made with compile_commands.json. 77 (skipped) where clang is not installed
set -eu
command -v clang >/dev/null || { echo "skipped: no clang (scripts/setup.sh --tests)"; exit 77; }

# A command a line, its launcher, compiler and output dropped. gcc's own flags must not become clang's complaints.
commands() { sed -n 's/^ *"command": "\(.*\)",\?$/\1/p' "$1/compile_commands.json" | grep "\.c$" | sed 's/\\\(.\)/\1/g' | sed -E 's/^.*\/(ccache )?[^ ]*(cc|gcc|gcc-[0-9]+|clang)( |$)/ /; s/ -o [^ ]+ -c / /'; }
check() { bash -c "clang -fsyntax-only -Werror -Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-pass-failed $1" 2>&1 || { echo "^ clang: $1" | tail -c 120; exit 255; }; }
export -f check

n=$(commands "$1" | wc -l)
[ "$n" -gt 100 ] || { echo "$1/compile_commands.json names $n files only"; exit 1; }
commands "$1" | tr '\n' '\0' | xargs -0 -n 1 -P "$(nproc)" bash -c 'check "$0"'
echo "$n files"
