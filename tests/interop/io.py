"""io.py --qonnx PATH --models DIR - files whose inputs and outputs are codes (--io int8) or 16-bit floats (--io float16), run in ONNX Runtime on values made here: what comes out
must stand for what the float model gives, and be what our executor gives. DIR holds the bundled models. Prints a line a row; exits 1 when one fails."""
import sys
import numpy as np
import onnx
from onnx import numpy_helper as nh
from interop import call, feeds, ours, run_rows, session, sqnr

# model, arguments, type at the ends, target, least dB beside the float model
ROWS = [("micro-sdxl/vae_decoder", ["--passes", "int8"], "int8", "generic", 28), ("micro-sdxl/vae_decoder", ["--passes", "int8-weights"], "int8", "ort", 30),
        ("sd3-mmdit-dynamo", ["--passes", "int8"], "int8", "ort", 25), ("clip-text", ["--passes", "int8"], "int8", "generic", 14),
        ("micro-sdxl/unet", ["--passes", "int8"], "float16", "generic", 30), ("micro-sdxl/unet", ["--float", "fp16"], "float16", "ort", 50),
        ("micro-sdxl/vae_decoder", ["--float", "fp16", "--int8"], "float16", "ort", 30), ("sd3-mmdit-dynamo", ["--passes", "int8-weights"], "float16", "ort", 30),
        ("clip-text", ["--float", "fp16", "--int4"], "float16", "generic", 10)]


def scales(model):
    """name: (scale, zero point) of every input and output that is codes."""
    init = {t.name: nh.to_array(t) for t in model.graph.initializer}
    found = {}
    for n in model.graph.node:
        if n.op_type == "DequantizeLinear" and n.input[0] in {i.name for i in model.graph.input}:
            found[n.input[0]] = init[n.input[1]], init[n.input[2]]
        if n.op_type == "QuantizeLinear" and n.output[0] in {o.name for o in model.graph.output}:
            found[n.output[0]] = init[n.input[1]], init[n.input[2]]
    return found


def code(x, scale, zero):
    r = np.iinfo(zero.dtype)
    return np.clip(np.rint(x.astype(np.float32) / np.float32(scale)) + zero, r.min, r.max).astype(zero.dtype)


def one(qonnx, models, name, args, ends, target, least, tmp):
    path, out = models / name / "model.onnx", tmp / "q.onnx"
    with np.load(models / name / "sample.npz") as z:
        sample = dict(z)
    call(qonnx, "quantize", path, "-o", out, "-f", "-q", *args, "--io", ends, "--target", target, "--calib", models / name / "sample.npz")
    q = onnx.load(out)
    onnx.checker.check_model(q, full_check=True)
    known, s, f = scales(q), session(out, target == "ort"), session(path, True)
    kept = [v.name for v in [*s.get_inputs(), *s.get_outputs()] if "float" in v.type and v.type != f"tensor({ends})"]
    assert not kept, f"still float: {kept}"
    half = {v.name for v in [*s.get_inputs(), *s.get_outputs()] if v.type == "tensor(float16)"}
    fed = {k: code(v, *known[k]) if k in known else v.astype(np.float16) if k in half else v for k, v in feeds(f, sample).items()}
    np.savez(tmp / "in.npz", **fed)
    names = [o.name for o in s.get_outputs()]
    want, got, mine = f.run(names, feeds(f, sample)), s.run(names, fed), ours(qonnx, out, tmp / "in.npz", names, tmp)
    number = lambda v, n: (v.astype(np.float32) - known[n][1].astype(np.float32)) * np.float32(known[n][0]) if n in known else v.astype(np.float32)
    changed = known.keys() | half
    loss = min(sqnr(a, number(b, n)) for a, b, n in zip(want, got, names) if n in changed)
    equal = min(sqnr(number(a, n), number(b, n)) for a, b, n in zip(mine, got, names) if n in changed)
    good = loss >= least and equal >= 30  # an activation on the border of two codes may fall either way
    print(f"{name:24} {' '.join(args):22} {ends:8} {target:8} loss {loss:5.1f} dB  equal {equal:6.1f} dB  {'ok' if good else 'BAD'}", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(run_rows(ROWS, one))
