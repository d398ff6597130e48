/* pointwise.cu - element by element: unary functions, binary operations under broadcasting, chains of both, selection, casts.
 * Bound by memory, so the type of an element is looked up when it is read instead of being compiled in: one kernel serves all
 * types. */
#include "kernels/cuda/ops.h"

QK_KERNEL(unary_kernel, qk_unary_args)
{
    QK_EACH(piece, a.wide ? a.n / QK_WIDE : 0) {
        float v[QK_WIDE];
        qk_real8(a.x, a.dtype, piece * QK_WIDE, v);
        unary_reals(a.op, v, a.p, QK_WIDE);
        qk_put_real8(a.y, a.dtype, piece * QK_WIDE, v);
    }
    if (a.wide) return;
    QK_EACH(i, a.n) {
        if (!qk_is_real(a.dtype)) {
            qk_put_int(a.y, a.dtype, i, unary_int(a.op, qk_int(a.x, a.dtype, i)));
            continue;
        }
        float v = qk_real(a.x, a.dtype, i);
        unary_reals(a.op, &v, a.p, 1);
        qk_put_real(a.y, a.dtype, i, v);
    }
}
QK_EXTERN int qk_unary(qk_queue q, const qk_unary_args *args)
{
    qk_unary_args a = *args;
    a.wide = qk_is_real(a.dtype) && a.n % QK_WIDE == 0 && qk_is_wide(a.x) && qk_is_wide(a.y);
    return QK_LAUNCH(unary_kernel, QK_EACH_BLOCKS(a.wide ? a.n / QK_WIDE : a.n), 256, q, &a);
}

QK_KERNEL(flip_kernel, qk_flip_args)
{
    QK_EACH(i, a.n) ((uint8_t *)a.y)[i] = (uint8_t)(((const uint8_t *)a.x)[i] ^ a.flip);
}
QK_EXTERN int qk_flip(qk_queue q, const qk_flip_args *a) { return QK_LAUNCH(flip_kernel, QK_EACH_BLOCKS(a->n), 256, q, a); }

QK_KERNEL(isnan_kernel, qk_isnan_args)
{
    QK_EACH(i, a.n) {
        const float v = qk_real(a.x, a.dtype, i), inf = qx_of_bits(0x7f800000u);
        const int yes = a.kind == 0 ? v != v : ((a.kind & 1) && v == inf) || ((a.kind & 2) && v == -inf);
        ((uint8_t *)a.y)[i] = (uint8_t)yes;
    }
}
QK_EXTERN int qk_isnan(qk_queue q, const qk_isnan_args *a) { return QK_LAUNCH(isnan_kernel, QK_EACH_BLOCKS(a->n), 256, q, a); }

QK_KERNEL(clip_kernel, qk_clip_args)
{
    QK_EACH(i, a.n) {
        if (qk_is_real(a.dtype)) {
            float v = qk_real(a.x, a.dtype, i);
            v = v < a.lo ? a.lo : v;
            qk_put_real(a.y, a.dtype, i, v > a.hi ? a.hi : v);
        } else {
            int64_t v = qk_int(a.x, a.dtype, i);
            v = v < a.ilo ? a.ilo : v;
            qk_put_int(a.y, a.dtype, i, v > a.ihi ? a.ihi : v);
        }
    }
}
QK_EXTERN int qk_clip(qk_queue q, const qk_clip_args *a) { return QK_LAUNCH(clip_kernel, QK_EACH_BLOCKS(a->n), 256, q, a); }

/* ---- binary ---- */

#define COMPARE(op, u, v) \
    ((op) == QX_B_EQUAL ? (u) == (v) : (op) == QX_B_LESS ? (u) < (v) : (op) == QX_B_LESS_EQUAL ? (u) <= (v) : (op) == QX_B_GREATER ? (u) > (v) : (u) >= (v))

