/* ms_attention.c - com.microsoft's MultiHeadAttention, Attention and QAttention: projections (the latter two), biases, caches,
 * and masks in all the forms that they take, brought to runtime/cpu/attention/attention.h. Masks become floats that are added,
 * mask_filter_value where a key is hidden. */
#include <math.h>
#include <string.h>

#include "runtime/cpu/attention/attention.h"
#include "runtime/cpu/codes/codes.h"
#include "runtime/cpu/matmul/gemm.h"
#include "runtime/cpu/codes/qdq.h"

typedef struct mha {
    int64_t batch, heads, rows, fresh, past, keys, d, dv; /* fresh: keys of this call; keys: with those of the cache */
    qx_heads q, k, v;
    qx_dtype type;
    bool causal;
} mha;

/* ---- Masks ---- */

/* Hidden keys of batch entry b: [0, start) and [end, keys). */
static void fill_range(float *row, int64_t keys, int64_t start, int64_t end, float hidden)
{
    for (int64_t j = 0; j < keys; j++) row[j] = j < start || j >= end ? hidden : 0.0f;
}

/* mask_index as floats [batch, rows or 1, keys], in *out with its row stride in *row. */
static qx_status read_mask(qx_call *c, uint32_t i, const mha *m, const float **out, int64_t *row)
{
    const qx_tensor *t = qx_call_in(c, i);
    const int64_t *v;
    int64_t n;
    char a[96];
    *out = NULL;
    *row = 0;
    if (!t) return QX_OK;
    QX_TRY(qx_call_in_i64(c, i, &v, &n));
    const float hidden = qx_call_float(c, "mask_filter_value", -10000.0f);
    const int64_t B = m->batch, S = m->rows, T = m->keys;
    const bool ends = t->rank == 1 && (n == B || n == 2 * B || n == 3 * B + 2), flat = t->rank == 2 && t->dims[0] == B && t->dims[1] == T;
    const bool full = t->rank == 3 && t->dims[0] == B && t->dims[1] == S && t->dims[2] == T;
    const bool square = t->rank == 4 && t->dims[0] == B && t->dims[1] == 1 && t->dims[2] == t->dims[3] && t->dims[3] >= T &&
        t->dims[2] >= m->past + S;
    if (!ends && !flat && !full && !square)
        QX_CALL_FAIL(c, QX_E_SHAPE, "mask %s for batch %lld, %lld rows and %lld keys", qx_tensor_describe(t, a, sizeof a), (long long)B,
                     (long long)S, (long long)T);
    float *f = NULL;
    *row = full || square ? T : 0;
    QX_TRY(QX_CALL_SCRATCH(c, B * (*row ? S : 1) * T + 1, &f));
    *out = f;
    for (int64_t b = 0; b < B; b++) {
        if (ends) fill_range(f + b * T, T, n == 2 * B ? v[B + b] : 0, v[b], hidden);
        for (int64_t s = 0; !ends && s < (*row ? S : 1); s++)
            for (int64_t j = 0; j < T; j++) {
                const int64_t at = flat ? b * T + j : full ? (b * S + s) * T + j : (b * t->dims[2] + m->past + s) * t->dims[3] + j;
                f[(b * (*row ? S : 1) + s) * T + j] = v[at] > 0 ? 0.0f : hidden;
            }
    }
    return QX_OK;
}

/* attention_bias [batch or 1, heads or 1, rows, keys]. */
static qx_status read_bias(qx_call *c, uint32_t i, const mha *m, qx_heads *o)
{
    const qx_tensor *t = qx_call_in(c, i);
    char a[96];
    *o = (qx_heads){.col = 1};
    if (!t) return QX_OK;
    if (t->rank != 4 || (t->dims[0] != 1 && t->dims[0] != m->batch) || (t->dims[1] != 1 && t->dims[1] != m->heads) ||
        t->dims[2] != m->rows || t->dims[3] != m->keys)
        QX_CALL_FAIL(c, QX_E_SHAPE, "attention_bias %s for [%lld, %lld, %lld, %lld]", qx_tensor_describe(t, a, sizeof a),
                     (long long)m->batch, (long long)m->heads, (long long)m->rows, (long long)m->keys);
    QX_TRY(qx_call_in_f32(c, i, &o->data));
    o->row = m->keys;
    o->head = t->dims[1] == 1 ? 0 : m->rows * m->keys;
    o->batch = t->dims[0] == 1 ? 0 : t->dims[1] * m->rows * m->keys;
    return QX_OK;
}

