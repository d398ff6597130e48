/* shape_plan.c - what one set of input shapes brings: the recorded allocations packed into one block, and the values that depend
 * on shapes alone. A few sets are kept, for a model that is fed with several in turn. */
#include "runtime/plan.h"

#include <string.h>

#include "runtime/device/device.h"

static int64_t key_length(const qx_exec *x)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < x->model->graph->n_inputs; i++) n += 1 + x->slots[x->model->graph->inputs[i]->id].t.rank;
    return n;
}

static void key_fill(const qx_exec *x, int64_t *key)
{
    for (uint32_t i = 0; i < x->model->graph->n_inputs; i++) {
        const qx_tensor *t = &x->slots[x->model->graph->inputs[i]->id].t;
        *key++ = t->is_sequence || t->is_optional ? -1 - t->n_items : t->rank;
        for (int d = 0; d < t->rank; d++) *key++ = t->dims[d];
    }
}

void qx_shape_plan_reset(qx_exec *x, qx_shape_plan *p)
{
    for (uint32_t i = 0; p->values && i < x->main->n_cache; i++) qx_slot_clear(x, &p->values[i]);
    qx_dev_plan_free(x, p->dev);
    qx_free(x->ctx, p->values);
    qx_free(x->ctx, p->key);
    qx_free(x->ctx, p->recs);
    memset(p, 0, sizeof *p);
}

qx_status qx_shape_plan_pick(qx_exec *x)
{
    int64_t *key = NULL, n = key_length(x);
    QX_TRY(qx_alloc_array(x->ctx, (size_t)n + 1, sizeof *key, (void **)&key));
    key_fill(x, key);
    qx_shape_plan *oldest = &x->plans[0];
    x->cur = NULL;
    for (int i = 0; i < QX_SHAPE_PLANS; i++) {
        qx_shape_plan *p = &x->plans[i];
        if (p->key && p->key_len == n && memcmp(p->key, key, (size_t)n * sizeof *key) == 0) x->cur = p;
        if (p->used < oldest->used) oldest = p;
    }
    if (!x->cur) {
        qx_shape_plan_reset(x, oldest);
        oldest->key = key;
        oldest->key_len = n;
        x->cur = oldest;
    } else {
        qx_free(x->ctx, key);
    }
    x->cur->used = ++x->run_count;
    return QX_OK;
}

enum { ARENA_ALIGN = 64, LARGE_ARENA = 16 << 20 };

/* A run that records takes its memory from the heap: an arena that lies idle beside it would double that. A small one stays. */
static void drop_idle(qx_exec *x)
{
    if (x->arena_cap < LARGE_ARENA) return;
    qx_free(x->ctx, x->arena);
    x->arena = NULL;
    x->arena_cap = 0;
}

qx_status qx_shape_plan_start(qx_exec *x)
{
    qx_shape_plan *p = x->cur;
    x->record = !p->recs && !p->ready;
    x->replay = false;
    x->alloc_i = x->clock = 0;
    if (x->record) {
        drop_idle(x);
        return QX_OK;
    }
    if (!p->ready) p->ready = qx_records_pack(x->ctx, p->recs, p->n_recs, ARENA_ALIGN, &p->arena_bytes);
    if (p->ready && p->arena_bytes > x->arena_cap) {
        qx_free(x->ctx, x->arena);
        x->arena = NULL;
        x->arena_cap = 0;
        QX_TRY(qx_alloc_raw(x->ctx, p->arena_bytes, &x->arena));
        x->arena_cap = p->arena_bytes;
    }
    x->replay = p->ready;
    return QX_OK;
}

void qx_shape_plan_restore(qx_exec *x)
{
    for (uint32_t i = 0; x->cur->cached && i < x->main->n_cache; i++) {
        const qx_slot *from = &x->cur->values[i];
        qx_slot *s = &x->slots[x->main->cache[i]];
        if (!from->set) continue;
        qx_slot_clear(x, s);
        *s = *from;
        s->owned = false;
        if (s->block) s->block->refs++;
        else s->borrowed = true;
    }
}
