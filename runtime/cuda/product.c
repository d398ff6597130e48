/* product.c - matrix products by cuBLASLt. The library thinks in columns: a row-major y[m, n] is a column-major y'[n, m], so its
 * A is our weight and its B our activation. Which algorithm fits is asked once, when a step is compiled, for exactly these dims,
 * types and scale modes; an empty answer means "not taken" and the caller's own kernel runs. f32 is computed in f32 (no TF32):
 * calibration compares with the CPU. Compiled, never run on a device: see docs/gpu.md. */
#include "runtime/cuda/library.h"

#include <string.h>

enum { WORKSPACE = 32 << 20, ALIGN_BYTES = 16, CHOICES = 4 };

struct cu_product_plan {
    const cu_library *l;
    cu_product p;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c; /* weight, activation, result */
    cublasLtMatmulAlgo_t algos[CHOICES];
    int n_algos, at;                /* those before `at` were refused when they ran */
    size_t workspace;               /* of the hungriest */
    cublasStatus_t status;          /* the last answer that was no success */
};

static bool data_type(int dt, cudaDataType_t *out)
{
    static const struct { int dt; cudaDataType_t type; } rows[] = {
        {QX_DT_FLOAT, CUDA_R_32F}, {QX_DT_FLOAT16, CUDA_R_16F}, {QX_DT_BFLOAT16, CUDA_R_16BF}, {QX_DT_INT8, CUDA_R_8I},
        {QX_DT_INT32, CUDA_R_32I},
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

/* What the library documents: 8-bit floats need sm_89, both operands with k innermost, all rows of 16 bytes; scales of rows and
 * blocks need sm_90, the latter tokens in fours. Integers: rows of 4. */
static bool within_rules(const qx_dev *d, const cu_product *p)
{
    if (p->m < 1 || p->n < 1 || p->k < 1 || p->m > INT32_MAX || p->n > INT32_MAX || p->k > INT32_MAX || p->batch > INT32_MAX) return false;
    const int sm = d->info.major * 10 + d->info.minor;
    if (is_fp8(p->type))
        return sm >= 89 && p->w_nk && !p->x_km && p->k % 16 == 0 && p->n % 16 == 0 && (p->scale_mode == CU_SCALE_ONE || sm == 90) &&
            (p->scale_mode != CU_SCALE_BLOCKS || p->m % 4 == 0) && p->batch == 1;
    if (p->type == QX_DT_INT8) return p->ytype == QX_DT_INT32 && p->w_nk && !p->x_km && p->k % 4 == 0 && p->n % 4 == 0 && !p->has_bias;
    return true;
}

static bool ok(cu_product_plan *plan, cublasStatus_t st)
{
    if (st != CUBLAS_STATUS_SUCCESS) plan->status = st;
    return st == CUBLAS_STATUS_SUCCESS;
}

#define SET(plan, name, value) ok(plan, (plan)->l->blas.cublasLtMatmulDescSetAttribute((plan)->desc, CUBLASLT_MATMUL_DESC_##name, &(value), sizeof(value)))

static bool make_desc(cu_product_plan *plan, const cu_product *p)
{
    const cublasOperation_t yes = CUBLAS_OP_T, no = CUBLAS_OP_N;
    const bool whole = p->type == QX_DT_INT8;
    if (!ok(plan, plan->l->blas.cublasLtMatmulDescCreate(&plan->desc, whole ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                                         whole ? CUDA_R_32I : CUDA_R_32F)))
        return false;
    /* row-major w[k, n] is column-major [n, k]: as A it is taken as it is; w[n, k] is turned. Likewise x. */
    if (!SET(plan, TRANSA, *(p->w_nk ? &yes : &no)) || !SET(plan, TRANSB, *(p->x_km ? &yes : &no))) return false;
    if (p->has_bias) {
        const cublasLtEpilogue_t e = CUBLASLT_EPILOGUE_BIAS;
        cudaDataType_t bt;
        if (!data_type(p->ytype, &bt) || !SET(plan, EPILOGUE, e) || !SET(plan, BIAS_DATA_TYPE, bt)) return false;
    }
    if (is_fp8(p->type) && p->scale_mode != CU_SCALE_ONE) {
        const int32_t mode = p->scale_mode == CU_SCALE_ROWS ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
            : CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
        if (!SET(plan, A_SCALE_MODE, mode) || !SET(plan, B_SCALE_MODE, mode)) return false;
    }
    return true;
}

static bool layout(cu_product_plan *plan, cublasLtMatrixLayout_t *out, cudaDataType_t type, int64_t rows, int64_t cols, int64_t stride)
{
    const cu_blas *c = &plan->l->blas;
    const int32_t n = (int32_t)plan->p.batch;
    if (!ok(plan, c->cublasLtMatrixLayoutCreate(out, type, (uint64_t)rows, (uint64_t)cols, rows))) return false;
    if (n == 1) return true;
    return ok(plan, c->cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &n, sizeof n)) &&
           ok(plan, c->cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride));
}

static bool make_layouts(cu_product_plan *plan, const cu_product *p)
{
    cudaDataType_t in, out;
    if (!data_type(p->type, &in) || !data_type(p->ytype, &out)) return false;
    return layout(plan, &plan->a, in, p->w_nk ? p->k : p->n, p->w_nk ? p->n : p->k, p->bw) &&
        layout(plan, &plan->b, in, p->x_km ? p->m : p->k, p->x_km ? p->k : p->m, p->bx) &&
           layout(plan, &plan->c, out, p->n, p->m, p->by);
}

