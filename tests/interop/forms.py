"""forms.py --qonnx PATH - where a weight may stand, judged by ONNX Runtime.

Embeddings (alone and tied to a head), weights on the left, Einsum, experts stacked, gathered and in a MoE, recurrences: small graphs, every format and target. Each file
must load, compute in ONNX Runtime (default settings for target ort, Q/DQ kept as written otherwise) what our executor computes on it, come close
to the float model, and be smaller than it. Prints a line a row; exits 1 when one fails."""
import sys
import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh
from interop import call, ours, run_cases, session, sqnr, EQUAL_DB

N = h.make_node
random = np.random.default_rng(7)
FORMATS = {"int8-weights": 36, "int8-dynamic": 28, "int8-dynamic(scale=tensor)": 25, "int4(block=16)": 15, "int2(block=16)": 4, "int2(zero-point=false)": 3, "int8": 28, "fp8": 22}
TARGETS = ["generic", "ort"]


def weight(name, *dims, size=1):
    return nh.from_array((size * random.standard_normal(dims) * random.uniform(0.5, 2, dims[-1])).astype(np.float32), name)


def x(name, *dims):
    return h.make_tensor_value_info(name, T.FLOAT, dims)


def ids(name, *dims):
    return h.make_tensor_value_info(name, T.INT64, dims)


# name: nodes, inputs, outputs, weights, options, names of weights that must not stay float
def cases():
    table, square = weight("embed.weight", 96, 64), weight("w", 64, 64)
    embed = [N("Gather", ["embed.weight", "ids"], ["e"], name="/embed/Gather"), N("MatMul", ["e", "w"], ["y"], name="/a/MatMul")]
    yield "embedding", embed, [ids("ids", 2, 8)], [x("y", 2, 8, 64)], [table, square], ["--set", "embed*={}"], ["embed.weight", "w"]
    tied = [N("Gather", ["embed.weight", "ids"], ["e"], name="/embed/Gather"), N("MatMul", ["e", "w"], ["z"], name="/a/MatMul"),
            N("Transpose", ["embed.weight"], ["t"], perm=[1, 0]), N("MatMul", ["z", "t"], ["y"], name="/lm_head/MatMul")]
    yield "tied", tied, [ids("ids", 2, 8)], [x("y", 2, 8, 96)], [table, square], ["--set", "lm_head*={}"], ["embed.weight", "w"]
    left = [N("MatMul", ["l", "x"], ["y"], name="/l/MatMul")]
    yield "left", left, [x("x", 2, 64, 7)], [x("y", 2, 96, 7)], [weight("l", 96, 64)], [], ["l"]
    left = [N("Gemm", ["l", "x"], ["y"], name="/l/Gemm", transA=1, transB=1)]
    yield "left-gemm", left, [x("x", 7, 64)], [x("y", 96, 7)], [weight("l", 64, 96)], [], ["l"]
    heads = [N("Einsum", ["x", "q"], ["h"], name="/q/Einsum", equation="bsd,dhk->bshk")]
    yield "einsum-heads", heads, [x("x", 2, 7, 64)], [x("h", 2, 7, 4, 16)], [weight("q", 64, 4, 16)], [], ["q"]
    plain = [N("Einsum", ["x", "q"], ["h"], name="/q/Einsum", equation="...d,nd->...n")]
    yield "einsum", plain, [x("x", 2, 7, 64)], [x("h", 2, 7, 48)], [weight("q", 48, 64)], [], ["q"]
    experts = [N("MatMul", ["x", "up"], ["u"], name="/up/MatMul"), N("Relu", ["u"], ["r"]), N("Transpose", ["down"], ["d"], perm=[0, 2, 1]),
               N("MatMul", ["r", "d"], ["y"], name="/down/MatMul")]
    yield "experts", experts, [x("x", 3, 7, 64)], [x("y", 3, 7, 64)], [weight("up", 3, 64, 96), weight("down", 3, 64, 96)], [], ["up", "down"]
    conv = [N("Conv", ["x", "c"], ["y"], name="/c/Conv", pads=[1, 1, 1, 1])]
    yield "conv", conv, [x("x", 2, 32, 8, 8)], [x("y", 2, 48, 8, 8)], [weight("c", 48, 32, 3, 3)], [], ["c"]
    axes = [N("Einsum", ["x", "o"], ["y"], name="/o/Einsum", equation="bshk,hkd->bsd")]
    yield "einsum-axes", axes, [x("x", 2, 7, 4, 16)], [x("y", 2, 7, 64)], [weight("o", 4, 16, 64)], [], ["o"]
    odd = [N("MatMul", ["x", "up"], ["y"], name="/up/MatMul")]
    yield "experts-odd", odd, [x("x", 3, 7, 50)], [x("y", 3, 7, 33)], [weight("up", 3, 50, 33)], [], ["up"]
    picked = [N("Gather", ["up", "e"], ["ug"]), N("MatMul", ["x", "ug"], ["y"], name="/up/MatMul")]
    yield "gathered", picked, [x("x", 7, 1, 64), ids("e", 7)], [x("y", 7, 1, 96)], [weight("up", 3, 64, 96)], [], ["up"]
    turned = [N("Gather", ["up", "e"], ["ug"]), N("Transpose", ["ug"], ["ut"], perm=[0, 2, 1]), N("MatMul", ["x", "ut"], ["y"], name="/up/MatMul")]
    yield "gathered-nk", turned, [x("x", 7, 1, 64), ids("e", 7)], [x("y", 7, 1, 96)], [weight("up", 3, 96, 64)], [], ["up"]
    nd = [N("GatherND", ["up", "e"], ["ug"]), N("MatMul", ["ug", "x"], ["y"], name="/up/MatMul")]
    yield "gathered-left", nd, [x("x", 7, 64, 1), ids("e", 7, 1)], [x("y", 7, 96, 1)], [weight("up", 3, 96, 64)], [], ["up"]
    for kind, attributes in (("swiglu", {"swiglu_fusion": 1, "activation_alpha": 1.702, "activation_beta": 1.0, "swiglu_limit": 7.0, "normalize_routing_weights": 1}),
                             ("silu", {})):
        moe = [N("MatMul", ["x", "router"], ["p"], name="/router/MatMul"),
               N("MoE", ["x", "p", "fc1", "b1", "fc2", "b2" if attributes else ""], ["y"], name="/moe/MoE", domain="com.microsoft", k=2, activation_type=kind, **attributes)]
        wide = 2 if attributes else 1
        yield f"mixture-{kind}", moe, [x("x", 7, 64)], [x("y", 7, 64)], [weight("router", 64, 4), weight("fc1", 4, 96 * wide, 64, size=0.1), weight("b1", 4, 96 * wide),
                                                                         weight("fc2", 4, 64, 96), *([weight("b2", 4, 64)] if attributes else [])], [], ["fc1", "fc2"]
    for op, gates, ways in (("LSTM", 4, 1), ("GRU", 3, 2), ("RNN", 1, 1)):
        turns = [N(op, ["x", "W", "R"], ["s"], name="/r/RNN", hidden_size=96, direction=("forward", "bidirectional")[ways - 1]),
                 N("Transpose", ["s"], ["t"], perm=[0, 2, 1, 3]), N("MatMul", ["t", "w"], ["y"], name="/a/MatMul")]
        yield (op.lower() + str(ways), turns, [x("x", 5, 2, 128)], [x("y", 5, 2, ways, 64)],
               [weight("W", ways, gates * 96, 128, size=0.1), weight("R", ways, gates * 96, 96, size=0.1), weight("w", 96, 64)], [], ["W", "R", "w"])
    relu = [N("Relu", ["x"], ["r"]), N("MatMul", ["r", "w"], ["z"], name="/a/MatMul"), N("Relu", ["z"], ["s"]), N("MatMul", ["s", "w2"], ["y"], name="/b/MatMul")]
    yield "relu", relu, [x("x", 7, 64)], [x("y", 7, 96)], [square, weight("w2", 64, 96)], [], ["w", "w2"]


