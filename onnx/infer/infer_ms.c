/* infer_ms.c - inference of com.microsoft's operators in exported and quantized LLMs: fused attention, block-quantized products,
 * skip normalisations, mixtures of experts. */
#include <string.h>

#include "onnx/infer/infer_conv.h"
#include "onnx/infer/infer_matmul.h"

static qx_dim div_dim(qx_infer *ix, qx_dim d, int64_t by)
{
    return by > 0 ? qx_dim_of_num(ix, qx_num_floordiv(ix, qx_num_of_dim(ix, d), qx_num_of(by))) : qx_dim_unknown();
}

static qx_status out_dims(qx_infer *ix, qx_node *n, uint32_t i, int dtype, int rank, const qx_dim *d)
{
    qx_dim *dims = qx_ix_dims(ix, rank);
    if (!dims) return QX_IX_NOMEM(ix);
    if (rank) memcpy(dims, d, (size_t)rank * sizeof *dims);
    return qx_ix_out(ix, n, i, dtype, rank, dims);
}

/* Input 0 with another last dim. */
static qx_status with_last(qx_infer *ix, qx_node *n, int dtype, qx_dim last)
{
    const qx_type *x;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, dtype);
    if (x->rank < 1) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its input is a scalar");
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    dims[x->rank - 1] = last;
    return qx_ix_out(ix, n, 0, dtype, x->rank, dims);
}

/* ---- attention ----------------------------------------------------------------------------------------------------------- */

/* Cache outputs: what is given, longer; where a cache comes in, its type and width are kept. */
typedef struct cache { qx_dim batch; int64_t heads; qx_dim total, size; int dtype; } cache;

static qx_status present(qx_infer *ix, qx_node *n, uint32_t out, uint32_t past_in, const cache *k)
{
    const qx_type *past;
    qx_dim size = k->size;
    int dtype = k->dtype;
    bool packed = qx_ix_dtype(ix, n, past_in) == QX_DT_UINT8; /* two codes a byte */
    if (qx_ix_shaped(ix, n, past_in, &past) && past->rank == 4 && (packed || size.n < 0)) size = past->dims[3];
    if (qx_ix_given(n, past_in) && qx_ix_dtype(ix, n, past_in)) dtype = qx_ix_dtype(ix, n, past_in);
    return out_dims(ix, n, out, dtype, 4, (qx_dim[]){k->batch, k->heads > 0 ? qx_dim_of(k->heads) : qx_dim_unknown(), k->total, size});
}

int qx_infer_ms_gqa(qx_infer *ix, qx_node *n)
{
    const qx_type *q;
    int64_t heads = qx_ix_int(ix, n, "num_heads", 0), kv = qx_ix_int(ix, n, "kv_num_heads", 0);
    int dtype = qx_ix_dtype(ix, n, 0);
    if (heads < 1 || kv < 1) QX_IX_FAIL(ix, n, QX_E_SHAPE, "num_heads is %lld and kv_num_heads %lld", (long long)heads, (long long)kv);
    if (!qx_ix_shaped(ix, n, 0, &q) || q->rank != 3) return QX_OK;
    bool packed = !qx_ix_given(n, 1);
    qx_dim size = div_dim(ix, q->dims[2], packed ? heads + 2 * kv : heads);
    const qx_content *total = qx_ix_content(ix, n, 6);
    const qx_type *past;
    qx_dim length = total && total->n == 1 ? qx_dim_of_num(ix, total->v[0]) : qx_dim_unknown();
    /* a cache with room to spare stays as long */
    if (length.n >= 0 && qx_ix_shaped(ix, n, 3, &past) && past->rank == 4 && past->dims[2].n > length.n) length = past->dims[2];
    QX_TRY(out_dims(ix, n, 0, dtype, 3, (qx_dim[]){q->dims[0], q->dims[1], qx_dim_mul(ix, size, qx_dim_of(heads))}));
    QX_TRY(present(ix, n, 1, 3, &(cache){q->dims[0], kv, length, size, dtype}));
    QX_TRY(present(ix, n, 2, 4, &(cache){q->dims[0], kv, length, size, dtype}));
    return out_dims(ix, n, 3, dtype, 4, (qx_dim[]){q->dims[0], qx_dim_of(heads), q->dims[1], length});
}

