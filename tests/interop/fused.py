"""fused.py --qonnx PATH --models DIR - what ONNX Runtime makes of a file of `--int8`, by target generic (the default) and ort: each quantized convolution must be a QLinearConv, each quantized product one of its integer
operators. A pair that it cannot use leaves a float operator that dequantizes its weight at each run, slower than the float model. Small networks, one for each thing that may stand behind a
convolution (with the operators that must have come of it besides) or around a product, and the bundled diffusion models. Prints a line a row; exits 1 when one fails."""
import argparse
import re
import tempfile
from collections import Counter
from pathlib import Path
import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper as nh
from interop import call, feeds, ours, session, sqnr

INTEGER = {"QLinearConv": "Conv", "MatMulIntegerToFloat": "MatMul", "QLinearMatMul": "MatMul", "QGemm": "Gemm", "DynamicQuantizeMatMul": "MatMul"}

# operators that ONNX Runtime must have made of what is between: of codes (QLinear...), or one instead of several
MADE = {
    "SiLU": {"QuickGelu": 1, "Sigmoid": 0}, "HardSwish": {"QLinearMul": 1}, "HardSwish in parts": {"QLinearMul": 1, "Div": 0}, "HardSwish of sigmoid": {"QLinearMul": 1, "HardSigmoid": 0},
    "GELU": {"Gelu": 1, "Erf": 0}, "a skip": {"QLinearAdd": 1}, "Concat": {"QLinearConcat": 1, "Concat": 0}, "Concat of floats": {"QLinearConcat": 1, "Concat": 0},
}
OWN = ("SiLU", "GELU")  # put together by operators of com.microsoft, which target generic does not write

# what stands between the first and the second convolution (a -> b); x is the input of the first
BETWEEN = {
    "nothing": "b = Identity (a)", "Relu": "b = Relu (a)", "Clip": "b = Clip (a, low, high)", "SiLU": "s = Sigmoid (a) b = Mul (a, s)", "HardSwish": "b = HardSwish (a)",
    "HardSwish in parts": "p = Add (a, three) c6 = Clip (p, low, high) m = Mul (a, c6) b = Div (m, high)", "HardSwish of sigmoid": "s = HardSigmoid <alpha=0.16666667, beta=0.5> (a) b = Mul (a, s)",
    "GELU": "p = Div (a, root) e = Erf (p) o = Add (e, unit) m = Mul (a, o) b = Mul (m, half)",
    "LeakyRelu": "b = LeakyRelu <alpha=0.1> (a)", "a skip": "b = Add (a, x)", "a skip behind Relu": "r = Relu (a) b = Add (r, x)", "a pool": "r = Relu (a) b = MaxPool <kernel_shape=[2,2]> (r)", "a pool behind LeakyRelu": "r = LeakyRelu <alpha=0.1> (a) b = MaxPool <kernel_shape=[2,2]> (r)",
    "Concat": "r = Relu (a) b = Concat <axis=1> (r, x)", "Concat of floats": "r = Abs (a) t = Tanh (x) b = Concat <axis=1> (r, t)", "a gate": "m = GlobalAveragePool (a) s = Sigmoid (m) b = Mul (a, s)", "a pool behind a float convolution": "r = Relu (a) b = MaxPool <kernel_shape=[2,2]> (r)", "a skip past a pool, of a float convolution": "r = Relu (a) p = MaxPool <kernel_shape=[3,3], pads=[1,1,1,1]> (r) b = Add (p, r)", "a pool behind PRelu of a float convolution": "r = PRelu (a, slope) b = MaxPool <kernel_shape=[2,2]> (r)",
    "a pool behind SiLU of a float convolution": "s = Sigmoid (a) r = Mul (a, s) b = MaxPool <kernel_shape=[2,2]> (r)", "a shape": "q = Shape (a) b = Reshape (a, q)",
    "two readers": "r = Relu (a) n = Sqrt (r) b = Add (r, n)", "a normalisation": "b = InstanceNormalization (a, one, zero)",
}


