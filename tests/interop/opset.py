"""opset.py --tool PATH [--data DIR] - opset conversion judged by ONNX Runtime: the same inputs through a model and through what
raise_opset made of it must give the same outputs. One case of every conversion, static and dynamic shapes; and, where the standard's
test data is installed, every model of it. Prints what differs; exits 1 when anything does."""
import argparse, subprocess, sys, tempfile
from pathlib import Path
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

ort.set_default_logger_severity(4)
rng = np.random.default_rng(0)
X = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
REDUCE = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"]


def f32(*v):
    return np.array(v, np.float32)


def norm():
    return {k: rng.random(3, dtype=np.float32) for k in "sbmv"}


def cases():
    """(opset, operator, inputs, number of outputs, initializers, attributes)"""
    for op in ["Softmax", "LogSoftmax", "Hardmax"]:
        for axis in [None, 0, 1, 2, 3, -1, -2]:
            yield 11, op, [X], 1, {}, {} if axis is None else {"axis": axis}
    yield 9, "Clip", [X], 1, {}, {"min": -0.5, "max": 0.5}
    yield 9, "Clip", [X], 1, {}, {"max": 0.5}
    yield 9, "Clip", [X], 1, {}, {}
    yield 9, "Clip", [X.astype(np.float16)], 1, {}, {"min": -0.5}
    yield 9, "Slice", [X], 1, {}, {"starts": [1, 0], "ends": [3, -1], "axes": [2, 3]}
    yield 9, "Slice", [X], 1, {}, {"starts": [0, 1], "ends": [1, 3]}
    yield 9, "TopK", [X], 2, {}, {"k": 2, "axis": 3}
    yield 9, "Pad", [X], 1, {}, {"pads": [0, 0, 1, 1, 0, 0, 1, 2], "value": 1.5}
    yield 9, "Pad", [X], 1, {}, {"pads": [0, 0, 1, 1, 0, 0, 1, 2], "mode": "reflect"}
    yield 11, "Split", [X], 2, {}, {"axis": 3, "split": [2, 3]}
    yield 11, "Split", [X], 2, {}, {"axis": 2}
    yield 13, "Split", [X], 2, {}, {"axis": 2}
    yield 11, "Squeeze", [X[:1]], 1, {}, {"axes": [0]}
    yield 11, "Unsqueeze", [X], 1, {}, {"axes": [0, 2]}
    for op in REDUCE:
        yield 11, op, [np.abs(X) + np.float32(0.1)], 1, {}, {"axes": [1, -1], "keepdims": 0}
        yield 11, op, [np.abs(X) + np.float32(0.1)], 1, {}, {}
    yield 7, "Dropout", [X], 1, {}, {"ratio": 0.3}
    yield 7, "BatchNormalization", [X], 1, norm(), {"epsilon": 1e-3}
    yield 9, "BatchNormalization", [X], 1, norm(), {}
    for mode in ["nearest", "linear"]:
        yield 7, "Upsample", [X], 1, {}, {"scales": [1.0, 1.0, 2.0, 2.0], "mode": mode}
        yield 9, "Upsample", [X], 1, {"sc": f32(1, 1, 2, 3)}, {"mode": mode}
        yield 10, "Resize", [X], 1, {"sc": f32(1, 1, 2, 3)}, {"mode": mode}
        yield 10, "Resize", [X], 1, {"sc": f32(1, 1, 0.6, 0.3)}, {"mode": mode}
    for mode in ["bilinear", "nearest", "bicubic"]:
        yield 16, "GridSample", [X, rng.random((2, 6, 7, 2)).astype(np.float32) * 2 - 1], 1, {}, {"mode": mode}
    yield 18, "GroupNormalization", [rng.standard_normal((2, 6, 4)).astype(np.float32)], 1, {"s": rng.random(3, dtype=np.float32), "b": rng.random(3, dtype=np.float32)}, {"num_groups": 3}
    yield 9, "Scatter", [X[0, 0], np.array([[0, 1, 2]]), np.ones((1, 3), np.float32)], 1, {}, {}
    yield 10, "RoiAlign", [X, f32(0, 0, 3, 3).reshape(1, 4), np.array([0])], 1, {}, {"output_height": 2, "output_width": 2, "sampling_ratio": 2}
    yield 17, "DFT", [rng.standard_normal((1, 6, 1)).astype(np.float32)], 1, {}, {"axis": 1}


