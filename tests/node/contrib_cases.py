"""The table of cases for generate_contrib.py: one function an operator family, each yielding cases with ordinary and adversarial values."""
from dataclasses import dataclass, field

import numpy as np

F, H, U8, I8, I32, I64 = np.float32, np.float16, np.uint8, np.int8, np.int32, np.int64
FLOAT, FLOAT16 = 1, 10


@dataclass
class Case:
    name: str
    op: str
    inputs: list                       # (name, array or None)
    attrs: dict = field(default_factory=dict)
    outputs: tuple = ("Y",)
    types: tuple = (FLOAT,)            # of the outputs, as TensorProto numbers
    const: tuple = ()                  # inputs that are initializers
    rtol: float = 1e-3
    atol: float = 1e-5
    numpy: bool = True                 # the definition in contrib_numpy holds for this case
    domain: str = "com.microsoft"


def rng(seed):
    return np.random.default_rng(seed)


def normal(r, *shape, dtype=F, scale=1.0):
    return (r.standard_normal(shape) * scale).astype(dtype)


def codes(r, dtype, *shape):
    i = np.iinfo(dtype)
    return r.integers(i.min, i.max + 1, shape).astype(dtype)


def s(v, dtype=F):
    return np.array(v, dtype)


def with_const(case, names, suffix="_const"):
    """The case, and the case with these inputs as initializers."""
    yield case
    given = tuple(n for n in names if any(m == n and a is not None for m, a in case.inputs))
    yield Case(**{**case.__dict__, "name": case.name + suffix, "const": given})


# ---- products ----------------------------------------------------------------------------------------------------------------

def fused_matmul():
    r = rng(1)
    shapes = {"2d": ((5, 7), (7, 3)), "batch": ((2, 3, 4, 6), (2, 3, 6, 5)), "broadcast": ((4, 6), (2, 6, 5)), "long": ((3, 300), (300, 70))}
    for name, (a, b) in shapes.items():
        for ta in (0, 1):
            for tb in (0, 1):
                sa, sb = list(a), list(b)
                if ta:
                    sa[-1], sa[-2] = sa[-2], sa[-1]
                if tb:
                    sb[-1], sb[-2] = sb[-2], sb[-1]
                yield from with_const(Case(f"fused_matmul_{name}_{ta}{tb}", "FusedMatMul", [("A", normal(r, *sa)), ("B", normal(r, *sb))], {"transA": ta, "transB": tb, "alpha": 0.37}), ("B",))
    yield Case("fused_matmul_trans_batch", "FusedMatMul", [("A", normal(r, 4, 2, 3, 6)), ("B", normal(r, 2, 3, 6, 5))], {"transBatchA": 1})
    yield Case("fused_matmul_trans_batch_both", "FusedMatMul", [("A", normal(r, 4, 2, 3, 6)), ("B", normal(r, 5, 2, 3, 6))], {"transBatchA": 1, "transBatchB": 1, "transB": 1, "alpha": 2.0})


def fused_gemm():
    r = rng(2)
    a, b, c = normal(r, 5, 8), normal(r, 8, 6), normal(r, 6)
    for act, extra in {"Relu": {}, "LeakyRelu": {"activation_alpha": 0.2}, "Sigmoid": {}, "Tanh": {}, "HardSigmoid": {"activation_alpha": 0.3, "activation_beta": 0.4}, "Elu": {"activation_alpha": 0.7}}.items():
        yield from with_const(Case(f"fused_gemm_{act.lower()}", "FusedGemm", [("A", a), ("B", b), ("C", c)], {"activation": act, **extra}), ("B", "C"))
    yield Case("fused_gemm_transposed", "FusedGemm", [("A", normal(r, 8, 5)), ("B", normal(r, 6, 8)), ("C", normal(r, 5, 6))], {"activation": "Relu", "transA": 1, "transB": 1, "alpha": 0.5, "beta": 1.5})


