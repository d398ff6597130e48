/* ort_products.c - products between codes, in the form that ONNX Runtime multiplies as integers. Before it looks for pairs it makes
 * one Gemm of a MatMul and the Add behind it, where x is a matrix or has no unknown dimension. Of a Gemm with a float bias, or with
 * a weight that has no zero point, it makes no integer one: the weight is dequantized at each run and multiplied in float (one row
 * of 512 by 512 x 512: 0.45 ms instead of 0.012). So the bias of a matrix's product is added behind a Gemm that has none, and that
 * of other products has too many dimensions to be a Gemm's. */
#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/linear/linear.h"
#include "passes/place/form.h"
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

/* ---- turned weights ---- */

static const int64_t swap[2] = {1, 0};

/* Codes, scales or zero points of a matrix, turned; those of one axis or none are as they were. */
static qx_status turn(qx_node *at, qx_value *v, const char *base, const char *what, qx_value **out)
{
    qx_node *n;
    *out = v;
    if (!v || v->type.rank != 2) return QX_OK;
    qx_dim dims[2] = {v->type.dims[1], v->type.dims[0]};
    qx_type t = v->type;
    t.dims = dims;
    QX_TRY(qx_node_put(at->graph, at, &(qx_new_node){"Transpose", {v}, 1, &t, v->type.dtype, base, what}, &n));
    *out = n->out[0];
    return qx_attr_set_ints(n, "perm", swap, 2);
}

/* What turns the weight that n reads: a Transpose of its dequantizer's result, or n itself; NULL: nothing, or not a matrix of codes. */
static qx_node *dequantizer_of(const qx_node *n, uint32_t index, bool *by_gemm)
{
    int64_t count = 0;
    qx_node *d = n->in[index]->def;
    *by_gemm = n->op->id == QX_OP_Gemm && index == 1 && qx_attr_int(n, "transB", 0);
    if (!d) return NULL;
    if (d->op->id == QX_OP_Transpose) {
        const int64_t *perm = qx_attr_ints(d, "perm", &count);
        if (*by_gemm || count != 2 || perm[0] != 1 || perm[1] != 0) return NULL;
        d = d->in[0]->def;
    } else if (!*by_gemm) return NULL;
    return d && d->op->id == QX_OP_DequantizeLinear && d->in[0]->type.has_shape && d->in[0]->type.rank == 2 ? d : NULL;
}

/* The dequantizer of codes that are turned, in place of turned results, which no integer product reads: codes are turned once, when the
 * model is loaded. */
static qx_status turn_codes(qx_node *n, uint32_t index, qx_node *dq)
{
    qx_value *old = n->in[index], *part[3];
    const int64_t axis = qx_attr_int(dq, "axis", 1), block = qx_attr_int(dq, "block_size", 0);
    qx_node *at = old->def == dq ? dq : old->def, *new;
    QX_TRY(turn(at, dq->in[0], old->name, "codes", &part[0]));
    QX_TRY(turn(at, dq->in[1], old->name, "scales", &part[1]));
    QX_TRY(turn(at, qx_node_in(dq, 2), old->name, "zero_points", &part[2]));
    QX_TRY(qx_node_put(n->graph, at, &(qx_new_node){"DequantizeLinear", {part[0], part[1], part[2]}, dq->n_in, &part[0]->type,
                                                    old->type.dtype, old->name, "DequantizeLinear"}, &new));
    if (dq->in[1]->type.rank) QX_TRY(qx_attr_set_int(new, "axis", 1 - (axis < 0 ? axis + 2 : axis)));
    if (block) QX_TRY(qx_attr_set_int(new, "block_size", block));
    return qx_node_set_in(n, index, new->out[0]);
}

/* ---- products ---- */

/* Whether ONNX Runtime has or makes a Gemm of n and its bias, which stays float; then the bias is added behind one that has none. */
static bool is_gemm(const qx_node *n, const qx_linear *l)
{
    const qx_type *t = &n->in[l->x_index]->type;
    if (n->op->id == QX_OP_MatMul && !l->bias_add) return false;
    if (t->rank != 2 || qx_graph_opset(n->graph, "") < OPSET_OPTIONAL_C || n->in[l->w_index]->type.rank != 2) return false;
    return n->op->id == QX_OP_MatMul ||
        (qx_attr_float(n, "alpha", 1) == 1 && qx_attr_float(n, "beta", 1) == 1 && !qx_attr_int(n, "transA", 0));
}

static qx_status keep_from_gemm(const qx_linear *l)
{
    qx_node *n = l->node;
    const qx_type *t = &n->in[l->x_index]->type;
    if (is_gemm(n, l)) return n->op->id == QX_OP_Gemm ? split_bias(n) : qx_node_set_op(n, "", "Gemm");
    return l->bias_add && t->rank > 2 && is_static(t) ? widen_bias(l, t->rank) : QX_OK;
}

static bool is_product_of(const qx_linear *l)
{
    const qx_node *n = l->node;
    const qx_type *t = &n->in[l->x_index]->type;
    return (n->op->id == QX_OP_MatMul || n->op->id == QX_OP_Gemm) && l->w_index == 1 && t->has_shape;
}

/* Of a weight alone ONNX Runtime makes MatMulNBits where a DequantizeLinear of [K, N] stands straight in front of the product (1.32: one
 * row of 512 by 512 x 1536 in 0.02 to 0.03 ms; behind a Transpose 0.14 in 8 bits, 1.3 in 4, in float 0.05). */
static qx_status straighten(const qx_pipeline *pipe, const qx_plan_item *it)
{
    qx_node *n = it->lin->node;
    bool by_gemm;
    if (!qx_form_becomes_nbits(pipe, it) || !is_product_of(it->lin)) return QX_OK;
    qx_node *dq = dequantizer_of(n, it->lin->w_index, &by_gemm);
    if (dq) QX_TRY(turn_codes(n, it->lin->w_index, dq));
    if (dq && by_gemm) QX_TRY(qx_attr_remove(n, "transB"));
    return keep_from_gemm(it->lin);
}

static qx_status write_product(const qx_linear *l)
{
    bool by_gemm;
    qx_node *n = l->node;
    if (!is_product_of(l) || n->in[l->x_index]->type.dtype != QX_DT_FLOAT) return QX_OK;
    qx_node *turned = dequantizer_of(n, l->w_index, &by_gemm);
    if (!by_gemm && has_int8_scales(turned, l->n)) QX_TRY(turn_codes(n, l->w_index, turned));
    qx_node *dq = n->in[l->w_index]->def;
    if (!has_int8_scales(dq, l->n)) return QX_OK;
    if (is_gemm(n, l)) QX_TRY(spell_zero(dq));
    return keep_from_gemm(l);
}

qx_status qx_ort_products(qx_pipeline *pipe)
{
    const qx_plan *plan = pipe->plan;
    for (int64_t i = 0; qx_target_has(pipe->opt->target, QX_TARGET_FUSES_CODES) && i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        if (!it->pass || !it->weight || it->lin->node->graph->function) continue;
        if (it->act == QX_DT_INT8 || it->act == QX_DT_UINT8) QX_TRY(write_product(it->lin));
        else QX_TRY(straighten(pipe, it));
    }
    return QX_OK;
}
