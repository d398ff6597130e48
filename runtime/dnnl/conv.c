/* conv.c - direct convolution by oneDNN. (The bits of its Winograd kernels depend on the number of threads, which decides by
 * which of them it cuts the channels.) */
#include "runtime/dnnl/door.h"

#ifdef QONNX_HAVE_DNNL
#include <math.h>
#include <string.h>

#include "runtime/dnnl/dn.h"

struct qx_dnnl_conv { bool free_layout; /* no kernel for the layouts that the plan wants: reordered at the call */ qx_dn_weights w; };

void qx_dnnl_conv_free(qx_ctx *ctx, qx_dnnl_conv *s)
{
    if (!s) return;
    qx_dn_weights_drop(ctx, &s->w);
    qx_free(ctx, s);
}

typedef struct conv_form {
    bool free_layout, bias, add;
    const qx_activation *act;
    /* NULL: none */ const dnnl_memory_desc_t *wei; /* NULL: the library chooses */
} conv_form;

/* The library's name of an activation, two for HardSigmoid; false: it has none. */
typedef struct eltwise { int n; dnnl_alg_kind_t alg[2]; float alpha[2], beta[2]; } eltwise;
static bool eltwise_of(const qx_activation *a, eltwise *e)
{
    const float p = a->p[0], q = a->p[1];
    if (a->clip) return *e = (eltwise){1, {dnnl_eltwise_clip}, {p}, {q}}, isfinite(p) && isfinite(q);
    switch (a->fn) {
    case QX_U_RELU: *e = (eltwise){1, {dnnl_eltwise_relu}, {0}, {0}}; return true;
    case QX_U_LEAKY_RELU: *e = (eltwise){1, {dnnl_eltwise_relu}, {p}, {0}}; return true;
    case QX_U_HARDSWISH: *e = (eltwise){1, {dnnl_eltwise_hardswish}, {0}, {0}}; return true;
    case QX_U_HARDSIGMOID: *e = (eltwise){2, {dnnl_eltwise_linear, dnnl_eltwise_clip}, {p, 0}, {q, 1}}; return true;
    case QX_U_SIGMOID: *e = (eltwise){1, {dnnl_eltwise_logistic}, {0}, {0}}; return true;
    case QX_U_TANH: *e = (eltwise){1, {dnnl_eltwise_tanh}, {0}, {0}}; return true;
    default: return false;
    }
}

/* The sum with a picture laid out as y, then the activation. */
static qx_status conv_attr(qx_call *c, const conv_form *f, const dnnl_memory_desc_t *y, dnnl_primitive_attr_t *out)
{
    dnnl_post_ops_t po = NULL;
    eltwise e = {.n = 0};
    QX_TRY(qx_dn_attr(c, QX_ACT_NONE, NULL, NULL, out));
    if (f->act) eltwise_of(f->act, &e);
    if (!e.n && !f->add) return QX_OK;
    QX_DN(c, dnnl_post_ops_create(&po));
    dnnl_status_t d = f->add ? dnnl_post_ops_append_binary(po, dnnl_binary_add, y) : dnnl_success;
    for (int i = 0; i < e.n && d == dnnl_success; i++) d = dnnl_post_ops_append_eltwise(po, 1.0f, e.alg[i], e.alpha[i], e.beta[i]);
    if (d == dnnl_success) d = dnnl_primitive_attr_set_post_ops(*out, po);
    dnnl_post_ops_destroy(po);
    QX_DN(c, d);
    return QX_OK;
}

/* Layout of a picture: the blocked one that the plan wants, or what the library likes (bfloat16 is copied anyway). */
static qx_status picture_md(qx_call *c, int n, const int64_t *dims, int block, bool free_layout, dnnl_data_type_t type,
                            dnnl_memory_desc_t *md)
{
    return block && !free_layout && type == dnnl_f32 ? qx_dn_blocked_md(c, dims, block, md) : qx_dn_typed_md(c, md, n, dims, type, NULL);
}

