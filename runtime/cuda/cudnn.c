/* cudnn.c - engines of cuDNN's graph interface: descriptors, the library's own list of engines for a graph, and the first of them
 * that can be planned on this device and starts. No engine: not taken, and the library's last words say why. The operations:
 * cudnn_ops.c. Compiled, never run on a device: see docs/gpu.md. */
#include "runtime/cuda/cudnn.h"

#include <stdio.h>
#include <string.h>

/* ---- descriptors ---- */

static void forget(dnn_graph *g)
{
    while (g->n > 0) g->c->cudnnBackendDestroyDescriptor(g->all[--g->n]);
}

/* What the library answered to the call with this number (a type of descriptor, an attribute, 0: neither). */
static void answer(dnn_graph *g, cudnnStatus_t st, const char *call, int number)
{
    char text[100] = "";
    g->ok = st == CUDNN_STATUS_SUCCESS;
    if (g->ok) return;
    g->c->cudnnGetLastErrorString(text, sizeof text);
    snprintf(g->said, sizeof g->said, "%s %d: %s %.100s", call, number, g->c->cudnnGetErrorString(st), text);
}

static cudnnBackendDescriptor_t make(dnn_graph *g, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t d = NULL;
    if (!g->ok) return NULL;
    answer(g, g->n < DNN_PARTS + DNN_ENGINES ? g->c->cudnnBackendCreateDescriptor(type, &d) : CUDNN_STATUS_INTERNAL_ERROR, "descriptor",
           (int)type);
    if (g->ok) g->all[g->n++] = d;
    return d;
}

static void get(dnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                int64_t most, int64_t *n, void *v)
{
    if (g->ok) answer(g, g->c->cudnnBackendGetAttribute(d, name, type, most, n, v), "attribute", (int)name);
}

cudnnBackendDescriptor_t dnn_part(dnn_graph *g, cudnnBackendDescriptorType_t type, const dnn_attr *attrs, size_t n)
{
    cudnnBackendDescriptor_t d = make(g, type);
    for (const dnn_attr *a = attrs; a < attrs + n; a++)
        if (g->ok && a->v) answer(g, g->c->cudnnBackendSetAttribute(d, a->name, a->type, a->count, a->v), "attribute", (int)a->name);
    if (g->ok) answer(g, g->c->cudnnBackendFinalize(d), "finalize, part", g->n);
    return d;
}

static size_t bytes_of(cudnnDataType_t type)
{
    switch (type) {
    case CUDNN_DATA_HALF:
    case CUDNN_DATA_BFLOAT16: return 2;
    case CUDNN_DATA_INT8:
    case CUDNN_DATA_FP8_E4M3: return 1;
    default: return 4;
    }
}

/* Remembered for the trial: what has to be in memory when the graph is run. */
static void note_outer(dnn_graph *g, const dnn_tensor *t)
{
    int64_t last = 0;
    if (t->internal || !g->ok) return;
    if (g->n_outer == DNN_OUTER) {
        answer(g, CUDNN_STATUS_INTERNAL_ERROR, "tensor", DNN_OUTER);
        return;
    }
    for (int i = 0; i < t->rank; i++) last += (t->dims[i] - 1) * t->strides[i];
    g->outer[g->n_outer].id = t->id;
    g->outer[g->n_outer].by_value = t->by_value;
    g->outer[g->n_outer++].bytes = (size_t)(last + 1) * bytes_of(t->type);
}

cudnnBackendDescriptor_t dnn_put(dnn_graph *g, const dnn_tensor *t)
{
    const int64_t align = t->by_value ? 4 : 16;
    note_outer(g, t);
    return DNN_PART(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR, {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &t->id},
                    {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &t->type},
                    {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align},
                    {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, t->rank, t->dims},
                    {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, t->rank, t->strides},
                    {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, t->internal ? &t->internal : NULL},
                    {CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, t->by_value ? &t->by_value : NULL});
}

/* ---- running ---- */

