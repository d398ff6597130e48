/* solve_step.c - the solvers as steps of a weight: GPTQ and SparseGPT over tiles of rows, and what they share (see solve_step.h). */
#include "passes/search/solve_step.h"

#include <math.h>
#include <string.h>

#include "kernels/solve/solve.h"
#include "passes/search/solve_order.h"
#include "passes/search/solve_kept.h"

enum { ROWS = 32 }; /* rows that go through the solver together */

/* What the tiles of one run share. */
typedef struct solve_live {
    float *h, *u, *weight; /* H in solver order of columns; its factor; what scales are searched by */
    int32_t *perm;        /* act order; NULL: none */
    float amax;           /* of the whole tensor, for formats with one scale or a second level */
    bool failed;          /* H could not be factored: plain rounding */
} solve_live;

typedef struct solve { qx_solve_spec spec; const qx_plan_weight *w; const char *name; solve_live *live; } solve;

static solve *solve_of(const qx_step *s) { return (solve *)(uintptr_t)s->arg; }

/* ---- begin, end ---- */

static void drop(qx_ctx *ctx, solve_live *l)
{
    if (!l) return;
    qx_free(ctx, l->h);
    qx_free(ctx, l->u);
    qx_free(ctx, l->weight);
    qx_free(ctx, l->perm);
    qx_free(ctx, l);
}

static void end(qx_ctx *ctx, const qx_step *s)
{
    drop(ctx, solve_of(s)->live);
    solve_of(s)->live = NULL;
}

static qx_status tensor_amax(qx_ctx *ctx, const solve *v, const qx_step *s, int64_t k, float *out)
{
    float *x;
    qx_status st = qx_alloc_raw(ctx, (size_t)(ROWS * k) * sizeof *x, (void **)&x);
    *out = 0;
    for (int64_t first = 0; st == QX_OK && first < v->w->view.n; first += ROWS) {
        const int64_t rows = v->w->view.n - first < ROWS ? v->w->view.n - first : ROWS;
        const qx_grid g = {rows, k, rows, k};
        st = qx_rows_read(ctx, v->w->tensor, &v->w->view, s->prev, first, rows, x);
        if (st == QX_OK) qx_amax(&g, QX_DT_FLOAT, x, out, NULL);
    }
    qx_free(ctx, x);
    return st;
}

static void order_gram(const solve *v, float *h)
{
    const int64_t k = v->spec.k, sp = v->spec.spatial;
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++) h[i * k + j] = v->spec.gram.h[qx_solver_column(sp, k, i) * k + qx_solver_column(sp, k, j)];
}

/* What a search of scales weighs columns by: the diagonal of H, the nearer to its mean the fewer rows were seen (as importance in
 * calib/stats/stats.h). */
static void weigh_columns(const solve *v, const float *h, float *weight)
{
    enum { FEW = 256 };
    const int64_t k = v->spec.k;
    const double rows = (double)v->spec.gram.rows;
    double mean = 0;
    for (int64_t j = 0; j < k; j++) mean += (double)h[j * k + j] / (double)k;
    for (int64_t j = 0; j < k; j++) weight[j] = (float)(((double)h[j * k + j] * rows + FEW * mean) / (rows + FEW));
}

static qx_status factor(qx_ctx *ctx, const solve *v, solve_live *l)
{
    const int64_t k = v->spec.k;
    float *scratch = NULL;
    double damping;
    qx_status st;
    QX_TRY(qx_alloc_raw(ctx, (size_t)(k * k) * sizeof *l->h, (void **)&l->h));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(k * k) * sizeof *l->u, (void **)&l->u));
    QX_TRY(qx_alloc_raw(ctx, (size_t)k * sizeof *l->weight, (void **)&l->weight));
    order_gram(v, l->h);
    qx_file_rest(v->spec.gram.file);
    qx_shrink_gram(l->h, k, (double)v->spec.gram.rows, v->spec.shrink);
    weigh_columns(v, l->h, l->weight);
    if (v->spec.act_order) {
        QX_TRY(qx_alloc_raw(ctx, (size_t)k * sizeof *l->perm, (void **)&l->perm));
        qx_order_by_diagonal(l->h, k, l->perm);
    }
    QX_TRY(qx_alloc_raw(ctx, (size_t)(128 * k) * sizeof *scratch, (void **)&scratch));
    const qx_factor f = {.h = l->h, .k = k, .perm = l->perm, .damp = v->spec.damp};
    l->failed = !qx_factor_inverse(&f, l->u, scratch, &damping);
    qx_free(ctx, scratch);
    /* pairs are swapped for what SparseGPT chose them by */
    for (int64_t j = 0; j < k && v->spec.prune && !l->failed; j++) l->h[j * k + j] += (float)damping;
    st = QX_OK;
    if (l->failed)
        qx_warn(ctx, "weight '%s': the Gram matrix of its input cannot be factored, even damped: rounded to nearest instead", v->name);
    return st;
}

