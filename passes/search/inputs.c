/* inputs.c - see inputs.h. Where sound or another wide range comes in, one convolution reads spectra over many powers of ten, or a
 * picture's margin beside its content, and 8 bits of that one tensor can lose more than all the rest of the network does. The sizes
 * of errors do not tell: what is small in a tensor can be all that matters. So it is tried, by halves. */
#include "passes/search/inputs.h"

#include <math.h>
#include <string.h>

enum { MOST_RUNS = 16, FEW_RUNS = 8, MANY = 64, ONE_IN = 4 };
/* What results may add to the noise that inputs make (1.3 dB), and the part of all multiplications that may become float for it: those
 * take two to three times as long. Which goes first is what it does by what it costs. */
static const double added = 1.35, dear = 0.08;
/* A result of so much work stays float only where it does half of all: PLCMOS was slower than in float for 5 dB. */
static const double heavy = 0.25;
/* Noise, or nats, below which outputs are very close: what still does half of it may stay float, nothing less. And nothing that did
 * less than a crumb of all there was. Where all together is next to nothing (50 dB), nobody asks for more, and a float convolution costs
 * time. */
static const double little = 1e-3, half = 0.5, crumb = 0.02, nothing = 1e-5;

typedef struct suspect {
    qx_plan_item *it;        /* the first that reads x */
    bool output;             /* of what it writes, not of what it reads */
    double work;             /* multiplications of the convolution, as a part of all */
    qx_probe_change change;
} suspect;

/* Suspects that were rounded together, with what that does to the output. */
typedef struct part { int64_t from, to; double effect; } part;

typedef struct search {
    qx_pass *p;
    qx_probe *probe;
    suspect *list; int64_t n;
    suspect *left;           /* room for as many */
    const qx_probe_change *others; int64_t n_others; /* of operators that are no suspects */
    qx_probe_change *changes;
    part parts[2 * MOST_RUNS]; int n_parts;
    int64_t most;            /* that may stay float */
    double all, least;       /* what all do together; of this, shares are told */
    int runs;
} search;

static bool is_conv(const qx_plan_item *it) { return it->pass && it->weight && it->lin->is_conv && it->act; }

int64_t qx_inputs_count(const qx_plan *plan)
{
    int64_t n = 0;
    for (int64_t i = 0; i < plan->linears.count; i++) n += is_conv(&plan->items[i]);
    return n;
}

/* Multiplications in one sample. */
static double work_of(const qx_stats *stats, const qx_plan_item *it)
{
    const qx_value_stats *st = qx_stats_get(stats, qx_output_end(it));
    return (double)it->lin->k * (st && st->samples ? (double)st->count / (double)st->samples : (double)it->lin->n);
}

double qx_inputs_work(const qx_plan *plan, const qx_stats *stats)
{
    double sum = 0;
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (is_conv(&plan->items[i])) sum += work_of(stats, &plan->items[i]);
    return sum;
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
        int64_t at = n;
        while (a->output && at > 0 && s->changes[at - 1].item != a->change.item) at--; /* one change an operator */
        if (a->output && at > 0) s->changes[at - 1].output = a->change.output;
        else s->changes[n++] = a->change;
    }
    QX_TRY(qx_probe_run(s->probe, s->changes, n, &e));
    *effect = qx_probe_size(&e);
    s->runs++;
    return QX_OK;
}

/* What one has to do to stay float, of what is left without the worse ones. */
static double wanted(const search *s, double rest)
{
    return fmax(rest * (rest > little ? s->least : fmax(s->least, half)), s->all * crumb);
}

static part *worst_of(search *s, bool single)
{
    part *worst = NULL;
    for (int i = 0; i < s->n_parts; i++) {
        part *a = &s->parts[i];
        if ((a->to - a->from == 1) == single && (!worst || a->effect > worst->effect)) worst = a;
    }
    return worst;
}

/* Effects add up, about: what is left when all singles have gone that do enough. done: called for each; NULL: nothing becomes of them. */
static qx_status without_worst(search *s, qx_status (*done)(search *s, const part *a), double *rest)
{
    double effect[2 * MOST_RUNS];
    qx_status st = QX_OK;
    *rest = s->all;
    for (int i = 0; i < s->n_parts; i++) effect[i] = s->parts[i].effect;
    for (int64_t n = 0; n < s->most && st == QX_OK; n++) {
        part *a = worst_of(s, true);
        if (!a || !(a->effect > 0) || a->effect < wanted(s, *rest)) break;
        if (done) st = done(s, a);
        *rest = fmax(*rest - a->effect, 0);
        a->effect = 0;
    }
    for (int i = 0; i < s->n_parts; i++) s->parts[i].effect = effect[i];
    return st;
}