def build(case, dynamic):
    opset, op, arrays, n_out, inits, attrs = case
    names, outs = [f"x{i}" for i in range(len(arrays))], [f"y{i}" for i in range(n_out)]
    shape = lambda n, a: [f"{n}_{k}" for k in range(a.ndim)] if dynamic else a.shape
    ins = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), shape(n, a)) for n, a in zip(names, arrays)]
    types = [ins[0].type.tensor_type.elem_type] + [TensorProto.INT64] * (n_out - 1) if op == "TopK" else [ins[0].type.tensor_type.elem_type] * n_out
    graph = helper.make_graph([helper.make_node(op, names + list(inits), outs, **attrs)], "g", ins, [helper.make_tensor_value_info(o, t, None) for o, t in zip(outs, types)],
                              [numpy_helper.from_array(v, k) for k, v in inits.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), dict(zip(names, arrays))


def run(path, feeds):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)


def same(want, got):
    for a, b in zip(want, got):
        if isinstance(a, np.ndarray) and a.dtype.kind in "fiub" and (a.shape != b.shape or not np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)):
            return False
    return True


def compare(tool, path, feeds, target, work, label):
    """None: equal; else what is wrong. A model that ONNX Runtime itself cannot run is no case."""
    try:
        want = run(path, feeds)
    except Exception:
        return None
    out = work / "raised.onnx"
    r = subprocess.run([tool, str(path), str(out), str(target), "10" if target > 20 else "9"], capture_output=True, text=True)
    if r.returncode == 3 and "Scan" in r.stderr or "channels are not known" in r.stderr:
        return None  # said so, and why
    if r.returncode:
        return f"{label} -> {target}: {r.stderr.strip()}"
    try:
        got = run(out, feeds)
    except Exception as e:
        return None if "NOT_IMPLEMENTED" in str(e) else f"{label} -> {target}: {str(e)[:200]}"
    return None if same(want, got) else f"{label} -> {target}: results differ"


def standard_models(folder):
    for path in sorted(Path(folder).rglob("*.onnx")):
        model = onnx.load(path)
        version = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
        if not version or version[0] < 7:
            continue
        wanted = [i.name for i in model.graph.input]
        files = sorted(path.parent.glob("test_data_set_0/input_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
        feeds = {}
        try:
            for name, f in zip(wanted, files):
                feeds[name] = numpy_helper.to_array(TensorProto.FromString(f.read_bytes()))
        except Exception:
            continue  # sequences and optionals
        yield path, version[0], feeds


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tool", required=True)
    p.add_argument("--data", default="/usr/share/libonnx-testdata/data")
    a = p.parse_args()
    wrong, tried = [], 0
    with tempfile.TemporaryDirectory() as d:
        work = Path(d)
        for case in cases():
            for dynamic in (False, True):
                model, feeds = build(case, dynamic)
                path = work / "case.onnx"
                onnx.save(model, path)
                for target in (13, 19, 21):
                    if target > case[0]:
                        tried += 1
                        wrong.append(compare(a.tool, path, feeds, target, work, f"{case[1]}-{case[0]} {case[5]}"))
        for path, version, feeds in standard_models(a.data):
            if version < 21:
                tried += 1
                wrong.append(compare(a.tool, path, feeds, 21, work, path.parent.name))
    wrong = [w for w in wrong if w]
    print(*wrong, sep="\n")
    print(f"{tried} conversions, {len(wrong)} wrong")
    return 1 if wrong else 0


sys.exit(main())