/* How a picture lies in the model's memory. */
static qx_status model_md(qx_call *c, int n, const int64_t *dims, int block, dnnl_memory_desc_t *md)
{
    int64_t strides[5];
    if (block) return qx_dn_blocked_md(c, dims, block, md);
    qx_strides(dims, n, strides);
    return qx_dn_strided_md(c, md, n, dims, strides);
}

static qx_status conv_prim(qx_call *c, qx_dn *l, const qx_conv_shape *s, const conv_form *f, qx_dn_prim *p)
{
    int64_t dx[5], dw[6], dy[5];
    dnnl_memory_desc_t x, w, y, have_x, have_y;
    dnnl_convolution_desc_t d;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_dims_t strides, dilates, begin, end;
    const dnnl_data_type_t type = qx_call_bf16(c) ? dnnl_bf16 : dnnl_f32;
    int n = qx_dn_conv_dims(s, dx, dw, dy);
    QX_TRY(picture_md(c, n, dx, s->x_block, f->free_layout, type, &x));
    QX_TRY(picture_md(c, n, dy, s->y_block, f->free_layout, dnnl_f32, &y));
    if (f->wei) w = *f->wei;
    else QX_TRY(qx_dn_typed_md(c, &w, n + (s->group > 1), dw, type, NULL));
    QX_TRY(qx_dn_strided_md(c, &p->bias, 1, &s->out_ch, (int64_t[]){1}));
    for (int i = 0; i < s->spatial; i++) {
        strides[i] = s->stride[i];
        dilates[i] = s->dilation[i] - 1;
        begin[i] = s->begin[i];
        end[i] = s->end[i];
    }
    dnnl_status_t ds = dnnl_dilated_convolution_forward_desc_init(&d, dnnl_forward_inference, dnnl_convolution_direct, &x, &w,
                                                                  f->bias ? &p->bias : NULL, &y, strides, dilates, begin, end);
    if (ds == dnnl_unimplemented) return QX_OK;
    QX_DN(c, ds);
    qx_status st = conv_attr(c, f, &y, &attr);
    if (st == QX_OK) st = qx_dn_prim_make(c, l, &d, attr, qx_dn_stable, p);
    if (attr) dnnl_primitive_attr_destroy(attr);
    QX_TRY(st);
    QX_TRY(model_md(c, n, dx, s->x_block, &have_x));
    QX_TRY(model_md(c, n, dy, s->y_block, &have_y));
    qx_dn_prim_have(p, &have_x, &have_y);
    return QX_OK;
}

/* With the layouts that the plan wants, or else with any. f says which it was. */
static qx_status conv_choose(qx_call *c, qx_dn *l, const qx_conv_shape *s, conv_form *f, qx_dn_prim *p)
{
    QX_TRY(conv_prim(c, l, s, f, p));
    if (p->p || (!s->x_block && !s->y_block)) return QX_OK;
    f->free_layout = true;
    return conv_prim(c, l, s, f, p);
}

qx_status qx_dnnl_conv_new(qx_call *c, const qx_conv_shape *shape, const float *w, qx_dnnl_conv **out)
{
    qx_dn *l = NULL;
    qx_dn_prim p = {.p = NULL};
    int64_t dx[5], dw[6], dy[5], strides[6];
    dnnl_memory_desc_t plain;
    *out = NULL;
    QX_TRY(qx_dn_get(c, qx_dn_conv_flops(shape), &l));
    int n = qx_dn_conv_dims(shape, dx, dw, dy) + (shape->group > 1);
    conv_form f = {.bias = true};
    QX_TRY(conv_choose(c, l, shape, &f, &p));
    if (!p.p) return QX_OK;
    dnnl_memory_desc_t md = p.wei;
    qx_dn_prim_drop(&p);
    qx_dnnl_conv *s = NULL;
    QX_TRY(QX_NEW(c->ctx, &s));
    s->free_layout = f.free_layout;
    qx_strides(dw, n, strides);
    qx_status st = qx_dn_strided_md(c, &plain, n, dw, strides);
    if (st == QX_OK) st = qx_dn_repack(c, l, &s->w, &plain, w, &md);
    if (st != QX_OK) {
        qx_dnnl_conv_free(c->ctx, s);
        return st;
    }
    *out = s;
    return QX_OK;
}

