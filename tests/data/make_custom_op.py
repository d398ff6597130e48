"""make_custom_op.py DIR - a model with an operator that only its owner has a kernel for, between two products; and samples."""
import sys
from pathlib import Path
import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
r = np.random.default_rng(3)
weights = [numpy_helper.from_array(r.standard_normal(s).astype(np.float32), n) for n, s in (("w", (32, 32)), ("v", (32, 32)))]
nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], name="first"), helper.make_node("Secret", ["h"], ["s"], name="own", domain="acme.ops"),
         helper.make_node("MatMul", ["s", "v"], ["y"], name="second")]
x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 32]) for n in "xy")
model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights), ir_version=8, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("acme.ops", 1)])
save(model, str(out / "model.onnx"))
np.savez(out / "calib.npz", x=r.standard_normal((32, 32)).astype(np.float32))
