"""make_mlp.py DIR - a two-layer network and samples for it: the small model that the fault tests quantize."""
import sys
from pathlib import Path
import numpy as np
import onnx
from onnx import helper as h, numpy_helper as nh

out = Path(sys.argv[1]); g = np.random.default_rng(5)
init = [nh.from_array((g.standard_normal(s) / np.sqrt(s[0])).astype(np.float32), n) for n, s in (("fc1.weight", (64, 96)), ("fc1.bias", (96,)), ("fc2.weight", (96, 32)))]
nodes = [h.make_node("MatMul", ["x", "fc1.weight"], ["a"], name="/fc1/MatMul"), h.make_node("Add", ["a", "fc1.bias"], ["b"], name="/fc1/Add"),
         h.make_node("Relu", ["b"], ["c"], name="/Relu"), h.make_node("MatMul", ["c", "fc2.weight"], ["y"], name="/fc2/MatMul")]
v = lambda n, d: h.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", d])
m = h.make_model(h.make_graph(nodes, "mlp", [v("x", 64)], [v("y", 32)], init), opset_imports=[h.make_opsetid("", 19)], ir_version=9)
onnx.checker.check_model(m, full_check=True); onnx.save(m, out / "model.onnx")
np.savez(out / "calib.npz", x=g.standard_normal((16, 64)).astype(np.float32))
