/* gather_codes.c - adapter of com.microsoft's GatherBlockQuantized: rows of a table of codes as numbers (kernels/cuda/codes.cu).
 * The table is never expanded. */
#include <string.h>

#include "runtime/cuda/node.h"

enum { CODES, INDICES, SCALE, ZERO };

static int code_type(const cu_build *b)
{
    const int dt = b->in[CODES].dtype;
    const int64_t bits = cu_int(b, "bits", 4);
    if (dt == QX_DT_UINT8) return bits == 4 ? QX_DT_UINT4 : bits == 2 ? QX_DT_UINT2 : QX_DT_UINT8;
    return dt;
}

static qx_status place(const cu_build *b)
{
    const int dt = b->in[CODES].dtype, idx = b->in[INDICES].dtype;
    const int64_t axis = cu_int(b, "quantize_axis", 1);
    if (dt && dt != QX_DT_UINT8 && dt != QX_DT_INT4 && dt != QX_DT_UINT4 && dt != QX_DT_INT2 && dt != QX_DT_UINT2)
        CU_NO(b, "codes of %s", qx_dtype_get(dt)->text);
    if (cu_int(b, "gather_axis", 0) != 0 || (axis != 1 && axis != -1))
        CU_NO(b, "codes that are not gathered by rows and quantized along them");
    if (idx && idx != QX_DT_INT64 && idx != QX_DT_INT32) CU_NO(b, "indices of %s", qx_dtype_get(idx)->text);
    return cu_want_real(b, SCALE);
}

static qx_status run(const cu_run *r)
{
    qk_codes_rows_args a = *(const qk_codes_rows_args *)r->args;
    a.w.codes = r->in[CODES].data;
    a.w.scale = r->in[SCALE].data;
    a.w.zero = a.w.zero ? r->in[ZERO].data : NULL;
    a.w.y = r->out[0].data;
    a.idx = r->in[INDICES].data;
    a.bad = r->d->bad;
    return cu_launched(r->d->m, qk_codes_rows(r->q, &a));
}

/* Zero points lie as the scales do; in bytes (of UINT8 tables) each row begins a byte of its own. */
static qx_status zero_points(cu_build *b, qk_codes_args *w, int bits)
{
    const qx_dev_tensor *z = &b->in[ZERO];
    if (!cu_has(b, ZERO)) return QX_OK;
    if (z->dtype != b->in[CODES].dtype) CU_NO(b, "zero points of %s", qx_dtype_get(z->dtype)->text);
    w->z_row_bits = z->dtype == QX_DT_UINT8 ? (w->blocks * bits + 7) / 8 * 8 : 0;
    if (z->numel != w->n * (w->z_row_bits ? w->z_row_bits / 8 : w->blocks))
        CU_BAD(b, "%lld zero points for %lld rows of %lld blocks", (long long)z->numel, (long long)w->n, (long long)w->blocks);
    w->zero = CU_LATER;
    return QX_OK;
}

static qx_status compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[CODES], *s = &b->in[SCALE];
    const int type = code_type(b), bits = (int)qx_dtype_bits(type);
    const bool bytes = x->dtype == QX_DT_UINT8;
    if (x->rank != 2) CU_NO(b, "a table of rank %d", x->rank);
    qk_codes_rows_args a = {.w = {.n = x->dims[0], .k = bytes ? x->dims[1] * 8 / bits : x->dims[1],
                                  .block = cu_int(b, "block_size", 128), .s_k = 1, .dtype = b->out[0].dtype, .stype = s->dtype,
                                  .ctype = type, .nk = 1},
                            .count = b->in[INDICES].numel, .wide = b->in[INDICES].dtype == QX_DT_INT64};
    qk_codes_args *w = &a.w;
    if (w->block < 16 || w->k > INT32_MAX || w->block > INT32_MAX)
        CU_NO(b, "rows of %lld in blocks of %lld", (long long)w->k, (long long)w->block);
    w->s_n = w->blocks = (w->k + w->block - 1) / w->block;
    w->bias_zero = bytes ? 1 << (bits - 1) : 0;
    if (!cu_real(w->dtype) || !cu_real(w->stype) || s->numel != w->n * w->blocks)
        CU_BAD(b, "%lld scales of %s for %lld rows of %lld blocks", (long long)s->numel, qx_dtype_get(s->dtype)->text, (long long)w->n,
               (long long)w->blocks);
    QX_TRY(zero_points(b, w, bits));
    return cu_step(b, run, &a, sizeof a);
}
const cu_adapter qx_cuda_gather_codes = {place, compile};
