"""squares.py --qonnx PATH - fp8-weights(block=B,rows=R): one scale for R output channels and B of the contraction, by NumPy and ONNX Runtime.

The stored scales are the largest values over 448, the codes what they round to, with sizes that B and R do not divide; GPTQ keeps the scales and lowers the error of the
output; ONNX Runtime computes what our executor computes. Prints a line a row; exits 1 when one fails."""
import sys
import numpy as np
import ml_dtypes
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh
from interop import call, ours, run_cases, session, sqnr

random = np.random.default_rng(5)


def squares(w, block, rows):
    """Scales [lines, blocks] of w [n, k], and each element's."""
    n, k = w.shape
    s = np.array([[np.abs(w[i:i + rows, j:j + block]).max() / np.float32(448) for j in range(0, k, block)] for i in range(0, n, rows)], np.float32)
    return s, np.repeat(np.repeat(s, rows, 0)[:n], block, 1)[:, :k]


def one(qonnx, folder, name, n, k, block, rows, gemm):
    w, x = (random.standard_normal((n, k)) * np.exp(random.standard_normal((n, 1)))).astype(np.float32), random.standard_normal((2048, k)).astype(np.float32)
    x += 3 * random.standard_normal((2048, 4)).astype(np.float32) @ random.standard_normal((4, k)).astype(np.float32)
    node = h.make_node("Gemm", ["x", "w"], ["y"], name="/a/Gemm", transB=1) if gemm else h.make_node("MatMul", ["x", "w"], ["y"], name="/a/MatMul")
    onnx.save(h.make_model(h.make_graph([node], "g", [h.make_tensor_value_info("x", T.FLOAT, ["b", k])], [h.make_tensor_value_info("y", T.FLOAT, ["b", n])],
                                        [nh.from_array(w if gemm else np.ascontiguousarray(w.T), "w")]), opset_imports=[h.make_opsetid("", 17)], ir_version=8), folder / "f.onnx")
    np.savez(folder / "x.npz", x=x)
    s, each = squares(w, block, rows)
    rounded = np.clip(w / each, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * each
    want, plain = x.astype(np.float64) @ w.T, x.astype(np.float64) @ rounded.T
    bad, scales = [], {}
    for passes in ("fp8-weights", "gptq,fp8-weights"):
        out = folder / "q.onnx"
        call(qonnx, "quantize", folder / "f.onnx", "-o", out, "--force", "--passes", f"{passes}(block={block},rows={rows})", "--calib", folder / "x.npz")
        model = onnx.load(out)
        onnx.checker.check_model(model, full_check=True)
        scales = nh.to_array(next(i for i in model.graph.initializer if i.name == "w_scale"))
        if not np.array_equal(scales, s):
            bad.append(f"{passes}: other scales")
        y = ours(qonnx, out, folder / "x.npz", ["y"], folder)[0]
        theirs = session(out, False).run(None, {"x": x})[0]
        if sqnr(theirs, y) < 110:
            bad.append(f"{passes}: {sqnr(theirs, y):.1f} dB of ONNX Runtime")
        if passes == "fp8-weights" and sqnr(plain, y) < 110:
            bad.append(f"{sqnr(plain, y):.1f} dB of NumPy")
        if passes != "fp8-weights" and sqnr(want, y) < sqnr(want, plain) + 1:
            bad.append(f"gptq {sqnr(want, y):.1f} dB, rounding {sqnr(want, plain):.1f}")
    return bad


if __name__ == "__main__":
    sys.exit(run_cases([("whole", 256, 256, 128, 128, False), ("whole [n,k]", 256, 256, 128, 128, True), ("edges", 200, 168, 64, 48, False), ("edges [n,k]", 72, 160, 128, 128, True),
                        ("one square", 24, 32, 128, 128, False)], one))
