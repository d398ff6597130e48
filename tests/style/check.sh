#!/bin/sh
# check.sh ROOT - include direction, banned calls, sizes: see rules.awk. --self-test shows that each rule can fail.
set -u
here=$(cd "$(dirname "$0")" && pwd)

sources() { find base kernels onnx runtime calib passes include cli samples tests -name '*.[ch]' -o -name '*.def' -o -name '*.cu' | LC_ALL=C sort; }

self_test() {
    dir=$(mktemp -d) && cd "$dir" || exit 1
    trap 'rm -rf "$dir"' EXIT
    mkdir base kernels onnx runtime calib passes include cli samples tests
    n=0
    while IFS='|' read -r file text want; do
        n=$((n + 1))
        printf '/* t */\n%s\n' "$text" >"$file"
        got=$(sources | xargs awk -f "$here/rules.awk" 2>&1)
        case $got in *"$want"*) ;; *) echo "rule not enforced: $file: $text (said: $got)"; exit 1 ;; esac
        rm -f "$file"
    done <<'CASES'
base/a.c|#include "onnx/graph.h"|must not include
passes/a.c|#include "cli/cli.h"|must not include
samples/a.c|#include "onnx/graph.h"|a sample includes
kernels/a.c|#include "base/mem.h"|no business
onnx/a.c|#include <cjson/cJSON.h>|belongs to
onnx/a.c|int f(void) { exit(1); }|never calls
onnx/a.c|int f(void) { printf("x"); }|never prints
onnx/a.c|void *f(void) { return malloc(1); }|memory comes from
onnx/a.c|#pragma omp parallel for|threads come from
cli/a.c|void f(char *s) { strcpy(s, "x"); }|unsafe call
onnx/a.c|int x; /* TODO later */|unfinished
CASES
    printf '/* printf("in a comment") */\nint f(void) { return g->free("exit(1)"); } /* malloc(1)\n abort() */\n' >onnx/a.c
    sources | xargs awk -f "$here/rules.awk" || { echo "a clean file was refused"; exit 1; }
    printf 'int x;\n' >onnx/a.c
    sources | xargs awk -f "$here/rules.awk" >/dev/null && { echo "a file without its comment was accepted"; exit 1; }
    { echo '/* t */'; yes 'int x;' | head -n 800; } >onnx/a.c
    sources | xargs awk -f "$here/rules.awk" >/dev/null && { echo "a file of 801 lines was accepted"; exit 1; }
    echo "$n rules and three files: ok"
}

if [ "${1:-}" = --self-test ]; then self_test; exit 0; fi
cd "$1" || exit 1
sources | xargs awk -f "$here/rules.awk"
