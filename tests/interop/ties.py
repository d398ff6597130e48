"""ties.py --qonnx PATH MODEL SAMPLE [SAMPLES...] - where our executor and ONNX Runtime part on the same INT8 file, and why.

Quantizes MODEL with int8 (samples: the SAMPLES, or SAMPLE), exposes every value of the file, runs it on SAMPLE here and in ONNX Runtime with optimisations off and
compares the codes behind each QuantizeLinear in the graph's order. Until the first codes that differ the two agree to float rounding, so those must be
ties: x / scale within 1e-3 of a half, and one step apart. Exits 1 when they are not. Everything behind them has other inputs and may differ by any amount."""
import argparse, sys, tempfile
from pathlib import Path
import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper as nh
from interop import call, feeds, sqnr, worst

ort.set_default_logger_severity(4)
TIE = 1e-3  # of a step


def runtime(path, feed, optimise):
    o = ort.SessionOptions()
    o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL if optimise else ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    s = ort.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])
    names = [y.name for y in s.get_outputs()]
    return dict(zip(names, s.run(names, feeds(s, feed))))


def ours(qonnx, path, sample, tmp):
    call(qonnx, "run", path, "-i", sample, "-o", tmp / "out.npz", "--quiet")
    with np.load(tmp / "out.npz") as z:
        return dict(z)


def exposed(path, out):
    m = onnx.shape_inference.infer_shapes(onnx.load(path))
    have = {o.name for o in m.graph.output}
    m.graph.output.extend([v for v in m.graph.value_info if v.name not in have])
    onnx.save(m, out)
    return m


def trace(m, theirs, mine):
    """(name, codes that differ, all codes, largest distance of those from a tie in steps, most steps) of each QuantizeLinear that differs."""
    scale = {i.name: nh.to_array(i) for i in m.graph.initializer}
    for n in m.graph.node:
        if n.op_type != "QuantizeLinear" or n.output[0] not in theirs or n.input[0] not in theirs:
            continue
        steps = np.abs(theirs[n.output[0]].astype(int) - mine[n.output[0]].astype(int))
        v = theirs[n.input[0]].astype(np.float64) / float(scale[n.input[1]])
        if steps.any():
            yield n.output[0], int((steps > 0).sum()), steps.size, float(np.abs(np.abs(v - np.floor(v)) - 0.5)[steps > 0].max()), int(steps.max())


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--qonnx", required=True)
    p.add_argument("model")
    p.add_argument("sample")
    p.add_argument("calib", nargs="*")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as t:
        tmp = Path(t)
        given = [x for s in a.calib or [a.sample] for x in ("--calib", s)]
        call(a.qonnx, "quantize", a.model, "-o", tmp / "q.onnx", "--passes", "int8", *given, "--quiet", "--no-verify")
        m = exposed(tmp / "q.onnx", tmp / "all.onnx")
        with np.load(a.sample) as z:
            feed = dict(z)
        plain, fused, here = runtime(tmp / "q.onnx", feed, False), runtime(tmp / "q.onnx", feed, True), ours(a.qonnx, tmp / "q.onnx", a.sample, tmp)
        pair = lambda x, y: worst([x[k] for k in x], [y[k] for k in x])
        print(f"outputs: qonnx and ONNX Runtime {pair(plain, here):.1f} dB; ONNX Runtime with and without its fusions {pair(plain, fused):.1f} dB")
        theirs, mine = runtime(tmp / "all.onnx", feed, False), ours(a.qonnx, tmp / "all.onnx", a.sample, tmp)
        found = list(trace(m, theirs, mine))
        for name, differ, count, distance, most in found[:8]:
            print(f"  {name}: {differ} of {count} codes differ by at most {most}; x / scale within {distance:.2g} of a half; the input agrees to "
                  f"{sqnr(theirs[name_of(m, name)], mine[name_of(m, name)]):.1f} dB")
        bad = found and (found[0][3] > TIE or found[0][4] > 1)
        print("no code differs" if not found else f"{len(found)} places differ; the first is {'NOT ' if bad else ''}a tie")
        return bool(bad)


def name_of(m, output):
    return next(n.input[0] for n in m.graph.node if output in n.output)


if __name__ == "__main__":
    sys.exit(main())
