/* fuse_conv.c - the activation behind a convolution, worked out while the result is in registers: a step less, and a pass over the picture less. Not where
 * the library's own takes longer than ours (SiLU, GELU). */
#include <math.h>

#include "runtime/cpu/activation.h"
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

static bool read(const qx_fuser *f, const qx_node *n, qx_activation *a)
{
    *a = (qx_activation){.clip = n->op->id == QX_OP_Clip};
    if (a->clip) return bound(f, n, "min", 1, -INFINITY, &a->p[0]) && bound(f, n, "max", 2, INFINITY, &a->p[1]) && a->p[0] <= a->p[1];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].op == n->op->id) {
            a->fn = rows[i].fn;
            for (int k = 0; k < 2; k++) a->p[k] = rows[i].name[k] ? qx_attr_float(n, rows[i].name[k], rows[i].fallback[k]) : 0.0f;
            return true;
        }
    return false;
}

qx_status qx_fuse_conv(qx_fuser *f, qx_rstep *s)
{
    const qx_node *conv = qx_fuse_is(s, QX_OP_Conv);
    qx_rstep *act = conv && !f->x->device && conv->out[0]->type.dtype == QX_DT_FLOAT ? qx_fuse_user(f, conv->out[0]) : NULL;
    qx_activation a;
    if (!act || act->ref_attrs || !read(f, act->node, &a)) return QX_OK;
    qx_activation *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    *p = a;
    const qx_value *in[3] = {conv->in[0], conv->in[1], qx_node_in(conv, 2)};
    act->node = conv; /* whose attributes the adapter reads */
    return qx_fuse_set(f, act, qx_cpu_conv, p, in, 3, act->out_value[0]);
}
