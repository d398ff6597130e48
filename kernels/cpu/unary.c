/* unary.c - unary functions on float (vectorised where kernels/loops/fmath.h has them, libm elsewhere), double and integers. */
#include "kernels/loops/fmath.h"
#include "kernels/pointwise.h"

#pragma GCC diagnostic ignored "-Wtype-limits" /* one text serves signed and unsigned types */

#define LOOP(name, T, expr)                                                              \
    QX_INLINE void name##_body(const void *vx, void *vy, int64_t n, const float *given)  \
    {                                                                                    \
        const T *x = vx;                                                                 \
        T *y = vy;                                                                       \
        const float p[2] = {given ? given[0] : 0, given ? given[1] : 0}; /* out of y's reach */ \
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

/* Sine and cosine: libm for each that is too large to be reduced in double, for NaN and Inf; a piece at a time, as x may be y. */
enum { TRIG_PIECE = 512 };
LOOP(f32_quick_sin, float, fm_trig(v, 0))
LOOP(f32_quick_cos, float, fm_trig(v, 1))

static void trig(qx_unary_fn *quick, qx_unary_fn *slow, const float *x, float *y, int64_t n, const float *p)
{
    float kept[TRIG_PIECE];
    for (int64_t at = 0; at < n; at += TRIG_PIECE) {
        const int64_t m = n - at < TRIG_PIECE ? n - at : TRIG_PIECE;
        int far = 0;
        for (int64_t i = 0; i < m; i++) far |= !(fabsf(x[at + i]) <= FM_TRIG_MOST);
        if (far) memcpy(kept, x + at, (size_t)m * sizeof *x);
        quick(x + at, y + at, m, p);
        for (int64_t i = 0; i < m && far; i++)
            if (!(fabsf(kept[i]) <= FM_TRIG_MOST)) slow(kept + i, y + at + i, 1, p);
    }
}
static void sin_row(const void *x, void *y, int64_t n, const float *p) { trig(f32_quick_sin, f32_SIN, x, y, n, p); }
static void cos_row(const void *x, void *y, int64_t n, const float *p) { trig(f32_quick_cos, f32_COS, x, y, n, p); }

qx_unary_fn *qx_unary_find(qx_unary op, qx_dtype dtype)
{
    if (dtype == QX_DT_FLOAT && op == QX_U_SIN) return sin_row;
    if (dtype == QX_DT_FLOAT && op == QX_U_COS) return cos_row;
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
