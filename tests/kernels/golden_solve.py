#!/usr/bin/env python3
"""Makes golden_solve.h: float64 NumPy solutions that the C solvers are compared with. python3 golden_solve.py > golden_solve.h"""
import numpy as np

rng = np.random.default_rng(7)
N, K, BLOCK, QMAX = 6, 40, 8, 7


def correlated(rows, k):
    x = rng.standard_normal((rows, k))
    for j in range(1, k):
        x[:, j] += 0.7 * x[:, j - 1]
    return x * rng.uniform(0.3, 2.0, k)


def upper_of_inverse(h, damp=0.01):
    h = h.copy()
    dead = np.diag(h) == 0
    h[np.diag_indices_from(h)] += damp * np.mean(np.diag(h))
    h[dead, dead] = 1.0
    return np.linalg.cholesky(np.linalg.inv(h)).T


def quant(x, s, qmin, qmax):
    return np.clip(np.rint(x / s), qmin, qmax) * s


def gptq(w, u, scale, qmin, qmax, block, perm=None, prune=False, rounding=True):
    """scale[n][blocks], blocks in the original order of columns; perm: order in which columns are solved (u is in that order)."""
    w = w.copy()
    k = w.shape[1]
    order = np.arange(k) if perm is None else perm
    out = np.zeros_like(w)
    wp = w[:, order]
    keep = np.ones_like(wp, bool)
    for j in range(k):
        if prune and j % 4 == 0 and j + 4 <= k:
            score = (wp[:, j:j + 4] / np.diag(u)[j:j + 4]) ** 2
            drop = np.argsort(score, axis=1, kind="stable")[:, :2]
            for r in range(w.shape[0]):
                keep[r, j + drop[r]] = False
        s = scale[:, order[j] // block]
        q = quant(wp[:, j], s, qmin, qmax) if rounding else wp[:, j].copy()
        q = np.where(keep[:, j], q, 0.0)
        e = (wp[:, j] - q) / u[j, j]
        wp[:, j:] -= np.outer(e, u[j, j:])
        wp[:, j] = q
        out[:, order[j]] = q
    return out


def show(name, a, ctype="float"):
    flat = np.asarray(a).reshape(-1)
    items = ", ".join(f"{v:.9g}f" if "." in f"{v:.9g}" or "e" in f"{v:.9g}" else f"{v:.9g}" for v in flat) if ctype == "float" else ", ".join(str(int(v)) for v in flat)
    text = f"static const {ctype} {name}[{flat.size}] = {{{items}}};"
    while len(text) > 150:
        cut = text.rfind(", ", 0, 150) + 1
        print(text[:cut])
        text = "    " + text[cut + 1:]
    print(text)


x = correlated(60, K)
w = rng.standard_normal((N, K)) * 0.1
x32, w32 = x.astype(np.float32), w.astype(np.float32)
h = (x32.astype(np.float64).T @ x32.astype(np.float64)).astype(np.float32)
h[13, :] = 0
h[:, 13] = 0  # a dead input
H, W = h.astype(np.float64), w32.astype(np.float64)
amax = np.abs(W.reshape(N, K // BLOCK, BLOCK)).max(2)
scale4 = (amax / 7).astype(np.float32).astype(np.float64)
scale8 = (np.abs(W).max(1, keepdims=True) / 127).astype(np.float32).astype(np.float64)
perm = np.lexsort((np.arange(K), -np.diag(H)))
u, up = upper_of_inverse(H), upper_of_inverse(H[np.ix_(perm, perm)])
print("/* golden_solve.h - made by golden_solve.py (float64 NumPy). */")
print(f"enum {{ GOLD_N = {N}, GOLD_K = {K}, GOLD_BLOCK = {BLOCK} }};")
show("gold_w", w32)
show("gold_h", h)
show("gold_u", u)
show("gold_perm", perm, "int32_t")
show("gold_scale4", scale4)
show("gold_scale8", scale8)
show("gold_gptq4", gptq(W, u, scale4, -8, 7, BLOCK))
show("gold_gptq4_order", gptq(W, up, scale4, -8, 7, BLOCK, perm=perm))
show("gold_sparse", gptq(W, u, scale8, 0, 0, K, prune=True, rounding=False))
show("gold_sparse8", gptq(W, u, scale8, -127, 127, K, prune=True))
d = W - quant(W, np.repeat(scale4, BLOCK, axis=1), -8, 7)
show("gold_rtn_error", np.einsum("ri,ij,rj->r", d, H, d))
show("gold_singular", np.linalg.svd(W, compute_uv=False))