/* What block scales of two-level formats are relative to; 1 for others. */
static float global_of(const qx_qspec *q, const solve_live *l)
{
    return !qx_spec_two_level(q) ? 1 : q->second > 0 ? q->second : qx_nvfp4_global(l->amax);
}

static qx_status begin(qx_ctx *ctx, const qx_step *s, const qx_qspec *spec, int64_t k)
{
    solve *v = solve_of(s);
    if (v->live) return QX_OK;
    QX_TRY(QX_NEW(ctx, &v->live));
    if (v->spec.k != k)
        QX_FAIL(ctx, QX_E_SHAPE, "weight '%s': Gram matrix of %lld channels for k = %lld", v->name, (long long)v->spec.k, (long long)k);
    if (v->spec.in_turn)
        QX_FAIL(ctx, QX_E_FAIL, "weight '%s' is asked for before its turn", v->name);
    if (v->spec.compensate && !v->spec.gram.h) v->live->failed = true; /* no sample came here */
    else if (v->spec.compensate) QX_TRY(factor(ctx, v, v->live));
    if (spec->block >= 0 && !qx_spec_two_level(spec)) return QX_OK;
    QX_TRY(tensor_amax(ctx, v, s, k, &v->live->amax));
    v->live->amax = fmaxf(v->live->amax, spec->amax);
    return QX_OK;
}

/* ---- the tile ---- */

typedef struct tile {
    const solve *v;
    const qx_qspec *spec;
    qx_format format;
    int64_t k, block, blocks, first; /* first: row of the weight */
    float *w0;
    uint8_t *codes;
    void *scratch;
    bool chosen;
} tile;

/* Scales before the solve: one for the tensor, by amax, or (act order) by search. Returns false when the solver shall choose them
 * on the way. */
static bool scales_before(const tile *t, const float *x, int64_t rows, float *scale, int32_t *zero)
{
    const qx_qspec *q = t->spec;
    if (q->block < 0) {
        qx_scale_from_amax(&t->format, &t->v->live->amax, 1, scale, NULL);
        for (int64_t r = 1; r < rows; r++) scale[r] = scale[0];
        return true;
    }
    if (q->rule == QX_SCALE_GIVEN && !q->zero_point) {
        const int64_t together = q->given_rows > 1 ? q->given_rows : 1;
        for (int64_t r = 0; r < rows; r++)
            memcpy(scale + r * t->blocks, q->given + (t->first + r) / together * t->blocks, (size_t)t->blocks * sizeof *scale);
        return true;
    }
    if (qx_spec_two_level(q)) return false;
    if (q->rule == QX_SCALE_SEARCH || q->zero_point) {
        if (!t->v->live->perm && !t->v->live->failed && t->v->spec.compensate) return false;
        const qx_search search = {.format = t->format, .block = t->block, .zero_point = q->zero_point, .weight = q->importance};
        return qx_search_rows(&search, x, rows, t->k, scale, zero, NULL);
    }
    const qx_grid g = {rows, t->k, 1, t->block};
    memset(scale, 0, (size_t)(rows * t->blocks) * sizeof *scale);
    qx_amax(&g, QX_DT_FLOAT, x, scale, NULL);
    qx_scale_from_amax(&t->format, scale, rows * t->blocks, scale, NULL);
    return true;
}

static void round_rows(const tile *t, float *x, int64_t rows, const float *scale, const int32_t *zero)
{
    const qx_quant q = {.grid = {rows, t->k, 1, t->block}, .format = t->format, .scale = scale, .zero = zero};
    qx_fake_quantize(&q, x);
}

static void prune_by_size(int64_t k, float *x, int64_t rows, uint8_t *mask)
{
    qx_mask_2_4(x, rows, k, NULL, mask);
    for (int64_t i = 0; i < rows * k; i++)
        if (!mask[i]) x[i] = 0;
}

