/* infer_nn.c - inference of normalisations, recurrent layers, attention, and losses. */
#include <string.h>

#include "onnx/infer/infer_op.h"

/* ---- normalisation -------------------------------------------------------------------------------------------------------- */

/* A per-channel parameter: its only dim must be the channels of X. */
static qx_status channel_param(qx_infer *ix, qx_node *n, const qx_type *x, uint32_t i, const char *what)
{
    const qx_type *p;
    if (x->rank < 2 || !qx_ix_shaped(ix, n, i, &p) || p->rank != 1) return QX_OK;
    qx_dim c = x->dims[1];
    return qx_ix_equal(ix, n, what, &c, p->dims[0]);
}

int qx_infer_batch_norm(qx_infer *ix, qx_node *n)
{
    static const char *const names[] = {"", "channels and scale", "channels and bias", "channels and mean", "channels and variance"};
    const qx_type *x;
    QX_TRY(qx_ix_same(ix, n, 0, 0));
    if (!qx_ix_shaped(ix, n, 0, &x) || x->rank < 2) return QX_OK;
    for (uint32_t i = 1; i < 5; i++) QX_TRY(channel_param(ix, n, x, i, names[i]));
    for (uint32_t i = 1; i < n->n_out; i++) {
        qx_dim *d = qx_ix_dims(ix, 1);
        if (!d) return QX_IX_NOMEM(ix);
        d[0] = x->dims[1];
        QX_TRY(qx_ix_out(ix, n, i, i < 3 && n->op->since >= 14 ? qx_ix_dtype(ix, n, 3) : (int)x->dtype, 1, d));
    }
    return QX_OK;
}

/* Outputs Y and, of dims [.., 1, 1], the statistics at `first_stat` and behind. */
static qx_status norm_outputs(qx_infer *ix, qx_node *n, uint32_t first_stat, uint32_t n_stats, int stat_type)
{
    const qx_type *x;
    int axis;
    QX_TRY(qx_ix_same(ix, n, 0, 0));
    if (!qx_ix_shaped(ix, n, 0, &x)) return QX_OK;
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", -1), x->rank, &axis));
    qx_dim *d = qx_ix_dims(ix, x->rank);
    if (!d) return QX_IX_NOMEM(ix);
    for (int i = 0; i < x->rank; i++) d[i] = i < axis ? x->dims[i] : qx_dim_of(1);
    for (uint32_t i = 0; i < n_stats; i++) QX_TRY(qx_ix_out(ix, n, first_stat + i, stat_type, x->rank, d));
    return QX_OK;
}

int qx_infer_layer_norm(qx_infer *ix, qx_node *n) { return norm_outputs(ix, n, 1, 2, (int)qx_ix_int(ix, n, "stash_type", 1)); }
/* Its second output is the inverse standard deviation. */
int qx_infer_simplified_norm(qx_infer *ix, qx_node *n) { return norm_outputs(ix, n, 1, 1, (int)qx_ix_int(ix, n, "stash_type", 1)); }

/* ---- RNN, GRU, LSTM ------------------------------------------------------------------------------------------------------- */

int qx_infer_rnn(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *r;
    int dtype = qx_ix_dtype(ix, n, 0);
    int64_t hidden = qx_ix_int(ix, n, "hidden_size", -1), layout = qx_ix_int(ix, n, "layout", 0);
    const char *direction = qx_ix_string(ix, n, "direction", "forward");
    qx_dim ways = qx_dim_of(strcmp(direction, "bidirectional") == 0 ? 2 : 1), size = hidden >= 0 ? qx_dim_of(hidden) : qx_dim_unknown();
    if (!qx_ix_shaped(ix, n, 0, &x)) return QX_OK;
    if (x->rank != 3) QX_IX_FAIL(ix, n, QX_E_SHAPE, "X has rank %d instead of 3", x->rank);
    const bool lstm = n->op->id == QX_OP_LSTM || n->op->id == QX_OP_ms_DynamicQuantizeLSTM;
    const int columns = n->op->id == QX_OP_ms_DynamicQuantizeLSTM ? 1 : 2; /* whose codes lie the other way round */
    if (qx_ix_shaped(ix, n, 2, &r) && r->rank == 3)
        QX_TRY(qx_ix_equal(ix, n, "hidden_size and the recurrent weight", &size, r->dims[columns]));
    qx_dim seq = x->dims[layout ? 1 : 0], batch = x->dims[layout ? 0 : 1];
    qx_dim *y = qx_ix_dims(ix, 4), *last = qx_ix_dims(ix, 3);
    if (!y || !last) return QX_IX_NOMEM(ix);
    if (layout) y[0] = batch, y[1] = seq, y[2] = ways, last[0] = batch, last[1] = ways;
    else y[0] = seq, y[1] = ways, y[2] = batch, last[0] = ways, last[1] = batch;
    y[3] = last[2] = size;
    if (n->op->since < 3 && n->op->id == QX_OP_GRU && !qx_node_out(n, 0)) return QX_OK;
    QX_TRY(qx_ix_out(ix, n, 0, dtype, 4, y));
    QX_TRY(qx_ix_out(ix, n, 1, dtype, 3, last));
    return lstm ? qx_ix_out(ix, n, 2, dtype, 3, last) : QX_OK;
}