# what makes y of x (the dims that are given); w and v are weights [64, 48] and [48, 64], wt the first turned, b and c biases
PRODUCTS = {
    "a matrix": ((4, 64), "h = MatMul (x, w) a = Add (h, b) r = Relu (a) k = MatMul (r, v) y = Add (k, c)"), "rows of unknown number": (("n", 64), "h = MatMul (x, w) a = Add (b, h) y = Tanh (a)"),
    "a matrix in three dims": ((2, 4, 64), "h = MatMul (x, w) a = Add (h, b) r = Relu (a) k = MatMul (r, v) y = Add (c, k)"), "the same, unknown": (("n", 4, 64), "h = MatMul (x, w) a = Add (h, b) y = Tanh (a)"),
    "Gemm": ((4, 64), "h = Gemm <transB=1> (x, wt, b) r = Relu (h) y = Gemm (r, v, c)"), "Gemm, one weight twice": ((4, 64), "h = Gemm (x, w, b) r = Relu (x) k = Gemm (r, w, b) y = Mul (h, k)"),
    "a turned weight": ((4, 64), "t = Transpose <perm=[1,0]> (wt) h = MatMul (x, t) y = Add (h, b)"), "... in three dims": ((2, 4, 64), "t = Transpose <perm=[1,0]> (wt) h = MatMul (x, t) y = Add (h, b)"),
    "... of Gemm": ((4, 64), "t = Transpose <perm=[1,0]> (wt) y = Gemm (x, t, b)"), "... twice": (("n", 2, 64), "t = Transpose <perm=[1,0]> (wt) h = MatMul (x, t) r = Relu (x) k = MatMul (r, t) y = Add (h, k)"),
    "Gemm without bias": ((4, 64), "y = Gemm (x, w)"),
}


def finish(text, weights, shape):
    m = onnx.parser.parse_model(text)
    m.graph.initializer.extend(nh.from_array(v.astype(np.float32), k) for k, v in weights.items() if re.search(rf"\b{k}\b", text))
    rng = np.random.default_rng(4)
    return m, [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(4)]


def network(name, between):
    rng = np.random.default_rng(3)
    wide, first = 32 if "Concat" in between else 16, 3 if "float convolution" in name else 16
    weights = {"w1": rng.standard_normal((16, first, 3, 3)) / 12, "w2": rng.standard_normal((16, wide, 3, 3)) / 12, "b1": rng.standard_normal(16) / 4, "low": np.array(0), "high": np.array(6),
               "one": np.ones(16), "zero": np.zeros(16), "three": np.array(3), "root": np.array(2 ** 0.5), "unit": np.array(1), "half": np.array(0.5), "slope": rng.standard_normal((16, 1, 1)) / 4}
    return finish(f"""<ir_version: 8, opset_import: ["" : 17]> g (float[1,{first},8,8] x) => (float[1,16,h,w] y) {{
        a = Conv <pads=[1,1,1,1]> (x, w1, b1) {between} c = Conv <pads=[1,1,1,1]> (b, w2) y = Tanh (c) }}""", weights, (1, first, 8, 8))


def products(dims, body):
    rng = np.random.default_rng(5)
    w, v = rng.standard_normal((64, 48)) / 8, rng.standard_normal((48, 64)) / 8
    weights = {"w": w, "v": v, "wt": w.T, "b": rng.standard_normal(48), "c": rng.standard_normal(64)}
    named = ",".join(map(str, dims))
    return finish(f"""<ir_version: 8, opset_import: ["" : 17]> g (float[{named}] x) => (float[{','.join(map(str, dims[:-1]))},m] y) {{ {body} }}""", weights, [4 if d == "n" else d for d in dims])


