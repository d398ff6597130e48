/* ort_products.c - products between codes, in the form that ONNX Runtime multiplies as integers. Before it looks for pairs it makes
 * one Gemm of a MatMul and the Add behind it, where x is a matrix or has no unknown dimension. Of a Gemm with a float bias, or with
 * a weight that has no zero point, it makes no integer one: the weight is dequantized at each run and multiplied in float (one row
 * of 512 by 512 x 512: 0.45 ms instead of 0.012). So the bias of a matrix's product is added behind a Gemm that has none, and that
 * of other products has too many dimensions to be a Gemm's. */
#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/linear/linear.h"
#include "passes/place/emit.h"
#include "passes/place/nodes.h"

enum { OPSET_OPTIONAL_C = 11 };

static bool has_int8_scales(const qx_node *dq, int64_t n)
{
    qx_const_view c;
    const qx_value *scale = dq ? qx_node_in(dq, 1) : NULL;
    return dq && dq->op->id == QX_OP_DequantizeLinear && qx_const_trace(dq->in[0], &c) && dq->in[0]->type.dtype == QX_DT_INT8 && scale &&
        scale->type.dtype == QX_DT_FLOAT && scale->type.has_shape && scale->type.rank <= 1 && !qx_attr_int(dq, "block_size", 0) && n > 0;
}

/* Zeros as the weight's zero points: what is left out means the same to everyone else. */
static qx_status spell_zero(qx_node *dq)
{
    const qx_type *t = &dq->in[1]->type;
    const int64_t n = t->rank ? t->dims[0].n : 1;
    qx_model *m = dq->graph->model;
    qx_weight *w;
    qx_value *zero;
    if (qx_node_in(dq, 2)) return QX_OK;
    int8_t *zeros = qx_arena_array(m->arena, (size_t)n, sizeof *zeros);
    const char *name = qx_arena_printf(m->arena, "%s_zp", dq->in[0]->name);
    if (!zeros || !name) return QX_E_NOMEM;
    memset(zeros, 0, (size_t)n);
    QX_TRY(qx_weight_from_bytes(m, QX_DT_INT8, t->rank, &n, zeros, &w));
    QX_TRY(qx_init_add(dq->in[1]->graph, name, w, &zero));
    return qx_node_set_in(dq, 2, zero);
}

/* y = x W' + c becomes y = (x W') + c. */
static qx_status split_bias(qx_node *gemm)
{
    qx_value *c = qx_node_in(gemm, 2), *y = gemm->out[0];
    qx_node *add;
    if (!c) return QX_OK;
    QX_TRY(qx_node_truncate_in(gemm, 2));
    QX_TRY(qx_attr_remove(gemm, "beta"));
    QX_TRY(qx_node_put(gemm->graph, gemm->next, &(qx_new_node){"Add", {y, c}, 2, &y->type, y->type.dtype, y->name, "Add"}, &add));
    QX_TRY(qx_value_replace_uses(y, add->out[0], add));
    return y->is_output ? qx_output_rewire(y, add->out[0]) : qx_value_swap_names(y, add->out[0]);
}

static bool is_static(const qx_type *t)
{
    for (int i = 0; i + 1 < t->rank; i++)
        if (t->dims[i].n < 0) return false;
    return true;
}

/* The same numbers as [1, ..., 1, n]. */
static qx_status widen_bias(const qx_linear *l, int rank)
{
    enum { MOST = 8 };
    qx_model *m = l->node->graph->model;
    const qx_weight *old = qx_value_const(l->bias);
    int64_t dims[MOST];
    qx_weight *w;
    qx_value *v;
    if (!old || old->rank != 1 || old->numel != l->n || rank > MOST) return QX_OK;
    void *bytes = qx_arena_array(m->arena, (size_t)old->bytes, 1);
    const char *name = qx_arena_printf(m->arena, "%s_row", l->bias->name);
    if (!bytes || !name) return QX_E_NOMEM;
    QX_TRY(qx_weight_read(m->ctx, old, bytes));
    for (int i = 0; i < rank; i++) dims[i] = i + 1 < rank ? 1 : old->numel;
    QX_TRY(qx_weight_from_bytes(m, old->dtype, rank, dims, bytes, &w));
    QX_TRY(qx_init_add(l->bias->graph, name, w, &v));
    for (uint32_t i = 0; i < l->bias_add->n_in; i++)
        if (l->bias_add->in[i] == l->bias) QX_TRY(qx_node_set_in(l->bias_add, i, v));
    return QX_OK;
}