/* SparseGPT's choice, in float, and what swaps make of it; without a factor of H the largest stay. w0: room for a copy. */
static qx_status prune_rows(qx_ctx *ctx, const solve *v, int64_t k, float *x, int64_t rows, float *w0, void *scratch)
{
    if (v->live->failed) return prune_by_size(k, x, rows, scratch), QX_OK;
    const qx_format plain = {.codes = QX_DT_FLOAT};
    const qx_gptq g = {.k = k, .u = v->live->u, .format = plain, .prune_2_4 = true};
    const qx_refine r = {.k = k, .h = v->live->h, .format = plain, .prune_2_4 = true, .sweeps = v->spec.swaps};
    memcpy(w0, x, (size_t)(rows * k) * sizeof *x);
    const bool done = qx_gptq_rows(&g, x, rows, NULL, NULL, NULL, NULL, scratch) &&
        (!v->spec.swaps || qx_refine_rows(&r, w0, x, rows, NULL, scratch));
    return done ? QX_OK : qx_fail(ctx, QX_E_UNSUPPORTED, "weight '%s': the solver does not prune it", v->name);
}

/* Coordinate descent on the codes; zeros of a pruning stay where they are. */
static qx_status refine_rows(qx_ctx *ctx, const tile *t, float *x, int64_t rows, float *scale, const int32_t *zero)
{
    const solve *v = t->v;
    qx_refine r = {.k = t->k, .h = v->live->h, .format = t->format, .block = t->spec->block < 0 ? 0 : t->spec->block, .scale = scale,
                   .zero = zero, .sweeps = v->spec.refine,
                   .global = global_of(t->spec, v->live), .rescale = t->spec->block >= 0 && t->spec->rule != QX_SCALE_GIVEN};
    if (!v->spec.refine) return QX_OK;
    if (v->spec.prune || v->spec.keep_zeros) {
        for (int64_t i = 0; i < rows * t->k; i++) t->codes[i] = x[i] != 0;
        r.mask = t->codes;
    }
    return qx_refine_rows(&r, t->w0, x, rows, NULL, t->scratch) ? QX_OK
        : qx_fail(ctx, QX_E_UNSUPPORTED, "weight '%s': refine does not take %s", v->name, qx_dtype_get(t->spec->codes)->name);
}

static qx_status solve_rows(qx_ctx *ctx, const tile *t, float *x, int64_t rows, float *scale, int32_t *zero)
{
    const solve *v = t->v;
    const solve_live *l = v->live;
    const bool solves = v->spec.compensate && !l->failed;
    if (v->spec.prune) QX_TRY(prune_rows(ctx, v, t->k, x, rows, t->w0, t->scratch));
    const bool given = scales_before(t, x, rows, scale, zero);
    const qx_search search = {.format = t->format, .weight = l->weight};
    const qx_nvfp4 nvfp4 = {.global = global_of(t->spec, l), .weight = l->weight};
    if (!solves) {
        if (!given) qx_nvfp4_search(&nvfp4, x, rows, t->k, t->codes, scale, NULL);
        round_rows(t, x, rows, scale, zero);
        return QX_OK;
    }
    if (!v->spec.prune) memcpy(t->w0, x, (size_t)(rows * t->k) * sizeof *x);
    const qx_gptq g = {.k = t->k, .u = l->u, .perm = l->perm, .format = t->format, .block = t->spec->block < 0 ? 0 : t->spec->block,
                       .zero_point = t->spec->zero_point,
                       .search = given || qx_spec_two_level(t->spec) ? NULL : &search, .nvfp4 = qx_spec_two_level(t->spec) ? &nvfp4 : NULL,
                           .keep_zeros = v->spec.keep_zeros || v->spec.prune};
    if (!qx_gptq_rows(&g, x, rows, scale, zero, t->codes, NULL, t->scratch))
        QX_FAIL(ctx, QX_E_UNSUPPORTED, "weight '%s': the solver does not take %s in blocks of %lld", v->name,
                qx_dtype_get(t->spec->codes)->name, (long long)t->spec->block);
    return refine_rows(ctx, t, x, rows, scale, zero);
}

/* NVFP4 block scales are handed back as stored, without the tensor's factor. */
static void store_scales(const tile *t, int64_t rows, float *scale)
{
    if (!qx_spec_two_level(t->spec)) return;
    const float global = global_of(t->spec, t->v->live);
    for (int64_t i = 0; i < rows * t->blocks; i++) scale[i] = qx_scale_stored(&t->format, scale[i] / global, NULL);
}

