/* gqa.c - com.microsoft.GroupQueryAttention: rotary embedding, appending to the key and value caches, attention.
 *
 * Each batch entry has its own number of keys, seqlens_k + 1; a prompt (as many new tokens as keys in all) starts at 0, anything
 * else continues behind what the cache holds. Caches in the output are as long as the longer of the total length and the cache
 * that came in. Attention reads them as they are stored, float, half or codes: what a later token will see of a key is what this
 * one sees.
 *
 * A sliding_window_cache of C rows for a window of W keeps its size. Behind T tokens it holds the last L of them from row 0 on, where
 * L = T up to C, and T - G ceil((T - C) / G) beyond, G = C - W + 1: it drops G keys at once when the next would not fit. Distances
 * alone decide what a token sees, so rows are counted from the first key that is there; rotation goes by positions in the text. Steps
 * that do not fit run over a copy that has room for them. */
#include <math.h>
#include <string.h>

#include "kernels/rows.h"
#include "runtime/cpu/attention/attention.h"
#include "runtime/cpu/attention/kv_codes.h"

enum { QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, SEQLENS, TOTAL, COS, SIN, POSITIONS, BIAS, SINK, K_SCALE, V_SCALE, Q_NORM, K_NORM };

typedef struct gqa {
    int64_t batch, rows, heads, kv_heads, d, past_cap;
    int64_t cap, present;                                   /* rows of the caches that attention reads, and of those in the output */
    int64_t window, total;                                  /* of a sliding_window_cache, 0: none; tokens so far */
    const float *q, *k, *v;
    int64_t q_row, k_row;                                   /* row strides of the new q and of k, v */
    float *rq, *new_k;                                      /* rotated queries [batch, rows, heads, d]; a key for each thread */
    int64_t *past, *count, *origin;                         /* [batch] keys before, keys in all, position of the first of them */
    const float *cos, *sin;
    const int64_t *positions;
    int64_t half, max_pos;                                  /* rotary: angles a head, rows of the tables */
    bool interleaved, rotary;
    const float *q_norm, *k_norm;                           /* [d] gammas of the RMS norm of every head, before rotation; NULL: none */
    float norm_eps;
    bool coded;
    qx_kv_codes k_codes, v_codes;
    const uint8_t *past_k, *past_v;                         /* NULL: nothing yet */
    uint8_t *pk, *pv;                                       /* [batch, kv_heads, cap, d]: the output caches, or copies with more room */
} gqa;

static qx_status check_inputs(qx_call *c, gqa *g)
{
    const qx_tensor *q, *k = qx_call_in(c, KEY), *v = qx_call_in(c, VALUE), *pk = qx_call_in(c, PAST_KEY), *pv = qx_call_in(c, PAST_VALUE);
    QX_TRY(qx_call_need(c, QUERY, &q));
    g->heads = qx_call_int(c, "num_heads", 0);
    g->kv_heads = qx_call_int(c, "kv_num_heads", 0);
    if (g->heads < 1 || g->kv_heads < 1 || g->heads % g->kv_heads || q->rank != 3)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld heads, %lld key heads, query of rank %d", (long long)g->heads, (long long)g->kv_heads, q->rank);
    g->batch = q->dims[0];
    g->rows = q->dims[1];
    int64_t parts = k ? g->heads : g->heads + 2 * g->kv_heads;
    g->d = q->dims[2] / parts;
    if (g->d < 1 || g->d * parts != q->dims[2])
        QX_CALL_FAIL(c, QX_E_SHAPE, "query has %lld columns for %lld heads", (long long)q->dims[2], (long long)parts);
    if ((k == NULL) != (v == NULL)) QX_CALL_FAIL(c, QX_E_SHAPE, "key and value go together");
    int64_t need = g->batch * g->rows * g->kv_heads * g->d;
    if (k && (k->numel != need || v->numel != k->numel))
        QX_CALL_FAIL(c, QX_E_SHAPE, "key has %lld elements, value %lld, %lld are needed", (long long)k->numel, (long long)v->numel,
                     (long long)need);
    g->coded = strcmp(qx_call_str(c, "k_quant_type", "NONE"), "NONE") != 0;
    const int64_t row = g->coded && pk && pk->dtype == QX_DT_UINT8 ? g->d / 2 : g->d;
    if (pk && (!pv || pk->rank != 4 || pk->dims[0] != g->batch || pk->dims[1] != g->kv_heads || pk->dims[3] != row ||
               pv->numel != pk->numel || pv->dtype != pk->dtype))
        QX_CALL_FAIL(c, QX_E_SHAPE, "past key and value must both be [%lld,%lld,past,%lld]", (long long)g->batch, (long long)g->kv_heads,
                     (long long)row);
    g->past_cap = pk ? pk->dims[2] : 0;
    return QX_OK;
}

