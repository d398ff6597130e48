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


# ---- recurrences ---------------------------------------------------------------------------------------------------------------

def recurrences():
    """LSTM as ONNX Runtime's dynamic quantizer writes it. A state on the border of two codes moves what follows by less than atol."""
    r = rng(31)
    for name, dirs, per, t, seq, batch, more in (("", 1, 0, I8, 4, 1, {}), ("_columns", 1, 1, I8, 4, 3, {}), ("_uint8", 1, 0, U8, 70, 2, {}), ("_reverse", 1, 1, U8, 4, 2, {"direction": "reverse"}),
                                                 ("_both", 2, 0, I8, 4, 2, {"direction": "bidirectional"}), ("_both_columns", 2, 1, U8, 4, 9, {"direction": "bidirectional", "clip": 1.5})):
        i, hidden = 13, 20
        shape = (dirs, 4 * hidden) if per else (dirs,)
        zero = lambda: np.full(shape, 125 if t is U8 else 0 if per else 3).astype(t)  # ONNX Runtime takes no others a column
        states = [("lens", r.integers(1, seq + 1, batch).astype(I32)), ("h0", normal(r, dirs, batch, hidden, scale=0.4)), ("c0", normal(r, dirs, batch, hidden)), ("P", normal(r, dirs, 3 * hidden, scale=0.3))]
        for given in (False, True):
            yield Case(f"dynamic_quantize_lstm{name}{'_states' * given}", "DynamicQuantizeLSTM",
                       [("X", normal(r, seq, batch, i)), ("W", codes(r, t, dirs, i, 4 * hidden)), ("R", codes(r, t, dirs, hidden, 4 * hidden)), ("B", normal(r, dirs, 8 * hidden, scale=0.2))]
                       + (states if given else [(n, None) for n, _ in states])
                       + [("ws", (0.004 + 0.004 * r.random(shape)).astype(F)), ("wz", zero()), ("rs", (0.002 + 0.002 * r.random(shape)).astype(F)), ("rz", zero())],
                       {"hidden_size": hidden, **more}, outputs=("Y", "Yh", "Yc"), types=(1, 1, 1), const=("W", "R", "B", "ws", "wz", "rs", "rz"), atol=4e-3, numpy=False)


# ---- convolutions ---------------------------------------------------------------------------------------------------------------

def convolutions():
    r = rng(4)
    x, w, b = normal(r, 2, 4, 9, 8), normal(r, 6, 4, 3, 3, scale=0.3), normal(r, 6)
    for act, extra in {"Relu": {}, "Sigmoid": {}, "Tanh": {}, "LeakyRelu": {"activation_params": [0.1]}, "Clip": {"activation_params": [-0.4, 0.9]}, "HardSigmoid": {"activation_params": [0.2, 0.5]}}.items():
        yield from with_const(Case(f"fused_conv_{act.lower()}", "FusedConv", [("X", x), ("W", w), ("B", b)], {"activation": act, "pads": [1, 1, 1, 1], **extra}, rtol=1e-3, atol=1e-4), ("W", "B"))
    yield Case("fused_conv_residual", "FusedConv", [("X", x), ("W", w), ("B", b), ("Z", normal(r, 2, 6, 9, 8))], {"activation": "Relu", "pads": [1, 1, 1, 1]}, atol=1e-4)
    yield Case("fused_conv_groups_strides", "FusedConv", [("X", x), ("W", normal(r, 6, 2, 3, 2))], {"activation": "Relu", "group": 2, "strides": [2, 1], "dilations": [1, 2]}, atol=1e-4)
    last = [("X", normal(r, 2, 9, 8, 4)), ("W", normal(r, 6, 2, 3, 2, scale=0.3)), ("B", b)]
    turned = [last[0], ("W", last[1][1].transpose(0, 2, 3, 1).copy()), last[2]]  # as ONNX Runtime's optimizer writes it
    yield from with_const(Case("nhwc_conv", "NhwcConv", turned, {"group": 2, "pads": [1, 0, 1, 2], "strides": [2, 1]}, atol=1e-4), ("W", "B"))
    yield Case("nhwc_fused_conv", "NhwcFusedConv", [*last, ("Z", normal(r, 2, 9, 9, 6))], {"group": 2, "pads": [1, 0, 1, 2], "activation": "Relu"}, atol=1e-4)
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


# ---- pointwise and normalisation ------------------------------------------------------------------------------------------------

WILD = np.array([[0.0, -0.0, 1e-40, -1e-40, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, 1.0, -1.0, 88.0, -88.0, 0.5, 1e-8, 700.0]], F)


