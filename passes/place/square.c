/* square.c - see square.h. The standard's DequantizeLinear has blocks along one axis, so a Gather repeats each line of scales for its rows:
 * runtimes fold it when they load, and the file holds a scale once. */
#include "passes/place/square.h"

#include <string.h>

#include "base/thread.h"
#include "kernels/quant.h"
#include "onnx/weight/weight.h"
#include "passes/place/nodes.h"
#include "passes/search/solve_step.h"

static int64_t lines_of(const qx_plan_weight *w) { return qx_cells_of(w->view.n, w->spec.given_rows); }
static int64_t blocks_of(const qx_plan_weight *w) { return qx_cells_of(qx_view_k(&w->view), w->spec.block); }

bool qx_square_fits(const qx_pipeline *pipe, const qx_plan_item *it)
{
    const qx_plan_weight *w = it->weight;
    if (w->spec.given_rows < 2 || w->spec.block < 1 || w->tensor->rank != 2 || it->lin->contract_axis < 0) return false;
    return pipe->opt->target != QX_TARGET_TENSORRT ||
        (w->view.n % w->spec.given_rows == 0 && qx_view_k(&w->view) % w->spec.block == 0);
}

/* ---- scales --------------------------------------------------------------------------------------------------------------- */

static qx_status scales_of(qx_ctx *ctx, const qx_plan_weight *w, float *scale)
{
    const int64_t k = qx_view_k(&w->view), blocks = blocks_of(w), rows = w->spec.given_rows;
    const qx_format f = {.codes = w->spec.codes, .scale = w->spec.scale};
    const qx_step *steps = qx_steps_before_solver(w);
    float *x;
    QX_TRY(qx_alloc_raw(ctx, (size_t)(rows * k) * sizeof *x, (void **)&x));
    qx_status st = QX_OK;
    memset(scale, 0, (size_t)(lines_of(w) * blocks) * sizeof *scale);
    for (int64_t i = 0; st == QX_OK && i < lines_of(w); i++) {
        const int64_t first = i * rows, n = w->view.n - first < rows ? w->view.n - first : rows;
        st = qx_rows_read(ctx, w->tensor, &w->view, steps, first, n, x);
        if (st != QX_OK) break;
        (void)qx_amax(&(qx_grid){n, k, n, w->spec.block}, QX_DT_FLOAT, x, scale + i * blocks, NULL);
        qx_scale_from_amax(&f, scale + i * blocks, blocks, scale + i * blocks, NULL);
    }
    qx_free(ctx, x);
    return st;
}

static qx_status scale_one(void *user, int64_t i)
{
    const qx_pass *p = user;
    const qx_plan *plan = p->pipe->plan;
    const qx_plan_weight *w = plan->items[i].weight;
    if (plan->items[i].pass != p || !w || w->spec.given_rows < 2 || !qx_plan_first_reader(plan, i)) return QX_OK;
    return scales_of(p->ctx, w, (float *)(uintptr_t)w->spec.given);
}

qx_status qx_square_scales(qx_pass *p)
{
    const qx_plan *plan = p->pipe->plan;
    bool any = false;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        qx_plan_weight *w = plan->items[i].weight;
        if (plan->items[i].pass != p || !w || w->spec.given_rows < 2 || w->spec.given) continue;
        w->spec.given = qx_arena_array(p->pipe->model->arena, (size_t)(lines_of(w) * blocks_of(w)) + 1, sizeof *w->spec.given);
        if (!w->spec.given) return QX_E_NOMEM;
        w->spec.rule = QX_SCALE_GIVEN;
        any = true;
    }
    return any ? qx_parallel(p->ctx, plan->linears.count, scale_one, p) : QX_OK;
}

/* ---- nodes ---------------------------------------------------------------------------------------------------------------- */

int64_t qx_square_bytes(const qx_plan_weight *w)
{
    return w->spec.given_rows < 2 ? 0 : lines_of(w) * blocks_of(w) * qx_dtype_bits(w->spec.scale) / 8;
}