bool dnn_execute(qx_dev *d, const cu_engine *e, const int64_t *ids, void **pointers, int n, void *ws)
{
    dnn_graph g = {.c = e->g.c, .handle = e->g.handle, .ok = true};
    cudnnBackendDescriptor_t pack = DNN_PART(&g, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
                                             {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, ids},
                                             {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, pointers},
                                                 {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &ws});
    if (g.ok) answer(&g, e->g.c->cudnnBackendExecute(g.handle, e->plan, pack), "execute", 0);
    forget(&g);
    if (!g.ok) cu_refused(d, "cuDNN: %s", g.said);
    return g.ok;
}

/* Whether the plan starts, on memory of its own whose content does not matter: what can be planned may still be refused, and here
 * is the time to take the next. */
static bool starts(qx_dev *d, cu_engine *e)
{
    int64_t ids[DNN_OUTER];
    void *pointers[DNN_OUTER], *block = NULL;
    float one = 1;
    size_t at = cu_round(e->workspace);
    for (int i = 0; i < e->g.n_outer; i++) at += cu_round(e->g.outer[i].bytes);
    if (cu_alloc(d->m, at + 1, &block) != QX_OK) { /* no room to try */
        qx_ctx_clear_error(d->ctx);
        return true;
    }
    at = cu_round(e->workspace);
    for (int i = 0; i < e->g.n_outer; i++) {
        ids[i] = e->g.outer[i].id;
        pointers[i] = e->g.outer[i].by_value ? (void *)&one : (char *)block + at;
        at += cu_round(e->g.outer[i].bytes);
    }
    const bool yes = dnn_execute(d, e, ids, pointers, e->g.n_outer, block);
    cu_release(d->m, block);
    if (!yes) snprintf(e->g.said, sizeof e->g.said, "%.150s", d->why);
    return yes;
}

/* ---- planning ---- */

/* Whether the engine may round f32 operands (TF32, or half in matrix units): not for f32, whose results are compared with the CPU's. */
static bool rounds_operands(const cu_dnn *c, cudnnBackendDescriptor_t config)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    dnn_graph g = {.c = c, .ok = true};
    int64_t n = 0;
    cudnnBackendDescriptor_t engine_desc = make(&g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    get(&g, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine_desc);
    n = 0;
    get(&g, engine_desc, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n, notes);
    bool yes = !g.ok;
    for (int64_t i = 0; i < n && i < CUDNN_NUMERICAL_NOTE_TYPE_COUNT && g.ok; i++)
        yes = yes || notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE || notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
    forget(&g);
    return yes;
}

static void drop_plan(cu_engine *e)
{
    if (e->plan) e->g.c->cudnnBackendDestroyDescriptor(e->plan);
    e->plan = NULL;
}

/* A plan of one engine, when that can be made on this device and for these tensors. */
static bool plan_engine(qx_dev *d, cu_engine *e, cudnnBackendDescriptor_t config)
{
    dnn_graph one = {.c = e->g.c, .handle = e->g.handle, .ok = true};
    int64_t bytes = 0, count = 0;
    cudnnBackendDescriptor_t plan = DNN_PART(&one, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
                                             {CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &one.handle},
                                             {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config});
    get(&one, plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, &bytes);
    if (!one.ok || bytes < 0) {
        memcpy(e->g.said, one.said, sizeof e->g.said);
        forget(&one);
        return false;
    }
    e->plan = plan;
    e->workspace = (size_t)bytes;
    if (starts(d, e)) return true;
    drop_plan(e);
    return false;
}

/* The engines that the heuristic offers for the operations, best first: their number, which may be larger than what there is room for. */
static int64_t offers(dnn_graph *g, const dnn_ops *ops, cudnnBackendDescriptor_t configs[DNN_ENGINES])
{
    int64_t offered = 0;
    cudnnBackendDescriptor_t og = DNN_PART(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
                                           {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, ops->n, ops->op},
                                           {CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, g->card ? NULL : &g->handle});
    cudnnBackendDescriptor_t heur = DNN_PART(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR,
                                             {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &og},
                                             {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &ops->mode},
                                                 {CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                                  g->card ? &g->card : NULL});
    for (int i = 0; i < DNN_ENGINES; i++) configs[i] = make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    get(g, heur, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, DNN_ENGINES, &offered, configs);
    return offered;
}

