"""trt.py --qonnx PATH - TensorRT's quantization operators, and formats whose activations find their block scales at run time.

Operators: graphs as Model Optimizer 0.47 exports them (pairs of FP8 in the domain trt, NVFP4 and MXFP8 with dynamic activations) and blocks of two axes, run by our executor and
by NumPy in float64. Formats: what nvfp4-dynamic, mxfp8-dynamic and mxfp4-dynamic write for `generic` in the reference evaluator of onnx, what they write for TensorRT
beside that, and that nothing but what its parser takes stands in the file. Prints a line a row; exits 1 when one fails."""
import numpy as np
import ml_dtypes
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh
from onnx.reference import ReferenceEvaluator
from interop import call, ours, run_cases, sqnr

random = np.random.default_rng(11)
E4M3, E2M1 = ml_dtypes.float8_e4m3fn, ml_dtypes.float4_e2m1fn


def numbers(*dims):
    return (random.standard_normal(dims) * np.exp(random.standard_normal(dims))).astype(np.float32)


def rounded(v, kind):
    top = float(ml_dtypes.finfo(kind).max)
    return np.clip(v, -top, top).astype(kind).astype(np.float64)


def value(name, *dims, type=T.FLOAT):
    return h.make_tensor_value_info(name, type, dims)


def trt(op, inputs, outputs, **attributes):
    return h.make_node(op, inputs, outputs, domain="trt", **attributes)


def save(path, nodes, inputs, outputs, weights, opset=24):
    model = h.make_model(h.make_graph(nodes, "g", inputs, outputs, weights), opset_imports=[h.make_opsetid("", opset), h.make_opsetid("trt", 1)], ir_version=12)
    onnx.save(model, path)


def nvfp4(x, s2):
    """Scales and values of blocks of 16 along the last axis."""
    b = x.reshape(*x.shape[:-1], -1, 16)
    top = np.abs(b).max(-1)
    s = np.clip(top / np.float32(6) / np.float32(s2), 2.0 ** -9, 448).astype(np.float32).astype(E4M3).astype(np.float32)
    s[top == 0] = 1
    step = (s * np.float32(s2))[..., None]
    return s, (rounded(b / step, E2M1) * step).reshape(x.shape)


def mx(x, kind):
    b = x.reshape(*x.shape[:-1], -1, 32)
    top = np.abs(b).max(-1).astype(np.float64) / float(ml_dtypes.finfo(kind).max)
    with np.errstate(divide="ignore"):
        e = np.clip(np.where(top > 0, np.ceil(np.log2(top)), -127), -127, 127)
    return e + 127, (rounded(b / 2.0 ** e[..., None], kind) * 2.0 ** e[..., None]).reshape(x.shape)


X = numbers(6, 64)
X[2, 16:48] = 0
X[3] *= 1e-5
S2 = np.float32(np.abs(X).max() / 2688)


def fp8_pair(folder):
    w = numbers(64, 8)
    sw, sx = np.float32(np.abs(w).max() / 448), np.float32(np.abs(X).max() / 448)
    codes = h.make_tensor("w", T.FLOAT8E4M3FN, w.shape, (w / sw).astype(E4M3).tobytes(), raw=True)
    zero = h.make_tensor("z", T.FLOAT8E4M3FN, [1], b"\0", raw=True)
    save(folder / "m.onnx", [trt("QuantizeLinear", ["x", "sx", "z"], ["q"], saturate=1), trt("DequantizeLinear", ["q", "sx"], ["a"]), trt("DequantizeLinear", ["w", "sw"], ["b"]),
                             h.make_node("MatMul", ["a", "b"], ["y"])], [value("x", 6, 64)], [value("y", 6, 8)], [codes, zero, nh.from_array(np.array(sx), "sx"), nh.from_array(np.array(sw), "sw")], 20)
    return [(rounded(X / sx, E4M3) * sx) @ (rounded(w / sw, E4M3) * sw)]


def int4_weight(folder):
    w = numbers(64, 8)
    s = np.abs(w.reshape(4, 16, 8)).max(1) / 7
    codes = np.clip(np.rint(w.reshape(4, 16, 8) / s[:, None]), -8, 7).reshape(64, 8)
    save(folder / "m.onnx", [trt("TRT_INT4DequantizeLinear", ["w", "s"], ["b"], axis=0, block_size=16), h.make_node("MatMul", ["x", "b"], ["y"])], [value("x", 6, 64)], [value("y", 6, 8)],
         [h.make_tensor("w", T.INT4, codes.shape, codes.astype(np.int8).flatten().tolist()), nh.from_array(s.astype(np.float32), "s")], 21)
    return [X.astype(np.float64) @ (codes.reshape(4, 16, 8) * s.astype(np.float32)[:, None]).reshape(64, 8)]


def nvfp4_input(folder):
    save(folder / "m.onnx", [trt("TRT_FP4DynamicQuantize", ["x", "s2"], ["c", "s"], axis=-1, block_size=16, scale_type=17), h.make_node("DequantizeLinear", ["s", "s2"], ["f"]),
                             h.make_node("DequantizeLinear", ["c", "f"], ["y"], axis=-1, block_size=16), h.make_node("Cast", ["s"], ["t"], to=1)],
         [value("x", 6, 64)], [value("y", 6, 64), value("t", 6, 4)], [nh.from_array(np.array(S2), "s2")])
    s, y = nvfp4(X, S2)
    return [y, s]