/* Eight neighbours of one operand: in a row, or one for all of them. */
QX_HD void operand8(const void *p, int dtype, int rank, const int64_t *dims, const int64_t *stride, int64_t i, float *v)
{
    const int64_t at = qk_offset(i, rank, dims, stride);
    if (stride[rank - 1] == 1) {
        qk_real8(p, dtype, at, v);
        return;
    }
    const float one = qk_real(p, dtype, at);
    QK_UNROLL for (int k = 0; k < QK_WIDE; k++) v[k] = one;
}

QK_KERNEL(binary_kernel, qk_binary_args)
{
    QK_EACH(piece, a.wide ? a.n / QK_WIDE : 0) {
        float u[QK_WIDE], v[QK_WIDE];
        operand8(a.a, a.dtype, a.rank, a.dims, a.sa, piece * QK_WIDE, u);
        operand8(a.b, a.dtype, a.rank, a.dims, a.sb, piece * QK_WIDE, v);
        binary_reals(a.op, u, v, 0, QK_WIDE);
        qk_put_real8(a.y, a.dtype, piece * QK_WIDE, u);
    }
    if (a.wide) return;
    const int compare = a.op >= QX_B_EQUAL && a.op <= QX_B_GREATER_EQUAL, real = qk_is_real(a.dtype);
    QK_EACH(i, a.n) {
        const int64_t ia = qk_offset(i, a.rank, a.dims, a.sa), ib = qk_offset(i, a.rank, a.dims, a.sb);
        if (real) {
            float u = qk_real(a.a, a.dtype, ia), v = qk_real(a.b, a.dtype, ib);
            if (compare) {
                ((uint8_t *)a.y)[i] = (uint8_t)COMPARE(a.op, u, v);
                continue;
            }
            binary_reals(a.op, &u, &v, 0, 1);
            qk_put_real(a.y, a.dtype, i, u);
        } else {
            const int64_t u = qk_int(a.a, a.dtype, ia), v = qk_int(a.b, a.dtype, ib);
            if (compare) ((uint8_t *)a.y)[i] = (uint8_t)COMPARE(a.op, u, v);
            else qk_put_int(a.y, a.dtype, i, binary_int(a.op, u, v));
        }
    }
}
/* Pieces of eight along the last axis: an operand walks through it or stands still, and all its rows begin at multiples of 16 bytes. */
static int operand_is_wide(const void *p, int rank, const int64_t *stride)
{
    if (stride[rank - 1] == 0) return 1;
    for (int k = 0; k + 1 < rank; k++)
        if (stride[k] % QK_WIDE) return 0;
    return stride[rank - 1] == 1 && qk_is_wide(p);
}

QK_EXTERN int qk_binary(qk_queue q, const qk_binary_args *args)
{
    qk_binary_args a = *args;
    const int compare = a.op >= QX_B_EQUAL && a.op <= QX_B_GREATER_EQUAL;
    a.wide = qk_is_real(a.dtype) && !compare && a.rank > 0 && a.dims[a.rank - 1] % QK_WIDE == 0 && qk_is_wide(a.y) &&
        operand_is_wide(a.a, a.rank, a.sa) && operand_is_wide(a.b, a.rank, a.sb);
    return QK_LAUNCH(binary_kernel, QK_EACH_BLOCKS(a.wide ? a.n / QK_WIDE : a.n), 256, q, &a);
}

/* ---- chains ---- */

/* The running value as its type would keep it between two nodes. */
QX_HD float kept(float v, int dtype)
{
    if (dtype == QK_F32) return v;
    return dtype == QK_F16 ? qk_f16_to_f32(qk_f32_to_f16(v)) : qx_sc_bf16_to_f32(qk_f32_to_bf16(v));
}

