"""Definitions of com.microsoft operators in numpy, from ONNX Runtime's documentation, for those that its CPU provider has not. A function named like the
operator takes a Case and returns its outputs. Where both are there, generate_contrib.py compares the two."""
import numpy as np


def args(case):
    return [a for _, a in case.inputs] + [None] * 24


def MatMulInteger16(case):
    a, b = args(case)[:2]
    return [(a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)]


def erf(x):
    from math import erf as one
    return np.vectorize(one)(x.astype(np.float64))


def gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2.0)))


def silu(x):
    return x / (1 + np.exp(-x))


def BiasGelu(case):
    a, b = args(case)[:2]
    return [gelu(a.astype(np.float64) + b).astype(a.dtype)]


def BiasAdd(case):
    x, b, skip = args(case)[:3]
    return [x + b + skip]


def BiasSplitGelu(case):
    x, b = args(case)[:2]
    left, right = np.split(x.astype(np.float64) + b, 2, axis=-1)
    return [(left * gelu(right)).astype(x.dtype)]


def GatedRMSNorm(case):
    x, scale, gate = (a.astype(np.float64) for a in args(case)[:3])
    rows = x.reshape(-1, scale.size)
    norm = rows / np.sqrt(np.mean(rows ** 2, -1, keepdims=True) + case.attrs.get("epsilon", 1e-5)) * scale
    act = 1 / (1 + np.exp(-gate)) if case.attrs.get("activation") == "sigmoid" else silu(gate)
    return [(norm.reshape(x.shape) * act).astype(np.float32)]


def BiasSoftmax(case):
    x, b = args(case)[:2]
    y = np.exp((x + b) - np.max(x + b, -1, keepdims=True))
    return [(y / y.sum(-1, keepdims=True)).astype(x.dtype)]


def group_norm(case, x, gamma, beta):
    last, groups = case.attrs.get("channels_last", 1), case.attrs["groups"]
    p = np.moveaxis(x.astype(np.float64), -1, 1) if last else x.astype(np.float64)
    rows = p.reshape(p.shape[0], groups, -1)
    rows = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + case.attrs.get("epsilon", 1e-5))
    y = rows.reshape(p.shape) * gamma[:, None, None] + beta[:, None, None]
    y = silu(y) if case.attrs["activation"] else y
    return (np.moveaxis(y, 1, -1) if last else y).astype(x.dtype)


def GroupNorm(case):
    return [group_norm(case, *args(case)[:3])]


def SkipGroupNorm(case):
    x, gamma, beta, skip, bias = args(case)[:5]
    total = x + (skip if skip.ndim == 4 else skip[:, None, None, :]) + (0 if bias is None else bias)
    return [group_norm(case, total, gamma, beta), total]


def NhwcMaxPool(case):
    x = args(case)[0]
    (kh, kw), (t, l, b, r), (sh, sw) = case.attrs["kernel_shape"], case.attrs["pads"], case.attrs["strides"]
    p = np.pad(x.astype(np.int32), ((0, 0), (t, b), (l, r), (0, 0)), constant_values=-999)
    h, w = (p.shape[1] - kh) // sh + 1, (p.shape[2] - kw) // sw + 1
    y = np.stack([np.stack([p[:, i * sh:i * sh + kh, j * sw:j * sw + kw].max((1, 2)) for j in range(w)], 1) for i in range(h)], 1)
    return [y.astype(x.dtype)]


def softmax(x):
    y = np.exp(x - x.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)


def sdpa(q, k, v, scale, bias=0.0, causal=False):
    """q, k, v [B, heads, rows, size]; causal counts from the end of the keys."""
    scores = q @ k.swapaxes(-1, -2) * scale + bias
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:]), k.shape[2] - q.shape[2]) > 0, scores, -np.inf)
    return softmax(scores) @ v


def MultiHeadAttention(case):
    """Packed forms only: the CPU provider has all others."""
    q, k = args(case)[:2]
    heads = case.attrs["num_heads"]
    if q.ndim == 5:
        q, k, v = (q[:, :, :, i].transpose(0, 2, 1, 3).astype(np.float64) for i in range(3))
    elif k.ndim == 5:
        k, v = (k[:, :, :, i].transpose(0, 2, 1, 3).astype(np.float64) for i in range(2))
        q = q.reshape(*q.shape[:2], heads, -1).transpose(0, 2, 1, 3).astype(np.float64)
    else:
        raise NotImplementedError
    y = sdpa(q, k, v, 1 / np.sqrt(q.shape[-1]))
    return [y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1).astype(np.float32)]


