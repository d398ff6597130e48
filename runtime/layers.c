/* layers.c - a sweep over samples for models whose weights do not fit in memory: the steps are cut into stretches, and every
 * stretch is run for all samples before the next one begins. So each weight is read and packed once a sweep. What is alive
 * between two stretches waits in an unnamed file, sample after sample, and is read back in the same order. Each step sees the
 * same inputs as in a run from end to end, so results are the same bits. With named files a sweep that was interrupted goes on
 * behind the last stretch that was kept. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/map.h"
#include "base/spool.h"
#include "onnx/weight/weight.h"
#include "runtime/cpu/conv/winograd.h"
#include "runtime/plan.h"

/* ---- Stretches ---- */

/* Floats once packed; Winograd's form of a convolution takes four times as much. */
int64_t qx_exec_float_bytes(const qx_weight *w, bool transformed)
{
    const bool fits = w->rank == 4 && w->dims[2] == 3 && w->dims[3] == 3 && qx_wino_weights_fit(w->dims[0], w->dims[1]);
    return w->numel * (int64_t)sizeof(float) * (transformed && fits ? 4 : 1);
}

static int64_t packed_bytes(const qx_weight *w, bool transformed)
{
    return qx_dtype_is_float(w->dtype) ? qx_exec_float_bytes(w, transformed) : (int64_t)w->bytes;
}

int64_t qx_step_weights(const qx_rstep *s, bool transformed)
{
    int64_t bytes = 0;
    for (uint32_t i = 0; i < s->n_in; i++)
        if (s->in_value[i] && s->in_value[i]->init) bytes += packed_bytes(s->in_value[i]->init, transformed);
    return bytes;
}

qx_status qx_exec_weight_bytes(qx_exec *x, int64_t *bytes, int64_t *largest)
{
    *bytes = *largest = 0;
    QX_TRY(qx_ensure_plan(x));
    for (uint32_t i = 0; i < x->main->n_steps; i++) {
        const int64_t step = qx_step_weights(&x->main->steps[i], true);
        *bytes += step;
        if (step > *largest) *largest = step;
    }
    return QX_OK;
}

/* The first step that is not in the stretch from `from` on: weights up to the budget, at least one step. */
static uint32_t stretch_end(const qx_gplan *p, uint32_t from, int64_t budget)
{
    int64_t bytes = qx_step_weights(&p->steps[from], true);
    uint32_t i = from + 1;
    for (; i < p->n_steps; i++) {
        int64_t w = qx_step_weights(&p->steps[i], true);
        if (w > budget - bytes) break;
        bytes += w;
    }
    return i;
}

/* Where several streams run the same steps, what one has packed and let go of the next one reads anew. */
static void need_again(qx_exec *x, uint32_t to)
{
    for (uint32_t i = 0; i < to; i++) {
        qx_rstep *s = &x->main->steps[i];
        for (uint32_t k = 0; k < s->n_in && k < 64; k++) x->info[s->in[k] == QX_NO_VALUE ? 0 : s->in[k]].consumers += s->dropped >> k & 1;
        s->dropped = 0;
    }
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

static bool makes_needed(const qx_exec *x, const qx_rstep *s, const uint8_t *need)
{
    for (uint32_t i = 0; i < s->n_out && s->klass == QX_CLASS_CONST; i++)
        if (s->out[i] != QX_NO_VALUE && need[s->out[i]] && !(x->slots[s->out[i]].set && x->slots[s->out[i]].t.data)) return true;
    return false;
}

/* Constants that steps [from, to) read, made by steps before `behind`: a sweep that goes on has not made them, and with several
 * streams they may be gone. */
static qx_status make_constants(qx_exec *x, uint32_t from, uint32_t to, uint32_t behind)
{
    uint8_t *need = NULL, *runs = NULL;
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, x->n_values + 1, 1, (void **)&need));
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, behind + 1, 1, (void **)&runs));
    for (uint32_t k = from; k < to; k++) QX_TRY_GOTO(st, qx_plan_mark_inputs(x, &x->main->steps[k], need));
    for (uint32_t k = behind; k-- > 0;) {
        runs[k] = makes_needed(x, &x->main->steps[k], need);
        if (runs[k]) QX_TRY_GOTO(st, qx_plan_mark_inputs(x, &x->main->steps[k], need));
    }
    for (uint32_t k = 0; k < behind; k++)
        if (runs[k]) QX_TRY_GOTO(st, qx_run_step(x, &x->main->steps[k], NULL));
done:
    qx_free(x->ctx, need);
    qx_free(x->ctx, runs);
    return st;
}

enum { STREAMS = 2, SLOTS = 3 }; /* one is read, one written, and one may belong to the mark that was kept last */
typedef struct sweep {
    qx_exec *x;
    const qx_sweep_job *job;
    qx_spool *in[STREAMS], *out;
    int64_t in_slot, out_slot, kept_slot;
    size_t base, most;
    int stream;
    uint32_t *cut, *made; uint8_t *open; /* [gates]: step that reads the weight; steps behind which the value is there; it is open */
    int64_t *opening;                    /* [gates] */
} sweep;

