/* mixture.c - see mixture.h. What fits is what ONNX Runtime's CPU provider was seen to compute as written (1.32, beside float64): two
 * layers, swiglu interleaved, 4 bits in blocks or rows, 8 bits in rows (with blocks it rounds x to 8 bits too, 42 dB). It mixes by the
 * softmax over the chosen experts, whatever normalize_routing_weights says; where MoE means the softmax over all, that comes by an
 * input of its own. */
#include "passes/place/mixture.h"

#include <string.h>

#include "onnx/edit.h"
#include "onnx/weight/weight.h"
#include "passes/place/nodes.h"

/* Inputs of MoE and of QMoE. */
enum { FC1 = 2, FC1_BIAS = 3, FC2 = 4, FC2_BIAS = 5, FC3 = 6 };
enum { ROUTER = 1, CODES1 = 2, SCALE1 = 3, BIAS1 = 4, CODES2 = 5, SCALE2 = 6, BIAS2 = 7, ZERO1 = 11, ZERO2 = 12, WEIGHTS = 14 };
enum { LEAST_BLOCK = 16 };

static bool in_rows(const qx_plan_item *it) { return it->weight->spec.block == it->lin->k; }

static bool layer_fits(const qx_plan_item *it)
{
    const qx_plan_weight *w = it->weight;
    const int64_t block = w ? w->spec.block : 0;
    if (!w || w->items != 1 || it->lin->w_in != w->value || w->tensor->rank != 3 || block <= 0 || it->lin->k % block) return false;
    const bool four = w->spec.codes == QX_DT_INT4 || w->spec.codes == QX_DT_UINT4;
    if (in_rows(it)) return !w->spec.zero_point && (four ? block % LEAST_BLOCK == 0 : w->spec.codes == QX_DT_INT8);
    return four && block >= LEAST_BLOCK && (block & (block - 1)) == 0;
}

static bool node_fits(const qx_node *n)
{
    const bool swiglu = strcmp(qx_attr_string(n, "activation_type", "relu"), "swiglu") == 0;
    const qx_dtype type = n->in[0]->type.dtype;
    return !qx_node_in(n, FC3) && !qx_attr_int(n, "use_sparse_mixer", 0) && (!swiglu || qx_attr_int(n, "swiglu_fusion", 0) == 1) &&
        (type == QX_DT_FLOAT || type == QX_DT_FLOAT16);
}

/* What the first item of the node says holds for both: later ones are asked when the node is a QMoE already. */
bool qx_mixture_fits(const struct qx_pipeline *pipe, const qx_plan_item *it)
{
    if (!it->lin->mixture || pipe->opt->target != QX_TARGET_ORT) return false;
    const qx_plan_item *a = qx_plan_item_of(pipe->plan, it->lin->node), *b = a + 1;
    if (a->weight && a->weight->done) return it->lin->node->op->id == QX_OP_ms_QMoE;
    if (!node_fits(it->lin->node) || !a->pass || a->pass != b->pass || !layer_fits(a) || !layer_fits(b)) return false;
    const qx_qspec *p = &a->weight->spec, *q = &b->weight->spec;
    return p->codes == q->codes && p->zero_point == q->zero_point && in_rows(a) == in_rows(b) && (in_rows(a) || p->block == q->block);
}

int64_t qx_mixture_block(const struct qx_pipeline *pipe, const qx_plan_item *it, int64_t most)
{
    const qx_plan_item *a = qx_plan_item_of(pipe->plan, it->lin->node), *b = a + 1;
    int64_t block = LEAST_BLOCK;
    if (!node_fits(it->lin->node) || most < block || a->lin->k % block || b->lin->k % block) return most;
    while (block * 2 <= most && a->lin->k % (block * 2) == 0 && b->lin->k % (block * 2) == 0) block *= 2;
    return block;
}

static qx_status set_dims(qx_model *m, qx_weight *part, const qx_weight *like, bool blocks)
{
    int64_t *dims = qx_arena_array(m->arena, 3, sizeof *dims);
    if (!dims) return QX_E_NOMEM;
    dims[0] = like->dims[0];
    dims[1] = like->dims[1];
    dims[2] = part->numel / (dims[0] * dims[1]);
    part->dims = dims;
    part->rank = blocks ? 3 : 2;
    return QX_OK;
}

qx_status qx_mixture_shape(qx_model *m, const qx_plan_item *it)
{
    const qx_plan_weight *w = it->weight;
    for (int i = 0; i < QX_PART_COUNT_; i++)
        if (w->job->part[i]) QX_TRY(set_dims(m, w->job->part[i], w->tensor, i == QX_PART_CODES || !in_rows(it)));
    return QX_OK;
}

static qx_status put_in(qx_node *n, uint32_t index, qx_value *v)
{
    while (v && n->n_in < index) QX_TRY(qx_node_set_in(n, n->n_in, NULL));
    return v || index < n->n_in ? qx_node_set_in(n, index, v) : QX_OK;
}

/* Softmax over all experts, as the weights that the chosen ones are mixed with. */
static qx_status mix_by_all(qx_node *n)
{
    qx_node *softmax;
    qx_value *router = n->in[ROUTER];
    const char *base = n->name[0] ? n->name : n->out[0]->name;
    if (qx_attr_int(n, "normalize_routing_weights", 0)) return QX_OK;
    QX_TRY(qx_node_put(n->graph, n, &(qx_new_node){"Softmax", {router}, 1, &router->type, router->type.dtype, base, "router_weights"},
                       &softmax));
    QX_TRY(qx_attr_set_int(softmax, "axis", 1)); /* of two: what opsets below 13 mean by it too */
    return put_in(n, WEIGHTS, softmax->out[0]);
}

/* The second layer's weight moves to its new place, for its own turn. */
static qx_status become_coded(qx_node *n, const qx_plan_item *it)
{
    qx_value *bias1 = qx_node_in(n, FC1_BIAS), *second = n->in[FC2], *bias2 = qx_node_in(n, FC2_BIAS);
    const qx_qspec *s = &it->weight->spec;
    QX_TRY(qx_node_set_op(n, "com.microsoft", "QMoE"));
    QX_TRY(put_in(n, BIAS2, bias2));
    QX_TRY(put_in(n, CODES2, second));
    QX_TRY(put_in(n, BIAS1, bias1));
    QX_TRY(qx_attr_set_int(n, "expert_weight_bits", qx_dtype_bits(s->codes)));
    if (!in_rows(it)) QX_TRY(qx_attr_set_int(n, "block_size", s->block));
    return mix_by_all(n);
}

qx_status qx_mixture_layer(struct qx_pipeline *pipe, const qx_plan_item *it, qx_value *codes, qx_value *scale, qx_value *zero)
{
    qx_node *n = it->lin->node;
    const bool first = it == qx_plan_item_of(pipe->plan, n);
    if (first) QX_TRY(become_coded(n, it));
    QX_TRY(put_in(n, first ? CODES1 : CODES2, codes));
    QX_TRY(put_in(n, first ? SCALE1 : SCALE2, scale));
    return put_in(n, first ? ZERO1 : ZERO2, zero);
}
