/* attention23.c - Attention of the standard (opset 23 and later): 3-D or 4-D inputs, grouped heads, past and present, masks,
 * causal, windows, softcap, and the score matrix as an output. fp16 and bf16 are computed in float and rounded once. */
#include <math.h>
#include <string.h>

#include "runtime/cpu/attention/attention.h"

typedef struct part { const qx_tensor *t; const float *data; int64_t batch, heads, rows, d; qx_heads view; } part;

/* [batch, heads, rows, d], or [batch, rows, heads * d] with the number of heads from an attribute. */
static qx_status read_part(qx_call *c, uint32_t i, const char *heads_attr, part *p)
{
    char buf[96];
    QX_TRY(qx_call_need(c, i, &p->t));
    QX_TRY(qx_call_in_f32(c, i, &p->data));
    const qx_tensor *t = p->t;
    if (t->rank == 4) {
        *p = (part){t, p->data, t->dims[0], t->dims[1], t->dims[2], t->dims[3],
                    {p->data, t->dims[1] * t->dims[2] * t->dims[3], t->dims[2] * t->dims[3], t->dims[3], 1}};
        return QX_OK;
    }
    const int64_t heads = qx_call_int(c, heads_attr, 0);
    if (t->rank != 3 || heads <= 0 || t->dims[2] % heads)
        QX_CALL_FAIL(c, QX_E_SHAPE, "input %u is %s with %s %lld", i, qx_tensor_describe(t, buf, sizeof buf), heads_attr, (long long)heads);
    const int64_t d = t->dims[2] / heads;
    *p = (part){t, p->data, t->dims[0], heads, t->dims[1], d, {p->data, t->dims[1] * t->dims[2], d, t->dims[2], 1}};
    return QX_OK;
}

/* p becomes past and p in one [batch, heads, past + rows, d] block, which is also output `out` when that is asked for. */
static qx_status with_past(qx_call *c, uint32_t past_in, uint32_t out, part *p)
{
    const qx_tensor *past = qx_call_in(c, past_in);
    const float *pf = NULL;
    float *y;
    if (!past && out >= c->n_out) return QX_OK;
    if (past) QX_TRY(qx_call_in_f32(c, past_in, &pf));
    if (past && (past->rank != 4 || past->dims[0] != p->batch || past->dims[1] != p->heads || past->dims[3] != p->d))
        QX_CALL_FAIL(c, QX_E_SHAPE, "input %u does not fit the keys and values", past_in);
    const int64_t before = past ? past->dims[2] : 0, all = before + p->rows, dims[4] = {p->batch, p->heads, all, p->d};
    if (out < c->n_out) QX_TRY(qx_call_out_f32(c, out, p->t->dtype, 4, dims, &y));
    else QX_TRY(QX_CALL_SCRATCH(c, p->batch * p->heads * all * p->d + 1, &y));
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t h = 0; h < p->heads; h++) {
            float *to = y + (b * p->heads + h) * all * p->d;
            if (before) memcpy(to, pf + (b * p->heads + h) * before * p->d, (size_t)(before * p->d) * sizeof *to);
            for (int64_t r = 0; r < p->rows; r++)
                memcpy(to + (before + r) * p->d, p->view.data + b * p->view.batch + h * p->view.head + r * p->view.row,
                       (size_t)p->d * sizeof *to);
        }
    p->rows = all;
    p->view = (qx_heads){y, p->heads * all * p->d, all * p->d, p->d, 1};
    return QX_OK;
}

/* A mask with fewer columns than keys hides the keys behind them. */
static qx_status end_keys(qx_call *c, qx_attn *a, int64_t cols)
{
    int64_t *n = NULL;
    if (cols >= a->keys) return QX_OK;
    QX_TRY(QX_CALL_SCRATCH(c, a->batch, &n));
    for (int64_t b = 0; b < a->batch; b++) n[b] = a->key_count && a->key_count[b] < cols ? a->key_count[b] : cols;
    a->key_count = n;
    return QX_OK;
}

/* Strides of a mask that broadcasts to [batch, heads, rows, keys]. */
static qx_status read_mask(qx_call *c, qx_attn *a)
{
    const qx_tensor *m = qx_call_in(c, 3);
    int64_t stride[4] = {0, 0, 0, 1}, step = 1;
    const int64_t want[4] = {a->batch, a->heads, a->rows, a->keys};
    char buf[96];
    if (!m) return QX_OK;
    if (m->rank < 1 || m->rank > 4) QX_CALL_FAIL(c, QX_E_SHAPE, "mask %s", qx_tensor_describe(m, buf, sizeof buf));
    for (int i = m->rank - 1; i >= 0; i--) {
        const int at = i + 4 - m->rank;
        const bool fits = m->dims[i] == want[at] || (at != 3 ? m->dims[i] == 1 : m->dims[i] < want[at]);
        if (!fits)
            QX_CALL_FAIL(c, QX_E_SHAPE, "mask %s for [%lld, %lld, %lld, %lld]", qx_tensor_describe(m, buf, sizeof buf),
                         (long long)want[0], (long long)want[1], (long long)want[2], (long long)want[3]);
        stride[at] = m->dims[i] == 1 && at != 3 ? 0 : step;
        step *= m->dims[i];
    }
    QX_TRY(end_keys(c, a, m->dims[m->rank - 1]));
    if (m->dtype == QX_DT_BOOL) {
        a->keep = m->data;
        a->keep_batch = stride[0];
        a->keep_head = stride[1];
        a->keep_row = stride[2];
        return QX_OK;
    }
    const float *f;
    QX_TRY(qx_call_in_f32(c, 3, &f));
    a->mask = (qx_heads){f, stride[0], stride[1], stride[2], 1};
    return QX_OK;
}

