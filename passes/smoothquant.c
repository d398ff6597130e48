/* smoothquant.c - moves the difficulty of quantizing activations into the weights (arXiv 2211.10438): x' = x / s, W' = W s with
 * s[k] = max|x_k|^alpha / max|W_k|^(1 - alpha), one s for each group of linears that read the same tensor.
 *
 * alpha is searched per group on what the int8 (or fp8) product really gives, over a grid that holds "no smoothing"; the factor is folded upstream
 * (passes/fold.h). Only groups whose activations will be quantized are touched. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "passes/search.h"

enum { MOST = 12 }; /* candidates that are judged together */
static const int64_t least_rows = 256; /* a channel that few rows show may be ten times as large in the next one, and s would make that be clipped */
static const double least_gain_db = 0.3; /* below this the sampled rows cannot tell a gain from chance */

typedef struct smooth_state { qx_group *groups; int64_t n; double *left_db; } smooth_state; /* left_db[n]: as choice has it; INFINITY: not judged */

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
    s->left_db = qx_arena_array(m->arena, (size_t)s->n + 1, sizeof *s->left_db);
    if (!s->left_db) return QX_E_NOMEM;
    for (int64_t i = 0; i < s->n; i++) s->left_db[i] = INFINITY;
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

typedef struct candidate { double alpha; float clip; bool smooth; } candidate;
typedef struct choice { float *s; candidate is; double error, gain_db, left_db; float top; } choice; /* s[k]; left_db: signal over the error that is left */

/* w[k]: column maxima. range[k]: of x as if the judged rows had not been there. */
typedef struct finder { qx_pass *p; const qx_group *g; const qx_fold *fold; const qx_value_stats *st; const float *w; float *range; int64_t judged; double plain; } finder;

/* A large alpha makes every channel reach the top of the range, so that every new extreme is clipped; rows that made the range would not show it.
 * So a channel whose largest value is in a judged row gets the largest of the other rows that are known. */
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

static void fill(const finder *f, const float *range, const candidate *c, float *s)
{
    const int64_t k = f->g->k;
    for (int64_t j = 0; j < k; j++) s[j] = 1;
    if (!c->smooth) return;
    factors(range, f->w, k, c->alpha, s);
    qx_fold_constrain(f->fold, k, s);
}

/* Keeps the best of n candidates in *best when it is better than what is there; of equal ones the first. */
static qx_status try_all(finder *f, const candidate *list, int n, choice *best)
{
    const int64_t k = f->g->k;
    double error[MOST];
    float clip[MOST], *s;
    QX_TRY(qx_alloc_raw(f->p->ctx, (size_t)(n * k) * sizeof *s, (void **)&s));
    for (int i = 0; i < n; i++) fill(f, f->range, &list[i], s + i * k), clip[i] = list[i].clip;
    qx_candidates c = {.group = f->g, .stats = f->st, .n = n, .s = s, .quantize_x = true, .absmax = f->range, .clip = clip, .max_rows = f->judged, .error = error};
    const qx_status st = qx_candidates_run(f->p->ctx, &c);
    for (int i = 0; st == QX_OK && i < n; i++) {
        if (!list[i].smooth && list[i].clip >= 1) f->plain = error[i];
        if (!(error[i] < best->error)) continue;
        best->is = list[i], best->error = error[i];
        best->left_db = 10 * log10(c.reference / fmax(error[i], 1e-300));
    }
    qx_free(f->p->ctx, s);
    return st;
}

/* alpha over the whole range of x, then how much of that range the grid should reach (the product of a gate has a long tail, and what clipping it
 * costs only the output can tell), then alpha once more beside the best. No alpha near 1: all channels then reach the top of the range, and what
 * rows nobody has seen lose there shows in no judged row (mean KL of micro-llama 0.0037 instead of 0.0032, of SmolLM2-135M 0.035 instead of 0.032). */
static qx_status choose(finder *f, choice *best)
{
    const char *text = qx_opt_text(f->p, "alpha");
    const bool search = strcmp(text, "auto") == 0;
    candidate list[MOST];
    int n = 0;
    list[n++] = (candidate){0, 1, false};
    for (int i = 0; search && i <= 8; i++) list[n++] = (candidate){i / 10.0, 1, true};
    if (!search) list[n++] = (candidate){strtod(text, NULL), 1, true};
    best->error = INFINITY;
    QX_TRY(try_all(f, list, n, best));
    if (!search) best->is = list[1], best->error = INFINITY;
    if (search && 10 * log10(f->plain / fmax(best->error, 1e-300)) < least_gain_db) best->is = list[0];
    n = 0;
    for (int i = 1; i < 8 && !qx_dtype_is_float(qx_group_act(f->g)); i++) list[n++] = (candidate){best->is.alpha, 1 - 0.1f * (float)i, best->is.smooth};
    if (n) QX_TRY(try_all(f, list, n, best));
    n = 0;
    for (int i = -1; i <= 1; i += 2)
        if (best->is.alpha + 0.05 * i >= 0 && best->is.alpha + 0.05 * i <= 1) list[n++] = (candidate){best->is.alpha + 0.05 * i, best->is.clip, true};
    if (n && search && best->is.smooth) QX_TRY(try_all(f, list, n, best));
    best->gain_db = 10 * log10(f->plain / fmax(best->error, 1e-300));
    fill(f, f->st->channels.absmax, &best->is, best->s); /* the whole range, now that alpha is known */
    best->top = 0;
    for (int64_t j = 0; j < f->g->k; j++) best->top = fmaxf(best->top, f->st->channels.absmax[j] / best->s[j]);
    best->top *= best->is.clip;
    return QX_OK;
}

