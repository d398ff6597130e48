/* quant.c - adapters of QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear, standard and com.microsoft, and the plan's
 * codes of rows. */
#include <string.h>

#include "runtime/cuda/node.h"

static bool code_type(int dt)
{
    return dt == QX_DT_INT8 || dt == QX_DT_UINT8 || dt == QX_DT_INT16 || dt == QX_DT_UINT16 || dt == QX_DT_INT4 || dt == QX_DT_UINT4 ||
        dt == QX_DT_INT2 || dt == QX_DT_UINT2 ||
           (dt >= QX_DT_FLOAT8E4M3FN && dt <= QX_DT_FLOAT8E5M2FNUZ) || dt == QX_DT_FLOAT4E2M1;
}

static bool scale_type(int dt) { return cu_real(dt) || dt == QX_DT_FLOAT8E8M0 || dt == QX_DT_FLOAT8E4M3FN; }

/* Layout of the scales around the axis; the same rules as runtime/cpu/codes/qdq.c. */
static qx_status layout(const cu_build *b, qk_quant_args *a)
{
    const qx_dev_tensor *x = &b->in[0], *s = &b->in[1];
    int64_t block = cu_int(b, "block_size", 0);
    int axis;
    *a = (qk_quant_args){.outer = 1, .d = x->numel, .inner = 1, .block = 1, .blocks = 1, .stype = s->dtype,
                         .saturate = (int32_t)cu_int(b, "saturate", 1)};
    if (!scale_type(s->dtype)) CU_NO(b, "scales of %s", qx_dtype_get(s->dtype)->text);
    if (s->numel == 1 && block == 0) return QX_OK;
    QX_TRY(cu_axis(b, x->rank == 1 && block == 0 ? 0 : cu_int(b, "axis", 1), x->rank, &axis));
    a->outer = cu_prod(x->dims, 0, axis);
    a->d = x->dims[axis];
    a->inner = cu_prod(x->dims, axis + 1, x->rank);
    a->kind = block > 0 ? 2 : 1;
    a->block = block > 0 ? block : 1;
    a->blocks = (a->d + a->block - 1) / a->block;
    if (s->numel != (block > 0 ? a->outer * a->blocks * a->inner : a->d))
        CU_BAD(b, "scale has %lld elements, axis %d and block size %lld ask for others", (long long)s->numel, axis, (long long)block);
    return QX_OK;
}

static qx_status quant_place(const cu_build *b)
{
    QX_TRY(cu_want_real(b, 0));
    if (b->in[1].dtype && !scale_type(b->in[1].dtype)) CU_NO(b, "scales of %s", qx_dtype_get(b->in[1].dtype)->text);
    return QX_OK;
}

static qx_status dequant_place(const cu_build *b)
{
    if (b->in[0].dtype && !code_type(b->in[0].dtype) && b->in[0].dtype != QX_DT_INT32)
        CU_NO(b, "codes of %s", qx_dtype_get(b->in[0].dtype)->text);
    if (b->in[1].dtype && !scale_type(b->in[1].dtype)) CU_NO(b, "scales of %s", qx_dtype_get(b->in[1].dtype)->text);
    return QX_OK;
}

static qx_status quant_run(const cu_run *r)
{
    qk_quant_args a = *(const qk_quant_args *)r->args;
    a.x = r->in[0].data;
    a.scale = r->in[1].data;
    a.zero = a.zero ? r->in[2].data : NULL;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_quantize(r->q, &a));
}

static qx_status dequant_run(const cu_run *r)
{
    qk_quant_args a = *(const qk_quant_args *)r->args;
    a.x = r->in[0].data;
    a.scale = r->in[1].data;
    a.zero = a.zero ? r->in[2].data : NULL;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_dequantize(r->q, &a));
}