/* Both added up, dense over [batch, heads (or 1), rows, keys]. */
static qx_status join_masks(qx_call *c, const mha *m, const float *mask, int64_t mask_row, qx_heads *bias)
{
    if (!mask) return QX_OK;
    const int64_t S = m->rows, T = m->keys;
    if (!bias->data) {
        *bias = (qx_heads){mask, (mask_row ? S : 1) * T, 0, mask_row, 1};
        return QX_OK;
    }
    const int64_t heads = bias->head ? m->heads : 1;
    float *sum = NULL;
    QX_TRY(QX_CALL_SCRATCH(c, m->batch * heads * S * T, &sum));
    for (int64_t i = 0; i < m->batch * heads * S; i++) {
        const int64_t s = i % S, h = i / S % heads, b = i / S / heads;
        const float *x = bias->data + b * bias->batch + h * bias->head + s * T,
            *y = mask + (b * (mask_row ? S : 1) + (mask_row ? s : 0)) * T;
        for (int64_t j = 0; j < T; j++) sum[i * T + j] = x[j] + y[j];
    }
    *bias = (qx_heads){sum, heads * S * T, heads > 1 ? S * T : 0, T, 1};
    return QX_OK;
}

/* ---- Caches ---- */

typedef struct cache_job { const mha *m; const qx_heads *fresh; const float *past; float *to; int64_t d; } cache_job;

static qx_status cache_head(void *user, int64_t i)
{
    const cache_job *j = user;
    const mha *m = j->m;
    const float *from = j->fresh->data + i / m->heads * j->fresh->batch + i % m->heads * j->fresh->head;
    float *to = j->to + i * m->keys * j->d;
    if (m->past) memcpy(to, j->past + i * m->past * j->d, (size_t)(m->past * j->d) * sizeof *to);
    for (int64_t r = 0; r < m->fresh; r++) memcpy(to + (m->past + r) * j->d, from + r * j->fresh->row, (size_t)j->d * sizeof *to);
    return QX_OK;
}

/* *x becomes the cache with it behind: [batch, heads, keys, d] at `to`. */
static qx_status extend(qx_call *c, const mha *m, const float *past, int64_t d, float *to, qx_heads *x)
{
    const cache_job j = {m, x, past, to, d};
    QX_TRY(qx_parallel(c->ctx, m->batch * m->heads, cache_head, (void *)(uintptr_t)&j));
    *x = (qx_heads){to, m->heads * m->keys * d, m->keys * d, d, 1};
    return QX_OK;
}

static qx_status run(qx_call *c, mha *m, const qx_heads *mask, float *y, int64_t scores_out)
{
    const float scale = qx_call_float(c, "scale", 0.0f);
    qx_attn a = {.batch = m->batch, .heads = m->heads, .kv_heads = m->heads, .rows = m->rows, .keys = m->keys, .d = m->d, .dv = m->dv,
                 .q = m->q, .k = m->k, .v = m->v,
                 .y = y, .y_batch = m->rows * m->heads * m->dv, .y_head = m->dv, .y_row = m->heads * m->dv,
                 .scale = scale != 0 ? scale : 1.0f / sqrtf((float)(m->d ? m->d : 1)),
                 .mask = *mask, .causal = m->causal, .offset = m->past, .left = -1};
    QX_TRY(qx_attn_run(c, &a));
    if (scores_out < 0 || c->n_out <= scores_out) return QX_OK;
    float *s;
    QX_TRY(qx_call_out_f32(c, (uint32_t)scores_out, m->type, 4, (int64_t[]){m->batch, m->heads, m->rows, m->keys}, &s));
    return qx_attn_scores(c, &a, QX_SCORES_MASKED, s);
}

/* ---- MultiHeadAttention ---- */

enum { QUERY, KEY, VALUE, BIAS, PADDING, ATTENTION_BIAS, PAST_KEY, PAST_VALUE, PAST_LENGTH };

static qx_heads bsnh(const float *x, int64_t s, int64_t n, int64_t h) { return (qx_heads){x, s * n * h, h, n * h, 1}; }

