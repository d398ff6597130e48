/* dynamic.c - writes y = x W as integer operators: codes of x are made in the graph, MatMulInteger multiplies them, both scales
 * are multiplied back in.
 *
 *   ROW     s = max |x| of a row / 127;  q = uint8(round(x / s) + 128);                y = float((q - 128) Wq) s s_w
 *   TENSOR  q, s, z = DynamicQuantizeLinear(x), the standard's formula;                y = float((q - z) Wq) (s s_w)
 *
 * Codes are UINT8 in both: ONNX Runtime multiplies those six times as fast by INT8 weights as signed ones. All readers of x share
 * q and s. The order of operators is ONNX Runtime's own, which it fuses into DynamicQuantizeMatMul (TENSOR). */
#include "passes/place/dynamic.h"

#include <float.h>
#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/place/nodes.h"

/* Codes of one x, its scale in float32 and its zero point (NULL: 0). */
typedef struct qx_dynamic_input { const qx_value *x; qx_dynamic kind; qx_value *codes, *scale, *zero; struct qx_dynamic_input *next; } made;

bool qx_dynamic_fits(const qx_plan_item *it, const char **detail)
{
    const qx_linear *l = it->lin;
    const qx_node *n = l->node;
    const bool gemm = n->op->id == QX_OP_Gemm;
    *detail = NULL;
    if (!gemm && n->op->id != QX_OP_MatMul) *detail = "not a product of matrices";
    else if (!l->plain || l->x_index != 0 || !l->w || l->w->rank != 2 || l->channel_axis < 0)
        *detail = "its weight is no single matrix on the right";
    else if (gemm && (qx_attr_float(n, "alpha", 1) != 1 || qx_attr_float(n, "beta", 1) != 1)) *detail = "Gemm with a factor";
    return !*detail;
}

/* ---- the input's codes --------------------------------------------------------------------------------------------------- */

static qx_status as_float(qx_value *v, qx_node *before, qx_value **out)
{
    qx_node *n;
    *out = v;
    if (v->type.dtype == QX_DT_FLOAT) return QX_OK;
    QX_TRY(qx_node_put(v->graph, before, &(qx_new_node){"Cast", {v}, 1, &v->type, QX_DT_FLOAT, v->name, "Float"}, &n));
    *out = n->out[0];
    return qx_attr_set_int(n, "to", QX_DT_FLOAT);
}

/* [..., 1]: the largest |x| of each row. From opset 18 on axes are an input. */
static qx_status row_maxima(qx_value *x, qx_node *at, const char *base, qx_value **out)
{
    qx_graph *g = x->graph;
    qx_node *n;
    qx_type row = x->type;
    if (row.has_shape && row.rank > 0) {
        row.dims = qx_arena_memdup(g->model->arena, row.dims, (size_t)row.rank * sizeof *row.dims);
        if (!row.dims) return QX_E_NOMEM;
        row.dims[row.rank - 1] = (qx_dim){.n = 1};
    }
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Abs", {x}, 1, &x->type, QX_DT_FLOAT, base, "Abs"}, &n));
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"ReduceMax", {n->out[0]}, 1, &row, QX_DT_FLOAT, base, "RowMax"}, &n));
    *out = n->out[0];
    if (qx_graph_opset(g, "") < 18) return qx_attr_set_ints(n, "axes", &(int64_t){-1}, 1);
    qx_weight *last;
    qx_value *axes;
    const char *name = qx_arena_printf(g->model->arena, "%s_axes", base);
    if (!name) return QX_E_NOMEM;
    QX_TRY(qx_weight_from_bytes(g->model, QX_DT_INT64, 1, &(int64_t){1}, &(int64_t){-1}, &last));
    QX_TRY(qx_init_add(g, name, last, &axes));
    return qx_node_set_in(n, 1, axes);
}

