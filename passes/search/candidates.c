/* candidates.c - the errors of candidates on what a judge holds (judge_own.h): each rounds X / s and W s, and is compared with X W'. */
#include "passes/search/judge_own.h"

#include <math.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/dot.h"
#include "passes/search/codes.h"

static const int64_t candidate_bytes = (int64_t)48 << 20; /* for the candidates' copies of X */

typedef struct run {
    qx_judge *j;
    const qx_candidates *c;
    int64_t first;    /* the candidates of this round start here */
    bool integers;    /* x and all weights are INT8: their products are made of codes */
    float *xs;        /* [candidates of a round][rows][k]: X / s, quantized when asked, rows weighed; or: */
    qx_code_rows codes; /* the same rows as codes */
    float *amax;      /* [n][items]: of W s, where the spec has one scale for the tensor */
    int64_t pieces;   /* that judge: every so many */
    double *part;     /* [n][pieces] */
} run;

static const qx_piece *piece_of(const run *r, int64_t t) { return &r->j->pieces[t * (r->c->every > 1 ? r->c->every : 1)]; }

static const float *range_of(const run *r) { return r->c->absmax ? r->c->absmax : r->j->stats->channels.absmax; }

/* The largest |x / s| that the grid of candidate i reaches. */
static float reach(const run *r, int64_t i)
{
    const float *s = r->c->s + i * r->j->k, *range = range_of(r);
    float top = 0;
    for (int64_t j = 0; j < r->j->k; j++) top = fmaxf(top, range[j] / s[j]);
    return r->c->clip ? top * r->c->clip[i] : top;
}

/* How candidate i rounds x: if calibrated, with one scale from the largest channel maximum. */
static qx_act_grid grid_of(const run *r, int64_t i)
{
    const qx_plan_item *it = r->c->quantize_x ? qx_group_quantized(r->j->group) : NULL;
    if (!it) return (qx_act_grid){0};
    qx_act_grid g = {.act = it->act, .dynamic = it->dynamic, .blocks = &it->weight->spec};
    const qx_format f = {.codes = g.act == QX_DT_UINT8 ? QX_DT_INT8 : g.act, .scale = QX_DT_FLOAT};
    const float top = g.dynamic ? 0 : reach(r, i);
    if (!g.dynamic) qx_scale_from_amax(&f, &top, 1, &g.scale, NULL);
    return g;
}

static void divide_row(const float *x, const float *s, int64_t k, float *y)
{
    for (int64_t c = 0; c < k; c++) y[c] = x[c] / s[c];
}

/* X / s of a candidate, on the activation's grid. */
static qx_status make_x(void *user, int64_t at)
{
    const run *r = user;
    const qx_judge *j = r->j;
    const int64_t i = r->first + at, k = j->k;
    const qx_act_grid g = grid_of(r, i);
    float *y = r->xs + at * j->rows * k;
    for (int64_t a = 0; a < j->rows; a++) divide_row(j->raw + a * k, r->c->s + i * k, k, y + a * k);
    if (r->c->quantize_x) qx_act_fake(&g, j->rows, k, y);
    qx_judge_weigh(j, y, k);
    return QX_OK;
}

static qx_status make_codes(void *user, int64_t at)
{
    const run *r = user;
    const qx_judge *j = r->j;
    const int64_t i = r->first + at, k = j->k;
    const qx_act_grid g = grid_of(r, i);
    float *y;
    QX_TRY(qx_alloc_raw(j->ctx, (size_t)k * sizeof *y, (void **)&y));
    for (int64_t a = 0; a < j->rows; a++) {
        divide_row(j->raw + a * k, r->c->s + i * k, k, y);
        qx_codes_row(&g, k, y, j->weigh[a], r->codes.codes + (at * j->rows + a) * k, &r->codes.scale[at * j->rows + a]);
    }
    qx_free(j->ctx, y);
    return QX_OK;
}

/* ---- rows that nobody has seen ---- */

/* Among exchangeable rows one in as many new ones as were seen exceeds the largest value m that was seen, whatever the
 * distribution: each of 2 N rows is the largest alike often. Behind m the tail falls as P(|x| > u m) = u^-6 (fitted to down
 * projections of language models; a Gaussian's falls faster), so a grid that reaches c m, c >= 1, loses the integral of 2 (u - c)
 * u^-6 over u > c, times m^2. */
double qx_unseen_loss(double room) { return 1 / (10 * pow(room, 4)); }