static qx_status head_norms(qx_call *c, gqa *g)
{
    const qx_tensor *q = qx_call_in(c, Q_NORM), *k = qx_call_in(c, K_NORM);
    if (!q && !k) return QX_OK;
    if (!q || !k || q->numel != g->d || k->numel != g->d)
        QX_CALL_FAIL(c, QX_E_SHAPE, "q_norm_weight and k_norm_weight go together, with %lld elements each", (long long)g->d);
    g->norm_eps = qx_call_float(c, "qk_norm_epsilon", 1e-6f);
    QX_TRY(qx_call_in_f32(c, Q_NORM, &g->q_norm));
    return qx_call_in_f32(c, K_NORM, &g->k_norm);
}

/* A cache that begins empty and grows is one like others, window or not: ONNX Runtime refuses it, calibration on prompts needs it. */
static int64_t window_of(const qx_call *c, const gqa *g)
{
    const int64_t window = qx_call_int(c, "local_window_size", -1);
    return qx_call_int(c, "sliding_window_cache", 0) && window > 0 && g->past_cap >= window ? window : 0;
}

/* Keys in the cache behind `tokens`. */
static int64_t resident(const gqa *g, int64_t tokens)
{
    const int64_t gap = g->past_cap - g->window + 1, over = tokens - g->past_cap;
    return g->window && over > 0 ? tokens - (over + gap - 1) / gap * gap : tokens;
}

static qx_status length_of(qx_call *c, gqa *g, int64_t b, int64_t tokens)
{
    const int64_t before = g->rows == g->total ? 0 : tokens - g->rows;
    if (tokens < 1 || before < 0 || tokens > (g->window ? g->total : g->cap) || (!g->window && before > g->past_cap))
        QX_CALL_FAIL(c, QX_E_SHAPE, "batch %lld: %lld keys in all, %lld new, cache of %lld", (long long)b, (long long)tokens,
                     (long long)g->rows, (long long)g->cap);
    g->past[b] = resident(g, before);
    g->origin[b] = before - g->past[b];
    g->count[b] = tokens - g->origin[b];
    if (g->past[b] + g->rows > g->cap) g->cap = g->past[b] + g->rows;
    return QX_OK;
}

static qx_status lengths(qx_call *c, gqa *g)
{
    const int64_t *seq;
    int64_t n;
    QX_TRY(qx_call_in_i64(c, SEQLENS, &seq, &n));
    QX_TRY(qx_call_scalar_i64(c, TOTAL, 0, &g->total));
    if (n != g->batch || g->total < g->rows)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld lengths for batch %lld, total length %lld for %lld new tokens", (long long)n,
                     (long long)g->batch, (long long)g->total, (long long)g->rows);
    QX_TRY(QX_CALL_SCRATCH(c, g->batch, &g->past));
    QX_TRY(QX_CALL_SCRATCH(c, g->batch, &g->count));
    QX_TRY(QX_CALL_SCRATCH(c, g->batch, &g->origin));
    g->window = window_of(c, g);
    g->present = g->cap = g->window || g->total < g->past_cap ? g->past_cap : g->total;
    for (int64_t b = 0; b < g->batch; b++) /* what no int32 holds, as the operator has them, is no length */
        QX_TRY(length_of(c, g, b, seq[b] >= 0 && seq[b] < INT32_MAX ? seq[b] + 1 : 0));
    return QX_OK;
}

