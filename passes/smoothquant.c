/* smoothquant.c - moves the difficulty of quantizing activations into the weights (arXiv 2211.10438): x' = x / s, W' = W s with
 * s[k] = max|x_k|^alpha / max|W_k|^(1 - alpha), one s for each group of linears that read the same tensor.
 *
 * alpha is searched per group on what the int8 (or fp8) product really gives (smooth.h), against leaving x alone; the factor is
 * folded upstream (passes/search/fold.h). Only groups whose activations will be quantized are touched. The few groups that hurt
 * the model's output most stay float: which, only the output can tell (passes/search/probe.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "passes/search/inputs.h"
#include "passes/place/scheme.h"
#include "passes/search/smooth.h"
#include "passes/search/tables.h"

/* a channel that few rows show may be ten times as large in the next one, and s would make that be clipped */
static const int64_t least_rows = 256;

/* What was decided for a group. */
typedef struct decision {
    bool judged;           /* the rest is set */
    qx_smooth choice;
    bool measured;         /* by itself, on the model's output: */
    double effect;         /* share of what all groups together do */
} decision;

typedef struct smooth_state { qx_group *groups; decision *is; int64_t n; } smooth_state;

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    smooth_state *s = qx_arena_alloc(m->arena, sizeof *s);
    if (!s) return QX_E_NOMEM;
    QX_TRY(qx_groups_find(p->pipe, &s->groups, &s->n));
    s->is = qx_arena_array(m->arena, (size_t)s->n + 1, sizeof *s->is);
    if (!s->is) return QX_E_NOMEM;
    for (int64_t i = 0; i < s->n; i++)
        if (qx_group_quantized(&s->groups[i]))
            QX_TRY(qx_group_want(&s->groups[i], stats, QX_STAT_RANGE | QX_STAT_HISTOGRAM | QX_STAT_CHANNELS | QX_STAT_ROWS));
    p->state = s;
    return QX_OK;
}

/* ---- choosing ---- */

static qx_status note_all(qx_pass *p, const qx_group *g, const char *text)
{
    for (int64_t i = 0; i < g->n; i++) QX_TRY(qx_item_note(p->pipe, g->items[i], "smoothquant: %s", text));
    return QX_OK;
}

static qx_status note_unobserved(qx_pass *p, const qx_group *g)
{
    for (int64_t i = 0; i < g->n; i++) QX_TRY(qx_item_unobserved(p->pipe, g->items[i], "smoothquant: not observed"));
    return QX_OK;
}

static qx_status choose_group(qx_pass *p, const qx_group *g, const qx_stats *stats, decision *d)
{
    const char *alpha = qx_opt_text(p, "alpha");
    const double fixed = strtod(alpha, NULL);
    const bool search = strcmp(alpha, "auto") == 0;
    const qx_value_stats *st = qx_stats_get(stats, g->x);
    qx_fold fold;
    if (!st || st->channels.n != g->k || st->n_rows < 1 || st->row_len != g->k) return note_unobserved(p, g);
    if (search && st->count / g->k < least_rows) return note_all(p, g, "too few rows seen");
    qx_fold_find(p->pipe, g, &fold);
    if (fold.kind == QX_FOLD_MUL && !qx_opt_bool(p, "mul")) return note_all(p, g, "nowhere to fold");
    QX_TRY(qx_smooth_choose(p, g, stats, search ? NULL : &fixed, &d->choice));
    if (search && fold.kind == QX_FOLD_MUL && d->choice.smooth && d->choice.gain_db < qx_opt_float(p, "mul-gain"))
        return note_all(p, g, "nowhere to fold, and a Mul gains too little");
    d->judged = true;
    return QX_OK;
}

/* ---- what stays float ---- */

static int64_t elements(const qx_group *g)
{
    int64_t n = 0;
    for (int64_t i = 0; i < g->n; i++)
        if (qx_item_rounds_x(g->items[i])) n += g->items[i]->lin->n * g->k;
    return n;
}

static int64_t all_elements(const smooth_state *s)
{
    int64_t all = 0;
    for (int64_t i = 0; i < s->n; i++) all += elements(&s->groups[i]);
    return all;
}

