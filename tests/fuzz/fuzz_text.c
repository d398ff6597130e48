/* fuzz_text.c - models in ONNX text form: what is accepted must print, and the print must be accepted. */
#include "fuzz.h"
#include "onnx/file/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qx_ctx *ctx = fuzz_ctx(size);
    char *text = fuzz_text(data, size);
    qx_model *m = NULL;
    qx_status st = qx_model_parse_text(ctx, text, &m);
    if (st == QX_OK) {
        qx_buf b = QX_BUF_INIT(ctx);
        (void)qx_model_print(m, &b);
        qx_buf_free(&b);
        qx_model_free(m);
    }
    free(text);
    fuzz_done(ctx, st);
    return 0;
}