static qx_status rotary(qx_call *c, gqa *g)
{
    const qx_tensor *cos, *sin;
    int64_t n;
    g->rotary = qx_call_int(c, "do_rotary", 0) != 0;
    if (!g->rotary) return QX_OK;
    g->interleaved = qx_call_int(c, "rotary_interleaved", 0) != 0;
    QX_TRY(qx_call_need(c, COS, &cos));
    QX_TRY(qx_call_need(c, SIN, &sin));
    if (cos->rank != 2 || sin->numel != cos->numel || 2 * cos->dims[1] > g->d)
        QX_CALL_FAIL(c, QX_E_SHAPE, "cos and sin tables do not fit heads of %lld", (long long)g->d);
    g->max_pos = cos->dims[0];
    g->half = cos->dims[1];
    QX_TRY(qx_call_in_f32(c, COS, &g->cos));
    QX_TRY(qx_call_in_f32(c, SIN, &g->sin));
    QX_TRY(qx_call_in_i64(c, POSITIONS, &g->positions, &n));
    if (g->positions && n != g->batch * g->rows)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld positions for %lld tokens", (long long)n, (long long)(g->batch * g->rows));
    for (int64_t t = 0; t < g->batch * g->rows; t++) {
        int64_t p = g->positions ? g->positions[t] : g->origin[t / g->rows] + g->past[t / g->rows] + t % g->rows;
        if (p < 0 || p >= g->max_pos)
            QX_CALL_FAIL(c, QX_E_SHAPE, "position %lld, tables have %lld rows", (long long)p, (long long)g->max_pos);
    }
    return QX_OK;
}

static void place(const gqa *g, const float *x, const float *norm, int64_t pos, float *y)
{
    int64_t done = 0;
    if (norm) {
        qx_rmsnorm_row(x, norm, g->norm_eps, y, g->d, NULL);
        x = y;
    }
    if (g->rotary) {
        qx_rope_row(x, g->cos + pos * g->half, g->sin + pos * g->half, g->half, g->interleaved, y);
        done = 2 * g->half;
    }
    for (int64_t i = done; i < g->d; i++) y[i] = x[i];
}

/* One token: its queries rotated, its key and value put into the caches. */
static qx_status token(void *user, int64_t t)
{
    const gqa *g = user;
    int64_t b = t / g->rows, s = t % g->rows, at = g->past[b] + s, pos = g->positions ? g->positions[t] : g->origin[b] + at;
    float *key = g->new_k + qx_thread_index() * g->d;
    for (int64_t h = 0; h < g->heads; h++) place(g, g->q + t * g->q_row + h * g->d, g->q_norm, pos, g->rq + (t * g->heads + h) * g->d);
    for (int64_t h = 0; h < g->kv_heads; h++) {
        const int64_t to = (b * g->kv_heads + h) * g->cap + at;
        place(g, g->k + t * g->k_row + h * g->d, g->k_norm, pos, key);
        qx_kv_encode(&g->k_codes, h, key, g->pk + to * g->k_codes.row_bytes);
        qx_kv_encode(&g->v_codes, h, g->v + t * g->k_row + h * g->d, g->pv + to * g->v_codes.row_bytes);
    }
    return QX_OK;
}

typedef struct moved { const gqa *g; uint8_t *k, *v; } moved; /* the output caches, when attention reads copies; else NULL */

static int nothing(const gqa *g) { return g->k_codes.type == QX_DT_UINT8 ? 0x88 : 0; } /* codes of 0 */

/* One head of the caches, unless they are those that came in: the keys before, then zeros (what a cache holds behind its keys means
 * nothing). */
static qx_status cache_head(void *user, int64_t i)
{
    const gqa *g = user;
    for (int kv = 0; kv < 2; kv++) {
        const uint8_t *from = kv ? g->past_v : g->past_k;
        const int64_t bytes = (kv ? &g->v_codes : &g->k_codes)->row_bytes, keep = from ? g->past[i / g->kv_heads] * bytes : 0;
        uint8_t *to = (kv ? g->pv : g->pk) + i * g->cap * bytes;
        if (from == (kv ? g->pv : g->pk)) continue;
        if (keep) memcpy(to, from + i * g->past_cap * bytes, (size_t)keep);
        memset(to + keep, nothing(g), (size_t)(g->cap * bytes - keep));
    }
    return QX_OK;
}

/* One head of the output caches out of the copies: the last keys. */
static qx_status keep_last(void *user, int64_t i)
{
    const moved *m = user;
    const gqa *g = m->g;
    const int64_t b = i / g->kv_heads, n = resident(g, g->origin[b] + g->count[b]);
    for (int kv = 0; kv < 2; kv++) {
        const int64_t bytes = (kv ? &g->v_codes : &g->k_codes)->row_bytes;
        const uint8_t *from = (kv ? g->pv : g->pk) + (i * g->cap + g->count[b] - n) * bytes;
        uint8_t *to = (kv ? m->v : m->k) + i * g->present * bytes;
        memcpy(to, from, (size_t)(n * bytes));
        memset(to + n * bytes, nothing(g), (size_t)((g->present - n) * bytes));
    }
    return QX_OK;
}

