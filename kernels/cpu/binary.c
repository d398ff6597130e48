/* binary.c - binary operations on runs. Each loop exists once for operands that both advance and once for each that stays, so that the
 * compiler sees constant strides. */
#include "kernels/loops/fmath.h"
#include "kernels/pointwise.h"

#pragma GCC diagnostic ignored "-Wtype-limits" /* one text serves signed and unsigned types */

#define LOOP(name, T, R, expr)                                                                                        \
    QX_INLINE void name##_body(const void *va, int64_t sa, const void *vb, int64_t sb, void *vy, int64_t n)           \
    {                                                                                                                 \
        const T *a = va, *b = vb;                                                                                     \
        R *y = vy;                                                                                                    \
        if (sa && sb) {                                                                                               \
            QX_IVDEP                                                                                                  \
            for (int64_t i = 0; i < n; i++) { T u = a[i], v = b[i]; y[i] = (R)(expr); }                               \
        } else if (sa) {                                                                                              \
            T v = b[0];                                                                                               \
            QX_IVDEP                                                                                                  \
            for (int64_t i = 0; i < n; i++) { T u = a[i]; y[i] = (R)(expr); }                                         \
        } else if (sb) {                                                                                              \
            T u = a[0];                                                                                               \
            QX_IVDEP                                                                                                  \
            for (int64_t i = 0; i < n; i++) { T v = b[i]; y[i] = (R)(expr); }                                         \
        } else {                                                                                                      \
            T u = a[0], v = b[0];                                                                                     \
            R r = (R)(expr);                                                                                          \
            for (int64_t i = 0; i < n; i++) y[i] = r;                                                                 \
        }                                                                                                             \
    }                                                                                                                 \
    QX_MULTI(static, name, (const void *va, int64_t sa, const void *vb, int64_t sb, void *vy, int64_t n), (va, sa, vb, sb, vy, n))

/* Integer powers that models really use stay exact and fast; everything else is libm's. */
static inline float pow_f32(float u, float v) { return v == 2.0f ? u * u : v == 3.0f ? u * u * u : v == 1.0f ? u : powf(u, v); }
static inline double pow_f64(double u, double v) { return v == 2.0 ? u * u : pow(u, v); }
/* A remainder of zero takes the sign of the divisor, as in the standard's reference. */
static inline float mod_f32(float u, float v) { float r = fmodf(u, v); return r == 0 ? copysignf(0, v) : (r < 0) != (v < 0) ? r + v : r; }
static inline double mod_f64(double u, double v) { double r = fmod(u, v); return r == 0 ? copysign(0, v) : (r < 0) != (v < 0) ? r + v : r; }

#define FLOATS(X) X(FLOAT, float, float, f32) X(DOUBLE, double, double, f64)
#define INTS(X) \
    X(INT8, int8_t, uint8_t) X(UINT8, uint8_t, uint8_t) X(INT16, int16_t, uint16_t) X(UINT16, uint16_t, uint16_t) \
    X(INT32, int32_t, uint32_t) X(UINT32, uint32_t, uint32_t) X(INT64, int64_t, uint64_t) X(UINT64, uint64_t, uint64_t)

