/* cudnn.c - convolutions and attention by cuDNN's graph interface: tensors, operations, graph; then the library's own list of engines, and the first that can be planned
 * on this device. No engine: not taken, and the library's last words say why. What stands around a convolution is conv_lib.c. Compiled, never run on a device: see docs/gpu.md. */
#include "runtime/cuda/library.h"

#include <stdio.h>
#include <string.h>

enum { ID_X = 1, ID_W, ID_Y, ID_B, ID_K, ID_V, ID_S, ID_T, /* and the one behind it */ MOST_ENGINES = 16, MOST_PARTS = 24 };

/* Everything that was made for one plan, destroyed together. ok false: something was refused, for the first time by `said`. */
typedef struct graph { const cu_dnn *c; cudnnHandle_t handle; cudnnBackendDescriptor_t all[MOST_PARTS + MOST_ENGINES]; int n; bool ok; char said[160]; } graph;
typedef struct engine { graph g; cudnnBackendDescriptor_t plan; size_t workspace; } engine;

static void forget(graph *g)
{
    while (g->n > 0) g->c->cudnnBackendDestroyDescriptor(g->all[--g->n]);
}

/* What the library answered to the call with this number (a type of descriptor, an attribute, 0: neither). Nothing is called after a refusal. */
static void answer(graph *g, cudnnStatus_t st, const char *call, int number)
{
    char text[100] = "";
    g->ok = st == CUDNN_STATUS_SUCCESS;
    if (g->ok) return;
    g->c->cudnnGetLastErrorString(text, sizeof text);
    snprintf(g->said, sizeof g->said, "%s %d: %s %.100s", call, number, g->c->cudnnGetErrorString(st), text);
}

static cudnnBackendDescriptor_t make(graph *g, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t d = NULL;
    if (!g->ok) return NULL;
    answer(g, g->n < MOST_PARTS + MOST_ENGINES ? g->c->cudnnBackendCreateDescriptor(type, &d) : CUDNN_STATUS_INTERNAL_ERROR, "descriptor", (int)type);
    if (g->ok) g->all[g->n++] = d;
    return d;
}

static void set(graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n, const void *v)
{
    if (g->ok) answer(g, g->c->cudnnBackendSetAttribute(d, name, type, n, v), "attribute", (int)name);
}

static void get(graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t most, int64_t *n, void *v)
{
    if (g->ok) answer(g, g->c->cudnnBackendGetAttribute(d, name, type, most, n, v), "attribute", (int)name);
}

static void done(graph *g, cudnnBackendDescriptor_t d)
{
    if (g->ok) answer(g, g->c->cudnnBackendFinalize(d), "finalize, part", g->n);
}

typedef struct tensor { int64_t id; cudnnDataType_t type; int rank; int64_t dims[5], strides[5]; bool internal, by_value; } tensor;

static cudnnBackendDescriptor_t make_tensor(graph *g, const tensor *t)
{
    const int64_t align = t->by_value ? 4 : 16;
    cudnnBackendDescriptor_t d = make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &t->id);
    set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &t->type);
    set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, t->rank, t->dims);
    set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, t->rank, t->strides);
    if (t->internal) set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &t->internal);
    if (t->by_value) set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &t->by_value);
    done(g, d);
    return d;
}

/* Whether the engine may round f32 operands (TF32, or half in matrix units): not for f32, whose results are compared with the CPU's. */
static bool rounds_operands(const cu_dnn *c, cudnnBackendDescriptor_t config)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    graph g = {.c = c, .ok = true};
    int64_t n = 0;
    bool yes = true;
    cudnnBackendDescriptor_t engine_desc = make(&g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    get(&g, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine_desc);
    get(&g, engine_desc, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n, notes);
    if (g.ok) yes = false;
    for (int64_t i = 0; i < n && g.ok; i++) yes = yes || notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE || notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
    forget(&g);
    return yes;
}

