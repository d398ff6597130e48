/* attention.c - see attention.h. A piece is one head of one batch and a block of query rows; its size depends on the dims only. */
#include "runtime/cpu/attention/attention.h"

#include <math.h>

#include "kernels/attention.h"
#include "kernels/rows.h"

typedef struct job { const qx_attn *a; int64_t chunk, chunks, per_thread; float *scratch; } job;

/* Keys that the row at position p (its index plus the offset) sees. */
static int64_t first_key(const qx_attn *a, int64_t p) { return a->left >= 0 ? p - a->left : INT64_MIN; }
static int64_t last_key(const qx_attn *a, int64_t p)
{
    if (a->causal && (!a->has_right || a->right > 0)) return p;
    return a->has_right ? p + a->right : INT64_MAX;
}

/* Keys or values of one head: floats, or codes with the head's scales. */
static const void *side(const qx_heads *f, const qx_coded_heads *c, int64_t b, int64_t kv, int64_t d, qx_attn_codes *codes)
{
    const int64_t at = b * f->batch + kv * f->head;
    if (!c->data) return f->data + at;
    *codes = c->codes;
    if (codes->scale && codes->per_column) codes->scale += kv * d;
    return (const uint8_t *)c->data + (size_t)at * (size_t)qx_dtype_get(codes->type)->bits / 8;
}

/* Rows [first, first + rows) of a head of a batch. */
static qx_attn_head head_of(const qx_attn *a, int64_t b, int64_t hd, int64_t first, int64_t rows)
{
    const int64_t kv = hd / (a->heads / a->kv_heads), offset = a->offsets ? a->offsets[b] : a->offset;
    qx_attn_head h = {
        .rows = rows, .keys = a->key_count ? a->key_count[b] : a->keys, .d = a->d, .dv = a->dv,
        .q = a->q.data + b * a->q.batch + hd * a->q.head + first * a->q.row, .ldq = a->q.row,
        .ldk = a->k.row, .kc = a->k.col, .ldv = a->v.row,
        .y = a->y + b * a->y_batch + hd * a->y_head + first * a->y_row, .ldy = a->y_row,
        .scale = a->scale, .softcap = a->softcap, .ld_mask = a->mask.row, .ld_keep = a->keep_row,
        .mask = a->mask.data ? a->mask.data + b * a->mask.batch + hd * a->mask.head + first * a->mask.row : NULL,
        .keep = a->keep ? a->keep + b * a->keep_batch + hd * a->keep_head + first * a->keep_row : NULL,
        .first = first_key(a, first + offset), .last = last_key(a, first + offset), .nan_when_empty = a->nan_when_empty,
        .has_sink = a->sink != NULL, .sink = a->sink ? a->sink[hd] : 0};
    h.k = side(&a->k, &a->kc, b, kv, a->d, &h.k_codes);
    h.v = side(&a->v, &a->vc, b, kv, a->dv, &h.v_codes);
    return h;
}

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    const qx_attn *a = j->a;
    const int64_t first = i % j->chunks * j->chunk, left = a->rows - first;
    const qx_attn_head h = head_of(a, i / j->chunks / a->heads, i / j->chunks % a->heads, first, left < j->chunk ? left : j->chunk);
    qx_attn_rows(&h, j->scratch + qx_thread_index() * j->per_thread);
    return QX_OK;
}

/* Rows of a piece: enough pieces for many threads, but not so few rows that packing the keys anew for each costs more than it brings. */
static int64_t chunk_rows(const qx_attn *a)
{
    const int64_t heads = a->batch * a->heads, most = a->rows / 96;
    int64_t n = (32 + heads - 1) / heads;
    if (n > most) n = most;
    if (n * QX_ATTN_ROWS < a->rows) n = (a->rows + QX_ATTN_ROWS - 1) / QX_ATTN_ROWS;
    if (n < 1) n = 1;
    const int64_t rows = ((a->rows + n - 1) / n + 11) / 12 * 12; /* a multiple of what the product does at once */
    return rows < QX_ATTN_ROWS ? rows : QX_ATTN_ROWS;
}

/* ---- A few rows: all heads that share keys together, in stretches of keys for many threads ---- */

typedef struct few_job { const qx_attn *a; int64_t keys, cuts, part, per_thread; float *parts, *scratch; } few_job;

static qx_attn_head group_of(const qx_attn *a, int64_t i, qx_attn_group *g)
{
    const int64_t heads = a->heads / a->kv_heads, hd = i % a->kv_heads * heads;
    *g = (qx_attn_group){heads, a->q.head, a->y_head, a->mask.head, a->keep_head, a->sink ? a->sink + hd : NULL};
    return head_of(a, i / a->kv_heads, hd, 0, a->rows);
}

static qx_status few_piece(void *user, int64_t i)
{
    const few_job *j = user;
    qx_attn_group g;
    const qx_attn_head h = group_of(j->a, i / j->cuts, &g);
    float *own = j->scratch + qx_thread_index() * j->per_thread, *part = j->parts ? j->parts + i * j->part : own;
    qx_attn_few(&h, &g, i % j->cuts * j->keys, (i % j->cuts + 1) * j->keys, part, own + j->part);
    if (!j->parts) qx_attn_join(&h, &g, 1, part);
    return QX_OK;
}

static qx_status few_join(void *user, int64_t i)
{
    const few_job *j = user;
    qx_attn_group g;
    const qx_attn_head h = group_of(j->a, i, &g);
    qx_attn_join(&h, &g, j->cuts, j->parts + i * j->cuts * j->part);
    return QX_OK;
}