static qx_status row_codes(qx_value *x, qx_node *at, const char *base, made *m)
{
    qx_graph *g = x->graph;
    qx_node *n;
    qx_value *largest, *least, *step, *middle;
    QX_TRY(row_maxima(x, at, base, &largest));
    const qx_type row = largest->type;
    QX_TRY(qx_scalar_put(g, base, "row_least", QX_DT_FLOAT, FLT_MIN * 128, &least)); /* a row of zeros has a scale all the same */
    QX_TRY(qx_scalar_put(g, base, "row_step", QX_DT_FLOAT, 1.0f / 127, &step));
    QX_TRY(qx_scalar_put(g, base, "row_middle", QX_DT_FLOAT, 128, &middle));
    QX_TRY(qx_scalar_put(g, base, "row_zero_point", QX_DT_UINT8, 128, &m->zero));
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Max", {largest, least}, 2, &row, QX_DT_FLOAT, base, "RowTop"}, &n));
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Mul", {n->out[0], step}, 2, &row, QX_DT_FLOAT, base, "RowScale"}, &n));
    m->scale = n->out[0];
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Div", {x, m->scale}, 2, &x->type, QX_DT_FLOAT, base, "RowDiv"}, &n));
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Round", {n->out[0]}, 1, &x->type, QX_DT_FLOAT, base, "RowRound"}, &n));
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Add", {n->out[0], middle}, 2, &x->type, QX_DT_FLOAT, base, "RowShift"}, &n));
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Cast", {n->out[0]}, 1, &x->type, QX_DT_UINT8, base, "RowCodes"}, &n));
    m->codes = n->out[0];
    return qx_attr_set_int(n, "to", QX_DT_UINT8);
}

static qx_status tensor_codes(qx_value *x, qx_node *at, const char *base, made *m)
{
    qx_graph *g = x->graph;
    qx_node *n;
    const char *parts[] = {"codes", "scale", "zero_point"};
    const qx_type scalar = {.kind = QX_KIND_TENSOR, .has_shape = true};
    for (size_t i = 0; i < 3; i++)
        if (!(parts[i] = qx_arena_printf(g->model->arena, "%s_%s", base, parts[i]))) return QX_E_NOMEM;
    const char *name = qx_arena_printf(g->model->arena, "%s_DynamicQuantizeLinear", base);
    if (!name) return QX_E_NOMEM;
    QX_TRY(qx_node_add(g, &(qx_node_spec){.op_type = "DynamicQuantizeLinear", .domain = "", .name = name, .in = &x, .n_in = 1,
                                          .out_names = parts, .n_out = 3}, at, &n));
    for (size_t i = 0; i < 3; i++) {
        qx_type t = i ? scalar : x->type;
        t.dtype = i == 1 ? QX_DT_FLOAT : QX_DT_UINT8;
        QX_TRY(qx_value_set_type(n->out[i], &t));
    }
    m->codes = n->out[0], m->scale = n->out[1], m->zero = n->out[2];
    return QX_OK;
}

static qx_status codes_of(qx_pipeline *pipe, qx_value *x, qx_dynamic kind, const made **out)
{
    for (made *m = pipe->dynamic; m; m = m->next)
        if (m->x == x && m->kind == kind) return *out = m, QX_OK;
    made *m = qx_arena_alloc(pipe->model->arena, sizeof *m);
    if (!m) return QX_E_NOMEM;
    *m = (made){.x = x, .kind = kind, .next = pipe->dynamic};
    qx_value *f;
    qx_node *at = qx_place_behind(x);
    QX_TRY(as_float(x, at, &f));
    QX_TRY(kind == QX_DYNAMIC_ROW ? row_codes(f, at, x->name, m) : tensor_codes(f, at, x->name, m));
    pipe->dynamic = m;
    *out = m;
    return QX_OK;
}

/* ---- the product ----------------------------------------------------------------------------------------------------------- */

/* The codes as [K, N]; a weight that is stored the other way round is turned once, which runtimes do when they load. */
static qx_status as_columns(const qx_plan_weight *w, const qx_linear *l, qx_value *codes, qx_value **out)
{
    static const int64_t perm[2] = {1, 0};
    qx_graph *g = w->value->graph;
    qx_node *n;
    *out = codes;
    if (l->contract_axis == 0) return QX_OK;
    qx_type turned = codes->type;
    turned.dims = qx_arena_array(g->model->arena, 2, sizeof *turned.dims);
    if (!turned.dims) return QX_E_NOMEM;
    turned.dims[0] = codes->type.dims[1], turned.dims[1] = codes->type.dims[0];
    QX_TRY(qx_node_put(g, g->first, &(qx_new_node){"Transpose", {codes}, 1, &turned, codes->type.dtype, w->value->name,
                                                   "CodesTranspose"}, &n));
    *out = n->out[0];
    return qx_attr_set_ints(n, "perm", perm, 2);
}

