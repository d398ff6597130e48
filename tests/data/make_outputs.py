"""make_outputs.py DIR - a model and samples: twenty layers, each of whose results is an output, as a decoder's caches are: 4 bits are further from
float with each of them."""
import sys
from pathlib import Path
import numpy as np, onnx
from onnx import TensorProto, helper as h, numpy_helper as nh

LAYERS, WIDTH = 20, 32
r, out = np.random.default_rng(0), Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
weights = [nh.from_array((r.standard_normal((WIDTH, WIDTH)) / WIDTH ** .5).astype(np.float16), f"w{i}") for i in range(LAYERS)]
nodes = [h.make_node("MatMul", [f"y{i - 1}" if i else "x", f"w{i}"], [f"y{i}"], name=f"/layer{i}/MatMul") for i in range(LAYERS)]
info = lambda n: h.make_tensor_value_info(n, TensorProto.FLOAT16, [1, WIDTH])
graph = h.make_graph(nodes, "outputs", [info("x")], [info(f"y{i}") for i in range(LAYERS)], weights)
onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), out / "model.onnx")
np.savez(out / "calib.npz", x=r.standard_normal((3, 1, WIDTH)).astype(np.float16))
