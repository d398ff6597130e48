/* awq.c - activation-aware weight quantization (arXiv 2306.00978): channels that carry large activations get finer weights.
 *
 * lite: one s per group, s[k] = mean|x_k|^r / mean(|W_k| / blockmax)^(1 - r), scaled so that its extremes are reciprocal; r on a grid that also holds
 * the identity; judged on the group's joint output error over sampled rows. clip: the weights' scale search is weighted by E[x^2] per column, so that
 * the clipping of each block is chosen for the output, not for the weights. full: both. Weight-only: activations stay float. */
#include <math.h>
#include <string.h>

#include "passes/search.h"

enum { GRID = 20, JUDGED = 128 };
static const double least_gain_db = 0.3; /* below this the sampled rows cannot tell a gain from chance */

typedef struct awq_state { qx_group *groups; int64_t n; } awq_state;

static bool weight_only(const qx_plan_item *it)
{
    return it->pass && it->weight && !it->act && qx_dtype_bits(it->weight->spec.codes) > 0;
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
    for (int64_t i = 0; i < s->n; i++)
        if (wants(&s->groups[i]))
            QX_TRY(qx_stats_want(stats, &(qx_stat_request){.value = s->groups[i].x, .kinds = QX_STAT_RANGE | QX_STAT_CHANNELS | QX_STAT_ROWS, .axis = -1}));
    p->state = s;
    return QX_OK;
}

/* s of grid point i (0: the identity). */
static void factors(const qx_fold *fold, const float *act, const float *w, int64_t k, double r, float *s)
{
    float lo = INFINITY, hi = 0;
    for (int64_t j = 0; j < k; j++) {
        const double a = fmax((double)act[j], 1e-8);
        s[j] = (float)fmin(fmax(pow(a, r) / (pow(fmax((double)w[j], 1e-8), 1 - r) + 1e-4), 1e-4), 1e4);
    }
    qx_fold_constrain(fold, k, s);
    for (int64_t j = 0; j < k; j++) lo = fminf(lo, s[j]), hi = fmaxf(hi, s[j]);
    const float middle = sqrtf(lo * hi);
    for (int64_t j = 0; j < k; j++) s[j] /= middle;
}

static qx_status search(qx_pass *p, const qx_group *g, const qx_fold *fold, const qx_value_stats *st, float *s, const float *w, int64_t *best, double *gain)
{
    double error[GRID + 1];
    for (int64_t j = 0; j < g->k; j++) s[j] = 1;
    for (int64_t i = 1; i <= GRID; i++) factors(fold, st->channels.mean_abs, w, g->k, (double)i / GRID, s + i * g->k);
    qx_judge *judge;
    QX_TRY(qx_judge_new(p->ctx, g, st, JUDGED, &judge));
    const qx_status status = qx_judge_run(judge, &(qx_candidates){.n = GRID + 1, .s = s}, error);
    qx_judge_free(judge);
    QX_TRY(status);
    *best = 0;
    for (int64_t i = 1; i <= GRID; i++)
        if (error[i] < error[*best]) *best = i;
    *gain = 10 * log10(error[0] / fmax(error[*best], 1e-300));
    if (*gain < least_gain_db) *best = 0;
    return isfinite(error[*best]) ? QX_OK : qx_fail(p->ctx, QX_E_NUMERIC, "awq: input '%s': no candidate has a finite error", g->x->name);
}

static qx_status scale_group(qx_pass *p, const qx_group *g, const qx_value_stats *st, qx_stats *stats)
{
    float *s = NULL, *w = NULL, *mean = NULL;
    qx_fold fold;
    int64_t best;
    double gain;
    qx_status status;
    qx_fold_find(p->pipe, g, &fold);
    if (fold.kind == QX_FOLD_MUL && !qx_opt_bool(p, "mul")) return qx_item_note(p->pipe, g->items[0], "awq: nowhere to fold");
    QX_TRY_GOTO(status, qx_alloc_array(p->ctx, (size_t)((GRID + 1) * g->k), sizeof *s, (void **)&s));
    QX_TRY_GOTO(status, qx_alloc_array(p->ctx, (size_t)g->k, sizeof *w, (void **)&w));
    QX_TRY_GOTO(status, qx_alloc_array(p->ctx, (size_t)g->k, sizeof *mean, (void **)&mean));
    QX_TRY_GOTO(status, qx_group_columns(p->ctx, g, g->items[0]->weight->spec.block, w, mean));
    QX_TRY_GOTO(status, search(p, g, &fold, st, s, mean, &best, &gain));
    if (best) QX_TRY_GOTO(status, qx_fold_apply(p, g, &fold, s + best * g->k, stats));
    for (int64_t i = 0; i < g->n; i++) {
        if (best) QX_TRY_GOTO(status, qx_item_note(p->pipe, g->items[i], "awq %.2f (%s, %+.1f dB)", (double)best / GRID, qx_fold_text(&fold), gain));
        else QX_TRY_GOTO(status, qx_item_note(p->pipe, g->items[i], "awq: no gain"));
    }
done:
    qx_free(p->ctx, s);
    qx_free(p->ctx, w);
    qx_free(p->ctx, mean);
    return status;
}

/* E[x^2] per column, of the input as it is after smoothing, weighs the scale search of every weight of the group. */
static qx_status weigh(qx_pass *p, const qx_group *g, qx_stats *stats)
{
    const qx_value_stats *st = qx_stats_get(stats, g->items[0]->lin->x);
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
    const char *mode = qx_opt_text(p, "mode");
    for (int64_t i = 0; i < s->n; i++) {
        const qx_group *g = &s->groups[i];
        if (!wants(g)) continue;
        QX_TRY(qx_check_cancel(p->ctx));
        qx_progress(p->ctx, "awq", i, s->n);
        const qx_value_stats *st = qx_stats_get(stats, g->x);
        if (!st || st->channels.n != g->k || st->n_rows < 1 || st->row_len != g->k) {
            QX_TRY(qx_item_note(p->pipe, g->items[0], "awq: not observed"));
            continue;
        }
        if (strcmp(mode, "clip")) QX_TRY(scale_group(p, g, st, stats));
        if (strcmp(mode, "lite")) QX_TRY(weigh(p, g, stats));
    }
    qx_progress(p->ctx, "awq", s->n, s->n);
    return QX_OK;
}

static const qx_option options[] = {
    {"mode", QX_OPT_CHOICE, "full", 0, 0, "lite|clip|full", "lite: scale channels; clip: weigh the scale search by activations; full: both"},
    {"mul", QX_OPT_BOOL, "false", 0, 0, NULL, "insert a Mul where the factor cannot be folded upstream"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_awq = {
    .name = "awq", .brief = "scale and clip weights for the activations they meet, before int4 and other weight-only formats", .options = options,
    .flags = QX_PASS_WEIGHTS | QX_PASS_CALIBRATED | QX_PASS_NEEDS_FORMAT, .order = 1, .plan = plan, .run = run,
};