/* For the greediest of the forms that solve_rows may ask for. */
static size_t solver_scratch(const solve *v, const qx_qspec *spec, int64_t k)
{
    const qx_search search = {0};
    const qx_gptq g = {.k = k, .block = spec && spec->block > 0 ? spec->block : 0, .format = {.codes = spec ? spec->codes : QX_DT_FLOAT},
                       .search = &search, .keep_zeros = true};
    const qx_refine r = {.k = k, .block = g.block};
    const size_t a = qx_gptq_scratch(&g, ROWS), b = v->spec.refine || v->spec.swaps ? qx_refine_scratch(&r, ROWS) : 0;
    return a > b ? a : b;
}

typedef struct buffers { float *y, *w0, *scale; int32_t *zero; uint8_t *codes; void *scratch; } buffers;

static qx_status make_buffers(qx_ctx *ctx, const solve *v, const qx_qspec *spec, int64_t k, buffers *b)
{
    QX_TRY(qx_alloc_raw(ctx, (size_t)(ROWS * k) * sizeof *b->y, (void **)&b->y));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(ROWS * k) * sizeof *b->w0, (void **)&b->w0));
    QX_TRY(qx_alloc_array(ctx, (size_t)(ROWS * k), sizeof *b->scale, (void **)&b->scale));
    QX_TRY(qx_alloc_array(ctx, (size_t)(ROWS * k), sizeof *b->zero, (void **)&b->zero));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(ROWS * k), (void **)&b->codes));
    return qx_alloc_raw(ctx, solver_scratch(v, spec, k), &b->scratch);
}

static void free_buffers(qx_ctx *ctx, buffers *b)
{
    void *list[] = {b->y, b->w0, b->scale, b->zero, b->codes, b->scratch};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) qx_free(ctx, list[i]);
}

static qx_status grid(qx_ctx *ctx, const qx_step *s, const qx_qspec *spec, const qx_gridded *g)
{
    const solve *v = solve_of(s);
    const int64_t k = g->k;
    buffers b = {0};
    qx_status st;
    QX_TRY_GOTO(st, make_buffers(ctx, v, spec, k, &b));
    tile t = {.v = v, .spec = spec, .format = {.codes = spec->codes, .scale = spec->scale, .narrow = spec->narrow,
                                               .negative = spec->allow_negative_scale}, .k = k,
              .block = spec->block > 0 ? spec->block : k, .blocks = spec->block > 0 ? qx_cells_of(k, spec->block) : 1, .w0 = b.w0,
                  .codes = b.codes, .scratch = b.scratch};
    for (int64_t r = 0; r < g->rows; r += ROWS) {
        const int64_t n = g->rows - r < ROWS ? g->rows - r : ROWS;
        t.first = g->first + r;
        qx_to_solver_order(v->spec.spatial, n, k, g->x + r * k, b.y);
        QX_TRY_GOTO(st, solve_rows(ctx, &t, b.y, n, b.scale, spec->zero_point ? b.zero : NULL));
        store_scales(&t, n, b.scale);
        qx_from_solver_order(v->spec.spatial, n, k, b.y, g->x + r * k);
        if (spec->block < 0) g->scale[0] = b.scale[0];
        else memcpy(g->scale + r * t.blocks, b.scale, (size_t)(n * t.blocks) * sizeof *b.scale);
        if (g->zero && spec->zero_point) memcpy(g->zero + r * t.blocks, b.zero, (size_t)(n * t.blocks) * sizeof *b.zero);
    }
done:
    free_buffers(ctx, &b);
    return st;
}

/* Pruning alone: what survives stays float. */
static qx_status float_rows(qx_ctx *ctx, const qx_step *s, int64_t first, int64_t rows, int64_t k, float *x, void *scratch)
{
    const solve *v = solve_of(s);
    buffers b = {0};
    qx_status st;
    (void)first;
    (void)scratch;
    if (!v->live) QX_FAIL(ctx, QX_E_FAIL, "weight '%s': pruning asked for outside a job", v->name);
    QX_TRY_GOTO(st, make_buffers(ctx, v, NULL, k, &b));
    for (int64_t r = 0; r < rows; r += ROWS) {
        const int64_t n = rows - r < ROWS ? rows - r : ROWS;
        qx_to_solver_order(v->spec.spatial, n, k, x + r * k, b.y);
        QX_TRY_GOTO(st, prune_rows(ctx, v, k, b.y, n, b.w0, b.scratch));
        qx_from_solver_order(v->spec.spatial, n, k, b.y, x + r * k);
    }
done:
    free_buffers(ctx, &b);
    return st;
}

