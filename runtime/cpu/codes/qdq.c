/* qdq.c - QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear. A tensor is [outer, d, inner] around the quantization axis; it
 * is cut into matrices that a qx_grid can describe, and these into pieces of rows for the threads. */
#include "runtime/cpu/codes/qdq.h"

#include <math.h>
#include <string.h>

#include "kernels/quant.h"

enum { PIECE = 1 << 16 };

qx_status qx_qlayout_make(const qx_call *c, const qx_tensor *x, const qx_tensor *scale, int64_t axis, int64_t block, qx_qlayout *l)
{
    char a[96], b[96];
    *l = (qx_qlayout){.scalar = scale->numel == 1 && block == 0, .outer = 1, .d = x->numel, .inner = 1, .block = 1, .blocks = x->numel};
    if (l->scalar) return QX_OK;
    if (x->rank == 1 && block == 0) axis = 0; /* a vector has one axis, whatever the default says */
    QX_TRY(qx_call_axis(c, axis, x->rank, &l->axis));
    l->outer = qx_prod(x->dims, 0, l->axis);
    l->d = x->dims[l->axis];
    l->inner = qx_prod(x->dims, l->axis + 1, x->rank);
    l->blocked = block > 0;
    l->block = block > 0 ? block : 1;
    l->blocks = (l->d + l->block - 1) / l->block;
    bool fits = l->blocked ? scale->rank == x->rank : scale->rank == 1 && scale->dims[0] == l->d;
    for (int i = 0; fits && l->blocked && i < x->rank; i++) fits = scale->dims[i] == (i == l->axis ? l->blocks : x->dims[i]);
    if (!fits)
        QX_CALL_FAIL(c, QX_E_SHAPE, "scale %s does not fit %s (axis %d, block size %lld)", qx_tensor_describe(scale, a, sizeof a),
                     qx_tensor_describe(x, b, sizeof b), l->axis, (long long)block);
    return QX_OK;
}

/* One way or the other over pieces; x is the float-like side, codes the quantized one. */
typedef struct job {
    const qx_qparams *p;
    qx_dtype type;
    const char *src; char *dst;
    int64_t n, rows, cols, slices, per, pieces; /* rows of a slice, rows a piece, pieces a slice */
    bool quantize, unpacked;
} job;

static size_t bytes_at(const job *j, bool codes, int64_t element)
{
    if (codes && j->unpacked) return (size_t)element;
    return (size_t)element * (size_t)qx_dtype_bits(codes ? j->p->codes : j->type) / 8;
}

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    const qx_qlayout *l = &j->p->layout;
    int64_t slice = i / j->pieces, r0 = i % j->pieces * j->per, rows = j->rows - r0 < j->per ? j->rows - r0 : j->per;
    int64_t first = (slice * j->rows + r0) * j->cols, cell;
    qx_quant q = {.format = {.codes = j->p->codes}, .no_saturate = j->p->no_saturate, .unpacked = j->unpacked,
                  .grid = {rows, j->cols, rows, j->cols}};
    if (l->scalar) { /* rows are just a way to cut */
        cell = 0;
    } else if (l->inner == 1) { /* [outer, d] */
        q.grid.block_r = l->blocked ? 1 : rows;
        q.grid.block_c = l->block;
        cell = l->blocked ? r0 * l->blocks : 0;
    } else { /* [d, inner] of one outer index */
        q.grid.block_r = l->block;
        q.grid.block_c = l->blocked ? 1 : l->inner;
        cell = l->blocked ? (slice * l->blocks + r0 / l->block) * l->inner : r0;
    }
    q.scale = j->p->scale + cell;
    q.zero = j->p->zero ? j->p->zero + cell : NULL;
    const char *src = j->src + bytes_at(j, !j->quantize, first);
    char *dst = j->dst + bytes_at(j, j->quantize, first);
    bool ok = j->quantize ? qx_quantize(&q, j->type, src, dst) : qx_dequantize(&q, src, j->type, dst);
    return ok ? QX_OK : QX_E_TYPE;
}

