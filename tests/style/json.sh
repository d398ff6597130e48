#!/bin/bash
# json.sh SOURCE - every key that --json prints is in docs/json.md, and every word in its code marks that looks like a key is printed. (--profile FILE
# writes Chrome's trace format, which is not ours to document.)
set -eu
cd "$1"
keys=$(grep -hoE '(qx_jsonw_[a-z_]+|put_[a-z]+)\(&?w, "[a-z0-9_]+"|\{"[a-z0-9_]+", s->' passes/report.c passes/job/lint.c passes/job/summary_json.c cli/*.c |
  grep -oE '"[a-z0-9_]+"' | tr -d '"' | sort -u | grep -vxE 'cat|ph|pid|tid|ts|dur')
told=$(grep -oE '`[a-z0-9_]+(\[\])?`' docs/json.md | tr -d '`[]' | sort -u)
missing=$(comm -23 <(echo "$keys") <(echo "$told"))
gone=$(comm -13 <(echo "$keys") <(echo "$told") | grep -vxE "op|type|null|_db|qonnx_.*" || true)
[ -z "$missing" ] || echo "docs/json.md does not tell of:" $missing
[ -z "$gone" ] || echo "docs/json.md tells of keys that nothing prints:" $gone
[ -z "$missing$gone" ]
