#!/usr/bin/env python3
"""ONNX Runtime's quantizers on a language model, judged as scripts/accuracy.sh judges qonnx: same windows for calibration, same held-out tokens.

  llm_peers.py MODEL_DIR [CALIBRATION_WINDOWS [EVALUATION_WINDOWS]]

MODEL_DIR holds model.onnx, tokenizer.json, calib.txt and heldout.txt (scripts/prose.py makes the last two). Needs onnx, onnxruntime, tokenizers, numpy.
Prints perplexity, mean KL to the float model, top-1 agreement and the seconds that quantizing took.
"""
import os
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, matmul_nbits_quantizer, quantize_static
from tokenizers import Tokenizer

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


def judge(label, path, reference, held, seconds):
    loss = kl = same = n = 0
    for (w, p), (_, q) in zip(log_probabilities(reference, held), log_probabilities(path, held)):
        loss -= q[np.arange(SEQ), w[1:]].sum()
        kl += (np.exp(p) * (p - q)).sum()
        same += (p.argmax(1) == q.argmax(1)).sum()
        n += SEQ
    print(f"| {label} | {np.exp(loss / n):.3f} | {kl / n:.4f} | {100 * same / n:.1f} % | {seconds:.0f} |", flush=True)


class Reader(CalibrationDataReader):
    def __init__(self, path, calib):
        inputs = session(path).get_inputs()
        self.feeds = iter([feed(inputs, w[:SEQ]) for w in calib])

    def get_next(self):
        return next(self.feeds, None)


def int8(source, target, calib):
    quantize_static(source, target, Reader(source, calib), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax, op_types_to_quantize=["MatMul", "Gemm"], use_external_data_format=True,
                    extra_options={"ActivationSymmetric": True})


def int4(source, target, block):
    q = matmul_nbits_quantizer.MatMulNBitsQuantizer(onnx.load(source), block_size=block, is_symmetric=True)
    q.process()
    q.model.save_model_to_file(target, True)


def main():
    directory = sys.argv[1]
    calib = windows(directory, "calib.txt", int(sys.argv[2]) if len(sys.argv) > 2 else 32)
    held = windows(directory, "heldout.txt", int(sys.argv[3]) if len(sys.argv) > 3 else 20)
    source = os.path.join(directory, "model.onnx")
    print("| tool | perplexity | mean KL | same top-1 | seconds |\n|---|---|---|---|---|")
    judge("float", source, source, held, 0)
    jobs = {
        "INT4, block 32 (MatMulNBits)": lambda out: int4(source, out, 32),
        "INT4, block 128 (MatMulNBits)": lambda out: int4(source, out, 128),
        "INT8, static, max": lambda out: int8(source, out, calib),
    }
    for label, job in jobs.items():
        with tempfile.TemporaryDirectory() as tmp:
            out, start = os.path.join(tmp, "out.onnx"), time.time()
            job(out)
            judge(f"ONNX Runtime {ort.__version__} {label}", out, source, held, time.time() - start)


if __name__ == "__main__":
    main()
