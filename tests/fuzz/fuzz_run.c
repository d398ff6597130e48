/* fuzz_run.c - the executor on hostile models: any attribute, any shape, small inputs whose bytes are the file's own. */
#include "fuzz.h"
#include "runtime/exec.h"

enum { MAX_FEEDS = 16 };

/* A tensor for a graph input: free dims are 2, content is what the file has at its end. */
static qx_status make_feed(qx_ctx *ctx, const qx_value *v, const uint8_t *data, size_t size, qx_tensor *t)
{
    int64_t dims[QX_MAX_RANK], n = 1;
    if (v->type.kind != QX_KIND_TENSOR || v->type.dtype == QX_DT_STRING || v->type.rank > QX_MAX_RANK)
        QX_FAIL(ctx, QX_E_UNSUPPORTED, "input '%s' is not fed here", v->name);
    for (int i = 0; i < v->type.rank; i++) {
        dims[i] = v->type.dims[i].n >= 0 ? v->type.dims[i].n : 2;
        if (dims[i] > 1000 || (n *= dims[i]) > 10000) QX_FAIL(ctx, QX_E_UNSUPPORTED, "input '%s' is large", v->name);
    }
    QX_TRY(qx_tensor_new(ctx, t, v->type.dtype, v->type.rank, dims));
    for (size_t i = 0; i < t->bytes; i++)
        ((uint8_t *)t->data)[i] = t->dtype == QX_DT_BOOL ? data[size - 1 - i % size] & 1 : data[size - 1 - i % size];
    return QX_OK;
}

static qx_status run(qx_ctx *ctx, qx_model *m, const uint8_t *data, size_t size)
{
    qx_tensor inputs[MAX_FEEDS] = {{0}}, outs[MAX_FEEDS] = {{0}};
    qx_feed feeds[MAX_FEEDS];
    qx_exec *x = NULL;
    int n = 0;
    qx_status st = QX_OK;
    if (m->graph->n_inputs > MAX_FEEDS || m->graph->n_outputs > MAX_FEEDS) return qx_fail(ctx, QX_E_UNSUPPORTED, "many inputs");
    for (uint32_t i = 0; i < m->graph->n_inputs && st == QX_OK; i++) {
        qx_value *v = m->graph->inputs[i];
        if (v->init) continue;
        st = make_feed(ctx, v, data, size, &inputs[n]);
        feeds[n] = (qx_feed){v->name, &inputs[n]};
        n++;
    }
    if (st == QX_OK) st = qx_exec_new(ctx, m, &(qx_exec_options){.max_loop = 8, .device = QX_DEVICE_CPU}, &x);
    if (st == QX_OK) st = qx_exec_run(x, feeds, n, NULL, (int)m->graph->n_outputs, outs);
    if (st == QX_OK)
        for (uint32_t i = 0; i < m->graph->n_outputs; i++) qx_tensor_free(ctx, &outs[i]);
    qx_exec_free(x);
    for (int i = 0; i < n; i++) qx_tensor_free(ctx, &inputs[i]);
    return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qx_ctx *ctx = fuzz_ctx(size);
    qx_model *m = NULL;
    qx_status st = qx_model_read_bytes(ctx, data, size, NULL, NULL, &m);
    if (st == QX_OK) {
        st = run(ctx, m, data, size);
        qx_model_free(m);
    }
    fuzz_done(ctx, st);
    return 0;
}