def bias_and_gelu():
    r = rng(5)
    x, b = normal(r, 2, 3, 40, scale=3), normal(r, 40)
    yield Case("bias_gelu", "BiasGelu", [("A", x), ("B", b)])
    yield Case("bias_gelu_wild", "BiasGelu", [("A", WILD), ("B", np.zeros(16, F))], numpy=False)
    yield Case("fast_gelu", "FastGelu", [("X", x), ("bias", None)])
    yield Case("fast_gelu_bias", "FastGelu", [("X", x), ("bias", b)])
    yield Case("gelu", "Gelu", [("X", x)])
    yield Case("quick_gelu", "QuickGelu", [("X", x)], {"alpha": 1.5})
    yield Case("bias_add", "BiasAdd", [("X", x), ("bias", b), ("skip", normal(r, 2, 3, 40))])
    yield Case("bias_split_gelu", "BiasSplitGelu", [("X", x), ("bias", b)])
    yield Case("bias_split_gelu_half", "BiasSplitGelu", [("X", x.astype(H)), ("bias", b.astype(H))], types=(FLOAT16,), rtol=2e-3, atol=2e-3)
    for act in ("silu", "sigmoid", "swish"):
        yield Case(f"gated_rms_norm_{act}", "GatedRMSNorm", [("X", x), ("scale", normal(r, 20)), ("gate", normal(r, 2, 3, 40))], {"activation": act, "epsilon": 1e-6})
    for inner in (0, 1):
        bias = normal(r, 2, 1, 1, 6) if inner else normal(r, 4, 5, 6)
        yield Case(f"bias_softmax_{inner}", "BiasSoftmax", [("data", normal(r, 2, 4, 5, 6)), ("bias", bias)], {"axis": 3, "is_inner_broadcast": inner}, outputs=("Y",))


def normalisations():
    r = rng(6)
    x = normal(r, 2, 5, 32)
    for simple in (False, True):
        op = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
        beta = [] if simple else [("beta", normal(r, 32))]
        out, types = ("Y", "", "", "sum"), (FLOAT, FLOAT, FLOAT, FLOAT)
        base = [("x", x), ("skip", normal(r, 2, 5, 32)), ("gamma", normal(r, 32)), *beta]
        yield Case(f"{op}_bias", op, [*base, ("bias", normal(r, 32))], {"epsilon": 1e-6}, outputs=out, types=types)
        yield Case(f"{op}_plain", op, base, {"epsilon": 1e-5})
        yield Case(f"{op}_shared_skip", op, [("x", x), ("skip", normal(r, 1, 5, 32)), ("gamma", normal(r, 32)), *beta], {"epsilon": 1e-5})
        yield Case(f"{op}_2d_skip", op, [("x", x), ("skip", normal(r, 5, 32)), ("gamma", normal(r, 32)), *beta], {"epsilon": 1e-5})
    for last in (0, 1):
        p = normal(r, 2, 4, 3, 8) if last else normal(r, 2, 8, 4, 3)
        for act in (0, 1):
            yield Case(f"group_norm_{last}{act}", "GroupNorm", [("X", p), ("gamma", normal(r, 8)), ("beta", normal(r, 8))], {"groups": 4, "activation": act, "channels_last": last, "epsilon": 1e-5})
    for name, skip in {"full": (2, 4, 3, 8), "pixel": (2, 1, 1, 8), "flat": (2, 8)}.items():
        yield Case(f"skip_group_norm_{name}", "SkipGroupNorm", [("X", normal(r, 2, 4, 3, 8)), ("gamma", normal(r, 8)), ("beta", normal(r, 8)), ("skip", normal(r, *skip)), ("bias", normal(r, 8))], {"groups": 2, "activation": 1}, outputs=("Y", "S"), types=(FLOAT, FLOAT))
    ids, seg, pos = r.integers(0, 11, (2, 5)).astype(I32), r.integers(0, 2, (2, 5)).astype(I32), np.arange(4, -1, -1, dtype=I32).reshape(1, 5)
    tables = [("word", normal(r, 11, 24)), ("position", normal(r, 9, 24)), ("segment", normal(r, 2, 24)), ("gamma", normal(r, 24)), ("beta", normal(r, 24))]
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], I32)
    yield Case("embed_layer_norm", "EmbedLayerNormalization", [("ids", ids), ("segments", seg), *tables, ("mask", mask)], {"epsilon": 1e-6}, outputs=("Y", "mask_index"), types=(FLOAT, 6))
    yield Case("embed_layer_norm_sum", "EmbedLayerNormalization", [("ids", ids), ("segments", seg), *tables, ("mask", mask), ("positions", np.repeat(pos, 2, 0))], outputs=("Y", "mask_index", "sum"), types=(FLOAT, 6, FLOAT))
    yield Case("embed_layer_norm_no_segments", "EmbedLayerNormalization", [("ids", ids), ("segments", None), tables[0], tables[1], ("segment", None), tables[3], tables[4], ("mask", None), ("positions", pos)], outputs=("Y", "mask_index"), types=(FLOAT, 6))


# ---- QLinear without products ------------------------------------------------------------------------------------------------------

