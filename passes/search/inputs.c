/* inputs.c - see inputs.h. Where sound or another wide range comes in, one convolution reads spectra over many powers of ten, or a
 * picture's margin beside its content, and 8 bits of that one tensor can lose more than all the rest of the network does. The sizes
 * of errors do not tell: what is small in a tensor can be all that matters. So it is tried. */
#include "passes/search/inputs.h"

#include <math.h>

enum { MOST_TRIED = 6, IN_A_ROW = 3, ONE_IN = 4 };

typedef struct suspect {
    qx_plan_item *it;
    qx_probe_change change;
    double effect;           /* on the output, alone; < 0: not tried */
} suspect;

typedef struct search { qx_pass *p; qx_probe *probe; suspect *list; int64_t n; qx_probe_change *changes; double all; } search;

static bool is_conv(const qx_plan_item *it) { return it->pass && it->weight && it->lin->is_conv && it->act; }

int64_t qx_inputs_count(const qx_plan *plan)
{
    int64_t n = 0;
    for (int64_t i = 0; i < plan->linears.count; i++) n += is_conv(&plan->items[i]);
    return n;
}

/* What rounding does to x of one convolution; false: it will not be rounded. The noise is that of even steps, of a float format its
 * precision's. */
static bool describe(const qx_plan *plan, const qx_pass *p, const qx_stats *stats, qx_plan_item *it, suspect *s)
{
    char detail[120];
    qx_act_codes c;
    const qx_value_stats *st = qx_stats_get(stats, it->x_stat);
    if (!st || !(st->sumsq > 0) || qx_scheme_input_codes(it, stats, &c, detail) != QX_WHY_NONE) return false;
    const double step = (double)c.scale, mean = st->sumsq / (double)st->count;
    const double error = qx_dtype_is_float(c.act) ? 0x1p-10 : step * step / 12 / mean;
    *s = (suspect){.it = it, .effect = -1, .change = {.item = it - plan->items, .error = error}};
    if (qx_probe_can_round(p->pipe, it)) s->change.input = c;
    return true;
}

/* n: of the changes that are not suspects' */
static qx_status run_all(search *s, int64_t n)
{
    qx_probe_effect e;
    for (int64_t i = 0; i < s->n; i++) s->changes[n++] = s->list[i].change;
    QX_TRY(qx_probe_run(s->probe, s->changes, n, &e));
    s->all = qx_probe_size(&e);
    return QX_OK;
}

static qx_status run_one(const search *s, suspect *a)
{
    qx_probe_effect e;
    QX_TRY(qx_probe_run(s->probe, &a->change, 1, &e));
    a->effect = qx_probe_size(&e);
    return QX_OK;
}

static suspect *worst_of(const search *s, bool tried)
{
    suspect *worst = NULL;
    for (int64_t i = 0; i < s->n; i++) {
        suspect *a = &s->list[i];
        if ((a->effect >= 0) != tried || a->it->weight_only) continue;
        if (!worst || (tried ? a->effect > worst->effect : a->change.error > worst->change.error)) worst = a;
    }
    return worst;
}

static qx_status try_suspects(search *s, double least)
{
    for (int64_t i = 0, harmless = 0; i < MOST_TRIED && harmless < IN_A_ROW; i++) {
        suspect *a = worst_of(s, false);
        if (!a) break;
        QX_TRY(qx_check_cancel(s->p->ctx));
        QX_TRY(run_one(s, a));
        harmless = a->effect < least / 4 * s->all ? harmless + 1 : 0;
        qx_log(s->p->ctx, QX_LOG_DEBUG, "input '%s' rounded alone: %.1f %% of all effect on the output", a->it->lin->x->name,
               100 * a->effect / s->all);
    }
    return QX_OK;
}

/* Effects add up, about: what is left when one is gone is the rest. */
static qx_status keep_float(search *s, int64_t most, double least)
{
    double rest = s->all;
    for (int64_t kept = 0; kept < most;) {
        suspect *a = worst_of(s, true);
        if (!a || !(a->effect > 0) || a->effect < least * rest) break;
        rest = fmax(rest - a->effect, 0);
        const double share = 100 * fmin(a->effect / s->all, 1);
        a->effect = 0;
        if (!qx_scheme_float_input(a->it)) continue;
        kept++;
        QX_TRY(qx_item_note(s->p->pipe, a->it, "input stays float: %.0f %% of all effect on the model's output", share));
    }
    return QX_OK;
}

qx_status qx_inputs_keep(qx_pass *p, const qx_stats *stats, qx_probe *probe, const qx_probe_change *others, int64_t n, double least)
{
    qx_plan *plan = p->pipe->plan;
    search s = {.p = p, .probe = probe};
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, (size_t)plan->linears.count + 1, sizeof *s.list, (void **)&s.list));
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, (size_t)(plan->linears.count + n) + 1, sizeof *s.changes, (void **)&s.changes));
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (is_conv(&plan->items[i])) s.n += describe(plan, p, stats, &plan->items[i], &s.list[s.n]);
    for (int64_t i = 0; i < n; i++) s.changes[i] = others[i];
    QX_TRY_GOTO(st, run_all(&s, n));
    if (!(s.all > 0)) goto done;
    QX_TRY_GOTO(st, try_suspects(&s, least));
    st = keep_float(&s, (s.n + n) / ONE_IN, least);
done:
    qx_free(p->ctx, s.list);
    qx_free(p->ctx, s.changes);
    return st;
}
