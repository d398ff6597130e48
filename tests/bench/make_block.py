#!/usr/bin/env python3
"""make_block.py OUT: one transformer block of SDXL at each of its two sizes (640 channels and 4,096 tokens, 1,280 and 1,024), random weights, in the node
forms of the TorchScript exporter: OUT/block640, OUT/block1280 with model.onnx and sample.npz, for against_ort.py (SDXL_BLOCKS=OUT)."""
import os, sys

import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

CONTEXT, CROSS, HEAD = 77, 2048, 64


class Block:
    def __init__(self, channels, tokens):
        self.c, self.t, self.heads = channels, tokens, channels // HEAD
        self.rng, self.nodes, self.init, self.n = np.random.default_rng(channels), [], [], 0

    def const(self, a):
        name = f"c{len(self.init)}"
        self.init.append(nh.from_array(a, name))
        return name

    def op(self, kind, *ins, n_out=1, **attrs):
        self.n += 1
        outs = [f"v{self.n}_{i}" for i in range(n_out)]
        self.nodes.append(h.make_node(kind, list(ins), outs, f"{kind}_{self.n}", **attrs))
        return outs[0] if n_out == 1 else outs

    def linear(self, x, k, n, bias=True):
        y = self.op("MatMul", x, self.const((self.rng.standard_normal((k, n)) / np.sqrt(k)).astype(np.float32)))
        return self.op("Add", self.const(self.rng.standard_normal(n).astype(np.float32)), y) if bias else y

    def norm(self, x):
        return self.op("LayerNormalization", x, self.const(np.ones(self.c, np.float32)), self.const(np.zeros(self.c, np.float32)), axis=-1, epsilon=1e-5)

    def split(self, x, tokens, perm):
        return self.op("Transpose", self.op("Reshape", x, self.const(np.array([1, tokens, self.heads, HEAD], np.int64))), perm=perm)

    def attention(self, x, other, tokens, width):
        q = self.split(self.linear(x, self.c, self.c, False), self.t, [0, 2, 1, 3])
        k = self.split(self.linear(other, width, self.c, False), tokens, [0, 2, 3, 1])
        v = self.split(self.linear(other, width, self.c, False), tokens, [0, 2, 1, 3])
        s = self.op("Mul", self.op("MatMul", q, k), self.const(np.float32(HEAD ** -0.5)))
        o = self.op("Transpose", self.op("MatMul", self.op("Softmax", s, axis=-1), v), perm=[0, 2, 1, 3])
        return self.linear(self.op("Reshape", o, self.const(np.array([1, self.t, self.c], np.int64))), self.c, self.c)

    def feed_forward(self, x):
        value, gate = self.op("Split", self.linear(x, self.c, 8 * self.c), n_out=2, axis=-1)
        e = self.op("Add", self.op("Erf", self.op("Div", gate, self.const(np.float32(2 ** 0.5)))), self.const(np.float32(1)))
        gelu = self.op("Mul", self.op("Mul", gate, e), self.const(np.float32(0.5)))
        return self.linear(self.op("Mul", value, gelu), 4 * self.c, self.c)

    def model(self):
        n = self.norm("hidden")
        x = self.op("Add", self.attention(n, n, self.t, self.c), "hidden")
        x = self.op("Add", self.attention(self.norm(x), "context", CONTEXT, CROSS), x)
        x = self.op("Add", self.feed_forward(self.norm(x)), x)
        shape = lambda name, dims: h.make_tensor_value_info(name, T.FLOAT, dims)
        self.nodes[-1].output[0] = "out"
        g = h.make_graph(self.nodes, "block", [shape("hidden", [1, self.t, self.c]), shape("context", [1, CONTEXT, CROSS])], [shape("out", [1, self.t, self.c])], self.init)
        return onnx.shape_inference.infer_shapes(h.make_model(g, opset_imports=[h.make_opsetid("", 17)], ir_version=8))


def main():
    for channels, tokens in ((640, 4096), (1280, 1024)):
        folder = f"{sys.argv[1]}/block{channels}"
        os.makedirs(folder, exist_ok=True)
        b = Block(channels, tokens)
        onnx.save(b.model(), f"{folder}/model.onnx")
        np.savez(f"{folder}/sample.npz", hidden=b.rng.standard_normal((1, tokens, channels)).astype(np.float32), context=b.rng.standard_normal((1, CONTEXT, CROSS)).astype(np.float32))


if __name__ == "__main__":
    if len(sys.argv) != 2: sys.exit(__doc__)
    main()