def qlinear():
    r = rng(7)
    for t in (U8, I8):
        n, code = np.dtype(t).name, 2 if t is U8 else 3
        z = lambda v: s(v if t is U8 else v - 128, t)
        every = np.arange(256).astype(U8).view(t).reshape(2, 128)
        exact = dict(types=(code,), rtol=0, atol=0)
        tie = dict(types=(code,), rtol=0, atol=1.01)  # a different order of operations in float may fall to the other side of a tie
        for ys in (0.0039, 0.05):
            yield Case(f"qlinear_sigmoid_{n}_{ys}", "QLinearSigmoid", [("X", every), ("xs", s(0.051)), ("xz", z(140)), ("ys", s(ys)), ("yz", z(3))], **exact)
            yield Case(f"qlinear_leaky_relu_{n}_{ys}", "QLinearLeakyRelu", [("X", every), ("xs", s(0.051)), ("xz", z(140)), ("ys", s(ys)), ("yz", z(90))], {"alpha": 0.13}, **exact)
        for op in ("QLinearAdd", "QLinearMul"):
            a, b = codes(r, t, 3, 4, 50), codes(r, t, 3, 4, 50)
            tail = [("ys", s(0.11)), ("yz", z(77))]
            yield Case(f"{op}_{n}", op, [("A", a), ("as", s(0.031)), ("az", z(120)), ("B", b), ("bs", s(0.047)), ("bz", z(133)), *tail], **tie)
            yield Case(f"{op}_broadcast_{n}", op, [("A", a), ("as", s(0.031)), ("az", z(120)), ("B", codes(r, t, 4, 1)), ("bs", s(0.047)), ("bz", z(133)), *tail], **tie)
            yield Case(f"{op}_scalar_{n}", op, [("A", codes(r, t, 1)), ("as", s(0.031)), ("az", z(120)), ("B", b), ("bs", s(0.047)), ("bz", z(0)), *tail], **tie)
            yield Case(f"{op}_saturate_{n}", op, [("A", a), ("as", s(9.0)), ("az", z(120)), ("B", b), ("bs", s(7.0)), ("bz", z(133)), ("ys", s(0.001)), ("yz", z(255))], **tie)
        for last in (0, 1):
            x = codes(r, t, 2, 5, 7, 6)
            yield Case(f"qlinear_global_pool_{n}_{last}", "QLinearGlobalAveragePool", [("X", x), ("xs", s(0.04)), ("xz", z(99)), ("ys", s(0.021)), ("yz", z(150))], {"channels_last": last}, **tie)
            for name, a in {"plain": {}, "pads": {"pads": [1, 0, 1, 1]}, "counted": {"pads": [1, 1, 1, 1], "count_include_pad": 1}, "ceil": {"strides": [2, 2], "ceil_mode": 1}}.items():
                yield Case(f"qlinear_pool_{name}_{n}_{last}", "QLinearAveragePool", [("X", x), ("xs", s(0.04)), ("xz", z(99)), ("ys", s(0.031)), ("yz", z(150))], {"kernel_shape": [3, 2], "channels_last": last, **a}, **tie)
        for axis in (0, 2):
            shapes = [list((3, 2, 4)) for _ in range(3)]
            for i, sh in enumerate(shapes):
                sh[axis] = i + 1
            parts = [x for i, sh in enumerate(shapes) for x in ((f"x{i}", codes(r, t, *sh)), (f"s{i}", s(0.02 + 0.013 * i)), (f"z{i}", z(100 + 9 * i)))]
            yield Case(f"qlinear_concat_{n}_{axis}", "QLinearConcat", [("ys", s(0.033)), ("yz", z(111)), *parts], {"axis": axis}, **tie)
        for opset, axis in ((12, 1), (13, 1), (13, -1)):
            yield Case(f"qlinear_softmax_{n}_{opset}_{axis}", "QLinearSoftmax", [("X", codes(r, t, 3, 4, 9)), ("xs", s(0.07)), ("xz", z(128)), ("ys", s(1 / 256)), ("yz", z(0))], {"opset": opset, "axis": axis}, **tie)
        yield Case(f"qlinear_where_{n}", "QLinearWhere", [("C", r.integers(0, 2, (3, 1)).astype(bool)), ("X", codes(r, t, 3, 6)), ("xs", s(0.04)), ("xz", z(99)), ("Y", codes(r, t, 6)), ("ys", s(0.07)), ("yz", z(140)), ("zs", s(0.05)), ("zz", z(120))], outputs=("Z",), **tie)
        for keep in (0, 1):
            yield Case(f"qlinear_reduce_mean_{n}_{keep}", "QLinearReduceMean", [("X", codes(r, t, 3, 4, 5)), ("xs", s(0.04)), ("xz", z(99)), ("ys", s(0.02)), ("yz", z(120))], {"axes": [0, 2], "keepdims": keep}, **tie)
        yield Case(f"nhwc_max_pool_{n}", "NhwcMaxPool", [("X", codes(r, t, 2, 7, 6, 5))], {"kernel_shape": [3, 2], "pads": [1, 0, 0, 1], "strides": [2, 1]}, **exact)


# ---- attention -------------------------------------------------------------------------------------------------------------------------

