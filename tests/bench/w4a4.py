"""Puts a simulated 4-bit quantization in front of every product with an INT4 weight: symmetric, one scale a token and group of 32 (64) channels, as
SVDQuant's kernels do while they run. ONNX has no operator for it. The low-rank branch reads the input as it is. usage: w4a4.py IN.onnx OUT.onnx [GROUP]"""
import sys
import numpy as np
import onnx
from onnx import helper as h, numpy_helper as nh
m = onnx.load(sys.argv[1]); group = int(sys.argv[3]) if len(sys.argv) > 3 else 32
init = {i.name: i for i in m.graph.initializer}
by = {o: n for n in m.graph.node for o in n.output}
out, made, count = [], {}, 0
consts = {"w4a4_seven": np.array(7, np.float32), "w4a4_low": np.array(-8, np.float32), "w4a4_tiny": np.array(1e-9, np.float32),
          "w4a4_split": np.array([0, 0, -1, group], np.int64), "w4a4_axis": np.array([-1], np.int64)}
for k, v in consts.items(): m.graph.initializer.append(nh.from_array(v, k))
def is_int4(name):
    n = by.get(name)
    while n is not None and n.op_type in ("Transpose", "Reshape", "Cast"): n = by.get(n.input[0])
    return n is not None and n.op_type == "DequantizeLinear" and n.input[0] in init and init[n.input[0]].data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)
for n in m.graph.node:
    if n.op_type == "MatMul" and is_int4(n.input[1]):
        x = n.input[0]
        if x not in made:
            p = f"w4a4_{count}_"; count += 1
            out += [h.make_node("Shape", [x], [p + "shape"]), h.make_node("Reshape", [x, "w4a4_split"], [p + "g"]), h.make_node("Abs", [p + "g"], [p + "a"]),
                    h.make_node("ReduceMax", [p + "a", "w4a4_axis"], [p + "m"], keepdims=1), h.make_node("Max", [p + "m", "w4a4_tiny"], [p + "n"]), h.make_node("Div", [p + "n", "w4a4_seven"], [p + "s"]),
                    h.make_node("Div", [p + "g", p + "s"], [p + "d"]), h.make_node("Round", [p + "d"], [p + "r"]), h.make_node("Clip", [p + "r", "w4a4_low", "w4a4_seven"], [p + "c"]),
                    h.make_node("Mul", [p + "c", p + "s"], [p + "q"]), h.make_node("Reshape", [p + "q", p + "shape"], [p + "x"])]
            made[x] = p + "x"
        n.input[0] = made[x]
    out.append(n)
del m.graph.node[:]
m.graph.node.extend(out)
onnx.save(m, sys.argv[2])
print("activations in 4 bits:", len(made))
