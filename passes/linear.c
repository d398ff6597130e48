/* linear.c - finds linear operators by structure: what their weight is, how it is stored, who shares an input. */
#include "passes/linear.h"

#include <string.h>

#include "base/checked.h"
#include "onnx/weight.h"

/* Product of the stored dims before and after the channel axis: the view W[n, k] of weight.h. */
static bool view_of(const qx_weight *w, int channel, qx_view *v)
{
    *v = (qx_view){w->dims[channel], 1, 1};
    return qx_dims_product(w->dims, channel, &v->outer) && qx_dims_product(w->dims + channel + 1, w->rank - channel - 1, &v->inner) &&
           w->numel > 0 && qx_dtype_is_float(w->dtype);
}

static void set_weight(qx_linear *l, const qx_const_view *c, int channel_axis, int contract_axis)
{
    if (channel_axis < 0 || contract_axis < 0 || !view_of(c->tensor, channel_axis, &l->view)) return;
    l->w_init = c->value;
    l->w = c->tensor;
    l->channel_axis = channel_axis;
    l->contract_axis = contract_axis;
    l->n = l->view.n;
    l->k = qx_view_k(&l->view);
}

static void read_matmul(qx_linear *l, const qx_const_view *c)
{
    bool trans = qx_attr_int(l->node, "transB", 0) != 0; /* Gemm, FusedMatMul */
    int n = c->rank - 1 - trans, k = c->rank - 2 + trans;
    if (c->rank < 2) return;
    set_weight(l, c, c->axes[n], c->axes[k]);
}

static void fill3(int64_t *out, const int64_t *values, int64_t count, int rank, int64_t fallback)
{
    for (int i = 0; i < 3; i++) out[i] = values && i < rank && i < count ? values[i] : fallback;
}

/* SAME_UPPER and SAME_LOWER: total padding from the input size where it is known (else left 0). */
static void same_pads(qx_linear *l, bool lower)
{
    const qx_type *t = &l->x->type;
    qx_conv_window *w = &l->window;
    for (int i = 0; i < w->rank; i++) {
        if (!t->has_shape || t->rank != w->rank + 2 || t->dims[i + 2].n < 0) continue;
        int64_t in = t->dims[i + 2].n, out = (in + w->stride[i] - 1) / w->stride[i];
        int64_t total = (out - 1) * w->stride[i] + (w->kernel[i] - 1) * w->dilation[i] + 1 - in;
        if (total < 0) total = 0;
        w->pad_begin[i] = lower ? (total + 1) / 2 : total / 2;
        w->pad_end[i] = total - w->pad_begin[i];
    }
}

static void read_window(qx_linear *l, const qx_weight *w)
{
    const qx_node *n = l->node;
    int64_t count;
    int rank = w->rank - 2;
    l->window = (qx_conv_window){.rank = rank, .group = l->group};
    fill3(l->window.kernel, w->dims + 2, rank, rank, 1);
    const int64_t *v = qx_attr_ints(n, "strides", &count);
    fill3(l->window.stride, v, count, rank, 1);
    v = qx_attr_ints(n, "dilations", &count);
    fill3(l->window.dilation, v, count, rank, 1);
    v = qx_attr_ints(n, "pads", &count);
    bool pads = v && count == 2 * rank;
    fill3(l->window.pad_begin, pads ? v : NULL, rank, rank, 0);
    fill3(l->window.pad_end, pads ? v + rank : NULL, rank, rank, 0);
    const char *mode = qx_attr_string(n, "auto_pad", "NOTSET");
    if (strncmp(mode, "SAME_", 5) == 0) same_pads(l, strcmp(mode, "SAME_LOWER") == 0);
}

static void read_conv(qx_linear *l, const qx_const_view *c)
{
    bool transposed = l->node->op->id == QX_OP_ConvTranspose;
    bool plain = c->rank == c->tensor->rank && c->rank >= 3 && c->rank <= 5;
    for (int i = 0; i < c->rank; i++) plain = plain && c->axes[i] == i;
    if (!plain) return;
    set_weight(l, c, transposed ? 1 : 0, transposed ? 0 : 1);
    if (l->w) read_window(l, l->w);
}

static bool is_variable(const qx_value *v)
{
    qx_const_view c;
    return !qx_const_trace(v, &c) && !c.quantized;
}

/* Constant operand of an Add that is the only use of v. */
static void read_bias_add(qx_linear *l)
{
    qx_value *y = l->node->out[0];
    if (!y || y->n_uses != 1 || y->is_output || y->uses->node->op->id != QX_OP_Add) return;
    qx_node *add = y->uses->node;
    qx_value *other = add->in[1 - y->uses->index];
    if (!other || other == y || is_variable(other)) return;
    l->bias = other;
    l->bias_add = add;
}

static void read_bias(qx_linear *l)
{
    qx_op_id id = l->node->op->id;
    if (id == QX_OP_MatMul || id == QX_OP_ms_FusedMatMul) { read_bias_add(l); return; }
    qx_value *b = qx_node_in(l->node, 2);
    if (b && !is_variable(b)) l->bias = b;
}

static bool is_candidate(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_MatMul: case QX_OP_Gemm: case QX_OP_Conv: case QX_OP_ConvTranspose: case QX_OP_ms_FusedMatMul: return qx_node_in(n, 0) && qx_node_in(n, 1);
    default: return false;
    }
}