/* Length and width of the values that a MultiHeadAttention attends to. */
static void mha_values(qx_infer *ix, const qx_node *n, const qx_type *q, int64_t heads, qx_dim *length, qx_dim *width)
{
    const qx_type *k, *v;
    *length = q->rank == 5 || !qx_ix_given(n, 1) ? q->dims[1] : qx_dim_unknown();
    *width = q->rank == 5 ? qx_dim_mul(ix, q->dims[2], q->dims[4]) : q->dims[2];
    if (qx_ix_shaped(ix, n, 1, &k) && (k->rank == 3 || k->rank == 5)) *length = k->dims[1];
    if (qx_ix_shaped(ix, n, 1, &k) && k->rank == 4) *length = k->dims[2];
    if (qx_ix_shaped(ix, n, 2, &v) && v->rank == 3) *width = v->dims[2];
    if (qx_ix_shaped(ix, n, 2, &v) && v->rank == 4) *width = qx_dim_mul(ix, v->dims[3], qx_dim_of(heads));
}

int qx_infer_ms_mha(qx_infer *ix, qx_node *n)
{
    const qx_type *q, *past;
    int64_t heads = qx_ix_int(ix, n, "num_heads", 0);
    int dtype = qx_ix_dtype(ix, n, 0);
    qx_dim length, width;
    if (heads < 1) QX_IX_FAIL(ix, n, QX_E_SHAPE, "num_heads is %lld", (long long)heads);
    if (!qx_ix_shaped(ix, n, 0, &q) || (q->rank != 3 && q->rank != 5)) return QX_OK;
    mha_values(ix, n, q, heads, &length, &width);
    qx_dim size = q->rank == 5 ? q->dims[4] : div_dim(ix, q->dims[2], heads), total = length;
    if (qx_ix_given(n, 6))
        total = qx_ix_shaped(ix, n, 6, &past) && past->rank == 4 ? qx_dim_add(ix, past->dims[2], length) : qx_dim_unknown();
    QX_TRY(out_dims(ix, n, 0, dtype, 3, (qx_dim[]){q->dims[0], q->dims[1], width}));
    QX_TRY(present(ix, n, 1, 6, &(cache){q->dims[0], heads, total, size, dtype}));
    QX_TRY(present(ix, n, 2, 7, &(cache){q->dims[0], heads, total, div_dim(ix, width, heads), dtype}));
    return out_dims(ix, n, 3, dtype, 4, (qx_dim[]){q->dims[0], qx_dim_of(heads), q->dims[1], total});
}

int qx_infer_ms_attention(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *w, *past;
    bool quantized = n->op->id == QX_OP_ms_QAttention;
    uint32_t past_in = quantized ? 8 : 4;
    int64_t heads = qx_ix_int(ix, n, "num_heads", 0), count;
    const int64_t *sizes = qx_ix_ints(ix, n, "qkv_hidden_sizes", &count);
    int dtype = quantized ? qx_ix_dtype(ix, n, 3) : qx_ix_dtype(ix, n, 0);
    if (heads < 1) QX_IX_FAIL(ix, n, QX_E_SHAPE, "num_heads is %lld", (long long)heads);
    if (!qx_ix_shaped(ix, n, 0, &x) || x->rank != 3 || !qx_ix_shaped(ix, n, 1, &w) || w->rank != 2) return QX_OK;
    qx_dim width = sizes && count == 3 ? qx_dim_of_num(ix, qx_num_of(sizes[2])) : div_dim(ix, w->dims[1], 3), total = x->dims[1];
    QX_TRY(out_dims(ix, n, 0, dtype, 3, (qx_dim[]){x->dims[0], x->dims[1], width}));
    if (qx_ix_given(n, past_in))
        total = qx_ix_shaped(ix, n, past_in, &past) && past->rank == 5 ? qx_dim_add(ix, past->dims[3], x->dims[1]) : qx_dim_unknown();
    return out_dims(ix, n, 1, dtype, 5, (qx_dim[]){qx_dim_of(2), x->dims[0], qx_dim_of(heads), total, div_dim(ix, width, heads)});
}