/* Query, key and value in any of the forms: apart, [B, S, heads, 2 or 3, size] packed, or [B, heads, S, size] of cross attention. */
static qx_status mha_operands(qx_call *c, mha *m)
{
    const qx_tensor *q, *k = qx_call_in(c, KEY), *v = qx_call_in(c, VALUE);
    const float *fq, *fk = NULL, *fv = NULL;
    char a[96], b[96];
    QX_TRY(qx_call_need(c, QUERY, &q));
    QX_TRY(qx_call_in_f32(c, QUERY, &fq));
    m->heads = qx_call_int(c, "num_heads", 0);
    m->type = q->dtype;
    m->batch = q->rank > 1 ? q->dims[0] : 0;
    m->rows = q->rank > 1 ? q->dims[1] : 0;
    if (m->heads < 1) QX_CALL_FAIL(c, QX_E_SHAPE, "num_heads is %lld", (long long)m->heads);
    if (q->rank == 5 && !k && q->dims[2] == m->heads && q->dims[3] == 3) { /* packed q, k, v */
        const int64_t h = q->dims[4], row = m->heads * 3 * h;
        m->fresh = m->rows;
        m->d = m->dv = h;
        for (int i = 0; i < 3; i++) *(i == 0 ? &m->q : i == 1 ? &m->k : &m->v) = (qx_heads){fq + i * h, m->rows * row, 3 * h, row, 1};
        return QX_OK;
    }
    if (q->rank != 3 || !k || q->dims[2] % m->heads)
        QX_CALL_FAIL(c, QX_E_SHAPE, "query %s with %lld heads", qx_tensor_describe(q, a, sizeof a), (long long)m->heads);
    m->d = m->dv = q->dims[2] / m->heads;
    m->q = bsnh(fq, m->rows, m->heads, m->d);
    QX_TRY(qx_call_in_f32(c, KEY, &fk));
    if (v) QX_TRY(qx_call_in_f32(c, VALUE, &fv));
    if (k->rank == 5 && !v && k->dims[0] == m->batch && k->dims[2] == m->heads && k->dims[3] == 2 && k->dims[4] == m->d) { /* packed k, v */
        const int64_t row = m->heads * 2 * m->d;
        m->fresh = k->dims[1];
        m->k = (qx_heads){fk, m->fresh * row, 2 * m->d, row, 1};
        m->v = (qx_heads){fk + m->d, m->fresh * row, 2 * m->d, row, 1};
        return QX_OK;
    }
    if (k->rank == 4 && v && v->rank == 4 && k->dims[0] == m->batch && k->dims[1] == m->heads && k->dims[3] == m->d &&
        v->dims[2] == k->dims[2] && v->dims[1] == m->heads && v->dims[0] == m->batch) {
        m->fresh = k->dims[2];
        m->dv = v->dims[3];
        m->k = (qx_heads){fk, m->heads * m->fresh * m->d, m->fresh * m->d, m->d, 1};
        m->v = (qx_heads){fv, m->heads * m->fresh * m->dv, m->fresh * m->dv, m->dv, 1};
        return QX_OK;
    }
    if (k->rank != 3 || !v || v->rank != 3 || k->dims[0] != m->batch || v->dims[0] != m->batch || k->dims[1] != v->dims[1] ||
        k->dims[2] != q->dims[2] || v->dims[2] % m->heads)
        QX_CALL_FAIL(c, QX_E_SHAPE, "query %s and key %s do not fit", qx_tensor_describe(q, a, sizeof a),
                     qx_tensor_describe(k, b, sizeof b));
    m->fresh = k->dims[1];
    m->dv = v->dims[2] / m->heads;
    m->k = bsnh(fk, m->fresh, m->heads, m->d);
    m->v = bsnh(fv, m->fresh, m->heads, m->dv);
    return QX_OK;
}

/* x + bias[heads * d] as a dense [batch, rows, heads, d] copy. */
static qx_status add_bias(qx_call *c, const mha *m, int64_t rows, int64_t d, const float *bias, qx_heads *x)
{
    float *y = NULL;
    QX_TRY(QX_CALL_SCRATCH(c, m->batch * rows * m->heads * d + 1, &y));
    for (int64_t i = 0; i < m->batch * rows * m->heads; i++) {
        const int64_t h = i % m->heads, r = i / m->heads % rows, b = i / m->heads / rows;
        const float *from = x->data + b * x->batch + h * x->head + r * x->row;
        for (int64_t k = 0; k < d; k++) y[i * d + k] = from[k] + bias[h * d + k];
    }
    *x = bsnh(y, rows, m->heads, d);
    return QX_OK;
}