/* Of the judged groups without a mark the one with the largest error: relative to its output, or as it is added to what lies beside it. */
static int64_t worst_group(const smooth_state *s, const bool *marked, bool relative)
{
    int64_t worst = -1;
    for (int64_t i = 0; i < s->n; i++) {
        if (!s->is[i].judged || marked[i]) continue;
        const qx_smooth *a = &s->is[i].choice, *b = worst < 0 ? NULL : &s->is[worst].choice;
        if (!b || (relative ? a->left_db < b->left_db : a->error > b->error)) worst = i;
    }
    return worst;
}

typedef struct trial { qx_pass *p; const smooth_state *s; qx_probe *probe; qx_probe_change *changes; int64_t n; } trial;

/* Group i as it would be, put to the changes. */
static void add_group(trial *t, int64_t i)
{
    const qx_group *g = &t->s->groups[i];
    const qx_plan *plan = t->p->pipe->plan;
    const qx_smooth *c = &t->s->is[i].choice;
    for (int64_t j = 0; j < g->n; j++) {
        const qx_plan_item *it = g->items[j];
        if (!qx_item_rounds_x(it)) continue;
        t->changes[t->n++] = (qx_probe_change){.item = it - plan->items, .spec = &it->weight->spec, .smooth = c->s,
                                               .x = {.act = it->act, .dynamic = it->dynamic, .blocks = &it->weight->spec,
                                                     .scale = it->act ? c->top / qx_scheme_reach(it->act, 1) : 0},
                                               .error = pow(10, -c->left_db / 10)};
    }
}

static qx_status measure_all(trial *t, double *out)
{
    qx_probe_effect e;
    t->n = 0;
    for (int64_t i = 0; i < t->s->n; i++)
        if (t->s->is[i].judged) add_group(t, i);
    QX_TRY(qx_probe_run(t->probe, t->changes, t->n, &e));
    *out = qx_probe_size(&e);
    return QX_OK;
}

static qx_status measure_one(trial *t, int64_t i, double all)
{
    qx_probe_effect e;
    t->n = 0;
    add_group(t, i);
    QX_TRY(qx_probe_run(t->probe, t->changes, t->n, &e));
    t->s->is[i].measured = true;
    t->s->is[i].effect = all > 0 ? qx_probe_size(&e) / all : 0;
    qx_log(t->p->ctx, QX_LOG_DEBUG, "input '%s' quantized alone: %.1f %% of all effect on the output", t->s->groups[i].x->name,
           100 * t->s->is[i].effect);
    return QX_OK;
}

/* The suspects: half of them by their relative error, half by their absolute one. */
static qx_status list_suspects(const trial *t, int64_t most, int64_t *list, int *n)
{
    bool *marked;
    *n = 0;
    QX_TRY(qx_alloc_array(t->p->ctx, (size_t)t->s->n + 1, sizeof *marked, (void **)&marked));
    for (int64_t i; *n < most && (i = worst_group(t->s, marked, *n % 2 == 0)) >= 0; marked[i] = true) list[(*n)++] = i;
    qx_free(t->p->ctx, marked);
    return QX_OK;
}

/* When three in a row, so of either kind, do not matter, those with smaller errors are not asked. */
static qx_status measure_suspects(trial *t, const int64_t *list, int n)
{
    enum { IN_A_ROW = 3 };
    const double little = qx_opt_float(t->p, "float-effect") / 200;
    double all;
    QX_TRY(measure_all(t, &all));
    for (int i = 0, harmless = 0; i < n && harmless < IN_A_ROW; i++) {
        qx_progress(t->p->ctx, "effect on the output", i, n);
        QX_TRY(measure_one(t, list[i], all));
        harmless = t->s->is[list[i]].effect < little ? harmless + 1 : 0;
    }
    qx_progress(t->p->ctx, "effect on the output", n, n);
    return QX_OK;
}

