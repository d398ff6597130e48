/* smoothquant.c - moves the difficulty of quantizing activations into the weights (arXiv 2211.10438): x' = x / s, W' = W s with
 * s[k] = max|x_k|^alpha / max|W_k|^(1 - alpha), one s for each group of linears that read the same tensor.
 *
 * alpha is searched per group on what the int8 (or fp8) product really gives, over a grid that holds "no smoothing"; the factor is folded upstream
 * (passes/fold.h). Only groups whose activations will be quantized are touched. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "passes/search.h"

enum { GRID = 21 };
static const double least_gain_db = 0.3; /* below this the sampled rows cannot tell a gain from chance */

typedef struct smooth_state { qx_group *groups; int64_t n; } smooth_state;

static bool wants(const qx_group *g)
{
    for (int64_t i = 0; i < g->n; i++)
        if (g->items[i]->pass && g->items[i]->act) return true;
    return false;
}

static qx_status ask(qx_pass *p, const qx_group *g, qx_stats *stats)
{
    (void)p;
    return qx_stats_want(stats, &(qx_stat_request){.value = g->x, .kinds = QX_STAT_RANGE | QX_STAT_HISTOGRAM | QX_STAT_CHANNELS | QX_STAT_ROWS, .axis = -1});
}

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    smooth_state *s = qx_arena_alloc(m->arena, sizeof *s);
    if (!s) return QX_E_NOMEM;
    QX_TRY(qx_groups_find(p->pipe, &s->groups, &s->n));
    for (int64_t i = 0; i < s->n; i++)
        if (wants(&s->groups[i])) QX_TRY(ask(p, &s->groups[i], stats));
    p->state = s;
    return QX_OK;
}

/* s for one alpha; a dead channel keeps 1. Clamped, and rounded to nothing: factors are exact in float. */
static void factors(const float *x, const float *w, int64_t k, double alpha, float *s)
{
    for (int64_t j = 0; j < k; j++) {
        const double v = x[j] > 0 && w[j] > 0 ? pow((double)x[j], alpha) / pow((double)w[j], 1 - alpha) : 1;
        s[j] = (float)fmin(fmax(v, 1e-4), 1e4);
    }
}

typedef struct choice { float *s; double alpha, gain_db; bool smooth; } choice;

/* Largest |x| of each channel over the sampled rows behind the first `judged`: what a range looks like that has not seen the rows it is judged on.
 * A large alpha makes every channel reach the top of the range, so that every new extreme is clipped; rows that took part in the range would not show it. */
static void range_of_others(const qx_value_stats *st, int64_t judged, float *out)
{
    const int64_t k = st->row_len;
    for (int64_t j = 0; j < k; j++) {
        out[j] = 0;
        for (int64_t r = judged; r < st->n_rows; r++) out[j] = fmaxf(out[j], fabsf(st->rows[r * k + j]));
        if (judged >= st->n_rows || !(out[j] > 0)) out[j] = st->channels.absmax[j];
    }
}

/* Candidate 0 is "no smoothing"; the rest are alphas of the grid, or the one that was asked for. range[k] is scratch. */
static qx_status choose(qx_pass *p, const qx_group *g, const qx_fold *fold, const qx_value_stats *st, float *s, const float *w, float *range, choice *out)
{
    const char *text = qx_opt_text(p, "alpha");
    const bool search = strcmp(text, "auto") == 0;
    const int64_t n = search ? GRID + 1 : 2, k = g->k;
    const int64_t judged = st->n_rows < 4 ? st->n_rows : st->n_rows / 4;
    double error[GRID + 1], alpha[GRID + 1];
    range_of_others(st, judged, range);
    for (int64_t j = 0; j < k; j++) s[j] = 1;
    for (int64_t i = 1; i < n; i++) {
        alpha[i] = search ? (double)(i - 1) / (GRID - 1) : strtod(text, NULL);
        factors(range, w, k, alpha[i], s + i * k);
        qx_fold_constrain(fold, k, s + i * k);
    }
    qx_candidates c = {.group = g, .stats = st, .n = n, .s = s, .quantize_x = true, .absmax = range, .max_rows = judged, .error = error};
    QX_TRY(qx_candidates_run(p->ctx, &c));
    int64_t best = search ? 0 : 1;
    for (int64_t i = 1; search && i < n; i++)
        if (error[i] < error[best]) best = i;
    if (search && 10 * log10(error[0] / fmax(error[best], 1e-300)) < least_gain_db) best = 0;
    if (best) factors(st->channels.absmax, w, k, alpha[best], s + best * k); /* the whole range, now that alpha is known */
    if (best) qx_fold_constrain(fold, k, s + best * k);
    *out = (choice){.s = s + best * k, .alpha = best ? alpha[best] : 0, .smooth = best != 0, .gain_db = 10 * log10(error[0] / fmax(error[best], 1e-300))};
    return QX_OK;
}