def left_float(path, tmp):
    """Operators of the file that read a dequantized weight, and those of them that ONNX Runtime has not made integer ones."""
    m = onnx.load(path)
    made = {o: n for n in m.graph.node for o in n.output}
    weights = {i.name for i in m.graph.initializer}
    quantized = Counter()
    for n in m.graph.node:
        q = [made.get(i) for i in n.input[:2]]
        q = [made.get(d.input[0]) if d is not None and d.op_type == "Transpose" else d for d in q]
        if "conv_shortcut" in n.name:  # float by its name, whatever it reads: its weight is only stored
            continue
        if n.op_type in INTEGER.values() and all(d is not None and d.op_type == "DequantizeLinear" for d in q) and (q[1].input[0] in weights or q[1].input[0].endswith("codes_Output")):
            quantized[n.op_type] += 1
    o = ort.SessionOptions()
    o.log_severity_level, o.optimized_model_filepath = 4, str(tmp / "optimized.onnx")
    o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp / "optimized.onnx", load_external_data=False).graph.node
    by_what = Counter(n.op_type for n in nodes)
    integer = Counter()
    for op, n in by_what.items():
        integer[INTEGER.get(op)] += n
    left = {op: n - integer[op] for op, n in quantized.items() if integer[op] < n}
    codes = {o for n in nodes if n.op_type == "QuantizeLinear" for o in n.output}
    pools = sum(n.op_type == "MaxPool" and n.input[0] in codes for n in nodes)  # slow: its loop for codes that lie as floats do
    if pools:
        left["MaxPool of codes"] = pools
    return quantized, left, by_what


def one(qonnx, target, name, path, samples, args, least, tmp):
    out = tmp / "q.onnx"
    call(qonnx, "quantize", path, "-o", out, "-f", "-q", "--no-verify", "--target", target, *sum((["--calib", s] for s in samples), []), *args)
    quantized, left, by_what = left_float(out, tmp)
    made = {} if target == "generic" and name in OWN else MADE.get(name, {})
    left.update({op: f"{by_what[op]} for {n}" for op, n in made.items() if (by_what[op] < n if n else by_what[op])})
    s = session(out, True)
    with np.load(samples[0]) as z:
        fed = feeds(s, dict(z))
    np.savez(tmp / "in.npz", **fed)
    names = [o.name for o in s.get_outputs()]
    got, want, mine = s.run(names, fed), session(path, True).run(names, fed), ours(qonnx, out, tmp / "in.npz", names, tmp)
    loss, equal = min(sqnr(a, b) for a, b in zip(want, got)), min(sqnr(a, b) for a, b in zip(mine, got))
    good = quantized.total() > 0 and not left and loss >= least
    print(f"{target:8} {name:30} {quantized.total():3} operators  loss {loss:5.1f} dB  equal {equal:6.1f} dB  {'ok' if good else f'BAD: not as meant in ONNX Runtime: {left}'}", flush=True)
    return good


# As --int8, without its search for what had better stay float: that every form that is written becomes integers is asked here.
FORMS = ["--passes", "smoothquant(input-effect=100),bias-correction,int8"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--qonnx", required=True)
    p.add_argument("--models", required=True, type=Path)
    a = p.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as d:
        tmp = Path(d)
        for name, (m, samples) in {**{k: network(k, v) for k, v in BETWEEN.items()}, **{k: products(*v) for k, v in PRODUCTS.items()}}.items():
            onnx.save(m, tmp / "m.onnx")
            for i, s in enumerate(samples):
                np.savez(tmp / f"s{i}.npz", **s)
            for target in ("generic", "ort"):
                good &= one(a.qonnx, target, name, tmp / "m.onnx", [tmp / f"s{i}.npz" for i in range(4)], ["--passes", "int8"], 30, tmp)
        for name, least in [("micro-sdxl/unet", 30), ("micro-sdxl/vae_decoder", 20)]:
            folder = a.models / name
            for target in ("generic", "ort"):
                good &= one(a.qonnx, target, name, folder / "model.onnx", [folder / "sample.npz"], FORMS, least, tmp)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
