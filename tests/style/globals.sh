#!/bin/sh
# globals.sh LIBRARY.a - the library has no writable globals, and every symbol that others can see has our prefix.
set -u
writable=$(objdump -t "$1" 2>/dev/null | awk '/file format/ { file = $1 } $0 ~ / O \.(data|bss|tdata|tbss)[ \t.]/ && $0 !~ / \.data\.rel\.ro/ { print file, $NF }')
foreign=$(nm -g --defined-only "$1" 2>/dev/null | awk 'NF == 3 && $2 ~ /[TDBRVWC]/ && $3 !~ /^(qx_|qonnx_|onnx__)/ { print $3 }' | sort -u)
symbols=$(nm -g --defined-only "$1" 2>/dev/null | grep -c ' T qx_')
[ -n "$writable" ] && printf 'writable globals:\n%s\n' "$writable"
[ -n "$foreign" ] && printf 'symbols without our prefix:\n%s\n' "$foreign"
[ "$symbols" -gt 100 ] || { echo "only $symbols functions found in $1: the check did not work"; exit 1; }
[ -z "$writable$foreign" ]
