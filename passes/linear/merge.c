/* merge.c - see merge.h. Runtimes do this to a float model when they load it, and cannot any more once the weight is codes: ONNX Runtime
 * then runs each as a pass of its own over the convolution's output. */
#include "passes/linear/merge.h"

#include <math.h>

#include "onnx/edit.h"
#include "onnx/weight/weight.h"
#include "passes/linear/bias.h"
#include "passes/linear/store.h"

/* y = scale[c] v + shift[c], for channels 0..n-1. */
typedef struct affine { qx_ctx *ctx; int64_t n; int rank; float *scale, *shift, *room; } affine;

/* Whether v's one axis that is not 1 meets the channels of [N, C, ...]. */
static bool meets_channels(const affine *a, const qx_type *t)
{
    if (!t->has_shape || t->rank > a->rank) return false;
    for (int i = 0; i < t->rank; i++)
        if (t->dims[i].n != 1 && i != t->rank - (a->rank - 1)) return false;
    return true;
}

/* A float32 constant as one number a channel, into a->room: a vector of the channels' own, or what broadcasts to them. With one axis that
 * counts, what a Reshape or Transpose did to it does not. */
static qx_status read_channels(affine *a, const qx_value *v, bool own, bool *found)
{
    qx_const_view c;
    *found = false;
    if (!v || v->type.dtype != QX_DT_FLOAT || !qx_const_trace(v, &c) || c.quantized || c.tensor->dtype != QX_DT_FLOAT) return QX_OK;
    const qx_weight *w = c.tensor;
    if (w->numel != a->n && (own || w->numel != 1)) return QX_OK;
    if (own ? w->rank != 1 : !meets_channels(a, &v->type)) return QX_OK;
    QX_TRY(qx_weight_read_f32(a->ctx, w, 0, w->numel, a->room));
    for (int64_t i = w->numel; i < a->n; i++) a->room[i] = a->room[0];
    *found = true;
    return QX_OK;
}

static qx_status take_arithmetic(affine *a, const qx_node *n, const qx_value *v, bool *taken)
{
    const qx_value *x = qx_node_in(n, 0), *y = qx_node_in(n, 1);
    *taken = false;
    if (x == y || n->n_in != 2) return QX_OK;
    QX_TRY(read_channels(a, x == v ? y : x, false, taken));
    for (int64_t c = 0; c < a->n && *taken; c++) {
        if (n->op->id == QX_OP_Mul) a->scale[c] *= a->room[c], a->shift[c] *= a->room[c];
        else a->shift[c] += a->room[c];
    }
    return QX_OK;
}

static bool is_inference(const qx_node *n)
{
    const int64_t opset = qx_graph_opset(n->graph, "");
    return n->n_out == 1 && qx_attr_int(n, "training_mode", 0) == 0 && qx_attr_int(n, "spatial", 1) == 1 &&
        (opset >= 7 || qx_attr_int(n, "is_test", 0) == 1);
}

/* (v - mean) gamma / sqrt(variance + epsilon) + beta */
static qx_status take_batch_norm(affine *a, const qx_node *n, bool *taken)
{
    enum { GAMMA = 1, BETA, MEAN, VARIANCE, END };
    const float epsilon = qx_attr_float(n, "epsilon", 1e-5f);
    float *p[END] = {NULL};
    qx_status st = QX_OK;
    *taken = is_inference(n);
    for (uint32_t i = GAMMA; i < END && *taken && st == QX_OK; i++) {
        st = read_channels(a, qx_node_in(n, i), true, taken);
        if (st == QX_OK && *taken) st = qx_alloc_raw(a->ctx, (size_t)a->n * sizeof **p, (void **)&p[i]);
        for (int64_t c = 0; c < a->n && *taken && st == QX_OK; c++) p[i][c] = a->room[c];
    }
    for (int64_t c = 0; c < a->n && *taken && st == QX_OK; c++) {
        const float s = p[GAMMA][c] / sqrtf(p[VARIANCE][c] + epsilon);
        a->scale[c] *= s;
        a->shift[c] = (a->shift[c] - p[MEAN][c]) * s + p[BETA][c];
    }
    for (int i = GAMMA; i < END; i++) qx_free(a->ctx, p[i]);
    return st;
}

