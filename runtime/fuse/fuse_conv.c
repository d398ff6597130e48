/* fuse_conv.c - a convolution and what follows it as long as nothing else reads the result: a bias, BatchNormalization, which its
 * weights take in, the sum with another picture, an activation. In this order, any of them: steps less, and passes over the
 * picture less. Not the activations that take the library longer than us (SiLU, GELU). A BatchNormalization that stands alone
 * takes an activation too. */
#include <math.h>

#include "runtime/cpu/pointwise/activation.h"
#include "runtime/fuse/fuse.h"

static const struct row { qx_op_id op; qx_unary fn; const char *name[2]; float fallback[2]; } rows[] = {
    {QX_OP_Relu, QX_U_RELU, {NULL, NULL}, {0, 0}}, {QX_OP_LeakyRelu, QX_U_LEAKY_RELU, {"alpha", NULL}, {0.01f, 0}},
    {QX_OP_HardSwish, QX_U_HARDSWISH, {NULL, NULL}, {0, 0}}, {QX_OP_HardSigmoid, QX_U_HARDSIGMOID, {"alpha", "beta"}, {0.2f, 0.5f}},
    {QX_OP_Sigmoid, QX_U_SIGMOID, {NULL, NULL}, {0, 0}}, {QX_OP_Tanh, QX_U_TANH, {NULL, NULL}, {0, 0}},
};

/* A bound of Clip: attribute, constant input or missing. */
static bool bound(const qx_fuser *f, const qx_node *n, const char *name, uint32_t i, float fallback, float *out)
{
    double v = (double)qx_attr_float(n, name, fallback);
    if (qx_node_in(n, i) && !qx_fuse_scalar(f, n->in[i], &v)) return false;
    *out = (float)v;
    return true;
}

bool qx_fuse_clip(const qx_fuser *f, const qx_node *n, float *lo, float *hi)
{
    return bound(f, n, "min", 1, -INFINITY, lo) && bound(f, n, "max", 2, INFINITY, hi);
}

bool qx_fuse_activation(const qx_fuser *f, const qx_node *n, qx_activation *a)
{
    *a = (qx_activation){.clip = n->op->id == QX_OP_Clip};
    if (a->clip) return qx_fuse_clip(f, n, &a->p[0], &a->p[1]) && a->p[0] <= a->p[1];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].op == n->op->id) {
            a->fn = rows[i].fn;
            for (int k = 0; k < 2; k++) a->p[k] = rows[i].name[k] ? qx_attr_float(n, rows[i].name[k], rows[i].fallback[k]) : 0.0f;
            return true;
        }
    return false;
}

typedef struct chain { qx_rstep *last; const qx_value *v, *bias, *add, *norm[4]; qx_conv_params p; } chain; /* v: what it makes so far */

static void extend(chain *c, qx_rstep *reader)
{
    c->last = reader;
    c->v = reader->out_value[0];
}

/* One that does not train. */
static const qx_node *is_norm(const qx_rstep *s)
{
    const qx_node *n = qx_fuse_is(s, QX_OP_BatchNormalization);
    if (!n || s->ref_attrs || n->op->since < 7 || n->n_in != 5 || qx_attr_int(n, "training_mode", 0)) return NULL;
    for (uint32_t i = 1; i < n->n_out; i++)
        if (n->out[i]) return NULL;
    return n;
}

/* A constant of one number a channel, as exporters without biases add it. */
static void take_bias(const qx_fuser *f, chain *c, const qx_node *conv)
{
    qx_rstep *reader = qx_fuse_user(f, c->v);
    const qx_node *n = qx_fuse_is(reader, QX_OP_Add);
    const qx_type *y = &c->v->type;
    if (c->bias || !n || reader->ref_attrs || !y->has_shape || !qx_type_same_dims(&c->v->type, &n->out[0]->type)) return;
    const qx_value *b = n->in[0] == c->v ? n->in[1] : n->in[0];
    const qx_weight *k = qx_fuse_const(b), *w = qx_fuse_const(conv->in[1]);
    const int behind = y->rank - 2; /* axes behind the channels */
    if (!k || !w || k->dtype != y->dtype || k->rank <= behind || k->rank > y->rank || k->numel != w->dims[0] ||
        k->dims[k->rank - behind - 1] != k->numel)
        return;
    c->bias = qx_fuse_behind(b);
    extend(c, reader);
}