/* nonpad_kv_seqlen [batch]: keys that exist; causal rows end there. */
static qx_status read_lengths(qx_call *c, qx_attn *a)
{
    const int64_t *len;
    int64_t n, *offset;
    if (!qx_call_in(c, 6)) return QX_OK;
    QX_TRY(qx_call_in_i64(c, 6, &len, &n));
    if (n != a->batch)
        QX_CALL_FAIL(c, QX_E_SHAPE, "nonpad_kv_seqlen has %lld entries for a batch of %lld", (long long)n, (long long)a->batch);
    QX_TRY(QX_CALL_SCRATCH(c, n, &offset));
    for (int64_t i = 0; i < n; i++) {
        if (len[i] < 0 || len[i] > a->keys)
            QX_CALL_FAIL(c, QX_E_SHAPE, "nonpad_kv_seqlen %lld of %lld keys", (long long)len[i], (long long)a->keys);
        offset[i] = len[i] - a->rows;
    }
    a->key_count = len;
    a->offsets = offset;
    return QX_OK;
}

/* qk_matmul_output, when it is asked for: a matrix of all scores, of the type of Q. */
static qx_status scores_out(qx_call *c, const qx_attn *a)
{
    const int64_t mode = qx_call_int(c, "qk_matmul_output_mode", 0);
    float *s;
    if (c->n_out < 4) return QX_OK;
    if (mode < 0 || mode > 3) QX_CALL_FAIL(c, QX_E_SHAPE, "qk_matmul_output_mode is %lld", (long long)mode);
    QX_TRY(qx_call_out_f32(c, 3, c->in[0]->dtype, 4, (int64_t[]){a->batch, a->heads, a->rows, a->keys}, &s));
    return qx_attn_scores(c, a, (qx_scores)mode, s);
}

qx_status qx_cpu_attention23(qx_call *c)
{
    part q, k, v;
    float *y;
    QX_TRY(read_part(c, 0, "q_num_heads", &q));
    QX_TRY(read_part(c, 1, "kv_num_heads", &k));
    QX_TRY(read_part(c, 2, "kv_num_heads", &v));
    if (q.t->rank != k.t->rank || k.t->rank != v.t->rank || q.d != k.d || k.batch != q.batch || v.batch != q.batch ||
        k.heads != v.heads || k.rows != v.rows || !k.heads || q.heads % k.heads)
        QX_CALL_FAIL(c, QX_E_SHAPE,
                "Q [%lld, %lld, %lld, %lld], K [%lld, %lld, %lld, %lld] do not fit", (long long)q.batch, (long long)q.heads,
                (long long)q.rows, (long long)q.d, (long long)k.batch, (long long)k.heads, (long long)k.rows, (long long)k.d);
    const int64_t fresh = k.rows;
    QX_TRY(with_past(c, 4, 1, &k));
    QX_TRY(with_past(c, 5, 2, &v));
    if (k.rows != v.rows) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld keys, %lld values", (long long)k.rows, (long long)v.rows);
    qx_attn a = {.batch = q.batch, .heads = q.heads, .kv_heads = k.heads, .rows = q.rows, .keys = k.rows, .d = q.d, .dv = v.d,
                 .q = q.view, .k = k.view, .v = v.view,
                 .scale = qx_call_float(c, "scale", 1.0f / sqrtf((float)q.d)), .softcap = qx_call_float(c, "softcap", 0),
                 .causal = qx_call_int(c, "is_causal", 0) != 0,
                 .offset = k.rows - fresh, .left = qx_call_int(c, "left_window_size", -1),
                     .right = qx_call_int(c, "right_window_size", -1)};
    a.has_right = a.right >= 0;
    if (a.left < -1 || a.right < -1)
        QX_CALL_FAIL(c, QX_E_SHAPE, "windows of %lld and %lld; -1 or more is needed", (long long)a.left, (long long)a.right);
    QX_TRY(read_lengths(c, &a));
    QX_TRY(read_mask(c, &a)); /* may end the keys earlier */
    const int64_t dims4[4] = {q.batch, q.heads, q.rows, v.d}, dims3[3] = {q.batch, q.rows, q.heads * v.d};
    const bool flat = q.t->rank == 3;
    QX_TRY(qx_call_out_f32(c, 0, q.t->dtype, q.t->rank, flat ? dims3 : dims4, &y));
    a.y = y;
    a.y_batch = q.heads * q.rows * v.d;
    a.y_head = flat ? v.d : q.rows * v.d;
    a.y_row = flat ? q.heads * v.d : v.d;
    QX_TRY(qx_attn_run(c, &a));
    return scores_out(c, &a);
}