/* Runs the model with single groups quantized. Without samples, or in a model too large to run often, nothing is measured. */
static qx_status measure(qx_pass *p, smooth_state *s, const qx_stats *stats)
{
    const int64_t probes = qx_opt_int(p, "probes"), most = qx_probe_samples(all_elements(s));
    trial t = {.p = p, .s = s};
    int64_t *list = NULL;
    const qx_value **begins = NULL;
    int n;
    qx_status st;
    if (!probes || !most || !p->pipe->samples) return QX_OK;
    /* of a sweep, when it can be */
    const int64_t half = qx_samples_count(p->pipe->samples) / (2 * (probes + 2)), count = half < 1 ? 1 : half < most ? half : most;
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, (size_t)p->pipe->plan->linears.count + 1, sizeof *t.changes, (void **)&t.changes));
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, (size_t)probes, sizeof *list, (void **)&list));
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, (size_t)probes, sizeof *begins, (void **)&begins));
    QX_TRY_GOTO(st, list_suspects(&t, probes, list, &n));
    for (int i = 0; i < n; i++) begins[i] = s->groups[list[i]].x;
    QX_TRY_GOTO(st, qx_probe_new(p->pipe, stats, &(qx_probe_runs){count, true, begins, n}, &t.probe));
    st = measure_suspects(&t, list, n);
done:
    qx_probe_free(t.probe);
    qx_free(p->ctx, t.changes);
    qx_free(p->ctx, list);
    qx_free(p->ctx, begins);
    return st;
}

/* The group that should stay float next: the one with the largest effect on the output, then the one with the largest error; -1:
 * none is bad enough. */
static int64_t next_to_keep(qx_pass *p, const smooth_state *s, const bool *kept)
{
    const double effect = qx_opt_float(p, "float-effect") / 100, below = qx_opt_float(p, "float-below");
    int64_t worst = -1;
    for (int64_t i = 0; i < s->n; i++) {
        const decision *d = &s->is[i];
        if (!kept[i] && d->measured && d->effect >= effect && (worst < 0 || d->effect > s->is[worst].effect)) worst = i;
    }
    if (worst >= 0) return worst;
    worst = worst_group(s, kept, true);
    return worst >= 0 && s->is[worst].choice.left_db < below ? worst : -1;
}

/* Its inputs; weights do not need the room that they have in float, as long as nothing else reads them. */
static qx_status keep_group(qx_pass *p, const qx_group *g, decision *d)
{
    char what[120];
    const int n = snprintf(what, sizeof what, "%.1f dB below its output", d->choice.left_db);
    if (d->measured) snprintf(what + n, sizeof what - (size_t)n, ", %.0f %% of all effect on the model's", 100 * d->effect);
    for (int64_t i = 0; i < g->n; i++) {
        qx_plan_item *it = g->items[i];
        if (!qx_item_rounds_x(it) || it->forced) continue;
        if (qx_scheme_float_input(it)) QX_TRY(qx_item_note(p->pipe, it, "input stays float: its rounding is %s", what));
        else qx_item_keep(p->pipe, it, QX_WHY_LARGE_ERROR, "%s", what);
    }
    d->judged = false;
    return QX_OK;
}

/* The worst first, while they are few: one operator can cost more than all others together. */
static qx_status keep_worst(qx_pass *p, smooth_state *s)
{
    const double most = qx_opt_float(p, "float-share") / 100 * (double)all_elements(s);
    int64_t sum = 0;
    qx_status st = QX_OK;
    bool *kept;
    QX_TRY(qx_alloc_array(p->ctx, (size_t)s->n + 1, sizeof *kept, (void **)&kept));
    for (int64_t i; (i = next_to_keep(p, s, kept)) >= 0;) {
        kept[i] = true;
        if ((double)(sum + elements(&s->groups[i])) > most) continue;
        sum += elements(&s->groups[i]);
        QX_TRY_GOTO(st, keep_group(p, &s->groups[i], &s->is[i]));
    }
done:
    qx_free(p->ctx, kept);
    return st;
}

