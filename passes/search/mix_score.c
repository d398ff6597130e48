/* mix_score.c - what each format does to the output of each operator by itself: || X W' - Xq Wq' ||^2 / || X W' ||^2 over sampled
 * rows of X, with the quantized activations of formats that have them. No run of the model. */
#include <math.h>
#include <string.h>

#include "kernels/quant.h"
#include "passes/search/mix.h"
#include "passes/search/judge.h"

enum { JUDGED = 64, MADE_UP = 32 };

/* Rows that know nothing about the input: +1 and -1 by a fixed generator, whose expected error is that of the weight alone. */
static qx_status made_up_rows(qx_ctx *ctx, int64_t k, qx_value_stats *st, float **rows)
{
    uint32_t seed = 1;
    QX_TRY(qx_alloc_raw(ctx, (size_t)(MADE_UP * k) * sizeof **rows, (void **)rows));
    for (int64_t i = 0; i < MADE_UP * k; i++) {
        seed = seed * 1664525u + 1013904223u;
        (*rows)[i] = seed >> 31 ? 1.0f : -1.0f;
    }
    *st = (qx_value_stats){.rows = *rows, .n_rows = MADE_UP, .row_len = k};
    return QX_OK;
}

static const qx_value_stats *observed(const qx_stats *stats, const qx_linear *l)
{
    if (!stats || l->group > 1 || !l->rows) return NULL;
    const qx_value_stats *st = qx_stats_get_rows(stats, l->rows, qx_linear_window(l));
    return st && st->n_rows > 0 && st->row_len == l->k ? st : NULL;
}

/* The scale that x would get; a cell whose activation cannot be quantized is out. */
static void choose_activation(const qx_mix *m, int64_t i, int format, const qx_stats *stats)
{
    qx_mix_cell *c = qx_mix_at(m, i, format);
    qx_pass *f = m->formats[format];
    char detail[120];
    qx_act_codes codes;
    if (!c->act) return;
    const qx_why why = qx_scheme_act_scale(f, f->state, stats, f->pipe->plan->items[i].x_stat, &codes, detail);
    c->act_scale = codes.scale;
    if (why == QX_WHY_NONE) return;
    c->ok = false;
    c->why = why;
    c->detail = qx_arena_strdup(f->pipe->model->arena, detail);
}

/* seen: the rows are the input's own */
typedef struct scorer { const qx_mix *m; int64_t item; qx_judge *judge; bool seen; float *ones, *range; } scorer;

static qx_status score_cell(const scorer *s, int format)
{
    const qx_mix *m = s->m;
    const qx_linear *l = m->pass->pipe->plan->items[s->item].lin;
    qx_mix_cell *c = qx_mix_at(m, s->item, format);
    const double reference = qx_judge_reference(s->judge);
    double error = 0;
    qx_mix_give(m, s->item, format);
    for (int64_t j = 0; j < l->k; j++) s->range[j] = qx_scheme_reach(c->act, c->act_scale);
    const qx_candidates one = {.n = 1, .s = s->ones, .quantize_x = s->seen && (c->act_scale > 0 || c->dynamic), .absmax = s->range};
    QX_TRY(qx_judge_run(s->judge, &one, &error));
    c->error = reference > 0 ? error / reference : 0;
    if (!isfinite(c->error))
        QX_FAIL(m->pass->ctx, QX_E_NUMERIC, "operator '%s' in %s: its error is not finite", l->node->name, c->format ? c->format : "?");
    return QX_OK;
}

static qx_status score_formats(const scorer *s, const qx_stats *stats)
{
    for (int f = 0; f < s->m->n; f++) {
        if (!qx_mix_at(s->m, s->item, f)->ok) continue;
        if (stats) choose_activation(s->m, s->item, f, stats);
        if (qx_mix_at(s->m, s->item, f)->ok) QX_TRY(score_cell(s, f));
    }
    return QX_OK;
}

static qx_status score_item(const qx_mix *m, int64_t i, const qx_stats *stats)
{
    qx_ctx *ctx = m->pass->ctx;
    qx_plan_item *it = &m->pass->pipe->plan->items[i];
    const qx_group alone = qx_group_alone(&it);
    const qx_value_stats *st = observed(stats, it->lin);
    qx_value_stats own;
    scorer s = {.m = m, .item = i, .seen = st != NULL};
    float *rows = NULL;
    qx_status status = QX_OK;
    QX_TRY_GOTO(status, qx_alloc_array(ctx, (size_t)alone.k, sizeof *s.ones, (void **)&s.ones));
    QX_TRY_GOTO(status, qx_alloc_array(ctx, (size_t)alone.k, sizeof *s.range, (void **)&s.range));
    if (!st) QX_TRY_GOTO(status, made_up_rows(ctx, alone.k, &own, &rows));
    for (int64_t j = 0; j < alone.k; j++) s.ones[j] = 1;
    QX_TRY_GOTO(status, qx_judge_new(ctx, &alone, st ? st : &own, JUDGED, NULL, &s.judge));
    status = score_formats(&s, stats);
done:
    qx_judge_free(s.judge);
    qx_free(ctx, s.ones);
    qx_free(ctx, s.range);
    qx_free(ctx, rows);
    return status;
}

qx_status qx_mix_score(const qx_mix *m, const qx_stats *stats)
{
    const int64_t n = m->pass->pipe->plan->linears.count;
    for (int64_t i = 0; i < n; i++) {
        QX_TRY(qx_check_cancel(m->pass->ctx));
        qx_progress(m->pass->ctx, "score formats", i, n);
        if (m->group[i] >= 0) QX_TRY(score_item(m, i, stats));
    }
    qx_progress(m->pass->ctx, "score formats", n, n);
    return QX_OK;
}