static qx_status few_run(qx_call *c, const qx_attn *a)
{
    const int64_t groups = a->batch * a->kv_heads, rows = a->heads / a->kv_heads * a->rows;
    few_job j = {.a = a, .keys = (a->keys * groups / 32 / QX_ATTN_KEYS + 1) * QX_ATTN_KEYS, .part = qx_attn_part(rows, a->dv)};
    j.cuts = a->keys ? (a->keys + j.keys - 1) / j.keys : 1;
    j.per_thread = (j.part + qx_attn_few_scratch(rows, a->d, a->dv) + 15) / 16 * 16;
    QX_TRY(QX_CALL_SCRATCH(c, j.per_thread * qx_ctx_threads(c->ctx), &j.scratch));
    if (j.cuts > 1) QX_TRY(QX_CALL_SCRATCH(c, groups * j.cuts * j.part, &j.parts));
    QX_TRY(qx_parallel(c->ctx, groups * j.cuts, few_piece, &j));
    return j.parts ? qx_parallel(c->ctx, groups, few_join, &j) : QX_OK;
}

qx_status qx_attn_run(qx_call *c, const qx_attn *a)
{
    if (a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld heads over %lld key heads", (long long)a->heads, (long long)a->kv_heads);
    if (a->batch == 0 || a->rows == 0 || a->dv == 0) return QX_OK;
    qx_call_note_kernel(c, "tiled", 2.0 * (double)(a->batch * a->heads * a->rows) * (double)a->keys * (double)(a->d + a->dv));
    if (a->rows <= QX_ATTN_FEW && (a->k.col == 1 || a->k.row == 1)) return few_run(c, a);
    job j = {.a = a, .chunk = chunk_rows(a)};
    j.chunks = (a->rows + j.chunk - 1) / j.chunk;
    j.per_thread = (qx_attn_scratch(j.chunk, a->d, a->dv) + 15) / 16 * 16;
    QX_TRY(QX_CALL_SCRATCH(c, j.per_thread * qx_ctx_threads(c->ctx), &j.scratch));
    return qx_parallel(c->ctx, a->batch * a->heads * j.chunks, piece, &j);
}

/* ---- The scores themselves ---- */

typedef struct scores_job { const qx_attn *a; qx_scores kind; float *out; } scores_job;

static void mask_row(const qx_attn *a, int64_t b, int64_t hd, int64_t r, float *s)
{
    const int64_t p = r + (a->offsets ? a->offsets[b] : a->offset), lo = first_key(a, p), hi = last_key(a, p),
        n = a->key_count ? a->key_count[b] : a->keys;
    const float *mask = a->mask.data ? a->mask.data + b * a->mask.batch + hd * a->mask.head + r * a->mask.row : NULL;
    const uint8_t *keep = a->keep ? a->keep + b * a->keep_batch + hd * a->keep_head + r * a->keep_row : NULL;
    for (int64_t j = 0; j < a->keys; j++) {
        if (j >= n || j < lo || j > hi || (keep && !keep[j])) s[j] = -INFINITY;
        else if (mask) s[j] += mask[j];
    }
}

/* Softmax with the sink in its sum; a row that sees nothing is zeros. */
static void softmax_with_sink(float *s, int64_t n, const float *sink)
{
    float top = sink ? *sink : -INFINITY;
    double sum = 0;
    for (int64_t j = 0; j < n; j++) top = s[j] > top || s[j] != s[j] ? s[j] : top;
    for (int64_t j = 0; j < n; j++) s[j] = top == -INFINITY ? 0.0f : expf(s[j] - top);
    for (int64_t j = 0; j < n; j++) sum += (double)s[j];
    if (sink) sum += exp((double)(*sink - top));
    for (int64_t j = 0; sum != 0 && j < n; j++) s[j] = (float)((double)s[j] / sum);
}

static qx_status scores_row(void *user, int64_t i)
{
    const scores_job *j = user;
    const qx_attn *a = j->a;
    const int64_t r = i % a->rows, hd = i / a->rows % a->heads, b = i / a->rows / a->heads, kv = hd / (a->heads / a->kv_heads);
    const float *q = a->q.data + b * a->q.batch + hd * a->q.head + r * a->q.row, *k = a->k.data + b * a->k.batch + kv * a->k.head;
    float *s = j->out + i * a->keys;
    for (int64_t n = 0; n < a->keys; n++) {
        float sum = 0;
        if (a->k.col == 1) sum = qx_dot(q, k + n * a->k.row, a->d);
        else for (int64_t d = 0; d < a->d; d++) sum += q[d] * k[n * a->k.row + d * a->k.col];
        s[n] = sum * a->scale;
        if (a->softcap > 0 && j->kind != QX_SCORES_RAW) s[n] = a->softcap * tanhf(s[n] / a->softcap);
    }
    if (j->kind >= QX_SCORES_MASKED) mask_row(a, b, hd, r, s);
    if (j->kind == QX_SCORES_SOFTMAX) softmax_with_sink(s, a->keys, a->sink ? a->sink + hd : NULL);
    return QX_OK;
}

qx_status qx_attn_scores(qx_call *c, const qx_attn *a, qx_scores kind, float *out)
{
    scores_job j = {a, kind, out};
    return a->keys ? qx_parallel(c->ctx, a->batch * a->heads * a->rows, scores_row, &j) : QX_OK;
}
