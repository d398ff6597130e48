/* raise_opset.c - raise_opset IN OUT OPSET IR: converts a model to a newer opset, checks and writes it. Exit 3: it cannot be converted. */
#include <stdio.h>
#include <stdlib.h>

#include "onnx/file/io.h"
#include "passes/place/opset.h"

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_model *m = NULL;
    qx_status st = ctx ? qx_model_read(ctx, argv[1], NULL, &m) : QX_E_NOMEM;
    if (st == QX_OK) st = qx_opset_raise(m, (qx_need){strtoll(argv[3], NULL, 10), strtoll(argv[4], NULL, 10)}, "the test");
    if (st == QX_OK) st = qx_verify(m);
    if (st == QX_OK) st = qx_check(m, false);
    if (st == QX_OK) st = qx_infer_shapes(m, NULL, 0);
    if (st == QX_OK) st = qx_model_write(m, argv[2], &(qx_write_options){.force = true}, &(qx_write_result){0});
    if (st != QX_OK) fprintf(stderr, "%s\n", ctx ? qx_ctx_error(ctx) : "out of memory");
    if (m) qx_model_free(m);
    if (ctx) qx_ctx_free(ctx);
    return qx_status_exit_code(st);
}
