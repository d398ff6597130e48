/* smooth.c - see smooth.h. Candidates are judged by what the quantized product of the group really gives
 * (passes/search/judge.h), on rows that the range has not seen and with what clipping in rows of other texts is expected to
 * cost. */
#include "passes/search/smooth.h"

#include <math.h>

#include "passes/place/scheme.h"

enum { MOST = 8 }; /* candidates that are judged together */
static const double least_gain_db = 0.3; /* below this the sampled rows cannot tell a gain from chance */

/* s for one alpha; a dead channel keeps 1. Clamped, and rounded to nothing: factors are exact in float. */
static void factors(const float *x, const float *w, int64_t k, double alpha, float *s)
{
    for (int64_t j = 0; j < k; j++) {
        const double v = x[j] > 0 && w[j] > 0 ? pow((double)x[j], alpha) / pow((double)w[j], 1 - alpha) : 1;
        s[j] = (float)fmin(fmax(v, 1e-4), 1e4);
    }
}

typedef struct candidate { double alpha; float clip; bool smooth; } candidate;

/* w[k]: column maxima. range[k]: of x as if the judged rows had not been there. */
/* plain: error without smoothing */
typedef struct finder { qx_pass *p; const qx_group *g; qx_fold fold; const qx_value_stats *st; float *w, *range; qx_judge *judge;
                        double plain; } finder;

static void fill(const finder *f, const float *range, double alpha, bool smooth, float *s)
{
    const int64_t k = f->g->k;
    for (int64_t j = 0; j < k; j++) s[j] = 1;
    if (!smooth) return;
    factors(range, f->w, k, alpha, s);
    qx_fold_constrain(&f->fold, k, s);
}

static float largest(const float *range, const float *s, int64_t k)
{
    float top = 0;
    for (int64_t j = 0; j < k; j++) top = fmaxf(top, s ? range[j] / s[j] : range[j]);
    return top;
}

/* What the format does with x as it is, by its own rule: the largest |x| that its grid reaches. */
static float plain_reach(const qx_group *g, const qx_stats *stats, float otherwise)
{
    char detail[120];
    qx_act_codes c;
    const qx_plan_item *it = qx_group_quantized(g);
    if (!it->act) return otherwise; /* found when the model runs */
    const qx_why why = qx_scheme_act_scale(it->pass, it->pass->state, stats, it->x_stat, &c, detail);
    return why == QX_WHY_NONE ? qx_scheme_reach(it->act, c.scale) : otherwise;
}

/* A large alpha makes every channel reach the top of the range, so that every new extreme is clipped; rows that made the range
 * would not show it. So a channel whose largest value is in a judged row gets the largest of the other rows that are known. */
static void range_without_judged(const qx_value_stats *st, int64_t judged, float *out)
{
    const int64_t k = st->row_len;
    for (int64_t j = 0; j < k; j++) {
        bool ours = false;
        float other = 0;
        for (int64_t r = 0; r < judged; r++) ours = ours || fabsf(st->rows[r * k + j]) >= st->channels.absmax[j];
        for (int64_t r = judged; ours && r < st->n_rows; r++) other = fmaxf(other, fabsf(st->rows[r * k + j]));
        for (int64_t r = 0; ours && r < st->n_tops; r++) other = fmaxf(other, fabsf(st->tops[r * k + j]));
        out[j] = ours && other > 0 ? other : st->channels.absmax[j];
    }
}

typedef struct found { candidate is; double error; } found;

/* error[n] of the candidates, by one in `every` of the weights. */
static qx_status judge(finder *f, const candidate *list, int n, int64_t every, double *error)
{
    const int64_t k = f->g->k;
    float clip[MOST], *s;
    QX_TRY(qx_alloc_raw(f->p->ctx, (size_t)(n * k) * sizeof *s, (void **)&s));
    for (int i = 0; i < n; i++) fill(f, f->range, list[i].alpha, list[i].smooth, s + i * k), clip[i] = list[i].clip;
    const bool calibrated = qx_group_quantized(f->g)->act != QX_DT_UNDEFINED;
    const qx_candidates c = {.n = n, .s = s, .quantize_x = true, .absmax = f->range, .clip = clip, .every = every,
                             .seen = calibrated ? f->st->count / k : 0};
    const qx_status st = qx_judge_run(f->judge, &c, error);
    qx_free(f->p->ctx, s);
    return st;
}

/* Of equal ones the first. */
static void take_best(const candidate *list, const double *error, int n, found *best)
{
    for (int i = 0; i < n; i++)
        if (error[i] < best->error) *best = (found){list[i], error[i]};
}

static qx_status try_alphas(finder *f, const double *alpha, int n, int64_t every, float clip, found *best)
{
    candidate list[MOST] = {{0}};
    double error[MOST];
    int m = 0;
    for (int i = 0; i < n; i++)
        if (alpha[i] >= 0 && alpha[i] <= 1) list[m++] = (candidate){alpha[i], clip, true};
    QX_TRY(judge(f, list, m, every, error));
    take_best(list, error, m, best);
    return QX_OK;
}

