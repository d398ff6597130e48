/* nbits.c - MatMulNBits, GatherBlockQuantized, and the fused step for a constant low-precision weight behind DequantizeLinear:
 * codes stay codes in memory. The products are kernels/nbits.h. */
#include "kernels/nbits.h"

#include <string.h>

#include "kernels/quant.h"
#include "runtime/cpu/op.h"
#include "runtime/cpu/codes/qdq.h"
#include "runtime/fuse/fuse.h"

typedef struct state { qx_nbits w; float *scale, *zero; uint8_t *codes; float *bias; } state;

static void drop(qx_ctx *ctx, void *block)
{
    state *s = block;
    qx_free(ctx, s->scale);
    qx_free(ctx, s->zero);
    qx_free(ctx, s->codes);
    qx_free(ctx, s->bias);
}

/* ---- y = x W' ---- */

static int64_t blocks_of(const qx_nbits *w) { return w->k / w->block + (w->k % w->block != 0); }

enum { PREPARED = 16 /* rows of a piece */ };
typedef struct job { const qx_nbits *w; const float *x; float *y, *scratch; int64_t m; } job;

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    qx_nbits_piece(j->w, j->m, j->x, j->w->k, j->scratch, j->y, j->w->n, i);
    return QX_OK;
}

static qx_status prepare(void *user, int64_t i)
{
    const job *j = user;
    for (int64_t r = i * PREPARED; r < j->m && r < (i + 1) * PREPARED; r++) qx_nbits_prepare(j->w, j->m, j->x, j->w->k, r, j->scratch);
    return QX_OK;
}

static qx_status product(qx_call *c, qx_nbits *w, const float *x, int64_t m, const float *bias, float *y)
{
    job j = {.w = w, .x = x, .y = y, .m = m};
    if (m == 0 || w->n == 0) return QX_OK;
    w->bias = bias;
    qx_call_note_kernel(c, qx_nbits_kernel(w, m), 2.0 * (double)m * (double)w->n * (double)w->k);
    QX_TRY(QX_CALL_SCRATCH(c, qx_nbits_scratch(w, m), &j.scratch));
    if (qx_nbits_prepares(w, m)) QX_TRY(qx_parallel(c->ctx, (m + PREPARED - 1) / PREPARED, prepare, &j));
    return qx_parallel(c->ctx, qx_nbits_pieces(w, m), piece, &j);
}

/* ---- MatMulNBits ---- */

/* Zero points: packed codes (each row padded to a byte) or floats of any type, as floats. */
static qx_status zeros(qx_call *c, const qx_tensor *t, const qx_nbits *w, float **out)
{
    const float *f;
    *out = NULL;
    if (!t) return QX_OK;
    int64_t n = w->n * blocks_of(w), row = (blocks_of(w) * w->bits + 7) / 8;
    QX_TRY(qx_alloc_array(c->ctx, (size_t)n, sizeof **out, (void **)out));
    if (t->dtype == QX_DT_UINT8) {
        if (t->numel != w->n * row)
            QX_CALL_FAIL(c, QX_E_SHAPE, "zero_points has %lld bytes, %lld rows of %lld are needed", (long long)t->numel, (long long)w->n,
                         (long long)row);
        const uint8_t *p = t->data;
        for (int64_t j = 0; j < n; j++) {
            int64_t bit = j % blocks_of(w) * w->bits;
            (*out)[j] = (float)(p[j / blocks_of(w) * row + bit / 8] >> (bit % 8) & ((1 << w->bits) - 1));
        }
        return QX_OK;
    }
    if (t->numel != n) QX_CALL_FAIL(c, QX_E_SHAPE, "zero_points has %lld elements, %lld are needed", (long long)t->numel, (long long)n);
    QX_TRY(qx_call_to_f32(c, t, &f));
    memcpy(*out, f, (size_t)n * sizeof **out);
    return QX_OK;
}