static qx_status stretch_of_sample(sweep *w, int64_t i, uint32_t from, uint32_t to)
{
    qx_exec *x = w->x;
    const qx_feed *feeds;
    int n;
    QX_TRY(w->job->get(w->job->user, i, &feeds, &n));
    QX_TRY(qx_bind_feeds(x, feeds, n));
    if (!w->in[w->stream]) QX_TRY(qx_tell_interface(x, x->model->graph));
    else QX_TRY(qx_spill_load(x, w->in[w->stream]));
    for (uint32_t k = from; k < to; k++) {
        qx_rstep *s = &x->main->steps[k];
        if (s->klass == QX_CLASS_CONST && s->done) continue;
        QX_TRY(qx_check_cancel(x->ctx));
        QX_TRY(qx_run_step(x, s, NULL));
        size_t used = qx_mem_in_use(x->ctx) - w->base;
        if (used > w->most) w->most = used;
    }
    return to < x->main->n_steps ? qx_spill_save(x, w->out) : QX_OK;
}

static qx_status stretch(sweep *w, uint32_t from, uint32_t to)
{
    const bool again = w->job->turns && w->job->turns->streams > 1;
    qx_status st = again ? make_constants(w->x, from, to, to) : QX_OK;
    for (int64_t i = 0; i < w->job->samples && st == QX_OK; i++) {
        st = stretch_of_sample(w, i, from, to);
        qx_end_run(w->x);
    }
    if (again) need_again(w->x, to);
    drop_weights(w->x, from, to);
    qx_scratch_drop(w->x, false);
    qx_spare_drop(w->x);
    return st;
}

/* ---- The files ---- */

static qx_status open_slot(const sweep *w, int64_t slot, bool again, qx_spool **out)
{
    const char *path = NULL;
    if (w->job->keep && !(path = qx_arena_printf(w->x->mem, "%s.%lld", w->job->keep, (long long)slot)))
        QX_FAIL(w->x->ctx, QX_E_NOMEM, "a name for activations: out of memory");
    return qx_spool_open(w->x->ctx, "activations between two layers", path, again, out);
}

static qx_status open_next(sweep *w)
{
    for (w->out_slot = 0; w->out_slot == w->in_slot || w->out_slot == w->kept_slot;) w->out_slot++;
    return open_slot(w, w->out_slot, false, &w->out);
}

static void take_next(sweep *w)
{
    qx_spool_close(w->in[w->stream]);
    w->in[w->stream] = w->out;
    w->in_slot = w->out_slot;
    w->out = NULL;
    if (w->in[w->stream]) qx_spool_rewind(w->in[w->stream]);
}

/* Marks of another plan count other steps. */
static uint64_t plan_hash(const qx_exec *x)
{
    uint64_t chain[3] = {x->main->n_steps, 0, 0};
    for (uint32_t i = 0; i < x->main->n_steps; i++) {
        chain[1] = x->main->steps[i].node->id;
        chain[2] = (uint64_t)x->main->steps[i].klass;
        chain[0] = qx_hash64(chain, sizeof chain);
    }
    return chain[0];
}

static qx_status tell_between(sweep *w, uint32_t to)
{
    bool kept = false;
    qx_sweep_mark mark = {.steps = to, .slot = w->out_slot, .bytes = qx_spool_at(w->out), .plan = plan_hash(w->x)};
    if (w->job->between) QX_TRY(w->job->between(w->job->user, &mark, w->out, &kept));
    if (kept) w->kept_slot = w->out_slot;
    return QX_OK;
}

void qx_sweep_forget(const char *keep)
{
    char path[4096];
    for (int i = 0; i < SLOTS; i++)
        if (snprintf(path, sizeof path, "%s.%d", keep, i) < (int)sizeof path) (void)unlink(path); /* there may be none */
}

/* ---- Going on ---- */

static qx_status go_on(sweep *w)
{
    const qx_sweep_mark *m = &w->job->from;
    const qx_exec *x = w->x;
    uint64_t hash = 0;
    if (m->plan != plan_hash(x) || m->steps >= (int64_t)x->main->n_steps || m->slot < 0 || m->slot >= SLOTS || m->bytes < 0)
        QX_FAIL(x->ctx, QX_E_USAGE, "layer by layer: interrupted behind step %lld of another plan than this one of %u steps: start anew",
                (long long)m->steps, x->main->n_steps);
    QX_TRY(open_slot(w, m->slot, true, &w->in[0]));
    QX_TRY(qx_spool_hash(w->in[0], m->bytes, &hash));
    if (hash != m->hash)
        QX_FAIL(x->ctx, QX_E_USAGE, "%s.%lld: not the activations that were put by: start anew", w->job->keep, (long long)m->slot);
    w->in_slot = w->kept_slot = m->slot;
    return make_constants(w->x, (uint32_t)m->steps, x->main->n_steps, (uint32_t)m->steps);
}

/* ---- Weights that are decided on the way ---- */

static uint32_t first_reader(const qx_exec *x, const qx_value *v)
{
    for (uint32_t k = 0; k < x->main->n_steps; k++)
        for (uint32_t i = 0; i < x->main->steps[k].n_in; i++)
            if (x->main->steps[k].in_value[i] == v) return k;
    return x->main->n_steps;
}