/* ---- products with stored low-precision weights ------------------------------------------------------------------------------ */

int qx_infer_ms_matmul_nk(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int64_t k = qx_ix_int(ix, n, "K", -1), cols = qx_ix_int(ix, n, "N", -1);
    if (k < 1 || cols < 1) QX_IX_FAIL(ix, n, QX_E_SHAPE, "K is %lld and N is %lld", (long long)k, (long long)cols);
    if (qx_ix_shaped(ix, n, 0, &x) && x->rank) {
        qx_dim inner = x->dims[x->rank - 1];
        QX_TRY(qx_ix_equal(ix, n, "K and the last dim of A", &inner, qx_dim_of(k)));
    }
    return with_last(ix, n, qx_ix_dtype(ix, n, 0), qx_dim_of(cols));
}

int qx_infer_ms_matmul_weight_nk(qx_infer *ix, qx_node *n)
{
    const qx_type *w;
    return with_last(ix, n, qx_ix_dtype(ix, n, 0), qx_ix_shaped(ix, n, 1, &w) && w->rank == 2 ? w->dims[0] : qx_dim_unknown());
}

static qx_status plain_matmul(qx_infer *ix, qx_node *n, int dtype)
{
    const qx_type *a, *b;
    if (!qx_ix_shaped(ix, n, 0, &a) || !qx_ix_shaped(ix, n, 1, &b)) return qx_ix_out_unranked(ix, n, 0, dtype);
    return qx_matmul_shape(ix, n, a, b, dtype);
}

/* MatMulIntegerToFloat: A, B, a_scale, b_scale...; DynamicQuantizeMatMul: A, B, b_scale... */
int qx_infer_ms_matmul_to_float(qx_infer *ix, qx_node *n) { return plain_matmul(ix, n, qx_ix_dtype(ix, n, 2)); }

/* A view with the last two axes swapped (trans), and batch axes rotated in front of the rows (transBatch). */
static qx_status transposed(qx_infer *ix, const qx_type *t, bool swap, bool rotate, qx_type *out)
{
    *out = *t;
    if (t->rank < 2 || (!swap && !rotate)) return QX_OK;
    out->dims = qx_ix_dims(ix, t->rank);
    if (!out->dims) return QX_IX_NOMEM(ix);
    memcpy(out->dims, t->dims, (size_t)t->rank * sizeof *out->dims);
    if (rotate && t->rank > 2) { /* [M, b..., K] is read as [b..., M, K] */
        memcpy(out->dims, t->dims + 1, (size_t)(t->rank - 2) * sizeof *out->dims);
        out->dims[t->rank - 2] = t->dims[0];
    }
    if (swap) {
        qx_dim d = out->dims[t->rank - 1];
        out->dims[t->rank - 1] = out->dims[t->rank - 2];
        out->dims[t->rank - 2] = d;
    }
    return QX_OK;
}

int qx_infer_ms_fused_matmul(qx_infer *ix, qx_node *n)
{
    const qx_type *a, *b;
    qx_type ta, tb;
    if (!qx_ix_shaped(ix, n, 0, &a) || !qx_ix_shaped(ix, n, 1, &b)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    QX_TRY(transposed(ix, a, qx_ix_int(ix, n, "transA", 0) != 0, qx_ix_int(ix, n, "transBatchA", 0) != 0, &ta));
    QX_TRY(transposed(ix, b, qx_ix_int(ix, n, "transB", 0) != 0, qx_ix_int(ix, n, "transBatchB", 0) != 0, &tb));
    return qx_matmul_shape(ix, n, &ta, &tb, (int)a->dtype);
}

int qx_infer_ms_gemm_float8(qx_infer *ix, qx_node *n) { return qx_gemm_shape(ix, n, 1, (int)qx_ix_int(ix, n, "dtype", QX_DT_FLOAT)); }

int qx_infer_ms_qgemm(qx_infer *ix, qx_node *n)
{
    int zero = qx_ix_dtype(ix, n, 8);
    return qx_gemm_shape(ix, n, 3, zero ? zero : QX_DT_FLOAT);
}

/* u8 data holds several codes a byte along its last axis. */
int qx_infer_ms_gather_block_quantized(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *at;
    int axis, rank = 0, dtype = qx_ix_dtype(ix, n, 2);
    int64_t bits = qx_ix_int(ix, n, "bits", 4);
    if (!qx_ix_shaped(ix, n, 0, &x) || !qx_ix_shaped(ix, n, 1, &at)) return qx_ix_out_unranked(ix, n, 0, dtype);
    if (bits != 2 && bits != 4 && bits != 8) QX_IX_FAIL(ix, n, QX_E_SHAPE, "bits is %lld", (long long)bits);
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "gather_axis", 0), x->rank, &axis));
    qx_dim *dims = qx_ix_dims(ix, x->rank + at->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    for (int i = 0; i < x->rank; i++) {
        qx_dim d = x->dims[i];
        if (x->dtype == QX_DT_UINT8 && i == x->rank - 1) d = qx_dim_mul(ix, d, qx_dim_of(8 / bits));
        if (i != axis) dims[rank++] = d;
        else for (int k = 0; k < at->rank; k++) dims[rank++] = at->dims[k];
    }
    return qx_ix_out(ix, n, 0, dtype, rank, dims);
}