static qx_status nbits_attributes(qx_call *c, qx_nbits *w)
{
    w->bits = (int)qx_call_int(c, "bits", 4);
    w->n = qx_call_int(c, "N", 0);
    w->k = qx_call_int(c, "K", 0);
    w->block = qx_call_int(c, "block_size", 0);
    bool power = w->block >= 16 && (w->block & (w->block - 1)) == 0;
    if ((w->bits != 2 && w->bits != 4 && w->bits != 8) || w->n < 1 || w->k < 1 || !power)
        QX_CALL_FAIL(c, QX_E_SHAPE, "N %lld, K %lld, bits %d, block_size %lld", (long long)w->n, (long long)w->k, w->bits,
                     (long long)w->block);
    return QX_OK;
}

static qx_status nbits_weights(qx_call *c, state *s)
{
    const qx_tensor *b, *scale;
    const float *f;
    QX_TRY(nbits_attributes(c, &s->w));
    QX_TRY(qx_call_need(c, 1, &b));
    QX_TRY(qx_call_need(c, 2, &scale));
    int64_t bytes = s->w.n * blocks_of(&s->w) * (s->w.block * s->w.bits / 8);
    if ((int64_t)b->bytes != bytes || scale->numel != s->w.n * blocks_of(&s->w))
        QX_CALL_FAIL(c, QX_E_SHAPE, "B has %zu bytes and scales %lld elements, %lld and %lld are needed", b->bytes,
                     (long long)scale->numel, (long long)bytes, (long long)(s->w.n * blocks_of(&s->w)));
    if (qx_call_int(c, "weight_prepacked", 0)) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "weights packed for another device");
    const qx_tensor *g = qx_call_in(c, 4);
    if (g && g->numel) {
        const int64_t *idx;
        int64_t n;
        QX_TRY(qx_call_in_i64(c, 4, &idx, &n));
        for (int64_t i = 0; i < n; i++)
            if (idx[i] != i / s->w.block)
                QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "g_idx reorders the groups (element %lld is %lld)", (long long)i, (long long)idx[i]);
    }
    QX_TRY(qx_call_in_f32(c, 2, &f));
    QX_TRY(qx_alloc_array(c->ctx, (size_t)scale->numel, sizeof *s->scale, (void **)&s->scale));
    memcpy(s->scale, f, (size_t)scale->numel * sizeof *f);
    s->w.scale = s->scale;
    QX_TRY(zeros(c, qx_call_in(c, 3), &s->w, &s->zero));
    s->w.zero_f = s->zero;
    return QX_OK;
}

typedef struct widening { const uint8_t *from; uint8_t *to; int64_t bytes; uint8_t flip; } widening;

static qx_status widen_row(void *user, int64_t j)
{
    const widening *v = user;
    const uint8_t *from = v->from + j * v->bytes;
    uint8_t *to = v->to + 2 * j * v->bytes;
    for (int64_t i = 0; i < v->bytes; i++) {
        const unsigned c = from[i] ^ v->flip;
        to[2 * i] = (uint8_t)((c & 3) | (c >> 2 & 3) << 4);
        to[2 * i + 1] = (uint8_t)((c >> 4 & 3) | (c >> 6) << 4);
    }
    return QX_OK;
}

/* Codes of two bits become codes of four, whose products are four times as fast: the memory is that of an INT4 file. */
static qx_status as_four_bits(qx_call *c, state *s, const uint8_t *codes)
{
    qx_nbits *w = &s->w;
    const int64_t blocks = w->n * blocks_of(w), bytes = blocks_of(w) * w->block / 4;
    const float half = 2;
    uint8_t *wide;
    QX_TRY(qx_alloc_array(c->ctx, (size_t)(2 * w->n * bytes), 1, (void **)&wide));
    widening v = {codes, wide, bytes, w->is_signed ? 0xAA : 0};
    const qx_status st = qx_parallel(c->ctx, w->n, widen_row, &v);
    qx_free(c->ctx, s->codes);
    s->codes = wide;
    QX_TRY(st);
    if (!s->zero) QX_TRY(qx_alloc_array(c->ctx, (size_t)blocks, sizeof *s->zero, (void **)&s->zero));
    for (int64_t i = 0; i < blocks && (w->is_signed || !w->zero_f); i++) s->zero[i] += half;
    w->zero_f = s->zero;
    w->bits = 4;
    w->is_signed = false;
    return QX_OK;
}

