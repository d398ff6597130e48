/* awq.c - activation-aware weight quantization (arXiv 2306.00978): channels that carry large activations get finer weights.
 *
 * lite: one s per group, s[k] = mean|x_k|^r / mean(|W_k| / blockmax)^(1 - r), scaled so that its extremes are reciprocal; r on a
 * grid that also holds the identity; judged on the group's joint output error over sampled rows. clip: the weights' scale search
 * is weighted by E[x^2] per column, so that the clipping of each block is chosen for the output, not for the weights. full: both.
 * Weight-only: activations stay float.
 *
 * A layer that is 1 dB better can make the model worse: what rounding does to a weight is one fixed pattern, and where few layers
 * decide, whether the rest of the model is sensitive to the old one or the new one weighs more than 1 dB. So the model's output
 * has the last word over which layers are scaled. */
#include <math.h>
#include <string.h>

#include "passes/search/probe.h"
#include "passes/search/fold.h"
#include "passes/search/judge.h"

enum { GRID = 20, MOST = 6, JUDGED = 128 }; /* MOST: points that are judged together */
static const double least_gain_db = 0.3; /* below this the sampled rows cannot tell a gain from chance */

/* What was decided for a group. s [k], in the model's arena; NULL: the identity. plain, scaled: errors as shares of the result, which
 * stand for operators whose results a probe cannot make (experts) */
typedef struct decision { float *s; double r, gain, plain, scaled; const char *why_not; } decision;

typedef struct awq_state { qx_group *groups; decision *is; int64_t n; } awq_state;

static bool weight_only(const qx_plan_item *it)
{
    return it->pass && !it->table && it->weight && !it->act && qx_dtype_bits(it->weight->spec.codes) > 0;
}

static bool wants(const qx_group *g)
{
    for (int64_t i = 0; i < g->n; i++)
        if (weight_only(g->items[i])) return true;
    return false;
}

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    awq_state *s = qx_arena_alloc(m->arena, sizeof *s);
    if (!s) return QX_E_NOMEM;
    QX_TRY(qx_groups_find(p->pipe, &s->groups, &s->n));
    s->is = qx_arena_array(m->arena, (size_t)s->n + 1, sizeof *s->is);
    if (!s->is) return QX_E_NOMEM;
    for (int64_t i = 0; i < s->n; i++)
        if (wants(&s->groups[i])) QX_TRY(qx_group_want(&s->groups[i], stats, QX_STAT_RANGE | QX_STAT_CHANNELS | QX_STAT_ROWS));
    p->state = s;
    return QX_OK;
}

/* What candidates of a group are made of and judged by. Point i of the grid is r = i / GRID; 0 stands for the identity. */
typedef struct finder {
    qx_pass *p;
    const qx_group *g;
    qx_fold fold;
    const qx_value_stats *st;
    float *s, *best_s, *w, *mean; /* [MOST][k] candidates; [k] the best; columns of the weights */
    qx_judge *judge;
    int best;
    double plain, error;          /* of the identity; of the best */
} finder;

static void factors(const finder *f, int point, float *s)
{
    const double r = (double)point / GRID;
    const int64_t k = f->g->k;
    float lo = INFINITY, hi = 0;
    for (int64_t j = 0; j < k; j++) {
        const double a = fmax((double)f->st->channels.mean_abs[j], 1e-8), w = fmax((double)f->mean[j], 1e-8);
        s[j] = point ? (float)fmin(fmax(pow(a, r) / (pow(w, 1 - r) + 1e-4), 1e-4), 1e4) : 1;
    }
    if (!point) return;
    qx_fold_constrain(&f->fold, k, s);
    for (int64_t j = 0; j < k; j++) lo = fminf(lo, s[j]), hi = fmaxf(hi, s[j]);
    const float middle = sqrtf(lo * hi);
    for (int64_t j = 0; j < k; j++) s[j] /= middle;
}

/* Of equal ones the first. */
static qx_status try_points(finder *f, const int *points, int n)
{
    double error[MOST];
    int at[MOST], m = 0;
    const size_t row = (size_t)f->g->k;
    for (int i = 0; i < n; i++)
        if (points[i] >= 0 && points[i] <= GRID) factors(f, points[i], f->s + (size_t)m * row), at[m++] = points[i];
    QX_TRY(qx_judge_run(f->judge, &(qx_candidates){.n = m, .s = f->s}, error));
    for (int i = 0; i < m; i++) {
        if (at[i] == 0) f->plain = error[i];
        if (!(error[i] < f->error)) continue;
        f->best = at[i], f->error = error[i];
        memcpy(f->best_s, f->s + (size_t)i * row, row * sizeof *f->s);
    }
    return QX_OK;
}

/* Coarsely, then beside the best. */
static qx_status search(finder *f)
{
    static const int coarse[] = {0, 4, 8, 12, 16, 20};
    const qx_group_columns columns = {f->g->items[0]->weight->spec.block, f->w, f->mean};
    QX_TRY(qx_judge_new(f->p->ctx, f->g, f->st, JUDGED, &columns, &f->judge));
    QX_TRY(try_points(f, coarse, sizeof coarse / sizeof *coarse));
    for (int step = 2; step >= 1 && f->best; step--) {
        const int beside[] = {f->best - step, f->best + step};
        QX_TRY(try_points(f, beside, 2));
    }
    return isfinite(f->error) ? QX_OK : qx_fail(f->p->ctx, QX_E_NUMERIC, "awq: input '%s': no candidate has a finite error", f->g->x->name);
}

