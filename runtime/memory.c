/* memory.c - where activations live.
 *
 * The first run with given input shapes takes every tensor from the heap and records when it was made and freed. From the second
 * such run on, the recording is turned into offsets in one arena (runtime/arena.c) and replayed: no allocation at all. A run that
 * asks for something else than was recorded (data-dependent shapes) falls back to the heap from that point on, which is slower
 * and never wrong. Tensors of subgraph bodies are always on the heap. */
#include <string.h>

#include "runtime/device/device.h"

enum { SCRATCH_MIN = 1 << 20 };

static qx_status block_struct(qx_exec *x, qx_block **out)
{
    if (x->free_blocks) {
        *out = x->free_blocks;
        x->free_blocks = (*out)->next_free;
        memset(*out, 0, sizeof **out);
        return QX_OK;
    }
    return QX_NEW(x->ctx, out);
}

static qx_status record_alloc(qx_exec *x, size_t bytes, int64_t *index)
{
    qx_shape_plan *p = x->cur;
    QX_TRY(qx_grow(x->ctx, (void **)&p->recs, p->n_recs, &p->cap_recs, sizeof *p->recs));
    p->recs[p->n_recs] = (qx_alloc_rec){.bytes = bytes, .born = x->clock++, .died = INT64_MAX};
    *index = p->n_recs++;
    return QX_OK;
}

/* The recorded place of the next allocation, or NULL when this run does not follow the recording. */
static void *replay_alloc(qx_exec *x, size_t bytes)
{
    const qx_shape_plan *p = x->cur;
    if (!x->arena || x->alloc_i >= p->n_recs || p->recs[x->alloc_i].bytes != bytes) {
        x->replay = false;
        return NULL;
    }
    return (char *)x->arena + p->recs[x->alloc_i++].offset;
}

qx_status qx_block_new(qx_exec *x, size_t bytes, qx_block_home home, qx_block **out)
{
    qx_block *b = NULL;
    QX_TRY(block_struct(x, &b));
    b->refs = 1;
    b->bytes = bytes;
    b->record = -1;
    bool planned = home == QX_BLOCK_RUN && x->depth == 0;
    if (planned && x->replay) {
        b->data = replay_alloc(x, bytes);
        b->arena = b->data != NULL;
    }
    qx_status st = QX_OK;
    if (!b->data) st = home == QX_BLOCK_GIVEN ? qx_alloc_again(x->ctx, bytes, &b->data) : qx_alloc_raw(x->ctx, bytes, &b->data);
    if (st == QX_OK && planned && x->record) st = record_alloc(x, bytes, &b->record);
    if (st != QX_OK) {
        qx_free(x->ctx, b->arena ? NULL : b->data);
        qx_free(x->ctx, b);
        return st;
    }
    b->constant = home == QX_BLOCK_CONST;
    if (!b->constant) x->live += bytes;
    if (x->live > x->peak) x->peak = x->live;
    *out = b;
    return QX_OK;
}

void qx_block_release(qx_exec *x, qx_block *b)
{
    if (!b || --b->refs > 0) return;
    if (!b->constant) x->live -= b->bytes;
    if (!b->arena) qx_free(x->ctx, b->data);
    if (b->record >= 0 && x->record) x->cur->recs[b->record].died = x->clock++;
    b->next_free = x->free_blocks;
    x->free_blocks = b;
}

enum { SPARE_MIN = 1 << 18, SPARE_FACTOR = 4 }; /* smaller blocks are not worth keeping; nor much larger ones than what is asked for */

qx_status qx_const_block(qx_exec *x, size_t bytes, qx_block **out)
{
    qx_block *b = NULL;
    if (!x->spare || x->spare_bytes < bytes || x->spare_bytes / SPARE_FACTOR > bytes) return qx_block_new(x, bytes, QX_BLOCK_CONST, out);
    QX_TRY(block_struct(x, &b));
    *b = (qx_block){.refs = 1, .bytes = bytes, .data = x->spare, .record = -1, .constant = true};
    x->spare = NULL;
    *out = b;
    return QX_OK;
}

void qx_const_retire(qx_exec *x, qx_block *b)
{
    if (b && b->refs == 1 && !b->arena && b->bytes >= SPARE_MIN && b->data) {
        qx_spare_drop(x);
        x->spare = b->data;
        x->spare_bytes = b->bytes;
        b->data = NULL;
    }
    qx_block_release(x, b);
}

void qx_spare_drop(qx_exec *x)
{
    qx_free(x->ctx, x->spare);
    x->spare = NULL;
    x->spare_bytes = 0;
}

void qx_slot_clear(qx_exec *x, qx_slot *s)
{
    if (s->dev) qx_dblock_release(x, s->dev);
    if (s->block) qx_block_release(x, s->block);
    else if (s->owned) qx_tensor_free(x->ctx, &s->t);
    memset(s, 0, sizeof *s);
}

/* An empty bottom chunk is no place to point at: qx_scratch_get may free it for a larger one. */
qx_scratch_mark qx_scratch_here(const qx_exec *x)
{
    if (!x->scratch || (!x->scratch->prev && x->scratch->used == 0)) return (qx_scratch_mark){NULL, 0};
    return (qx_scratch_mark){x->scratch, x->scratch->used};
}

static void scratch_pop(qx_exec *x)
{
    qx_scratch_chunk *c = x->scratch;
    x->scratch = c->prev;
    qx_free(x->ctx, c->data);
    qx_free(x->ctx, c);
}

void qx_scratch_drop(qx_exec *x, bool all)
{
    while (x->scratch && (all || x->scratch->prev || x->scratch->cap > SCRATCH_MIN)) scratch_pop(x);
}

/* Frees chunks made since the mark, except that the bottom one stays for the next call: as large as a whole call has needed, so
 * that a settled executor gets no fresh (page by page zeroed) memory. What a first run needs to pack weights does not count. */
void qx_scratch_back(qx_exec *x, qx_scratch_mark m)
{
    size_t used = 0;
    if (!x->record && !m.chunk) {
        for (const qx_scratch_chunk *c = x->scratch; c; c = c->prev) used += c->used;
        if (used > x->scratch_want) x->scratch_want = used;
    }
    while (x->scratch && x->scratch != m.chunk) {
        if (!x->scratch->prev) {
            x->scratch->used = 0;
            return;
        }
        scratch_pop(x);
    }
    if (x->scratch) x->scratch->used = m.used;
}

qx_status qx_scratch_get(qx_exec *x, size_t bytes, void **out)
{
    qx_scratch_chunk *c = x->scratch;
    bytes = (bytes + 63) / 64 * 64;
    size_t least = c ? 0 : x->scratch_want;
    /* the resting chunk is too small: a bigger one instead */
    if (c && !c->prev && c->used == 0 && (c->cap < bytes || c->cap < x->scratch_want)) {
        least = x->scratch_want;
        scratch_pop(x);
        c = NULL;
    }
    if (!c || c->cap - c->used < bytes) {
        qx_scratch_chunk *fresh = NULL;
        QX_TRY(QX_NEW(x->ctx, &fresh));
        fresh->cap = bytes > SCRATCH_MIN ? bytes : SCRATCH_MIN;
        if (fresh->cap < least) fresh->cap = least;
        qx_status st = qx_alloc_raw(x->ctx, fresh->cap, &fresh->data);
        if (st != QX_OK) {
            qx_free(x->ctx, fresh);
            return st;
        }
        fresh->prev = c;
        x->scratch = c = fresh;
    }
    *out = (char *)c->data + c->used;
    c->used += bytes;
    return QX_OK;
}
