"""already.py --qonnx PATH - models that are quantized already, as their makers write them, judged by ONNX Runtime where it runs them.

Q/DQ with stored codes or with float weights behind Q and DQ, FP8, blocks of 4 bits, integer operators, MatMulNBits, codes that a Cast and a Mul expand. Each is recognised and
refused; inspect says so; run computes what ONNX Runtime computes; --allow-requantize quantizes the operator that is still float and leaves the others' codes as they are,
bit for bit. Prints a line a case; exits 1 when one fails."""
import subprocess, sys
import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh
from interop import call, ours, run_cases, session, sqnr

N = h.make_node
INTEGER = ["dynamic", "qoperator", "nbits"]
EQUAL_DB = 30.0  # an activation on the border of two codes may fall either way
random = np.random.default_rng(3)
W = (random.standard_normal((64, 64)) * random.uniform(0.5, 2, 64)).astype(np.float32)
REST = random.standard_normal((64, 96)).astype(np.float32)  # of the operator that is still float
SCALE = (np.abs(W).max(0) / 127).astype(np.float32)
CODES = np.clip(np.rint(W / SCALE), -127, 127).astype(np.int8)


def const(name, a):
    return nh.from_array(np.asarray(a), name)


def typed(name, kind, dims, values):
    return h.make_tensor(name, kind, dims, values)


def pair(x, zero):
    """Q and DQ of an activation."""
    return [N("QuantizeLinear", [x, "xs", zero], [x + "q"]), N("DequantizeLinear", [x + "q", "xs", zero], [x + "d"])]