/* With constant statistics, behind constant weights. */
static void take_norm(const qx_fuser *f, chain *c, const qx_node *conv)
{
    qx_rstep *reader = qx_fuse_user(f, c->v);
    const qx_node *n = is_norm(reader);
    const qx_weight *w = qx_fuse_const(conv->in[1]);
    if (!n || !w) return;
    for (uint32_t i = 0; i < 4; i++) {
        const qx_weight *s = qx_fuse_const(n->in[1 + i]);
        if (!s || s->rank != 1 || s->numel != w->dims[0]) return;
        c->norm[i] = qx_fuse_behind(n->in[1 + i]);
    }
    c->p.norm = true;
    c->p.eps = qx_attr_float(n, "epsilon", 1e-5f);
    extend(c, reader);
}

static void take_add(const qx_fuser *f, chain *c)
{
    qx_rstep *reader;
    c->add = qx_fuse_with_same(f, c->v, QX_OP_Add, &reader);
    if (c->add) extend(c, reader);
}

/* A node, or the chain of nodes that stands for HardSwish. */
static void take_act(const qx_fuser *f, chain *c)
{
    qx_rstep *reader = qx_fuse_user(f, c->v), *act = qx_fuse_act_behind(f, c->v);
    qx_activation a;
    if (act && ((const qx_act_params *)act->fused)->act == QX_ACT_HARDSWISH) {
        c->p.act = (qx_activation){.fn = QX_U_HARDSWISH};
        extend(c, act);
        return;
    }
    if (!reader || reader->ref_attrs || !qx_fuse_activation(f, reader->node, &a)) return;
    c->p.act = a;
    extend(c, reader);
}

/* c->last runs `node`, whose attributes the adapter reads, and ends the chain. */
static qx_status finish(qx_fuser *f, const chain *c, const qx_node *node, qx_cpu_fn *fn, const qx_value *const *in, uint32_t n_in)
{
    qx_conv_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    *p = c->p;
    c->last->node = node;
    return qx_fuse_set(f, c->last, fn, p, in, n_in, c->v);
}

qx_status qx_fuse_batch_norm(qx_fuser *f, qx_rstep *s)
{
    const qx_node *n = is_norm(s);
    if (!n || f->x->device || !qx_dtype_is_real(n->out[0]->type.dtype)) return QX_OK;
    chain c = {.last = s, .v = n->out[0], .p.act.none = true};
    take_act(f, &c);
    return c.last == s ? QX_OK : finish(f, &c, n, qx_cpu_batch_norm, (const qx_value *const *)n->in, n->n_in);
}

qx_status qx_fuse_conv(qx_fuser *f, qx_rstep *s)
{
    const qx_node *conv = qx_fuse_is(s, QX_OP_Conv);
    if (!conv || f->x->device || !qx_dtype_is_real(conv->out[0]->type.dtype)) return QX_OK;
    chain c = {.last = s, .v = conv->out[0], .bias = qx_node_in(conv, 2), .p.act.none = true};
    take_bias(f, &c, conv);
    take_norm(f, &c, conv);
    take_add(f, &c);
    take_act(f, &c);
    if (c.last == s) return QX_OK;
    const qx_value *in[QX_CONV_NORM_INPUTS] = {conv->in[0], conv->in[1], c.bias, c.add, c.norm[0], c.norm[1], c.norm[2], c.norm[3]};
    return finish(f, &c, conv, qx_cpu_conv, in, c.p.norm ? QX_CONV_NORM_INPUTS : QX_CONV_INPUTS);
}
