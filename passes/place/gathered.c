/* gathered.c - see gathered.h. Gather, Cast, Mul: operators that every runtime has, in every operator set, and that touch the rows asked
 * for. A DequantizeLinear in front of Gather dequantizes the whole table at each run. */
#include "passes/place/gathered.h"

#include "onnx/weight/weight.h"
#include "passes/place/nodes.h"

enum { MOST_AXES = 8, MIDDLE = 128 }; /* MIDDLE: MatMulNBits's codes are without sign */

/* One operator in front of the node, whose name it bears. b may be NULL. */
static qx_status put(qx_node *at, const char *op, qx_value *a, qx_value *b, qx_dtype type, const char *suffix, qx_value **out)
{
    qx_node *n;
    const qx_type unknown = {.kind = QX_KIND_TENSOR, .dtype = type};
    QX_TRY(qx_node_put(at->graph, at, &(qx_new_node){op, {a, b}, b ? 2u : 1u, &unknown, type, at->out[0]->name, suffix}, &n));
    *out = n->out[0];
    return QX_OK;
}

static qx_status put_ints(qx_node *at, const char *suffix, const int64_t *values, int64_t count, qx_value **out)
{
    qx_weight *w;
    const char *name = qx_arena_printf(at->graph->model->arena, "%s_%s", at->out[0]->name, suffix);
    if (!name) return QX_E_NOMEM;
    QX_TRY(qx_weight_from_bytes(at->graph->model, QX_DT_INT64, 1, &count, values, &w));
    return qx_init_add(at->graph, name, w, out);
}

/* A shape whose first axes are those of the indices, as they are. */
static qx_status put_shape(qx_node *at, const char *suffix, int64_t a, int64_t b, qx_value **out)
{
    int64_t dims[MOST_AXES + 2] = {0};
    const int lead = at->in[1]->type.rank;
    if (lead > MOST_AXES)
        QX_FAIL(at->graph->model->ctx, QX_E_UNSUPPORTED, "'%s': indices of %d axes, at most %d", at->name, lead, MOST_AXES);
    dims[lead] = a;
    dims[lead + 1] = b;
    return put_ints(at, suffix, dims, lead + (b ? 2 : 1), out);
}

/* The rows asked for as numbers, before their scales: [..., k], or [..., blocks, block]. */
static qx_status put_codes(const qx_plan_item *it, qx_value *codes, qx_value **out)
{
    qx_node *n = it->lin->node, *cast;
    qx_value *middle, *shape;
    const int64_t block = it->weight->spec.block;
    const qx_dtype type = it->weight->tensor->dtype;
    QX_TRY(put(n, "Gather", codes, n->in[1], codes->type.dtype, "Gather", out));
    QX_TRY(put(n, "Cast", *out, NULL, type, "Cast", out));
    cast = (*out)->def;
    QX_TRY(qx_attr_set_int(cast, "to", type));
    if (codes->type.dtype == QX_DT_UINT8) {
        QX_TRY(qx_scalar_put(n->graph, n->out[0]->name, "middle", type, MIDDLE, &middle));
        return put(n, "Sub", *out, middle, type, "Sub", out);
    }
    if (block <= 0) return QX_OK;
    QX_TRY(put_shape(n, "blocks", it->lin->k / block, block, &shape));
    return put(n, "Reshape", *out, shape, type, "Blocks", out);
}

/* Scales get their last axis before rows are picked: a head that shares them then has its own, once constants are folded, and only so does
 * ONNX Runtime make MatMulNBits of it. */
qx_status qx_gathered_rows(qx_plan_item *it, qx_value *codes, qx_value *scale)
{
    qx_node *n = it->lin->node;
    qx_value *axes, *q, *s;
    const qx_dtype type = it->weight->tensor->dtype;
    const bool blocks = it->weight->spec.block > 0;
    QX_TRY(put_ints(n, "axes", &(int64_t){-1}, 1, &axes));
    QX_TRY(put_codes(it, codes, &q));
    QX_TRY(put(n, "Unsqueeze", scale, axes, scale->type.dtype, "Unsqueeze", &s)); /* of a constant: done when the model is loaded */
    QX_TRY(put(n, "Gather", s, n->in[1], scale->type.dtype, "GatherScale", &s));
    if (scale->type.dtype != type) {
        QX_TRY(put(n, "Cast", s, NULL, type, "CastScale", &s));
        QX_TRY(qx_attr_set_int(s->def, "to", type));
    }
    if (blocks) {
        QX_TRY(put(n, "Mul", q, s, type, "Mul", &q));
        QX_TRY(put_shape(n, "shape", it->lin->k, 0, &s));
    }
    QX_TRY(qx_node_set_op(n, "", blocks ? "Reshape" : "Mul"));
    QX_TRY(qx_attr_remove(n, "axis"));
    QX_TRY(qx_node_set_in(n, 0, q));
    return qx_node_set_in(n, 1, s);
}

qx_status qx_gathered_half(qx_plan_item *it, qx_value *table)
{
    qx_node *n = it->lin->node;
    qx_value *rows;
    QX_TRY(put(n, "Gather", table, n->in[1], table->type.dtype, "Gather", &rows));
    QX_TRY(qx_node_set_op(n, "", "Cast"));
    QX_TRY(qx_attr_remove(n, "axis"));
    QX_TRY(qx_attr_set_int(n, "to", it->weight->tensor->dtype));
    QX_TRY(qx_node_truncate_in(n, 1));
    return qx_node_set_in(n, 0, rows);
}
