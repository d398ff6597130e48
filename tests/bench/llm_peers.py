#!/usr/bin/env python3
"""The peers' quantizers on a language model, judged as scripts/accuracy.sh judges qonnx: same windows for calibration, same held-out tokens.

  llm_peers.py MODEL_DIR [--calib WINDOWS] [--held WINDOWS] [--modelopt PYTHON] [--rows]

MODEL_DIR holds model.onnx, tokenizer.json, calib.txt and heldout.txt (scripts/prose.py makes the last two). Needs onnx, onnx_ir, onnxruntime, tokenizers, numpy;
PYTHON is an interpreter that has nvidia-modelopt[onnx] as well. Every quantizer runs in a process of its own. Prints perplexity, mean KL to the float
model, top-1 agreement, and the seconds and the peak memory that quantizing took; with --rows no head, and the columns of scripts/accuracy.sh, which
calls it: the size of the file instead of the memory.
"""
import argparse
import glob
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, matmul_nbits_quantizer, quantize_static

try:
    from tokenizers import Tokenizer
except ImportError:
    sys.exit(f"llm_peers.py: {sys.executable} has no tokenizers; {sys.executable} -m pip install tokenizers")

SEQ = 256


def windows(directory, name, count):
    tokenizer = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    with open(os.path.join(directory, name), encoding="utf-8") as f:
        ids = tokenizer.encode(f.read()).ids
    return [np.array(ids[i * SEQ : (i + 1) * SEQ + 1], dtype=np.int64) for i in range(count)]


def feed(inputs, ids):
    out = {}
    for i in inputs:
        if i.name == "input_ids":
            out[i.name] = ids[None]
        elif "mask" in i.name:
            out[i.name] = np.ones((1, len(ids)), np.int64)
        elif "position" in i.name:
            out[i.name] = np.arange(len(ids), dtype=np.int64)[None]
        else:
            sys.exit(f"input '{i.name}' is not known: a model without past is needed")
    return out


def session(path):
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(path, options)


def log_probabilities(path, held):
    s = session(path)
    for w in held:
        logits = s.run([s.get_outputs()[0].name], feed(s.get_inputs(), w[:SEQ]))[0][0].astype(np.float64)
        top = logits.max(axis=1, keepdims=True)
        yield w, logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))


def judge(label, path, reference, held, cost):
    loss = kl = same = n = 0
    for (w, p), (_, q) in zip(log_probabilities(reference, held), log_probabilities(path, held)):
        loss -= q[np.arange(SEQ), w[1:]].sum()
        kl += (np.exp(p) * (p - q)).sum()
        same += (p.argmax(1) == q.argmax(1)).sum()
        n += SEQ
    print(f"| {label} | {np.exp(loss / n):.3f} | {kl / n:.4f} | {100 * same / n:.1f} % | {cost} |", flush=True)


class Reader(CalibrationDataReader):
    def __init__(self, path, calib):
        inputs = session(path).get_inputs()
        self.feeds = [feed(inputs, w[:SEQ]) for w in calib]
        self.rewind()

    def get_next(self):
        return next(self.at, None)

    def rewind(self):  # this and the next: what Model Optimizer asks for as well
        self.at = iter(self.feeds)

    def get_first(self):
        return self.feeds[0]


def ort_int8(source, target, calib):
    quantize_static(source, target, Reader(source, calib), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax, op_types_to_quantize=["MatMul", "Gemm"], use_external_data_format=True,
                    extra_options={"ActivationSymmetric": True})


def ort_int4(source, target, block):
    q = matmul_nbits_quantizer.MatMulNBitsQuantizer(onnx.load(source), block_size=block, is_symmetric=True)
    q.process()
    q.model.save_model_to_file(target, True)


def modelopt(source, target, calib, mode, method, **options):
    from modelopt.onnx.quantization import quantize
    quantize(source, quantize_mode=mode, calibration_method=method, calibration_data_reader=Reader(source, calib), calibration_eps=["cpu"], output_path=target,
             use_external_data_format=True, high_precision_dtype="fp32", log_level="ERROR", **options)


# label: whether it is Model Optimizer's, and what makes the file
JOBS = {
    "ONNX Runtime INT4, block 32 (MatMulNBits)": (False, lambda source, out, calib: ort_int4(source, out, 32)),
    "ONNX Runtime INT4, block 128 (MatMulNBits)": (False, lambda source, out, calib: ort_int4(source, out, 128)),
    "ONNX Runtime INT8, static, max": (False, ort_int8),
    "Model Optimizer INT4, block 128, rtn": (True, lambda *a: modelopt(*a, "int4", "rtn_dq", block_size=128)),
    "Model Optimizer INT8, max": (True, lambda *a: modelopt(*a, "int8", "max")),
    "Model Optimizer FP8, max": (True, lambda *a: modelopt(*a, "fp8", "max")),
    "Model Optimizer INT4, block 128, awq_lite": (True, lambda *a: modelopt(*a, "int4", "awq_lite", block_size=128)),
}


def make(python, label, o, out):
    """Seconds and peak memory of a quantizer as a process of its own; its last line when it fails."""
    start = time.time()
    p = subprocess.Popen([python, os.path.abspath(__file__), o.folder, "--calib", str(o.calib), "--make", label, out], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    text = p.stdout.read()
    _, status, use = os.wait4(p.pid, 0)
    cost = f"{time.time() - start:.0f} | {use.ru_maxrss / 1024:.0f}"
    return cost, None if status == 0 else (text.strip().splitlines() or ["no message"])[-1]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("folder"), a.add_argument("--calib", type=int, default=32), a.add_argument("--held", type=int, default=20), a.add_argument("--modelopt")
    a.add_argument("--make", nargs=2, help=argparse.SUPPRESS), a.add_argument("--rows", action="store_true")
    o = a.parse_args()
    source = os.path.join(o.folder, "model.onnx")
    if o.make:
        return JOBS[o.make[0]][1](source, o.make[1], windows(o.folder, "calib.txt", o.calib))
    held = windows(o.folder, "heldout.txt", o.held)
    if not o.rows:
        print("| tool | perplexity | mean KL | same top-1 | seconds | MB |\n|---|---|---|---|---|---|")
        judge("float", source, source, held, "0 | 0")
    for label, (theirs, _) in JOBS.items():
        python = o.modelopt if theirs else sys.executable
        if o.rows and not python:
            continue
        with tempfile.TemporaryDirectory() as tmp:
            out = os.path.join(tmp, "out.onnx")
            cost, trouble = make(python, label, o, out) if python else ("", "no --modelopt")
            if o.rows:
                cost = f"{sum(os.path.getsize(f) for f in glob.glob(tmp + '/*')) / 1e6:.2f} | {cost.split()[0]}"
            try:
                print(f"| {label} | {trouble} | | | {cost} |", flush=True) if trouble else judge(label, out, source, held, cost)
            except Exception as e:  # a file that does not load is a result
                print(f"| {label} | {str(e).splitlines()[0]} | | | {cost} |", flush=True)


if __name__ == "__main__":
    main()