# name: nodes from x to z, constants, opset, other domains, what must stay as it is, whether ONNX Runtime runs it
def cases():
    act = [const("xs", np.float32(4 / 127)), const("xz", np.int8(0))]
    codes = [const("w", CODES), const("ws", SCALE), const("wz", np.zeros(64, np.int8))]
    yield "qdq-codes", pair("x", "xz") + [N("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1), N("MatMul", ["xd", "wd"], ["z"])], act + codes, 17, [], ["w"], True
    yield "qdq-float", pair("x", "xz") + [N("QuantizeLinear", ["w", "ws", "wz"], ["wq"], axis=1), N("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], axis=1),
                                          N("MatMul", ["xd", "wd"], ["z"])], act + [const("w", W)] + codes[1:], 17, [], ["w"], True
    yield "weights-alone", [N("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1), N("MatMul", ["x", "wd"], ["z"])], codes, 17, [], ["w"], True
    yield "activations-alone", pair("x", "xz") + [N("MatMul", ["xd", "w"], ["z"])], act + [const("w", W)], 17, [], [], True
    eight = [typed("xz", T.FLOAT8E4M3FN, [], [0.0]), typed("w", T.FLOAT8E4M3FN, [64, 64], (W / (np.abs(W).max() / 448)).ravel()), const("ws", np.float32(np.abs(W).max() / 448)),
             const("xs", np.float32(4 / 448))]
    yield "fp8", pair("x", "xz") + [N("DequantizeLinear", ["w", "ws", "xz"], ["wd"]), N("MatMul", ["xd", "wd"], ["z"])], eight, 19, [], ["w"], False
    trt = [N("TRT_FP8QuantizeLinear", ["x", "xs"], ["xq"], domain="trt"), N("TRT_FP8DequantizeLinear", ["xq", "xs"], ["xd"], domain="trt"),
           N("TRT_FP8QuantizeLinear", ["w", "ws"], ["wq"], domain="trt"), N("TRT_FP8DequantizeLinear", ["wq", "ws"], ["wd"], domain="trt"), N("MatMul", ["xd", "wd"], ["z"])]
    yield "fp8-trt", trt, [const("xs", np.float32(4 / 448)), const("w", W), eight[2]], 17, [h.make_opsetid("trt", 1)], ["w"], None
    four = [typed("w", T.INT4, [64, 64], np.clip(CODES.astype(int) // 16, -8, 7).ravel()), const("ws", np.repeat(SCALE[None] * 16, 2, 0))]
    yield "int4-blocks", [N("DequantizeLinear", ["w", "ws"], ["wd"], axis=0, block_size=32), N("MatMul", ["x", "wd"], ["z"])], four, 21, [], ["w"], False
    dynamic = [N("DynamicQuantizeLinear", ["x"], ["xq", "ds", "dz"]), N("MatMulInteger", ["xq", "w", "dz"], ["zi"]), N("Cast", ["zi"], ["zf"], to=T.FLOAT),
               N("Mul", ["ds", "ws"], ["s"]), N("Mul", ["zf", "s"], ["z"])]
    yield "dynamic", dynamic, codes[:2], 17, [], ["w"], True
    operator = [N("QuantizeLinear", ["x", "xs", "xz"], ["xq"]), N("QLinearMatMul", ["xq", "xs", "xz", "w", "ws", "wz", "zs", "xz"], ["zq"]), N("DequantizeLinear", ["zq", "zs", "xz"], ["z"])]
    yield "qoperator", operator, act + codes + [const("zs", np.float32(0.7))], 17, [], ["w"], True
    nbits = [N("MatMulNBits", ["x", "w", "ws"], ["z"], domain="com.microsoft", K=64, N=64, bits=4, block_size=32)]
    yield "nbits", nbits, [const("w", random.integers(0, 256, (64, 2, 16)).astype(np.uint8)), const("ws", np.full(128, 0.1, np.float32))], 17, [h.make_opsetid("com.microsoft", 1)], ["w"], True
    cast = [N("Cast", ["w"], ["wf"], to=T.FLOAT), N("Mul", ["wf", "ws"], ["wd"]), N("MatMul", ["x", "wd"], ["z"])]
    yield "cast-mul", cast, codes[:2], 18, [], ["w"], True  # torchao through torch.export


def build(case, folder, rest):
    name, nodes, constants, opset, domains, _, _ = case
    nodes = list(nodes) + ([N("Relu", ["z"], ["r"]), N("MatMul", ["r", "rest"], ["y"], name="/rest/MatMul")] if rest else [N("Relu", ["z"], ["y"])])
    wide = 96 if rest else 64
    g = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, ["b", 64])], [h.make_tensor_value_info("y", T.FLOAT, ["b", wide])], constants + [const("rest", REST)] * rest)
    path = folder / f"{name}{rest}.onnx"
    onnx.save(h.make_model(g, opset_imports=[h.make_opsetid("", opset)] + domains, ir_version=10), path)
    return path


def fails(code, part, *args):
    p = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    assert p.returncode == code and part in p.stderr, f"{args[1]}: exit {p.returncode}, {code} expected with '{part}': {p.stderr.strip()[-300:]}"


def payload(path, name):
    t = next(i for i in onnx.load(path).graph.initializer if i.name == name)
    return t.data_type, nh.to_array(t).tobytes()


def run_alike(qonnx, path, folder, target_ort):
    with np.load(folder / "test.npz") as z:
        want = session(path, target_ort).run(["y"], dict(z))
    got = ours(qonnx, path, folder / "test.npz", ["y"], folder)
    db = sqnr(want[0], got[0])
    assert db >= EQUAL_DB, f"ONNX Runtime and qonnx differ: {db:.1f} dB"
    return db


def one(qonnx, folder, *case):
    name, _, _, _, _, kept, runs = case
    np.savez(folder / "calib.npz", x=random.standard_normal((4, 16, 64)).astype(np.float32))
    np.savez(folder / "test.npz", x=random.standard_normal((16, 64)).astype(np.float32))
    path, alone, out = build(case, folder, 1), build(case, folder, 0), folder / "q.onnx"
    samples = ["--calib", folder / "calib.npz"]
    out.unlink(missing_ok=True)
    assert "quantized already" in call(qonnx, "inspect", path), "inspect does not say that it is quantized"
    fails(3, "quantized already", qonnx, "quantize", path, "--int8", "-o", out, *samples)
    db = run_alike(qonnx, path, folder, False) if runs else 0
    if runs is not None:
        ours(qonnx, path, folder / "test.npz", ["y"], folder)
        call(qonnx, "compare", path, path, "-i", folder / "test.npz")
    for fmt in ["--int4", "--passes", "int8-weights"][:1] + (["--int8"] if runs is not None else []):
        call(qonnx, "quantize", path, fmt, "--allow-requantize", "-o", out, "--force", "--quiet", *([] if runs is None else samples))
        assert payload(out, "rest_i4" if fmt == "--int4" else "rest_i8")
        for k in kept:
            assert payload(out, k) == payload(path, k), f"{fmt} changed '{k}'"
        if runs:
            run_alike(qonnx, out, folder, False)
    if name != "activations-alone":
        fails(3, "are quantized already" if name in INTEGER else "1 already quantized", qonnx, "quantize", alone, "--int4", "--allow-requantize", "-o", out, "--force")
    print(f"{name:18} equal {db:6.1f} dB", flush=True)


if __name__ == "__main__":
    sys.exit(run_cases(cases(), one))