/* ---- attention ------------------------------------------------------------------------------------------------------------- */

typedef struct heads { qx_dim batch, heads, seq, size; } heads;

/* [B, H, S, D], or [B, S, H*D] with the number of heads from an attribute. */
static qx_status read_heads(qx_infer *ix, qx_node *n, const qx_type *t, const char *attr, heads *out)
{
    if (t->rank == 4) {
        *out = (heads){t->dims[0], t->dims[1], t->dims[2], t->dims[3]};
        return QX_OK;
    }
    int64_t count = qx_ix_int(ix, n, attr, 0);
    if (t->rank != 3 || count < 1) QX_IX_FAIL(ix, n, QX_E_SHAPE, "an input has rank %d and %s is %lld", t->rank, attr, (long long)count);
    if (t->dims[2].n >= 0 && t->dims[2].n % count)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "a width of %lld does not divide into %s = %lld heads", (long long)t->dims[2].n, attr,
                   (long long)count);
    *out = (heads){t->dims[0], qx_dim_of(count), t->dims[1], qx_dim_of_num(ix,
        qx_num_floordiv(ix, qx_num_of_dim(ix, t->dims[2]), qx_num_of(count)))};
    return QX_OK;
}

static qx_status out4(qx_infer *ix, qx_node *n, uint32_t i, int dtype, const qx_dim d[4])
{
    qx_dim *dims = qx_ix_dims(ix, 4);
    if (!dims) return QX_IX_NOMEM(ix);
    memcpy(dims, d, 4 * sizeof *dims);
    return qx_ix_out(ix, n, i, dtype, 4, dims);
}

int qx_infer_attention(qx_infer *ix, qx_node *n)
{
    const qx_type *q, *k, *v, *past;
    heads hq, hk, hv;
    int dtype = qx_ix_dtype(ix, n, 0);
    if (!qx_ix_shaped(ix, n, 0, &q) || !qx_ix_shaped(ix, n, 1, &k) || !qx_ix_shaped(ix, n, 2, &v)) return QX_OK;
    QX_TRY(read_heads(ix, n, q, "q_num_heads", &hq));
    QX_TRY(read_heads(ix, n, k, "kv_num_heads", &hk));
    QX_TRY(read_heads(ix, n, v, "kv_num_heads", &hv));
    QX_TRY(qx_ix_equal(ix, n, "head sizes of Q and K", &hq.size, hk.size));
    qx_dim total = hk.seq;
    if (qx_ix_given(n, 4))
        total = qx_ix_shaped(ix, n, 4, &past) && past->rank == 4 ? qx_dim_add(ix, past->dims[2], hk.seq) : qx_dim_unknown();
    if (q->rank == 4) {
        QX_TRY(out4(ix, n, 0, dtype, (const qx_dim[4]){hq.batch, hq.heads, hq.seq, hv.size}));
    } else {
        qx_dim *dims = qx_ix_dims(ix, 3);
        if (!dims) return QX_IX_NOMEM(ix);
        dims[0] = hq.batch, dims[1] = hq.seq, dims[2] = qx_dim_mul(ix, hq.heads, hv.size);
        QX_TRY(qx_ix_out(ix, n, 0, dtype, 3, dims));
    }
    QX_TRY(out4(ix, n, 1, qx_ix_dtype(ix, n, 1), (const qx_dim[4]){hk.batch, hk.heads, total, hk.size}));
    QX_TRY(out4(ix, n, 2, qx_ix_dtype(ix, n, 2), (const qx_dim[4]){hk.batch, hk.heads, total, hv.size}));
    return out4(ix, n, 3, dtype, (const qx_dim[4]){hq.batch, hq.heads, hq.seq, total});
}

