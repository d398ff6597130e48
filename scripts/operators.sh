#!/bin/sh
# operators.sh [--check] - writes docs/operators.md from the operator table (onnx/ops.def) and docs/operators.notes; --check compares instead.
set -eu
cd "$(dirname "$0")/.."
page=docs/operators.md

make_page() {
    awk -F'|' '
    function trim(s) { gsub(/^[ \t]+|[ \t]+$/, "", s); return s }
    FNR == NR { if ($0 !~ /^#/ && NF >= 2) { types[trim($1)] = trim($2); limits[trim($1)] = trim($3) } next }
    /^QX_OP\(/ {
        line = $0
        sub(/^QX_OP\(/, "", line); sub(/\).*$/, "", line)
        n = split(line, f, /, */)
        prefix = trim(f[1]); name = f[2]; since = f[3]; cpu = f[n - 1]; cuda = f[n]
        key = prefix SUBSEP name
        if (!(key in versions)) { order[++rows] = key; names[key] = name; domains[key] = prefix }
        versions[key] = versions[key] (versions[key] == "" ? "" : " ") since
        adapter[key] = cpu
        last[key] = cuda
        used[cpu] = 1
    }
    END {
        title[""] = "ai.onnx"; title["preview_"] = "ai.onnx.preview"; title["ms_"] = "com.microsoft"; title["trt_"] = "trt"
        for (a in types) if (!(a in used)) { print "docs/operators.notes: no operator uses " a > "/dev/stderr"; bad = 1 }
        for (i = 1; i <= rows; i++) { all[domains[order[i]]]++; if (adapter[order[i]] != "none") run[domains[order[i]]]++ }
        print "# Operators\n"
        print "Made by `scripts/operators.sh` from the operator table and `docs/operators.notes`; a test holds it current. Every operator here is read, checked,"
        print "shape-inferred and written; those with a kernel also run. An operator without one is refused by the name of its node before"
        print "anything is computed.\n"
        print "*floats*: float32, float16 and bfloat16, computed in float32 and rounded once at the output; float64 is taken, and computed in float32 unless the row"
        print "says otherwise. Every listed version runs. Left out by name: training operators (Gradient, Adam, Adagrad, Momentum), ImageDecoder, ai.onnx.ml.\n"
        print "| domain | operators | with a CPU kernel |\n|---|---|---|"
        printf "| ai.onnx | %d | %d |\n| ai.onnx.preview | %d | %d |\n| com.microsoft | %d | %d |\n", all[""], run[""], all["preview_"], run["preview_"], all["ms_"], run["ms_"]
        printf "| trt | %d | %d |\n", all["trt_"], run["trt_"]
        for (i = 1; i <= rows; i++) {
            k = order[i]
            if (i == 1 || domains[k] != domains[order[i - 1]]) print "\n## " title[domains[k]] "\n\n| operator | versions | CPU kernel | types | refused, and other notes |\n|---|---|---|---|---|"
            a = adapter[k]
            printf "| %s | %s | %s | %s | %s |\n", names[k], versions[k], a, a in types ? types[a] : "floats", a in limits ? limits[a] : ""
        }
        exit bad
    }' docs/operators.notes onnx/ops.def
}

if [ "${1:-}" = --check ]; then
    make_page | diff -u "$page" - && exit 0
    echo "$page is not current: run scripts/operators.sh"
    exit 1
fi
make_page >"$page.new"
mv "$page.new" "$page"