def QAttention(case):
    x, w, b, xs, ws, mask, xz, wz, past = args(case)[:9]
    heads, causal = case.attrs["num_heads"], case.attrs.get("unidirectional", 0)
    if mask is not None:
        raise NotImplementedError
    qkv = (x.astype(np.float64) - xz) @ (w.astype(np.float64) - wz) * xs * ws + b
    q, k, v = (p.reshape(*p.shape[:2], heads, -1).transpose(0, 2, 1, 3) for p in np.split(qkv, 3, -1))
    if past is not None:
        k, v = np.concatenate((past[0], k), 2), np.concatenate((past[1], v), 2)
    y = sdpa(q, k, v, 1 / np.sqrt(q.shape[-1]), causal=causal)
    return [y.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1).astype(np.float32), np.stack((k, v)).astype(np.float32)]


def MRotaryEmbedding(case):
    """Half of each head turned against the other, by the angles of one of three positions: which one hangs on the column."""
    x, pos, cos, sin = args(case)[:4]
    t, h, w = case.attrs["mrope_section"]
    half, turned = t + h + w, case.attrs.get("interleaved", 0)
    stream = np.repeat([0, 1, 2], [t, h, w])
    if case.attrs.get("mrope_layout"):
        stream = np.array([i % 3 if i % 3 and i < 3 * (t, h, w)[i % 3] else 0 for i in range(half)])
    rows = x.transpose(0, 2, 1, 3) if x.ndim == 4 else x.reshape(*x.shape[:2], case.attrs["num_heads"], -1)
    c, s = (np.stack([a[pos[stream[i]], i] for i in range(half)], -1)[:, :, None].astype(np.float64) * case.attrs.get("scale", 1) for a in (cos, sin))
    first, second = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if turned else (slice(0, half), slice(half, 2 * half))
    a, b, y = rows[..., first].astype(np.float64), rows[..., second].astype(np.float64), rows.astype(np.float64)
    y[..., first], y[..., second] = a * c - b * s, b * c + a * s
    return [(y.transpose(0, 2, 1, 3) if x.ndim == 4 else y.reshape(x.shape)).astype(x.dtype)]


def LinearAttentionGate(case):
    a, bias, scale, b = (args(case) + [None])[:4]
    decay = (scale * np.logaddexp(0, a.astype(np.float64) + bias)).astype(np.float32)
    return [decay] if b is None else [decay, (1 / (1 + np.exp(-b.astype(np.float64)))).astype(np.float32)]


def GatedAdd(case):
    x, y, gate = args(case)[:3]
    return [x + y * gate]


def QLinearReduceMean(case):
    x, xs, xz, ys, yz = args(case)[:5]
    mean = ((x.astype(np.float64) - xz) * xs).mean(tuple(case.attrs["axes"]), keepdims=bool(case.attrs["keepdims"]))
    i = np.iinfo(x.dtype)
    return [np.clip(np.rint(mean / ys) + yz, i.min, i.max).astype(x.dtype)]