/* What clipping costs in rows that nobody has seen, times the squares of the weights it meets. Judged rows do not show it: few
 * are extreme, and a large alpha leaves every channel without headroom. Twice: texts differ from each other by more than rows of
 * one text do. */
static double unseen_error(const run *r, int64_t i)
{
    const qx_judge *j = r->j;
    const float top = reach(r, i), *s = r->c->s + i * j->k, *range = range_of(r);
    double sum = 0;
    for (int64_t c = 0; c < j->k; c++) {
        const double m = (double)range[c], room = m > 0 ? fmax((double)(top * s[c]) / m, 1) : 1, energy = m * m * j->colsq[c];
        sum += energy * qx_unseen_loss(room) / fmax(fmax(j->usual, energy * room * room), 1e-300);
    }
    return sum * 2 * (double)j->rows / (double)r->c->seen;
}

/* ---- errors ---- */

/* What a thread works with on a piece: its rows of W s, and what scales and their search take. */
typedef struct room { float *w, *scale, *importance; int32_t *zero; } room;

static void close_room(qx_ctx *ctx, room *m)
{
    void *list[] = {m->w, m->scale, m->importance, m->zero};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) qx_free(ctx, list[i]);
}

static qx_status open_room(qx_ctx *ctx, int64_t rows, int64_t k, room *m)
{
    QX_TRY(qx_alloc_raw(ctx, (size_t)(rows * k) * sizeof *m->w, (void **)&m->w));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(rows * k + rows) * sizeof *m->scale, (void **)&m->scale));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(rows * k + rows) * sizeof *m->zero, (void **)&m->zero));
    return qx_alloc_raw(ctx, (size_t)k * sizeof *m->importance, (void **)&m->importance);
}

/* Candidate `first + slot` on one piece of the weights, W s in the room. */
static qx_status error_of(const run *r, int64_t slot, const qx_piece *p, room *m, double *error)
{
    const qx_judge *j = r->j;
    const int64_t k = j->k, i = r->first + slot;
    const qx_qspec *spec = &j->group->items[p->item]->weight->spec;
    const float *s = r->c->s + i * k, *sq = j->stats->channels.n == k ? j->stats->channels.importance : NULL;
    const float *y = j->y + p->at * j->rows;
    for (int64_t c = 0; sq && c < k; c++) m->importance[c] = sq[c] / (s[c] * s[c]);
    const qx_row_tile w = {.rows = p->rows, .k = k, .x = m->w, .amax = r->amax[i * j->group->n + p->item],
                           .importance = sq ? m->importance : NULL, .scale = m->scale, .zero = m->zero};
    if (r->integers) {
        const qx_code_rows x = {j->rows, r->codes.codes + slot * j->rows * k, r->codes.scale + slot * j->rows};
        return qx_codes_error(j->ctx, spec, &w, &x, y, error);
    }
    if (spec->codes) qx_spec_fake(spec, &w);
    *error = qx_gemm_nt_error(j->rows, p->rows, k, r->xs + slot * j->rows * k, k, m->w, k, y, p->rows);
    return QX_OK;
}

/* Candidate `first + at / pieces` on one piece of the weights. */
static qx_status piece_error(void *user, int64_t at)
{
    run *r = user;
    const qx_judge *j = r->j;
    const int64_t k = j->k, slot = at / r->pieces, i = r->first + slot, t = at % r->pieces;
    const qx_piece *p = piece_of(r, t);
    const float *s = r->c->s + i * k, *w = j->w + p->at * k;
    room m = {0};
    qx_status st;
    QX_TRY_GOTO(st, qx_check_cancel(j->ctx));
    QX_TRY_GOTO(st, open_room(j->ctx, p->rows, k, &m));
    for (int64_t a = 0; a < p->rows; a++)
        for (int64_t c = 0; c < k; c++) m.w[a * k + c] = w[a * k + c] * s[c];
    st = error_of(r, slot, p, &m, &r->part[i * r->pieces + t]);
done:
    close_room(j->ctx, &m);
    return st;
}

