/* fuzz_tokenizer.c - tokenizer.json; one that is accepted must bring a text there, and back without crashing. */
#include "fuzz.h"
#include "calib/data/samples.h"

static qx_status use(qx_ctx *ctx, qx_tokenizer *t)
{
    static const char text[] = "The quick brown fox\n\tjumps 12345 times; na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac <s> don't";
    qx_buf b = QX_BUF_INIT(ctx);
    int64_t *ids, n;
    QX_TRY(qx_tokenizer_encode(t, text, sizeof text - 1, &ids, &n));
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= qx_tokenizer_vocab(t)) abort();
    qx_status st = qx_tokenizer_decode(t, ids, n, &b);
    qx_free(ctx, ids);
    qx_buf_free(&b);
    return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qx_ctx *ctx = fuzz_ctx(size * 100);
    char path[64];
    qx_tokenizer *t;
    int fd = fuzz_file(data, size, path);
    qx_status st = qx_tokenizer_open(ctx, path, &t);
    if (st == QX_OK) {
        st = use(ctx, t);
        qx_tokenizer_free(t);
    }
    close(fd);
    fuzz_done(ctx, st);
    return 0;
}