/* A plan of one engine, when that can be made on this device and for these tensors. */
static bool plan_engine(engine *e, cudnnBackendDescriptor_t config)
{
    graph one = {.c = e->g.c, .handle = e->g.handle, .ok = true};
    int64_t bytes = 0, count = 0;
    cudnnBackendDescriptor_t plan = make(&one, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set(&one, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &one.handle);
    set(&one, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
    done(&one, plan);
    get(&one, plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, &bytes);
    if (one.ok && bytes >= 0) {
        e->plan = plan;
        e->workspace = (size_t)bytes;
        return true;
    }
    memcpy(e->g.said, one.said, sizeof e->g.said);
    forget(&one);
    return false;
}

/* The operations' graph; the engines that the heuristic offers, best first; the first that becomes a plan. */
static bool plan_graph(engine *e, const cudnnBackendDescriptor_t *ops, int n_ops, cudnnBackendHeurMode_t mode, bool exact)
{
    graph *g = &e->g;
    int64_t offered = 0;
    cudnnBackendDescriptor_t og = make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR), configs[MOST_ENGINES];
    set(g, og, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n_ops, ops);
    set(g, og, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->handle);
    done(g, og);
    cudnnBackendDescriptor_t heur = make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set(g, heur, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &og);
    set(g, heur, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    done(g, heur);
    for (int i = 0; i < MOST_ENGINES; i++) configs[i] = make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    get(g, heur, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, MOST_ENGINES, &offered, configs);
    if (g->ok) snprintf(g->said, sizeof g->said, "%s of %lld engines", exact ? "operands are rounded by each" : "none", (long long)offered);
    for (int64_t i = 0; i < offered && i < MOST_ENGINES && g->ok; i++)
        if (!(exact && rounds_operands(g->c, configs[i])) && plan_engine(e, configs[i])) return true;
    return false;
}

static void engine_drop(engine *e)
{
    if (e->plan) e->g.c->cudnnBackendDestroyDescriptor(e->plan);
    e->plan = NULL;
    forget(&e->g);
}

/* A graph of the device's library, which is made when first needed; false: there is none, or it does not want this device. */
static bool start(qx_dev *d, graph *g)
{
    cu_library *l = d->lib;
    if (l->has_dnn && !l->cudnn) {
        cudnnStatus_t st = l->dnn.cudnnCreate(&l->cudnn);
        if (st == CUDNN_STATUS_SUCCESS) st = l->dnn.cudnnSetStream(l->cudnn, (cudaStream_t)d->q);
        l->has_dnn = st == CUDNN_STATUS_SUCCESS;
    }
    *g = (graph){.c = &l->dnn, .handle = l->cudnn, .ok = true};
    return l->has_dnn;
}

/* False: the library refuses. */
static bool execute(qx_dev *d, const engine *e, const int64_t *ids, void **pointers, int n, void *ws)
{
    graph g = {.c = e->g.c, .handle = e->g.handle, .ok = true};
    cudnnBackendDescriptor_t pack = make(&g, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(&g, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, ids);
    set(&g, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, pointers);
    set(&g, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &ws);
    done(&g, pack);
    if (g.ok) answer(&g, e->g.c->cudnnBackendExecute(g.handle, e->plan, pack), "execute", 0);
    forget(&g);
    if (!g.ok) cu_refused(d, "cuDNN: %s", g.said);
    return g.ok;
}

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

struct cu_conv_plan { engine e; bool has_scale, has_bias; };

/* Logical order N, C, spatial; memory with the channels innermost when `last`. */
static void picture(tensor *t, int64_t n, int64_t ch, int spatial, const int64_t *dims, bool last)
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

static cudnnBackendDescriptor_t conv_operation(graph *g, const cu_conv *c, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t w, cudnnBackendDescriptor_t y)
{
    const int64_t spatial = c->spatial;
    const cudnnDataType_t comp = c->type == QX_DT_INT8 ? CUDNN_DATA_INT32 : CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const float one = 1, zero = 0;
    cudnnBackendDescriptor_t d = make(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set(g, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &comp);
    set(g, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(g, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial);
    set(g, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, spatial, c->begin);
    set(g, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, spatial, c->end);
    set(g, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, spatial, c->dilation);
    set(g, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, spatial, c->stride);
    done(g, d);
    cudnnBackendDescriptor_t op = make(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x);
    set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &w);
    set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
    set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &d);
    set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one);
    set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero);
    done(g, op);
    return op;
}

/* y = x, x * operand or x + operand. */
typedef struct pointwise { cudnnPointwiseMode_t mode; const tensor *operand; } pointwise;

static cudnnBackendDescriptor_t pointwise_operation(graph *g, const pointwise *p, cudnnDataType_t prec, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t y)
{
    cudnnBackendDescriptor_t d = make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(g, d, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &p->mode);
    set(g, d, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &prec);
    done(g, d);
    cudnnBackendDescriptor_t operand = p->operand ? make_tensor(g, p->operand) : NULL, op = make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &d);
    set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x);
    if (operand) set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &operand);
    set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
    done(g, op);
    return op;
}

