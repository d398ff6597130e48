/* cast.c - Cast, CastLike: any numeric type to any other.
 *
 * Every source is read as float (types up to 32 bits of float), double, or 64-bit integer, whichever holds it exactly; every target is
 * written from those. Float to integer cuts towards zero; beyond the range of int64 it saturates there, then wraps to the target's width.
 * Narrow floats round half to even; float8 saturates unless saturate = 0, when overflow is Inf (E5M2) or NaN. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cpu/op.h"

enum { TILE = 1024, PIECE = 16 * TILE };
typedef enum form { AS_F32, AS_F64, AS_I64, AS_U64 } form;

typedef struct job { const qx_tensor *x; qx_tensor *y; form form; bool saturate; int e8m0_mode; /* 0 up, 1 down, 2 nearest */ } job;

static form form_of(qx_dtype dt)
{
    if (dt == QX_DT_DOUBLE) return AS_F64;
    if (dt == QX_DT_UINT64) return AS_U64;
    if (dt == QX_DT_INT64 || dt == QX_DT_INT32 || dt == QX_DT_UINT32) return AS_I64;
    return AS_F32; /* narrower integers are exact in float */
}

typedef union tile { float f[TILE]; double d[TILE]; int64_t i[TILE]; uint64_t u[TILE]; } tile;

static void load(const job *j, int64_t first, int64_t n, tile *t)
{
    const void *p = j->x->data;
    switch (j->x->dtype) {
    case QX_DT_DOUBLE: memcpy(t->d, (const double *)p + first, (size_t)n * 8); break;
    case QX_DT_INT64:
    case QX_DT_UINT64: memcpy(t->i, (const int64_t *)p + first, (size_t)n * 8); break;
    case QX_DT_INT32: for (int64_t k = 0; k < n; k++) t->i[k] = ((const int32_t *)p)[first + k]; break;
    case QX_DT_UINT32: for (int64_t k = 0; k < n; k++) t->i[k] = ((const uint32_t *)p)[first + k]; break;
    default: qx_to_f32(j->x->dtype, (const char *)p + first * qx_dtype_bits(j->x->dtype) / 8, n, t->f); break;
    }
}

static int64_t cut_f64(double v)
{
    if (!(v > -9223372036854775808.0)) return v != v ? 0 : INT64_MIN;
    return v >= 9223372036854775808.0 ? INT64_MAX : (int64_t)v;
}

static double value_f64(const tile *t, form f, int64_t k)
{
    return f == AS_F32 ? (double)t->f[k] : f == AS_F64 ? t->d[k] : f == AS_I64 ? (double)t->i[k] : (double)t->u[k];
}

static int64_t value_i64(const tile *t, form f, int64_t k)
{
    if (f == AS_I64) return t->i[k];
    if (f == AS_U64) return (int64_t)t->u[k];
    return cut_f64(value_f64(t, f, k));
}

static uint64_t value_u64(const tile *t, form f, int64_t k)
{
    double v = f <= AS_F64 ? value_f64(t, f, k) : 0;
    if (v >= 9223372036854775808.0) return v >= 18446744073709551616.0 ? UINT64_MAX : (uint64_t)v;
    return (uint64_t)value_i64(t, f, k);
}

static bool value_bool(const tile *t, form f, int64_t k)
{
    return f == AS_F32 ? t->f[k] != 0 : f == AS_F64 ? t->d[k] != 0 : t->i[k] != 0;
}

static uint8_t float8(qx_dtype dt, float v, bool saturate)
{
    uint8_t c = 0;
    if (dt == QX_DT_FLOAT8E4M3FN) return qx_f32_to_e4m3(v, saturate);
    if (dt == QX_DT_FLOAT8E5M2) return qx_f32_to_e5m2(v, saturate);
    float limit = dt == QX_DT_FLOAT8E4M3FNUZ ? 248.0f : 61440.0f; /* ties go to the even code beyond the largest */
    if (!saturate && fabsf(v) >= limit) return 0x80;
    qx_from_f32(dt, &v, 1, &c);
    return c;
}

