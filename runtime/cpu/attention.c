/* attention.c - see attention.h. A piece is one head of one batch and a block of query rows; its size depends on the dims only. */
#include "runtime/cpu/attention.h"

#include "kernels/attention.h"

typedef struct job { const qx_attn *a; int64_t chunk, chunks, per_thread; float *scratch; } job;

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    const qx_attn *a = j->a;
    int64_t first = i % j->chunks * j->chunk, hd = i / j->chunks % a->heads, b = i / j->chunks / a->heads, kv = hd / (a->heads / a->kv_heads);
    int64_t offset = a->offsets ? a->offsets[b] : a->offset;
    qx_attn_head h = {
        .rows = a->rows - first < j->chunk ? a->rows - first : j->chunk, .keys = a->key_count ? a->key_count[b] : a->keys, .d = a->d, .dv = a->dv,
        .q = a->q.data + b * a->q.batch + hd * a->q.head + first * a->q.row, .ldq = a->q.row,
        .k = a->k.data + b * a->k.batch + kv * a->k.head, .ldk = a->k.row, .kc = a->k.col,
        .v = a->v.data + b * a->v.batch + kv * a->v.head, .ldv = a->v.row,
        .y = a->y + b * a->y_batch + hd * a->y_head + first * a->y_row, .ldy = a->y_row,
        .scale = a->scale, .softcap = a->softcap, .ld_mask = a->mask.row, .ld_keep = a->keep_row,
        .mask = a->mask.data ? a->mask.data + b * a->mask.batch + hd * a->mask.head + first * a->mask.row : NULL,
        .keep = a->keep ? a->keep + b * a->keep_batch + hd * a->keep_head + first * a->keep_row : NULL,
        .first = a->left >= 0 ? first + offset - a->left : INT64_MIN, .last = a->causal ? first + offset : INT64_MAX,
        .has_sink = a->sink != NULL, .sink = a->sink ? a->sink[hd] : 0};
    qx_attn_rows(&h, j->scratch + qx_thread_index() * j->per_thread);
    return QX_OK;
}

qx_status qx_attn_run(qx_call *c, const qx_attn *a)
{
    if (a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld heads over %lld key heads", (long long)a->heads, (long long)a->kv_heads);
    if (a->batch == 0 || a->rows == 0 || a->dv == 0) return QX_OK;
    job j = {.a = a, .chunk = QX_ATTN_ROWS};
    while (j.chunk > 96 && a->batch * a->heads * ((a->rows + j.chunk - 1) / j.chunk) < 32) j.chunk = j.chunk / 2 < 96 ? 96 : j.chunk / 2;
    j.chunks = (a->rows + j.chunk - 1) / j.chunk;
    j.per_thread = (qx_attn_scratch(j.chunk, a->d, a->dv) + 15) / 16 * 16;
    QX_TRY(QX_CALL_SCRATCH(c, j.per_thread * qx_ctx_threads(c->ctx), &j.scratch));
    qx_call_note_kernel(c, "tiled", 2.0 * (double)(a->batch * a->heads * a->rows) * (double)a->keys * (double)(a->d + a->dv));
    return qx_parallel(c->ctx, a->batch * a->heads * j.chunks, piece, &j);
}
