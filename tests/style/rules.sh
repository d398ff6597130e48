#!/bin/sh
# rules.sh ROOT - the tests that tests/rules.md names exist: `FILE` or `FILE:WORD` below tests/.
cd "$1/tests" || exit 1
found=$(grep -oE '`[a-z_0-9]+/[^`]+`' rules.md | tr -d '`' | sort -u)
bad=0
while IFS= read -r test; do
  file=${test%%:*}
  [ -e "$file" ] || { echo "tests/rules.md names $file, which is not there"; bad=1; continue; }
  [ "$file" = "$test" ] || grep -qF -- "${test#*:}" "$file" || { echo "tests/rules.md: '${test#*:}' is not in $file"; bad=1; }
done <<END
$found
END
[ "$(echo "$found" | wc -l)" -gt 50 ] || { echo "tests/rules.md: its tests were not found"; bad=1; }
exit $bad
