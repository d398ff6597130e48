/* conv.c - Conv and com.microsoft's FusedConv, NhwcConv, NhwcFusedConv: shapes, auto_pad, and the product of runtime/cpu/matmul/gemm.h.
 * Constant weights are packed at the first run. */
#include <math.h>
#include <string.h>

#include "onnx/infer/infer.h"
#include "runtime/cpu/pointwise/activation.h"
#include "runtime/cpu/codes/int8.h"
#include "runtime/cpu/picture/nhwc.h"
#include "runtime/dnnl/door.h"
#include "runtime/fuse/fuse.h"

typedef struct state {
    qx_conv *conv;
    float *scale, *bias; /* with a BatchNormalization: of each output; the latter in the place of the bias */
} state;

static void drop(qx_ctx *ctx, void *block)
{
    state *s = block;
    qx_conv_free(ctx, s->conv);
    qx_free(ctx, s->scale);
    qx_free(ctx, s->bias);
}

static qx_status list3(const qx_call *c, const char *name, int n, int64_t fallback, int64_t min, int64_t *out)
{
    int64_t count;
    const int64_t *v = qx_call_ints(c, name, &count);
    if (v && count != n) QX_CALL_FAIL(c, QX_E_SHAPE, "%s has %lld entries for %d spatial axes", name, (long long)count, n);
    for (int i = 0; i < n; i++) {
        out[i] = v ? v[i] : fallback;
        if (out[i] < min || out[i] > INT32_MAX) QX_CALL_FAIL(c, QX_E_SHAPE, "%s entry %d is %lld", name, i, (long long)out[i]);
    }
    return QX_OK;
}

static qx_status pads(const qx_call *c, qx_conv_shape *s)
{
    const char *mode = qx_call_str(c, "auto_pad", "NOTSET");
    int64_t n;
    const int64_t *given = qx_call_ints(c, "pads", &n);
    if (given && n != 2 * s->spatial) QX_CALL_FAIL(c, QX_E_SHAPE, "pads has %lld entries for %d spatial axes", (long long)n, s->spatial);
    for (int i = 0; i < s->spatial; i++) {
        int64_t span = (s->kernel[i] - 1) * s->dilation[i] + 1;
        s->begin[i] = given ? given[i] : 0;
        s->end[i] = given ? given[i + s->spatial] : 0;
        if (strncmp(mode, "SAME", 4) == 0) {
            int64_t total = ((s->in[i] + s->stride[i] - 1) / s->stride[i] - 1) * s->stride[i] + span - s->in[i];
            total = total < 0 ? 0 : total;
            s->begin[i] = strcmp(mode, "SAME_LOWER") == 0 ? total - total / 2 : total / 2;
            s->end[i] = total - s->begin[i];
        } else if (strcmp(mode, "VALID") == 0) {
            s->begin[i] = s->end[i] = 0;
        }
        if (s->begin[i] < 0 || s->end[i] < 0 || s->begin[i] > INT32_MAX || s->end[i] > INT32_MAX)
            QX_CALL_FAIL(c, QX_E_SHAPE, "pads of axis %d are %lld and %lld", i, (long long)s->begin[i], (long long)s->end[i]);
        int64_t room = s->in[i] + s->begin[i] + s->end[i] - span;
        if (room < 0)
            QX_CALL_FAIL(c, QX_E_SHAPE, "kernel spans %lld of axis %d, the padded input has %lld", (long long)span, i,
                         (long long)(room + span));
        s->out[i] = room / s->stride[i] + 1;
    }
    return QX_OK;
}