static void read_linear(qx_node *n, qx_linear *l)
{
    qx_const_view c;
    *l = (qx_linear){.node = n, .x = n->in[0], .x_index = 0, .w_index = 1, .w_in = n->in[1], .group = qx_attr_int(n, "group", 1)};
    l->is_conv = n->op->id == QX_OP_Conv || n->op->id == QX_OP_ConvTranspose;
    bool constant = qx_const_trace(l->w_in, &c);
    l->quantized = c.quantized;
    if (constant) (l->is_conv ? read_conv : read_matmul)(l, &c);
    if (constant && is_variable(l->x)) read_bias(l);
}

typedef struct finder { qx_model *m; qx_linears *out; int64_t cap; int32_t *group_of; } finder;

static qx_status visit(void *user, qx_node *n)
{
    finder *f = user;
    qx_linears *ls = f->out;
    if (!is_candidate(n)) return QX_OK;
    if (ls->count == f->cap) {
        int64_t cap = f->cap ? f->cap * 2 : 64;
        qx_linear *p = qx_arena_array(f->m->arena, (size_t)cap, sizeof *p);
        if (!p) return QX_E_NOMEM;
        if (ls->count) memcpy(p, ls->items, (size_t)ls->count * sizeof *p);
        ls->items = p;
        f->cap = cap;
    }
    qx_linear *l = &ls->items[ls->count];
    read_linear(n, l);
    l->index = ls->count++;
    if (f->group_of[l->x->id] == 0) f->group_of[l->x->id] = (int32_t)++ls->n_groups;
    l->group_id = f->group_of[l->x->id] - 1;
    return QX_OK;
}

qx_status qx_linears_find(qx_model *m, qx_linears *out)
{
    *out = (qx_linears){0};
    finder f = {m, out, 0, NULL};
    QX_TRY(qx_alloc_array(m->ctx, m->n_values + 1, sizeof *f.group_of, (void **)&f.group_of));
    qx_status st = qx_model_each_node(m, visit, &f);
    qx_free(m->ctx, f.group_of);
    return st;
}

/* ---- attention ---------------------------------------------------------------------------------------------------- */

enum { MAX_WALK = 8 };

static bool is_wild(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_Reshape: case QX_OP_Transpose: case QX_OP_Flatten: case QX_OP_Cast: case QX_OP_Identity: case QX_OP_Dropout: case QX_OP_Squeeze:
    case QX_OP_Unsqueeze: return true;
    default: return false;
    }
}

/* Upwards from the Softmax through a scale (Mul, Div) and a mask (Add, Where) to a MatMul of two variable values. */
static qx_node *find_qk(qx_node *softmax, qx_value **mask)
{
    qx_value *v = softmax->in[0];
    for (int i = 0; i < MAX_WALK && v && v->def; i++) {
        qx_node *n = v->def;
        qx_op_id id = n->op->id;
        if (id == QX_OP_MatMul) return is_variable(n->in[0]) && is_variable(n->in[1]) ? n : NULL;
        if (is_wild(n)) { v = n->in[0]; continue; }
        if (id != QX_OP_Add && id != QX_OP_Mul && id != QX_OP_Div && id != QX_OP_Where) return NULL;
        if (id == QX_OP_Where) { /* Where(keep, scores, fill) or the other way round */
            v = n->in[1]->def ? n->in[1] : n->in[2];
            *mask = n->in[0];
            continue;
        }
        bool first = n->in[0]->def && n->in[0]->def->op->id != QX_OP_Constant && (is_wild(n->in[0]->def) || n->in[0]->def->op->traits & (QX_T_LINEAR | QX_T_POINTWISE));
        if (id == QX_OP_Add) *mask = n->in[first ? 1 : 0];
        v = n->in[first ? 0 : 1];
    }
    return NULL;
}

static qx_node *find_pv(qx_node *softmax)
{
    qx_value *v = softmax->out[0];
    for (int i = 0; i < MAX_WALK && v && v->n_uses == 1; i++) {
        qx_node *n = v->uses->node;
        if (n->op->id == QX_OP_MatMul) return v->uses->index == 0 && is_variable(n->in[1]) ? n : NULL;
        if (!is_wild(n)) return NULL;
        v = n->out[0];
    }
    return NULL;
}

static int64_t head_size(const qx_node *qk)
{
    const qx_type *k = &qk->in[1]->type, *q = &qk->in[0]->type;
    if (k->has_shape && k->rank >= 2 && k->dims[k->rank - 2].n > 0) return k->dims[k->rank - 2].n;
    if (q->has_shape && q->rank >= 2 && q->dims[q->rank - 1].n > 0) return q->dims[q->rank - 1].n;
    return -1;
}

typedef struct attention_finder { qx_model *m; qx_attention *items; int64_t count, cap; } attention_finder;

static qx_status visit_softmax(void *user, qx_node *n)
{
    attention_finder *f = user;
    if (n->op->id != QX_OP_Softmax || !qx_node_in(n, 0)) return QX_OK;
    qx_attention a = {.softmax = n};
    a.qk = find_qk(n, &a.mask);
    a.pv = find_pv(n);
    if (!a.qk || !a.pv) return QX_OK;
    a.head_size = head_size(a.qk);
    if (f->count == f->cap) {
        int64_t cap = f->cap ? f->cap * 2 : 32;
        qx_attention *p = qx_arena_array(f->m->arena, (size_t)cap, sizeof *p);
        if (!p) return QX_E_NOMEM;
        if (f->count) memcpy(p, f->items, (size_t)f->count * sizeof *p);
        f->items = p;
        f->cap = cap;
    }
    f->items[f->count++] = a;
    return QX_OK;
}

qx_status qx_attentions_find(qx_model *m, qx_attention **out, int64_t *count)
{
    attention_finder f = {m, NULL, 0, 0};
    QX_TRY(qx_model_each_node(m, visit_softmax, &f));
    *out = f.items;
    *count = f.count;
    return QX_OK;
}
