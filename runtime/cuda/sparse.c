/* sparse.c - weights whose zeros are 2:4, for products on sparse units (kernels/cuda/sparse.cu): whether a weight is one is found
 * out by compressing it, once, when the step is compiled. The compressed form lies in one block: values, then places. */
#include "runtime/cuda/lib.h"

/* 16 rows of the weight and one step along k; E4M3 came with sm_89. */
static bool fits(const qx_dev *d, int dtype, int64_t n, int64_t k)
{
    const bool fp8 = dtype == QX_DT_FLOAT8E4M3FN;
    if (dtype != QX_DT_FLOAT16 && dtype != QX_DT_INT8 && !fp8) return false;
    return n > 0 && n % 16 == 0 && k > 0 && k % (dtype == QX_DT_FLOAT16 ? 32 : 64) == 0 &&
        (!fp8 || d->info.major * 10 + d->info.minor >= 89);
}

/* *turned: the weight as [n, k]; a block of its own when it is stored [k, n]. */
static qx_status as_rows(cu_build *b, const qx_dev_tensor *w, int64_t n, int64_t k, bool nk, void **turned)
{
    *turned = NULL;
    if (nk) return QX_OK;
    QX_TRY(cu_alloc(b->d->m, w->bytes, turned));
    const qk_turn_args t = {.src = w->data, .dst = *turned, .batch = 1, .rows = k, .cols = n, .size = cu_bytes(w->dtype)};
    return cu_launched(b->d->m, qk_turn(b->d->q, &t));
}

static qx_status compress(cu_build *b, const qx_dev_tensor *w, const void *rows, char *block, size_t bytes, int64_t n, int64_t k,
                          int32_t *bad)
{
    int32_t *flag = (int32_t *)(void *)(block + bytes - sizeof *flag);
    const qk_compress_args c = {.w = rows ? rows : w->data, .values = block, .meta = (uint32_t *)(void *)(block + w->bytes / 2),
                                .bad = flag, .n = n, .k = k, .dtype = w->dtype};
    QX_TRY(cu_zero(b->d->m, flag, sizeof *flag));
    QX_TRY(cu_launched(b->d->m, qk_sparse_compress(b->d->q, &c)));
    return cu_download(b->d->m, bad, flag, sizeof *bad);
}

qx_status cu_sparse_weight(cu_build *b, uint32_t input, int64_t n, int64_t k, bool nk, qk_sparse_args *out)
{
    const qx_dev_tensor *w = &b->in[input];
    void *turned = NULL, *block = NULL;
    int32_t bad = 1;
    if (!(w->flags & QX_DEV_SPARSE) || !fits(b->d, w->dtype, n, k)) return QX_OK;
    const size_t bytes = w->bytes / 2 + (size_t)(n * k / 32) * sizeof *out->meta + sizeof bad;
    qx_status st = as_rows(b, w, n, k, nk, &turned);
    if (st == QX_OK) st = cu_alloc(b->d->m, bytes, &block);
    if (st == QX_OK) st = compress(b, w, turned, block, bytes, n, k, &bad);
    if (turned) cu_release(b->d->m, turned);
    if (st != QX_OK || bad) {
        if (block) cu_release(b->d->m, block);
        return st;
    }
    QX_TRY(cu_step_keep(b, block));
    b->step->kernel = "mma.sp";
    out->values = block;
    out->meta = (const uint32_t *)(const void *)((const char *)block + w->bytes / 2);
    out->n = n;
    out->k = k;
    out->dtype = w->dtype;
    return QX_OK;
}