static qx_status open_finder(finder *f)
{
    const size_t k = (size_t)f->g->k;
    QX_TRY(qx_alloc_array(f->p->ctx, MOST * k, sizeof *f->s, (void **)&f->s));
    QX_TRY(qx_alloc_array(f->p->ctx, k, sizeof *f->best_s, (void **)&f->best_s));
    QX_TRY(qx_alloc_array(f->p->ctx, k, sizeof *f->w, (void **)&f->w));
    return qx_alloc_array(f->p->ctx, k, sizeof *f->mean, (void **)&f->mean);
}

static void close_finder(finder *f)
{
    void *list[] = {f->s, f->best_s, f->w, f->mean};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) qx_free(f->p->ctx, list[i]);
    qx_judge_free(f->judge);
}

static bool observed(const qx_group *g, const qx_value_stats *st)
{
    return st && st->channels.n == g->k && st->n_rows >= 1 && st->row_len == g->k;
}

static qx_status choose_group(qx_pass *p, const qx_group *g, const qx_value_stats *st, decision *d)
{
    finder f = {.p = p, .g = g, .st = st, .error = INFINITY};
    qx_status status;
    if (!observed(g, st)) return d->why_not = p->pipe->no_stats ? NULL : "not observed", QX_OK; /* a plan is made before */
    qx_fold_find(p->pipe, g, &f.fold);
    if (f.fold.kind == QX_FOLD_MUL && !qx_opt_bool(p, "mul")) return d->why_not = "nowhere to fold", QX_OK;
    QX_TRY_GOTO(status, open_finder(&f));
    QX_TRY_GOTO(status, search(&f));
    const double reference = fmax(qx_judge_reference(f.judge), 1e-300);
    d->gain = 10 * log10(f.plain / fmax(f.error, 1e-300));
    d->plain = f.plain / reference;
    d->scaled = f.error / reference;
    d->r = (double)f.best / GRID;
    d->why_not = "no gain";
    if (!f.best || !(d->gain >= least_gain_db)) goto done;
    d->s = qx_arena_memdup(p->pipe->model->arena, f.best_s, (size_t)g->k * sizeof *d->s);
    status = d->s ? QX_OK : QX_E_NOMEM;
done:
    close_finder(&f);
    return status;
}

/* ---- what the model's output says ---- */

typedef struct trial { qx_pass *p; const awq_state *s; qx_probe *probe; qx_probe_change *changes; } trial;

/* What the output loses when the groups that gain at least so much are scaled and all are rounded. */
static qx_status measure(trial *t, double least, double *out)
{
    const qx_plan *plan = t->p->pipe->plan;
    qx_probe_effect e;
    int64_t n = 0;
    for (int64_t i = 0; i < t->s->n; i++)
        for (int64_t j = 0; j < t->s->groups[i].n; j++) {
            const qx_plan_item *it = t->s->groups[i].items[j];
            const decision *d = &t->s->is[i];
            const float *s = d->gain >= least ? d->s : NULL;
            if (!weight_only(it)) continue;
            t->changes[n++] = (qx_probe_change){.item = it - plan->items, .spec = &it->weight->spec, .smooth = s,
                                                .error = s ? d->scaled : d->plain};
        }
    QX_TRY(qx_probe_run(t->probe, t->changes, n, &e));
    *out = qx_probe_size(&e);
    qx_log(t->p->ctx, QX_LOG_DEBUG, "awq where it gains %g dB: %.4g of the output lost", least, *out);
    return QX_OK;
}

static void drop(const awq_state *s, double least)
{
    for (int64_t i = 0; i < s->n; i++)
        if (s->is[i].s && s->is[i].gain < least) s->is[i].s = NULL, s->is[i].why_not = "the model's output is better without";
}

static int64_t count_scaled(const awq_state *s, double least)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s->n; i++) n += s->is[i].s && s->is[i].gain >= least;
    return n;
}

typedef struct choice { double least, error; } choice;

/* Of equal ones the one before. */
static qx_status try_least(trial *t, double least, choice *best)
{
    double error;
    if (count_scaled(t->s, least) == count_scaled(t->s, best->least)) return QX_OK;
    QX_TRY(measure(t, least, &error));
    if (error < best->error) *best = (choice){least, error};
    return QX_OK;
}

/* Nobody, or those that gain 1 dB; where they serve the output all, where not those that gain 2. */
static qx_status choose_least(trial *t, double *least)
{
    choice best = {.least = INFINITY};
    QX_TRY(measure(t, INFINITY, &best.error));
    QX_TRY(try_least(t, 1, &best));
    QX_TRY(try_least(t, best.least == 1 || !count_scaled(t->s, 1) ? 0 : 2, &best));
    *least = best.least;
    return QX_OK;
}