static qx_status mha_bias(qx_call *c, mha *m)
{
    const qx_tensor *t = qx_call_in(c, BIAS);
    const float *f;
    const int64_t hidden = m->heads * m->d;
    if (!t) return QX_OK;
    if (t->numel != 2 * hidden + m->heads * m->dv)
        QX_CALL_FAIL(c, QX_E_SHAPE, "bias has %lld elements, %lld are needed", (long long)t->numel,
                     (long long)(2 * hidden + m->heads * m->dv));
    QX_TRY(qx_call_in_f32(c, BIAS, &f));
    QX_TRY(add_bias(c, m, m->rows, m->d, f, &m->q));
    QX_TRY(add_bias(c, m, m->fresh, m->d, f + hidden, &m->k));
    return add_bias(c, m, m->fresh, m->dv, f + 2 * hidden, &m->v);
}

static qx_status mha_cache(qx_call *c, mha *m)
{
    const qx_tensor *pk = qx_call_in(c, PAST_KEY), *pv = qx_call_in(c, PAST_VALUE);
    const float *fk = NULL, *fv = NULL;
    float *k, *v;
    char a[96];
    if ((pk == NULL) != (pv == NULL)) QX_CALL_FAIL(c, QX_E_SHAPE, "past_key and past_value go together");
    m->past = pk && pk->rank == 4 ? pk->dims[2] : 0;
    m->keys = m->past + m->fresh;
    const int64_t want_k[4] = {m->batch, m->heads, m->past, m->d}, want_v[4] = {m->batch, m->heads, m->past, m->dv};
    if (pk && (pk->rank != 4 || pv->rank != 4 || memcmp(pk->dims, want_k, sizeof want_k) || memcmp(pv->dims, want_v, sizeof want_v)))
        QX_CALL_FAIL(c, QX_E_SHAPE, "past_key %s for [%lld, %lld, past, %lld]", qx_tensor_describe(pk, a, sizeof a), (long long)m->batch,
                     (long long)m->heads, (long long)m->d);
    if (qx_call_in(c, PAST_LENGTH)) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "past and present in one buffer (past_sequence_length)");
    if (!pk && c->n_out < 2) return QX_OK;
    if (pk) {
        QX_TRY(qx_call_in_f32(c, PAST_KEY, &fk));
        QX_TRY(qx_call_in_f32(c, PAST_VALUE, &fv));
    }
    QX_TRY(qx_call_out_f32(c, 1, m->type, 4, (int64_t[]){m->batch, m->heads, m->keys, m->d}, &k));
    QX_TRY(qx_call_out_f32(c, 2, m->type, 4, (int64_t[]){m->batch, m->heads, m->keys, m->dv}, &v));
    QX_TRY(extend(c, m, fk, m->d, k, &m->k));
    return extend(c, m, fv, m->dv, v, &m->v);
}

qx_status qx_cpu_ms_mha(qx_call *c)
{
    mha m = {.causal = qx_call_int(c, "unidirectional", 0) != 0};
    const float *mask;
    int64_t mask_row;
    qx_heads bias;
    float *y;
    QX_TRY(mha_operands(c, &m));
    QX_TRY(mha_bias(c, &m));
    QX_TRY(qx_call_out_f32(c, 0, m.type, 3, (int64_t[]){m.batch, m.rows, m.heads * m.dv}, &y));
    QX_TRY(mha_cache(c, &m));
    QX_TRY(read_mask(c, PADDING, &m, &mask, &mask_row));
    QX_TRY(read_bias(c, ATTENTION_BIAS, &m, &bias));
    QX_TRY(join_masks(c, &m, mask, mask_row, &bias));
    return run(c, &m, &bias, y, 3);
}

/* ---- Attention, QAttention: the projection is theirs ---- */

typedef struct state { qx_packed *packed; float *bias; qx_code_panels codes; } state;

static void drop(qx_ctx *ctx, void *block)
{
    state *s = block;
    qx_packed_free(ctx, s->packed);
    qx_free(ctx, s->bias);
    qx_code_panels_free(ctx, &s->codes);
}

/* qkv[rows, n] = x W + bias in float. */
static qx_status project(qx_call *c, const qx_tensor *x, const qx_tensor *w, float *qkv)
{
    state *st = NULL;
    const float *fx, *fw, *bias = NULL;
    const int64_t k = w->dims[0], n = w->dims[1], m = x->dims[0] * x->dims[1];
    QX_TRY(qx_call_state(c, sizeof *st, drop, (void **)&st));
    QX_TRY(qx_call_in_f32(c, 0, &fx));
    if (qx_call_in(c, 2)) QX_TRY(qx_call_in_f32(c, 2, &bias));
    if (!qx_call_in_const(c, 1) && st->packed) {
        qx_packed_free(c->ctx, st->packed);
        st->packed = NULL;
    }
    if (!st->packed) {
        QX_TRY(qx_call_in_f32(c, 1, &fw));
        QX_TRY(qx_packed_new(c, &(qx_matrix){.k = k, .n = n, .row = n, .col = 1, .data = fw}, m, &st->packed));
    }
    qx_call_drop_const(c, 1);
    const qx_gemm g = {.m = m, .x = fx, .bias = bias, .y = qkv};
    return qx_gemm_run(c, st->packed, &g);
}