/* Both neighbours of the best alpha. */
static qx_status search_beside(finder *f, double step, found *best)
{
    const double beside[] = {best->is.alpha - step, best->is.alpha + step};
    return try_alphas(f, beside, 2, 1, best->is.clip, best);
}

/* alpha over the whole range of x: coarsely by a quarter of the weights, then there by all. What the format does without
 * smoothing is what all have to beat. */
static qx_status search_alpha(finder *f, float plain, const double *fixed, found *best)
{
    static const double coarse[] = {0, 0.2, 0.4, 0.6, 0.8};
    const candidate none = {0, plain, false};
    found rough = {.error = INFINITY};
    QX_TRY(judge(f, &none, 1, 1, &f->plain));
    best->error = INFINITY;
    if (fixed) return try_alphas(f, fixed, 1, 1, 1, best);
    QX_TRY(try_alphas(f, coarse, sizeof coarse / sizeof *coarse, 4, 1, &rough));
    QX_TRY(try_alphas(f, (double[]){rough.is.alpha, rough.is.alpha - 0.1, rough.is.alpha + 0.1}, 3, 1, 1, best));
    if (!(10 * log10(f->plain / fmax(best->error, 1e-300)) >= least_gain_db)) *best = (found){none, f->plain};
    return QX_OK;
}

/* How much of the range the grid should reach: the product of a gate has a long tail, and what clipping it costs only the output
 * can tell. Less and less, as long as that helps. */
static qx_status search_clip(finder *f, found *best)
{
    for (int i = 1; i < 8; i += 2) {
        const double before = best->error;
        candidate list[2];
        double error[2];
        for (int j = 0; j < 2; j++) list[j] = (candidate){best->is.alpha, 1 - 0.1f * (float)(i + j), true};
        QX_TRY(judge(f, list, 2, 1, error));
        take_best(list, error, 2, best);
        if (!(best->error < before)) break;
    }
    return QX_OK;
}

static qx_status open_finder(finder *f)
{
    const size_t k = (size_t)f->g->k;
    qx_fold_find(f->p->pipe, f->g, &f->fold);
    QX_TRY(qx_alloc_array(f->p->ctx, k, sizeof *f->w, (void **)&f->w));
    return qx_alloc_array(f->p->ctx, k, sizeof *f->range, (void **)&f->range);
}

static void close_finder(finder *f)
{
    qx_free(f->p->ctx, f->w);
    qx_free(f->p->ctx, f->range);
    qx_judge_free(f->judge);
}

/* The factor itself, and the range that the activation's scale comes from, from all that was seen. */
static qx_status settle(const finder *f, const qx_stats *stats, qx_smooth *c)
{
    const float *range = f->st->channels.absmax;
    const int64_t k = f->g->k;
    c->top = plain_reach(f->g, stats, largest(range, NULL, k));
    if (!c->smooth) return QX_OK;
    if (!(c->s = qx_arena_array(f->p->pipe->model->arena, (size_t)k, sizeof *c->s))) return QX_E_NOMEM;
    fill(f, range, c->alpha, true, c->s);
    c->top = c->clip * largest(range, c->s, k);
    return QX_OK;
}

qx_status qx_smooth_choose(qx_pass *p, const qx_group *g, const qx_stats *stats, const double *fixed, qx_smooth *out)
{
    finder f = {.p = p, .g = g, .st = qx_stats_get(stats, g->x)};
    found best = {0};
    qx_status st;
    QX_TRY_GOTO(st, open_finder(&f));
    const int64_t judged = f.st->n_rows < 4 ? f.st->n_rows : f.st->n_rows / 4;
    range_without_judged(f.st, judged, f.range);
    QX_TRY_GOTO(st, qx_judge_new(p->ctx, g, f.st, judged, &(qx_group_columns){.max = f.w}, &f.judge));
    const float top = largest(f.range, NULL, g->k);
    QX_TRY_GOTO(st, search_alpha(&f, top > 0 ? plain_reach(g, stats, top) / top : 1, fixed, &best));
    const qx_dtype act = qx_group_quantized(g)->act;
    if (best.is.smooth && act && !qx_dtype_is_float(act)) QX_TRY_GOTO(st, search_clip(&f, &best));
    if (best.is.smooth && !fixed) QX_TRY_GOTO(st, search_beside(&f, 0.05, &best));
    const double signal = qx_judge_reference(f.judge);
    /* what gives zero on every sample loses nothing */
    const double reference = signal > 0 ? signal : 1, error = signal > 0 ? best.error : 0;
    *out = (qx_smooth){.alpha = best.is.alpha, .smooth = best.is.smooth, .clip = best.is.clip,
                       .gain_db = 10 * log10(f.plain / fmax(best.error, 1e-300)),
                       .left_db = 10 * log10(reference / fmax(error, 1e-30 * reference)),
                           .error = error / reference * qx_judge_usual(f.judge)};
    st = settle(&f, stats, out);
done:
    close_finder(&f);
    return st;
}