qx_status qx_conv_shape_of(const qx_call *c, const qx_tensor *x, const qx_tensor *w, qx_conv_shape *s)
{
    char a[96], b[96];
    *s = (qx_conv_shape){.spatial = x->rank - 2};
    if (x->rank < 3 || x->rank > 5 || w->rank != x->rank)
        QX_CALL_FAIL(c, QX_E_SHAPE, "input %s and weight %s", qx_tensor_describe(x, a, sizeof a), qx_tensor_describe(w, b, sizeof b));
    s->batch = x->dims[0];
    s->in_ch = x->dims[1];
    s->out_ch = w->dims[0];
    s->group = qx_call_int(c, "group", 1);
    if (s->group < 1 || s->in_ch % s->group || s->out_ch % s->group || w->dims[1] != s->in_ch / s->group)
        QX_CALL_FAIL(c, QX_E_SHAPE, "weight %s does not fit %s in %lld groups", qx_tensor_describe(w, b, sizeof b),
                     qx_tensor_describe(x, a, sizeof a), (long long)s->group);
    QX_TRY(list3(c, "strides", s->spatial, 1, 1, s->stride));
    QX_TRY(list3(c, "dilations", s->spatial, 1, 1, s->dilation));
    for (int i = 0; i < s->spatial; i++) {
        s->in[i] = x->dims[2 + i];
        s->kernel[i] = w->dims[2 + i];
    }
    int64_t n;
    const int64_t *k = qx_call_ints(c, "kernel_shape", &n);
    for (int i = 0; k && i < s->spatial; i++)
        if (n != s->spatial || k[i] != s->kernel[i])
            QX_CALL_FAIL(c, QX_E_SHAPE, "kernel_shape and weight %s disagree", qx_tensor_describe(w, b, sizeof b));
    return pads(c, s);
}

static qx_status bias_of(qx_call *c, const qx_conv_shape *s, const float **bias)
{
    *bias = NULL;
    if (!qx_call_in(c, QX_CONV_BIAS)) return QX_OK;
    const int64_t n = c->in[QX_CONV_BIAS]->numel;
    if (n != s->out_ch) QX_CALL_FAIL(c, QX_E_SHAPE, "bias has %lld elements for %lld output channels", (long long)n, (long long)s->out_ch);
    return qx_call_in_f32(c, QX_CONV_BIAS, bias);
}

/* norm(conv) = (conv - mean) scale / sqrt(var + eps) + shift is a convolution by weights and bias of its own. */
static qx_status take_in_norm(qx_call *c, state *st, const qx_conv_shape *s, double eps)
{
    const float *p[QX_CONV_NORM_INPUTS];
    QX_TRY(bias_of(c, s, &p[QX_CONV_BIAS]));
    for (uint32_t i = QX_CONV_SCALE; i < QX_CONV_NORM_INPUTS; i++) QX_TRY(qx_call_in_f32(c, i, &p[i]));
    QX_TRY(qx_alloc_array(c->ctx, (size_t)s->out_ch, sizeof *st->scale, (void **)&st->scale));
    QX_TRY(qx_alloc_array(c->ctx, (size_t)s->out_ch, sizeof *st->bias, (void **)&st->bias));
    for (int64_t i = 0; i < s->out_ch; i++) {
        const double a = (double)p[QX_CONV_SCALE][i] / sqrt((double)p[QX_CONV_VAR][i] + eps),
            b = p[QX_CONV_BIAS] ? (double)p[QX_CONV_BIAS][i] : 0.0;
        st->scale[i] = (float)a;
        st->bias[i] = (float)((b - (double)p[QX_CONV_MEAN][i]) * a + (double)p[QX_CONV_SHIFT][i]);
    }
    return QX_OK;
}

/* What is added, as y lies. */
static qx_status addend(qx_call *c, const qx_conv_shape *s, int rank, const int64_t *dims, bool last, const float **out)
{
    const qx_tensor *z = qx_call_in(c, QX_CONV_ADD);
    const int layout = qx_call_in_layout(c, QX_CONV_ADD);
    qx_tensor view;
    float *turned = NULL;
    *out = NULL;
    if (!z) return QX_OK;
    if (z->rank != rank || memcmp(z->dims, dims, (size_t)rank * sizeof *dims) != 0)
        QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has another shape than the output", QX_CONV_ADD);
    QX_TRY(qx_call_in_f32(c, QX_CONV_ADD, out));
    if (last) {
        QX_TRY(qx_nhwc_view(c, z, &view));
        return qx_nhwc_to_nchw(c, &view, *out, out);
    }
    if (layout == s->y_block) return QX_OK;
    QX_TRY(QX_CALL_SCRATCH(c, z->numel, &turned));
    QX_TRY(qx_reblock(c, QX_DT_FLOAT, dims, layout, *out, s->y_block, turned));
    *out = turned;
    return QX_OK;
}