def feed(i, sample):
    dims = [d.dim_value for d in i.type.tensor_type.shape.dim]
    if i.type.tensor_type.elem_type == T.INT64:
        return sample.integers(0, 3 if i.name == "e" else 96, dims)
    return sample.standard_normal(dims).astype(np.float32)


def build(nodes, inputs, outputs, weights, folder):
    m = h.make_model(h.make_graph(nodes, "g", inputs, outputs, weights), opset_imports=[h.make_opsetid("", 17), h.make_opsetid("com.microsoft", 1)], ir_version=8)
    onnx.checker.check_model(m, full_check=True)
    onnx.save(m, folder / "m.onnx")
    for name, seed in (("calib", 1), ("test", 2)):
        sample = np.random.default_rng(seed)
        many = [{i.name: feed(i, sample) for i in inputs} for _ in range(8 if name == "calib" else 1)]
        np.savez(folder / f"{name}.npz", **{k: np.stack([f[k] for f in many]) if name == "calib" else many[0][k] for k in many[0]})


def one(qonnx, folder, name, fmt, target, case):
    _, nodes, inputs, outputs, weights, options, gone = case
    build(nodes, inputs, outputs, weights, folder)
    out, names = folder / "q.onnx", [o.name for o in outputs]
    call(qonnx, "quantize", folder / "m.onnx", "-o", out, "--passes", fmt, "--target", target, "--calib", folder / "calib.npz", "--force", "--quiet", "--no-verify",
         *[o.format(fmt) for o in options])
    q = onnx.load(out)
    onnx.checker.check_model(q)
    left = {i.name for i in q.graph.initializer} & set(gone)
    assert not left, f"float still: {left}"
    with np.load(folder / "test.npz") as z:
        sample = dict(z)
    want = session(folder / "m.onnx", True).run(names, sample)
    mine = ours(qonnx, out, folder / "test.npz", names, folder)
    s = session(out, target == "ort")
    got = s.run(names, sample)
    equal, loss = min(sqnr(a, b) for a, b in zip(mine, got)), min(sqnr(a, b) for a, b in zip(want, mine))
    bad = [] if equal >= EQUAL_DB else [f"ONNX Runtime and qonnx differ: {equal:.1f} dB"]
    if loss < FORMATS[fmt]:
        bad.append(f"only {loss:.1f} dB, {FORMATS[fmt]} asked for")
    print(f"{name:14} {fmt:15} {target:8} equal {equal:6.1f} dB  loss {loss:5.1f} dB", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(run_cases(((c[0], f, t, c) for c in cases() for f in FORMATS for t in TARGETS), one))
