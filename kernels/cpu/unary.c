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

#define QX_SIGN(v) (((v) > 0) - ((v) < 0))

#define QX_UNARY(op, fexpr, dexpr) LOOP(f32_##op, float, fexpr) LOOP(f64_##op, double, dexpr)
#include "kernels/unary.def"
#undef QX_UNARY

/* type code, C type, unsigned type of the same width (wrap-around), signed? */
#define INT_LIST(X) \
    X(INT8, int8_t, uint8_t) X(UINT8, uint8_t, uint8_t) X(INT16, int16_t, uint16_t) X(UINT16, uint16_t, uint16_t) \
    X(INT32, int32_t, uint32_t) X(UINT32, uint32_t, uint32_t) X(INT64, int64_t, uint64_t) X(UINT64, uint64_t, uint64_t)

#define DEFINE(dt, T, U)                                                                        \
    LOOP(dt##_ABS, T, v > 0 || v == 0 ? v : (T)((U)0 - (U)v)) LOOP(dt##_NEG, T, (T)((U)0 - (U)v)) \
    LOOP(dt##_SIGN, T, QX_SIGN(v)) LOOP(dt##_RELU, T, v > 0 ? v : 0)
INT_LIST(DEFINE)
#undef DEFINE

qx_unary_fn *qx_unary_find(qx_unary op, qx_dtype dtype)
{
    static qx_unary_fn *const f32[QX_U_COUNT_] = {
#define QX_UNARY(name, f, d) [QX_U_##name] = f32_##name,
#include "kernels/unary.def"
#undef QX_UNARY
    };
    static qx_unary_fn *const f64[QX_U_COUNT_] = {
#define QX_UNARY(name, f, d) [QX_U_##name] = f64_##name,
#include "kernels/unary.def"
#undef QX_UNARY
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