/* Pieces of EACH elements: the same few operations on all of them. */
QK_INSIDE void chain_piece(const qk_chain_args *a, const int64_t i, const int EACH)
{
    float v[QK_WIDE], u[QK_WIDE];
    if (EACH == 1) v[0] = qk_real(a->in[0], a->dtype, i);
    else qk_real8(a->in[0], a->dtype, i, v);
    for (int o = 0; o < a->n_ops; o++) {
        const qk_chain_op *op = &a->ops[o];
        if (op->binary && EACH == 1) u[0] = qk_real(a->in[op->input], a->dtype, qk_offset(i, a->rank, a->dims, a->strides[op->input]));
        else if (op->binary) operand8(a->in[op->input], a->dtype, a->rank, a->dims, a->strides[op->input], i, u);
        if (op->binary) binary_reals(op->fn, v, u, op->swapped, EACH);
        else unary_reals(op->fn, v, op->p, EACH);
        QK_UNROLL for (int k = 0; k < EACH; k++) v[k] = kept(v[k], a->dtype);
    }
    if (EACH == 1) qk_put_real(a->y, a->dtype, i, v[0]);
    else qk_put_real8(a->y, a->dtype, i, v);
}

QK_KERNEL(chain_kernel, qk_chain_args) { QK_EACH(i, a.n) chain_piece(&a, i, 1); }
QK_KERNEL(chain_wide_kernel, qk_chain_args) { QK_EACH(piece, a.n / QK_WIDE) chain_piece(&a, piece * QK_WIDE, QK_WIDE); }
QK_EXTERN int qk_chain(qk_queue q, const qk_chain_args *a)
{
    int wide = a->dims[a->rank - 1] % QK_WIDE == 0 && qk_is_wide(a->in[0]) && qk_is_wide(a->y);
    for (int i = 1; i < a->n_in && wide; i++) wide = operand_is_wide(a->in[i], a->rank, a->strides[i]);
    if (wide) return QK_LAUNCH(chain_wide_kernel, QK_EACH_BLOCKS(a->n / QK_WIDE), 256, q, a);
    return QK_LAUNCH(chain_kernel, QK_EACH_BLOCKS(a->n), 256, q, a);
}

QK_KERNEL(where_kernel, qk_where_args)
{
    QK_EACH(i, a.n) {
        if (((const uint8_t *)a.c)[qk_offset(i, a.rank, a.dims, a.sc)]) qk_move(a.a, qk_offset(i, a.rank, a.dims, a.sa), a.y, i, a.size);
        else qk_move(a.b, qk_offset(i, a.rank, a.dims, a.sb), a.y, i, a.size);
    }
}
QK_EXTERN int qk_where(qk_queue q, const qk_where_args *a) { return QK_LAUNCH(where_kernel, QK_EACH_BLOCKS(a->n), 256, q, a); }

/* ---- cast: runtime/cpu/pointwise/cast.c ---- */

QX_HD int64_t cut(double v)
{
    if (!(v > -9223372036854775808.0)) return v != v ? 0 : INT64_MIN;
    return v >= 9223372036854775808.0 ? INT64_MAX : (int64_t)v;
}

QX_HD int reads_int(int dt) { return dt == QK_I64 || dt == QK_U64 || dt == QK_I32 || dt == QK_U32; }

QX_HD uint8_t cast_float8(float v, int dt, int saturate)
{
    const float limit = dt == QK_E4M3FNUZ ? 248.0f : 61440.0f;
    if (dt == QK_E4M3 || dt == QK_E5M2) return qk_to_small_float(v, dt, saturate);
    if (!saturate && fabsf(v) >= limit) return 0x80;
    return qk_to_small_float(v, dt, 1);
}

QX_HD double cast_value(const void *x, int dt, int64_t i)
{
    if (dt == QK_F64) return ((const double *)x)[i];
    if (dt == QK_U64) return (double)((const uint64_t *)x)[i];
    return reads_int(dt) ? (double)qk_int(x, dt, i) : (double)qk_get(x, dt, i);
}