/* What is tried in turn. copied: INT32 sums go through a copy, as in NVIDIA's sample, since an engine may want something behind its sums. */
typedef struct attempt { cudnnBackendHeurMode_t mode; bool copied; } attempt;
static const attempt attempts[] = {{CUDNN_HEUR_MODE_A, false}, {CUDNN_HEUR_MODE_A, true}, {CUDNN_HEUR_MODE_FALLBACK, false}};

/* y = conv(x, w), then times the scale, then plus the bias: whatever is not last is virtual and has the type of the sums. Sources: NVIDIA's cudnn-frontend,
 * samples/cpp/convolution/fp8_fprop.cpp (scales as pointwise products behind the convolution) and int8_fprop.cpp (INT32 results, INT32 arithmetic). */
static bool plan_conv(engine *e, const cu_conv *c, const attempt *how)
{
    graph *g = &e->g;
    const cudnnDataType_t type = type_of(c->type), ytype = type_of(c->ytype), sums = c->type == QX_DT_INT8 ? CUDNN_DATA_INT32 : CUDNN_DATA_FLOAT;
    const int64_t ones[3] = {1, 1, 1};
    tensor x = {.id = ID_X, .type = type}, w = {.id = ID_W, .type = type}, y = {.id = ID_Y, .type = ytype}, b = {.id = ID_B, .type = ytype}, s = {.id = ID_S, .type = CUDNN_DATA_FLOAT};
    picture(&x, c->batch, c->in_ch, c->spatial, c->in, c->last);
    picture(&w, c->out_ch, c->in_ch / c->group, c->spatial, c->kernel, c->last);
    picture(&y, c->batch, c->out_ch, c->spatial, c->out, c->last);
    picture(&b, 1, c->out_ch, c->spatial, ones, c->last);
    picture(&s, 1, c->out_ch, c->spatial, ones, c->last);
    pointwise tail[2];
    int n = 0;
    if (c->has_scale) tail[n++] = (pointwise){CUDNN_POINTWISE_MUL, &s};
    if (c->has_bias) tail[n++] = (pointwise){CUDNN_POINTWISE_ADD, &b};
    if (how->copied) tail[n++] = (pointwise){CUDNN_POINTWISE_IDENTITY, NULL};
    tensor between = y;
    between.id = ID_T;
    between.type = sums;
    between.internal = true;
    cudnnBackendDescriptor_t at = make_tensor(g, n ? &between : &y), ops[3];
    ops[0] = conv_operation(g, c, make_tensor(g, &x), make_tensor(g, &w), at);
    for (int i = 0; i < n; i++) {
        between.id++;
        cudnnBackendDescriptor_t next = make_tensor(g, i + 1 < n ? &between : &y);
        ops[1 + i] = pointwise_operation(g, &tail[i], sums, at, next);
        at = next;
    }
    return g->ok && plan_graph(e, ops, 1 + n, how->mode, c->type == QX_DT_FLOAT);
}

void cu_conv_free(qx_dev *d, void *block)
{
    cu_conv_plan *p = block;
    if (!p) return;
    engine_drop(&p->e);
    qx_free(d->ctx, p);
}

qx_status cu_conv_new(qx_dev *d, const cu_conv *c, cu_conv_plan **out, size_t *workspace, bool *taken)
{
    cu_conv_plan *p = NULL;
    graph g;
    *out = NULL;
    *workspace = 0;
    *taken = false;
    if (c->spatial < 2) return QX_OK; /* one axis: our own */
    if (c->type == QX_DT_FLOAT8E4M3FN && d->info.major * 10 + d->info.minor < 89) return QX_OK;
    if (!start(d, &g)) return QX_OK;
    QX_TRY(QX_NEW(d->ctx, &p));
    p->has_scale = c->has_scale;
    p->has_bias = c->has_bias;
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts && !*taken; i++) {
        if (attempts[i].copied && c->type != QX_DT_INT8) continue;
        p->e.g = g;
        *taken = plan_conv(&p->e, c, &attempts[i]);
        if (!*taken) engine_drop(&p->e);
    }
    if (!*taken) {
        cu_refused(d, "cuDNN: %s: convolution of %s, %lld to %lld channels, kernel %lld x %lld, group %lld", p->e.g.said, qx_dtype_get(c->type)->text, (long long)c->in_ch, (long long)c->out_ch,
                   (long long)c->kernel[0], (long long)c->kernel[1], (long long)c->group);
        qx_free(d->ctx, p);
        return QX_OK;
    }
    *workspace = p->e.workspace;
    *out = p;
    return QX_OK;
}