int qx_infer_ms_moe(qx_infer *ix, qx_node *n) { return qx_ix_same(ix, n, 0, 0); }

/* ---- normalisation and activation ---------------------------------------------------------------------------------------------- */

int qx_infer_ms_skip_norm(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    QX_TRY(qx_ix_same(ix, n, 0, 0));
    QX_TRY(qx_ix_same(ix, n, 3, 0));
    if (!qx_ix_shaped(ix, n, 0, &x) || x->rank < 1) return QX_OK;
    qx_dim *d = qx_ix_dims(ix, x->rank);
    if (!d) return QX_IX_NOMEM(ix);
    memcpy(d, x->dims, (size_t)x->rank * sizeof *d);
    d[x->rank - 1] = qx_dim_of(1);
    QX_TRY(qx_ix_out(ix, n, 1, QX_DT_FLOAT, x->rank, d));
    return qx_ix_out(ix, n, 2, QX_DT_FLOAT, x->rank, d);
}

int qx_infer_ms_skip_group_norm(qx_infer *ix, qx_node *n)
{
    QX_TRY(qx_ix_same(ix, n, 0, 0));
    return qx_ix_same(ix, n, 1, 0);
}

int qx_infer_ms_embed_layer_norm(qx_infer *ix, qx_node *n)
{
    const qx_type *ids, *words;
    bool quantized = n->op->id == QX_OP_ms_QEmbedLayerNormalization;
    int dtype = quantized ? QX_DT_FLOAT : qx_ix_dtype(ix, n, 2);
    if (!qx_ix_shaped(ix, n, 0, &ids) || !qx_ix_shaped(ix, n, 2, &words) || ids->rank != 2 || words->rank != 2) return QX_OK;
    qx_dim d[3] = {ids->dims[0], ids->dims[1], words->dims[1]};
    QX_TRY(out_dims(ix, n, 0, dtype, 3, d));
    QX_TRY(out_dims(ix, n, 1, QX_DT_INT32, 1, d));
    return out_dims(ix, n, 2, dtype, 3, d);
}

int qx_infer_ms_half_last(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    if (!qx_ix_shaped(ix, n, 0, &x) || x->rank < 1) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    return with_last(ix, n, (int)x->dtype, div_dim(ix, x->dims[x->rank - 1], 2));
}

/* ---- QLinear*, NHWC and others -------------------------------------------------------------------------------------------------- */

int qx_infer_ms_qlinear_same(qx_infer *ix, qx_node *n) { return qx_ix_same(ix, n, 0, 0); }
int qx_infer_ms_qlinear_pool(qx_infer *ix, qx_node *n)
{
    return qx_pool_shape(ix, n, qx_ix_dtype(ix, n, 0), qx_ix_int(ix, n, "channels_last", 0) != 0);
}
int qx_infer_ms_qlinear_global_pool(qx_infer *ix, qx_node *n)
{
    return qx_global_pool_shape(ix, n, qx_ix_dtype(ix, n, 0), qx_ix_int(ix, n, "channels_last", 0) != 0);
}
int qx_infer_ms_nhwc_conv(qx_infer *ix, qx_node *n) { return qx_nhwc_conv_shape(ix, n, 0, 1, qx_ix_dtype(ix, n, 0)); }