/* The first engine that becomes a plan. */
static bool plan_graph(qx_dev *d, cu_engine *e, const dnn_ops *ops, bool exact)
{
    dnn_graph *g = &e->g;
    cudnnBackendDescriptor_t configs[DNN_ENGINES];
    const int64_t offered = offers(g, ops, configs);
    if (g->ok && offered)
        snprintf(g->said, sizeof g->said, "%s of %lld engines", exact ? "operands are rounded by each" : "none", (long long)offered);
    else if (g->ok) snprintf(g->said, sizeof g->said, "no engine (it compiles most of them with libnvrtc: is that found?)");
    for (int64_t i = 0, tries = 0; i < offered && i < DNN_ENGINES && tries < DNN_TRIES && g->ok; i++) {
        if (exact && rounds_operands(g->c, configs[i])) continue;
        tries++;
        if (plan_engine(d, e, configs[i])) return true;
    }
    return false;
}

/* ---- engines ---- */

/* The handle is made when first needed; false: there is no library, or it does not want this device. */
static bool has_handle(qx_dev *d)
{
    cu_library *l = d->lib;
    if (!l->has_dnn || l->cudnn) return l->has_dnn;
    cudnnStatus_t st = l->dnn.cudnnCreate(&l->cudnn);
    if (st == CUDNN_STATUS_SUCCESS) st = l->dnn.cudnnSetStream(l->cudnn, (cudaStream_t)d->q);
    l->has_dnn = st == CUDNN_STATUS_SUCCESS;
    if (!l->has_dnn) cu_refused(d, "cuDNN: %s", l->dnn.cudnnGetErrorString(st));
    return l->has_dnn;
}

/* All ways that the question has, in its order. */
static void plan(qx_dev *d, cu_engine *e, const dnn_question *q)
{
    const cu_library *l = d->lib;
    for (int way = 0; !e->plan; way++) {
        dnn_ops ops = {.n = 0};
        dnn_graph g = {.c = &l->dnn, .handle = l->cudnn, .ok = true};
        memcpy(g.said, e->g.said, sizeof g.said);
        e->g = g;
        if (!q->describe(&e->g, q->problem, way, &ops)) return;
        if (e->g.ok && plan_graph(d, e, &ops, q->exact)) return;
        forget(&e->g);
    }
}

static cu_engine *known(const cu_library *l, const dnn_question *q)
{
    cu_engine *e = l->engines;
    while (e && (e->bytes != q->bytes || memcmp(e->problem, q->problem, q->bytes) != 0)) e = e->next;
    return e;
}

qx_status dnn_engine(qx_dev *d, const dnn_question *q, cu_engine **out, const char **said)
{
    cu_library *l = d->lib;
    *out = NULL;
    *said = NULL;
    if (!has_handle(d)) return QX_OK;
    cu_engine *e = known(l, q);
    if (!e) {
        if (q->bytes > sizeof e->problem) QX_FAIL(d->ctx, QX_E_FAIL, "a problem of %zu bytes", q->bytes);
        QX_TRY(QX_NEW(d->ctx, &e));
        e->bytes = q->bytes;
        memcpy(e->problem, q->problem, q->bytes);
        plan(d, e, q);
        e->next = l->engines;
        l->engines = e;
    }
    *said = e->g.said;
    if (!e->plan) return QX_OK;
    e->users++;
    *out = e;
    return QX_OK;
}

static void drop(qx_dev *d, cu_engine *e)
{
    drop_plan(e);
    forget(&e->g);
    qx_free(d->ctx, e);
}

void cu_engine_free(qx_dev *d, void *engine)
{
    cu_engine *e = engine, **at = &((cu_library *)d->lib)->engines;
    if (--e->users > 0) return;
    cu_sync(d->m); /* its kernels may be under way, and go with it */
    while (*at != e) at = &(*at)->next;
    *at = e->next;
    drop(d, e);
}

void cu_engines_close(qx_dev *d)
{
    cu_library *l = d->lib;
    while (l->engines) {
        cu_engine *e = l->engines;
        l->engines = e->next;
        drop(d, e);
    }
}