def multi_head_attention():
    r = rng(8)
    B, S, L, N, D, V = 2, 5, 7, 3, 8, 6
    q, k, v = normal(r, B, S, N * D), normal(r, B, L, N * D), normal(r, B, L, N * D)
    qs, ks, vs = (normal(r, B, S, N * D) for _ in range(3))
    bias = ("bias", normal(r, 3 * N * D))
    a, none = {"num_heads": N}, ("bias", None)
    yield Case("mha_cross", "MultiHeadAttention", [("q", q), ("k", k), ("v", v)], a)
    yield Case("mha_scale", "MultiHeadAttention", [("q", q), ("k", k), ("v", v)], {**a, "scale": 0.2})
    yield Case("mha_bias", "MultiHeadAttention", [("q", q), ("k", k), ("v", v), bias], a)
    yield Case("mha_wide_values", "MultiHeadAttention", [("q", q), ("k", k), ("v", normal(r, B, L, N * V))], a)
    yield Case("mha_packed_kv", "MultiHeadAttention", [("q", q), ("k", normal(r, B, L, N, 2, D))], a)
    yield Case("mha_packed_qkv", "MultiHeadAttention", [("q", normal(r, B, S, N, 3, D))], a)
    yield Case("mha_heads_first", "MultiHeadAttention", [("q", q), ("k", normal(r, B, N, L, D)), ("v", normal(r, B, N, L, D))], a)
    yield Case("mha_causal", "MultiHeadAttention", [("q", qs), ("k", ks), ("v", vs)], {**a, "unidirectional": 1})
    for name, m in {"flat": np.array([[1, 1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 1, 1, 1]], I32), "ends": np.array([3, 7], I32), "full": r.integers(0, 2, (B, S, L)).astype(I32) | np.eye(S, L, dtype=I32)}.items():
        yield Case(f"mha_mask_{name}", "MultiHeadAttention", [("q", q), ("k", k), ("v", v), none, ("mask", m)], a)
        yield Case(f"mha_mask_and_bias_{name}", "MultiHeadAttention", [("q", q), ("k", k), ("v", v), bias, ("mask", m), ("ab", normal(r, 1, N, S, L))], a)
    for b, n in ((1, 1), (B, 1), (1, N), (B, N)):
        yield Case(f"mha_attention_bias_{b}{n}", "MultiHeadAttention", [("q", q), ("k", k), ("v", v), none, ("mask", None), ("ab", normal(r, b, n, S, L))], a)
    past = [("pk", normal(r, B, N, 4, D)), ("pv", normal(r, B, N, 4, D))]
    three = dict(outputs=("Y", "pko", "pvo"), types=(FLOAT, FLOAT, FLOAT))
    yield Case("mha_present", "MultiHeadAttention", [("q", qs), ("k", ks), ("v", vs)], a, **three)
    yield Case("mha_past", "MultiHeadAttention", [("q", qs), ("k", ks), ("v", vs), none, ("mask", None), ("ab", None), *past], a, **three)
    yield Case("mha_past_causal_bias", "MultiHeadAttention", [("q", qs), ("k", ks), ("v", vs), bias, ("mask", None), ("ab", normal(r, B, N, S, S + 4)), *past], {**a, "unidirectional": 1}, **three)
    yield Case("mha_decode", "MultiHeadAttention", [("q", qs[:, :1].copy()), ("k", ks[:, :1].copy()), ("v", vs[:, :1].copy()), none, ("mask", None), ("ab", None), *past], {**a, "unidirectional": 1}, **three)
    yield Case("mha_one_token", "MultiHeadAttention", [("q", normal(r, 1, 1, 4)), ("k", normal(r, 1, 1, 4)), ("v", normal(r, 1, 1, 4))], {"num_heads": 1})
    yield Case("mha_long", "MultiHeadAttention", [("q", normal(r, 1, 130, 64)), ("k", normal(r, 1, 300, 64)), ("v", normal(r, 1, 300, 64))], {"num_heads": 2}, atol=1e-4)


def attention():
    r = rng(9)
    B, S, I, N, D = 2, 5, 12, 3, 8
    x, w, b = normal(r, B, S, I), normal(r, I, 3 * N * D, scale=0.3), normal(r, 3 * N * D)
    a = {"num_heads": N}
    base = [("x", x), ("w", w), ("b", b)]
    yield from with_const(Case("attention", "Attention", base, a), ("w", "b"))
    yield Case("attention_causal", "Attention", base, {**a, "unidirectional": 1})
    yield Case("attention_sizes", "Attention", [("x", x), ("w", normal(r, I, 2 * N * D + N * 4)), ("b", normal(r, 2 * N * D + N * 4))], {**a, "qkv_hidden_sizes": [N * D, N * D, N * 4]})
    for name, m in {"flat": np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]], I32), "ends": np.array([3, 5], I32), "starts": np.array([4, 5, 1, 0], I32), "full": r.integers(0, 2, (B, S, S)).astype(I32) | np.eye(S, dtype=I32)}.items():
        yield Case(f"attention_mask_{name}", "Attention", [*base, ("m", m)], a)
        yield Case(f"attention_mask_causal_{name}", "Attention", [*base, ("m", m)], {**a, "unidirectional": 1}) if name != "starts" else Case("attention_filter", "Attention", [*base, ("m", m)], {**a, "mask_filter_value": -3.0})
    yield Case("attention_bias", "Attention", [*base, ("m", None), ("past", None), ("ab", normal(r, 1, N, S, S))], a)
    two = dict(outputs=("Y", "present"), types=(FLOAT, FLOAT))
    past = ("past", normal(r, 2, B, N, 4, D))
    yield Case("attention_past", "Attention", [*base, ("m", None), past], a, **two)
    yield Case("attention_past_causal_mask", "Attention", [*base, ("m", np.array([[0, 1, 1, 1, 1, 1, 1, 0, 0]] * B, I32)), past], {**a, "unidirectional": 1}, **two)
    yield Case("attention_present", "Attention", base, {**a, "unidirectional": 1}, **two)
    for tx, tw in ((U8, U8), (U8, I8), (I8, I8)):
        t = f"{np.dtype(tx).name}_{np.dtype(tw).name}"
        q = [("x", codes(r, tx, B, S, I)), ("w", codes(r, tw, I, 3 * N * D)), ("b", b), ("xs", s(0.01)), ("ws", s(0.007)), ("m", None), ("xz", s(codes(r, tx, 1)[0], tx)), ("wz", s(codes(r, tw, 1)[0], tw))]
        yield from with_const(Case(f"qattention_{t}", "QAttention", q, a, atol=1e-4), ("w", "b", "ws", "wz", "xs", "xz"))
        yield Case(f"qattention_past_{t}", "QAttention", [*q[:5], ("m", None), *q[6:], past], {**a, "unidirectional": 1}, atol=1e-4, **two)