static qx_status run_rows(qx_call *c, state *s, const float *bias)
{
    const qx_tensor *x = c->in[0];
    const float *fx;
    float *y = NULL;
    int64_t dims[QX_MAX_RANK];
    char a[96];
    if (x->rank < 1 || x->dims[x->rank - 1] != s->w.k)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%s by a weight with K = %lld", qx_tensor_describe(x, a, sizeof a), (long long)s->w.k);
    QX_TRY(qx_call_in_f32(c, 0, &fx));
    memcpy(dims, x->dims, sizeof dims);
    dims[x->rank - 1] = s->w.n;
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &y));
    return product(c, &s->w, fx, x->numel / s->w.k, bias, y);
}

qx_status qx_cpu_matmul_nbits(qx_call *c)
{
    const qx_tensor *x, *tb = qx_call_in(c, 5);
    const float *bias = NULL;
    state *s = NULL;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_state(c, sizeof *s, drop, (void **)&s));
    bool fixed = qx_call_in_const(c, 1) && qx_call_in_const(c, 2) && (!qx_call_in(c, 3) || qx_call_in_const(c, 3));
    if (!s->scale || !fixed) {
        drop(c->ctx, s);
        memset(s, 0, sizeof *s);
        QX_TRY(nbits_weights(c, s));
        if (s->w.bits == 2 && fixed) {
            QX_TRY(as_four_bits(c, s, c->in[1]->data));
            qx_call_drop_const(c, 1);
        }
        qx_call_drop_const(c, 2);
        qx_call_drop_const(c, 3);
    }
    s->w.codes = s->codes ? s->codes : c->in[1]->data;
    /* Level 4 lets a runtime round x; ONNX Runtime's CPU provider does, so that is what the file means there. */
    s->w.rounds_x = qx_call_int(c, "accuracy_level", 0) == 4;
    if (tb) {
        if (tb->numel != s->w.n) QX_CALL_FAIL(c, QX_E_SHAPE, "bias has %lld elements, N is %lld", (long long)tb->numel, (long long)s->w.n);
        QX_TRY(qx_call_in_f32(c, 5, &bias));
    }
    return run_rows(c, s, bias);
}

/* ---- DequantizeLinear (constant codes) in front of MatMul ---- */

/* Codes of element (row i of k, column j of n) of the stored tensor, moved into [0, 2^bits). */
static uint8_t code_at(const qx_tensor *t, int64_t i)
{
    const uint8_t *p = t->data;
    switch (t->dtype) {
    case QX_DT_INT8: return (uint8_t)(p[i] ^ 0x80);
    case QX_DT_UINT4: return p[i / 2] >> (i % 2 * 4) & 15;
    case QX_DT_INT4: return (uint8_t)((p[i / 2] >> (i % 2 * 4) & 15) ^ 8);
    case QX_DT_UINT2: return p[i / 4] >> (i % 4 * 2) & 3;
    case QX_DT_INT2: return (uint8_t)((p[i / 4] >> (i % 4 * 2) & 3) ^ 2);
    default: return p[i];
    }
}

typedef struct repack { const qx_tensor *t; const qx_nbits *w; uint8_t *out; } repack;