/* NaN in either operand comes out of min and max. */
#define COMMON(dt, T)                                                                                  \
    LOOP(b_##dt##_EQUAL, T, uint8_t, u == v) LOOP(b_##dt##_LESS, T, uint8_t, u < v) LOOP(b_##dt##_LESS_EQUAL, T, uint8_t, u <= v) \
    LOOP(b_##dt##_GREATER, T, uint8_t, u > v) LOOP(b_##dt##_GREATER_EQUAL, T, uint8_t, u >= v)                 \
    LOOP(b_##dt##_MIN, T, T, u != u ? u : v != v ? v : u < v ? u : v) LOOP(b_##dt##_MAX, T, T, u != u ? u : v != v ? v : u > v ? u : v)

#define DEFINE(dt, T, p, s)                                                                            \
    COMMON(dt, T)                                                                                      \
    LOOP(b_##dt##_ADD, T, T, u + v) LOOP(b_##dt##_SUB, T, T, u - v) LOOP(b_##dt##_MUL, T, T, u * v) LOOP(b_##dt##_DIV, T, T, u / v) \
    LOOP(b_##dt##_POW, T, T, pow_##s(u, v)) LOOP(b_##dt##_MOD, T, T, mod_##s(u, v)) LOOP(b_##dt##_FMOD, T, T, fmod(u, v)) \
    LOOP(b_##dt##_PRELU, T, T, u < 0 ? u * v : u)
FLOATS(DEFINE)
#undef DEFINE

/* Quotient without traps: x / 0 = 0, MIN / -1 = MIN. */
#define IDIV(T, U, u, v) ((v) == 0 ? (T)0 : (T)-1 < 0 && (v) == (T)-1 ? (T)((U)0 - (U)(u)) : (T)((u) / (v)))
#define IREM(T, u, v) ((v) == 0 || ((T)-1 < 0 && (v) == (T)-1) ? (T)0 : (T)((u) % (v)))

#define DEFINE(dt, T, U)                                                                               \
    static inline T mod_##dt(T u, T v) { T r = IREM(T, u, v); return r != 0 && (r < 0) != (v < 0) ? (T)(r + v) : r; } \
    static inline T pow_##dt(T u, T v)                                                                 \
    {                                                                                                  \
        if ((T)-1 < 0 && v < 0) return (T)(u == 1 ? 1 : u == (T)-1 ? (v % 2 ? -1 : 1) : 0);            \
        U r = 1, x = (U)u;                                                                             \
        for (U e = (U)v; e; e = (U)(e >> 1)) { if (e & 1) r = (U)((uint64_t)r * x); x = (U)((uint64_t)x * x); } \
        return (T)r;                                                                                   \
    }                                                                                                  \
    COMMON(dt, T)                                                                                      \
    LOOP(b_##dt##_ADD, T, T, (U)u + (U)v) LOOP(b_##dt##_SUB, T, T, (U)u - (U)v) LOOP(b_##dt##_MUL, T, T, (uint64_t)(U)u * (U)v) \
    LOOP(b_##dt##_DIV, T, T, IDIV(T, U, u, v)) LOOP(b_##dt##_POW, T, T, pow_##dt(u, v)) LOOP(b_##dt##_MOD, T, T, mod_##dt(u, v)) \
    LOOP(b_##dt##_FMOD, T, T, IREM(T, u, v)) LOOP(b_##dt##_PRELU, T, T, u < 0 ? (T)((uint64_t)(U)u * (U)v) : u) \
    LOOP(b_##dt##_AND, T, T, u & v) LOOP(b_##dt##_OR, T, T, u | v) LOOP(b_##dt##_XOR, T, T, u ^ v)                 \
    LOOP(b_##dt##_SHL, T, T, (uint64_t)v >= sizeof(T) * 8 ? 0 : (uint64_t)(U)u << v) LOOP(b_##dt##_SHR, T, T, (uint64_t)v >= sizeof(T) * 8 ? (u < 0 ? (T)-1 : 0) : u >> v)
INTS(DEFINE)
#undef DEFINE

qx_binary_fn *qx_binary_find(qx_binary op, qx_dtype dtype)
{
    static qx_binary_fn *const table[QX_DT_COUNT_][QX_B_COUNT_] = {
#define COMMON_ROW(dt)                                                                                     \
    [QX_B_EQUAL] = b_##dt##_EQUAL, [QX_B_LESS] = b_##dt##_LESS, [QX_B_LESS_EQUAL] = b_##dt##_LESS_EQUAL, [QX_B_GREATER] = b_##dt##_GREATER, \
    [QX_B_GREATER_EQUAL] = b_##dt##_GREATER_EQUAL, [QX_B_MIN] = b_##dt##_MIN, [QX_B_MAX] = b_##dt##_MAX, [QX_B_ADD] = b_##dt##_ADD, [QX_B_SUB] = b_##dt##_SUB, \
    [QX_B_MUL] = b_##dt##_MUL, [QX_B_DIV] = b_##dt##_DIV, [QX_B_POW] = b_##dt##_POW, [QX_B_MOD] = b_##dt##_MOD, [QX_B_FMOD] = b_##dt##_FMOD, [QX_B_PRELU] = b_##dt##_PRELU
#define ROW(dt, T, p, s) [QX_DT_##dt] = {COMMON_ROW(dt)},
        FLOATS(ROW)
#undef ROW
#define ROW(dt, T, U) \
    [QX_DT_##dt] = {COMMON_ROW(dt), [QX_B_AND] = b_##dt##_AND, [QX_B_OR] = b_##dt##_OR, [QX_B_XOR] = b_##dt##_XOR, [QX_B_SHL] = b_##dt##_SHL, [QX_B_SHR] = b_##dt##_SHR},
        INTS(ROW)
#undef ROW
        [QX_DT_BOOL] = {[QX_B_EQUAL] = b_UINT8_EQUAL, [QX_B_AND] = b_UINT8_AND, [QX_B_OR] = b_UINT8_OR, [QX_B_XOR] = b_UINT8_XOR},
    };
    if (dtype < 0 || dtype >= QX_DT_COUNT_) return NULL;
    return table[dtype][op];
}

#define SELECT(T) \
    for (int64_t i = 0; i < n; i++) ((T *)y)[i] = c[i * sc] ? ((const T *)a)[i * sa] : ((const T *)b)[i * sb];
typedef struct wide { uint64_t lo, hi; } wide;

QX_INLINE void qx_select_body(const uint8_t *c, int64_t sc, const void *a, int64_t sa, const void *b, int64_t sb, void *y, int64_t n,
                              int size)
{
    if (size == 4 && sc == 1 && sa == 1 && sb == 1) { SELECT(uint32_t) }
    else if (size == 1) { SELECT(uint8_t) }
    else if (size == 2) { SELECT(uint16_t) }
    else if (size == 4) { SELECT(uint32_t) }
    else if (size == 8) { SELECT(uint64_t) }
    else { SELECT(wide) }
}
QX_MULTI(, qx_select, (const uint8_t *c, int64_t sc, const void *a, int64_t sa, const void *b, int64_t sb, void *y, int64_t n, int size),
         (c, sc, a, sa, b, sb, y, n, size))