/* The dequantizer of codes that are turned, in place of turned results, which no integer product reads: codes are turned once, when the
 * model is loaded. */
static qx_status turn_codes(const qx_linear *l)
{
    qx_node *n = l->node, *turn = n->in[l->w_index]->def, *dq = turn && turn->op->id == QX_OP_Transpose ? turn->in[0]->def : NULL, *new[2];
    int64_t count = 0;
    const int64_t *perm = dq ? qx_attr_ints(turn, "perm", &count) : NULL;
    if (!has_int8_scales(dq, l->n) || count != 2 || perm[0] != 1 || perm[1] != 0) return QX_OK;
    const qx_value *w = turn->out[0];
    const int64_t axis = qx_attr_int(dq, "axis", 1);
    QX_TRY(qx_node_put(n->graph, turn, &(qx_new_node){"Transpose", {dq->in[0]}, 1, &w->type, QX_DT_INT8, w->name, "codes"}, &new[0]));
    QX_TRY(qx_attr_set_ints(new[0], "perm", perm, count));
    QX_TRY(qx_node_put(n->graph, turn, &(qx_new_node){"DequantizeLinear", {new[0]->out[0], dq->in[1], qx_node_in(dq, 2)}, dq->n_in,
                                                      &w->type, QX_DT_FLOAT, w->name, "DequantizeLinear"}, &new[1]));
    if (dq->in[1]->type.rank) QX_TRY(qx_attr_set_int(new[1], "axis", 1 - (axis < 0 ? axis + 2 : axis)));
    return qx_node_set_in(n, l->w_index, new[1]->out[0]);
}

static qx_status write_product(const qx_linear *l)
{
    if (l->node->op->id == QX_OP_MatMul || l->node->op->id == QX_OP_Gemm) QX_TRY(turn_codes(l));
    qx_node *n = l->node, *dq = n->in[l->w_index]->def;
    const qx_type *t = &n->in[l->x_index]->type;
    const bool matmul = n->op->id == QX_OP_MatMul, gemm = n->op->id == QX_OP_Gemm;
    if ((!matmul && !gemm) || l->w_index != 1 || !t->has_shape || t->dtype != QX_DT_FLOAT || !has_int8_scales(dq, l->n)) return QX_OK;
    if (matmul && !l->bias_add) return QX_OK;
    if (matmul && t->rank > 2) return is_static(t) ? widen_bias(l, t->rank) : QX_OK;
    if (t->rank != 2 || qx_graph_opset(n->graph, "") < OPSET_OPTIONAL_C || dq->out[0]->type.rank != 2) return QX_OK;
    if (gemm && (qx_attr_float(n, "alpha", 1) != 1 || qx_attr_float(n, "beta", 1) != 1 || qx_attr_int(n, "transA", 0))) return QX_OK;
    QX_TRY(spell_zero(dq));
    return gemm ? split_bias(n) : qx_node_set_op(n, "", "Gemm");
}

qx_status qx_ort_products(qx_pipeline *pipe)
{
    const qx_plan *plan = pipe->plan;
    for (int64_t i = 0; pipe->opt->target == QX_TARGET_ORT && i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        if (it->pass && it->weight && (it->act == QX_DT_INT8 || it->act == QX_DT_UINT8) && !it->lin->node->graph->function)
            QX_TRY(write_product(it->lin));
    }
    return QX_OK;
}