def integer_products():
    r = rng(3)
    for ta in (U8, I8):
        for tb in (U8, I8):
            t = f"{np.dtype(ta).name}_{np.dtype(tb).name}"
            az, bz = codes(r, ta, 1)[0], codes(r, tb, 1)[0]
            a, b = codes(r, ta, 6, 70), codes(r, tb, 70, 40)
            if ta is U8 or tb is I8:
                yield from with_const(Case(f"matmul_integer_{t}", "MatMulInteger", [("A", a), ("B", b), ("az", s(az, ta)), ("bz", s(bz, tb))], types=(6,), rtol=0, atol=0, domain="", numpy=False), ("B", "bz"))
                yield Case(f"matmul_integer_columns_{t}", "MatMulInteger", [("A", a), ("B", b), ("az", s(az, ta)), ("bz", codes(r, tb, 40))], types=(6,), rtol=0, atol=0, domain="", numpy=False)
                yield from with_const(Case(f"matmul_integer_to_float_{t}", "MatMulIntegerToFloat", [("A", a), ("B", b), ("as", s(0.013)), ("bs", s(0.021)), ("az", s(az, ta)), ("bz", s(bz, tb)), ("bias", normal(r, 40))]), ("B", "bs", "bz", "bias"))
                yield Case(f"matmul_integer_to_float_columns_{t}", "MatMulIntegerToFloat", [("A", codes(r, ta, 2, 3, 5, 33)), ("B", codes(r, tb, 33, 9)), ("as", s(0.013)), ("bs", (0.01 + r.random(9)).astype(F)), ("az", s(az, ta)), ("bz", codes(r, tb, 9)), ("bias", None)])
            if tb is I8 or ta is U8:
                yield Case(f"qgemm_{t}", "QGemm", [("A", a), ("as", s(0.013)), ("az", s(az, ta)), ("B", b), ("bs", s(0.021)), ("bz", s(bz, tb)), ("C", r.integers(-9000, 9000, 40).astype(I32)), ("ys", s(0.9)), ("yz", s(3, ta))], {"alpha": 1.3}, types=(2 if ta is U8 else 3,), rtol=0, atol=0)
                yield Case(f"qgemm_float_{t}", "QGemm", [("A", codes(r, ta, 70, 6)), ("as", s(0.013)), ("az", s(az, ta)), ("B", codes(r, tb, 40, 70)), ("bs", (0.01 + r.random(40)).astype(F)), ("bz", codes(r, tb, 40)), ("C", None)], {"transA": 1, "transB": 1})
    for tb in (U8, I8):
        b = codes(r, tb, 50, 20)
        yield from with_const(Case(f"dynamic_quantize_matmul_{np.dtype(tb).name}", "DynamicQuantizeMatMul", [("A", normal(r, 3, 4, 50)), ("B", b), ("bs", s(0.02)), ("bz", s(7, tb)), ("bias", normal(r, 20))]), ("B", "bs", "bz", "bias"))
        yield Case(f"dynamic_quantize_matmul_columns_{np.dtype(tb).name}", "DynamicQuantizeMatMul", [("A", normal(r, 7, 50, scale=100)), ("B", b), ("bs", (0.01 + r.random(20)).astype(F)), ("bz", codes(r, tb, 20)), ("bias", None)], atol=1e-2)
    yield Case("dynamic_quantize_matmul_zeros", "DynamicQuantizeMatMul", [("A", np.zeros((2, 16), F)), ("B", codes(r, I8, 16, 8)), ("bs", s(0.02)), ("bz", None), ("bias", None)])
    yield Case("qlinear_matmul_rows_columns", "QLinearMatMul", [("a", codes(r, U8, 4, 30)), ("as", s(0.01)), ("az", s(120, U8)), ("b", codes(r, I8, 30, 11)), ("bs", (0.01 + r.random(11)).astype(F)), ("bz", np.zeros(11, I8)), ("ys", s(3.1)), ("yz", s(90, U8))], types=(2,), rtol=0, atol=0, domain="", numpy=False)
    yield Case("matmul_integer16", "MatMulInteger16", [("A", codes(r, np.int16, 2, 3, 9)), ("B", codes(r, np.int16, 9, 5))], types=(6,), rtol=0, atol=0)


