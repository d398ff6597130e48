"""fused.py --qonnx PATH --models DIR - what ONNX Runtime makes of a file of `--int8 --target ort`: each quantized convolution must be a QLinearConv, each quantized product one of its integer
operators. A pair that it cannot use leaves a float convolution that dequantizes its weight at each run, slower than the float model. Small networks, one for each thing that may stand behind a
convolution, and the bundled diffusion models. Prints a line a row; exits 1 when one fails."""
import argparse
import tempfile
from collections import Counter
from pathlib import Path
import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper as nh
from interop import call, feeds, ours, session, sqnr

INTEGER = {"QLinearConv": "Conv", "MatMulIntegerToFloat": "MatMul", "QLinearMatMul": "MatMul", "QGemm": "Gemm", "DynamicQuantizeMatMul": "MatMul"}

# what stands between the first and the second convolution (a -> b); x is the input of the first
BETWEEN = {
    "nothing": "b = Identity (a)", "Relu": "b = Relu (a)", "Clip": "b = Clip (a, low, high)", "SiLU": "s = Sigmoid (a) b = Mul (a, s)", "HardSwish": "b = HardSwish (a)",
    "LeakyRelu": "b = LeakyRelu <alpha=0.1> (a)", "a skip": "b = Add (a, x)", "a skip behind Relu": "r = Relu (a) b = Add (r, x)", "a pool": "r = Relu (a) b = MaxPool <kernel_shape=[2,2]> (r)",
    "Concat": "r = Relu (a) b = Concat <axis=1> (r, x)", "a gate": "m = GlobalAveragePool (a) s = Sigmoid (m) b = Mul (a, s)", "a shape": "q = Shape (a) b = Reshape (a, q)",
    "two readers": "r = Relu (a) n = Sqrt (r) b = Add (r, n)", "a normalisation": "b = InstanceNormalization (a, one, zero)",
}


def network(between):
    rng = np.random.default_rng(3)
    wide = 32 if "Concat" in between else 16
    weights = {"w1": rng.standard_normal((16, 16, 3, 3)) / 12, "w2": rng.standard_normal((16, wide, 3, 3)) / 12, "b1": rng.standard_normal(16) / 4, "low": np.array(0), "high": np.array(6), "one": np.ones(16), "zero": np.zeros(16)}
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[1,16,8,8] x) => (float[1,16,h,w] y) {{
        a = Conv <pads=[1,1,1,1]> (x, w1, b1) {between} c = Conv <pads=[1,1,1,1]> (b, w2) y = Tanh (c) }}"""
    m = onnx.parser.parse_model(text)
    m.graph.initializer.extend(nh.from_array(v.astype(np.float32), k) for k, v in weights.items() if k in text)
    return m, [{"x": rng.standard_normal((1, 16, 8, 8)).astype(np.float32)} for _ in range(4)]


def left_float(path, tmp):
    """Operators of the file that read a dequantized weight, and those of them that ONNX Runtime has not made integer ones."""
    m = onnx.load(path)
    made = {o: n for n in m.graph.node for o in n.output}
    weights = {i.name for i in m.graph.initializer}
    quantized = Counter()
    for n in m.graph.node:
        q = [made.get(i) for i in n.input[:2]]
        if n.op_type in INTEGER.values() and all(d is not None and d.op_type == "DequantizeLinear" for d in q) and q[1].input[0] in weights:
            quantized[n.op_type] += 1
    o = ort.SessionOptions()
    o.log_severity_level, o.optimized_model_filepath = 4, str(tmp / "optimized.onnx")
    o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])
    integer = Counter(INTEGER.get(n.op_type) for n in onnx.load(tmp / "optimized.onnx", load_external_data=False).graph.node)
    return quantized, {op: n - integer[op] for op, n in quantized.items() if op == "Conv" and integer[op] < n}


def one(qonnx, name, path, samples, args, least, tmp):
    out = tmp / "q.onnx"
    call(qonnx, "quantize", path, "-o", out, "-f", "-q", "--no-verify", "--target", "ort", *sum((["--calib", s] for s in samples), []), *args)
    quantized, left = left_float(out, tmp)
    s = session(out, True)
    with np.load(samples[0]) as z:
        fed = feeds(s, dict(z))
    np.savez(tmp / "in.npz", **fed)
    names = [o.name for o in s.get_outputs()]
    got, want, mine = s.run(names, fed), session(path, True).run(names, fed), ours(qonnx, out, tmp / "in.npz", names, tmp)
    loss, equal = min(sqnr(a, b) for a, b in zip(want, got)), min(sqnr(a, b) for a, b in zip(mine, got))
    good = quantized["Conv"] > 0 and not left and loss >= least
    print(f"{name:22} {quantized['Conv']:3} convolutions  loss {loss:5.1f} dB  equal {equal:6.1f} dB  {'ok' if good else f'BAD: float in ONNX Runtime {left}'}", flush=True)
    return good


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--qonnx", required=True)
    p.add_argument("--models", required=True, type=Path)
    a = p.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as d:
        tmp = Path(d)
        for name, between in BETWEEN.items():
            m, samples = network(between)
            onnx.save(m, tmp / "m.onnx")
            for i, s in enumerate(samples):
                np.savez(tmp / f"s{i}.npz", **s)
            good &= one(a.qonnx, name, tmp / "m.onnx", [tmp / f"s{i}.npz" for i in range(4)], ["--passes", "int8"], 30, tmp)
        for name, least in [("micro-sdxl/unet", 30), ("micro-sdxl/vae_decoder", 20)]:
            folder = a.models / name
            good &= one(a.qonnx, name, folder / "model.onnx", [folder / "sample.npz"], ["--int8"], least, tmp)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