static qx_status conv_find(qx_call *c, qx_dn *l, qx_dnnl_conv *s, const qx_conv_shape *shape, const qx_conv_op *op, qx_dn_prim **out)
{
    int64_t key[10] = {shape->batch, shape->in[0], shape->in[1], shape->in[2], op->bias != NULL, shape->x_block, shape->y_block,
                       op->add != NULL, !op->act->none};
    eltwise e;
    bool found;
    qx_dn_prim *p = qx_dn_prim_slot(s->w.cache, key, &s->w.clock, &found);
    *out = p;
    if (found) return QX_OK;
    conv_form f = {.free_layout = s->free_layout, .bias = op->bias != NULL, .wei = &s->w.md};
    /* what is added lies as y does */
    if ((op->act->none || eltwise_of(op->act, &e)) && (!op->add || (shape->y_block && !s->free_layout))) {
        f.add = op->add != NULL;
        f.act = op->act->none ? NULL : op->act;
        QX_TRY(conv_prim(c, l, shape, &f, p));
        if (p->p) return QX_OK;
    }
    f.add = false; /* not every kernel takes them */
    f.act = NULL;
    p->bare = true;
    QX_TRY(conv_prim(c, l, shape, &f, p));
    if (p->p) return QX_OK;
    qx_dn_prim fresh = {.p = NULL};
    f.free_layout = false;
    f.wei = NULL;
    QX_TRY(conv_choose(c, l, shape, &f, &fresh));
    if (!fresh.p) QX_CALL_FAIL(c, QX_E_FAIL, "oneDNN has no kernel for this picture size");
    qx_status st = qx_dn_repack(c, l, &s->w, &s->w.md, s->w.packed, &fresh.wei);
    if (st != QX_OK) {
        qx_dn_prim_drop(&fresh);
        return st;
    }
    s->free_layout = f.free_layout;
    memcpy(fresh.key, key, sizeof key);
    fresh.used = ++s->w.clock;
    fresh.bare = true;
    *p = fresh;
    return QX_OK;
}

/* *bare: what is added and the activation are not in the result yet. */
static qx_status run_once(qx_call *c, qx_dnnl_conv *s, const qx_conv_shape *shape, const qx_conv_op *op, bool *bare)
{
    qx_dn *l = NULL;
    qx_dn_prim *p;
    const double flops = qx_dn_conv_flops(shape);
    QX_TRY(qx_dn_get(c, flops, &l));
    QX_TRY(conv_find(c, l, s, shape, op, &p));
    qx_dn_data d = {.x = op->x, .w = s->w.packed, .y = op->y};
    if (op->bias) d.more[d.n++] = (qx_dn_more){DNNL_ARG_BIAS, &p->bias, op->bias};
    if (op->add && !p->bare) d.more[d.n++] = (qx_dn_more){DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, &p->dst, op->add};
    *bare = p->bare;
    return qx_dn_prim_run(c, l, p, &d, flops);
}

/* The library's maximum and minimum give the bound for NaN. They raise "invalid" at it, though, which costs nothing to look for. */
static bool drops_nan(const qx_activation *a) { return !a->none && (a->clip || a->fn == QX_U_RELU || a->fn == QX_U_HARDSIGMOID); }

qx_status qx_dnnl_conv_run(qx_call *c, qx_dnnl_conv *s, const qx_conv_shape *shape, const qx_conv_op *op)
{
    static const qx_activation none = {.none = true};
    const bool watched = drops_nan(op->act);
    bool bare;
    if (watched) (void)qx_thread_invalid();
    QX_TRY(run_once(c, s, shape, op, &bare));
    if (watched && !bare && qx_thread_invalid()) { /* once more, and then what follows by itself */
        qx_conv_op plain = *op;
        plain.add = NULL;
        plain.act = &none;
        QX_TRY(run_once(c, s, shape, &plain, &bare));
        bare = true;
    }
    return bare ? qx_conv_finish(c, op, shape->batch * shape->out_ch * qx_prod(shape->out, 0, shape->spatial)) : QX_OK;
}

#endif
