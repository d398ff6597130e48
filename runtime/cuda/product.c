/* product.c - matrix products by cuBLASLt. The library thinks in columns: a row-major y[m, n] is a column-major y'[n, m], so its A is our weight and its B our activation.
 * Which algorithm fits is asked once, when a step is compiled, for exactly these dims, types and scale modes; an empty answer means "not taken" and the caller's own
 * kernel runs. f32 is computed in f32 (no TF32): calibration compares with the CPU. Compiled, never run on a device: see docs/gpu.md. */
#include "runtime/cuda/library.h"

#include <string.h>

enum { WORKSPACE = 32 << 20, ALIGN_BYTES = 16 };

struct cu_product_plan {
    const cu_library *l;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c; /* weight, activation, result */
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
    float alpha, beta;
    bool whole;                     /* INT32 result: alpha and beta are whole numbers */
};

static bool data_type(int dt, cudaDataType_t *out)
{
    static const struct { int dt; cudaDataType_t type; } rows[] = {
        {QX_DT_FLOAT, CUDA_R_32F}, {QX_DT_FLOAT16, CUDA_R_16F}, {QX_DT_BFLOAT16, CUDA_R_16BF}, {QX_DT_INT8, CUDA_R_8I}, {QX_DT_INT32, CUDA_R_32I},
        {QX_DT_FLOAT8E4M3FN, CUDA_R_8F_E4M3}, {QX_DT_FLOAT8E5M2, CUDA_R_8F_E5M2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].dt == dt) {
            *out = rows[i].type;
            return true;
        }
    return false;
}

static bool is_fp8(int type) { return type == QX_DT_FLOAT8E4M3FN || type == QX_DT_FLOAT8E5M2; }

/* What the library documents: 8-bit floats need sm_89, both operands with k innermost, all rows of 16 bytes; one scale a row needs sm_90. Integers: rows of 4. */
static bool within_rules(const qx_dev *d, const cu_product *p)
{
    if (p->m < 1 || p->n < 1 || p->k < 1 || p->m > INT32_MAX || p->n > INT32_MAX || p->k > INT32_MAX || p->batch > INT32_MAX) return false;
    const int sm = d->info.major * 10 + d->info.minor;
    if (is_fp8(p->type)) return sm >= 89 && p->w_nk && !p->x_km && p->k % 16 == 0 && p->n % 16 == 0 && (p->scale_mode == 0 || sm == 90) && p->batch == 1;
    if (p->type == QX_DT_INT8) return p->ytype == QX_DT_INT32 && p->w_nk && !p->x_km && p->k % 4 == 0 && p->n % 4 == 0 && !p->has_bias;
    return true;
}

#define SET(plan, name, value) ((plan)->l->blas.cublasLtMatmulDescSetAttribute((plan)->desc, CUBLASLT_MATMUL_DESC_##name, &(value), sizeof(value)) == CUBLAS_STATUS_SUCCESS)

static bool make_desc(cu_product_plan *plan, const cu_product *p)
{
    const cublasOperation_t yes = CUBLAS_OP_T, no = CUBLAS_OP_N;
    const bool whole = p->type == QX_DT_INT8;
    if (plan->l->blas.cublasLtMatmulDescCreate(&plan->desc, whole ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F, whole ? CUDA_R_32I : CUDA_R_32F) != CUBLAS_STATUS_SUCCESS) return false;
    /* row-major w[k, n] is column-major [n, k]: as A it is taken as it is; w[n, k] is turned. Likewise x. */
    if (!SET(plan, TRANSA, *(p->w_nk ? &yes : &no)) || !SET(plan, TRANSB, *(p->x_km ? &yes : &no))) return false;
    if (p->has_bias) {
        const cublasLtEpilogue_t e = CUBLASLT_EPILOGUE_BIAS;
        cudaDataType_t bt;
        if (!data_type(p->ytype, &bt) || !SET(plan, EPILOGUE, e) || !SET(plan, BIAS_DATA_TYPE, bt)) return false;
    }
    if (is_fp8(p->type) && p->scale_mode == 1) {
        const int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
        if (!SET(plan, A_SCALE_MODE, mode) || !SET(plan, B_SCALE_MODE, mode)) return false;
    }
    plan->whole = whole;
    plan->alpha = p->alpha;
    plan->beta = p->has_add ? 1.0f : 0.0f;
    return true;
}

static bool layout(const cu_blas *c, cublasLtMatrixLayout_t *out, cudaDataType_t type, int64_t rows, int64_t cols, int64_t batch, int64_t stride)
{
    const int32_t n = (int32_t)batch;
    if (c->cublasLtMatrixLayoutCreate(out, type, (uint64_t)rows, (uint64_t)cols, rows) != CUBLAS_STATUS_SUCCESS) return false;
    if (batch == 1) return true;
    return c->cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &n, sizeof n) == CUBLAS_STATUS_SUCCESS &&
           c->cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride) == CUBLAS_STATUS_SUCCESS;
}

