/* svdquant.c - a low-rank branch in plain ONNX nodes takes what few bits cannot hold (arXiv 2411.05007): y = Q(W - B A) x + B (A
 * x).
 *
 * B A is the best rank-r part of W with its columns weighed by the square root of their input's root mean square: the full weight
 * would be right for what B A leaves out, but what is left is rounded, and rounding costs every column of a block the same. The
 * branch is stored in the model's own float type, and what is subtracted from W is the rounded product, so that nothing is lost
 * between the two. Put smoothing before it ("awq(mode=lite),svdquant,int4"): both branches read the same smoothed input. */
#include <math.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/solve/solve.h"
#include "onnx/edit.h"
#include "passes/place/nodes.h"
#include "passes/place/plan.h"

typedef struct branch { int64_t n, k, rank; const float *b, *a; } branch; /* b[n][rank], a[rank][k] */

static qx_status subtract(qx_ctx *ctx, const qx_step *s, int64_t first, int64_t rows, int64_t k, float *x, void *scratch)
{
    const branch *br = s->arg;
    (void)ctx;
    (void)scratch;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < br->rank; j++) {
            const float f = br->b[(first + r) * br->rank + j], *a = br->a + j * k;
            float *row = x + r * k;
            for (int64_t c = 0; c < k; c++) row[c] -= f * a[c];
        }
    return QX_OK;
}

static const qx_stepdef def_subtract = {.name = "low-rank residual", .rows = subtract};

static bool wants(const qx_plan_item *it)
{
    const qx_op_id op = it->lin->node->op->id;
    if (!it->pass || it->weight_only || !it->weight || !it->weight->spec.codes || !it->lin->plain || it->weight->items != 1) return false;
    if (op == QX_OP_Gemm) return qx_attr_float(it->lin->node, "alpha", 1) == 1;
    return op == QX_OP_MatMul;
}

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)m;
    for (int64_t i = 0; i < p->pipe->plan->linears.count; i++) {
        const qx_plan_item *it = &p->pipe->plan->items[i];
        if (wants(it) && p->pipe->have_data)
            QX_TRY(qx_stats_want(stats, &(qx_stat_request){.value = it->lin->x, .kinds = QX_STAT_RANGE | QX_STAT_CHANNELS, .axis = -1}));
    }
    return QX_OK;
}

/* ---- the decomposition ---- */

/* Square root of the root mean square of each input channel; 1 without statistics. Dead channels count as the smallest live one,
 * so that the inverse exists. */
static void weights_of(const qx_stats *stats, const qx_plan_item *it, float *d)
{
    const qx_value_stats *st = qx_stats_get(stats, it->lin->x);
    const int64_t k = it->lin->k;
    float least = INFINITY;
    for (int64_t j = 0; j < k; j++) {
        d[j] = st && st->channels.n == k && st->channels.mean_sq ? sqrtf(sqrtf(st->channels.mean_sq[j])) : 1;
        if (d[j] > 0 && d[j] < least) least = d[j];
    }
    for (int64_t j = 0; j < k; j++)
        if (!(d[j] > 0)) d[j] = isfinite(least) ? least : 1;
}

/* x[count] as it will be stored in dtype, and those bytes. */
static qx_status stored(qx_model *m, qx_dtype dtype, float *x, int64_t count, void **bytes)
{
    *bytes = qx_arena_alloc(m->arena, (size_t)count * 4);
    if (!*bytes) return QX_E_NOMEM;
    if (!qx_from_f32((int)dtype, x, count, *bytes) || !qx_to_f32((int)dtype, *bytes, count, x))
        QX_FAIL(m->ctx, QX_E_TYPE, "svdquant: no branch of type %s", qx_dtype_get((int)dtype)->name);
    return QX_OK;
}

static qx_status decompose(qx_pass *p, const qx_plan_item *it, const qx_stats *stats, branch *br)
{
    qx_ctx *ctx = p->ctx;
    const qx_plan_weight *w = it->weight;
    float *full = NULL, *d = NULL, *b = qx_arena_array(p->pipe->model->arena, (size_t)(br->n * br->rank), sizeof *b);
    float *a = qx_arena_array(p->pipe->model->arena, (size_t)(br->k * br->rank), sizeof *a);
    void *scratch = NULL;
    const qx_lowrank l = {.n = br->n, .k = br->k, .rank = br->rank, .seed = 1};
    qx_status st = a && b ? QX_OK : QX_E_NOMEM;
    if (st == QX_OK) st = qx_alloc_raw(ctx, (size_t)(br->n * br->k) * sizeof *full, (void **)&full);
    if (st == QX_OK) st = qx_alloc_raw(ctx, (size_t)br->k * sizeof *d, (void **)&d);
    if (st == QX_OK) st = qx_alloc_raw(ctx, qx_lowrank_scratch(&l), &scratch);
    if (st == QX_OK) st = qx_rows_read(ctx, w->tensor, &w->view, w->steps, 0, br->n, full);
    if (st == QX_OK) {
        weights_of(stats, it, d);
        for (int64_t r = 0; r < br->n; r++)
            for (int64_t c = 0; c < br->k; c++) full[r * br->k + c] *= d[c];
        qx_lowrank_solve(&l, full, b, a, scratch);
        for (int64_t j = 0; j < br->rank; j++)
            for (int64_t c = 0; c < br->k; c++) a[j * br->k + c] /= d[c];
        br->a = a;
        br->b = b;
    }
    qx_free(ctx, full);
    qx_free(ctx, d);
    qx_free(ctx, scratch);
    return st;
}

/* ---- the nodes ---- */

