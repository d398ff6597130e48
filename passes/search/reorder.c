/* reorder.c - see reorder.h. The search looks at some rows of the reader. */
#include "passes/search/reorder.h"

#include <string.h>

#include "kernels/solve/solve.h"
#include "passes/linear/store.h"

enum { ROWS = 512, SWEEPS = 48 };

/* New place j holds what was at perm[j], in each stretch of n things of `each` elements. */
typedef struct order { const int32_t *perm; int64_t n, each; } order;

static size_t move_scratch(const qx_step *s, int64_t k) { return (void)s, (size_t)k * sizeof(float); }

static qx_status move_rows(qx_ctx *ctx, const qx_step *s, int64_t first, int64_t rows, int64_t k, float *x, void *scratch)
{
    const order *o = s->arg;
    float *was = scratch;
    (void)ctx, (void)first;
    for (int64_t r = 0; r < rows; r++, x += k) {
        memcpy(was, x, (size_t)k * sizeof *x);
        for (int64_t b = 0; b < k; b += o->n * o->each)
            for (int64_t j = 0; j < o->n; j++) memcpy(x + b + j * o->each, was + b + o->perm[j] * o->each, (size_t)o->each * sizeof *x);
    }
    return QX_OK;
}

static const qx_stepdef def_move = {.name = "reorder", .rows = move_rows, .scratch_bytes = move_scratch};

static qx_status new_order(qx_model *m, const int32_t *perm, int64_t n, int64_t each, const order **out)
{
    order *o = qx_arena_alloc(m->arena, sizeof *o);
    if (!o) return QX_E_NOMEM;
    *o = (order){perm, n, each};
    *out = o;
    return QX_OK;
}

/* ---- choosing ---- */

typedef struct chooser { const qx_reorder *r; int64_t rows, spatial, k; float *w; float *score; void *scratch; double left; } chooser;

/* Weights of one head of `from`: heads of `to` that repeat it, and places of a window, are rows of their own. */
static int64_t score_head(chooser *c, int64_t first)
{
    const int64_t n = c->r->head;
    int64_t row = 0;
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t rep = 0; rep < c->r->repeat; rep++)
            for (int64_t p = 0; p < c->spatial && row < ROWS; p++, row++)
                for (int64_t j = 0; j < n; j++) {
                    const float x = c->w[r * c->k + ((first * c->r->repeat + rep) * n + j) * c->spatial + p];
                    c->score[row * n + j] = x * x;
                }
    return row;
}

static qx_status make_room(qx_ctx *ctx, chooser *c)
{
    const int64_t n = c->r->head;
    c->spatial = c->r->to->k / c->r->channels;
    c->k = c->r->to->k;
    c->rows = ROWS / (c->spatial * c->r->repeat) < 1 ? 1 : ROWS / (c->spatial * c->r->repeat);
    if (c->rows > c->r->to->n) c->rows = c->r->to->n;
    QX_TRY(qx_alloc_raw(ctx, (size_t)(c->rows * c->k) * sizeof *c->w, (void **)&c->w));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(ROWS * n) * sizeof *c->score, (void **)&c->score));
    return qx_alloc_raw(ctx, qx_permute_2_4_scratch(n, ROWS), &c->scratch);
}

/* Perms of all heads of `from`, one behind the other: perm[heads][head], counted within the head. */
static qx_status choose(qx_ctx *ctx, chooser *c, int32_t *perm)
{
    const qx_linear *to = c->r->to;
    QX_TRY(make_room(ctx, c));
    QX_TRY(qx_rows_read(ctx, to->w_init->init ? to->w_init->init : to->w, &to->view, NULL, 0, c->rows, c->w));
    const int64_t heads = c->r->channels / (c->r->head * c->r->repeat);
    for (int64_t h = 0; h < heads; h++) {
        const int64_t rows = score_head(c, h);
        c->left += qx_permute_2_4(c->score, rows, c->r->head, SWEEPS, (uint64_t)h, perm + h * c->r->head, c->scratch) / (double)heads;
    }
    return QX_OK;
}

/* ---- storing ---- */

static qx_status store(qx_model *m, const qx_reorder *r, const int32_t *perm)
{
    const int64_t n = r->channels / r->repeat, spatial = r->to->k / r->channels;
    int32_t *in = qx_arena_array(m->arena, (size_t)r->channels, sizeof *in), *out = qx_arena_array(m->arena, (size_t)n, sizeof *out);
    const order *reads, *makes;
    if (!in || !out) return QX_E_NOMEM;
    for (int64_t j = 0; j < n; j++) out[j] = (int32_t)(j / r->head * r->head) + perm[j];
    for (int64_t j = 0; j < r->channels; j++) {
        const int64_t head = j / r->head;
        in[j] = (int32_t)(head * r->head) + perm[head / r->repeat * r->head + j % r->head];
    }
    QX_TRY(new_order(m, in, r->channels, spatial, &reads));
    QX_TRY(new_order(m, out, n, 1, &makes));
    QX_TRY(qx_store_inputs(m, r->to, &def_move, reads));
    for (int i = 0; i < r->n_from; i++) QX_TRY(qx_store_outputs(m, r->from[i], &def_move, makes));
    for (int i = 0; i < r->n_vectors; i++) QX_TRY(qx_store_vector(m, r->vector[i].node, r->vector[i].index, &def_move, makes));
    return QX_OK;
}

qx_status qx_reorder_apply(qx_model *m, const qx_reorder *r, double *left)
{
    chooser c = {.r = r};
    int32_t *perm;
    qx_status st = qx_alloc_array(m->ctx, (size_t)(r->channels / r->repeat), sizeof *perm, (void **)&perm);
    if (st == QX_OK) st = choose(m->ctx, &c, perm);
    if (st == QX_OK) st = store(m, r, perm);
    qx_free(m->ctx, perm);
    qx_free(m->ctx, c.w);
    qx_free(m->ctx, c.score);
    qx_free(m->ctx, c.scratch);
    *left = c.left;
    return st;
}