static qx_status quant_compile(cu_build *b)
{
    qk_quant_args a;
    QX_TRY(layout(b, &a));
    a.dtype = b->in[0].dtype;
    a.codes = b->out[0].dtype;
    if (!cu_real(a.dtype) || !code_type(a.codes))
        CU_NO(b, "no CUDA kernel from %s to %s", qx_dtype_get(a.dtype)->text, qx_dtype_get(a.codes)->text);
    if (cu_has(b, 2) && b->in[2].numel != b->in[1].numel)
        CU_BAD(b, "%lld zero points for %lld scales", (long long)b->in[2].numel, (long long)b->in[1].numel);
    a.zero = cu_has(b, 2) ? CU_LATER : NULL;
    return cu_step(b, quant_run, &a, sizeof a);
}
const cu_adapter qx_cuda_quantize = {quant_place, quant_compile};

static qx_status dequant_compile(cu_build *b)
{
    qk_quant_args a;
    QX_TRY(layout(b, &a));
    a.dtype = b->out[0].dtype;
    a.codes = b->in[0].dtype;
    if (!cu_real(a.dtype) || (!code_type(a.codes) && a.codes != QX_DT_INT32))
        CU_NO(b, "no CUDA kernel from %s to %s", qx_dtype_get(a.codes)->text, qx_dtype_get(a.dtype)->text);
    if (cu_has(b, 2) && b->in[2].numel != b->in[1].numel)
        CU_BAD(b, "%lld zero points for %lld scales", (long long)b->in[2].numel, (long long)b->in[1].numel);
    a.zero = cu_has(b, 2) ? CU_LATER : NULL;
    return cu_step(b, dequant_run, &a, sizeof a);
}
const cu_adapter qx_cuda_dequantize = {dequant_place, dequant_compile};

static qx_status dynamic_place(const cu_build *b) { return cu_want_real(b, 0); }

static qx_status dynamic_run(const cu_run *r)
{
    qk_dynamic_args a = *(const qk_dynamic_args *)r->args;
    a.x = r->in[0].data;
    a.y = r->out[0].data;
    a.scale = r->out[1].data;
    a.zero = r->out[2].data;
    a.part = r->ws;
    return cu_launched(r->d->m, qk_dynamic_quant(r->q, &a));
}

static qx_status dynamic_compile(cu_build *b)
{
    const qk_dynamic_args a = {.n = b->in[0].numel, .dtype = b->in[0].dtype};
    if (!cu_real(a.dtype) || b->node->n_out != 3 || !b->out[1].dtype || !b->out[2].dtype)
        CU_NO(b, "a dynamic quantization whose scale nobody reads");
    b->step->workspace = 512 * sizeof(float);
    return cu_step(b, dynamic_run, &a, sizeof a);
}
const cu_adapter qx_cuda_dynamic_quantize = {dynamic_place, dynamic_compile};

/* ---- a row at a time, by scales that the graph has made ---- */

static qx_status row_codes_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0], *s = &b->in[1];
    const int64_t cols = x->rank ? x->dims[x->rank - 1] : 1;
    const qk_quant_args a = {.outer = 1, .d = s->numel, .inner = cols, .block = 1, .blocks = 1, .kind = 1, .dtype = x->dtype,
                             .codes = b->out[0].dtype, .stype = s->dtype, .saturate = 1, .missing = (int32_t)cu_int(b, "zero", 0)};
    if (x->dtype != QX_DT_FLOAT || s->dtype != QX_DT_FLOAT || a.codes != QX_DT_UINT8)
        CU_NO(b, "rows of %s by scales of %s", qx_dtype_get(x->dtype)->text, qx_dtype_get(s->dtype)->text);
    if (s->numel * cols != x->numel)
        CU_BAD(b, "%lld scales for rows of %lld in %lld elements", (long long)s->numel, (long long)cols, (long long)x->numel);
    return cu_step(b, quant_run, &a, sizeof a);
}
extern const cu_adapter cu_row_codes;
const cu_adapter cu_row_codes = {quant_place, row_codes_compile};