/* Outputs 1 and 2, and what the past holds in them or in copies. */
static qx_status caches(qx_call *c, gqa *g, moved *m)
{
    const qx_tensor *past = qx_call_in(c, PAST_KEY);
    const qx_dtype fresh = g->coded ? qx_call_int(c, "kv_cache_bit_width", 8) == 4 ? QX_DT_UINT8 : QX_DT_INT8 : c->in[QUERY]->dtype,
        type = past ? past->dtype : fresh;
    qx_tensor *k = NULL, *v = NULL;
    QX_TRY(qx_kv_codes_read(c, type, K_SCALE, "k_quant_type", g->kv_heads, g->d, &g->k_codes));
    QX_TRY(qx_kv_codes_read(c, type, V_SCALE, "v_quant_type", g->kv_heads, g->d, &g->v_codes));
    const int64_t dims[4] = {g->batch, g->kv_heads, g->present, g->k_codes.row_elements};
    QX_TRY(qx_call_out_append(c, 1, PAST_KEY, type, 4, dims, &k));
    QX_TRY(qx_call_out_append(c, 2, PAST_VALUE, type, 4, dims, &v));
    g->pk = k->data;
    g->pv = v->data;
    if (g->cap > g->present) {
        *m = (moved){g, k->data, v->data};
        QX_TRY(QX_CALL_SCRATCH(c, g->batch * g->kv_heads * g->cap * g->k_codes.row_bytes, &g->pk));
        QX_TRY(QX_CALL_SCRATCH(c, g->batch * g->kv_heads * g->cap * g->v_codes.row_bytes, &g->pv));
    }
    g->past_k = past ? past->data : NULL;
    g->past_v = past ? c->in[PAST_VALUE]->data : NULL;
    QX_TRY(QX_CALL_SCRATCH(c, qx_ctx_threads(c->ctx) * g->d, &g->new_k));
    return qx_parallel(c->ctx, g->batch * g->kv_heads, cache_head, g);
}

/* output_qk: 1 the scores that go into softmax, 0 where a key is hidden (as ONNX Runtime writes them), 2 the ones that come out. */
static qx_status scores_out(qx_call *c, const gqa *g, qx_attn *a)
{
    const int64_t mode = qx_call_int(c, "qk_output", 0), heads = g->batch * g->kv_heads, head = g->cap * g->d;
    float *s, *k = NULL;
    if (c->n_out < 4) return QX_OK;
    for (int64_t b = 0; b < g->batch; b++)
        if (g->origin[b] || g->cap > g->present)
            QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "output_qk of a sliding_window_cache that has dropped keys");
    if (mode != 1 && mode != 2) QX_CALL_FAIL(c, QX_E_SHAPE, "output_qk is asked for, but qk_output is %lld", (long long)mode);
    QX_TRY(qx_call_out_f32(c, 3, c->in[QUERY]->dtype, 4, (int64_t[]){a->batch, a->heads, a->rows, a->keys}, &s));
    if (a->kc.data) { /* who asks for a matrix of scores has room for keys as floats */
        QX_TRY(QX_CALL_SCRATCH(c, heads * head, &k));
        for (int64_t i = 0; i < heads; i++)
            qx_kv_decode(&g->k_codes, i % g->kv_heads, g->cap, g->pk + i * g->cap * g->k_codes.row_bytes, k + i * head);
        a->k.data = k;
    }
    QX_TRY(qx_attn_scores(c, a, mode == 1 ? QX_SCORES_MASKED : QX_SCORES_SOFTMAX, s));
    for (int64_t i = 0; mode == 1 && i < a->batch * a->heads * a->rows * a->keys; i++) s[i] = s[i] == -INFINITY ? 0.0f : s[i];
    return QX_OK;
}

/* Its columns are positions; the mask's first is that of the first key. */
static qx_status add_bias(qx_call *c, const gqa *g, const qx_tensor *bias, qx_heads *mask)
{
    const bool fits = bias->rank == 4 && (bias->dims[0] == 1 || bias->dims[0] == g->batch) &&
        (bias->dims[1] == 1 || bias->dims[1] == g->heads);
    const int64_t columns = g->window ? g->total : g->cap;
    if (!fits || bias->dims[2] != g->rows || bias->dims[3] < columns)
        QX_CALL_FAIL(c, QX_E_SHAPE, "attention_bias must be [batch or 1, heads or 1, %lld, %lld]", (long long)g->rows, (long long)columns);
    for (int64_t b = 1; b < g->batch; b++)
        if (g->origin[b] != g->origin[0])
            QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "attention_bias, and a sliding_window_cache that begins at position %lld and at %lld",
                         (long long)g->origin[0], (long long)g->origin[b]);
    QX_TRY(qx_call_in_f32(c, BIAS, &mask->data));
    mask->data += g->origin[0];
    mask->row = bias->dims[3];
    mask->head = bias->dims[1] == 1 ? 0 : bias->dims[2] * bias->dims[3];
    mask->batch = bias->dims[0] == 1 ? 0 : bias->dims[1] * bias->dims[2] * bias->dims[3];
    mask->col = 1;
    return QX_OK;
}