/* The bits of one element of the target type; packed types: the low bits. */
QX_HD uint64_t cast_one(const qk_cast_args *a, int64_t i)
{
    const int to = a->to;
    if (to == QK_BOOL) return reads_int(a->from) ? qk_int(a->x, a->from, i) != 0 : cast_value(a->x, a->from, i) != 0;
    if (qk_is_real(to) || to == QK_E2M1 || (to >= QK_E4M3 && to <= QK_E5M2FNUZ) || to == QK_E8M0) {
        const float v = (float)cast_value(a->x, a->from, i);
        if (to == QK_F32) return qx_bits_of(v);
        if (to == QK_F16) return qx_sc_f32_to_f16(v);
        if (to == QK_BF16) return qx_sc_f32_to_bf16(v);
        if (to == QK_E2M1) return qx_sc_f32_to_e2m1(v);
        return cast_float8(v, to, a->saturate);
    }
    if (to == QK_F64) {
        const double v = cast_value(a->x, a->from, i);
        uint64_t u;
        memcpy(&u, &v, sizeof u);
        return u;
    }
    if (reads_int(a->from)) return (uint64_t)qk_int(a->x, a->from, i);
    const double v = cast_value(a->x, a->from, i);
    if (to == QK_U64 && v >= 9223372036854775808.0) return v >= 18446744073709551616.0 ? UINT64_MAX : (uint64_t)v;
    return (uint64_t)cut(v);
}

QX_HD int type_bits(int dt)
{
    if (dt == QK_F32 || dt == QK_I32 || dt == QK_U32) return 32;
    if (dt == QK_I64 || dt == QK_U64 || dt == QK_F64) return 64;
    if (dt == QK_F16 || dt == QK_BF16 || dt == QK_I16 || dt == QK_U16) return 16;
    if (dt == QK_U4 || dt == QK_I4 || dt == QK_E2M1) return 4;
    return dt == QK_U2 || dt == QK_I2 ? 2 : 8;
}

QX_HD int is_small_float(int dt) { return dt >= QK_E4M3 && dt <= QK_E5M2FNUZ; }

/* Reals, and 8-bit floats to reals: eight at a time. */
QK_INSIDE void cast8(const qk_cast_args *a, int64_t i)
{
    float v[QK_WIDE];
    if (is_small_float(a->from)) QK_UNROLL for (int k = 0; k < QK_WIDE; k++) v[k] = qk_small_float(((const uint8_t *)a->x)[i + k], a->from);
    else qk_real8(a->x, a->from, i, v);
    qk_put_real8(a->y, a->to, i, v);
}

/* One thread a piece of eight, an element, or a byte of packed elements: two threads never write the same byte. */
QK_KERNEL(cast_kernel, qk_cast_args)
{
    QK_EACH(piece, a.wide ? a.n / QK_WIDE : 0) cast8(&a, piece * QK_WIDE);
    if (a.wide) return;
    const int bits = type_bits(a.to), per = bits < 8 ? 8 / bits : 1;
    QK_EACH(item, (a.n + per - 1) / per) {
        uint64_t v = 0;
        for (int k = 0; k < per && item * per + k < a.n; k++) {
            const uint64_t e = cast_one(&a, item * per + k);
            v |= per == 1 ? e : (e & ((1u << bits) - 1u)) << (k * bits);
        }
        qk_move(&v, 0, a.y, item, bits < 8 ? 1 : bits / 8); /* little-endian, as every device and host that runs this */
    }
}
QK_EXTERN int qk_cast(qk_queue q, const qk_cast_args *args)
{
    qk_cast_args a = *args;
    a.wide = (qk_is_real(a.from) || is_small_float(a.from)) && qk_is_real(a.to) && a.n % QK_WIDE == 0 && qk_is_wide(a.x) && qk_is_wide(a.y);
    return QK_LAUNCH(cast_kernel, QK_EACH_BLOCKS(a.wide ? a.n / QK_WIDE : a.n), 256, q, &a);
}