static qx_status run(qx_call *c, job *j)
{
    const qx_qlayout *l = &j->p->layout;
    int bits = qx_dtype_bits(j->p->codes), per_byte = bits < 8 && !j->unpacked ? 8 / bits : 1;
    j->slices = 1;
    if (l->scalar) {
        j->cols = j->n < PIECE ? j->n : PIECE;
        j->rows = j->cols ? j->n / j->cols : 0;
    } else if (l->inner == 1) {
        j->rows = l->outer;
        j->cols = l->d;
    } else {
        j->slices = l->outer;
        j->rows = l->d;
        j->cols = l->inner;
    }
    if (j->n == 0) return QX_OK;
    int64_t step = (l->scalar ? 1 : l->block) * per_byte; /* pieces start at block and byte boundaries */
    j->per = (PIECE / j->cols + 1 + step - 1) / step * step;
    j->pieces = (j->rows + j->per - 1) / j->per;
    qx_status st = qx_parallel(c->ctx, j->slices * j->pieces, piece, j);
    if (st == QX_E_TYPE)
        QX_CALL_FAIL(c, st, "%s and %s are not converted into each other", qx_dtype_get(j->type)->text, qx_dtype_get(j->p->codes)->text);
    QX_TRY(st);
    int64_t done = j->rows * j->cols * j->slices;
    if (done == j->n) return QX_OK;
    job rest = *j; /* per tensor: the tail behind the last full row */
    rest.src += bytes_at(j, !j->quantize, done);
    rest.dst += bytes_at(j, j->quantize, done);
    rest.n = rest.cols = j->n - done;
    rest.rows = rest.pieces = rest.per = 1;
    return piece(&rest, 0) == QX_OK ? QX_OK : QX_E_TYPE;
}

/* Packed codes whose slices do not start at whole bytes go through one byte a code. */
static bool needs_unpacking(const qx_qparams *p)
{
    int bits = qx_dtype_bits(p->codes);
    return bits < 8 && !p->layout.scalar && p->layout.inner > 1 && p->layout.outer > 1 && p->layout.d * p->layout.inner % (8 / bits) != 0;
}

qx_status qx_q_tensor(qx_call *c, const qx_qparams *p, qx_dtype src_type, const void *src, int64_t n, void *codes)
{
    job j = {.p = p, .type = src_type, .src = src, .dst = codes, .n = n, .quantize = true, .unpacked = needs_unpacking(p)};
    uint8_t *wide = NULL;
    if (j.unpacked) {
        QX_TRY(QX_CALL_SCRATCH(c, n, &wide));
        j.dst = (char *)wide;
    }
    QX_TRY(run(c, &j));
    if (j.unpacked) qx_pack(qx_dtype_bits(p->codes), wide, n, codes);
    return QX_OK;
}

qx_status qx_dq_tensor(qx_call *c, const qx_qparams *p, const void *codes, int64_t n, qx_dtype dst_type, void *dst)
{
    job j = {.p = p, .type = dst_type, .src = codes, .dst = dst, .n = n, .unpacked = needs_unpacking(p)};
    if (j.unpacked) {
        uint8_t *wide = NULL;
        QX_TRY(QX_CALL_SCRATCH(c, n, &wide));
        qx_unpack(qx_dtype_bits(p->codes), qx_dtype_get(p->codes)->cls == 'I', codes, n, wide);
        j.src = (const char *)wide;
    }
    return run(c, &j);
}

qx_status qx_q_zeros(qx_call *c, const qx_tensor *zp, const int32_t **out)
{
    const float *f;
    int32_t *z = NULL;
    *out = NULL;
    if (!zp || qx_dtype_is_float(zp->dtype)) return QX_OK;
    QX_TRY(QX_CALL_SCRATCH(c, zp->numel, &z));
    if (zp->dtype == QX_DT_INT32) {
        memcpy(z, zp->data, zp->bytes);
    } else {
        QX_TRY(qx_call_to_f32(c, zp, &f));
        for (int64_t i = 0; i < zp->numel; i++) z[i] = (int32_t)f[i];
    }
    *out = z;
    return QX_OK;
}

/* Powers of two that are stored as bytes. */
static qx_status powers(qx_call *c, const qx_tensor *bytes, const float **out)
{
    float *f;
    QX_TRY(QX_CALL_SCRATCH(c, bytes->numel, &f));
    (void)qx_to_f32(QX_DT_FLOAT8E8M0, bytes->data, bytes->numel, f);
    *out = f;
    return QX_OK;
}

/* TensorRT reads blocks off the shapes where the attribute is missing. */
static void blocks_by_shape(const qx_tensor *x, const qx_tensor *scale, int64_t *axis, int64_t *block)
{
    if (scale->numel == 1 || scale->rank != x->rank || x->rank < 2) return;
    for (int i = 0; i < x->rank; i++)
        if (scale->dims[i] > 0 && scale->dims[i] < x->dims[i]) *axis = i, *block = x->dims[i] / scale->dims[i];
}

