"""The table of element types (onnx/op_types.def) says what the schemas of the installed onnx say, for versions that no release changes any more."""
import os
import re
import subprocess
import sys

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SETTLED = 22


def rows(text):
    return {l for l in text.splitlines() if (m := re.match(r"QX_OP_TYPES\(\w+, (\d+),", l)) and int(m[1]) <= SETTLED}


made = rows(subprocess.run([sys.executable, TOP + "/scripts/op_types.py"], check=True, capture_output=True, text=True).stdout)
kept = rows(open(TOP + "/onnx/op_types.def").read())
assert len(made) > 300, "the schemas were not found"
for line in sorted(made ^ kept):
    print("only in the", "table:" if line in kept else "schemas:", line)
sys.exit(made != kept)