def mxfp8_input(folder):
    save(folder / "m.onnx", [trt("TRT_MXFP8DynamicQuantize", ["x"], ["c", "s"], axis=-1, block_size=32, output_dtype=17),
                             trt("TRT_MXFP8DequantizeLinear", ["c", "s"], ["y"], axis=-1, block_size=32, output_dtype=1), h.make_node("Cast", ["s"], ["t"], to=1)],
         [value("x", 6, 64)], [value("y", 6, 64), value("t", 6, 2)], [])
    s, y = mx(X, E4M3)
    return [y, s]


def squares(folder):
    w = numbers(8, 64)
    s = np.abs(w.reshape(2, 4, 2, 32)).max((1, 3)) / 448
    codes = (w.reshape(2, 4, 2, 32) / s[:, None, :, None].astype(np.float32)).astype(E4M3)
    save(folder / "m.onnx", [trt("TRT_BlockDequantize", ["w", "s"], ["b"], block_shape=[4, 32]), h.make_node("Gemm", ["x", "b"], ["y"], transB=1)], [value("x", 6, 64)], [value("y", 6, 8)],
         [h.make_tensor("w", T.FLOAT8E4M3FN, w.shape, codes.tobytes(), raw=True), nh.from_array(s.astype(np.float32), "s")])
    return [X.astype(np.float64) @ (codes.astype(np.float64) * s.astype(np.float32)[:, None, :, None]).reshape(8, 64).T]


def operators(qonnx, folder, make):
    want = make(folder)
    names = [o.name for o in onnx.load(folder / "m.onnx").graph.output]
    np.savez(folder / "x.npz", x=X)
    got = ours(qonnx, folder / "m.onnx", folder / "x.npz", names, folder)
    worst = min(sqnr(a, b) for a, b in zip(want, got))
    call(qonnx, "check", folder / "m.onnx", "--target", "tensorrt")
    return [f"{worst:.1f} dB of NumPy"] if worst < 120 else []


# What TensorRT's parser has element types for.
PARSED = {T.FLOAT, T.FLOAT16, T.BFLOAT16, T.INT8, T.UINT8, T.INT32, T.INT64, T.BOOL, T.INT4, T.FLOAT8E4M3FN, T.FLOAT4E2M1}


def formats(qonnx, folder, fmt, kind):
    x, w1, w2 = numbers(5, 96), numbers(96, 64), numbers(48, 64)
    np.savez(folder / "x.npz", x=x)
    nodes = [h.make_node("MatMul", ["x", "w1"], ["a"], name="/a/MatMul"), h.make_node("Relu", ["a"], ["r"]), h.make_node("Gemm", ["r", "w2"], ["y"], name="/b/Gemm", transB=1)]
    onnx.save(h.make_model(h.make_graph(nodes, "g", [value("x", 5, 96)], [value("y", 5, 48)], [nh.from_array(w1, "w1"), nh.from_array(w2, "w2")]), opset_imports=[h.make_opsetid("", 17)], ir_version=8), folder / "f.onnx")
    want = np.maximum(x.astype(np.float64) @ w1, 0) @ w2.T
    bad, found = [], {}
    for target in ("generic", "tensorrt"):
        if target == "tensorrt" and kind is None:
            continue
        out = folder / f"{target}.onnx"
        call(qonnx, "quantize", folder / "f.onnx", "-o", out, "--passes", fmt, "--calib", folder / "x.npz", "--target", target)
        found[target] = ours(qonnx, out, folder / "x.npz", ["y"], folder)[0]
    model = onnx.load(folder / "generic.onnx")
    onnx.checker.check_model(model, full_check=True)
    reference = sqnr(ReferenceEvaluator(model).run(None, {"x": x})[0], found["generic"])
    loss = sqnr(want, found["generic"])
    print(f"    {reference:.1f} dB of the reference evaluator, {loss:.1f} of float", flush=True)
    if reference < 110:
        bad.append(f"{reference:.1f} dB of the reference evaluator")
    if not 10 < loss < 45:
        bad.append(f"{loss:.1f} dB of float")
    if kind is None:
        return bad
    same = sqnr(found["generic"], found["tensorrt"])
    model = onnx.load(folder / "tensorrt.onnx")
    types = {i.data_type for i in model.graph.initializer}
    dynamic = [n for n in model.graph.node if n.op_type == kind]
    if same < 110:
        bad.append(f"{same:.1f} dB between the two forms")
    if types - PARSED:
        bad.append(f"element types {types - PARSED}")
    if len(dynamic) != 2 or {n.domain for n in dynamic} != {"trt"} or any(len(n.output) != 2 for n in dynamic):
        bad.append(f"{len(dynamic)} nodes {kind}")
    return bad


def one(qonnx, folder, name, function, *rest):
    return function(qonnx, folder, *rest)


if __name__ == "__main__":
    rows = [(f.__name__, operators, f) for f in (fp8_pair, int4_weight, nvfp4_input, mxfp8_input, squares)]
    rows += [("nvfp4-dynamic", formats, "nvfp4-dynamic", "TRT_FP4DynamicQuantize"), ("mxfp8-dynamic", formats, "mxfp8-dynamic", "TRT_MXFP8DynamicQuantize"), ("mxfp4-dynamic", formats, "mxfp4-dynamic", None)]
    raise SystemExit(run_cases(rows, one))
