/* layers.c - a sweep over samples for models whose weights do not fit in memory: the steps are cut into stretches, and every stretch is run for all
 * samples before the next one begins. So each weight is read and packed once a sweep. What is alive between two stretches waits in an unnamed file, sample
 * after sample, and is read back in the same order. Each step sees the same inputs as in a run from end to end, so results are the same bits. */
#include <string.h>

#include "base/spool.h"
#include "onnx/weight/weight.h"
#include "runtime/plan.h"

/* ---- The file between two stretches ---- */

typedef struct spilled { uint32_t id; qx_tensor t; } spilled; /* followed by the tensor's bytes; id QX_NO_VALUE ends a sample */

/* Everything that later steps need of this sample and that its feeds and the constants do not bring back. */
static qx_status spill_save(qx_exec *x, qx_spool *s)
{
    spilled h;
    memset(&h, 0, sizeof h);
    for (uint32_t id = 0; id < x->n_values; id++) {
        const qx_slot *slot = &x->slots[id];
        if (!slot->set || slot->borrowed || x->info[id].content == QX_CLASS_CONST) continue;
        if (slot->owned) QX_FAIL(x->ctx, QX_E_UNSUPPORTED, "layer by layer: a sequence, optional or string is alive between two stretches; raise --max-memory");
        h.id = id;
        h.t = slot->t;
        h.t.data = NULL;
        QX_TRY(qx_spool_put(s, &h, sizeof h));
        QX_TRY(qx_spool_put(s, slot->t.data, slot->t.bytes));
    }
    h.id = QX_NO_VALUE;
    return qx_spool_put(s, &h, sizeof h);
}

static qx_status spill_load(qx_exec *x, qx_spool *s)
{
    spilled h;
    for (;;) {
        QX_TRY(qx_spool_get(s, &h, sizeof h));
        if (h.id == QX_NO_VALUE) return QX_OK;
        qx_slot *slot = &x->slots[h.id];
        qx_slot_clear(x, slot);
        QX_TRY(qx_block_new(x, h.t.bytes, QX_BLOCK_KEPT, &slot->block));
        slot->t = h.t;
        slot->t.data = slot->block->data;
        slot->set = true;
        QX_TRY(qx_spool_get(s, slot->t.data, h.t.bytes));
    }
}

/* ---- Stretches ---- */

/* Floats once packed; Winograd's form of a convolution takes four times as much. */
static int64_t packed_bytes(const qx_weight *w)
{
    if (!qx_dtype_is_float(w->dtype)) return (int64_t)w->bytes;
    return w->numel * (int64_t)sizeof(float) * (w->rank == 4 ? 4 : 1);
}

static int64_t step_weights(const qx_rstep *s)
{
    int64_t bytes = 0;
    for (uint32_t i = 0; i < s->n_in; i++)
        if (s->in_value[i] && s->in_value[i]->init) bytes += packed_bytes(s->in_value[i]->init);
    return bytes;
}

qx_status qx_exec_weight_bytes(qx_exec *x, int64_t *bytes, int64_t *largest)
{
    *bytes = *largest = 0;
    QX_TRY(qx_ensure_plan(x));
    for (uint32_t i = 0; i < x->main->n_steps; i++) {
        const int64_t step = step_weights(&x->main->steps[i]);
        *bytes += step;
        if (step > *largest) *largest = step;
    }
    return QX_OK;
}

/* The first step that is not in the stretch from `from` on: weights up to the budget, at least one step. */
static uint32_t stretch_end(const qx_gplan *p, uint32_t from, int64_t budget)
{
    int64_t bytes = step_weights(&p->steps[from]);
    uint32_t i = from + 1;
    for (; i < p->n_steps; i++) {
        int64_t w = step_weights(&p->steps[i]);
        if (w > budget - bytes) break;
        bytes += w;
    }
    return i;
}