static qx_status repack_row(void *user, int64_t j)
{
    const repack *r = user;
    int64_t bytes = r->w->block * r->w->bits / 8;
    uint8_t *out = r->out + j * blocks_of(r->w) * bytes;
    for (int64_t i = 0; i < r->w->k; i++)
        out[i * r->w->bits / 8] |= (uint8_t)(code_at(r->t, j * r->w->k + i) << (i * r->w->bits % 8));
    return QX_OK;
}

/* Some columns of a [k, n] matrix at once, which lie beside each other. */
enum { COLUMNS = 64, ROWS = 128 };
static qx_status repack_columns(void *user, int64_t piece)
{
    const repack *r = user;
    const int bits = r->w->bits, up = qx_dtype_get(r->t->dtype)->cls == 'I' ? 1 << (bits - 1) : 0;
    const int64_t n = r->w->n, j0 = piece * COLUMNS, cols = n - j0 < COLUMNS ? n - j0 : COLUMNS;
    const int64_t row = blocks_of(r->w) * r->w->block * bits / 8;
    uint8_t codes[ROWS * COLUMNS];
    for (int64_t k0 = 0; k0 < r->w->k; k0 += ROWS) {
        const int64_t rows = r->w->k - k0 < ROWS ? r->w->k - k0 : ROWS;
        for (int64_t i = 0; i < rows; i++) {
            const int64_t at = (k0 + i) * n + j0;
            if (at * bits % 8 == 0) qx_unpack(bits, false, (const uint8_t *)r->t->data + at * bits / 8, cols, codes + i * cols);
            else
                for (int64_t j = 0; j < cols; j++) codes[i * cols + j] = (uint8_t)((code_at(r->t, at + j) - up) & ((1 << bits) - 1));
        }
        qx_pack_columns(bits, up, rows, cols, codes, r->out + j0 * row + k0 * bits / 8, row);
    }
    return QX_OK;
}

/* Scales and zero points as [n][blocks], whatever their layout: element (b, j) or (j, b), shared when there is one. */
static qx_status spread(qx_call *c, const qx_nbits *w, const qx_tensor *t, bool nk, bool blocked, float add, float **out)
{
    const float *f;
    int64_t need = blocked ? w->n * blocks_of(w) : t->numel == 1 ? 1 : w->n;
    if (t->numel != need)
        QX_CALL_FAIL(c, QX_E_SHAPE, "scale or zero point has %lld elements, %lld are needed", (long long)t->numel, (long long)need);
    QX_TRY(qx_call_to_f32(c, t, &f));
    QX_TRY(qx_alloc_array(c->ctx, (size_t)(w->n * blocks_of(w)), sizeof **out, (void **)out));
    for (int64_t j = 0; j < w->n; j++)
        for (int64_t b = 0; b < blocks_of(w); b++)
            (*out)[j * blocks_of(w) + b] = add + f[blocked ? (nk ? j * blocks_of(w) + b : b * w->n + j) : t->numel == 1 ? 0 : j];
    return QX_OK;
}

/* Codes that lie as the products read them stay where they are: a table of an embedding and a head, which both need, is there once. */
static bool as_stored(const qx_nbits *w, const qx_wq_params *p) { return p->nk && w->k % w->block == 0 && w->k * w->bits % 8 == 0; }

static qx_status repack_all(qx_call *c, const qx_wq_params *p, state *s)
{
    const qx_nbits *w = &s->w;
    QX_TRY(qx_alloc_array(c->ctx, (size_t)(w->n * blocks_of(w)), (size_t)(w->block * w->bits / 8), (void **)&s->codes));
    repack r = {c->in[QX_WQ_CODES], w, s->codes};
    return p->nk ? qx_parallel(c->ctx, w->n, repack_row, &r) : qx_parallel(c->ctx, (w->n + COLUMNS - 1) / COLUMNS, repack_columns, &r);
}

