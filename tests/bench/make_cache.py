#!/usr/bin/env python3
"""Writes models of one GroupQueryAttention that adds a token to a cache: DIR/HEADS-PAST-TYPE.onnx and .npz beside it, for against_ort.py.

make_cache.py DIR      HEADS: 9 over 3 of 64 (SmolLM2), 32 over 8 of 128 (Llama-3-8B); PAST 1000, 4000; TYPE f32, f16, int8, int4"""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TYPES = {"f32": (TensorProto.FLOAT, np.float32, 0), "f16": (TensorProto.FLOAT16, np.float16, 0), "int8": (TensorProto.INT8, np.int8, 8), "int4": (TensorProto.UINT8, np.uint8, 4)}


def write(path, heads, kv, d, past, kind):
    code, dtype, bits = TYPES[kind]
    real = TensorProto.FLOAT16 if kind == "f16" else TensorProto.FLOAT
    row = d // 2 if bits == 4 else d
    rng = np.random.default_rng(0)
    rows = {"q": heads * d, "k": kv * d, "v": kv * d}
    ins = [helper.make_tensor_value_info(n, real, [1, 1, w]) for n, w in rows.items()]
    ins += [helper.make_tensor_value_info(n, code, [1, kv, past, row]) for n in ("pk", "pv")]
    outs = [helper.make_tensor_value_info("y", real, [1, 1, heads * d])] + [helper.make_tensor_value_info(n, code, [1, kv, past + 1, row]) for n in ("nk", "nv")]
    init = [numpy_helper.from_array(np.array([past], np.int32), "len"), numpy_helper.from_array(np.array(past + 1, np.int32), "all"), numpy_helper.from_array(np.array([0.02], np.float32), "s")]
    attrs = {"num_heads": heads, "kv_num_heads": kv}
    names = [*rows, "pk", "pv", "len", "all"]
    if bits:
        attrs |= {"k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR", "kv_cache_bit_width": bits}
        names += ["", "", "", "", "", "s", "s"]
    node = helper.make_node("GroupQueryAttention", names, ["y", "nk", "nv"], domain="com.microsoft", **attrs)
    sets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(helper.make_graph([node], "g", ins, outs, init), opset_imports=sets, ir_version=10), path + ".onnx")
    feeds = {n: rng.standard_normal((1, 1, w)).astype(np.float16 if kind == "f16" else np.float32) for n, w in rows.items()}
    shape = (1, kv, past, row)
    feeds |= {n: rng.integers(-100, 100, shape).astype(dtype) if bits else rng.standard_normal(shape).astype(dtype) for n in ("pk", "pv")}
    np.savez(path + ".npz", **feeds)


def main():
    os.makedirs(sys.argv[1], exist_ok=True)
    for heads, kv, d in ((9, 3, 64), (32, 8, 128)):
        for past in (1000, 4000):
            for kind in TYPES: write(f"{sys.argv[1]}/{heads}-{past}-{kind}", heads, kv, d, past, kind)


if __name__ == "__main__":
    main()
