/* ops.h - one element of the pointwise operators; the formulas are those of the CPU (kernels/unary.def, kernels/cpu/binary.c, kernels/scalar.h). */
#ifndef QX_KERNELS_CUDA_OPS_H
#define QX_KERNELS_CUDA_OPS_H

#include <math.h>

#include "kernels/cuda/elem.h"
#include "kernels/fmath.h"
#include "kernels/pointwise.h"

#define QX_SIGN(v) (((v) > 0) - ((v) < 0))

QX_HD float unary_real(int op, float v, const float *p)
{
    switch (op) {
#define QX_UNARY(name, fexpr, dexpr) case QX_U_##name: return (float)(fexpr);
#include "kernels/unary.def"
#undef QX_UNARY
    default: return v;
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

QX_HD float binary_real(int op, float u, float v)
{
    switch (op) {
    case QX_B_ADD: return u + v;
    case QX_B_SUB: return u - v;
    case QX_B_MUL: return u * v;
    case QX_B_DIV: return u / v;
    case QX_B_POW: return pow_real(u, v);
    case QX_B_MIN: return u != u ? u : v != v ? v : u < v ? u : v;
    case QX_B_MAX: return u != u ? u : v != v ? v : u > v ? u : v;
    case QX_B_MOD: return mod_real(u, v);
    case QX_B_FMOD: return fmodf(u, v);
    default: return u < 0 ? u * v : u; /* PRELU */
    }
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