static qx_status wq_weights(qx_call *c, const qx_wq_params *p, state *s)
{
    const qx_tensor *t = c->in[QX_WQ_CODES], *z = qx_call_in(c, QX_WQ_ZERO);
    qx_nbits *w = &s->w;
    bool sign = qx_dtype_get(t->dtype)->cls == 'I';
    w->bits = qx_dtype_bits(t->dtype);
    w->n = t->dims[p->nk ? 0 : 1];
    w->k = t->dims[p->nk ? 1 : 0];
    bool blocked = p->block > 0;
    int64_t whole = w->bits == 8 ? 1 : 16; /* what the kernels need of a block */
    w->block = blocked ? p->block : (w->k + whole - 1) / whole * whole;
    if (w->block < 1 || w->block % whole) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "blocks of %lld %d-bit codes", (long long)w->block, w->bits);
    w->is_signed = sign && as_stored(w, p);
    if (!as_stored(w, p)) QX_TRY(repack_all(c, p, s));
    QX_TRY(spread(c, w, c->in[QX_WQ_SCALE], p->nk, blocked, 0.0f, &s->scale));
    w->scale = s->scale;
    float lift = sign && s->codes ? (float)(1 << (w->bits - 1)) : 0.0f; /* codes were moved up by as much */
    if (z) QX_TRY(spread(c, w, z, p->nk, blocked, lift, &s->zero));
    else if (!sign) QX_TRY(qx_alloc_array(c->ctx, (size_t)(w->n * blocks_of(w)), sizeof *s->zero, (void **)&s->zero));
    w->zero_f = s->zero;
    return w->bits == 2 ? as_four_bits(c, s, s->codes ? s->codes : t->data) : QX_OK;
}

qx_status qx_cpu_wq_linear(qx_call *c)
{
    state *s = NULL;
    const qx_tensor *x, *bias = qx_call_in(c, QX_WQ_BIAS);
    const float *fb = NULL;
    QX_TRY(qx_call_need(c, QX_WQ_X, &x));
    QX_TRY(qx_call_state(c, sizeof *s, drop, (void **)&s));
    if (!s->scale) {
        qx_status st = wq_weights(c, c->fused, s);
        if (st != QX_OK) {
            drop(c->ctx, s);
            memset(s, 0, sizeof *s);
            return st;
        }
        for (uint32_t i = s->codes ? QX_WQ_CODES : QX_WQ_SCALE; i <= QX_WQ_ZERO; i++) qx_call_drop_const(c, i);
    }
    s->w.codes = s->codes ? s->codes : c->in[QX_WQ_CODES]->data;
    if (bias) {
        if (bias->numel != s->w.n)
            QX_CALL_FAIL(c, QX_E_SHAPE, "bias has %lld elements, N is %lld", (long long)bias->numel, (long long)s->w.n);
        QX_TRY(qx_call_in_f32(c, QX_WQ_BIAS, &fb));
    }
    return run_rows(c, s, fb);
}

/* ---- GatherBlockQuantized ---- */

typedef struct gather {
    const qx_tensor *data;
    const float *scale, *zero;
    int bits;
    int64_t block, blocks, cols, rows;
    float lift, def_zero;
    const int64_t *idx;
    float *y;
} gather;

static qx_status gather_row(void *user, int64_t k)
{
    const gather *g = user;
    int64_t r = g->idx[k] < 0 ? g->idx[k] + g->rows : g->idx[k];
    float *y = g->y + k * g->cols;
    if (r < 0 || r >= g->rows) {
        memset(y, 0, (size_t)g->cols * sizeof *y);
        return QX_OK;
    }
    const uint8_t *p = g->data->data;
    bool sign = qx_dtype_get(g->data->dtype)->cls == 'I';
    for (int64_t i = 0; i < g->cols; i++) {
        int64_t e = r * g->cols + i, b = r * g->blocks + i / g->block;
        int32_t v = p[e * g->bits / 8] >> (e * g->bits % 8) & ((1 << g->bits) - 1);
        if (sign && v >= 1 << (g->bits - 1)) v -= 1 << g->bits;
        y[i] = ((float)v - (g->zero ? g->zero[b] : g->def_zero)) * g->scale[b];
    }
    return QX_OK;
}

