/* tables.c - see tables.h. What a table gets wrong goes into every layer, and smaller blocks gain 3 dB: float16 has a quarter more of a
 * text encoder's file than INT8, and the noise of float32. */
#include "passes/search/tables.h"

#include <math.h>

#include "passes/place/form.h"

/* What tables may add to the noise (a decibel), and noise of which nobody asks for less (50 dB). */
static const double added = 1.26, nothing = 1e-5;

static bool is_table(const qx_pipeline *pipe, const qx_plan_item *it)
{
    const qx_plan_weight *w = it->weight;
    return it->pass && it->table && it->lin->embedding && w->spec.codes == QX_DT_INT8 && w->tensor->dtype == QX_DT_FLOAT &&
        qx_form_only_gathered(pipe, w);
}

int64_t qx_tables_count(const qx_pipeline *pipe)
{
    int64_t n = 0;
    for (int64_t i = 0; pipe->tables_measured && i < pipe->plan->linears.count; i++) n += is_table(pipe, &pipe->plan->items[i]);
    return n;
}

typedef struct search { qx_pass *p; qx_probe *probe; qx_probe_change *changes; int64_t n; } search;

/* Noise with all tables in INT8 but those of `without` (NULL: none is); with: false: no table is. */
static qx_status measure(const search *s, bool with, const qx_plan_weight *without, double *out)
{
    const qx_plan *plan = s->p->pipe->plan;
    int64_t n = s->n;
    qx_probe_effect e;
    QX_TRY(qx_check_cancel(s->p->ctx));
    for (int64_t i = 0; with && i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        if (it->weight != without && is_table(s->p->pipe, it))
            s->changes[n++] = (qx_probe_change){.item = i, .spec = &it->weight->spec};
    }
    QX_TRY(qx_probe_run(s->probe, s->changes, n, &e));
    *out = qx_probe_size(&e);
    return QX_OK;
}

static qx_status to_half(const search *s, qx_plan_item *it, double without, double with)
{
    qx_plan_weight *w = it->weight;
    w->spec = (qx_qspec){.codes = QX_DT_FLOAT16};
    w->format = "fp16";
    return qx_item_note(s->p->pipe, it, "in INT8 it makes %.2g of the output's %.2g noise", with - without, with);
}

/* The table without which the noise is least. */
static qx_status step_up(const search *s, double *now)
{
    const qx_plan *plan = s->p->pipe->plan;
    qx_plan_item *best = NULL;
    double least = *now;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        qx_plan_item *it = &plan->items[i];
        double left;
        if (!it->weight || !is_table(s->p->pipe, it) || !qx_plan_first_reader(plan, i)) continue;
        QX_TRY(measure(s, true, it->weight, &left));
        if (left < least) best = it, least = left;
    }
    if (best) QX_TRY(to_half(s, best, least, *now));
    *now = best ? least : 0;
    return QX_OK;
}

qx_status qx_tables_choose(qx_pass *p, qx_probe *probe, qx_probe_change *changes, int64_t n)
{
    enum { MOST = 4 };
    const search s = {p, probe, changes, n};
    double rest, now;
    QX_TRY(measure(&s, false, NULL, &rest));
    QX_TRY(measure(&s, true, NULL, &now));
    for (int i = 0; i < MOST && now > nothing && now > added * rest; i++) QX_TRY(step_up(&s, &now));
    return QX_OK;
}