def GroupQueryAttention(case):
    """With head norms only: the CPU provider has all other forms."""
    q, k, v, pk, pv, lens, total, cos, sin = args(case)[:9]
    qn, kn = args(case)[14:16]
    if qn is None:
        raise NotImplementedError
    heads, kv = case.attrs["num_heads"], case.attrs["kv_num_heads"]
    split = lambda x, n: x.reshape(*x.shape[:2], n, -1).transpose(0, 2, 1, 3).astype(np.float64)
    rms = lambda x, w: x / np.sqrt((x ** 2).mean(-1, keepdims=True) + case.attrs.get("qk_norm_epsilon", 1e-6)) * w
    q, k, v = rms(split(q, heads), qn), rms(split(k, kv), kn), split(v, kv)
    past = 0 if pk is None else pk.shape[2]
    if case.attrs.get("do_rotary"):
        c, s = (t[past:past + q.shape[2]].astype(np.float64) for t in (cos, sin))
        turn = lambda x: np.concatenate((x[..., :c.shape[-1]] * c - x[..., c.shape[-1]:] * s, x[..., :c.shape[-1]] * s + x[..., c.shape[-1]:] * c), -1)
        q, k = turn(q), turn(k)
    if past:
        k, v = np.concatenate((pk, k), 2), np.concatenate((pv, v), 2)
    y = sdpa(q, np.repeat(k, heads // kv, 1), np.repeat(v, heads // kv, 1), 1 / np.sqrt(q.shape[-1]), causal=True)
    return [y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1).astype(np.float32), k.astype(np.float32), v.astype(np.float32)]


def MoE(case):
    """fc3 and the halves form of SwiGLU: the CPU provider has the others."""
    x, probs, w1, b1, w2, b2, w3, b3 = args(case)[:8]
    a = case.attrs
    if w3 is None and a.get("swiglu_fusion") != 2:
        raise NotImplementedError
    rows, y = x.reshape(-1, x.shape[-1]).astype(np.float64), np.zeros((x.size // x.shape[-1], x.shape[-1]))
    for t in range(len(rows)):
        best = np.argsort(-probs[t], kind="stable")[: a["k"]]
        mix = softmax(probs[t][best].astype(np.float64)) if a.get("normalize_routing_weights") else softmax(probs[t].astype(np.float64))[best]
        for e, weight in zip(best, mix):
            h = w1[e] @ rows[t] + (0 if b1 is None else b1[e])
            if a["activation_type"] == "swiglu":
                g, l = np.split(h, 2)
                g, l = np.minimum(g, a["swiglu_limit"]), np.clip(l, -a["swiglu_limit"], a["swiglu_limit"])
                h = g / (1 + np.exp(-a["activation_alpha"] * g)) * (l + a["activation_beta"])
            else:
                h = silu(h) * (w3[e] @ rows[t] + (0 if b3 is None else b3[e]))
            y[t] += weight * (w2[e] @ h + (0 if b2 is None else b2[e]))
    return [y.reshape(x.shape).astype(np.float32)]


def MatMulBlockQuantizedFp4Weight(case):
    import ml_dtypes
    a, b, scale, scale2, _, bias = args(case)[:6]
    codes = np.stack((b & 15, b >> 4), -1).reshape(b.shape[0], -1)
    w = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])[codes]
    w = w * np.repeat(scale.view(ml_dtypes.float8_e4m3fn).astype(np.float64), case.attrs["block_size"], 1) * scale2
    return [(a.astype(np.float64) @ w.T + bias).astype(a.dtype)]


def MatMulBlockQuantizedFp8Weight(case):
    a, b, scale, a_scale, bias = args(case)[:5]
    w = b.astype(np.float64) * np.repeat(scale.astype(np.float64), case.attrs["block_size"], 1)[:, :b.shape[1]]
    x = a.astype(np.float64)
    if a_scale is not None:
        x = np.clip(a.astype(np.float32) / a_scale, -448, 448).astype(b.dtype).astype(np.float64) * a_scale
    return [(x @ w.T + bias).astype(a.dtype)]


def FusedMatMulActivation(case):
    a, b = args(case)[:2]
    y = a @ b
    return [np.where(y < 0, y * case.attrs["activation_alpha"], y)]


def NhwcConv(case):
    """Weights: [out, kernel, in / group], as the optimizer writes them; of NhwcFusedConv [out, in / group, kernel]."""
    x, w, b, z = args(case)[:4]
    w = w.transpose(0, 3, 1, 2) if case.op == "NhwcConv" else w
    (top, left, bottom, right), (sh, sw), groups = case.attrs["pads"], case.attrs.get("strides", [1, 1]), case.attrs["group"]
    p = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    h, v = (p.shape[1] - w.shape[2]) // sh + 1, (p.shape[2] - w.shape[3]) // sw + 1
    y = np.empty((x.shape[0], h, v, w.shape[0]))
    for o in range(w.shape[0]):
        first = o // (w.shape[0] // groups) * w.shape[1]
        kernel = w[o].transpose(1, 2, 0)
        for i in range(h):
            for j in range(v):
                y[:, i, j, o] = (p[:, i * sh:i * sh + w.shape[2], j * sw:j * sw + w.shape[3], first:first + w.shape[1]] * kernel).sum((1, 2, 3)) + b[o]
    y = y if z is None else y + z
    return [(np.maximum(y, 0) if case.attrs.get("activation") == "Relu" else y).astype(np.float32)]


NhwcFusedConv = NhwcConv
