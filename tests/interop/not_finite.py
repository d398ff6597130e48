"""not_finite.py --qonnx PATH - NaN, both infinities, a subnormal and a negative zero through every kind of kernel, alone and as part of what the plan fuses:
where ONNX Runtime (its optimizer off) has NaN our executor has NaN, and what is a number there is the same number. A value that has gone wrong must not
come out as a number. We may have NaN where ONNX Runtime has none: maxima keep it (so does numpy), Winograd's algorithm spreads it over a tile.
Prints a line a case; exits 1 when one fails."""
import sys
import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh
from interop import ours, run_cases, session

N = h.make_node
random = np.random.default_rng(3)
ROWS, PICTURE, TOKENS = (5, 37), (2, 4, 9, 9), (40, 64)
UNARY = "Relu Elu Selu Softplus Softsign Exp Sqrt Abs Neg Floor Ceil Round Erf HardSwish Mish Sign ThresholdedRelu Celu Sin Tanh Sigmoid LeakyRelu HardSigmoid Gelu".split()
BEHIND = "Relu LeakyRelu HardSwish HardSigmoid Sigmoid Tanh Clip".split()


def f(*dims):
    return random.standard_normal(dims).astype(np.float32)


def one(op, shape=ROWS, inits=None, **attrs):
    inits = inits or {}
    return shape, [N(op, ["x", *inits], ["y"], **attrs)], inits


def behind(op, act, shape, weight, **attrs):
    bounds = {"lo": np.float32(-0.5), "hi": np.float32(1.5)} if act == "Clip" else {}
    return shape, [N(op, ["x", "w"], ["t"], **attrs), N(act, ["t", *bounds], ["y"])], {"w": weight, **bounds}


# Written out, as exporters do: from t to y.
SILU = [N("Sigmoid", ["t"], ["s"]), N("Mul", ["t", "s"], ["y"])]
GELU = [N("Div", ["t", "root"], ["d"]), N("Erf", ["d"], ["e"]), N("Add", ["e", "one"], ["a"]), N("Mul", ["t", "a"], ["m"]), N("Mul", ["m", "half"], ["y"])]
HARDSWISH = [N("Add", ["t", "three"], ["a"]), N("Clip", ["a", "zero", "six"], ["c"]), N("Mul", ["t", "c"], ["m"]), N("Div", ["m", "six"], ["y"])]
NUMBERS = {k: np.float32(v) for k, v in {"root": 2 ** 0.5, "one": 1, "half": 0.5, "three": 3, "zero": 0, "six": 6}.items()}


def written(act, op, shape, weight, **attrs):
    used = {i for n in act for i in n.input}
    return shape, [N(op, ["x"] + ["w"] * (weight is not None), ["t"], **attrs), *act], {k: v for k, v in NUMBERS.items() if k in used} | ({} if weight is None else {"w": weight})


