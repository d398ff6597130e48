#!/usr/bin/env python3
"""Prints onnx/op_types.def: which element types each input of the standard's operators may have, from the schemas of the onnx package.

    python3 scripts/op_types.py >onnx/op_types.def

A row stands for its version and those after it until the next row of the operator; bit n of a mask is TensorProto.DataType n, and the last
mask serves all inputs that follow. Inputs that take sequences or optionals too get no mask (0)."""
import itertools
from onnx import TensorProto, defs

TYPES = {f"tensor({n.lower()})": 1 << v for n, v in TensorProto.DataType.items()}


def masks(schema):
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    out = []
    for i in schema.inputs:
        of = allowed.get(i.type_str, [i.type_str])
        bits = sum(TYPES.get(t, 0) for t in of)
        out.append(0 if any(t not in TYPES for t in of) else bits)
    while len(out) > 1 and out[-1] == out[-2]:
        out.pop()
    return tuple(out)


print("/* op_types.def - element types that inputs of the standard's operators may have. Made by scripts/op_types.py; do not edit.")
print(" * QX_OP_TYPES(name, since, masks...): bit n is the format's element type n; 0: anything. */")
schemas = sorted((s for s in defs.get_all_schemas_with_history() if s.domain == ""), key=lambda s: (s.name, s.since_version))
for name, versions in itertools.groupby(schemas, key=lambda s: s.name):
    before = (0,)
    for s in versions:
        now = masks(s) or (0,)
        if now != before:
            print(f"QX_OP_TYPES({name}, {s.since_version}, {', '.join(hex(m) for m in now)})")
        before = now