static qx_status stored(const qx_plan_weight *w, bool turned, qx_value **out)
{
    qx_graph *g = w->value->graph;
    const int64_t lines = lines_of(w), blocks = blocks_of(w), n = lines * blocks;
    const int64_t dims[2] = {turned ? blocks : lines, turned ? lines : blocks};
    float *s = qx_arena_array(g->model->arena, (size_t)n, sizeof *s);
    void *raw = qx_arena_alloc(g->model->arena, (size_t)n * sizeof *s);
    qx_weight *t;
    if (!s || !raw) return QX_E_NOMEM;
    for (int64_t i = 0; i < n; i++) s[i] = turned ? w->spec.given[i % lines * blocks + i / lines] : w->spec.given[i];
    if (!qx_from_f32(w->spec.scale, s, n, raw)) return QX_E_TYPE;
    QX_TRY(qx_weight_from_bytes(g->model, w->spec.scale, 2, dims, raw, &t));
    const char *name = qx_arena_printf(g->model->arena, "%s_scale", w->value->name);
    return name ? qx_init_add(g, name, t, out) : QX_E_NOMEM;
}

/* Whether v holds these numbers already: weights with as many rows share them. */
static qx_status holds(const qx_value *v, const int64_t *line, int64_t n, bool *same)
{
    const qx_weight *w = v && !v->is_input ? v->init : NULL;
    int64_t *there = NULL;
    *same = false;
    if (!w || w->dtype != QX_DT_INT64 || w->rank != 1 || w->numel != n) return QX_OK;
    QX_TRY(qx_alloc_array(v->graph->model->ctx, (size_t)n, sizeof *there, (void **)&there));
    const qx_status st = qx_weight_read(v->graph->model->ctx, w, there);
    *same = st == QX_OK && memcmp(there, line, (size_t)n * sizeof *line) == 0;
    qx_free(v->graph->model->ctx, there);
    return st;
}

static qx_status lines_of_rows(const qx_plan_weight *w, qx_value **out)
{
    qx_graph *g = w->value->graph;
    const int64_t n = w->view.n, rows = w->spec.given_rows;
    int64_t *line = qx_arena_array(g->model->arena, (size_t)n, sizeof *line);
    const char *name = qx_arena_printf(g->model->arena, "scale_of_rows_%lld_%lld", (long long)n, (long long)rows);
    qx_weight *t;
    bool same;
    if (!line || !name) return QX_E_NOMEM;
    for (int64_t i = 0; i < n; i++) line[i] = i / rows;
    *out = qx_graph_find(g, name);
    QX_TRY(holds(*out, line, n, &same));
    if (same) return QX_OK;
    QX_TRY(qx_weight_from_bytes(g->model, QX_DT_INT64, 1, &n, line, &t));
    return qx_init_add(g, name, t, out);
}

qx_status qx_square_value(qx_pipeline *pipe, const qx_plan_weight *w, bool turned, qx_value **out)
{
    qx_graph *g = w->value->graph;
    qx_value *rows;
    qx_node *n;
    QX_TRY(stored(w, turned, out));
    if (pipe->opt->target == QX_TARGET_TENSORRT) return QX_OK;
    qx_type each = (*out)->type;
    each.dims = qx_arena_memdup(g->model->arena, each.dims, 2 * sizeof *each.dims);
    if (!each.dims) return QX_E_NOMEM;
    each.dims[turned] = (qx_dim){.n = w->view.n};
    QX_TRY(lines_of_rows(w, &rows));
    QX_TRY(qx_node_put(g, qx_place_behind(w->value), &(qx_new_node){"Gather", {*out, rows}, 2, &each, w->spec.scale, w->value->name,
                                                                    "ScaleRows"}, &n));
    *out = n->out[0];
    return qx_attr_set_int(n, "axis", turned);
}
