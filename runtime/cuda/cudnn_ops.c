/* cudnn_ops.c - convolutions and attention as graphs of cuDNN: their tensors and operations. Engines for them: cudnn.c. What
 * stands around a convolution: conv_lib.c. Compiled, never run on a device: see docs/gpu.md. */
#include "runtime/cuda/cudnn.h"

enum { ID_X = 1, ID_W, ID_Y, ID_B, ID_K, ID_V, ID_S, ID_T /* and the one behind it */ };

/* Problems are compared as bytes. */
_Static_assert(sizeof(cu_conv) == 6 * sizeof(int32_t) + (4 + 7 * 3) * sizeof(int64_t), "cu_conv has padding");
_Static_assert(sizeof(cu_sdpa) == 2 * sizeof(int32_t) + (7 + 4 * 4) * sizeof(int64_t), "cu_sdpa has padding");

static cudnnDataType_t type_of(int dt)
{
    switch (dt) {
    case QX_DT_FLOAT16: return CUDNN_DATA_HALF;
    case QX_DT_BFLOAT16: return CUDNN_DATA_BFLOAT16;
    case QX_DT_INT8: return CUDNN_DATA_INT8;
    case QX_DT_INT32: return CUDNN_DATA_INT32;
    case QX_DT_FLOAT8E4M3FN: return CUDNN_DATA_FP8_E4M3;
    default: return CUDNN_DATA_FLOAT;
    }
}

/* ---- convolution ---- */

/* Logical order N, C, spatial; memory with the channels innermost when `last`. */
static void picture(dnn_tensor *t, int64_t n, int64_t ch, int spatial, const int64_t *dims, bool last)
{
    int64_t s = last ? ch : 1;
    t->rank = spatial + 2;
    t->dims[0] = n;
    t->dims[1] = ch;
    for (int i = spatial - 1; i >= 0; i--) {
        t->dims[2 + i] = dims[i];
        t->strides[2 + i] = s;
        s *= dims[i];
    }
    t->strides[1] = last ? 1 : s;
    t->strides[0] = last ? s : s * ch;
}

static cudnnBackendDescriptor_t conv_operation(dnn_graph *g, const cu_conv *c, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t w,
                                               cudnnBackendDescriptor_t y)
{
    const int64_t spatial = c->spatial;
    const cudnnDataType_t comp = c->type == QX_DT_INT8 ? CUDNN_DATA_INT32 : CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const float one = 1, zero = 0;
    cudnnBackendDescriptor_t d = DNN_PART(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR,
                                          {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &comp},
        {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode},
        {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial},
        {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, spatial, c->begin},
        {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, spatial, c->end},
        {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, spatial, c->dilation},
            {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, spatial, c->stride});
    return DNN_PART(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                    {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &w},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &d},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero});
}

/* y = x, x * operand or x + operand. */
typedef struct pointwise { cudnnPointwiseMode_t mode; const dnn_tensor *operand; } pointwise;

static cudnnBackendDescriptor_t pointwise_operation(dnn_graph *g, const pointwise *p, cudnnDataType_t prec, cudnnBackendDescriptor_t x,
                                                    cudnnBackendDescriptor_t y)
{
    cudnnBackendDescriptor_t d = DNN_PART(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR,
                                          {CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &p->mode},
        {CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &prec});
    cudnnBackendDescriptor_t operand = p->operand ? dnn_put(g, p->operand) : NULL;
    return DNN_PART(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
                    {CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &d},
        {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x},
        {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, p->operand ? &operand : NULL},
        {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y});
}

/* What is tried in turn. copied: sums that are the result in a type of their own (INT32, f32 of halves) go through a copy first,
 * as in NVIDIA's sample: engines on matrix units want something behind them (cuDNN 9.19 has none for them otherwise on an H200,
 * tests/plugin/test_descriptors.c). */
static const struct { cudnnBackendHeurMode_t mode; bool copied; } ways[] =
    {{CUDNN_HEUR_MODE_A, true}, {CUDNN_HEUR_MODE_A, false}, {CUDNN_HEUR_MODE_FALLBACK, false}};
static bool bare_sums(const cu_conv *c) { return c->type != c->ytype && !c->has_scale && !c->has_bias; }