static uint8_t e8m0(float v, int mode)
{
    int e;
    if (v != v) return 255;
    if (mode == 0) return qx_f32_to_e8m0_ceil(v);
    v = fabsf(v);
    if (v == 0) return 0;
    float m = frexpf(v, &e); /* v = m 2^e, m in [0.5, 1) */
    int code = e - 1 + 127 + (mode == 2 && m >= 0.75f);
    return (uint8_t)(code < 0 ? 0 : code > 254 ? 254 : code);
}

static void store_float(const job *j, const tile *t, int64_t first, int64_t n)
{
    float f[TILE];
    const float *src = j->form == AS_F32 ? t->f : f;
    qx_dtype dt = j->y->dtype;
    uint8_t *b = j->y->data;
    if (j->form != AS_F32)
        for (int64_t k = 0; k < n; k++) f[k] = (float)value_f64(t, j->form, k);
    if (dt == QX_DT_FLOAT8E8M0)
        for (int64_t k = 0; k < n; k++) b[first + k] = e8m0(src[k], j->e8m0_mode);
    else if (dt >= QX_DT_FLOAT8E4M3FN && dt <= QX_DT_FLOAT8E5M2FNUZ)
        for (int64_t k = 0; k < n; k++) b[first + k] = float8(dt, src[k], j->saturate);
    else qx_from_f32(dt, src, n, b + first * qx_dtype_bits(dt) / 8);
}

#define STORE_INT(DT, T) \
    case QX_DT_##DT: for (int64_t k = 0; k < n; k++) ((T *)p)[first + k] = (T)value_i64(t, j->form, k); break;

static void store_packed(const job *j, const tile *t, int64_t first, int64_t n)
{
    int bits = qx_dtype_bits(j->y->dtype), per = 8 / bits;
    uint8_t *p = j->y->data, mask = (uint8_t)((1 << bits) - 1);
    memset(p + first / per, 0, (size_t)((n + per - 1) / per));
    for (int64_t k = 0; k < n; k++)
        p[(first + k) / per] |= (uint8_t)(((uint64_t)value_i64(t, j->form, k) & mask) << ((first + k) % per * bits));
}

static void store(const job *j, const tile *t, int64_t first, int64_t n)
{
    void *p = j->y->data;
    switch (j->y->dtype) {
    case QX_DT_DOUBLE: for (int64_t k = 0; k < n; k++) ((double *)p)[first + k] = value_f64(t, j->form, k); break;
    case QX_DT_BOOL: for (int64_t k = 0; k < n; k++) ((uint8_t *)p)[first + k] = value_bool(t, j->form, k); break;
    case QX_DT_UINT64: for (int64_t k = 0; k < n; k++) ((uint64_t *)p)[first + k] = value_u64(t, j->form, k); break;
    STORE_INT(INT8, int8_t) STORE_INT(UINT8, uint8_t) STORE_INT(INT16, int16_t) STORE_INT(UINT16, uint16_t)
    STORE_INT(INT32, int32_t) STORE_INT(UINT32, uint32_t) STORE_INT(INT64, int64_t)
    case QX_DT_INT4: case QX_DT_UINT4: case QX_DT_INT2: case QX_DT_UINT2: store_packed(j, t, first, n); break;
    default: store_float(j, t, first, n); break;
    }
}

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    tile t;
    int64_t end = (i + 1) * PIECE < j->x->numel ? (i + 1) * PIECE : j->x->numel;
    for (int64_t k = i * PIECE; k < end; k += TILE) {
        int64_t n = end - k < TILE ? end - k : TILE;
        load(j, k, n, &t);
        store(j, &t, k, n);
    }
    return QX_OK;
}

/* ---- Strings ---- */

/* The fewest digits that read back as the same value. */
static void shortest(double v, bool wide, char *text, size_t cap)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, cap, "%.*g", digits, v);
        if (wide ? strtod(text, NULL) == v : strtof(text, NULL) == (float)v) return;
    }
}

