"""factors.py --qonnx PATH --models FOLDER - the factors that smoothquant and awq fold, against their formulas in float64.

Some channels of micro-llama are made large behind the norms, and their weights small, so that there is something to balance. It is calibrated on made-up tokens. ONNX Runtime
computes what every group of operators reads, NumPy the statistics and from them the factor, for the alpha (smoothquant) or r (awq) that the report names; the file's
norms say which factor was taken. Both agree up to float32, and with the quantizer written out here once more no factor is worse than none."""
import argparse, json, os, re, sys, tempfile
from pathlib import Path
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper as nh
from interop import call

ort.set_default_logger_severity(4)
SAMPLES, TOKENS, TOLERANCE, LARGE = 5, 64, 1e-5, 25


def groups(m):
    """(norm's Mul, its gamma, [(operator, weight [K,N])]) of every norm whose readers are all MatMul."""
    init = {i.name: nh.to_array(i) for i in m.graph.initializer}
    uses = {}
    for n in m.graph.node:
        for x in n.input:
            uses.setdefault(x, []).append(n)
    for n in m.graph.node:
        gamma = [x for x in n.input if x in init and init[x].ndim == 1 and init[x].size > 1]
        readers = uses.get(n.output[0], [])
        if n.op_type == "Mul" and gamma and readers and all(r.op_type == "MatMul" and r.input[1] in init for r in readers if r.op_type != "Shape"):
            yield n, gamma[0], [(r, init[r.input[1]].astype(np.float64)) for r in readers if r.op_type != "Shape"]


def inputs_of(path, names, feeds):
    m = onnx.load(path)
    have = {o.name for o in m.graph.output}
    m.graph.output.extend([onnx.ValueInfoProto(name=x) for x in names if x not in have])
    o = ort.SessionOptions()
    o.intra_op_num_threads = 1
    s = ort.InferenceSession(m.SerializeToString(), o, providers=["CPUExecutionProvider"])
    runs = [s.run(list(names), f) for f in feeds]
    return {x: np.concatenate([r[i].reshape(-1, r[i].shape[-1]) for r in runs]).astype(np.float64) for i, x in enumerate(names)}


def plant(source, out, rng):
    """LARGE times as much in three channels of each group, undone in the weights."""
    m = onnx.load(source)
    init = {i.name: i for i in m.graph.initializer}
    for _, gamma, readers in list(groups(m)):
        f = np.ones(nh.to_array(init[gamma]).size, np.float32)
        f[rng.choice(f.size, 3, replace=False)] = LARGE
        for name, factor in [(gamma, f)] + [(r.input[1], 1 / f[:, None]) for r, _ in readers]:
            init[name].CopyFrom(nh.from_array(nh.to_array(init[name]) * factor.astype(np.float32), name))
    onnx.save(m, out)


def smoothquant(x, ws, alpha):
    top, w = np.abs(x).max(0), np.abs(np.concatenate(ws, 1)).max(1)
    return np.clip(np.where((top > 0) & (w > 0), top**alpha / w ** (1 - alpha), 1), 1e-4, 1e4)


def awq(x, ws, r, block=32):
    w = np.concatenate(ws, 1)
    k = np.abs(w).reshape(-1, block, w.shape[1])
    top = k.max(1, keepdims=True)
    share = np.divide(k, top, out=np.zeros_like(k), where=top > 0).reshape(w.shape).mean(1)
    s = np.clip(np.maximum(np.abs(x).mean(0), 1e-8) ** r / (np.maximum(share, 1e-8) ** (1 - r) + 1e-4), 1e-4, 1e4)
    return s / np.sqrt(s.min() * s.max())


def w8a8(x, ws, s):
    step = np.abs(x / s).max() / 127
    xq = np.clip(np.rint(x / s / step), -128, 127) * step
    return sum(((x @ w - xq @ channels(w * s[:, None])) ** 2).sum() for w in ws)