/* Tensor maxima of W s for every candidate and item, where needed. */
static qx_status tensor_maxima(run *r)
{
    const qx_group *g = r->j->group;
    qx_ctx *ctx = r->j->ctx;
    float *col = NULL;
    qx_status st = QX_OK;
    for (int64_t i = 0; st == QX_OK && i < g->n; i++) {
        if (g->items[i]->weight->spec.block >= 0) continue;
        qx_group one = {.items = &g->items[i], .n = 1, .x = g->x, .k = g->k};
        if (!col) st = qx_alloc_array(ctx, (size_t)g->k, sizeof *col, (void **)&col);
        if (st == QX_OK) st = qx_group_maxima(ctx, &one, col);
        for (int64_t a = 0; st == QX_OK && a < r->c->n; a++)
            for (int64_t j = 0; j < g->k; j++) r->amax[a * g->n + i] = fmaxf(r->amax[a * g->n + i], col[j] * r->c->s[a * g->k + j]);
    }
    qx_free(ctx, col);
    return st;
}

static bool in_integers(const run *r)
{
    const qx_group *g = r->j->group;
    const qx_act_grid x = grid_of(r, 0);
    bool all = r->c->quantize_x && qx_codes_input(&x, r->j->k);
    for (int64_t i = 0; i < g->n; i++) all = all && qx_codes_weight(&g->items[i]->weight->spec);
    return all;
}

static qx_status open_rounds(run *r, int64_t most)
{
    const qx_judge *j = r->j;
    const size_t rows = (size_t)(most * j->rows), cells = rows * (size_t)j->k;
    if (!r->integers) return qx_alloc_raw(j->ctx, cells * sizeof *r->xs, (void **)&r->xs);
    QX_TRY(qx_alloc_raw(j->ctx, cells, (void **)&r->codes.codes));
    return qx_alloc_raw(j->ctx, rows * sizeof *r->codes.scale, (void **)&r->codes.scale);
}

/* As many candidates at a time as their copies of X may take memory. */
static qx_status run_rounds(run *r)
{
    const qx_judge *j = r->j;
    const int64_t n = r->c->n, fit = candidate_bytes / (int64_t)sizeof *r->xs / (j->rows * j->k + 1),
        most = fit < 1 ? 1 : fit < n ? fit : n;
    r->integers = in_integers(r);
    QX_TRY(open_rounds(r, most));
    for (r->first = 0; r->first < n; r->first += most) {
        const int64_t now = n - r->first < most ? n - r->first : most;
        QX_TRY(qx_parallel(j->ctx, now, r->integers ? make_codes : make_x, r));
        QX_TRY(qx_parallel(j->ctx, now * r->pieces, piece_error, r));
    }
    return QX_OK;
}

double qx_judge_work(const qx_group *g, double rows)
{
    enum { CANDIDATES = 12, MOST_ROWS = 160, MOST_WEIGHTS = 512 }; /* as far as all weights are looked at */
    double sum = 0;
    for (int64_t i = 0; i < g->n; i++) {
        const int64_t n = g->items[i]->lin->n;
        sum += 2.0 * CANDIDATES * fmin(rows, MOST_ROWS) * (double)(n < MOST_WEIGHTS ? n : MOST_WEIGHTS) * (double)g->k;
    }
    return sum;
}

qx_status qx_judge_run(qx_judge *j, const qx_candidates *c, double *error)
{
    run r = {.j = j, .c = c, .pieces = qx_cells_of(j->n_pieces, c->every > 1 ? c->every : 1)};
    int64_t weights = 0;
    qx_status st;
    for (int64_t t = 0; t < r.pieces; t++) weights += piece_of(&r, t)->rows;
    QX_TRY_GOTO(st, qx_alloc_array(j->ctx, (size_t)(c->n * r.pieces) + 1, sizeof *r.part, (void **)&r.part));
    QX_TRY_GOTO(st, qx_alloc_array(j->ctx, (size_t)(c->n * j->group->n), sizeof *r.amax, (void **)&r.amax));
    QX_TRY_GOTO(st, tensor_maxima(&r));
    QX_TRY_GOTO(st, run_rounds(&r));
    for (int64_t i = 0; i < c->n; i++) {
        error[i] = 0;
        for (int64_t t = 0; t < r.pieces; t++) error[i] += r.part[i * r.pieces + t];
        error[i] *= (double)j->n_weights / (double)weights;
        if (c->seen) error[i] += unseen_error(&r, i);
    }
done:
    qx_free(j->ctx, r.part);
    qx_free(j->ctx, r.amax);
    qx_free(j->ctx, r.xs);
    qx_free(j->ctx, r.codes.codes);
    qx_free(j->ctx, r.codes.scale);
    return st;
}
