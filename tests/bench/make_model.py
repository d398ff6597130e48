#!/usr/bin/env python3
"""make_model.py OUT.onnx [LAYERS [SIZE]] [--sparse] - a chain of MatMul with float16 weights from a seeded generator: 32 layers of 4096 are 1.07 GB
inline. --sparse: the weights are zeros in a sparse file beside it; 600 layers of 4096 are 20 GB that take no room. What docs/speed.md measures rewrites on."""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def drawn(rng, name, size):
    return numpy_helper.from_array((rng.standard_normal((size, size), dtype=np.float32) / 64).astype(np.float16), name)


def zeros(data, name, size):
    at = os.path.getsize(data)
    os.truncate(data, at + 2 * size * size)
    t = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=[size, size], data_location=TensorProto.EXTERNAL)
    for key, value in ("location", os.path.basename(data)), ("offset", at), ("length", 2 * size * size):
        t.external_data.add(key=key, value=str(value))
    return t


args = [a for a in sys.argv[1:] if a != "--sparse"]
out, layers, size = args[0], int(args[1]) if len(args) > 1 else 32, int(args[2]) if len(args) > 2 else 4096
data = out + ".data" if "--sparse" in sys.argv else None
if data:
    open(data, "wb").close()
rng = np.random.default_rng(1)
weights, nodes, x = [], [], "x"
for i in range(layers):
    weights.append(zeros(data, f"layers.{i}.weight", size) if data else drawn(rng, f"layers.{i}.weight", size))
    nodes.append(helper.make_node("MatMul", [x, f"layers.{i}.weight"], [f"y{i}"], name=f"/layers.{i}/proj/MatMul"))
    x = f"y{i}"
io = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, ["rows", size]) for n in ("x", x)]
graph = helper.make_graph(nodes, "chain", io[:1], io[1:], weights)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), out)