def cases():
    for op in UNARY:
        yield op, one(op)
    for name, act in {"SiLU": SILU, "GELU": GELU, "HardSwish": HARDSWISH}.items():
        yield f"{name} written out", written(act, "Identity", ROWS, None)
        yield f"MatMul {name} written out", written(act, "MatMul", TOKENS, f(64, 96))
        yield f"MatMul {name} written out, few rows", written(act, "MatMul", (3, 64), f(64, 96))
        yield f"Conv {name} written out", written(act, "Conv", (1, 16, 9, 9), f(16, 16, 1, 1))
        yield f"Conv {name} written out, one pixel", written(act, "Conv", (60, 3, 1, 1), f(8, 3, 3, 3), pads=[1, 1, 1, 1])
    for size in [2, 3, 5, 7]:
        yield f"MaxPool of {size}", one("MaxPool", PICTURE, kernel_shape=[size, size], pads=[size // 2] * 4)
        yield f"AveragePool of {size}", one("AveragePool", PICTURE, kernel_shape=[size, size], pads=[size // 2] * 4)
    yield "LpPool", one("LpPool", PICTURE, kernel_shape=[3, 3])
    for op in ["Max", "Min", "Pow"]:
        yield op, one(op, inits={"c": np.float32(2)})
    yield "Clip", one("Clip", inits={"lo": np.float32(-1), "hi": np.float32(1)})
    for op in ["ReduceSum", "ReduceMean", "ReduceL2", "ReduceLogSumExp", "ReduceMax"]:
        for axis in [0, 1]:
            yield f"{op} {axis}", one(op, inits={"a": np.array([axis])}, keepdims=1)
    for op in ["Softmax", "LogSoftmax"]:
        for axis in [0, 1]:
            yield f"{op} {axis}", one(op, axis=axis)
    yield "CumSum", one("CumSum", inits={"a": np.array(1)})
    yield "LayerNormalization", one("LayerNormalization", inits={"s": f(37), "b": f(37)})
    yield "InstanceNormalization", one("InstanceNormalization", PICTURE, {"s": f(4), "b": f(4)})
    yield "BatchNormalization", one("BatchNormalization", PICTURE, {"s": f(4), "b": f(4), "m": f(4), "v": abs(f(4))})
    for op in ["MaxPool", "AveragePool"]:
        yield op, one(op, PICTURE, kernel_shape=[3, 3], strides=[2, 2])
    for op in ["GlobalMaxPool", "GlobalAveragePool"]:
        yield op, one(op, PICTURE)
    for act in BEHIND:
        yield f"Conv {act}", behind("Conv", act, (2, 32, 5, 5), f(16, 32, 1, 1))
        yield f"Conv {act}, depthwise", behind("Conv", act, (1, 32, 9, 9), f(32, 1, 3, 3), group=32)
        yield f"Conv {act}, odd channels", behind("Conv", act, (1, 13, 7, 6), f(21, 13, 2, 3))
        yield f"Conv {act}, a line", behind("Conv", act, (1, 8, 30), f(12, 8, 5))
        yield f"Conv {act}, groups", behind("Conv", act, (1, 8, 6, 6), f(12, 4, 3, 3), group=2)
        yield f"Conv {act}, Winograd", behind("Conv", act, (1, 32, 20, 20), f(48, 32, 3, 3), pads=[1, 1, 1, 1])
        yield f"ConvTranspose {act}", behind("ConvTranspose", act, (1, 4, 7, 7), f(4, 6, 3, 3), strides=[2, 2])
        yield f"MatMul {act}", behind("MatMul", act, TOKENS, f(64, 96))
        yield f"MatMul {act}, few rows", behind("MatMul", act, (3, 64), f(64, 96))
    yield "root mean square", (ROWS, [N("Mul", ["x", "x"], ["q"]), N("ReduceMean", ["q", "a"], ["m"]), N("Add", ["m", "e"], ["n"]), N("Sqrt", ["n"], ["r"]), N("Div", ["x", "r"], ["d"]), N("Mul", ["d", "s"], ["y"])],
                               {"a": np.array([-1]), "e": np.float32(1e-5), "s": f(37)})
    yield "attention", ((3, 20, 32), [N("MatMul", ["x", "w"], ["q"]), N("Transpose", ["q"], ["k"], perm=[0, 2, 1]), N("MatMul", ["q", "k"], ["s"]), N("Mul", ["s", "c"], ["t"]), N("Softmax", ["t"], ["p"], axis=-1),
                                      N("MatMul", ["p", "q"], ["y"])], {"w": f(32, 32), "c": np.float32(0.17)})


def feeds(shape, place):
    x = f(*shape)
    flat = x.ravel()
    flat[7 + place], flat[40 + place], flat[-20 - place], flat[60], flat[61] = np.nan, np.inf, -np.inf, 1e-42, -0.0
    return x


def one_case(qonnx, folder, _, shape, nodes, inits):
    g = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, shape)], [h.make_empty_tensor_value_info("y")], [nh.from_array(np.asarray(v), k) for k, v in inits.items()])
    path, sample = folder / "m.onnx", folder / "x.npz"
    onnx.save(h.make_model(g, opset_imports=[h.make_opsetid("", 20)], ir_version=9), path)
    judge = session(path, True, optimize=False)
    for place in range(3):  # of a vector
        x = feeds(shape, place)
        np.savez(sample, x=x)
        got, want = ours(qonnx, path, sample, ["y"], folder)[0], judge.run(None, {"x": x})[0]
        lost, both = np.isnan(want) & ~np.isnan(got), ~np.isnan(want) & ~np.isnan(got)
        assert not lost.any(), f"{lost.sum()} of {np.isnan(want).sum()} NaN became numbers"
        assert both.any() or want.size == 1, "everything is NaN"
        np.testing.assert_allclose(got[both], want[both], rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    sys.exit(run_cases(((name, *case) for name, case in cases()), one_case))
