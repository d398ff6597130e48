#!/usr/bin/env python3
"""make_model.py OUT.onnx [LAYERS [SIZE]] - a chain of MatMul with float16 weights from a seeded generator: 32 layers of 4096 are 1.07 GB inline.
What docs/speed.md measures rewrites on."""
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

out, layers, size = sys.argv[1], int((sys.argv + ["", "32"])[2] or 32), int((sys.argv + ["", "", "4096"])[3] or 4096)
rng = np.random.default_rng(1)
weights, nodes, x = [], [], "x"
for i in range(layers):
    w = (rng.standard_normal((size, size), dtype=np.float32) / 64).astype(np.float16)
    weights.append(numpy_helper.from_array(w, f"layers.{i}.weight"))
    nodes.append(helper.make_node("MatMul", [x, f"layers.{i}.weight"], [f"y{i}"], name=f"/layers.{i}/proj/MatMul"))
    x = f"y{i}"
io = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, ["rows", size]) for n in ("x", x)]
graph = helper.make_graph(nodes, "chain", io[:1], io[1:], weights)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), out)
