/* fuzz_passes.c - pipeline text: what is accepted prints as a text that is accepted and prints the same. */
#include "fuzz.h"
#include "passes/pipeline.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qx_ctx *ctx = fuzz_ctx(size);
    char *text = fuzz_text(data, size);
    qx_pipeline *p, *q;
    qx_status st = qx_pipeline_parse(ctx, text, &p);
    if (st == QX_OK) {
        if (qx_pipeline_parse(ctx, qx_pipeline_text(p), &q) != QX_OK || strcmp(qx_pipeline_text(p), qx_pipeline_text(q)) != 0) {
            fprintf(stderr, "\"%s\" became \"%s\": %s\n", text, qx_pipeline_text(p), qx_ctx_error(ctx));
            abort();
        }
        qx_pipeline_free(q);
        qx_pipeline_free(p);
    }
    free(text);
    fuzz_done(ctx, st);
    return 0;
}
