"""half.py --qonnx PATH --models DIR - float32 models rewritten to 16 bits (--float fp16, bf16), alone and before a format: what ONNX Runtime computes from the file against
the float model, and against our executor. And a small network whose middle leaves float16's range: with a sample the nodes there stay float32, without one they do not. DIR holds the bundled models. Prints a line a row; exits 1 when one fails."""
import sys
import numpy as np
import onnx
from onnx import TensorProto, helper as oh, numpy_helper as nh
from interop import call, feeds, ours, run_rows, session, sqnr

# model, arguments, least dB beside the float model
ROWS = [("micro-llama", ["--float", "fp16"], 60), ("micro-llama", ["--float", "fp16", "--int8"], 30), ("micro-llama", ["--passes", "rotate,fp16,int4"], 25),
        ("micro-llama", ["--float", "fp16", "--passes", "int8-dynamic"], 25), ("bert", ["--float", "fp16"], 50), ("clip-text", ["--float", "fp16"], 50),
        ("gpt3-dynamo", ["--float", "fp16"], 50), ("sd3-mmdit-dynamo", ["--float", "fp16", "--target", "ort", "--fp8"], 30),
        ("micro-sdxl/unet", ["--float", "fp16"], 50), ("micro-sdxl/vae_decoder", ["--float", "fp16"], 50), ("micro-sdxl/vae_decoder", ["--float", "fp16", "--passes", "int8-weights"], 28)]


def one(qonnx, models, name, args, least, tmp):
    path, out, samples = models / name / "model.onnx", tmp / "q.onnx", models / name / "sample.npz"
    call(qonnx, "quantize", path, "-o", out, "-f", "-q", "--no-verify", "--calib", samples, *args)
    half, full = onnx.load(out), onnx.load(path)
    onnx.checker.check_model(half, full_check=True)
    kinds = lambda m: [(v.name, v.type.tensor_type.elem_type) for v in [*m.graph.input, *m.graph.output]]
    assert kinds(half) == kinds(full), "inputs or outputs changed"
    with np.load(samples) as z:
        sample = dict(z)
    f, s = session(path, True), session(out, True)
    names = [o.name for o in s.get_outputs()]
    fed = feeds(f, sample)
    np.savez(tmp / "in.npz", **fed)
    want, got, mine = f.run(names, fed), s.run(names, fed), ours(qonnx, out, tmp / "in.npz", names, tmp)
    loss = min(sqnr(a, b) for a, b in zip(want, got))
    equal = min(sqnr(a, b) for a, b in zip(mine, got))
    size = out.stat().st_size / path.stat().st_size
    good = loss >= least and equal >= min(least, 45)
    print(f"{name:24} {' '.join(args):40} size {size:4.0%}  loss {loss:5.1f} dB  equal {equal:6.1f} dB  {'ok' if good else 'BAD'}", flush=True)
    return good


def overflow(qonnx, tmp):
    """x W, times 1,000 twice (a million is no float16 number), and back."""
    rng = np.random.default_rng(1)
    w = [rng.standard_normal((16, 16)).astype(np.float32) for _ in range(2)]
    k = np.full(16, 1000, np.float32)
    init = [nh.from_array(v, n) for v, n in [(w[0], "w0"), (w[1], "w1"), (k, "k")]]
    nodes = [oh.make_node(op, i, [o]) for op, i, o in [("MatMul", ["x", "w0"], "a"), ("Mul", ["a", "k"], "b"), ("Mul", ["b", "k"], "c"), ("Div", ["c", "k"], "d"), ("Div", ["d", "k"], "e"), ("MatMul", ["e", "w1"], "y")]]
    value = lambda n: oh.make_tensor_value_info(n, TensorProto.FLOAT, [4, 16])
    path, out = tmp / "m.onnx", tmp / "h.onnx"
    onnx.save(oh.make_model(oh.make_graph(nodes, "g", [value("x")], [value("y")], init), opset_imports=[oh.make_opsetid("", 17)], ir_version=8), path)
    x = {"x": rng.standard_normal((4, 16)).astype(np.float32)}
    np.savez(tmp / "x.npz", **x)
    want = session(path, True).run(None, x)[0]
    kept = {}
    for args in [["--calib", tmp / "x.npz"], []]:
        call(qonnx, "quantize", path, "-o", out, "-f", "-q", "--no-verify", "--passes", "fp16", *args)
        factor = next(t for t in onnx.load(out).graph.initializer if t.name == "k")
        kept[bool(args)] = factor.data_type == TensorProto.FLOAT and sqnr(want, session(out, True).run(None, x)[0]) > 50
    good = kept == {True: True, False: False}
    print(f"values over the limit: {'ok' if good else f'BAD {kept}'}", flush=True)
    return good


def biases(qonnx, tmp):
    """Convolutions in a row, float16 and INT8: ONNX Runtime rounds their biases again where it can, by a step that float16 does not hold."""
    rng = np.random.default_rng(2)
    init, nodes, last = [], [], "x"
    for i in range(4):
        init += [nh.from_array((rng.standard_normal((24, 24, 3, 3)) * 0.01).astype(np.float32), f"w{i}"), nh.from_array(rng.standard_normal(24).astype(np.float32) * 0.1 ** i, f"b{i}")]
        nodes += [oh.make_node("Conv", [last, f"w{i}", f"b{i}"], [f"c{i}"], pads=[1, 1, 1, 1]), oh.make_node("Relu", [f"c{i}"], [f"r{i}"])]
        last = f"r{i}"
    value = lambda n: oh.make_tensor_value_info(n, TensorProto.FLOAT, [1, 24, 12, 12])
    path, out = tmp / "m.onnx", tmp / "h.onnx"
    onnx.save(oh.make_model(oh.make_graph(nodes, "g", [value("x")], [value(last)], init), opset_imports=[oh.make_opsetid("", 17)], ir_version=8), path)
    x = {"x": rng.standard_normal((1, 24, 12, 12)).astype(np.float32)}
    np.savez(tmp / "x.npz", **x)
    call(qonnx, "quantize", path, "-o", out, "-f", "-q", "--no-verify", "--calib", tmp / "x.npz", "--float", "fp16", "--passes", "int8", "--target", "ort", "--include", "op:Conv")
    onnx.checker.check_model(onnx.load(out), full_check=True)
    got = session(out, True).run(None, x)
    loss, equal = sqnr(session(path, True).run(None, x)[0], got[0]), sqnr(ours(qonnx, out, tmp / "x.npz", [last], tmp)[0], got[0])
    good = loss > 28 and equal > 35
    print(f"biases between pairs: loss {loss:.1f} dB, equal {equal:.1f} dB  {'ok' if good else 'BAD'}", flush=True)
    return good


MADE = {"values over the limit": overflow, "biases between pairs": biases}

if __name__ == "__main__":
    sys.exit(run_rows([*ROWS, *[(n,) for n in MADE]], lambda qonnx, models, name, *row: one(qonnx, models, name, *row) if len(row) > 1 else MADE[name](qonnx, *row)))
