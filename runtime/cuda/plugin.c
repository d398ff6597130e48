/* plugin.c - the table that a plugin exports: opens the device and hands nodes to their adapters. */
#include <stdio.h>
#include <string.h>

#include "runtime/cuda/lib.h"
#include "runtime/cuda/node.h"

static qx_dev_status status_of(qx_status st)
{
    switch (st) {
    case QX_OK: return QX_DEV_OK;
    case QX_E_UNSUPPORTED: return QX_DEV_UNSUPPORTED;
    case QX_E_NOMEM: return QX_DEV_NOMEM;
    case QX_E_SHAPE:
    case QX_E_TYPE: return QX_DEV_BAD_SHAPE;
    default: return QX_DEV_FAILED;
    }
}

/* Start of every call: no message of an earlier one, and the right device. */
static void enter(qx_dev *d)
{
    qx_ctx_clear_error(d->ctx);
    *d->why = 0;
    cu_machine_enter(d->m);
}

static void dev_close(qx_dev *d)
{
    qx_ctx *ctx = d->ctx;
    if (d->m) cu_sync(d->m);
    cu_lib_close(d);
    if (d->m) cu_observe_close(d);
    if (d->bad) cu_release(d->m, d->bad);
    if (d->m) cu_machine_close(d->m);
    qx_free(ctx, d);
    qx_ctx_free(ctx);
}

static qx_status open_parts(qx_dev *d, int index)
{
    QX_TRY(cu_machine_open(d->ctx, index, &d->m));
    d->q = cu_machine_queue(d->m);
    cu_machine_info(d->m, &d->info);
    QX_TRY(cu_alloc(d->m, sizeof *d->bad, (void **)&d->bad));
    QX_TRY(cu_zero(d->m, d->bad, sizeof *d->bad));
    return cu_lib_open(d);
}

static qx_dev_status dev_open(int32_t index, qx_dev **out, char *text, size_t cap)
{
    qx_ctx_options one = {.threads = 1};
    qx_ctx *ctx = qx_ctx_new(&one);
    qx_dev *d = NULL;
    *out = NULL;
    if (!ctx || QX_NEW(ctx, &d) != QX_OK) {
        qx_ctx_free(ctx);
        return QX_DEV_NOMEM;
    }
    d->ctx = ctx;
    qx_status st = open_parts(d, index);
    if (st == QX_OK) {
        *out = d;
        return QX_DEV_OK;
    }
    snprintf(text, cap, "%s", qx_ctx_error(ctx));
    dev_close(d);
    return status_of(st);
}

static qx_dev_status dev_info(qx_dev *d, qx_dev_info *out)
{
    cu_machine_info(d->m, out);
    memcpy(out->notes, d->info.notes, sizeof out->notes);
    return QX_DEV_OK;
}

static const char *dev_error(qx_dev *d) { return qx_ctx_error(d->ctx); }

/* ---- memory ---- */

static qx_dev_status dev_alloc(qx_dev *d, size_t bytes, void **out)
{
    enter(d);
    return status_of(cu_alloc(d->m, bytes, out));
}

static void dev_release(qx_dev *d, void *p)
{
    enter(d);
    cu_release(d->m, p);
}

static qx_dev_status dev_upload(qx_dev *d, void *to, const void *from, size_t bytes)
{
    enter(d);
    return status_of(cu_upload(d->m, to, from, bytes));
}

static qx_status check_indices(qx_dev *d)
{
    int32_t bad = 0;
    QX_TRY(cu_download(d->m, &bad, d->bad, sizeof bad));
    if (!bad) return QX_OK;
    QX_TRY(cu_zero(d->m, d->bad, sizeof *d->bad));
    QX_FAIL(d->ctx, QX_E_SHAPE, "an index of a Gather, Scatter or rotary embedding, or a length of GroupQueryAttention, was out "
                                "of range (--device cpu names the node)");
}

static qx_dev_status dev_download(qx_dev *d, void *to, const void *from, size_t bytes)
{
    enter(d);
    qx_status st = cu_download(d->m, to, from, bytes);
    return status_of(st == QX_OK ? check_indices(d) : st);
}

static qx_dev_status dev_sync(qx_dev *d)
{
    enter(d);
    return status_of(cu_sync(d->m));
}

/* ---- nodes ---- */

static qx_status place(const cu_build *b, const cu_adapter *a)
{
    if (!a) CU_NO(b, "no CUDA kernel for %s%s%s", b->node->domain, *b->node->domain ? "." : "", b->node->op);
    for (uint32_t i = 0; i < b->node->n_in; i++)
        if (b->in[i].rank > QX_DEV_RANK) CU_NO(b, "rank %d", b->in[i].rank);
    return a->place(b);
}