/* Bias, packed weights and product; op has the rest. last: the weight's own order when its channels come last, else NULL. */
static qx_status convolve(qx_call *c, const qx_conv_shape *s, const qx_tensor *last, const qx_conv_params *p, qx_conv_op *op)
{
    state *st = NULL;
    QX_TRY(qx_call_state(c, sizeof *st, drop, (void **)&st));
    if ((last || !qx_call_in_const(c, QX_CONV_W)) && st->conv) {
        qx_conv_free(c->ctx, st->conv);
        st->conv = NULL;
    }
    if (!st->conv) QX_TRY(qx_call_in_f32(c, QX_CONV_W, &op->w));
    if (last) QX_TRY(qx_nhwc_to_nchw(c, last, op->w, &op->w));
    if (p->norm && !st->bias) QX_TRY(take_in_norm(c, st, s, (double)p->eps));
    op->scale = st->scale;
    op->bias = st->bias;
    if (!p->norm) QX_TRY(bias_of(c, s, &op->bias));
    QX_TRY(qx_conv_run(c, &st->conv, s, op));
    if (!last && qx_call_can_read_again(c, QX_CONV_W)) qx_call_drop_const(c, QX_CONV_W); /* another picture size may need them once more */
    return QX_OK;
}

/* Conv, and com.microsoft's forms: NhwcConv has channels last, FusedConv and NhwcFusedConv an addend (input 3) and an activation. */
static qx_status run(qx_call *c, bool last)
{
    const qx_tensor *x, *w;
    float *out = NULL;
    qx_conv_shape s;
    qx_conv_params p = {.norm = false};
    qx_conv_op op = {.act = &p.act};
    qx_tensor view, weight;
    int64_t nhwc[QX_MAX_RANK];
    QX_TRY(qx_call_need(c, QX_CONV_X, &x));
    QX_TRY(qx_call_need(c, QX_CONV_W, &w));
    view = *x;
    weight = *w;
    if (last) QX_TRY(qx_nhwc_view(c, x, &view));
    const bool turned = last && w->rank == x->rank && qx_nhwc_weight_is_last(c->node, view.dims[1], qx_call_int(c, "group", 1),
        w->dims[w->rank - 1]);
    if (turned) QX_TRY(qx_nhwc_view(c, w, &weight));
    QX_TRY(qx_conv_shape_of(c, &view, &weight, &s));
    s.x_block = qx_call_in_layout(c, QX_CONV_X);
    s.y_block = qx_call_out_layout(c, 0);
    if (c->fused) p = *(const qx_conv_params *)c->fused;
    else QX_TRY(qx_activation_read(c, &p.act));
    if (!qx_dtype_is_float(x->dtype)) QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get(x->dtype)->text);
    QX_TRY(qx_call_in_f32(c, QX_CONV_X, &op.x));
    const int64_t dims[5] = {s.batch, s.out_ch, s.out[0], s.out[1], s.out[2]}, numel = qx_prod(dims, 0, x->rank);
    if (last) qx_nhwc_dims(x->rank, dims, nhwc);
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, last ? nhwc : dims, &out));
    op.y = out;
    if (numel == 0) return QX_OK;
    QX_TRY(addend(c, &s, x->rank, last ? nhwc : dims, last, &op.add));
    if (last) {
        QX_TRY(QX_CALL_SCRATCH(c, numel, &op.y));
        QX_TRY(qx_nhwc_to_nchw(c, &view, op.x, &op.x));
    }
    if (x->numel == 0 || w->numel == 0) {
        memset(op.y, 0, (size_t)numel * sizeof *op.y);
        QX_TRY(qx_conv_finish(c, &op, numel));
    } else {
        QX_TRY(convolve(c, &s, turned ? &weight : NULL, &p, &op));
    }
    return last ? qx_nchw_to_nhwc(c, x->rank, dims, op.y, out) : QX_OK;
}

qx_status qx_cpu_conv(qx_call *c) { return run(c, false); }
qx_status qx_cpu_ms_nhwc_conv(qx_call *c) { return run(c, true); }