static qx_status gather_zeros(qx_call *c, gather *g, const qx_tensor *z)
{
    float *f = NULL;
    int64_t n = g->rows * g->blocks, bits = z->dtype == QX_DT_UINT8 ? g->bits : qx_dtype_bits(z->dtype), row = (g->blocks * bits + 7) / 8;
    bool packed_u8 = z->dtype == QX_DT_UINT8;
    if (packed_u8 ? z->numel != g->rows * row : z->numel != n)
        QX_CALL_FAIL(c, QX_E_SHAPE, "zero_points has %lld elements for %lld blocks", (long long)z->numel, (long long)n);
    QX_TRY(QX_CALL_SCRATCH(c, n, &f));
    if (!packed_u8) {
        const float *conv;
        QX_TRY(qx_call_to_f32(c, z, &conv));
        memcpy(f, conv, (size_t)n * sizeof *f);
    }
    for (int64_t i = 0; packed_u8 && i < n; i++) {
        int64_t bit = i % g->blocks * bits;
        f[i] = (float)(((const uint8_t *)z->data)[i / g->blocks * row + bit / 8] >> (bit % 8) & ((1 << bits) - 1));
    }
    g->zero = f;
    return QX_OK;
}

qx_status qx_cpu_gather_block_quantized(qx_call *c)
{
    const qx_tensor *data, *ix, *scale, *z = qx_call_in(c, 3);
    gather g = {0};
    int64_t dims[QX_MAX_RANK], n;
    QX_TRY(qx_call_need(c, 0, &data));
    QX_TRY(qx_call_need(c, 1, &ix));
    QX_TRY(qx_call_need(c, 2, &scale));
    bool u8 = data->dtype == QX_DT_UINT8;
    g.bits = u8 ? (int)qx_call_int(c, "bits", 4) : qx_dtype_bits(data->dtype);
    g.data = data;
    g.block = qx_call_int(c, "block_size", 128);
    int64_t gather_axis = qx_call_int(c, "gather_axis", 0), q_axis = qx_call_int(c, "quantize_axis", 1);
    if (data->rank != 2 || gather_axis != 0 || (q_axis != 1 && q_axis != -1) || qx_dtype_is_float(data->dtype) ||
        (g.bits != 2 && g.bits != 4 && g.bits != 8) || g.block < 16)
        QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "only rows of a matrix of integer codes, quantized along its columns, are gathered "
                                          "(rank %d, axes %lld and %lld, %d bits)", data->rank, (long long)gather_axis,
                                              (long long)q_axis, g.bits);
    g.rows = data->dims[0];
    g.cols = u8 ? data->dims[1] * 8 / g.bits : data->dims[1];
    g.blocks = (g.cols + g.block - 1) / g.block;
    g.def_zero = u8 ? (float)(1 << (g.bits - 1)) : 0.0f;
    if (scale->numel != g.rows * g.blocks || (g.cols * g.bits) % 8)
        QX_CALL_FAIL(c, QX_E_SHAPE, "scales has %lld elements for %lld blocks", (long long)scale->numel, (long long)(g.rows * g.blocks));
    QX_TRY(qx_call_in_f32(c, 2, &g.scale));
    if (z) QX_TRY(gather_zeros(c, &g, z));
    QX_TRY(qx_call_in_i64(c, 1, &g.idx, &n));
    memcpy(dims, ix->dims, sizeof dims);
    if (ix->rank == QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "indices of rank %d", ix->rank);
    dims[ix->rank] = g.cols;
    QX_TRY(qx_call_out_f32(c, 0, scale->dtype, ix->rank + 1, dims, &g.y));
    return qx_parallel(c->ctx, n, gather_row, &g);
}