def channels(w):
    step = np.abs(w).max(0) / 127
    return np.clip(np.rint(w / step), -127, 127) * step


def w4(x, ws, s, block=32):
    """Blocks by absmax alone, where qonnx searches: candidates are compared in the same way by both."""
    error = 0
    for w in ws:
        k = (w * s[:, None]).reshape(-1, block, w.shape[1])
        step = np.maximum(np.abs(k).max(1, keepdims=True) / 7, 1e-12)
        q = (np.clip(np.rint(k / step), -8, 7) * step).reshape(w.shape) / s[:, None]
        error += ((x @ (w - q)) ** 2).sum()
    return error


CASES = [  # pipeline, what the report says, formula, error
    ("smoothquant(alpha=0.3,probes=0,float-share=0),int8", r"smoothquant ([0-9.]+) \(norm", smoothquant, w8a8),
    ("smoothquant(probes=0,float-share=0),int8", r"smoothquant ([0-9.]+) \(norm", smoothquant, w8a8),
    ("awq(mode=lite),int4", r"awq ([0-9.]+) \(norm", awq, w4),
]


def check(a, tmp, case, feeds):
    passes, pattern, formula, error = case
    source = tmp / "planted.onnx"
    call(a.qonnx, "quantize", source, "-o", tmp / "q.onnx", "--passes", passes, "--calib", tmp / "calib", "--no-verify", "--force", "--quiet", "--report", tmp / "r.json")
    notes = {n["name"]: n.get("notes") or "" for n in json.loads((tmp / "r.json").read_text())["nodes"]}
    before, after = onnx.load(source), onnx.load(tmp / "q.onnx")
    new = {n.name: n for n in after.graph.node}
    init = {i.name: nh.to_array(i).astype(np.float64) for i in after.graph.initializer}
    old = {i.name: nh.to_array(i).astype(np.float64) for i in before.graph.initializer}
    found = list(groups(before))
    x = inputs_of(source, [n.output[0] for n, _, _ in found], feeds)
    worst, seen, gain = 0.0, 0, np.inf
    for n, gamma, readers in found:
        said = re.search(pattern, notes[readers[0][0].name])
        if not said:
            continue
        at, rows, ws = float(said[1]), x[n.output[0]], [w for _, w in readers]
        fresh = [init[y] for y in new[n.name].input if y in init and init[y].shape == old[gamma].shape][0]
        want = formula(rows, ws, at)
        live = old[gamma] != 0
        worst = max(worst, float(np.abs(old[gamma] / np.where(live, fresh, 1) / want - 1)[live].max()))
        seen += 1
        gain = min(gain, 10 * np.log10(error(rows, ws, np.ones_like(want)) / error(rows, ws, want)))
    print(f"{passes}: {seen} factors, off by {worst:.1e} at most, gain {gain:.1f} dB at least")
    return seen >= 2 and worst < TOLERANCE and gain > 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--qonnx", required=True)
    p.add_argument("--models", required=True)
    a = p.parse_args()
    rng = np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as t:
        tmp = Path(t)
        (tmp / "calib").mkdir()
        plant(Path(a.models) / "micro-llama" / "model.onnx", tmp / "planted.onnx", rng)
        with np.load(Path(a.models) / "micro-llama" / "sample.npz") as z:
            names = {k: (z[k].dtype, int(z[k].max())) for k in z.files}
        feeds = []
        for i in range(SAMPLES):
            feeds.append({k: (np.arange(TOKENS)[None] if "position" in k else np.ones((1, TOKENS)) if "mask" in k else rng.integers(0, 1000, (1, TOKENS))).astype(d) for k, (d, _) in names.items()})
            np.savez(tmp / "calib" / f"{i}.npz", **feeds[-1])
        return 0 if all([check(a, tmp, c, feeds) for c in CASES]) else 1


if __name__ == "__main__":
    sys.exit(main())
