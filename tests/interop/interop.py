"""interop.py --qonnx PATH [--preset P]... [--models DIR]... [--only NAME] - what qonnx writes, judged by others.

For every model below the given folders (a folder with model.onnx and sample.npz), every preset and target: the onnx checker in full,
loading and running in ONNX Runtime, ONNX Runtime's outputs against our executor's on the same file, and the loss against the float
model beside that of ONNX Runtime's own quantizer on the same samples. Prints a table; exits 1 when a row fails."""
import argparse, json, os, subprocess, sys, tempfile, traceback
from pathlib import Path
import numpy as np
import onnx
import onnxruntime as ort

ort.set_default_logger_severity(4)
PRESETS = {"none": ["--passes", "none"], "int8-dynamic": ["--passes", "int8-dynamic"], "int8-weights": ["--passes", "int8-weights"], "int8": ["--int8"], "int4": ["--int4"], "fp8": ["--fp8"]}
EQUAL_DB = 55.0  # ONNX Runtime against us on the same file
# Rounding ties: an activation that lies on the border of two codes may fall either way after a sum in another order, and then
# differs by one step. What a step is worth depends on the format; below these nothing may fall.
TIES_DB = {"int8": 30.0, "fp8": 25.0, "int8-dynamic": 35.0}
ORT_TIES_DB = {"int8-weights": 35.0, "int4": 35.0}  # MatMulNBits with accuracy_level 4 rounds its input as it runs


def sqnr(want, got):
    want, got = np.asarray(want, np.float64), np.asarray(got, np.float64)
    assert want.shape == got.shape, f"shapes {want.shape} and {got.shape}"
    assert np.isfinite(got).all(), "not finite"
    noise = np.sum((want - got) ** 2)
    return 999.0 if noise == 0 else 10 * np.log10(max(np.sum(want ** 2), 1e-300) / noise)


def worst(want, got):
    return min((sqnr(a, b) for a, b in zip(want, got) if np.issubdtype(np.asarray(a).dtype, np.floating)), default=999.0)


def session(path, plain, optimize=True):
    o = ort.SessionOptions()
    if not optimize:
        o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    o.log_severity_level = 4
    o.intra_op_num_threads = 2
    if not plain:
        o.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])


def feeds(s, sample):
    return {i.name: sample[i.name] for i in s.get_inputs()}


def call(*args):
    p = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    assert p.returncode == 0, f"{' '.join(map(str, args))}: exit {p.returncode}: {p.stderr.strip()[-600:]}"
    return p.stdout


def ours(qonnx, path, sample, names, tmp):
    out = tmp / "out.npz"
    call(qonnx, "run", path, "-i", sample, "-o", out, "--quiet")
    with np.load(out) as z:
        return [z[n] for n in names]


def run_rows(rows, one):
    """The main program of a table of rows about the bundled models (--models DIR): one(qonnx, models, *row, folder) prints its line and says whether it is good."""
    p = argparse.ArgumentParser()
    p.add_argument("--qonnx", required=True)
    p.add_argument("--models", required=True, type=Path)
    a = p.parse_args()
    failed = 0
    for row in rows:
        with tempfile.TemporaryDirectory() as tmp:
            try:
                failed += not one(a.qonnx, a.models, *row, Path(tmp))
            except Exception as e:
                failed += 1
                print(row, type(e).__name__, str(e)[:400], flush=True)
    print(f"{failed} failed")
    return failed > 0


def run_cases(cases, one):
    """The main program of a table of cases, whose first column is a name: calls one(qonnx, folder, *case) for each; one that raises or returns a list of complaints has failed."""
    p = argparse.ArgumentParser()
    p.add_argument("--qonnx", required=True)
    p.add_argument("--only", default="", help="part of a case's name")
    a = p.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as tmp:
        for case in cases:
            if a.only not in case[0]:
                continue
            folder = Path(tmp) / case[0]
            folder.mkdir(exist_ok=True)
            try:
                bad = one(a.qonnx, folder, *case)
            except Exception as e:
                bad = [f"{type(e).__name__}: {str(e)[:500]}"]
            failed += bool(bad)
            print(" ".join(str(c) for c in case if isinstance(c, str)).ljust(40), "; ".join(bad or ["ok"]), flush=True)
    print(f"{failed} failed")
    return failed > 0


