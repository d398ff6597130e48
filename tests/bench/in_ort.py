"""in_ort.py --qonnx PATH FOLDER... - how fast ONNX Runtime runs what is written for it. FOLDER holds one .onnx, sample*.npz to calibrate with and heldout*.npz to judge on (else the samples serve for
both). For each: the float model, `--int8` for target generic and ort, and ONNX Runtime's own quantize_static (QDQ, a scale a channel), all in ONNX Runtime on one thread. Sessions run in turns, processor
time, median of what fits into --seconds; decibels are the mean over the held-out samples of all outputs together. A cell: times as fast as float / dB / MB."""
import argparse
import subprocess
import tempfile
import time
from pathlib import Path
import numpy as np
import onnx
import onnxruntime as ort
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    def __init__(self, samples):
        self.samples = iter(samples)

    def get_next(self):
        return next(self.samples, None)


def session(path):
    o = ort.SessionOptions()
    o.intra_op_num_threads, o.log_severity_level = 1, 4
    return ort.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])


def read(paths, names):
    out = []
    for p in paths:
        with np.load(p) as z:
            out.append({k: z[k] for k in names})
    return out


def sqnr(want, got):
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(want, got) if a.dtype.kind == "f"]
    signal, noise = sum((a ** 2).sum() for a, _ in pairs), sum(((a - b) ** 2).sum() for a, b in pairs)
    return 10 * np.log10(signal / noise) if noise else 999.0


def make(a, model, samples, feeds, tmp):
    """Names and paths of the files that could be made; what could not is said."""
    made = {"float": model}
    calib = sum((["--calib", str(s)] for s in samples), [])
    for target in ("generic", "ort"):
        made[target] = tmp / f"{target}.onnx"
        subprocess.run([a.qonnx, "quantize", model, "-o", made[target], "--int8", "--target", target, "--no-verify", "-f", "-q", *calib], check=True)
    try:
        net = onnx.load(model)
        if net.opset_import[0].version < 13:  # which its scales a channel need
            onnx.save(version_converter.convert_version(net, 17), tmp / "raised.onnx")
        quant_pre_process(str(tmp / "raised.onnx") if (tmp / "raised.onnx").exists() else str(model), str(tmp / "pre.onnx"), skip_symbolic_shape=True)
        quantize_static(str(tmp / "pre.onnx"), str(tmp / "static.onnx"), Reader(feeds), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        session(tmp / "static.onnx")
        made["quantize_static"] = tmp / "static.onnx"
    except Exception as e:  # whatever the peer stops at
        print(f"  quantize_static: {str(e)[:120]}")
    return made


def judge(a, folder):
    folder = Path(folder)
    model = sorted(folder.glob("*.onnx"))[0]
    samples = sorted(folder.glob("sample*.npz"))[:a.samples]
    heldout = sorted(folder.glob("heldout*.npz"))[:a.samples] or samples
    names = [i.name for i in session(model).get_inputs()]
    with tempfile.TemporaryDirectory() as d:
        made = make(a, model, samples, read(samples, names), Path(d))
        sessions = {k: session(p) for k, p in made.items()}
        fed = read(heldout, names)
        sizes = {k: (p.stat().st_size + sum(x.stat().st_size for x in p.parent.glob(p.name + ".data"))) / 1e6 for k, p in made.items()}
        loss = {k: [] for k in sessions}
        for f in fed:
            want = sessions["float"].run(None, f)
            for k, s in sessions.items():
                loss[k].append(sqnr(want, s.run(None, f)))
        took, until = {k: [] for k in sessions}, time.monotonic() + a.seconds
        while time.monotonic() < until or len(took["float"]) < 3:
            for k, s in sessions.items():
                start = time.process_time()
                s.run(None, fed[0])
                took[k].append(time.process_time() - start)
    ms = {k: 1000 * float(np.median(v)) for k, v in took.items()}
    cells = [f"{k} {ms['float'] / ms[k]:.2f} / {np.mean(loss[k]):.1f} / {sizes[k]:.1f}" for k in sessions if k != "float"]
    print(f"{folder.name:16} float {ms['float']:.1f} ms {sizes['float']:.1f} MB | {' | '.join(cells)}", flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--qonnx", required=True)
    p.add_argument("--samples", type=int, default=8)
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("folders", nargs="+")
    a = p.parse_args()
    for f in a.folders:
        judge(a, f)


if __name__ == "__main__":
    main()
