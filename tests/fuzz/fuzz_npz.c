/* fuzz_npz.c - .npz files: every array is described and read. */
#include "fuzz.h"
#include "calib/data/samples.h"

static qx_status read_all(qx_ctx *ctx, qx_npz *z)
{
    for (int i = 0; i < qx_npz_count(z) && i < 50; i++) {
        qx_tensor t;
        QX_TRY(qx_npz_describe(z, i, &t));
        QX_TRY(qx_npz_read(z, i, &t));
        qx_tensor_free(ctx, &t);
    }
    return QX_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qx_ctx *ctx = fuzz_ctx(size);
    char path[64];
    qx_npz *z;
    int fd = fuzz_file(data, size, path);
    qx_status st = qx_npz_open(ctx, path, &z);
    if (st == QX_OK) {
        st = read_all(ctx, z);
        qx_npz_close(z);
    }
    close(fd);
    fuzz_done(ctx, st);
    return 0;
}