/* A factor [dims], the initializer BASE_lowrank_WHICH, and the product with it. */
typedef struct factor { const char *base, *which; qx_dtype dtype; int64_t dims[2]; const void *bytes; } factor;

static qx_status times(qx_graph *g, qx_node *before, qx_value *x, const factor *f, qx_node **out)
{
    const char *weight = qx_arena_printf(g->model->arena, "%s_lowrank_%s", f->base, f->which);
    const char *name = qx_arena_printf(g->model->arena, "%s_lowrank_%s_MatMul", f->base, f->which);
    qx_weight *w;
    qx_value *in[2] = {x};
    if (!weight || !name) return QX_E_NOMEM;
    QX_TRY(qx_weight_from_bytes(g->model, f->dtype, 2, f->dims, f->bytes, &w));
    QX_TRY(qx_init_add(g, weight, w, &in[1]));
    return qx_node_add(g, &(qx_node_spec){.op_type = "MatMul", .domain = "", .name = name, .in = in, .n_in = 2, .out_names = &name,
                                          .n_out = 1}, before, out);
}

static qx_status insert(qx_plan_item *it, const branch *br, const void *at_bytes, const void *bt_bytes)
{
    qx_node *n = it->lin->node, *down, *up, *sum;
    qx_graph *g = n->graph;
    qx_value *y = n->out[0];
    const qx_dtype dtype = it->weight->tensor->dtype;
    const char *base = n->name[0] ? n->name : y->name;
    QX_TRY(times(g, n->next, n->in[it->lin->x_index], &(factor){base, "down", dtype, {br->k, br->rank}, at_bytes}, &down));
    QX_TRY(times(g, down->next, down->out[0], &(factor){base, "up", dtype, {br->rank, br->n}, bt_bytes}, &up));
    QX_TRY(qx_value_set_type(up->out[0], &y->type));
    QX_TRY(qx_node_put(g, up->next, &(qx_new_node){"Add", {y, up->out[0]}, 2, &y->type, y->type.dtype, base, "lowrank_Add"}, &sum));
    if (y->is_output) QX_TRY(qx_output_rewire(y, sum->out[0])); /* and readers inside need the sum too */
    return qx_value_replace_uses(y, sum->out[0], sum);
}

static void transpose(const float *x, int64_t rows, int64_t cols, float *y)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) y[c * rows + r] = x[r * cols + c];
}

/* a and b become what is stored; their transposes (the layout of MatMul weights) come back as bytes. */
static qx_status round_factors(qx_pass *p, const qx_plan_item *it, branch *br, void **at, void **bt)
{
    qx_model *m = p->pipe->model;
    const qx_dtype dtype = it->weight->tensor->dtype;
    float *t = NULL;
    qx_status st = qx_alloc_raw(p->ctx, (size_t)((br->n > br->k ? br->n : br->k) * br->rank) * sizeof *t, (void **)&t);
    if (st == QX_OK) {
        transpose(br->a, br->rank, br->k, t);
        st = stored(m, dtype, t, br->rank * br->k, at);
        if (st == QX_OK) transpose(t, br->k, br->rank, (float *)(uintptr_t)br->a);
    }
    if (st == QX_OK) {
        transpose(br->b, br->n, br->rank, t);
        st = stored(m, dtype, t, br->rank * br->n, bt);
        if (st == QX_OK) transpose(t, br->rank, br->n, (float *)(uintptr_t)br->b);
    }
    qx_free(p->ctx, t);
    return st;
}

static qx_status branch_item(qx_pass *p, qx_plan_item *it, const qx_stats *stats)
{
    branch *br = qx_arena_alloc(p->pipe->model->arena, sizeof *br);
    void *at, *bt;
    if (!br) return QX_E_NOMEM;
    *br = (branch){.n = it->lin->n, .k = it->lin->k, .rank = qx_opt_int(p, "rank")};
    if (br->rank * 4 > br->n || br->rank * 4 > br->k)
        return qx_item_note(p->pipe, it, "svdquant: rank %lld is too much for [%lld, %lld]", (long long)br->rank, (long long)br->n,
                            (long long)br->k);
    QX_TRY(decompose(p, it, stats, br));
    QX_TRY(round_factors(p, it, br, &at, &bt));
    QX_TRY(qx_plan_step(p->pipe, it->weight, &def_subtract, br));
    QX_TRY(insert(it, br, at, bt));
    it->rescaled = true; /* the branch is added behind it */
    return qx_item_note(p->pipe, it, "svdquant rank %lld", (long long)br->rank);
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    qx_plan *plan = p->pipe->plan;
    (void)m;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        qx_plan_item *it = &plan->items[i];
        if (!wants(it)) continue;
        QX_TRY(qx_check_cancel(p->ctx));
        qx_progress(p->ctx, "svdquant", i, plan->linears.count);
        QX_TRY(branch_item(p, it, stats));
    }
    qx_progress(p->ctx, "svdquant", plan->linears.count, plan->linears.count);
    return QX_OK;
}

static const qx_option options[] = {
    {"rank", QX_OPT_INT, "32", 1, 1024, NULL, "columns of the low-rank branch"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_svdquant = {
    .name = "svdquant", .brief = "a low-rank float branch beside 4-bit weights", .options = options,
    .flags = QX_PASS_WEIGHTS | QX_PASS_NEEDS_FORMAT | QX_PASS_UNTIMED, .order = 1, .plan = plan, .run = run,
    .doc = "y = Q(W - B A) x + B (A x), B A the rank-r part of W weighed by the rms of each input channel; two MatMul and an Add "
           "in plain ONNX.\n"
           "Rank 32 adds 32 (n + k) weights a layer. Use it with int4 or nvfp4 on diffusion models, after awq(mode=lite) or smoothquant."};