/* Halves a part. What the second half does is the rest of what both do; one that is found so alone is measured when it matters. */
static qx_status divide(search *s, part *whole, double least)
{
    const int64_t from = whole->from, middle = from + (whole->to - from) / 2;
    part *b = &s->parts[s->n_parts++];
    double effect;
    QX_TRY(run_some(s, false, from, middle, &effect));
    *b = (part){middle, whole->to, fmax(whole->effect - effect, 0)};
    *whole = (part){from, middle, effect};
    return b->to - middle == 1 && b->effect >= least ? run_some(s, false, middle, b->to, &b->effect) : QX_OK;
}

/* The worst by halving: what no part of the network does, none in it does. */
static qx_status find_worst(search *s)
{
    s->parts[0] = (part){0, s->n, s->all};
    s->n_parts = 1;
    if (s->n_others) QX_TRY(run_some(s, false, 0, s->n, &s->parts[0].effect));
    while (s->runs < MOST_RUNS) {
        double rest;
        part *a = worst_of(s, false);
        QX_TRY(without_worst(s, NULL, &rest));
        if (!a || !(a->effect > 0) || a->effect < wanted(s, rest)) break;
        QX_TRY(divide(s, a, wanted(s, rest)));
    }
    return QX_OK;
}

/* What goes past convolutions as well: there it is read as it is, which is the greater part of what its rounding does. */
static qx_status keep_skip(search *s, const suspect *a, double share)
{
    const qx_plan *plan = s->p->pipe->plan;
    for (int64_t i = a->it - plan->items; i < plan->linears.count; i++)
        if (plan->items[i].lin->x == a->it->lin->x) plan->items[i].skips_too = false;
    return qx_item_note(s->p->pipe, a->it, "skip stays float: %.0f %% of all effect on the model's output", share);
}

/* x of one convolution stays float, and so does the weight where the target wants it so. */
static qx_status leave_float(search *s, qx_plan_item *it, const char *what, double share)
{
    if (qx_scheme_float_weight(it)) {
        qx_item_keep(s->p->pipe, it, QX_WHY_LARGE_ERROR, "%s: %.0f %% of all effect on the model's output", what, share);
        return QX_OK;
    }
    if (!qx_scheme_float_input(it)) return QX_OK;
    return qx_item_note(s->p->pipe, it, "%s stays float: %.0f %% of all effect on the model's output", what, share);
}

/* All readers of a tensor that is rounded where it lies. */
static qx_status keep_input(search *s, const suspect *a, double share)
{
    const qx_plan *plan = s->p->pipe->plan;
    if (a->it->skips_too) return keep_skip(s, a, share);
    for (int64_t i = a->it - plan->items; i < plan->linears.count; i++) {
        qx_plan_item *it = &plan->items[i];
        const bool same = it == a->it || (a->change.input.act && it->lin->x == a->it->lin->x);
        if (same && is_conv(it)) QX_TRY(leave_float(s, it, "input", share));
    }
    return QX_OK;
}

static qx_status keep(search *s, const part *single)
{
    const suspect *a = &s->list[single->from];
    const double share = 100 * fmin(single->effect / s->all, 1);
    if (!a->it->pass) return QX_OK; /* its input has made it float altogether */
    if (a->output && a->work > heavy && share < 100 * half) return QX_OK;
    qx_log(s->p->ctx, QX_LOG_DEBUG, "%s of '%s' rounded alone: %.1f %% of all effect on the output", a->output ? "result" : "input",
           a->it->lin->node->name, share);
    if (!a->output) return keep_input(s, a, share);
    a->it->float_output = true;
    if (qx_scheme_float_weight(a->it)) return leave_float(s, a->it, "result", share);
    return qx_item_note(s->p->pipe, a->it, "result stays float: %.0f %% of all effect on the model's output", share);
}

/* Readers of one tensor that is rounded where it lies are one suspect. */
static bool known(const search *s, const qx_plan_item *it)
{
    for (int64_t i = 0; i < s->n; i++)
        if (s->list[i].change.input.act && s->list[i].it->lin->x == it->lin->x) return true;
    return false;
}

static void find_suspects(search *s, const qx_stats *stats)
{
    const qx_plan *plan = s->p->pipe->plan;
    const double all = qx_inputs_work(plan, stats);
    for (int64_t i = 0; i < plan->linears.count; i++) {
        qx_plan_item *it = &plan->items[i];
        if (!is_conv(it)) continue;
        if (!known(s, it)) s->n += describe(plan, s->p, stats, it, &s->list[s->n]);
        s->n += describe_output(plan, stats, it, &s->list[s->n]);
    }
    for (int64_t i = 0; i < s->n; i++) s->list[i].work = work_of(stats, s->list[i].it) / all;
}