static qx_status note(qx_pass *p, const qx_group *g, const qx_fold *fold, const choice *ch)
{
    for (int64_t i = 0; i < g->n; i++)
        if (ch->is.smooth)
            QX_TRY(qx_item_note(p->pipe, g->items[i], "smoothquant %.2f (%s, range %.0f %%, %+.1f dB to %.1f dB)", ch->is.alpha, qx_fold_text(fold), 100 * (double)ch->is.clip, ch->gain_db, ch->left_db));
        else QX_TRY(qx_item_note(p->pipe, g->items[i], "smoothquant: no gain (range %.0f %%, %.1f dB)", 100 * (double)ch->is.clip, ch->left_db));
    return QX_OK;
}

static qx_status note_all(qx_pass *p, const qx_group *g, const char *text)
{
    for (int64_t i = 0; i < g->n; i++) QX_TRY(qx_item_note(p->pipe, g->items[i], "smoothquant: %s", text));
    return QX_OK;
}

static qx_status smooth_group(qx_pass *p, const qx_group *g, qx_stats *stats, double *left_db)
{
    const qx_value_stats *st = qx_stats_get(stats, g->x);
    float *w = NULL, *range = NULL;
    qx_fold fold;
    choice ch = {0};
    qx_status status;
    if (!st || st->channels.n != g->k || st->n_rows < 1 || st->row_len != g->k) return note_all(p, g, "not observed");
    if (st->count / g->k < least_rows && strcmp(qx_opt_text(p, "alpha"), "auto") == 0) return note_all(p, g, "too few rows seen");
    qx_fold_find(p->pipe, g, &fold);
    if (fold.kind == QX_FOLD_MUL && !qx_opt_bool(p, "mul")) return note_all(p, g, "nowhere to fold");
    QX_TRY_GOTO(status, qx_alloc_array(p->ctx, (size_t)g->k, sizeof *ch.s, (void **)&ch.s));
    QX_TRY_GOTO(status, qx_alloc_array(p->ctx, (size_t)g->k, sizeof *w, (void **)&w));
    QX_TRY_GOTO(status, qx_group_columns(p->ctx, g, 0, w, NULL));
    QX_TRY_GOTO(status, qx_alloc_array(p->ctx, (size_t)g->k, sizeof *range, (void **)&range));
    const int64_t judged = st->n_rows < 4 ? st->n_rows : st->n_rows / 4;
    range_without_judged(st, judged, range);
    finder f = {.p = p, .g = g, .fold = &fold, .st = st, .w = w, .range = range, .judged = judged, .plain = NAN};
    QX_TRY_GOTO(status, choose(&f, &ch));
    if (ch.is.smooth) QX_TRY_GOTO(status, qx_fold_apply(p, g, &fold, ch.s, stats));
    for (int64_t i = 0; i < g->n; i++) g->items[i]->act_range = ch.top;
    *left_db = ch.left_db;
    QX_TRY_GOTO(status, note(p, g, &fold, &ch));
done:
    qx_free(p->ctx, ch.s);
    qx_free(p->ctx, w);
    qx_free(p->ctx, range);
    return status;
}

static int64_t elements(const qx_group *g)
{
    int64_t n = 0;
    for (int64_t i = 0; i < g->n; i++)
        if (g->items[i]->pass && g->items[i]->act) n += g->items[i]->lin->n * g->k;
    return n;
}

/* Groups that stay bad whatever alpha and range stay float, the worst first, while they are few: one operator whose output is a tenth noise can
 * cost more than all others together. */
static void keep_worst(qx_pass *p, const smooth_state *s)
{
    const double limit = qx_opt_float(p, "float-below"), share = qx_opt_float(p, "float-share") / 100;
    int64_t all = 0, kept = 0;
    for (int64_t i = 0; i < s->n; i++) all += elements(&s->groups[i]);
    for (;;) {
        int64_t worst = -1;
        for (int64_t i = 0; i < s->n; i++)
            if (s->left_db[i] < limit && (worst < 0 || s->left_db[i] < s->left_db[worst])) worst = i;
        if (worst < 0) return;
        const qx_group *g = &s->groups[worst];
        kept += elements(g);
        if ((double)kept > share * (double)all) return;
        for (int64_t i = 0; i < g->n; i++)
            if (g->items[i]->pass && g->items[i]->act && !g->items[i]->forced) qx_item_keep(p->pipe, g->items[i], QX_WHY_LARGE_ERROR, "%.1f dB below its output", s->left_db[worst]);
        s->left_db[worst] = INFINITY;
    }
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
        QX_TRY(smooth_group(p, &s->groups[i], stats, &s->left_db[i]));
    }
    qx_progress(p->ctx, "smoothquant", s->n, s->n);
    keep_worst(p, s);
    return QX_OK;
}

static const qx_option options[] = {
    {"alpha", QX_OPT_TEXT, "auto", 0, 1, NULL, "share of the difficulty that moves to the weights: auto (searched per group) or 0..1"},
    {"float-below", QX_OPT_FLOAT, "20", 0, 100, NULL, "operators whose output is less than so many dB above the error that is left stay float, the worst first"},
    {"float-share", QX_OPT_FLOAT, "10", 0, 100, NULL, "but never more than this share of the weights, in percent"},
    {"mul", QX_OPT_BOOL, "true", 0, 0, NULL, "insert a Mul where the factor cannot be folded upstream"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_smoothquant = {
    .name = "smoothquant", .brief = "balance activations and weights before int8 or fp8", .options = options, .flags = QX_PASS_WEIGHTS | QX_PASS_CALIBRATED, .plan = plan, .run = run,
};