static qx_status common(qx_call *c, const qx_qdefault *d, const qx_tensor **x, qx_qparams *p)
{
    const qx_tensor *scale, *zp = qx_call_in(c, 2);
    char a[96], b[96];
    QX_TRY(qx_call_need(c, 0, x));
    QX_TRY(qx_call_need(c, 1, &scale));
    int64_t axis = qx_call_int(c, "axis", 1), block = qx_call_int(c, "block_size", 0);
    if (d->by_shape && !block) blocks_by_shape(*x, scale, &axis, &block);
    QX_TRY(qx_qlayout_make(c, *x, scale, axis, block, &p->layout));
    if (zp && zp->numel != scale->numel)
        QX_CALL_FAIL(c, QX_E_SHAPE, "zero point %s, scale %s", qx_tensor_describe(zp, a, sizeof a), qx_tensor_describe(scale, b, sizeof b));
    QX_TRY(d->powers && scale->dtype == QX_DT_UINT8 ? powers(c, scale, &p->scale) : qx_call_in_f32(c, 1, &p->scale));
    return qx_q_zeros(c, zp, &p->zero);
}

qx_status qx_q_node(qx_call *c, const qx_qdefault *d)
{
    const qx_tensor *x, *zp = qx_call_in(c, 2);
    qx_tensor *y = NULL;
    qx_qparams p = {.no_saturate = qx_call_int(c, "saturate", 1) == 0};
    QX_TRY(common(c, d, &x, &p));
    p.codes = (qx_dtype)qx_call_int(c, "output_dtype", 0);
    if (!p.codes) p.codes = zp ? zp->dtype : d->codes;
    if (zp && zp->dtype != p.codes)
        QX_CALL_FAIL(c, QX_E_TYPE, "output_dtype is %s, the zero point %s", qx_dtype_get(p.codes)->text, qx_dtype_get(zp->dtype)->text);
    QX_TRY(qx_call_out(c, 0, p.codes, x->rank, x->dims, &y));
    const float *f = NULL;
    if (x->dtype == QX_DT_INT32) { /* allowed by the standard; the loops know floats */
        QX_TRY(qx_call_to_f32(c, x, &f));
        return qx_q_tensor(c, &p, QX_DT_FLOAT, f, x->numel, y->data);
    }
    return qx_q_tensor(c, &p, x->dtype, x->data, x->numel, y->data);
}

qx_status qx_dq_node(qx_call *c, const qx_qdefault *d)
{
    const qx_tensor *x, *scale;
    qx_tensor *y = NULL;
    qx_qparams p = {0};
    QX_TRY(common(c, d, &x, &p));
    QX_TRY(qx_call_need(c, 1, &scale));
    const bool bytes = d->codes == QX_DT_FLOAT8E4M3FN && x->dtype == QX_DT_UINT8; /* files of TransformerEngine */
    p.codes = bytes ? d->codes : x->dtype;
    qx_dtype out = (qx_dtype)qx_call_int(c, "output_dtype", 0);
    if (!out) out = qx_dtype_is_real(scale->dtype) ? scale->dtype : QX_DT_FLOAT;
    QX_TRY(qx_call_out(c, 0, out, x->rank, x->dims, &y));
    return qx_dq_tensor(c, &p, x->data, x->numel, out, y->data);
}

qx_status qx_cpu_quantize(qx_call *c) { return qx_q_node(c, &(qx_qdefault){.codes = QX_DT_UINT8}); }
qx_status qx_cpu_dequantize(qx_call *c) { return qx_dq_node(c, &(qx_qdefault){.codes = QX_DT_UINT8}); }

void qx_dynamic_range(const float *x, int64_t n, float *lo, float *hi)
{
    qx_grid g = {1, n, 1, n ? n : 1};
    *lo = *hi = 0;
    if (n) qx_min_max(&g, QX_DT_FLOAT, x, lo, hi, NULL);
}

void qx_dynamic_scale(float lo, float hi, float *scale, int32_t *zero)
{
    *scale = (hi - lo) / 255.0f;
    if (*scale == 0) *scale = 1.0f;
    const float z = nearbyintf(0.0f - lo / *scale);
    *zero = z < 0 ? 0 : z > 255 ? 255 : (int32_t)z;
}

qx_status qx_cpu_dynamic_quantize(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor *y = NULL, *ys = NULL, *yz = NULL;
    const float *f;
    float lo, hi, scale;
    int32_t zero;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_f32(c, 0, &f));
    QX_TRY(qx_call_out(c, 0, QX_DT_UINT8, x->rank, x->dims, &y));
    QX_TRY(qx_call_out(c, 1, QX_DT_FLOAT, 0, NULL, &ys));
    QX_TRY(qx_call_out(c, 2, QX_DT_UINT8, 0, NULL, &yz));
    qx_dynamic_range(f, x->numel, &lo, &hi);
    qx_dynamic_scale(lo, hi, &scale, &zero);
    *(float *)ys->data = scale;
    *(uint8_t *)yz->data = (uint8_t)zero;
    qx_qparams p = {.layout = {.scalar = true}, .codes = QX_DT_UINT8, .scale = &scale, .zero = &zero};
    return qx_q_tensor(c, &p, QX_DT_FLOAT, f, x->numel, y->data);
}