static qx_status attend(qx_call *c, const gqa *g, float *y)
{
    const qx_tensor *bias = qx_call_in(c, BIAS), *sink = qx_call_in(c, SINK);
    float scale = qx_call_float(c, "scale", 0.0f);
    int64_t left = qx_call_int(c, "local_window_size", -1) - 1; /* the window counts the token itself */
    qx_attn a = {.batch = g->batch, .heads = g->heads, .kv_heads = g->kv_heads, .rows = g->rows, .keys = g->cap, .d = g->d, .dv = g->d,
                 .q = {g->rq, g->rows * g->heads * g->d, g->d, g->heads * g->d, 1},
                 .k = {NULL, g->kv_heads * g->cap * g->d, g->cap * g->d, g->d, 1},
                 .v = {NULL, g->kv_heads * g->cap * g->d, g->cap * g->d, g->d, 1},
                 .kc = {g->pk, qx_kv_codes_of(&g->k_codes)}, .vc = {g->pv, qx_kv_codes_of(&g->v_codes)},
                 .y = y, .y_batch = g->rows * g->heads * g->d, .y_head = g->d, .y_row = g->heads * g->d,
                 .scale = scale != 0 ? scale : 1.0f / sqrtf((float)g->d), .softcap = qx_call_float(c, "softcap", 0.0f),
                 .causal = qx_call_int(c, "causal", 1) != 0,
                 .left = left, .offsets = g->past, .key_count = g->count};
    if (bias) QX_TRY(add_bias(c, g, bias, &a.mask));
    if (sink) {
        if (sink->numel != g->heads)
            QX_CALL_FAIL(c, QX_E_SHAPE, "head_sink has %lld elements for %lld heads", (long long)sink->numel, (long long)g->heads);
        QX_TRY(qx_call_in_f32(c, SINK, &a.sink));
    } else if (qx_call_int(c, "smooth_softmax", 0)) {
        float *zero = NULL;
        QX_TRY(QX_CALL_SCRATCH(c, g->heads, &zero));
        memset(zero, 0, (size_t)g->heads * sizeof *zero);
        a.sink = zero;
    }
    QX_TRY(qx_attn_run(c, &a));
    return scores_out(c, g, &a);
}

qx_status qx_cpu_gqa(qx_call *c)
{
    gqa g = {0};
    moved m = {0};
    float *y = NULL;
    QX_TRY(check_inputs(c, &g));
    QX_TRY(lengths(c, &g));
    QX_TRY(rotary(c, &g));
    QX_TRY(qx_call_in_f32(c, QUERY, &g.q));
    int64_t hidden = g.heads * g.d, kv = g.kv_heads * g.d;
    g.q_row = qx_call_in(c, KEY) ? hidden : hidden + 2 * kv;
    if (qx_call_in(c, KEY)) {
        QX_TRY(qx_call_in_f32(c, KEY, &g.k));
        QX_TRY(qx_call_in_f32(c, VALUE, &g.v));
        g.k_row = kv;
    } else {
        g.k = g.q + hidden;
        g.v = g.k + kv;
        g.k_row = g.q_row;
    }
    QX_TRY(head_norms(c, &g));
    QX_TRY(qx_call_out_f32(c, 0, c->in[QUERY]->dtype, 3, (int64_t[]){g.batch, g.rows, hidden}, &y));
    QX_TRY(caches(c, &g, &m));
    QX_TRY(QX_CALL_SCRATCH(c, g.batch * g.rows * hidden, &g.rq));
    QX_TRY(qx_parallel(c->ctx, g.batch * g.rows, token, &g));
    QX_TRY(attend(c, &g, y));
    return m.k ? qx_parallel(c->ctx, g.batch * g.kv_heads, keep_last, &m) : QX_OK;
}
