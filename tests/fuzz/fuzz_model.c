/* fuzz_model.c - the .onnx reader: wire format, messages, graph, checker, shape inference. */
#include "fuzz.h"
#include "onnx/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qx_ctx *ctx = fuzz_ctx(size);
    qx_model *m = NULL;
    qx_status st = qx_model_read_bytes(ctx, data, size, NULL, NULL, &m);
    if (st == QX_OK) {
        qx_model_free(m);
    }
    fuzz_done(ctx, st);
    return 0;
}
