/* marks.c - runs that begin where an earlier run of the same feeds has been. Who changes one late operator after the other
 * (passes/search/probe.h) does not compute again what lies before it. On the CPU, with weights that stay: what cannot be gone on from is
 * run from the start. */
#include "base/spool.h"
#include "runtime/plan.h"

typedef struct mark { const qx_value *v; uint32_t step; qx_spool *alive; } mark; /* alive NULL: nothing is known there */
struct qx_marks { qx_ctx *ctx; mark *list; int n; uint64_t plan; };

qx_status qx_marks_new(qx_ctx *ctx, const qx_value *const *values, int n, qx_marks **out)
{
    qx_marks *m;
    *out = NULL;
    QX_TRY(QX_NEW(ctx, &m));
    *m = (qx_marks){.ctx = ctx, .n = n};
    const qx_status st = qx_alloc_array(ctx, (size_t)n + 1, sizeof *m->list, (void **)&m->list);
    if (st != QX_OK) return qx_free(ctx, m), st;
    for (int i = 0; i < n; i++) m->list[i].v = values[i];
    *out = m;
    return QX_OK;
}

static void forget(qx_marks *m)
{
    for (int i = 0; i < m->n; i++) {
        qx_spool_close(m->list[i].alive);
        m->list[i].alive = NULL;
    }
}

void qx_marks_free(qx_marks *m)
{
    if (!m) return;
    forget(m);
    qx_free(m->ctx, m->list);
    qx_free(m->ctx, m);
}

static bool makes(const qx_rstep *s, const qx_value *v)
{
    for (uint32_t i = 0; i < s->n_out; i++)
        if (s->out[i] == v->id) return true;
    return false;
}

/* The step of the main graph that makes v, or in whose bodies it is made; n_steps: none. */
static uint32_t step_of(const qx_exec *x, const qx_value *v)
{
    uint32_t i = 0;
    while (v->graph->owner && v->graph->owner->n_out && v->graph->owner->out[0]) v = v->graph->owner->out[0];
    while (i < x->main->n_steps && !makes(&x->main->steps[i], v)) i++;
    return i;
}

void qx_exec_mark(qx_exec *x, qx_marks *m)
{
    forget(m);
    x->marking = x->device || x->opt.stream_weights ? NULL : m;
}

/* Now, since the values that a run was asked for may have made its plan anew. */
static void find_steps(const qx_exec *x, qx_marks *m)
{
    m->plan = x->plan_number;
    for (int i = 0; i < m->n; i++) m->list[i].step = step_of(x, m->list[i].v);
}

void qx_exec_begin(qx_exec *x, const qx_marks *m, const qx_value *const *values, int n)
{
    uint32_t first = n ? x->main->n_steps : 0;
    x->begin = NULL;
    if (!m || m->plan != x->plan_number) return;
    for (int i = 0; i < n; i++) {
        const uint32_t at = step_of(x, values[i]);
        if (at == x->main->n_steps) return;
        first = at < first ? at : first;
    }
    for (int i = 0; i < m->n; i++) {
        const mark *k = &m->list[i];
        if (k->alive && k->step <= first && (!x->begin || k->step > x->begin->step)) x->begin = k;
    }
}

/* What cannot be kept is run from the start later. */
static qx_status put_by(qx_exec *x, mark *k)
{
    qx_status st = qx_spool_open(x->ctx, "activations of a run", NULL, false, &k->alive);
    if (st == QX_OK) st = qx_spill_save(x, k->alive);
    if (st == QX_OK || st == QX_E_NOMEM) return st;
    qx_spool_close(k->alive);
    k->alive = NULL;
    qx_ctx_clear_error(x->ctx);
    return QX_OK;
}

static mark *next_mark(qx_marks *m, uint32_t from)
{
    mark *next = NULL;
    for (int i = 0; m && i < m->n; i++)
        if (!m->list[i].alive && m->list[i].step >= from && (!next || m->list[i].step < next->step)) next = &m->list[i];
    return next;
}

qx_status qx_run_marked(qx_exec *x)
{
    const mark *begin = x->begin;
    uint32_t at = 0, end = x->main->n_steps;
    if (x->marking) find_steps(x, x->marking);
    if (begin) {
        x->record = x->replay = false; /* offsets are those of whole runs */
        qx_spool_rewind(begin->alive);
        QX_TRY(qx_spill_load(x, begin->alive));
        at = begin->step;
    }
    for (mark *k; (k = next_mark(x->marking, at)) && k->step < end; at = k->step) {
        QX_TRY(qx_run_steps(x, x->main, at, k->step, NULL));
        QX_TRY(put_by(x, k));
        if (!k->alive) k->step = end;
    }
    return qx_run_steps(x, x->main, at, end, NULL);
}
