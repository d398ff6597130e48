/* ops.h - pointwise operators on EACH elements, a constant: which one it is is looked up once for all of them, and they stay in
 * registers. The formulas are those of the CPU (kernels/unary.def, kernels/cpu/binary.c, kernels/scalar.h). */
#ifndef QX_KERNELS_CUDA_OPS_H
#define QX_KERNELS_CUDA_OPS_H

#include <math.h>

#include "kernels/cuda/elem.h"
#include "kernels/loops/fmath.h"
#include "kernels/pointwise.h"

#define QX_SIGN(v) (((v) > 0) - ((v) < 0))

QK_INSIDE void unary_reals(int op, float *w, const float *p, const int EACH)
{
    switch (op) {
#define QX_UNARY(name, fexpr, dexpr)               \
    case QX_U_##name:                              \
        QK_UNROLL for (int k = 0; k < EACH; k++) { \
            const float v = w[k];                  \
            w[k] = (float)(fexpr);                 \
        }                                          \
        break;
#include "kernels/unary.def"
#undef QX_UNARY
    default: break;
    }
}

QX_HD int64_t unary_int(int op, int64_t v)
{
    switch (op) {
    case QX_U_ABS: return v < 0 ? (int64_t)(0 - (uint64_t)v) : v;
    case QX_U_NEG: return (int64_t)(0 - (uint64_t)v);
    case QX_U_SIGN: return QX_SIGN(v);
    default: return v > 0 ? v : 0; /* RELU */
    }
}

/* ---- two operands ---- */

QX_HD float mod_real(float u, float v)
{
    const float r = fmodf(u, v);
    return r == 0 ? copysignf(0.0f, v) : (r < 0) != (v < 0) ? r + v : r;
}

QX_HD float pow_real(float u, float v) { return v == 2.0f ? u * u : v == 3.0f ? u * u * u : v == 1.0f ? u : powf(u, v); }

/* Long, and rare: a call. */
QK_APART float binary_apart(int op, float u, float v)
{
    switch (op) {
    case QX_B_POW: return pow_real(u, v);
    case QX_B_MOD: return mod_real(u, v);
    case QX_B_FMOD: return fmodf(u, v);
    default: return u < 0 ? u * v : u; /* PRELU */
    }
}

/* x op= y, or x = y op x: swapped. */
QK_INSIDE void binary_reals(int op, float *x, const float *y, int swapped, const int EACH)
{
#define QX_EACH_OF(expr)                                               \
    QK_UNROLL for (int k = 0; k < EACH; k++) {                         \
        const float u = swapped ? y[k] : x[k], v = swapped ? x[k] : y[k]; \
        x[k] = (expr);                                                 \
    }                                                                  \
    break
    switch (op) {
    case QX_B_ADD: QX_EACH_OF(u + v);
    case QX_B_SUB: QX_EACH_OF(u - v);
    case QX_B_MUL: QX_EACH_OF(u * v);
    case QX_B_DIV: QX_EACH_OF(u / v);
    case QX_B_MIN: QX_EACH_OF(u != u ? u : v != v ? v : u < v ? u : v);
    case QX_B_MAX: QX_EACH_OF(u != u ? u : v != v ? v : u > v ? u : v);
    default: QX_EACH_OF(binary_apart(op, u, v));
    }
#undef QX_EACH_OF
}

QX_HD int64_t div_int(int64_t u, int64_t v) { return v == 0 ? 0 : v == -1 ? (int64_t)(0 - (uint64_t)u) : u / v; }
QX_HD int64_t rem_int(int64_t u, int64_t v) { return v == 0 || v == -1 ? 0 : u % v; }

QX_HD int64_t pow_int(int64_t u, int64_t v)
{
    uint64_t r = 1, x = (uint64_t)u;
    if (v < 0) return u == 1 ? 1 : u == -1 ? (v % 2 ? -1 : 1) : 0;
    for (uint64_t e = (uint64_t)v; e; e >>= 1) {
        if (e & 1) r *= x;
        x *= x;
    }
    return (int64_t)r;
}

QX_HD int64_t binary_int(int op, int64_t u, int64_t v)
{
    switch (op) {
    case QX_B_ADD: return (int64_t)((uint64_t)u + (uint64_t)v);
    case QX_B_SUB: return (int64_t)((uint64_t)u - (uint64_t)v);
    case QX_B_MUL: return (int64_t)((uint64_t)u * (uint64_t)v);
    case QX_B_DIV: return div_int(u, v);
    case QX_B_POW: return pow_int(u, v);
    case QX_B_MIN: return u < v ? u : v;
    case QX_B_MAX: return u > v ? u : v;
    case QX_B_MOD: { const int64_t r = rem_int(u, v); return r != 0 && (r < 0) != (v < 0) ? r + v : r; }
    case QX_B_FMOD: return rem_int(u, v);
    case QX_B_PRELU: return u < 0 ? (int64_t)((uint64_t)u * (uint64_t)v) : u;
    case QX_B_AND: return u & v;
    case QX_B_OR: return u | v;
    default: return u ^ v; /* XOR */
    }
}

#endif