/* ---- results, beside the noise that inputs make ---- */

/* What is rounded still: inputs first, then results; how many inputs. */
static int64_t sort_left(search *s)
{
    int64_t n = 0, inputs = 0;
    for (int pass = 0; pass < 2; pass++, inputs = pass == 1 ? n : inputs)
        for (int64_t i = 0; i < s->n; i++) {
            const suspect a = s->list[i];
            const qx_plan_item *it = a.it;
            if (a.output != (pass == 1) || !it->pass || (a.output ? it->float_output : !it->act)) continue;
            s->left[n++] = a;
        }
    memcpy(s->list, s->left, (size_t)n * sizeof *s->list);
    s->n = n;
    return inputs;
}

/* Of the singles the one that does most for what it costs; NULL: none that may stay float. */
static part *best_of(search *s, double room)
{
    part *best = NULL;
    for (int i = 0; i < s->n_parts; i++) {
        part *a = &s->parts[i];
        const double work = s->list[a->from].work;
        if (a->to - a->from > 1 || a->effect < crumb * s->all || work > room) continue;
        if (!best || a->effect * s->list[best->from].work > best->effect * work) best = a;
    }
    return best;
}

/* Noise that singles leave when the best of them have gone; those, when `done`. */
static qx_status without_best(search *s, qx_status (*done)(search *s, const part *a), double goal, double *rest)
{
    double effect[2 * MOST_RUNS], room = dear;
    qx_status st = QX_OK;
    *rest = s->all;
    for (int i = 0; i < s->n_parts; i++) effect[i] = s->parts[i].effect;
    for (part *a; st == QX_OK && *rest > goal && (a = best_of(s, room)) != NULL; a->effect = 0) {
        if (done) st = done(s, a);
        room -= s->list[a->from].work;
        *rest -= a->effect;
    }
    for (int i = 0; i < s->n_parts; i++) s->parts[i].effect = effect[i];
    return st;
}

/* Each alone looks harmless where there are many: results stay float until all that are left add little to what inputs do. */
static qx_status keep_results(search *s)
{
    const int64_t inputs = sort_left(s);
    double base, rest;
    if (inputs == s->n) return QX_OK;
    s->runs = 0;
    QX_TRY(run_some(s, true, 0, inputs, &base));
    QX_TRY(run_some(s, true, 0, s->n, &s->all));
    const double goal = fmax(added * base, nothing);
    qx_log(s->p->ctx, QX_LOG_DEBUG, "inputs rounded: noise %.2e on the output; results too: %.2e", base, s->all);
    if (s->all <= goal) return QX_OK;
    s->parts[0] = (part){inputs, s->n, s->all - base};
    s->n_parts = 1;
    while (s->runs < (s->n - inputs > MANY ? FEW_RUNS : MOST_RUNS)) {
        part *a = worst_of(s, false);
        QX_TRY(without_best(s, NULL, goal, &rest));
        if (!a || a->effect < crumb * s->all || rest <= goal) break;
        QX_TRY(divide(s, a, crumb * s->all));
    }
    return without_best(s, keep, goal, &rest);
}

qx_status qx_inputs_keep(qx_pass *p, const qx_stats *stats, qx_probe *probe, const qx_probe_change *others, int64_t n, double least)
{
    const qx_plan *plan = p->pipe->plan;
    search s = {.p = p, .probe = probe, .others = others, .n_others = n, .least = least};
    double rest;
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, 2 * (size_t)plan->linears.count + 1, sizeof *s.list, (void **)&s.list));
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, (size_t)(plan->linears.count + n) + 1, sizeof *s.changes, (void **)&s.changes));
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, 2 * (size_t)plan->linears.count + 1, sizeof *s.left, (void **)&s.left));
    find_suspects(&s, stats);
    if (!s.n) goto done;
    s.most = (s.n + n + ONE_IN - 1) / ONE_IN;
    QX_TRY_GOTO(st, run_some(&s, true, 0, s.n, &s.all));
    qx_log(p->ctx, QX_LOG_DEBUG, "%lld inputs and results of convolutions rounded: noise %.2e on the output", (long long)s.n, s.all);
    if (!(s.all > nothing)) goto done;
    QX_TRY_GOTO(st, find_worst(&s));
    QX_TRY_GOTO(st, without_worst(&s, keep, &rest));
    st = keep_results(&s);
done:
    qx_free(p->ctx, s.list);
    qx_free(p->ctx, s.left);
    qx_free(p->ctx, s.changes);
    return st;
}