class Reader:
    """Samples for ONNX Runtime's own quantizer."""
    def __init__(self, sample):
        self.left = [sample]

    def get_next(self):
        return self.left.pop() if self.left else None


def peers(model, preset, sample, tmp):
    """ONNX Runtime's own quantizer on the same samples; None where it has none or fails."""
    from onnxruntime.quantization import quantize_static, QuantFormat, QuantType
    out = tmp / "peer.onnx"
    try:
        if preset == "int8":
            quantize_static(str(model), str(out), Reader(sample), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
                            op_types_to_quantize=["MatMul", "Gemm", "Conv"], extra_options={"ActivationSymmetric": True, "WeightSymmetric": True})
        elif preset == "int4":
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
            q = MatMulNBitsQuantizer(onnx.load(str(model)), block_size=128, is_symmetric=True)
            q.process()
            q.model.save_model_to_file(str(out))
        else:
            return None
        s = session(out, True)
        return s.run(None, feeds(s, sample))
    except Exception:
        return None


def one(args, folder, preset, target, tmp):
    model, sample_path = folder / "model.onnx", folder / "sample.npz"
    out = tmp / f"{preset}.{target}.onnx"
    with np.load(sample_path) as z:
        sample = {k: z[k] for k in z.files}
    call(args.qonnx, "quantize", model, "-o", out, *PRESETS[preset], "--calib", sample_path, "--target", target, "--no-verify", "--force", "--quiet")
    if preset == "none":
        assert out.read_bytes() == model.read_bytes(), "a rewrite without passes changed the file"
    onnx.checker.check_model(str(out), full_check=True)
    s = session(out, target == "ort")
    names = [o.name for o in s.get_outputs()]
    theirs = s.run(None, feeds(s, sample))
    mine = ours(args.qonnx, out, sample_path, names, tmp)
    f = session(model, True)
    ref = f.run(None, feeds(f, sample))
    assert names == [o.name for o in f.get_outputs()], "output names changed"
    row = {"equal": worst(theirs, mine), "loss": worst(ref, mine), "peer": None}
    p = peers(model, preset, sample, tmp) if target == "ort" else None
    if p is not None:
        row["peer"] = worst(ref, p)
    need = TIES_DB.get(preset, ORT_TIES_DB.get(preset, EQUAL_DB) if target == "ort" else EQUAL_DB)
    assert row["equal"] >= need, f"ONNX Runtime and our executor agree to {row['equal']:.1f} dB on the same file, {need} wanted"
    return row


def find(roots):
    for root in roots:
        for m in sorted(Path(root).rglob("model.onnx")):
            if (m.parent / "sample.npz").exists() and "genai" not in str(m):
                yield m.parent


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--qonnx", required=True)
    p.add_argument("--preset", action="append")
    p.add_argument("--models", action="append", required=True)
    p.add_argument("--verbose", action="store_true")
    args = p.parse_args()
    print(f"onnx {onnx.__version__}, onnxruntime {ort.__version__}")
    print(f"{'model':34} {'preset':13} {'target':8} {'ORT=qonnx':>10} {'vs float':>9} {'ORT quantizer':>14}")
    failed = rows = 0
    for folder in find(args.models):
        for preset in args.preset or PRESETS:
            for target in ("generic", "ort"):
                name = "/".join(folder.parts[-2:])
                rows += 1
                with tempfile.TemporaryDirectory() as tmp:
                    try:
                        r = one(args, folder, preset, target, Path(tmp))
                        peer = "" if r["peer"] is None else f"{r['peer']:.2f} dB"
                        print(f"{name[-34:]:34} {preset:13} {target:8} {r['equal']:7.1f} dB {r['loss']:6.2f} dB {peer:>14}", flush=True)
                    except Exception as e:
                        failed += 1
                        print(f"{name[-34:]:34} {preset:13} {target:8} FAILED: {e}", flush=True)
                        if args.verbose:
                            traceback.print_exc()
    print(f"{rows} rows, {failed} failed")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