# ---- mixtures of experts ----------------------------------------------------------------------------------------------------------------

def moe():
    r = rng(10)
    T, E, HID, INT = 9, 4, 32, 48
    x, probs = normal(r, T, HID), normal(r, T, E)
    w1, w2, w3 = normal(r, E, INT, HID, scale=0.2), normal(r, E, HID, INT, scale=0.2), normal(r, E, INT, HID, scale=0.2)
    b1, b2 = normal(r, E, INT), normal(r, E, HID)
    for act in ("relu", "gelu", "silu", "identity"):
        yield from with_const(Case(f"moe_{act}", "MoE", [("x", x), ("p", probs), ("w1", w1), ("b1", b1), ("w2", w2), ("b2", b2)], {"k": 2, "activation_type": act}), ("w1", "w2", "b1", "b2"))
    yield Case("moe_normalized", "MoE", [("x", x.reshape(3, 3, HID)), ("p", probs), ("w1", w1), ("b1", None), ("w2", w2)], {"k": 2, "normalize_routing_weights": 1, "activation_type": "silu"})
    yield Case("moe_gated", "MoE", [("x", x), ("p", probs), ("w1", w1), ("b1", b1), ("w2", w2), ("b2", b2), ("w3", w3)], {"k": 3, "activation_type": "silu", "normalize_routing_weights": 1})
    yield Case("moe_one", "MoE", [("x", x[:1]), ("p", probs[:1]), ("w1", w1), ("b1", b1), ("w2", w2), ("b2", b2)], {"k": 1})
    wide, wide_b = normal(r, E, 2 * INT, HID, scale=0.2), normal(r, E, 2 * INT)
    swiglu = {"k": 2, "activation_type": "swiglu", "activation_alpha": 1.702, "activation_beta": 1.0, "swiglu_limit": 1.5, "normalize_routing_weights": 1}
    yield Case("moe_swiglu_interleaved", "MoE", [("x", x), ("p", probs), ("w1", wide), ("b1", wide_b), ("w2", w2), ("b2", b2)], {**swiglu, "swiglu_fusion": 1})
    yield Case("moe_swiglu_halves", "MoE", [("x", x), ("p", probs), ("w1", wide), ("b1", wide_b), ("w2", w2), ("b2", b2)], {**swiglu, "swiglu_fusion": 2})
    for bits in (4, 8):
        q = lambda n, k: r.integers(0, 256, (E, n, k * bits // 8)).astype(U8)
        sc = lambda *shape: ((0.5 + r.random(shape)) * 0.3 / 2 ** bits).astype(F)
        args = [("x", x), ("p", probs), ("w1", q(2 * INT, HID)), ("s1", sc(E, 2 * INT)), ("b1", wide_b), ("w2", q(HID, INT)), ("s2", sc(E, HID)), ("b2", b2)]
        common = {**swiglu, "swiglu_fusion": 1, "expert_weight_bits": bits, "weights_prepacked": 0}
        yield from with_const(Case(f"qmoe_{bits}", "QMoE", args, common, rtol=1e-2, atol=1e-2), ("w1", "s1", "b1", "w2", "s2", "b2"))
        blocks = [("x", x), ("p", probs), ("w1", q(2 * INT, HID)), ("s1", sc(E, 2 * INT, HID // 16)), ("b1", wide_b), ("w2", q(HID, INT)), ("s2", sc(E, HID, INT // 16)), ("b2", b2)]
        yield Case(f"qmoe_blocks_{bits}", "QMoE", blocks, {**common, "block_size": 16}, rtol=1e-2, atol=1e-2)
        zeros = [("b2", b2), ("w3", None), ("s3", None), ("b3", None), ("z1", r.integers(0, 256, (E, 2 * INT, (HID // 16 * bits + 7) // 8)).astype(U8)), ("z2", r.integers(0, 256, (E, HID, (INT // 16 * bits + 7) // 8)).astype(U8))]
        yield Case(f"qmoe_zero_points_{bits}", "QMoE", [*blocks[:-1], *zeros], {**common, "block_size": 16}, rtol=1e-2, atol=1e-2)


# ---- grouped attention --------------------------------------------------------------------------------------------------------------------

def grouped_query_attention():
    r = rng(11)
    B, S, N, K, D, P = 2, 5, 4, 2, 16, 6
    angles = np.outer(np.arange(40), 1 / 10000 ** (np.arange(D // 2) / (D // 2)))
    cos, sin = ("cos", np.cos(angles).astype(F)), ("sin", np.sin(angles).astype(F))
    a = {"num_heads": N, "kv_num_heads": K}
    out = dict(outputs=("Y", "pk", "pv"), types=(FLOAT, FLOAT, FLOAT))
    none = [("past_k", None), ("past_v", None)]

    def qkv(b, s_):
        return [("q", normal(r, b, s_, N * D)), ("k", normal(r, b, s_, K * D)), ("v", normal(r, b, s_, K * D))]

    def lengths(n, total):
        return [("len", np.array(n, I32) - 1), ("total", s(total, I32))]

    def cache(b, n):
        return [("past_k", normal(r, b, K, n, D)), ("past_v", normal(r, b, K, n, D))]

    yield Case("gqa_prompt", "GroupQueryAttention", [*qkv(B, S), *none, *lengths([S] * B, S)], a, **out)
    for inter in (0, 1):
        yield Case(f"gqa_prompt_rotary_{inter}", "GroupQueryAttention", [*qkv(B, S), *none, *lengths([S] * B, S), cos, sin], {**a, "do_rotary": 1, "rotary_interleaved": inter}, **out)
        yield Case(f"gqa_decode_rotary_{inter}", "GroupQueryAttention", [*qkv(B, 1), *cache(B, P), *lengths([P + 1] * B, P + 1), cos, sin], {**a, "do_rotary": 1, "rotary_interleaved": inter}, **out)
    yield Case("gqa_packed", "GroupQueryAttention", [("qkv", normal(r, B, S, (N + 2 * K) * D)), ("k", None), ("v", None), *none, *lengths([S] * B, S), cos, sin], {**a, "do_rotary": 1}, **out)
    yield Case("gqa_continue", "GroupQueryAttention", [*qkv(1, 3), *cache(1, P), *lengths([P + 3], P + 3)], a, **out)
    yield Case("gqa_softcap", "GroupQueryAttention", [*qkv(B, S), *none, *lengths([S] * B, S)], {**a, "softcap": 0.7}, **out)
    yield Case("gqa_scale", "GroupQueryAttention", [*qkv(B, S), *none, *lengths([S] * B, S)], {**a, "scale": 0.11}, **out)
    for window in (1, 3, 20):
        yield Case(f"gqa_window_{window}", "GroupQueryAttention", [*qkv(B, S), *none, *lengths([S] * B, S)], {**a, "local_window_size": window}, **out)
        yield Case(f"gqa_window_decode_{window}", "GroupQueryAttention", [*qkv(B, 1), *cache(B, P), *lengths([P + 1] * B, P + 1)], {**a, "local_window_size": window}, **out)
    full = {**a, "local_window_size": 3, "sliding_window_cache": 1}  # until the buffer is full: nothing wraps around
    yield Case("gqa_window_cache", "GroupQueryAttention", [*qkv(1, S), *cache(1, S), *lengths([S], S)], full, **out)
    yield Case("gqa_window_cache_decode", "GroupQueryAttention", [*qkv(B, 1), *cache(B, P + 1), *lengths([P + 1] * B, P + 1)], full, **out)
    # behind the capacity, where the rows that ONNX Runtime leaves as they were are none: 8 and 11 tokens in a cache of 5, any number in one of 3
    for rows, cap, total in ((1, 5, 8), (1, 5, 11), (4, 5, 8), (7, 5, 11), (1, 3, 9), (5, 3, 12), (8, 5, 8)):
        name, b = f"gqa_window_turned_{rows}_{cap}_{total}", 1 if rows > 1 else B
        yield Case(name, "GroupQueryAttention", [*qkv(b, rows), *cache(b, cap), *lengths([total] * b, total), cos, sin], {**full, "do_rotary": 1}, **out)
        yield Case(name + "_bias", "GroupQueryAttention", [*qkv(b, rows), *cache(b, cap), *lengths([total] * b, total), ("cos", None), ("sin", None), ("pos", None), ("bias", normal(r, 1, N, rows, total))], full, **out)
    yield Case("gqa_window_turned_ragged", "GroupQueryAttention", [*qkv(B, 1), *cache(B, 5), *lengths([8, 11], 11), cos, sin], {**full, "do_rotary": 1}, **out)
    yield Case("gqa_smooth", "GroupQueryAttention", [*qkv(B, S), *none, *lengths([S] * B, S)], {**a, "smooth_softmax": 1}, **out)
    seven = [("cos", None), ("sin", None), ("pos", None)]
    yield Case("gqa_sink", "GroupQueryAttention", [*qkv(B, S), *none, *lengths([S] * B, S), *seven, ("bias", None), ("sink", normal(r, N))], a, **out)
    for b, n in ((1, 1), (B, N)):
        yield Case(f"gqa_bias_{b}{n}", "GroupQueryAttention", [*qkv(B, S), *none, *lengths([S] * B, S), *seven, ("bias", normal(r, b, n, S, S))], a, **out)
    yield Case("gqa_bias_decode", "GroupQueryAttention", [*qkv(B, 1), *cache(B, P), *lengths([P + 1] * B, P + 1), *seven, ("bias", normal(r, 1, N, 1, P + 1))], a, **out)
    yield Case("gqa_positions", "GroupQueryAttention", [*qkv(1, S), *none, *lengths([S], S), cos, sin, ("pos", (np.arange(S) + 7).reshape(1, S).astype(I64))], {**a, "do_rotary": 1}, **out)
    for mode in (1, 2):
        yield Case(f"gqa_scores_{mode}", "GroupQueryAttention", [*qkv(B, S), *none, *lengths([S] * B, S)], {**a, "qk_output": mode}, outputs=("Y", "pk", "pv", "qk"), types=(FLOAT,) * 4)
    yield Case("gqa_bidirectional", "GroupQueryAttention", [*qkv(B, S), *none, *lengths([S] * B, S)], {**a, "causal": 0}, **out)
    eleven = [*seven, ("bias", None), ("sink", None)]
    norm = [("ks", None), ("vs", None), ("qn", normal(r, D)), ("kn", normal(r, D))]
    yield Case("gqa_head_norms", "GroupQueryAttention", [*qkv(B, S), *none, *lengths([S] * B, S), *eleven, *norm], {**a, "qk_norm_epsilon": 1e-5}, **out)
    yield Case("gqa_head_norms_rotary", "GroupQueryAttention", [*qkv(B, 1), *cache(B, P), *lengths([P + 1] * B, P + 1), cos, sin, ("pos", None), ("bias", None), ("sink", None), *norm], {**a, "do_rotary": 1}, **out)
    for bits, t in ((8, I8), (4, U8)):
        w = D * bits // 8
        for kind, shape in (("PER_TENSOR", (1,)), ("PER_CHANNEL", (1, K, 1, D))):
            sc = [("ks", (0.02 * 2 ** (8 - bits) * (0.5 + r.random(shape))).astype(F)), ("vs", (0.02 * 2 ** (8 - bits) * (0.5 + r.random(shape))).astype(F))]
            past = [("past_k", codes(r, t, B, K, P, w)), ("past_v", codes(r, t, B, K, P, w))]
            quant = {**a, "k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": bits}
            yield Case(f"gqa_cache_{bits}_{kind}", "GroupQueryAttention", [*qkv(B, 1), *past, *lengths([P + 1] * B, P + 1), *eleven, *sc], quant, outputs=("Y", "pk", "pv"), types=(FLOAT, 3 if t is I8 else 2, 3 if t is I8 else 2), rtol=5e-3, atol=5e-3)
    flat = {"k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR", "kv_cache_bit_width": 8}
    sc = [("ks", np.array([0.01], F)), ("vs", np.array([0.03], F))]
    past = [("past_k", codes(r, I8, 1, K, 5, D)), ("past_v", codes(r, I8, 1, K, 5, D))]
    for rows in (1, 4):
        yield Case(f"gqa_window_turned_codes_{rows}", "GroupQueryAttention", [*qkv(1, rows), *past, *lengths([8], 8), *eleven, *sc], {**full, **flat}, outputs=("Y", "pk", "pv"), types=(FLOAT, 3, 3), rtol=5e-3, atol=5e-3)
    many = 700  # more keys than a stretch
    for n, batch in ((1, B), (3, 1), (9, 1)):
        long = [("past_k", codes(r, I8, batch, K, many, D)), ("past_v", codes(r, I8, batch, K, many, D))]
        ends = [many + n] if batch == 1 else [many + n - 200, many + n]
        yield Case(f"gqa_cache_long_{n}", "GroupQueryAttention", [*qkv(batch, n), *long, *lengths(ends, many + n), *eleven, *sc], {**a, **flat}, outputs=("Y", "pk", "pv"), types=(FLOAT, 3, 3), rtol=5e-3, atol=5e-3)
    for n, batch in ((1, B), (9, 1)):
        halves = [(name, x.astype(H)) for name, x in [*qkv(batch, n), *cache(batch, P)]]
        yield Case(f"gqa_half_{n}", "GroupQueryAttention", [*halves, *lengths([P + n] * batch, P + n)], a, outputs=("Y", "pk", "pv"), types=(FLOAT16,) * 3, rtol=5e-3, atol=5e-3)


# ---- weights of codes, and small things ---------------------------------------------------------------------------------------------------

def code_weights():
    r = rng(12)
    N, K = 50, 96
    x = normal(r, 2, 3, K)
    e4m3 = r.integers(0x20, 0x50, (N, K // 16)).astype(U8)
    for name, a in {"": x, "_half": x.astype(H)}.items():
        t = dict(types=(FLOAT16,), rtol=2e-2, atol=2e-2) if name else {}
        yield Case("matmul_fp4" + name, "MatMulBlockQuantizedFp4Weight", [("A", a), ("B", codes(r, U8, N, K // 2)), ("ws", e4m3), ("ws2", s(0.013)), ("is", None), ("bias", normal(r, N, dtype=a.dtype))], {"block_size": 16}, **t)
    import ml_dtypes
    w = (normal(r, N, K) * 3).astype(ml_dtypes.float8_e4m3fn)
    for name, scale in (("", None), ("_activation", s(0.02))):
        yield Case("matmul_fp8" + name, "MatMulBlockQuantizedFp8Weight", [("A", x.astype(H)), ("B", w), ("bs", (r.random((N, 3)) * 0.1).astype(F)), ("as", scale), ("bias", normal(r, N, dtype=H))], {"block_size": 32}, types=(FLOAT16,), rtol=2e-2, atol=2e-2)
    for kind in (0, 1):
        for block in (16, 64):
            args = [("A", x), ("B", codes(r, U8, N * K // 2)), ("absmax", r.random((N * K + block - 1) // block).astype(F))]
            yield Case(f"matmul_bnb4_{kind}_{block}", "MatMulBnb4", args, {"N": N, "K": K, "block_size": block, "quant_type": kind})
    yield Case("gather_nd", "GatherND", [("data", normal(r, 3, 4, 5)), ("i", r.integers(0, 3, (2, 2)).astype(I64))], rtol=0, atol=0)
    for mode in ("constant", "reflect", "edge"):
        yield Case(f"pad_{mode}", "Pad", [("data", normal(r, 4, 5)), ("pads", np.array([1, 2, 3, 0], I64)), ("value", s(1.5) if mode == "constant" else None)], {"mode": mode}, rtol=0, atol=0)
    yield Case("trilu", "Trilu", [("X", normal(r, 2, 5, 6)), ("k", s(1, I64))], {"upper": 0}, rtol=0, atol=0)
    yield Case("transpose_matmul", "TransposeMatMul", [("A", normal(r, 7, 5)), ("B", normal(r, 7, 3))], {"transA": 1, "alpha": 0.5})
    yield Case("fused_matmul_activation", "FusedMatMulActivation", [("A", normal(r, 7, 5)), ("B", normal(r, 5, 3))], {"activation": "LeakyRelu", "activation_alpha": 0.3})
    z = codes(r, I8, 3, 40)
    yield Case("ms_dequantize", "DequantizeLinear", [("x", z), ("s", s(0.03)), ("z", s(9, I8))])
    yield Case("ms_quantize", "QuantizeLinear", [("x", normal(r, 3, 40, scale=3)), ("s", s(0.03)), ("z", s(9, U8))], types=(2,), rtol=0, atol=0)
    x = normal(r, 2, 6, 11)
    for act in ("none", "silu"):
        yield Case(f"causal_conv_{act}", "CausalConvWithState", [("x", x), ("w", normal(r, 6, 1, 4)), ("b", normal(r, 6)), ("past", normal(r, 2, 6, 3))], {"activation": act}, outputs=("Y", "present"), types=(FLOAT, FLOAT))
    for rule in ("linear", "gated", "delta", "gated_delta"):
        q, k, v = normal(r, 2, 5, 4 * 8), normal(r, 2, 5, 2 * 8, scale=0.3), normal(r, 2, 5, 2 * 6)
        decay = -np.abs(normal(r, 2, 5, 2)) if "gated" in rule else None
        beta = r.random((2, 5, 2)).astype(F) if "delta" in rule else None
        yield Case(f"linear_attention_{rule}", "LinearAttention", [("q", q), ("k", k), ("v", v), ("past", normal(r, 2, 2, 8, 6)), ("decay", decay), ("beta", beta)], {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": rule}, outputs=("Y", "state"), types=(FLOAT, FLOAT), atol=1e-4)
    for hq, hv, hk in ((2, 4, 2), (2, 4, 4), (4, 2, 1)):  # Qwen3.5: fewer heads in query and key than in value
        q, k, v = normal(r, 2, 5, hq * 8), normal(r, 2, 5, hk * 8, scale=0.3), normal(r, 2, 5, hv * 6)
        gates = [("decay", -np.abs(normal(r, 2, 5, hv))), ("beta", r.random((2, 5, hv)).astype(F))]
        yield Case(f"linear_attention_heads_{hq}_{hv}_{hk}", "LinearAttention", [("q", q), ("k", k), ("v", v), ("past", normal(r, 2, hv, 8, 6)), *gates], {"q_num_heads": hq, "kv_num_heads": hv}, outputs=("Y", "state"), types=(FLOAT, FLOAT), atol=1e-4)


def three_positions():
    r = rng(23)
    cos, sin = ("cos", normal(r, 40, 8)), ("sin", normal(r, 40, 8))
    pos = ("pos", r.integers(0, 40, (3, 2, 5)).astype(I64))
    x, more, heads = ("x", normal(r, 2, 5, 3 * 16)), ("x", normal(r, 2, 5, 2 * 20)), ("x", normal(r, 2, 3, 5, 16))
    for layout in (0, 1):
        for section in ((2, 3, 3), (4, 2, 2), (0, 4, 4), (8, 0, 0)):
            yield Case(f"mrotary_{layout}_{section[0]}{section[1]}{section[2]}", "MRotaryEmbedding", [x, pos, cos, sin], {"mrope_section": list(section), "mrope_layout": layout, "num_heads": 3})
    yield Case("mrotary_interleaved", "MRotaryEmbedding", [x, pos, cos, sin], {"mrope_section": [3, 3, 2], "mrope_layout": 1, "num_heads": 3, "interleaved": 1})
    yield Case("mrotary_part", "MRotaryEmbedding", [more, pos, cos, sin], {"mrope_section": [3, 3, 2], "num_heads": 2, "rotary_embedding_dim": 16, "scale": 0.5})
    yield Case("mrotary_4d", "MRotaryEmbedding", [heads, pos, cos, sin], {"mrope_section": [3, 3, 2]})
    half = [(n, a.astype(H)) for n, a in (x, cos, sin)]
    yield Case("mrotary_half", "MRotaryEmbedding", [half[0], pos, *half[1:]], {"mrope_section": [3, 3, 2], "num_heads": 3}, types=(FLOAT16,), rtol=4e-3, atol=4e-3)


def gates():
    r = rng(24)
    a, b, bias, scale = ("a", normal(r, 2, 5, 4, scale=30)), ("b", normal(r, 2, 5, 4)), ("bias", normal(r, 4)), ("scale", -np.exp(normal(r, 4)))
    yield Case("linear_attention_gate", "LinearAttentionGate", [a, bias, scale, b], outputs=("decay", "beta"), types=(FLOAT, FLOAT))
    yield Case("linear_attention_decay", "LinearAttentionGate", [a, bias, scale], outputs=("decay",))
    yield Case("gated_add", "GatedAdd", [("x", normal(r, 2, 3, 8)), ("y", normal(r, 2, 3, 8)), ("gate", normal(r, 2, 3, 1))])



FAMILIES = [fused_matmul, fused_gemm, integer_products, recurrences, convolutions, bias_and_gelu, normalisations, qlinear, multi_head_attention, attention, moe, grouped_query_attention, code_weights, three_positions, gates]


def all_cases():
    for family in FAMILIES:
        yield from family()
