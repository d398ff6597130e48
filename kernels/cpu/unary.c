/* unary.c - unary functions on float (vectorised where kernels/fmath.h has them, libm elsewhere), double and integers. */
#include "kernels/fmath.h"
#include "kernels/pointwise.h"

#pragma GCC diagnostic ignored "-Wtype-limits" /* one text serves signed and unsigned types */

#define LOOP(name, T, expr)                                                              \
    QX_INLINE void name##_body(const void *vx, void *vy, int64_t n, const float *p)      \
    {                                                                                    \
        const T *x = vx;                                                                 \
        T *y = vy;                                                                       \
        (void)p;                                                                         \
        QX_IVDEP                                                                         \
        for (int64_t i = 0; i < n; i++) {                                                \
            T v = x[i];                                                                  \
            y[i] = (T)(expr);                                                            \
        }                                                                                \
    }                                                                                    \
    QX_MULTI(static, name, (const void *vx, void *vy, int64_t n, const float *p), (vx, vy, n, p))

#define SIGN(v) (((v) > 0) - ((v) < 0))

/* op, float expression, double expression */
#define FLOAT_LIST(X) \
    X(ABS, fabsf(v), fabs(v)) \
    X(NEG, -v, -v) \
    X(SIGN, v != v ? v : (float)SIGN(v), v != v ? v : (double)SIGN(v)) \
    X(SQRT, sqrtf(v), sqrt(v)) \
    X(EXP, fm_exp(v), exp(v)) \
    X(LOG, logf(v), log(v)) \
    X(RECIPROCAL, 1.0f / v, 1.0 / v) \
    X(FLOOR, floorf(v), floor(v)) \
    X(CEIL, ceilf(v), ceil(v)) \
    X(ROUND, rintf(v), rint(v)) \
    X(RELU, v < 0 ? 0 : v, v < 0 ? 0 : v) \
    X(SIGMOID, fm_sigmoid(v), 1.0 / (1.0 + exp(-v))) \
    X(TANH, fm_tanh(v), tanh(v)) \
    X(ERF, fm_erf(v), erf(v)) \
    X(SIN, sinf(v), sin(v)) \
    X(COS, cosf(v), cos(v)) \
    X(TAN, tanf(v), tan(v)) \
    X(ASIN, asinf(v), asin(v)) \
    X(ACOS, acosf(v), acos(v)) \
    X(ATAN, atanf(v), atan(v)) \
    X(SINH, sinhf(v), sinh(v)) \
    X(COSH, coshf(v), cosh(v)) \
    X(ASINH, asinhf(v), asinh(v)) \
    X(ACOSH, acoshf(v), acosh(v)) \
    X(ATANH, atanhf(v), atanh(v)) \
    X(SOFTPLUS, v > 20 ? v : log1pf(expf(v)), v > 40 ? v : log1p(exp(v))) \
    X(SOFTSIGN, v / (1.0f + fabsf(v)), v / (1.0 + fabs(v))) \
    X(GELU, fm_gelu(v), 0.5 * v * (1.0 + erf(v * 0.70710678118654752440))) \
    X(GELU_TANH, fm_gelu_tanh(v), 0.5 * v * (1.0 + tanh(0.79788456080286535588 * (v + 0.044715 * v * v * v)))) \
    X(MISH, v * tanhf(v > 20 ? v : log1pf(expf(v))), v * tanh(v > 40 ? v : log1p(exp(v)))) \
    X(HARDSWISH, v * fminf(fmaxf(v / 6.0f + 0.5f, 0.0f), 1.0f), v * fmin(fmax(v / 6.0 + 0.5, 0.0), 1.0)) \
    X(LEAKY_RELU, v < 0 ? p[0] * v : v, v < 0 ? (double)p[0] * v : v) \
    X(ELU, v < 0 ? p[0] * expm1f(v) : v, v < 0 ? (double)p[0] * expm1(v) : v) \
    X(CELU, v < 0 ? p[0] * expm1f(v / p[0]) : v, v < 0 ? (double)p[0] * expm1(v / (double)p[0]) : v) \
    X(SELU, v > 0 ? p[1] * v : p[1] * p[0] * expm1f(v), v > 0 ? (double)p[1] * v : (double)p[1] * (double)p[0] * expm1(v)) \
    X(HARDSIGMOID, v != v ? v : fminf(fmaxf(p[0] * v + p[1], 0.0f), 1.0f), v != v ? v : fmin(fmax((double)p[0] * v + (double)p[1], 0.0), 1.0)) \
    X(THRESHOLDED, v > p[0] ? v : 0, v > (double)p[0] ? v : 0) \
    X(SHRINK, v < -p[1] ? v + p[0] : v > p[1] ? v - p[0] : 0, v < -(double)p[1] ? v + (double)p[0] : v > (double)p[1] ? v - (double)p[0] : 0) \
    X(SWISH, v * fm_sigmoid(p[0] * v), v / (1.0 + exp(-(double)p[0] * v)))

#define DEFINE(op, fexpr, dexpr) LOOP(f32_##op, float, fexpr) LOOP(f64_##op, double, dexpr)
FLOAT_LIST(DEFINE)
#undef DEFINE

/* type code, C type, unsigned type of the same width (wrap-around), signed? */
#define INT_LIST(X) \
    X(INT8, int8_t, uint8_t) X(UINT8, uint8_t, uint8_t) X(INT16, int16_t, uint16_t) X(UINT16, uint16_t, uint16_t) \
    X(INT32, int32_t, uint32_t) X(UINT32, uint32_t, uint32_t) X(INT64, int64_t, uint64_t) X(UINT64, uint64_t, uint64_t)

#define DEFINE(dt, T, U)                                                                        \
    LOOP(dt##_ABS, T, v > 0 || v == 0 ? v : (T)((U)0 - (U)v)) LOOP(dt##_NEG, T, (T)((U)0 - (U)v)) \
    LOOP(dt##_SIGN, T, SIGN(v)) LOOP(dt##_RELU, T, v > 0 ? v : 0)
INT_LIST(DEFINE)
#undef DEFINE

qx_unary_fn *qx_unary_find(qx_unary op, qx_dtype dtype)
{
    static qx_unary_fn *const f32[QX_U_COUNT_] = {
#define ROW(name, f, d) [QX_U_##name] = f32_##name,
        FLOAT_LIST(ROW)
#undef ROW
    };
    static qx_unary_fn *const f64[QX_U_COUNT_] = {
#define ROW(name, f, d) [QX_U_##name] = f64_##name,
        FLOAT_LIST(ROW)
#undef ROW
    };
    static qx_unary_fn *const ints[QX_DT_COUNT_][QX_U_RELU + 1] = {
#define ROW(dt, T, U) [QX_DT_##dt] = {[QX_U_ABS] = dt##_ABS, [QX_U_NEG] = dt##_NEG, [QX_U_SIGN] = dt##_SIGN, [QX_U_RELU] = dt##_RELU},
        INT_LIST(ROW)
#undef ROW
    };
    if (dtype == QX_DT_FLOAT) return f32[op];
    if (dtype == QX_DT_DOUBLE) return f64[op];
    if (dtype < 0 || dtype >= QX_DT_COUNT_ || op > QX_U_RELU) return NULL;
    return ints[dtype][op];
}