static int tail_of(const cu_conv *c, bool copied, const dnn_tensor *scale, const dnn_tensor *bias, pointwise out[3])
{
    int n = 0;
    if (c->has_scale) out[n++] = (pointwise){CUDNN_POINTWISE_MUL, scale};
    if (c->has_bias) out[n++] = (pointwise){CUDNN_POINTWISE_ADD, bias};
    if (copied) out[n++] = (pointwise){CUDNN_POINTWISE_IDENTITY, NULL};
    return n;
}

/* y = conv(x, w), then times the scale, then plus the bias: whatever is not last is virtual and has the type of the sums.
 * Sources: NVIDIA's cudnn-frontend, samples/cpp/convolution/fp8_fprop.cpp (scales as pointwise products behind the convolution)
 * and int8_fprop.cpp (INT32 results, INT32 arithmetic). */
static bool describe_conv(dnn_graph *g, const void *problem, int way, dnn_ops *out)
{
    const cu_conv *c = problem;
    if (!bare_sums(c)) way++;
    if (way >= (int)(sizeof ways / sizeof *ways)) return false;
    const cudnnDataType_t type = type_of(c->type), ytype = type_of(c->ytype),
        sums = bare_sums(c) && c->type == QX_DT_INT8 ? CUDNN_DATA_INT32 : CUDNN_DATA_FLOAT;
    const int64_t ones[3] = {1, 1, 1};
    dnn_tensor x = {.id = ID_X, .type = type}, w = {.id = ID_W, .type = type}, y = {.id = ID_Y, .type = ytype},
        b = {.id = ID_B, .type = c->type == QX_DT_INT8 ? CUDNN_DATA_FLOAT : ytype}, s = {.id = ID_S, .type = CUDNN_DATA_FLOAT};
    picture(&x, c->batch, c->in_ch, c->spatial, c->in, c->last);
    picture(&w, c->out_ch, c->in_ch / c->group, c->spatial, c->kernel, c->last);
    picture(&y, c->batch, c->out_ch, c->spatial, c->out, c->last);
    picture(&b, 1, c->out_ch, c->spatial, ones, c->last);
    picture(&s, 1, c->out_ch, c->spatial, ones, c->last);
    pointwise behind[3];
    const int n = tail_of(c, ways[way].copied, &s, &b, behind);
    dnn_tensor between = y;
    between.id = ID_T;
    between.type = sums;
    between.internal = true;
    cudnnBackendDescriptor_t at = dnn_put(g, n ? &between : &y);
    *out = (dnn_ops){.op = {conv_operation(g, c, dnn_put(g, &x), dnn_put(g, &w), at)}, .n = 1 + n, .mode = ways[way].mode};
    for (int i = 0; i < n; i++) {
        between.id++;
        cudnnBackendDescriptor_t next = dnn_put(g, i + 1 < n ? &between : &y);
        out->op[1 + i] = pointwise_operation(g, &behind[i], sums, at, next);
        at = next;
    }
    return true;
}

/* possible false: not asked for. *said: why there is no engine; NULL: there is one, or nobody asked. */
static qx_status ask(qx_dev *d, const dnn_question *q, bool possible, cu_engine **out, size_t *workspace, bool *taken, const char **said)
{
    *out = NULL;
    *said = NULL;
    if (possible) QX_TRY(dnn_engine(d, q, out, said));
    *taken = *out != NULL;
    *workspace = *taken ? (*out)->workspace : 0;
    if (*taken) *said = NULL;
    return QX_OK;
}

qx_status cu_conv_new(qx_dev *d, const cu_conv *c, cu_engine **out, size_t *workspace, bool *taken)
{
    const dnn_question q = {c, sizeof *c, c->type == QX_DT_FLOAT, describe_conv};
    /* one axis: our own */
    const bool possible = c->spatial >= 2 && (c->type != QX_DT_FLOAT8E4M3FN || d->info.major * 10 + d->info.minor >= 89);
    const char *said;
    QX_TRY(ask(d, &q, possible, out, workspace, taken, &said));
    if (said)
        cu_refused(d, "cuDNN: %.150s: convolution of %s, %lld to %lld channels, kernel %lld x %lld, group %lld", said,
                   qx_dtype_get(c->type)->text, (long long)c->in_ch, (long long)c->out_ch,
                    (long long)c->kernel[0], (long long)c->kernel[1], (long long)c->group);
    return QX_OK;
}