static bool make_layouts(cu_product_plan *plan, const cu_product *p)
{
    cudaDataType_t in, out;
    if (!data_type(p->type, &in) || !data_type(p->ytype, &out)) return false;
    return layout(&plan->l->blas, &plan->a, in, p->w_nk ? p->k : p->n, p->w_nk ? p->n : p->k, p->batch, p->bw) &&
           layout(&plan->l->blas, &plan->b, in, p->x_km ? p->m : p->k, p->x_km ? p->k : p->m, p->batch, p->bx) && layout(&plan->l->blas, &plan->c, out, p->n, p->m, p->batch, p->by);
}

/* Addresses only matter by their alignment here: offsets of a batch in elements of two bytes may be odd multiples of 2. */
static uint32_t alignment(const cu_product *p)
{
    const int64_t size = qx_dtype_bits(p->type) / 8;
    uint32_t align = ALIGN_BYTES;
    while (p->batch > 1 && align > 1 && (p->bx * size % align || p->bw * size % align || p->by * size % align)) align /= 2;
    return align;
}

/* The heuristic looks at whether bias and scales are there and how they are aligned, so something is in their places when it is asked (as in NVIDIA's CUDALibrarySamples,
 * cuBLASLt/LtFp8Matmul); run puts in what is meant. */
static bool stand_ins(qx_dev *d, cu_product_plan *plan, const cu_product *p)
{
    const void *any = d->bad; /* aligned as every block */
    if (p->has_bias && !SET(plan, BIAS_POINTER, any)) return false;
    return !is_fp8(p->type) || (SET(plan, A_SCALE_POINTER, any) && SET(plan, B_SCALE_POINTER, any));
}

static bool choose(qx_dev *d, cu_product_plan *plan, const cu_product *p)
{
    cublasLtMatmulPreference_t pref = NULL;
    cublasLtMatmulHeuristicResult_t best;
    const size_t most = WORKSPACE;
    const uint32_t align = alignment(p);
    int found = 0;
    memset(&best, 0, sizeof best);
    if (!stand_ins(d, plan, p) || plan->l->blas.cublasLtMatmulPreferenceCreate(&pref) != CUBLAS_STATUS_SUCCESS) return false;
    bool ok = plan->l->blas.cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most) == CUBLAS_STATUS_SUCCESS;
    static const cublasLtMatmulPreferenceAttributes_t which[] = {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                                 CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (int i = 0; i < 4 && ok; i++) ok = plan->l->blas.cublasLtMatmulPreferenceSetAttribute(pref, which[i], &align, sizeof align) == CUBLAS_STATUS_SUCCESS;
    ok = ok && plan->l->blas.cublasLtMatmulAlgoGetHeuristic(plan->l->lt, plan->desc, plan->a, plan->b, plan->c, plan->c, pref, 1, &best, &found) == CUBLAS_STATUS_SUCCESS && found > 0;
    plan->l->blas.cublasLtMatmulPreferenceDestroy(pref);
    plan->algo = best.algo;
    plan->workspace = best.workspaceSize;
    return ok;
}

void cu_product_free(qx_dev *d, void *block)
{
    cu_product_plan *p = block;
    if (!p) return;
    if (p->a) p->l->blas.cublasLtMatrixLayoutDestroy(p->a);
    if (p->b) p->l->blas.cublasLtMatrixLayoutDestroy(p->b);
    if (p->c) p->l->blas.cublasLtMatrixLayoutDestroy(p->c);
    if (p->desc) p->l->blas.cublasLtMatmulDescDestroy(p->desc);
    qx_free(d->ctx, p);
}

qx_status cu_product_new(qx_dev *d, const cu_product *p, cu_product_plan **out, size_t *workspace, bool *taken)
{
    cu_product_plan *plan = NULL;
    *out = NULL;
    *workspace = 0;
    *taken = false;
    if (!((const cu_library *)d->lib)->has_blas || !within_rules(d, p)) return QX_OK;
    QX_TRY(QX_NEW(d->ctx, &plan));
    plan->l = d->lib;
    *taken = make_desc(plan, p) && make_layouts(plan, p) && choose(d, plan, p);
    if (!*taken) {
        cu_product_free(d, plan);
        return QX_OK;
    }
    *workspace = plan->workspace;
    *out = plan;
    return QX_OK;
}

qx_status cu_product_run(qx_dev *d, const cu_product_plan *p, const cu_product_data *a)
{
    const int32_t one = 1, nil = 0;
    const void *c = a->add ? a->add : a->y; /* y = alpha x w + beta c + bias */
    if (a->bias && !SET(p, BIAS_POINTER, a->bias)) QX_FAIL(d->ctx, QX_E_FAIL, "cuBLASLt: bias");
    if (a->sw && (!SET(p, A_SCALE_POINTER, a->sw) || !SET(p, B_SCALE_POINTER, a->sx))) QX_FAIL(d->ctx, QX_E_FAIL, "cuBLASLt: scales");
    cublasStatus_t st = p->l->blas.cublasLtMatmul(p->l->lt, p->desc, p->whole ? (const void *)&one : &p->alpha, a->w, p->a, a->x, p->b, p->whole ? (const void *)&nil : &p->beta,
                                       c, p->c, a->y, p->c, &p->algo, a->ws, p->workspace, (cudaStream_t)d->q);
    if (st != CUBLAS_STATUS_SUCCESS) QX_FAIL(d->ctx, QX_E_FAIL, "cuBLASLt: %s", p->l->blas.cublasLtGetStatusString(st));
    return QX_OK;
}