/* The same for inputs of convolutions, which no factor helps and whose weights keep their 8 bits. */
static qx_status keep_inputs(qx_pass *p, const smooth_state *s, const qx_stats *stats)
{
    const double least = qx_opt_float(p, "input-effect") / 100;
    const int64_t most = qx_probe_samples(all_elements(s)), all = p->pipe->samples ? qx_samples_count(p->pipe->samples) : 0,
        samples = all / 8;
    trial t = {.p = p, .s = s};
    qx_status st;
    if (!p->pipe->samples || !qx_opt_int(p, "probes") || !most || !(least < 1) || qx_inputs_count(p->pipe->plan) < 2) return QX_OK;
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, (size_t)p->pipe->plan->linears.count + 1, sizeof *t.changes, (void **)&t.changes));
    /* of a small network more: scores of one number each, as of a sound's quality, say little by themselves */
    const double cheap = 2e9 / (1 + qx_inputs_work(p->pipe->plan, stats)), few = fmax((double)samples, fmin(cheap, (double)all));
    const int64_t count = few < 1 ? 1 : few < (double)most ? (int64_t)few : most;
    QX_TRY_GOTO(st, qx_probe_new(p->pipe, stats, &(qx_probe_runs){.count = count, .half = true}, &t.probe));
    for (int64_t i = 0; i < s->n; i++)
        if (s->is[i].judged) add_group(&t, i);
    st = qx_inputs_keep(p, stats, t.probe, t.changes, t.n, least);
done:
    qx_probe_free(t.probe);
    qx_free(p->ctx, t.changes);
    return st;
}

/* Groups that nothing was searched for, by their own ranges: of one with a zero point, whose grid is finer, not quite as good as it is. */
static void add_plain(trial *t, const qx_group *g, const qx_stats *stats)
{
    const qx_plan *plan = t->p->pipe->plan;
    for (int64_t j = 0; j < g->n; j++) {
        qx_plan_item *it = g->items[j];
        char detail[120];
        qx_act_codes c;
        if (!it->pass || !it->act || !qx_item_rounds_x(it) || qx_scheme_input_codes(it, stats, &c, detail) != QX_WHY_NONE) continue;
        const bool one_sided = c.act == QX_DT_UINT8;
        t->changes[t->n++] = (qx_probe_change){.item = it - plan->items, .spec = &it->weight->spec,
                                               .x = {.act = one_sided ? QX_DT_INT8 : c.act, .scale = one_sided ? 2 * c.scale : c.scale}};
    }
}

/* Tables that do more than all of that. */
static qx_status keep_tables(qx_pass *p, const smooth_state *s, const qx_stats *stats)
{
    const int64_t most = qx_probe_samples(all_elements(s));
    trial t = {.p = p, .s = s};
    qx_status st;
    if (!p->pipe->samples || !qx_opt_int(p, "probes") || !most || !qx_tables_count(p->pipe)) return QX_OK;
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, 2 * (size_t)p->pipe->plan->linears.count + 1, sizeof *t.changes, (void **)&t.changes));
    for (int64_t i = 0; i < s->n; i++)
        if (s->is[i].judged) add_group(&t, i);
        else add_plain(&t, &s->groups[i], stats);
    if (t.n) QX_TRY_GOTO(st, qx_probe_new(p->pipe, stats, &(qx_probe_runs){.count = most, .half = true}, &t.probe));
    if (t.n) QX_TRY_GOTO(st, qx_tables_choose(p, t.probe, t.changes, t.n));
done:
    qx_probe_free(t.probe);
    qx_free(p->ctx, t.changes);
    return st;
}

static bool runs_model(const qx_pass *p) { return qx_opt_int(p, "probes") > 0; }

static qx_status decide(qx_pass *p, qx_model *m, qx_stats *stats)
{
    smooth_state *s = p->state;
    (void)m;
    for (int64_t i = 0; i < s->n; i++) {
        if (!qx_group_quantized(&s->groups[i])) continue;
        QX_TRY(qx_check_cancel(p->ctx));
        qx_progress(p->ctx, "smoothquant", i, s->n);
        QX_TRY(choose_group(p, &s->groups[i], stats, &s->is[i]));
    }
    qx_progress(p->ctx, "smoothquant", s->n, s->n);
    QX_TRY(measure(p, s, stats));
    QX_TRY(keep_worst(p, s));
    QX_TRY(keep_inputs(p, s, stats));
    return keep_tables(p, s, stats);
}