static void drop_weights(qx_exec *x, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        qx_rstep *s = &x->main->steps[i];
        qx_drop_state(x, s);
        for (uint32_t k = 0; k < s->n_in; k++)
            if (s->in_value[k] && s->in_value[k]->init && !x->slots[s->in[k]].borrowed) qx_slot_clear(x, &x->slots[s->in[k]]);
    }
}

typedef struct sweep { qx_exec *x; qx_sweep_feeds *get; void *user; int64_t samples; qx_spool *in, *out; size_t base, most; } sweep;

static qx_status stretch_of_sample(sweep *w, int64_t i, uint32_t from, uint32_t to)
{
    qx_exec *x = w->x;
    const qx_feed *feeds;
    int n;
    QX_TRY(w->get(w->user, i, &feeds, &n));
    QX_TRY(qx_bind_feeds(x, feeds, n));
    if (from == 0) QX_TRY(qx_tell_interface(x, x->model->graph));
    else QX_TRY(spill_load(x, w->in));
    for (uint32_t k = from; k < to; k++) {
        qx_rstep *s = &x->main->steps[k];
        if (s->klass == QX_CLASS_CONST && s->done) continue;
        QX_TRY(qx_check_cancel(x->ctx));
        QX_TRY(qx_run_step(x, s, NULL));
        size_t used = qx_mem_in_use(x->ctx) - w->base;
        if (used > w->most) w->most = used;
    }
    return to < x->main->n_steps ? spill_save(x, w->out) : QX_OK;
}

static qx_status stretch(sweep *w, uint32_t from, uint32_t to)
{
    qx_status st = QX_OK;
    qx_spool_rewind(w->in);
    qx_spool_rewind(w->out);
    for (int64_t i = 0; i < w->samples && st == QX_OK; i++) {
        st = stretch_of_sample(w, i, from, to);
        qx_end_run(w->x);
    }
    drop_weights(w->x, from, to);
    qx_scratch_drop(w->x, false);
    qx_spare_drop(w->x);
    return st;
}

static qx_status all_stretches(sweep *w, int64_t budget)
{
    qx_exec *x = w->x;
    for (uint32_t from = 0, to; from < x->main->n_steps; from = to) {
        to = stretch_end(x->main, from, budget);
        qx_progress(x->ctx, "calibrate layer by layer", from, x->main->n_steps);
        QX_TRY(stretch(w, from, to));
        qx_spool *t = w->in;
        w->in = w->out;
        w->out = t;
    }
    return QX_OK;
}

qx_status qx_exec_sweep(qx_exec *x, int64_t samples, qx_sweep_feeds *get, void *user, int64_t weight_budget)
{
    qx_shape_plan shapes = {.key = NULL}; /* nothing is kept from run to run */
    sweep w = {.x = x, .get = get, .user = user, .samples = samples, .base = qx_mem_in_use(x->ctx)};
    bool streams = x->opt.stream_weights;
    x->opt.stream_weights = false; /* within a stretch weights stay */
    if (streams) qx_plan_free(x);
    qx_drop_packed(x);
    QX_TRY(qx_ensure_plan(x));
    if (x->device) QX_FAIL(x->ctx, QX_E_UNSUPPORTED, "layer by layer: on the CPU only");
    x->cur = &shapes;
    x->record = x->replay = false;
    qx_status st = qx_spool_open(x->ctx, "activations between two layers", &w.in);
    if (st == QX_OK) st = qx_spool_open(x->ctx, "activations between two layers", &w.out);
    if (st == QX_OK && x->main->n_cache) st = qx_alloc_array(x->ctx, x->main->n_cache, sizeof *shapes.values, (void **)&shapes.values);
    if (st == QX_OK) st = all_stretches(&w, weight_budget);
    qx_spool_close(w.in);
    qx_spool_close(w.out);
    qx_shape_plan_reset(x, &shapes);
    x->cur = NULL;
    x->opt.stream_weights = streams;
    qx_plan_free(x); /* its packed weights are gone */
    x->scratch_want = 0; /* it counted what packing takes */
    x->peak = w.most;
    return st;
}
