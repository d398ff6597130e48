/* inputs.c - see inputs.h. Where sound or another wide range comes in, one convolution reads spectra over many powers of ten, or a
 * picture's margin beside its content, and 8 bits of that one tensor can lose more than all the rest of the network does. The sizes
 * of errors do not tell: what is small in a tensor can be all that matters. So it is tried, by halves. */
#include "passes/search/inputs.h"

#include <math.h>
#include <string.h>

enum { MOST_RUNS = 16, ONE_IN = 4 };

typedef struct suspect {
    qx_plan_item *it;
    bool output;             /* of what it writes, not of what it reads */
    qx_probe_change change;
} suspect;

typedef struct search {
    qx_pass *p;
    qx_probe *probe;
    suspect *list; int64_t n;
    const qx_probe_change *others; int64_t n_others; /* of operators that are no suspects */
    qx_probe_change *changes;
    double all;              /* what all do together; of this, shares are told */
    int runs;
} search;

static bool is_conv(const qx_plan_item *it) { return it->pass && it->weight && it->lin->is_conv && it->act; }

int64_t qx_inputs_count(const qx_plan *plan)
{
    int64_t n = 0;
    for (int64_t i = 0; i < plan->linears.count; i++) n += is_conv(&plan->items[i]);
    return n;
}

/* Relative squared error of a value under its codes: that of even steps, of a float format its precision's. */
static double noise_of(const qx_act_codes *c, const qx_value_stats *st)
{
    const double step = (double)c->scale;
    return qx_dtype_is_float(c->act) ? 0x1p-10 : step * step / 12 / (st->sumsq / (double)st->count);
}

/* What rounding does to x of one convolution; false: it will not be rounded. */
static bool describe(const qx_plan *plan, const qx_pass *p, const qx_stats *stats, qx_plan_item *it, suspect *s)
{
    char detail[120];
    qx_act_codes c;
    const qx_value_stats *st = qx_stats_get(stats, it->x_stat);
    if (!st || !(st->sumsq > 0) || qx_scheme_input_codes(it, stats, &c, detail) != QX_WHY_NONE) return false;
    *s = (suspect){.it = it, .change = {.item = it - plan->items}};
    if (qx_probe_can_round(p->pipe, it)) s->change.input = c;
    else s->change.error = noise_of(&c, st);
    return true;
}

static bool describe_output(const qx_plan *plan, const qx_stats *stats, qx_plan_item *it, suspect *s)
{
    qx_act_codes c;
    if (!qx_output_codes(it, stats, &c)) return false;
    *s = (suspect){.it = it, .output = true, .change = {.item = it - plan->items, .output = c}};
    return true;
}

/* How far the output moves when suspects from..to are rounded. */
static qx_status run_some(search *s, bool with_others, int64_t from, int64_t to, double *effect)
{
    qx_probe_effect e;
    int64_t n = 0;
    QX_TRY(qx_check_cancel(s->p->ctx));
    while (with_others && n < s->n_others) s->changes[n] = s->others[n], n++;
    for (int64_t i = from; i < to; i++) {
        const suspect *a = &s->list[i];
        if (a->output && i > from && s->list[i - 1].it == a->it) s->changes[n - 1].output = a->change.output; /* one change an operator */
        else s->changes[n++] = a->change;
    }
    QX_TRY(qx_probe_run(s->probe, s->changes, n, &e));
    *effect = qx_probe_size(&e);
    s->runs++;
    return QX_OK;
}

/* The half that does at least `least` alone, and what it does; neither: effect < 0. */
static qx_status take_half(search *s, double least, int64_t *from, int64_t *to, double *effect)
{
    const int64_t middle = *from + (*to - *from) / 2;
    QX_TRY(run_some(s, false, *from, middle, effect));
    if (*effect >= least) { *to = middle; return QX_OK; }
    QX_TRY(run_some(s, false, middle, *to, effect));
    if (*effect >= least) *from = middle;
    else *effect = -1;
    return QX_OK;
}

/* One suspect that does most of it all is in the half that does most of it. Index -1: there is none, or the runs were too few. */
static qx_status find_worst(search *s, double least, int64_t *index, double *effect)
{
    int64_t from = 0, to = s->n;
    *index = -1;
    *effect = 0;
    while (to - from > 1 && *effect >= 0 && s->runs + 2 <= MOST_RUNS) QX_TRY(take_half(s, least, &from, &to, effect));
    if (to - from == 1 && *effect > 0) *index = from;
    return QX_OK;
}

static qx_status keep(search *s, const suspect *a, double share)
{
    qx_log(s->p->ctx, QX_LOG_DEBUG, "%s of '%s' rounded alone: %.1f %% of all effect on the output", a->output ? "result" : "input",
           a->it->lin->node->name, share);
    if (a->output) a->it->float_output = true;
    else if (!qx_scheme_float_input(a->it)) return QX_OK;
    return qx_item_note(s->p->pipe, a->it, "%s stays float: %.0f %% of all effect on the model's output", a->output ? "result" : "input",
                        share);
}

static qx_status keep_float(search *s, double least)
{
    double rest = s->all;
    for (int64_t most = (s->n + s->n_others) / ONE_IN; most > 0 && s->n > 1 && rest > 0; most--) {
        int64_t i;
        double effect;
        QX_TRY(find_worst(s, least * rest, &i, &effect));
        if (i < 0) break;
        QX_TRY(keep(s, &s->list[i], 100 * fmin(effect / s->all, 1)));
        s->n--;
        memmove(&s->list[i], &s->list[i + 1], (size_t)(s->n - i) * sizeof *s->list);
        QX_TRY(run_some(s, true, 0, s->n, &rest));
    }
    return QX_OK;
}

qx_status qx_inputs_keep(qx_pass *p, const qx_stats *stats, qx_probe *probe, const qx_probe_change *others, int64_t n, double least)
{
    qx_plan *plan = p->pipe->plan;
    search s = {.p = p, .probe = probe, .others = others, .n_others = n};
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, 2 * (size_t)plan->linears.count + 1, sizeof *s.list, (void **)&s.list));
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, (size_t)(plan->linears.count + n) + 1, sizeof *s.changes, (void **)&s.changes));
    for (int64_t i = 0; i < plan->linears.count; i++) {
        if (!is_conv(&plan->items[i])) continue;
        s.n += describe(plan, p, stats, &plan->items[i], &s.list[s.n]);
        s.n += describe_output(plan, stats, &plan->items[i], &s.list[s.n]);
    }
    QX_TRY_GOTO(st, run_some(&s, true, 0, s.n, &s.all));
    if (s.all > 0) st = keep_float(&s, least);
done:
    qx_free(p->ctx, s.list);
    qx_free(p->ctx, s.changes);
    return st;
}