typedef struct code_job {
    const qx_code_panels *w;
    const qx_tensor *x;
    int32_t zx;
    const int32_t *zw;
    bool zw_per;
    float sx;
    const float *sw;
    bool sw_per;
    qx_code_out out;
    float *y;
    int64_t m, n, k, panels;
} code_job;

static qx_status code_piece(void *user, int64_t i)
{
    const code_job *j = user;
    const int64_t p = i % j->panels, first = i / j->panels * QX_CODE_ROWS;
    const qx_code_tile t = {.w = j->w, .panel = p, .rows = j->m - first < QX_CODE_ROWS ? j->m - first : QX_CODE_ROWS,
                            .a = (const char *)j->x->data + first * j->k, .lda = j->k,
                            .a_signed = j->x->dtype == QX_DT_INT8, .za = &j->zx, .zb = j->zw, .zb_per_col = j->zw_per, .sa = &j->sx,
                            .sb = j->sw, .sb_per_col = j->sw_per,
                            .out = &j->out, .y = j->y + first * j->n + p * QX_IGEMM_PANEL, .row = j->n, .col = 1};
    qx_code_tile_run(&t);
    return QX_OK;
}

/* The same from codes: x, w, bias, x scale, w scale, mask, x zero, w zero. */
static qx_status project_codes(qx_call *c, const qx_tensor *x, const qx_tensor *w, float *qkv)
{
    state *st = NULL;
    qx_code_panels fresh = {0};
    double sx;
    int64_t zx;
    const bool keep = qx_call_in_const(c, 1);
    code_job j = {.x = x, .y = qkv, .k = w->dims[0], .n = w->dims[1], .m = x->dims[0] * x->dims[1], .out = {.kind = QX_CODE_FLOAT}};
    QX_TRY(qx_call_state(c, sizeof *st, drop, (void **)&st));
    QX_TRY(qx_call_scalar_f64(c, 3, 1, &sx));
    QX_TRY(qx_call_scalar_i64(c, 6, 0, &zx));
    QX_TRY(qx_call_in_f32(c, 4, &j.sw));
    QX_TRY(qx_q_zeros(c, qx_call_in(c, 7), &j.zw));
    if (qx_call_in(c, 2)) QX_TRY(qx_call_in_f32(c, 2, &j.out.bias));
    j.sx = (float)sx;
    j.zx = (int32_t)zx;
    j.sw_per = c->in[4]->numel != 1;
    j.zw_per = j.zw && c->in[7]->numel != 1;
    if ((j.sw_per && c->in[4]->numel != j.n) || (j.zw_per && c->in[7]->numel != j.n))
        QX_CALL_FAIL(c, QX_E_SHAPE, "weight scale or zero point does not fit %lld columns", (long long)j.n);
    qx_code_panels *p = keep ? &st->codes : &fresh;
    if (!p->packed) {
        *p = (qx_code_panels){.k = j.k, .n = j.n, .count = 1, .is_signed = w->dtype == QX_DT_INT8};
        const qx_code_source src = {w->data, 0, j.n, 1};
        QX_TRY(qx_code_pack(c, &src, keep, p));
        if (keep) qx_call_drop_const(c, 1);
    }
    j.w = p;
    j.panels = qx_igemm_panels(j.n);
    return qx_parallel(c->ctx, (j.m + QX_CODE_ROWS - 1) / QX_CODE_ROWS * j.panels, code_piece, &j);
}

/* Widths of q and k, and of v, among the columns. */
static qx_status widths(qx_call *c, mha *m, int64_t n)
{
    int64_t count;
    const int64_t *sizes = qx_call_ints(c, "qkv_hidden_sizes", &count);
    int64_t qk = n / 3, v = n / 3;
    if (count == 3 && sizes[0] == sizes[1]) qk = sizes[0], v = sizes[2];
    else if (sizes && count) QX_CALL_FAIL(c, QX_E_SHAPE, "qkv_hidden_sizes has %lld entries, or q and k differ", (long long)count);
    m->heads = qx_call_int(c, "num_heads", 0);
    if (m->heads < 1 || qk < 1 || v < 1 || 2 * qk + v != n || qk % m->heads || v % m->heads)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld columns for %lld heads", (long long)n, (long long)m->heads);
    m->d = qk / m->heads;
    m->dv = v / m->heads;
    return QX_OK;
}