# ---- convolutions ---------------------------------------------------------------------------------------------------------------

def convolutions():
    r = rng(4)
    x, w, b = normal(r, 2, 4, 9, 8), normal(r, 6, 4, 3, 3, scale=0.3), normal(r, 6)
    for act, extra in {"Relu": {}, "Sigmoid": {}, "Tanh": {}, "LeakyRelu": {"activation_params": [0.1]}, "Clip": {"activation_params": [-0.4, 0.9]}, "HardSigmoid": {"activation_params": [0.2, 0.5]}}.items():
        yield from with_const(Case(f"fused_conv_{act.lower()}", "FusedConv", [("X", x), ("W", w), ("B", b)], {"activation": act, "pads": [1, 1, 1, 1], **extra}, rtol=1e-3, atol=1e-4), ("W", "B"))
    yield Case("fused_conv_residual", "FusedConv", [("X", x), ("W", w), ("B", b), ("Z", normal(r, 2, 6, 9, 8))], {"activation": "Relu", "pads": [1, 1, 1, 1]}, atol=1e-4)
    yield Case("fused_conv_groups_strides", "FusedConv", [("X", x), ("W", normal(r, 6, 2, 3, 2))], {"activation": "Relu", "group": 2, "strides": [2, 1], "dilations": [1, 2]}, atol=1e-4)
    for tx, tw in ((U8, U8), (U8, I8), (I8, I8)):
        t = f"{np.dtype(tx).name}_{np.dtype(tw).name}"
        q, k = codes(r, tx, 2, 4, 7, 6), codes(r, tw, 6, 4, 3, 3)
        args = [("x", q), ("xs", s(0.02)), ("xz", s(codes(r, tx, 1)[0], tx)), ("w", k), ("ws", s(0.03)), ("wz", s(0 if tw is I8 else 110, tw)), ("ys", s(0.8)), ("yz", s(5, tx)), ("b", r.integers(-9000, 9000, 6).astype(I32))]
        code = 2 if tx is U8 else 3
        yield from with_const(Case(f"qlinear_conv_{t}", "QLinearConv", args, {"pads": [1, 2, 0, 1], "strides": [2, 1]}, types=(code,), rtol=0, atol=0, domain="", numpy=False), ("w", "ws", "wz", "b"))
        last = [(n, a.transpose(0, 2, 3, 1).copy() if n == "x" else a) for n, a in args]
        yield from with_const(Case(f"qlinear_conv_channels_last_{t}", "QLinearConv", last, {"pads": [1, 2, 0, 1], "strides": [2, 1], "channels_last": 1}, types=(code,), rtol=0, atol=0), ("w", "ws", "wz", "b"))
    yield Case("qlinear_conv_channels", "QLinearConv", [("x", codes(r, U8, 1, 6, 5)), ("xs", s(0.02)), ("xz", s(131, U8)), ("w", codes(r, I8, 4, 3, 2)), ("ws", (0.01 + r.random(4)).astype(F)), ("wz", np.zeros(4, I8)), ("ys", s(2.0)), ("yz", s(128, U8)), ("b", None)], {"group": 2, "auto_pad": "SAME_UPPER"}, types=(2,), rtol=0, atol=0, domain="", numpy=False)
    yield from with_const(Case("conv_integer_groups", "ConvInteger", [("x", codes(r, U8, 2, 4, 6, 7)), ("w", codes(r, I8, 40, 2, 3, 2)), ("xz", s(77, U8)), ("wz", s(0, I8))], {"group": 2, "pads": [1, 0, 2, 1]}, types=(6,), rtol=0, atol=0, domain="", numpy=False), ("w", "wz"))
    yield Case("conv_integer_1d", "ConvInteger", [("x", codes(r, U8, 1, 3, 70)), ("w", codes(r, U8, 2, 3, 5)), ("xz", s(255, U8)), ("wz", s(9, U8))], types=(6,), rtol=0, atol=0, domain="", numpy=False)


FAMILIES = [fused_matmul, fused_gemm, integer_products, convolutions]


def all_cases():
    for family in FAMILIES:
        yield from family()