static const qx_stepdef def_prune = {.name = "prune 2:4", .rows = float_rows, .begin = begin, .end = end};
static const qx_stepdef def_solve = {.name = "solve", .grid = grid, .begin = begin, .end = end};
static const qx_stepdef def_solve_pruned = {.name = "solve 2:4", .grid = grid, .in_float = &def_prune, .begin = begin, .end = end};

/* The first one as it lies, more of them summed up in `sum`. */
static qx_status add_gram(qx_arena *arena, const qx_value_stats *st, float **sum, qx_input_gram *out)
{
    const size_t n = (size_t)(st->gram_k * st->gram_k);
    out->rows += st->gram_rows;
    if (!out->h) {
        out->h = st->gram;
        out->file = st->gram_file;
        return QX_OK;
    }
    if (!*sum) {
        *sum = qx_arena_array(arena, n, sizeof **sum);
        if (!*sum) return QX_E_NOMEM;
        memcpy(*sum, out->h, n * sizeof **sum);
        qx_file_rest(out->file);
        out->h = *sum;
        out->file = NULL;
    }
    for (size_t i = 0; i < n; i++) (*sum)[i] += st->gram[i];
    qx_file_rest(st->gram_file);
    return QX_OK;
}

qx_status qx_weight_gram(struct qx_pipeline *pipe, const qx_plan_item *it, const qx_stats *stats, qx_input_gram *out)
{
    const qx_plan *plan = pipe->plan;
    float *sum = NULL;
    *out = (qx_input_gram){0};
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_plan_item *reader = &plan->items[i];
        if (reader->weight != it->weight || !reader->lin->rows) continue;
        const qx_value_stats *st = qx_stats_get_rows(stats, reader->lin->rows, qx_linear_window(reader->lin));
        if (!st || !st->gram || st->gram_k != qx_view_k(&it->lin->view) || st->gram_rows < 1) continue;
        QX_TRY(add_gram(pipe->model->arena, st, &sum, out));
    }
    return QX_OK;
}

qx_status qx_solve_step(struct qx_pipeline *pipe, qx_plan_weight *w, const qx_solve_spec *spec)
{
    solve *v = qx_arena_alloc(pipe->model->arena, sizeof *v);
    if (!v) return QX_E_NOMEM;
    *v = (solve){.spec = *spec, .w = w, .name = w->tensor->name};
    const bool rounds = w->spec.codes && !spec->stay_float;
    if (rounds && w->spec.block < 0) w->spec.block = 0; /* rows are solved apart: one scale each */
    return qx_plan_step(pipe, w, !rounds ? &def_prune : spec->prune ? &def_solve_pruned : &def_solve, v);
}

/* ---- layers one after the other ---- */

static bool is_solver(const qx_stepdef *d) { return d == &def_solve || d == &def_solve_pruned || d == &def_prune; }

const qx_step *qx_steps_before_solver(const qx_plan_weight *w)
{
    const qx_step *steps = w->steps;
    for (const qx_step *s = w->steps; s; s = s->prev)
        if (s->def->begin) steps = s->prev;
    return steps;
}

bool qx_solve_waits(const qx_plan_weight *w)
{
    for (const qx_step *s = w->steps; s; s = s->prev)
        if (is_solver(s->def) && solve_of(s)->spec.in_turn) return true;
    return false;
}

qx_status qx_solve_give(struct qx_pipeline *pipe, qx_plan_weight *w, const qx_input_gram *gram, const qx_solve_shift *shift)
{
    qx_step *first = NULL;
    const qx_solve_shift *own;
    for (const qx_step *s = w->steps; s; s = s->prev) {
        if (!is_solver(s->def)) continue;
        solve_of(s)->spec.gram = *gram;
        solve_of(s)->spec.in_turn = false;
        first = (qx_step *)(uintptr_t)s;
    }
    if (!first || !(shift->share > 0)) return QX_OK;
    own = qx_arena_memdup(pipe->model->arena, shift, sizeof *shift);
    if (!own) return QX_E_NOMEM;
    first->prev = qx_step_new(pipe->model, &qx_step_shift, first->prev, own);
    return first->prev ? QX_OK : QX_E_NOMEM;
}