static qx_dev_status dev_place(qx_dev *d, const qx_dev_node *n, const qx_dev_tensor *in, qx_dev_place *out)
{
    cu_build b = {.d = d, .node = n, .in = in, .place = out};
    *out = (qx_dev_place){0};
    enter(d);
    const cu_adapter *a = cu_find(n, &b.op);
    return status_of(place(&b, a));
}

/* What the libraries answered stays with the step. */
static void keep_why(const qx_dev *d, qx_dev_step *s)
{
    if (*d->why) memcpy(s->why, d->why, sizeof s->why);
}

static void dev_drop(qx_dev *d, qx_dev_step *s)
{
    if (!s) return;
    if (s->plan) s->drop(d, s->plan);
    for (int i = 0; i < s->n_memory; i++) cu_release(d->m, s->memory[i]);
    qx_free(d->ctx, s->args);
    qx_free(d->ctx, s);
}

static qx_dev_status dev_compile(qx_dev *d, const qx_dev_node *n, const qx_dev_tensor *in, const qx_dev_tensor *out, qx_dev_step **step,
                                 size_t *workspace)
{
    cu_build b = {.d = d, .node = n, .in = in, .out = out};
    *step = NULL;
    *workspace = 0;
    enter(d);
    const cu_adapter *a = cu_find(n, &b.op);
    if (!a) return QX_DEV_UNSUPPORTED;
    if (QX_NEW(d->ctx, &b.step) != QX_OK) return QX_DEV_NOMEM;
    qx_status st = a->compile(&b);
    if (st != QX_OK) {
        dev_drop(d, b.step);
        return status_of(st);
    }
    keep_why(d, b.step);
    b.step->empty = true;
    for (uint32_t i = 0; i < n->n_out; i++) b.step->empty = b.step->empty && (!out[i].dtype || out[i].numel == 0);
    *step = b.step;
    *workspace = b.step->workspace;
    return QX_DEV_OK;
}

static qx_dev_status dev_run(qx_dev *d, qx_dev_step *s, const qx_dev_tensor *in, const qx_dev_tensor *out, void *workspace)
{
    const cu_run r = {d, s, d->q, s->args, in, out, workspace};
    enter(d);
    if (s->empty) return QX_DEV_OK;
    const qx_status st = s->run(&r);
    keep_why(d, s);
    return status_of(st);
}

static const char *dev_kernel(const qx_dev_step *s) { return s->kernel; }
static const char *dev_why(const qx_dev_step *s) { return *s->why ? s->why : NULL; }

static qx_dev_status dev_mark(qx_dev *d, uint32_t index)
{
    enter(d);
    return status_of(cu_mark(d->m, index));
}

static qx_dev_status dev_elapsed(qx_dev *d, uint32_t from, uint32_t to, double *seconds)
{
    enter(d);
    return status_of(cu_elapsed(d->m, from, to, seconds));
}

/* ---- recordings ---- */

static qx_dev_status dev_capture_begin(qx_dev *d)
{
    enter(d);
    return status_of(cu_capture_begin(d->m));
}

static qx_dev_status dev_capture_end(qx_dev *d, qx_dev_graph **out) { return status_of(cu_capture_end(d->m, (void **)out)); }

static qx_dev_status dev_replay(qx_dev *d, qx_dev_graph *g)
{
    enter(d);
    return status_of(cu_replay(d->m, g));
}

static void dev_drop_graph(qx_dev *d, qx_dev_graph *g) { cu_drop_graph(d->m, g); }

static const qx_backend table = {
    .abi = QX_BACKEND_ABI, .struct_size = sizeof table, .name = "cuda", .chains = 1, .open = dev_open, .close = dev_close,
    .info = dev_info, .error = dev_error, .alloc = dev_alloc,
    .release = dev_release, .upload = dev_upload, .download = dev_download, .sync = dev_sync, .place = dev_place, .compile = dev_compile,
    .run = dev_run, .drop = dev_drop,
    .kernel = dev_kernel, .why = dev_why, .mark = dev_mark, .elapsed = dev_elapsed,
    .capture_begin = dev_capture_begin, .capture_end = dev_capture_end, .replay = dev_replay, .drop_graph = dev_drop_graph,
    .look = cu_observe_look,
    .gather = cu_observe_gather, .gram_add = cu_observe_gram_add, .gram_take = cu_observe_gram_take,
};

__attribute__((visibility("default"))) const qx_backend *qonnx_backend(uint32_t abi);
const qx_backend *qonnx_backend(uint32_t abi) { return abi == QX_BACKEND_ABI ? &table : NULL; }