static qx_status broadcast_of(qx_infer *ix, qx_node *n, const uint32_t *inputs, int count, int dtype)
{
    qx_dim *dims = NULL;
    int rank = 0;
    for (int i = 0; i < count; i++) {
        const qx_type *t;
        if (!qx_ix_shaped(ix, n, inputs[i], &t)) return qx_ix_out_unranked(ix, n, 0, dtype);
        QX_TRY(qx_ix_broadcast(ix, n, dims, rank, t->dims, t->rank, &dims, &rank));
    }
    return qx_ix_out(ix, n, 0, dtype, rank, dims);
}

int qx_infer_ms_qlinear_binary(qx_infer *ix, qx_node *n) { return broadcast_of(ix, n, (const uint32_t[]){0, 3}, 2, qx_ix_dtype(ix, n, 0)); }
int qx_infer_ms_qlinear_where(qx_infer *ix, qx_node *n)
{
    return broadcast_of(ix, n, (const uint32_t[]){0, 1, 4}, 3, qx_ix_dtype(ix, n, 1));
}

/* y_scale, y_zero_point, then (x, scale, zero point) for each part. */
int qx_infer_ms_qlinear_concat(qx_infer *ix, qx_node *n)
{
    const qx_type *first;
    int axis, dtype = qx_ix_dtype(ix, n, 1);
    if (!qx_ix_shaped(ix, n, 2, &first)) return qx_ix_out_unranked(ix, n, 0, dtype);
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", 0), first->rank, &axis));
    qx_dim *dims = qx_ix_dims(ix, first->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    memcpy(dims, first->dims, (size_t)first->rank * sizeof *dims);
    for (uint32_t i = 5; i < n->n_in; i += 3) {
        const qx_type *t;
        bool fits = qx_ix_shaped(ix, n, i, &t) && t->rank == first->rank;
        dims[axis] = fits ? qx_dim_add(ix, dims[axis], t->dims[axis]) : qx_dim_unknown();
    }
    return qx_ix_out(ix, n, 0, dtype, first->rank, dims);
}

int qx_infer_ms_qlinear_reduce(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int64_t count;
    const int64_t *axes = qx_ix_ints(ix, n, "axes", &count);
    bool keep = qx_ix_int(ix, n, "keepdims", 1) != 0;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    int rank = 0;
    for (int i = 0; i < x->rank; i++) {
        bool folds = !axes;
        for (int64_t k = 0; k < count; k++) folds = folds || axes[k] == i || axes[k] == i - x->rank;
        if (!folds) dims[rank++] = x->dims[i];
        else if (keep) dims[rank++] = qx_dim_of(1);
    }
    return qx_ix_out(ix, n, 0, (int)x->dtype, rank, dims);
}

int qx_infer_ms_pad(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    const qx_content *pads = qx_ix_content(ix, n, 1);
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    if (pads && pads->n != 2 * x->rank) QX_IX_FAIL(ix, n, QX_E_SHAPE, "it has %lld pads for %d axes", (long long)pads->n, x->rank);
    for (int i = 0; i < x->rank; i++) {
        qx_num both = pads ? qx_num_add(ix, pads->v[i], pads->v[i + x->rank]) : (qx_num){0};
        dims[i] = qx_dim_of_num(ix, qx_num_add(ix, qx_num_of_dim(ix, x->dims[i]), both));
    }
    return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank, dims);
}

/* Its pads are data: only batch and channels are known. */
int qx_infer_ms_conv_transpose_pads(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *w;
    if (!qx_ix_shaped(ix, n, 0, &x) || !qx_ix_shaped(ix, n, 1, &w) || x->rank < 3 || w->rank != x->rank)
        return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    for (int i = 0; i < x->rank; i++) dims[i] = qx_dim_unknown();
    dims[0] = x->dims[0];
    dims[1] = qx_dim_mul(ix, w->dims[1], qx_dim_of(qx_ix_int(ix, n, "group", 1)));
    return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank, dims);
}