/* query [B, T, Hq*Dk], key [B, T, Hk*Dk], value [B, T, Hkv*Dv] -> output [B, T, max(Hq, Hkv)*Dv], state [B, Hkv, Dk, Dv]. */
static qx_status linear_attention(qx_infer *ix, qx_node *n, uint32_t past_in)
{
    const qx_type *q, *v, *past;
    int64_t hq = qx_ix_int(ix, n, "q_num_heads", 0), hkv = qx_ix_int(ix, n, "kv_num_heads", 0);
    if (hq < 1 || hkv < 1) QX_IX_FAIL(ix, n, QX_E_SHAPE, "q_num_heads is %lld and kv_num_heads %lld", (long long)hq, (long long)hkv);
    if (!qx_ix_shaped(ix, n, 0, &q) || !qx_ix_shaped(ix, n, 2, &v) || q->rank != 3 || v->rank != 3) return QX_OK;
    qx_dim *dims = qx_ix_dims(ix, 3);
    if (!dims) return QX_IX_NOMEM(ix);
    qx_dim dk = qx_dim_of_num(ix, qx_num_floordiv(ix, qx_num_of_dim(ix, q->dims[2]), qx_num_of(hq)));
    qx_dim dv = qx_dim_of_num(ix, qx_num_floordiv(ix, qx_num_of_dim(ix, v->dims[2]), qx_num_of(hkv)));
    dims[0] = q->dims[0], dims[1] = q->dims[1], dims[2] = qx_dim_mul(ix, dv, qx_dim_of(hq > hkv ? hq : hkv));
    QX_TRY(qx_ix_out(ix, n, 0, (int)q->dtype, 3, dims));
    int state_type = qx_ix_given(n, past_in) ? qx_ix_dtype(ix, n, past_in) : (int)q->dtype;
    if (qx_ix_shaped(ix, n, past_in, &past) && past->rank == 4) return qx_ix_same(ix, n, 1, past_in);
    return out4(ix, n, 1, state_type, (const qx_dim[4]){q->dims[0], qx_dim_of(hkv), dk, dv});
}

int qx_infer_linear_attention(qx_infer *ix, qx_node *n) { return linear_attention(ix, n, 3); }
int qx_infer_ms_linear_attention(qx_infer *ix, qx_node *n) { return linear_attention(ix, n, 3); }

/* a, b [B, T, H] -> decay like a, beta like b. */
int qx_infer_ms_linear_attention_gate(qx_infer *ix, qx_node *n)
{
    QX_TRY(qx_ix_same(ix, n, 0, 0));
    return n->n_out > 1 ? qx_ix_same(ix, n, 1, 0) : QX_OK;
}

/* input [B, C, T], weight [C, 1, k] -> output like input, state [B, C, k-1]. */
int qx_infer_causal_conv(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *w;
    QX_TRY(qx_ix_same(ix, n, 0, 0));
    if (!qx_ix_shaped(ix, n, 0, &x) || !qx_ix_shaped(ix, n, 1, &w) || x->rank != 3 || w->rank != 3) return QX_OK;
    qx_dim *dims = qx_ix_dims(ix, 3);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = x->dims[0], dims[1] = x->dims[1];
    dims[2] = qx_dim_of_num(ix, qx_num_sub(ix, qx_num_of_dim(ix, w->dims[2]), qx_num_of(1)));
    return qx_ix_out(ix, n, 1, (int)x->dtype, 3, dims);
}

int qx_infer_ms_causal_conv(qx_infer *ix, qx_node *n) { return qx_infer_causal_conv(ix, n); }

/* ---- losses -------------------------------------------------------------------------------------------------------------------- */

static qx_status loss(qx_infer *ix, qx_node *n)
{
    const char *reduction = qx_ix_string(ix, n, "reduction", "mean");
    const qx_type *labels;
    int dtype = qx_ix_dtype(ix, n, 0);
    if (strcmp(reduction, "none") != 0) return qx_ix_out(ix, n, 0, dtype, 0, qx_ix_dims(ix, 0));
    if (!qx_ix_shaped(ix, n, 1, &labels)) return qx_ix_out_unranked(ix, n, 0, dtype);
    return qx_ix_out(ix, n, 0, dtype, labels->rank, labels->dims);
}

int qx_infer_nll_loss(qx_infer *ix, qx_node *n) { return loss(ix, n); }

int qx_infer_sce_loss(qx_infer *ix, qx_node *n)
{
    QX_TRY(loss(ix, n));
    return qx_ix_same(ix, n, 1, 0);
}