/* The one reader of v when it is such an operator, which is then part of `a`; NULL: another. */
static qx_status take_next(affine *a, const qx_value *v, qx_node **next)
{
    qx_node *n = v->n_uses == 1 && !v->is_output ? v->uses->node : NULL;
    bool taken = false;
    *next = NULL;
    if (!n || n->graph != v->graph) return QX_OK;
    if (n->op->id == QX_OP_BatchNormalization && v == n->in[0]) QX_TRY(take_batch_norm(a, n, &taken));
    else if (n->op->id == QX_OP_Mul || n->op->id == QX_OP_Add) QX_TRY(take_arithmetic(a, n, v, &taken));
    if (taken) *next = n;
    return QX_OK;
}

static bool is_finite(const affine *a)
{
    for (int64_t c = 0; c < a->n; c++)
        if (!isfinite(a->scale[c]) || !isfinite(a->shift[c])) return false;
    return true;
}

/* v, the convolution's output, becomes what the last of the merged nodes made, under that one's name. */
static qx_status take_place(qx_value *v, qx_node *last, int64_t *gone)
{
    qx_value *end = last->out[0];
    QX_TRY(qx_value_replace_uses(end, v, NULL));
    QX_TRY(end->is_output ? qx_output_rewire(end, v) : qx_value_swap_names(end, v));
    for (qx_node *n = last; n && n != v->def; (*gone)++) {
        qx_const_view c;
        qx_node *before = qx_const_trace(n->in[0], &c) ? n->in[1]->def : n->in[0]->def;
        QX_TRY(qx_node_erase(n));
        n = before;
    }
    return QX_OK;
}

static bool is_candidate(const qx_linear *l)
{
    const qx_value *w = l->w_init;
    return l->w && l->node->op->id == QX_OP_Conv && l->w->dtype == QX_DT_FLOAT && l->w_in == w && w->n_uses == 1 && !w->is_output &&
        !w->is_input && qx_bias_can_change(l);
}

static qx_status merge(qx_model *m, qx_linear *l, int64_t *gone)
{
    const size_t n = (size_t)l->n;
    affine a = {.ctx = m->ctx, .n = l->n, .rank = l->window.rank + 2};
    qx_node *last = NULL, *next;
    a.scale = qx_arena_array(m->arena, n, sizeof *a.scale); /* of the step, which lives as long as the model */
    a.shift = qx_arena_array(m->arena, n, sizeof *a.shift);
    if (!a.scale || !a.shift) return QX_E_NOMEM;
    for (size_t c = 0; c < n; c++) a.scale[c] = 1;
    QX_TRY(qx_alloc_raw(m->ctx, n * sizeof *a.room, (void **)&a.room));
    qx_status st = take_next(&a, l->node->out[0], &next);
    while (st == QX_OK && next) {
        last = next;
        st = take_next(&a, last->out[0], &next);
    }
    qx_free(m->ctx, a.room);
    if (st != QX_OK || !last || !is_finite(&a)) return st;
    QX_TRY(qx_store_inputs(m, l, &qx_step_scale_rows, a.scale));
    QX_TRY(qx_bias_change(m, l, a.scale, a.shift));
    return take_place(l->node->out[0], last, gone);
}

qx_status qx_merge_scales(qx_model *m, int64_t *merged)
{
    qx_linears all;
    int64_t gone = 0;
    QX_TRY(qx_linears_find(m, &all));
    for (int64_t i = 0; i < all.count; i++)
        if (is_candidate(&all.items[i])) QX_TRY(merge(m, &all.items[i], &gone));
    if (merged) *merged = gone;
    return QX_OK;
}