static qx_status to_string(qx_call *c, const qx_tensor *x, qx_tensor *y)
{
    tile t;
    job j = {.x = x, .form = form_of(x->dtype)};
    for (int64_t i = 0; i < x->numel; i++) {
        char text[40];
        if (qx_dtype_bits(x->dtype) >= 8) load(&j, i, 1, &t);
        else QX_CALL_FAIL(c, QX_E_TYPE, "packed types are not cast to strings");
        if (j.form == AS_U64) snprintf(text, sizeof text, "%llu", (unsigned long long)t.u[0]);
        else if (j.form == AS_I64) snprintf(text, sizeof text, "%lld", (long long)t.i[0]);
        else {
            double v = value_f64(&t, j.form, 0);
            if (v != v) snprintf(text, sizeof text, "NaN");
            else if (isinf(v)) snprintf(text, sizeof text, v > 0 ? "INF" : "-INF");
            else shortest(v, j.form == AS_F64, text, sizeof text);
        }
        QX_TRY(qx_alloc(c->ctx, strlen(text) + 1, (void **)&((char **)y->data)[i]));
        memcpy(((char **)y->data)[i], text, strlen(text));
    }
    return QX_OK;
}

static qx_status from_string(qx_call *c, const qx_tensor *x, qx_tensor *y, bool saturate)
{
    tile t;
    qx_tensor one = {.numel = 1};
    bool whole = qx_dtype_get(y->dtype)->cls == 'I' || qx_dtype_get(y->dtype)->cls == 'U';
    job j = {.x = &one, .y = y, .form = whole ? AS_I64 : AS_F64, .saturate = saturate};
    if (qx_dtype_bits(y->dtype) < 8) QX_CALL_FAIL(c, QX_E_TYPE, "strings are not cast to packed types");
    for (int64_t i = 0; i < x->numel; i++) {
        const char *s = ((char *const *)x->data)[i];
        char *end;
        if (whole) t.i[0] = strtoll(s, &end, 10);
        else t.d[0] = strtod(s, &end);
        if (end == s) QX_CALL_FAIL(c, QX_E_FORMAT, "'%.32s' is not a number", s);
        store(&j, &t, i, 1);
    }
    return QX_OK;
}

/* Floats to halves that stay floats: the executor rounds them where they lie, so x is copied unless it ends here. */
static qx_status rounded_later(qx_call *c, const qx_tensor *x)
{
    qx_tensor *y = NULL;
    QX_TRY(qx_call_out_reuse(c, 0, 0, QX_DT_FLOAT, x->rank, x->dims, &y));
    if (y->data != x->data && x->bytes) memcpy(y->data, x->data, x->bytes);
    return QX_OK;
}

static qx_status cast_to(qx_call *c, qx_dtype to)
{
    const qx_tensor *x;
    qx_tensor *y = NULL;
    const char *mode = qx_call_str(c, "round_mode", "up");
    QX_TRY(qx_call_need(c, 0, &x));
    if (qx_call_out_wide(c, 0)) {
        if (x->dtype == QX_DT_FLOAT) return rounded_later(c, x);
        to = QX_DT_FLOAT;
    }
    if (to == x->dtype) return qx_call_out_view(c, 0, 0, x->rank, x->dims);
    char cls = qx_dtype_get(to)->cls;
    if (!cls || cls == 'C' || x->is_sequence || qx_dtype_get(x->dtype)->cls == 'C')
        QX_CALL_FAIL(c, QX_E_TYPE, "%s cannot be cast to type %d", qx_dtype_get(x->dtype)->text, (int)to);
    QX_TRY(qx_call_out(c, 0, to, x->rank, x->dims, &y));
    bool saturate = qx_call_int(c, "saturate", 1) != 0;
    if (to == QX_DT_STRING) return to_string(c, x, y);
    if (x->dtype == QX_DT_STRING) return from_string(c, x, y, saturate);
    job j = {x, y, form_of(x->dtype), saturate, *mode == 'd' ? 1 : *mode == 'n' ? 2 : 0};
    return qx_parallel(c->ctx, (x->numel + PIECE - 1) / PIECE, piece, &j);
}

qx_status qx_cpu_cast(qx_call *c) { return cast_to(c, (qx_dtype)qx_call_int(c, "to", 0)); }

qx_status qx_cpu_cast_like(qx_call *c)
{
    const qx_tensor *like;
    QX_TRY(qx_call_need(c, 1, &like));
    return cast_to(c, like->dtype);
}