/* Addresses only matter by their alignment here: offsets of a batch in elements of two bytes may be odd multiples of 2. */
static uint32_t alignment(const cu_product *p)
{
    const int64_t size = qx_dtype_bits(p->type) / 8;
    uint32_t align = ALIGN_BYTES;
    while (p->batch > 1 && align > 1 && (p->bx * size % align || p->bw * size % align || p->by * size % align)) align /= 2;
    return align;
}

/* The heuristic looks at whether bias and scales are there and how they are aligned, so something is in their places when it is
 * asked (as in NVIDIA's CUDALibrarySamples, cuBLASLt/LtFp8Matmul); run puts in what is meant. */
static bool stand_ins(qx_dev *d, cu_product_plan *plan, const cu_product *p)
{
    const void *any = d->bad; /* aligned as every block */
    if (p->has_bias && !SET(plan, BIAS_POINTER, any)) return false;
    return !is_fp8(p->type) || (SET(plan, A_SCALE_POINTER, any) && SET(plan, B_SCALE_POINTER, any));
}

/* The best few, best first: that an algorithm is offered does not yet mean that it starts. */
static bool choose(qx_dev *d, cu_product_plan *plan, const cu_product *p)
{
    static const cublasLtMatmulPreferenceAttributes_t which[] = {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                                                 CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                                 CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                                                     CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const cu_blas *c = &plan->l->blas;
    cublasLtMatmulPreference_t pref = NULL;
    cublasLtMatmulHeuristicResult_t found[CHOICES];
    const size_t most = WORKSPACE;
    const uint32_t align = alignment(p);
    int offered = 0;
    memset(found, 0, sizeof found);
    if (!stand_ins(d, plan, p) || !ok(plan, c->cublasLtMatmulPreferenceCreate(&pref))) return false;
    bool set = ok(plan, c->cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most));
    for (int i = 0; i < 4 && set; i++) set = ok(plan, c->cublasLtMatmulPreferenceSetAttribute(pref, which[i], &align, sizeof align));
    set = set && ok(plan, c->cublasLtMatmulAlgoGetHeuristic(plan->l->lt, plan->desc, plan->a, plan->b, plan->c, plan->c, pref, CHOICES,
                                                            found, &offered));
    c->cublasLtMatmulPreferenceDestroy(pref);
    for (int i = 0; i < offered && set; i++) {
        if (!ok(plan, found[i].state)) continue; /* the others' fields mean nothing */
        plan->algos[plan->n_algos++] = found[i].algo;
        if (found[i].workspaceSize > plan->workspace) plan->workspace = found[i].workspaceSize;
    }
    return plan->n_algos > 0;
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

/* The problem in words, for whoever looks why it was not taken. */
static void say_refused(qx_dev *d, const cu_product_plan *plan)
{
    static const char *const scales[] = {"", ", a scale a row", ", a scale for 128 of k"};
    const cu_product *p = &plan->p;
    cu_refused(d, "cuBLASLt: %s for %s x[%lld, %lld] w[%lld, %lld]%s -> %s%s%s%s, batch %lld",
               plan->l->blas.cublasLtGetStatusString(plan->status), qx_dtype_get(p->type)->text,
               (long long)p->m, (long long)p->k, (long long)p->k, (long long)p->n, p->w_nk ? "'" : "", qx_dtype_get(p->ytype)->text,
               p->has_bias ? " + bias" : "", p->has_add ? " + y" : "",
               scales[p->scale_mode], (long long)p->batch);
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
    plan->p = *p;
    plan->status = CUBLAS_STATUS_NOT_SUPPORTED; /* what an empty answer means */
    *taken = make_desc(plan, p) && make_layouts(plan, p) && choose(d, plan, p);
    if (!*taken) {
        say_refused(d, plan);
        cu_product_free(d, plan);
        return QX_OK;
    }
    *workspace = plan->workspace;
    *out = plan;
    return QX_OK;
}

static cublasStatus_t start(const qx_dev *d, const cu_product_plan *p, const cu_product_data *a)
{
    const int32_t one = 1, nil = 0;
    const float unit = 1, none = 0;
    const bool whole = p->p.type == QX_DT_INT8; /* alpha and beta have the type of the sums */
    const void *alpha = whole ? (const void *)&one : &p->p.alpha, *beta = whole ? (const void *)&nil : p->p.has_add ? &unit : &none;
    const void *c = a->add ? a->add : a->y; /* y = alpha x w + beta c + bias */
    return p->l->blas.cublasLtMatmul(p->l->lt, p->desc, alpha, a->w, p->a, a->x, p->b, beta, c, p->c, a->y, p->c, &p->algos[p->at],
                                     a->ws, p->workspace, (cudaStream_t)d->q);
}

/* Whatever an algorithm refuses with, the next one writes the whole result; a device that is broken says so at the next launch. */
qx_status cu_product_run(qx_dev *d, cu_product_plan *p, const cu_product_data *a, bool *done)
{
    *done = false;
    if (a->bias && !SET(p, BIAS_POINTER, a->bias)) QX_FAIL(d->ctx, QX_E_FAIL, "cuBLASLt: bias");
    if (a->sw && (!SET(p, A_SCALE_POINTER, a->sw) || !SET(p, B_SCALE_POINTER, a->sx))) QX_FAIL(d->ctx, QX_E_FAIL, "cuBLASLt: scales");
    for (; p->at < p->n_algos; p->at++) {
        p->status = start(d, p, a);
        *done = p->status == CUBLAS_STATUS_SUCCESS;
        if (*done) return QX_OK;
        say_refused(d, p);
    }
    return QX_OK;
}