qx_status cu_conv_run(qx_dev *d, const cu_engine *e, const cu_conv_data *a)
{
    const cu_conv *c = (const void *)e->problem;
    int64_t ids[5] = {ID_X, ID_W, ID_Y};
    void *pointers[5] = {(void *)(uintptr_t)a->x, (void *)(uintptr_t)a->w, a->y};
    int n = 3;
    if (c->has_scale) ids[n] = ID_S, pointers[n++] = (void *)(uintptr_t)a->scale;
    if (c->has_bias) ids[n] = ID_B, pointers[n++] = (void *)(uintptr_t)a->bias;
    if (!dnn_execute(d, e, ids, pointers, n, a->ws)) QX_FAIL(d->ctx, QX_E_FAIL, "%s", d->why);
    return QX_OK;
}

/* ---- attention without a mask: the unified operation, from cuDNN 9.13.1 on, which takes query, key, value and scale
 * (cudnn-frontend, sdpa_support_surface.h) ---- */

static void operand(dnn_tensor *t, int64_t id, cudnnDataType_t type, int64_t batch, int64_t heads, int64_t rows, int64_t d,
                    const int64_t *strides)
{
    *t = (dnn_tensor){.id = id, .type = type, .rank = 4, .dims = {batch, heads, rows, d},
                      .strides = {strides[0], strides[1], strides[2], strides[3]}};
}

static bool describe_sdpa(dnn_graph *g, const void *problem, int way, dnn_ops *out)
{
    const cu_sdpa *s = problem;
    const cudnnDataType_t type = type_of(s->type);
    const dnn_tensor scale = {.id = ID_S, .type = CUDNN_DATA_FLOAT, .rank = 4, .dims = {1, 1, 1, 1}, .strides = {1, 1, 1, 1},
                              .by_value = true};
    dnn_tensor q, k, v, o;
    if (way > 0) return false;
    operand(&q, ID_X, type, s->batch, s->heads, s->rows, s->d, s->q);
    operand(&k, ID_K, type, s->batch, s->kv_heads, s->keys, s->d, s->k);
    operand(&v, ID_V, type, s->batch, s->kv_heads, s->keys, s->dv, s->v);
    operand(&o, ID_Y, type, s->batch, s->heads, s->rows, s->dv, s->o);
    cudnnBackendDescriptor_t dq = dnn_put(g, &q), dk = dnn_put(g, &k), dv = dnn_put(g, &v), dout = dnn_put(g, &o), ds = dnn_put(g, &scale);
    cudnnBackendDescriptor_t op = DNN_PART(g, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR,
                                           {CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &dq},
        {CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &dk},
        {CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &dv},
        {CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &dout},
            {CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &ds});
    *out = (dnn_ops){.op = {op}, .n = 1, .mode = CUDNN_HEUR_MODE_A};
    return true;
}

qx_status cu_sdpa_new(qx_dev *d, const cu_sdpa *s, cu_engine **out, size_t *workspace, bool *taken)
{
    const dnn_question q = {s, sizeof *s, false, describe_sdpa};
    /* turned keys, shared batches, odd heads: our own */
    const bool possible = s->k[3] == 1 && s->q[0] && s->k[0] && s->v[0] && s->d % 8 == 0 && s->dv % 8 == 0;
    const char *said;
    QX_TRY(ask(d, &q, possible, out, workspace, taken, &said));
    if (said)
        cu_refused(d, "cuDNN: %.150s: attention of %s, %lld x %lld heads of %lld and %lld, %lld rows, %lld keys", said,
                   qx_dtype_get(s->type)->text, (long long)s->heads, (long long)s->kv_heads,
                    (long long)s->d, (long long)s->dv, (long long)s->rows, (long long)s->keys);
    return QX_OK;
}

qx_status cu_sdpa_run(qx_dev *d, const cu_engine *e, const void *q, const void *k, const void *v, void *o, void *ws, bool *done)
{
    const int64_t ids[5] = {ID_X, ID_K, ID_V, ID_Y, ID_S};
    float scale = ((const cu_sdpa *)(const void *)e->problem)->scale;
    void *pointers[5] = {(void *)(uintptr_t)q, (void *)(uintptr_t)k, (void *)(uintptr_t)v, o, &scale};
    *done = dnn_execute(d, e, ids, pointers, 5, ws);
    return QX_OK;
}