/* past and present: [2, batch, heads, length, size], keys first. */
static qx_status stacked_cache(qx_call *c, uint32_t past_in, mha *m)
{
    const qx_tensor *past = qx_call_in(c, past_in);
    const float *f = NULL;
    float *to;
    char a[96];
    m->past = past && past->rank == 5 ? past->dims[3] : 0;
    m->keys = m->past + m->fresh;
    if (!past && c->n_out < 2) return QX_OK;
    if (m->d != m->dv || (past && (past->rank != 5 || past->dims[0] != 2 || past->dims[1] != m->batch || past->dims[2] != m->heads ||
                                   past->dims[4] != m->d)))
        QX_CALL_FAIL(c, QX_E_SHAPE, "past %s for [2, %lld, %lld, past, %lld]", past ? qx_tensor_describe(past, a, sizeof a) : "(none)",
                     (long long)m->batch, (long long)m->heads, (long long)m->d);
    if (past) QX_TRY(qx_call_in_f32(c, past_in, &f));
    QX_TRY(qx_call_out_f32(c, 1, m->type, 5, (int64_t[]){2, m->batch, m->heads, m->keys, m->d}, &to));
    const int64_t half = m->batch * m->heads * m->keys * m->d, past_half = m->batch * m->heads * m->past * m->d;
    QX_TRY(extend(c, m, f, m->d, to, &m->k));
    return extend(c, m, f ? f + past_half : NULL, m->d, to + half, &m->v);
}

static qx_status refuse(const qx_call *c)
{
    static const char *const names[] = {"do_rotary", "past_present_share_buffer"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (qx_call_int(c, names[i], 0)) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "%s", names[i]);
    return QX_OK;
}

qx_status qx_cpu_ms_attention(qx_call *c)
{
    const bool codes = c->node->op->id == QX_OP_ms_QAttention;
    const qx_tensor *x, *w, *b = qx_call_in(c, 2);
    const float *mask;
    int64_t mask_row;
    float *qkv = NULL, *y;
    qx_heads bias = {.col = 1};
    mha m = {.causal = qx_call_int(c, "unidirectional", 0) != 0};
    char s[96], t[96];
    QX_TRY(refuse(c));
    QX_TRY(codes ? qx_code_input(c, 0, &x) : qx_call_need(c, 0, &x));
    QX_TRY(codes ? qx_code_input(c, 1, &w) : qx_call_need(c, 1, &w));
    if (x->rank != 3 || w->rank != 2 || w->dims[0] != x->dims[2] || w->dims[0] < 1)
        QX_CALL_FAIL(c, QX_E_SHAPE, "input %s by weights %s", qx_tensor_describe(x, s, sizeof s), qx_tensor_describe(w, t, sizeof t));
    const int64_t n = w->dims[1];
    if (b && b->numel != n) QX_CALL_FAIL(c, QX_E_SHAPE, "bias has %lld elements for %lld columns", (long long)b->numel, (long long)n);
    QX_TRY(widths(c, &m, n));
    m.type = codes ? QX_DT_FLOAT : x->dtype;
    m.batch = x->dims[0];
    m.rows = m.fresh = x->dims[1];
    QX_TRY(qx_call_out_f32(c, 0, m.type, 3, (int64_t[]){m.batch, m.rows, m.heads * m.dv}, &y));
    QX_TRY(QX_CALL_SCRATCH(c, m.batch * m.rows * n + 1, &qkv));
    QX_TRY(codes ? project_codes(c, x, w, qkv) : project(c, x, w, qkv));
    m.q = (qx_heads){qkv, m.rows * n, m.d, n, 1};
    m.k = (qx_heads){qkv + m.heads * m.d, m.rows * n, m.d, n, 1};
    m.v = (qx_heads){qkv + 2 * m.heads * m.d, m.rows * n, m.dv, n, 1};
    QX_TRY(stacked_cache(c, codes ? 8 : 4, &m));
    QX_TRY(read_mask(c, codes ? 5 : 3, &m, &mask, &mask_row));
    if (!codes) QX_TRY(read_bias(c, 5, &m, &bias));
    QX_TRY(join_masks(c, &m, mask, mask_row, &bias));
    return run(c, &m, &bias, y, -1);
}
