"""zoo.py --qonnx PATH [options] FOLDER... - tries qonnx on every model below some folders, beside ONNX Runtime and its quantizer.

A model is any NAME.onnx; samples beside it (sample*.npz: inputs by name) calibrate, heldout*.npz, when there, measure. A model without
samples gets made-up ones, written to the scratch folder. For every model: inspect, check, our executor against ONNX Runtime in float;
for every format and target: quantize, the ONNX checker in full, ONNX Runtime against our executor on the same file, the loss against
float beside that of ONNX Runtime's own quantizer with the same samples, sizes, times. One line a job, FAILED with the reason where
something is wrong, --json for all of it. Exits 1 when a job failed."""
import argparse, json, logging, subprocess, sys, tempfile, time, traceback
from pathlib import Path
import numpy as np
import onnx
import onnx.version_converter
import onnxruntime as ort
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

ort.set_default_logger_severity(4)
logging.disable(logging.CRITICAL)
FORMATS = ["int8", "fp8", "int4", "int8-weights", "smoothquant,bias-correction,int8", "awq,int4", "sparsity,int8"]
FLOAT_DB = {"float32": 100.0, "float16": 50.0, "bfloat16": 30.0}  # our executor against ONNX Runtime in float
EQUAL_DB = 55.0                                                   # ... and on a quantized file
# An activation on the border of two codes may fall either way after a sum in another order: then two runtimes differ by a part of
# what the format loses. Below these, and below 3 dB more than the loss, nothing may fall.
TIES_DB = {"int8": 30.0, "fp8": 25.0}
PEER_DB = 0.5                                                     # how much worse than the peer is still noise
NP = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
      "tensor(bool)": np.bool_, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}


class Bad(Exception):
    pass


class Nothing(Exception):
    """The format has nothing to do in this model, and says so."""


def sqnr(want, got):
    want, got = np.asarray(want, np.float64), np.asarray(got, np.float64)
    if want.shape != got.shape:
        raise Bad(f"shapes {want.shape} and {got.shape}")
    same = ~np.isfinite(want) & ((want == got) | (np.isnan(want) & np.isnan(got)))
    want, got = np.where(same, 0, want), np.where(same, 0, got)
    if not np.isfinite(got).all():
        raise Bad("not finite")
    noise = np.sum((want - got) ** 2)
    return 999.0 if noise == 0 else 10 * np.log10(max(np.sum(want ** 2), 1e-300) / noise)


def each(want, got):
    """SQNR of every float output; one that is nearly constant zero says nothing."""
    return [sqnr(a, b) for a, b in zip(want, got) if isinstance(a, np.ndarray) and np.issubdtype(a.dtype, np.floating) and a.size and np.any(a)]


def session(path, plain=True, optimise=True):
    o = ort.SessionOptions()
    o.log_severity_level = 4
    o.intra_op_num_threads = 1
    if not optimise:
        o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not plain:
        o.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])


def join(runs):
    """The outputs of several runs as one array an output: flat, one after the other; what is no array is left out."""
    return [np.concatenate([np.asarray(v).ravel() for v in o]) if isinstance(o[0], np.ndarray) else None for o in zip(*runs)]


def run_all(s, tests):
    return join([s.run(None, {i.name: t[i.name] for i in s.get_inputs()}) for t in tests])


def load(path):
    with np.load(path) as z:
        return {k: z[k] for k in z.files}