/* The interface is told when the first stretch begins. */
static uint32_t made_behind(const qx_exec *x, const qx_value *v)
{
    for (uint32_t k = 0; k < x->main->n_steps; k++)
        for (uint32_t i = 0; i < x->main->steps[k].n_out; i++)
            if (x->main->steps[k].out_value[i] == v) return k + 1;
    return 0;
}

static qx_status find_gates(sweep *w)
{
    const qx_sweep_turns *t = w->job->turns;
    if (!t) return QX_OK;
    QX_TRY(qx_alloc_array(w->x->ctx, (size_t)t->n + 1, sizeof *w->cut, (void **)&w->cut));
    QX_TRY(qx_alloc_array(w->x->ctx, (size_t)t->n + 1, sizeof *w->made, (void **)&w->made));
    QX_TRY(qx_alloc_array(w->x->ctx, (size_t)t->n + 1, 1, (void **)&w->open));
    QX_TRY(qx_alloc_array(w->x->ctx, (size_t)t->n + 1, sizeof *w->opening, (void **)&w->opening));
    for (int64_t i = 0; i < t->n; i++) {
        w->cut[i] = first_reader(w->x, t->gates[i].weight);
        w->made[i] = made_behind(w->x, t->gates[i].seen);
        if (w->cut[i] < w->made[i])
            QX_FAIL(w->x->ctx, QX_E_FAIL, "'%s' is read before '%s' is there", t->gates[i].weight->name, t->gates[i].seen->name);
    }
    return QX_OK;
}

/* All that every sample has been told by now. */
static qx_status open_gates(sweep *w, uint32_t at)
{
    const qx_sweep_turns *t = w->job->turns;
    int64_t n = 0;
    if (!t || !w->in[0]) return QX_OK; /* nothing has been told yet */
    for (int64_t i = 0; i < t->n; i++)
        if (!w->open[i] && w->made[i] <= at) w->open[i] = 1, w->opening[n++] = i;
    return n ? t->open(w->job->user, w->opening, n) : QX_OK;
}

static uint32_t next_cut(const sweep *w, uint32_t to)
{
    for (int64_t i = 0; w->job->turns && i < w->job->turns->n; i++)
        if (!w->open[i] && w->cut[i] < to) to = w->cut[i];
    return to;
}

static qx_status run_streams(sweep *w, uint32_t from, uint32_t to)
{
    const qx_sweep_turns *t = w->job->turns;
    for (w->stream = 0; w->stream < (t ? t->streams : 1); w->stream++) {
        if (t) QX_TRY(t->begin(w->job->user, w->stream));
        if (to < w->x->main->n_steps) QX_TRY(open_next(w));
        QX_TRY(stretch(w, from, to));
        if (to < w->x->main->n_steps && !t) QX_TRY(tell_between(w, to));
        take_next(w);
    }
    return QX_OK;
}

static qx_status all_stretches(sweep *w)
{
    const qx_exec *x = w->x;
    QX_TRY(find_gates(w));
    if (w->job->from.steps) QX_TRY(go_on(w));
    for (uint32_t from = (uint32_t)w->job->from.steps, to; from < x->main->n_steps; from = to) {
        QX_TRY(open_gates(w, from));
        to = next_cut(w, stretch_end(x->main, from, w->job->weight_budget));
        qx_progress(x->ctx, "calibrate layer by layer", from, x->main->n_steps);
        QX_TRY(run_streams(w, from, to));
    }
    return QX_OK;
}

qx_status qx_exec_sweep(qx_exec *x, const qx_sweep_job *job)
{
    qx_shape_plan shapes = {.key = NULL}; /* nothing is kept from run to run */
    sweep w = {.x = x, .job = job, .in_slot = -1, .kept_slot = -1, .base = qx_mem_in_use(x->ctx)};
    bool streams = x->opt.stream_weights;
    x->opt.stream_weights = false; /* within a stretch weights stay */
    if (streams) qx_plan_free(x);
    qx_drop_packed(x);
    QX_TRY(qx_ensure_plan(x));
    if (x->device) QX_FAIL(x->ctx, QX_E_UNSUPPORTED, "layer by layer: on the CPU only");
    x->cur = &shapes;
    x->record = x->replay = false;
    qx_status st = x->main->n_cache ? qx_alloc_array(x->ctx, x->main->n_cache, sizeof *shapes.values, (void **)&shapes.values) : QX_OK;
    if (st == QX_OK) st = all_stretches(&w);
    for (int i = 0; i < STREAMS; i++) qx_spool_close(w.in[i]);
    qx_spool_close(w.out);
    void *gates[] = {w.cut, w.made, w.open, w.opening};
    for (size_t i = 0; i < sizeof gates / sizeof *gates; i++) qx_free(x->ctx, gates[i]);
    qx_shape_plan_reset(x, &shapes);
    x->cur = NULL;
    x->opt.stream_weights = streams;
    qx_plan_free(x); /* its packed weights are gone */
    x->scratch_want = 0; /* it counted what packing takes */
    x->peak = w.most;
    return st;
}