static qx_status smooth_group(qx_pass *p, const qx_group *g, qx_stats *stats)
{
    const qx_value_stats *st = qx_stats_get(stats, g->x);
    float *s = NULL, *w = NULL, *range = NULL;
    qx_fold fold;
    choice ch;
    qx_status status;
    if (!st || st->channels.n != g->k || st->n_rows < 1 || st->row_len != g->k) {
        for (int64_t i = 0; i < g->n; i++) QX_TRY(qx_item_note(p->pipe, g->items[i], "smoothquant: not observed"));
        return QX_OK;
    }
    qx_fold_find(p->pipe, g, &fold);
    if (fold.kind == QX_FOLD_MUL && !qx_opt_bool(p, "mul")) {
        for (int64_t i = 0; i < g->n; i++) QX_TRY(qx_item_note(p->pipe, g->items[i], "smoothquant: nowhere to fold"));
        return QX_OK;
    }
    QX_TRY_GOTO(status, qx_alloc_array(p->ctx, (size_t)((GRID + 1) * g->k), sizeof *s, (void **)&s));
    QX_TRY_GOTO(status, qx_alloc_array(p->ctx, (size_t)g->k, sizeof *w, (void **)&w));
    QX_TRY_GOTO(status, qx_alloc_array(p->ctx, (size_t)g->k, sizeof *range, (void **)&range));
    QX_TRY_GOTO(status, qx_group_columns(p->ctx, g, 0, w, NULL));
    QX_TRY_GOTO(status, choose(p, g, &fold, st, s, w, range, &ch));
    if (ch.smooth) QX_TRY_GOTO(status, qx_fold_apply(p, g, &fold, ch.s, stats));
    for (int64_t i = 0; i < g->n; i++) {
        if (ch.smooth) QX_TRY_GOTO(status, qx_item_note(p->pipe, g->items[i], "smoothquant %.2f (%s, %+.1f dB)", ch.alpha, qx_fold_text(&fold), ch.gain_db));
        else QX_TRY_GOTO(status, qx_item_note(p->pipe, g->items[i], "smoothquant: no gain"));
    }
done:
    qx_free(p->ctx, s);
    qx_free(p->ctx, w);
    qx_free(p->ctx, range);
    return status;
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)m;
    const smooth_state *s = p->state;
    for (int64_t i = 0; i < s->n; i++) {
        if (!wants(&s->groups[i])) continue;
        QX_TRY(qx_group_untouched(p, &s->groups[i]));
        QX_TRY(qx_check_cancel(p->ctx));
        qx_progress(p->ctx, "smoothquant", i, s->n);
        QX_TRY(smooth_group(p, &s->groups[i], stats));
    }
    qx_progress(p->ctx, "smoothquant", s->n, s->n);
    return QX_OK;
}

static const qx_option options[] = {
    {"alpha", QX_OPT_TEXT, "auto", 0, 1, NULL, "share of the difficulty that moves to the weights: auto (searched per group) or 0..1"},
    {"mul", QX_OPT_BOOL, "true", 0, 0, NULL, "insert a Mul where the factor cannot be folded upstream"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_smoothquant = {
    .name = "smoothquant", .brief = "balance activations and weights before int8 or fp8", .options = options, .flags = QX_PASS_WEIGHTS | QX_PASS_CALIBRATED, .plan = plan, .run = run,
};