static int64_t elements(const awq_state *s)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t j = 0; j < s->groups[i].n; j++)
            n += weight_only(s->groups[i].items[j]) ? s->groups[i].items[j]->lin->n * s->groups[i].k : 0;
    return n;
}

/* Without samples to run, or in a model too large to run often, every group that gains is scaled. */
static qx_status ask_output(qx_pass *p, const awq_state *s, const qx_stats *stats)
{
    const int64_t count = p->pipe->samples ? qx_probe_samples(elements(s)) : 0;
    trial t = {.p = p, .s = s};
    double least;
    qx_status st;
    if (!count || !count_scaled(s, 0)) return QX_OK;
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, (size_t)p->pipe->plan->linears.count + 1, sizeof *t.changes, (void **)&t.changes));
    QX_TRY_GOTO(st, qx_probe_new(p->pipe, stats, &(qx_probe_runs){.count = count, .half = true}, &t.probe));
    QX_TRY_GOTO(st, choose_least(&t, &least));
    drop(s, least);
done:
    qx_probe_free(t.probe);
    qx_free(p->ctx, t.changes);
    return st;
}

/* clip alone leaves the channels as they are. */
static bool scales(const qx_pass *p) { return strcmp(qx_opt_text(p, "mode"), "clip") != 0; }

static qx_status decide(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const awq_state *s = p->state;
    (void)m;
    if (!scales(p)) return QX_OK;
    for (int64_t i = 0; i < s->n; i++) {
        if (!wants(&s->groups[i])) continue;
        QX_TRY(qx_check_cancel(p->ctx));
        qx_progress(p->ctx, "awq", i, s->n);
        QX_TRY(choose_group(p, &s->groups[i], qx_stats_get(stats, s->groups[i].x), &s->is[i]));
    }
    qx_progress(p->ctx, "awq", s->n, s->n);
    return ask_output(p, s, stats);
}

/* ---- doing it ---- */

static qx_status scale_group(qx_pass *p, qx_group *g, const decision *d, qx_stats *stats)
{
    qx_fold fold;
    qx_fold_find(p->pipe, g, &fold);
    for (int64_t i = 0; i < g->n; i++) {
        if (d->s) QX_TRY(qx_item_note(p->pipe, g->items[i], "awq %.2f (%s, %+.1f dB)", d->r, qx_fold_text(&fold), d->gain));
        else if (d->why_not) QX_TRY(qx_item_note(p->pipe, g->items[i], "awq: %s", d->why_not));
    }
    return d->s ? qx_fold_apply(p, g, &fold, d->s, stats) : QX_OK;
}

/* E[x^2] per column, of the input as it is after smoothing, weighs the scale search of every weight of the group. */
static qx_status weigh(qx_pass *p, const qx_group *g, qx_stats *stats)
{
    const qx_value_stats *st = qx_stats_get(stats, g->x);
    if (!st || st->channels.n != g->k || !st->channels.importance) return QX_OK;
    float *importance = qx_arena_memdup(p->pipe->model->arena, st->channels.importance, (size_t)g->k * sizeof(float));
    if (!importance) return QX_E_NOMEM;
    for (int64_t i = 0; i < g->n; i++) {
        qx_qspec *spec = &g->items[i]->weight->spec;
        if (!weight_only(g->items[i]) || spec->rule == QX_SCALE_GIVEN) continue;
        spec->rule = QX_SCALE_SEARCH;
        spec->importance = importance;
        QX_TRY(qx_item_note(p->pipe, g->items[i], "awq clip"));
    }
    return QX_OK;
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)m;
    const awq_state *s = p->state;
    const bool weighs = strcmp(qx_opt_text(p, "mode"), "lite") != 0;
    for (int64_t i = 0; i < s->n; i++) {
        if (!wants(&s->groups[i])) continue;
        QX_TRY(scale_group(p, &s->groups[i], &s->is[i], stats));
        if (weighs) QX_TRY(weigh(p, &s->groups[i], stats));
    }
    return QX_OK;
}

static const qx_option options[] = {
    {"mode", QX_OPT_CHOICE, "full", 0, 0, "lite|clip|full",
     "lite: scale channels; clip: weigh the scale search by activations; full: both"},
    {"mul", QX_OPT_BOOL, "false", 0, 0, NULL, "insert a Mul where the factor cannot be folded upstream"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

static double work(const qx_pass *p, const qx_stats *stats)
{
    const awq_state *s = p->state;
    double sum = 0;
    for (int64_t i = 0; i < s->n; i++)
        if (wants(&s->groups[i])) sum += qx_judge_work(&s->groups[i], qx_stats_rows_to_come(stats, s->groups[i].x, NULL));
    return sum;
}

const qx_passdef qx_pass_awq = {
    .name = "awq", .brief = "scale and clip weights for the activations they meet, before int4 and other weight-only formats",
    .options = options,
    .flags = QX_PASS_WEIGHTS | QX_PASS_CALIBRATED | QX_PASS_NEEDS_FORMAT | QX_PASS_FOR_FLOAT_X, .order = 1, .plan = plan,
    .decide = decide, .probes = scales, .run = run, .work = work,
};
