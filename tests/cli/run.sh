#!/bin/bash
# run.sh BUILD SOURCE CASE.t [--update] - runs the commands of a case and compares what they print with what the case says.
#
# A case is prose with indented blocks:   "  $ command" ("  > " continues it), then its output, stdout and stderr together, each
# line indented by two, then "  [N]" when the exit code is not 0. An expected line may end in " (re)": an extended regular expression
# for the whole line; "  ..." alone stands for any lines. Commands run in one shell, in an empty folder, with $SOURCE, $DATA and $MODELS
# set, the built qonnx in PATH and two threads on any machine (memory, which cases limit, grows with them). --update writes what was printed into the case (then look at the diff: "..." is gone).
set -u
build=$1 source=$2 case=$3 update=${4:-}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# One script of all commands; each is followed by a line that only we print, with its number and exit code.
awk '/^  \$ /  { if (n) print end; n++; printf "%s\n", substr($0, 5); next }
     /^  > /   { if (n) printf "%s\n", substr($0, 5); next }
     BEGIN     { end = "printf \"\\n@@%d@@\\n\" $?" }
     END       { if (n) print end }' "$case" >"$dir/script"
mkdir "$dir/work"
(
  cd "$dir/work" || exit 1
  PATH=$build:$PATH SOURCE=$source DATA=$source/tests/data MODELS=$source/samples/models LC_ALL=C TMPDIR=$dir COLUMNS=120 OMP_NUM_THREADS=2 \
    bash --norc "$dir/script" </dev/null >"$dir/said" 2>&1
)

# The case again, with what was really printed.
sed -i "s#$source#\$SOURCE#g; s#$build#\$BUILD#g; s#$dir/work#\$PWD#g" "$dir/said"
awk -v said="$dir/said" '
function flush_output(   line, held, have) {
    have = 0
    while ((getline line < said) > 0) {
        if (line ~ /^@@[0-9]+@@$/) {
            if (have && held != "") print "  " held
            gsub(/@/, "", line)
            if (line != "0") print "  [" line "]"
            return
        }
        if (have) print "  " held
        held = line; have = 1
    }
    if (have) print "  " held
    print "  (the shell ended here)"
}
/^  \$ / { if (open) flush_output(); open = 1; print; next }
/^  > / { print; next }
/^  / { next }
{ if (open) flush_output(); open = 0; print }
END { if (open) flush_output() }' "$case" >"$dir/got"

if [ "$update" = --update ]; then # a line that an expression of the case matches stays that expression
  awk 'NR == FNR { had[$0] = 1; if (/ \(re\)$/) re[++n] = substr($0, 1, length($0) - 5); next }
       !had[$0] { for (i = 1; i <= n; i++) if (/^  / && $0 ~ "^" re[i] "$") { $0 = re[i] " (re)"; break } }
       { print }' "$case" "$dir/got" >"$dir/new"
  cp "$dir/new" "$case"
  exit
fi

# Line by line, with (re) and "...".
awk -v got="$dir/got" '
function next_got() { more = (getline g < got) > 0; n++ }
BEGIN { next_got() }
$0 == "  ..." { skip = 1; next }
{
    want = $0; re = 0
    if (want ~ / \(re\)$/) { re = 1; want = "^" substr(want, 1, length(want) - 5) "$" }
    while (more && skip && !(re ? g ~ want : g == want)) {
        if (g !~ /^  / || g ~ /^  \$ /) break
        next_got()
    }
    skip = 0
    if (!more || !(re ? g ~ want : g == want)) {
        printf "%s:%d: expected: %s\n%*s     got: %s\n", FILENAME, FNR, $0, length(FILENAME), "", more ? g : "(nothing)"
        bad = 1; exit
    }
    next_got()
}
END { if (!bad && more && !skip) { printf "%s: more was printed: %s\n", FILENAME, g; bad = 1 } exit bad }' "$case" && exit 0
echo "--- all that was printed:"
cat "$dir/got"
exit 1
