/* fuzz_model.c - the .onnx reader: wire format, messages, graph, checker, shape inference; and what was read can be laid out for
 * writing. */
#include "fuzz.h"
#include "onnx/file/io.h"

static void use(qx_ctx *ctx, qx_model *m)
{
    qx_write_result r;
    for (uint32_t i = 0; i < m->graph->n_inits; i++) {
        const qx_weight *w = m->graph->inits[i]->init;
        void *all;
        if (!w || w->dtype == QX_DT_STRING || qx_alloc_raw(ctx, w->bytes, &all) != QX_OK) continue;
        (void)qx_weight_read(ctx, w, all);
        qx_free(ctx, all);
    }
    m->dirty = true; /* all messages are built anew */
    (void)qx_model_write_size(m, NULL, &r);
    (void)qx_model_write_size(m, &(qx_write_options){.external_data = true}, &r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qx_ctx *ctx = fuzz_ctx(size);
    qx_model *m = NULL;
    const qx_read_options broken = {.skip_check = size % 4 == 3}; /* every fourth without the checker in front */
    const qx_status st = qx_model_read_bytes(ctx, data, size, NULL, &broken, &m);
    if (st == QX_OK) {
        use(ctx, m);
        qx_model_free(m);
    }
    fuzz_done(ctx, st);
    return 0;
}