/* The last node of the form, whose output is the operator's own. */
static qx_status end_as(qx_node *n, const char *op, qx_value *a, qx_value *b)
{
    while (n->n_attrs) QX_TRY(qx_attr_remove(n, n->attrs[n->n_attrs - 1].name));
    QX_TRY(qx_node_set_op(n, "", op));
    QX_TRY(qx_node_set_in(n, 0, a));
    if (b) QX_TRY(qx_node_set_in(n, 1, b));
    return qx_node_truncate_in(n, b ? 2 : 1);
}

typedef struct product { qx_graph *g; qx_node *node; const qx_type *y; const char *base; } product;

static qx_status put2(const product *p, const char *op, qx_value *a, qx_value *b, const qx_type *like, qx_dtype dtype,
                      const char *suffix, qx_value **out)
{
    qx_node *n;
    QX_TRY(qx_node_put(p->g, p->node, &(qx_new_node){op, {a, b}, b ? 2u : 1u, like, dtype, p->base, suffix}, &n));
    *out = n->out[0];
    return strcmp(op, "Cast") ? QX_OK : qx_attr_set_int(n, "to", dtype);
}

/* Both scales times the integer sums; the last product is left to the caller as a and b. */
static qx_status scaled(const product *p, const made *m, qx_value *sums, qx_value *w_scale, qx_value **a, qx_value **b)
{
    QX_TRY(put2(p, "Cast", sums, NULL, p->y, QX_DT_FLOAT, "Sums", a));
    if (m->kind == QX_DYNAMIC_TENSOR) return put2(p, "Mul", m->scale, w_scale, &w_scale->type, QX_DT_FLOAT, "Scales", b);
    *b = w_scale;
    return put2(p, "Mul", *a, m->scale, p->y, QX_DT_FLOAT, "Rows", a);
}

static qx_status write_one(qx_pipeline *pipe, qx_plan_item *it, qx_value *columns, qx_value *w_scale)
{
    qx_node *n = it->lin->node, *mm;
    const product p = {n->graph, n, &n->out[0]->type, n->out[0]->name};
    const qx_dtype type = it->lin->x->type.dtype;
    qx_value *bias = n->op->id == QX_OP_Gemm ? qx_node_in(n, 2) : NULL, *a, *b;
    const made *m;
    QX_TRY(codes_of(pipe, it->lin->x, it->dynamic, &m));
    QX_TRY(qx_node_put(p.g, n, &(qx_new_node){"MatMulInteger", {m->codes, columns, m->zero}, m->zero ? 3u : 2u, p.y, QX_DT_INT32, p.base,
                                              "MatMulInteger"}, &mm));
    QX_TRY(scaled(&p, m, mm->out[0], w_scale, &a, &b));
    if (!bias && type == QX_DT_FLOAT) return end_as(n, "Mul", a, b);
    QX_TRY(put2(&p, "Mul", a, b, p.y, QX_DT_FLOAT, "Scaled", &a));
    if (type != QX_DT_FLOAT && !bias) {
        QX_TRY(end_as(n, "Cast", a, NULL));
        return qx_attr_set_int(n, "to", type);
    }
    if (type != QX_DT_FLOAT) QX_TRY(put2(&p, "Cast", a, NULL, p.y, type, "Typed", &a));
    return end_as(n, "Add", a, bias);
}

qx_status qx_dynamic_write(qx_pipeline *pipe, const qx_plan_weight *w, qx_value *codes, qx_value *scale, bool *rest)
{
    qx_value *columns = NULL, *w_scale;
    *rest = false;
    for (int64_t i = 0; i < pipe->plan->linears.count; i++) {
        qx_plan_item *it = &pipe->plan->items[i];
        if (it->weight != w) continue;
        *rest |= !it->dynamic;
        if (!it->dynamic) continue;
        if (!columns) {
            QX_TRY(as_columns(w, it->lin, codes, &columns));
            QX_TRY(as_float(scale, w->value->graph->first, &w_scale));
        }
        QX_TRY(write_one(pipe, it, columns, w_scale));
    }
    return QX_OK;
}