/* ---- doing it ---- */

static qx_status note(qx_pass *p, const qx_group *g, const qx_fold *fold, const qx_smooth *c)
{
    for (int64_t i = 0; i < g->n; i++)
        if (c->smooth)
            QX_TRY(qx_item_note(p->pipe, g->items[i], "smoothquant %.2f (%s, range %.0f %%, %+.1f dB to %.1f dB)", c->alpha,
                                qx_fold_text(fold), 100 * (double)c->clip, c->gain_db, c->left_db));
        else QX_TRY(qx_item_note(p->pipe, g->items[i], "smoothquant: no gain (%.1f dB)", c->left_db));
    return QX_OK;
}

static qx_status smooth_group(qx_pass *p, qx_group *g, qx_stats *stats, const qx_smooth *c)
{
    qx_fold fold;
    qx_fold_find(p->pipe, g, &fold);
    QX_TRY(note(p, g, &fold, c));
    if (!c->smooth) return QX_OK;
    for (int64_t i = 0; i < g->n; i++) g->items[i]->act_range = c->top;
    return qx_fold_apply(p, g, &fold, c->s, stats);
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const smooth_state *s = p->state;
    (void)m;
    for (int64_t i = 0; i < s->n; i++)
        if (s->is[i].judged) QX_TRY(smooth_group(p, &s->groups[i], stats, &s->is[i].choice));
    return QX_OK;
}

static const qx_option options[] = {
    {"alpha", QX_OPT_TEXT, "auto", 0, 1, NULL, "share of the difficulty that moves to the weights: auto (searched per group) or 0..1"},
    {"float-effect", QX_OPT_FLOAT, "5", 0, 100, NULL,
     "what alone moves the model's output by this many percent of what all together do stays float, the worst first"},
    {"float-below", QX_OPT_FLOAT, "20", 0, 100, NULL,
     "and then operators whose output is less than so many dB above the error that is left"},
    {"float-share", QX_OPT_FLOAT, "10", 0, 100, NULL, "but never more than this share of the weights, in percent"},
    {"input-effect", QX_OPT_FLOAT, "20", 0, 100, NULL,
     "a convolution whose input (or rounded result) does this many percent of what is then left (half, where that is little) keeps it "
     "float, its weight in 8 bits; one in four operators at most, and none with 100"},
    {"probes", QX_OPT_INT, "12", 0, 1000, NULL, "groups whose effect is measured at most, of those with the largest errors; each "
                                                "takes a run of the model over one to four samples, of text their first halves"},
    {"mul", QX_OPT_BOOL, "true", 0, 0, NULL, "insert a Mul where the factor cannot be folded upstream"},
    {"mul-gain", QX_OPT_FLOAT, "3", 0, 100, NULL, "the Mul has to lessen the error of its readers by so many dB, where alpha is searched"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

static double work(const qx_pass *p, const qx_stats *stats)
{
    const smooth_state *s = p->state;
    const double by_codes = 0.5; /* products of INT8 take less than those of floats, after which the search is measured */
    double sum = 0;
    for (int64_t i = 0; i < s->n && strcmp(qx_opt_text(p, "alpha"), "auto") == 0; i++) {
        const double rows = qx_stats_rows_to_come(stats, s->groups[i].x, NULL);
        if (qx_group_quantized(&s->groups[i]) && rows >= (double)least_rows) sum += by_codes * qx_judge_work(&s->groups[i], rows);
    }
    return sum;
}

const qx_passdef qx_pass_smoothquant = {
    .name = "smoothquant", .brief = "balance activations and weights before int8, fp8 or int8-dynamic", .options = options,
    .flags = QX_PASS_WEIGHTS | QX_PASS_CALIBRATED | QX_PASS_NEEDS_FORMAT | QX_PASS_FOR_X, .order = 1, .plan = plan, .decide = decide,
    .probes = runs_model, .run = run, .work = work,
};