qx_status cu_conv_run(qx_dev *d, const cu_conv_plan *p, const cu_conv_data *a)
{
    int64_t ids[5] = {ID_X, ID_W, ID_Y};
    void *pointers[5] = {(void *)(uintptr_t)a->x, (void *)(uintptr_t)a->w, a->y};
    int n = 3;
    if (p->has_scale) ids[n] = ID_S, pointers[n++] = (void *)(uintptr_t)a->scale;
    if (p->has_bias) ids[n] = ID_B, pointers[n++] = (void *)(uintptr_t)a->bias;
    if (!execute(d, &p->e, ids, pointers, n, a->ws)) QX_FAIL(d->ctx, QX_E_FAIL, "%s", d->why);
    return QX_OK;
}

/* ---- attention without a mask: the unified operation, from cuDNN 9.13.1 on, which takes query, key, value and scale (cudnn-frontend, sdpa_support_surface.h) ---- */

struct cu_sdpa_plan { engine e; float scale; };

static bool plan_sdpa(engine *e, const cu_sdpa *s, cudnnBackendHeurMode_t mode)
{
    graph *g = &e->g;
    const cudnnDataType_t type = type_of(s->type);
    tensor q = {ID_X, type, 4, {s->batch, s->heads, s->rows, s->d}, {0}, false, false}, k = {ID_K, type, 4, {s->batch, s->kv_heads, s->keys, s->d}, {0}, false, false};
    tensor v = {ID_V, type, 4, {s->batch, s->kv_heads, s->keys, s->dv}, {0}, false, false}, o = {ID_Y, type, 4, {s->batch, s->heads, s->rows, s->dv}, {0}, false, false};
    tensor scale = {ID_S, CUDNN_DATA_FLOAT, 4, {1, 1, 1, 1}, {1, 1, 1, 1}, false, true};
    memcpy(q.strides, s->q, sizeof s->q);
    memcpy(k.strides, s->k, sizeof s->k);
    memcpy(v.strides, s->v, sizeof s->v);
    memcpy(o.strides, s->o, sizeof s->o);
    cudnnBackendDescriptor_t dq = make_tensor(g, &q), dk = make_tensor(g, &k), dv = make_tensor(g, &v), dout = make_tensor(g, &o), ds = make_tensor(g, &scale);
    cudnnBackendDescriptor_t op = make(g, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    set(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &dq);
    set(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &dk);
    set(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &dv);
    set(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &dout);
    set(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &ds);
    done(g, op);
    return g->ok && plan_graph(e, &op, 1, mode, false);
}

void cu_sdpa_free(qx_dev *d, void *block)
{
    cu_sdpa_plan *p = block;
    if (!p) return;
    engine_drop(&p->e);
    qx_free(d->ctx, p);
}

qx_status cu_sdpa_new(qx_dev *d, const cu_sdpa *s, cu_sdpa_plan **out, size_t *workspace, bool *taken)
{
    cu_sdpa_plan *p = NULL;
    graph g;
    *out = NULL;
    *workspace = 0;
    *taken = false;
    if (s->k[3] != 1 || s->q[0] == 0 || s->k[0] == 0 || s->v[0] == 0 || s->d % 8 || s->dv % 8) return QX_OK; /* turned keys, shared batches, odd heads: our own */
    if (!start(d, &g)) return QX_OK;
    QX_TRY(QX_NEW(d->ctx, &p));
    p->scale = s->scale;
    p->e.g = g;
    *taken = plan_sdpa(&p->e, s, CUDNN_HEUR_MODE_A);
    if (!*taken) {
        cu_refused(d, "cuDNN: %s: attention of %s, %lld x %lld heads of %lld and %lld, %lld rows, %lld keys", p->e.g.said, qx_dtype_get(s->type)->text, (long long)s->heads, (long long)s->kv_heads,
                   (long long)s->d, (long long)s->dv, (long long)s->rows, (long long)s->keys);
        cu_sdpa_free(d, p);
        return QX_OK;
    }
    *workspace = p->e.workspace;
    *out = p;
    return QX_OK;
}

qx_status cu_sdpa_run(qx_dev *d, const cu_sdpa_plan *p, const void *q, const void *k, const void *v, void *o, void *ws, bool *done)
{
    const int64_t ids[5] = {ID_X, ID_K, ID_V, ID_Y, ID_S};
    float scale = p->scale;
    void *pointers[5] = {(void *)(uintptr_t)q, (void *)(uintptr_t)k, (void *)(uintptr_t)v, o, &scale};
    *done = execute(d, &p->e, ids, pointers, 5, ws);
    return QX_OK;
}