class Run:
    """A finished command: seconds, peak memory in MB, output; raises when it failed."""
    def __init__(self, *args, timeout=900):
        t = time.time()
        p = subprocess.Popen([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            self.out, self.err = p.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            p.communicate()
            raise Bad(f"{args[1]}: more than {timeout} s")
        self.seconds, self.rc = time.time() - t, p.returncode
        if p.returncode == 3 and ("no node was quantized" in self.err or "quantized already" in self.err or "fits 2:4" in self.err):
            raise Nothing(self.err.strip().split(": ", 1)[-1][-160:])
        if p.returncode:
            raise Bad(f"{args[1]}: exit {p.returncode}: {self.err.strip()[-400:]}")


def ours(a, path, tests, names, tmp):
    out, runs = tmp / "out.npz", []
    for t in tests:
        Run(a.qonnx, "run", path, "-i", t, "-o", out, "--quiet")
        z = load(out)
        runs.append([z.get(n) for n in names])
    return join(runs)


def made_up(path, where):
    """Inputs by type and declared shape: unknown dimensions are 2, or what fits an id, a mask, a picture."""
    s, r, feed = session(path), np.random.default_rng(0), {}
    for i in s.get_inputs():
        low = i.name.lower()
        dims = [d if isinstance(d, int) and d > 0 else (1 if n == 0 else 64 if len(i.shape) == 4 else 16) for n, d in enumerate(i.shape)]
        t = NP.get(i.type)
        if t is None:
            raise Bad(f"no made-up sample for input '{i.name}' of type {i.type}")
        if "mask" in low and t in (np.int64, np.int32, np.bool_):
            feed[i.name] = np.ones(dims, t)
        elif np.issubdtype(t, np.integer) or t == np.bool_:
            feed[i.name] = r.integers(0, 2 if t == np.bool_ else 100, dims).astype(t)
        else:
            feed[i.name] = r.standard_normal(dims).astype(t)
    np.savez(where, **feed)
    return [where]


class Reader:
    """The samples as quantizers read them: ONNX Runtime's takes one after the other, Model Optimizer's starts again and iterates too."""
    def __init__(self, paths):
        self.all = [load(p) for p in paths]
        self.rewind()

    def rewind(self):
        self.left = iter(self.all)

    def get_first(self):
        return self.all[0]

    def get_next(self):
        return next(self.left, None)

    def __iter__(self):
        return iter(self.all)


def as_initializers(model, out):
    """A copy that ONNX Runtime's quantizer takes: opset 13 for scales by channel, no weight that is a Constant node."""
    m = onnx.load(str(model))
    if next((o.version for o in m.opset_import if o.domain in ("", "ai.onnx")), 13) < 13:
        m = onnx.version_converter.convert_version(m, 17)
    keep = []
    for n in m.graph.node:
        t = next((a.t for a in n.attribute if a.name == "value"), None) if n.op_type == "Constant" else None
        if t is None:
            keep.append(n)
        else:
            t.name = n.output[0]
            m.graph.initializer.append(t)
    del m.graph.node[:]
    m.graph.node.extend(keep)
    del m.graph.value_info[:]  # an exporter's wrong one stops it
    try:  # without shapes it leaves activations float; this knows the contrib operators
        m = SymbolicShapeInference.infer_shapes(m, auto_merge=True)
    except Exception:
        pass
    onnx.save(m, str(out))
    return out


def peer_file(model, fmt, samples, out, symmetric=True):
    """ONNX Runtime's own quantizer: what it writes for this format; None where it has none. symmetric: activations without zero points."""
    from onnxruntime.quantization import quantize_static, QuantFormat, QuantType
    fmt = fmt.split(",")[-1].split("(")[0]  # it has no preparing passes
    if fmt == "int8":
        quantize_static(str(model), str(out), Reader(samples), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
                        op_types_to_quantize=["MatMul", "Gemm", "Conv", "ConvTranspose"], extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True})
    elif fmt == "int4":
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
        q = MatMulNBitsQuantizer(onnx.load(str(model)), block_size=32, is_symmetric=True)
        q.process()
        q.model.save_model_to_file(str(out))
    else:
        return None
    return out


def peer(model, fmt, samples, tests, ref, tmp):
    try:
        model = as_initializers(model, tmp / "peer_in.onnx")
        t = time.time()
        out = peer_file(model, fmt, samples, tmp / "peer.onnx")
        if out is None:
            return None
        seconds = time.time() - t
        return {"db": each(ref, run_all(session(out), tests)), "seconds": seconds, "bytes": out.stat().st_size}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {str(e)[:160]}"}


def report_of(path):
    r = json.loads(path.read_text())
    why = {}
    for n in r["nodes"]:
        if n.get("reason") and n["reason"] != "not a linear operator":
            why[n["reason"]] = why.get(n["reason"], 0) + 1
    return {"quantized": r["nodes_quantized"], "why": why, "in": r["input_bytes"], "bytes": r["output_bytes"], "rss": r["peak_rss"]}


def checks(path):
    try:
        onnx.checker.check_model(str(path), full_check=True)
        return True
    except Exception:
        return False


class Model:
    def __init__(self, a, path, tmp):
        self.a, self.path, self.tmp = a, path, tmp
        here = sorted(path.parent.glob("sample*.npz"))
        self.samples = here or made_up(path, tmp / "sample.npz")
        self.test_paths = sorted(path.parent.glob("heldout*.npz")) or self.samples[:1]
        self.tests = [load(p) for p in self.test_paths]
        self.valid = checks(path)

    def float_row(self):
        Run(self.a.qonnx, "inspect", self.path)
        Run(self.a.qonnx, "check", self.path)
        s = session(self.path)
        self.ref = run_all(s, self.tests)
        self.names = [o.name for o in s.get_outputs()]
        got = ours(self.a, self.path, self.test_paths, self.names, self.tmp)
        db = min(each(self.ref, got), default=999.0)
        kinds = {str(np.asarray(v).dtype) for v in self.ref} | {str(v.dtype) for v in self.tests[0].values()}
        kinds |= {"float16"} if any(t.data_type == 10 for t in onnx.load(str(self.path), load_external_data=False).graph.initializer) else set()
        self.need = need = min(v for k, v in FLOAT_DB.items() if k in kinds or k == "float32")
        if db < need and db < self.self_equal(self.path, True, self.ref) - 3:
            raise Bad(f"float: ONNX Runtime and our executor agree to {db:.1f} dB, {need:.0f} wanted")
        return {"equal": db}

    def quantized(self, fmt, target):
        out, rep = self.tmp / "q.onnx", self.tmp / "report.json"
        args = [self.a.qonnx, "quantize", self.path, "-o", out, "--passes", fmt, "--target", target, "--no-verify", "--force", "--quiet", "--report", rep, "--external-data-root", self.path.parent]
        for s in self.samples:
            args += ["--calib", s]
        r = Run(*args)
        return out, {**report_of(rep), "seconds": r.seconds}

    def self_equal(self, path, plain, theirs):
        """How far ONNX Runtime agrees with itself, in float arithmetic and without its optimisations: rounding ties that nobody can decide."""
        others = [(plain, False)] + ([(False, True)] if plain else [])
        return min((v for o in others for v in each(theirs, run_all(session(path, *o), self.tests))), default=999.0)

    def row(self, fmt, target):
        out, row = self.quantized(fmt, target)
        if self.valid:  # some exporters write what the checker refuses
            onnx.checker.check_model(str(out), full_check=True)
        s = session(out, target == "ort")
        theirs = run_all(s, self.tests)
        mine = ours(self.a, out, self.test_paths, self.names, self.tmp)
        if self.names != [o.name for o in s.get_outputs()]:
            raise Bad("output names changed")
        row["equal"], row["loss"] = min(each(theirs, mine), default=999.0), each(self.ref, mine)
        need = min([EQUAL_DB, self.need, *[v for k, v in TIES_DB.items() if fmt.endswith(k)]])
        ties = min(need, min(row["loss"], default=need) + 3) if any(fmt.endswith(k) for k in TIES_DB) else need
        if row["equal"] < ties and row["equal"] < self.self_equal(out, target == "ort", theirs) - 3:
            row["bad"] = f"ONNX Runtime and our executor agree to {row['equal']:.1f} dB on the same file, {need:.0f} wanted"
        return row


def mean(v):
    return float(np.mean(np.minimum(v, 120))) if v else 120.0


def judge(row, p):
    """Beside the peer: the mean over the outputs, in dB."""
    row["mean"] = mean(row["loss"])
    if p and "db" in p:
        row["peer"], row["peer_seconds"], row["peer_bytes"] = mean(p["db"]), p["seconds"], p["bytes"]
        if row["mean"] < row["peer"] - PEER_DB and row["peer_bytes"] < 0.95 * row["in"]:  # a file of the old size: it did nothing
            row["worse"] = True
    elif p:
        row["peer_error"] = p["error"]


def line(name, fmt, target, row):
    if "bad" in row:
        return f"{name[-30:]:30} {fmt:16} {target:8} FAILED: {row['bad']}"
    if "nothing" in row:
        return f"{name[-30:]:30} {fmt:16} {target:8} nothing to do: {row['nothing']}"
    if fmt == "float":
        return f"{name[-30:]:30} {fmt:16} {target:8} {row['equal']:7.1f}"
    right = f"{row['peer']:7.2f}{'!' if row.get('worse') else ' '} {row['peer_bytes'] / row['in']:5.2f} {row['peer_seconds']:6.1f}" if "peer" in row else f"{'-':>8} {row.get('peer_error', '')}"
    return f"{name[-30:]:30} {fmt:16} {target:8} {row['equal']:7.1f} {row['mean']:7.2f} {row['quantized']:4d} {row['bytes'] / row['in']:5.2f} {row['seconds']:6.1f} | {right}"


def jobs(a, m):
    yield "float", "", lambda: m.float_row()
    for fmt in a.format or FORMATS:
        for target in a.target or ("ort", "generic"):
            yield fmt, target, lambda: m.row(fmt, target)


def one(a, path, name, results):
    with tempfile.TemporaryDirectory() as t:
        tmp, peers, lost = Path(t), {}, 0
        m = None
        try:
            m = Model(a, path, tmp)
        except Exception as e:
            print(line(name, "", "", {"bad": f"no reference: {str(e)[:300]}"}), flush=True)
            return 1
        for fmt, target, f in jobs(a, m):
            try:
                row = f()
                if fmt != "float" and target == "ort" and not a.no_peer:
                    peers[fmt] = peer(path, fmt, m.samples, m.tests, m.ref, tmp)
                if fmt != "float":
                    judge(row, peers.get(fmt) if target == "ort" else None)
            except Nothing as e:
                row = {"nothing": str(e)}
            except Exception as e:
                row = {"bad": str(e)[-500:].replace("\n", " ")}
                if a.verbose:
                    traceback.print_exc()
            lost += "bad" in row
            results.append({"model": name, "format": fmt, "target": target, **row})
            print(line(name, fmt, target, row), flush=True)
            if fmt == "float" and not hasattr(m, "ref"):
                break
        return lost


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--qonnx", required=True)
    p.add_argument("--format", action="append", help="pipeline text; may be repeated")
    p.add_argument("--target", action="append", choices=["ort", "generic"])
    p.add_argument("--no-peer", action="store_true", help="without ONNX Runtime's quantizer")
    p.add_argument("--json", help="write every row here")
    p.add_argument("--verbose", action="store_true")
    p.add_argument("folder", nargs="+")
    a = p.parse_args()
    print(f"onnx {onnx.__version__}, onnxruntime {ort.__version__}; SQNR in dB: ONNX Runtime against us on the same file, quantized against float (mean of the outputs)")
    print(f"{'model':30} {'format':16} {'target':8} {'equal':>7} {'loss':>7} {'n':>4} {'size':>5} {'s':>6} | {'peer':>7}  {'size':>5} {'s':>6}")
    lost, results = 0, []
    for root in a.folder:
        root = Path(root)
        found = [root] if root.suffix == ".onnx" else sorted(root.rglob("*.onnx"))
        for path in found:
            name = path.parent.name if path.name == "model.onnx" else path.stem
            lost += one(a, path, name, results)
    if a.json:
        Path(a.json).write_text(json.dumps(results, indent=1))
    print(f"{len(results)} rows, {lost} failed, {sum(bool(r.get('worse')) for r in results)} below the peer")
    return 1 if lost or not results else 0


if __name__ == "__main__":
    sys.exit(main())
