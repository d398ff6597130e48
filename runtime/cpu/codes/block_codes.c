/* block_codes.c - products with weights [N, K] of fp4, fp8 or 4-bit table codes in blocks along K: com.microsoft's
 * MatMulBlockQuantizedFp4Weight, MatMulBlockQuantizedFp8Weight and MatMulBnb4. Weights are decoded a panel at a time on the stack
 * and never exist as floats as a whole. */
#include <string.h>

#include "kernels/gemm.h"
#include "kernels/scalar.h"
#include "runtime/cpu/op.h"

typedef struct codes codes;
typedef float value_fn(const codes *w, int64_t n, int64_t k);
struct codes {
    value_fn *value;
    const uint8_t *data;
    int64_t n, k, block, blocks;
    const float *scale;        /* [n, blocks], or one a block of the flat matrix (Bnb4) */
    const uint8_t *scale_e4m3; /* the same as bytes (Fp4) */
    float global;
    const float *table;        /* 16 values (Bnb4) */
    bool flip;                 /* the product is with [N, K] as it lies, not its transpose */
};

/* bitsandbytes' tables: FP4 (sign, two exponent bits, one mantissa bit, over 12) and NF4 (quantiles of the normal distribution). */
static const float fp4_table[16] = {0.0f, 0.005208333333f, 0.66666667f, 1.0f, 0.33333333f, 0.5f, 0.16666667f, 0.25f,
                                    -0.0f, -0.005208333333f, -0.66666667f, -1.0f, -0.33333333f, -0.5f, -0.16666667f, -0.25f};
static const float nf4_table[16] = {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
                                    -0.18477343022823334f,
                                    -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f,
                                    0.33791524171829224f,
                                    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

static float fp4_value(const codes *w, int64_t n, int64_t k)
{
    const int64_t i = n * w->k + k;
    return qx_sc_e2m1_to_f32(w->data[i / 2] >> (i % 2 * 4) & 15) * w->global *
        qx_sc_e4m3_to_f32(w->scale_e4m3[n * w->blocks + k / w->block]);
}

static float fp8_value(const codes *w, int64_t n, int64_t k)
{
    return qx_sc_e4m3_to_f32(w->data[n * w->k + k]) * w->scale[n * w->blocks + k / w->block];
}

/* The even element is in the high bits. */
static float bnb_value(const codes *w, int64_t n, int64_t k)
{
    const int64_t i = n * w->k + k;
    return w->table[w->data[i / 2] >> (i % 2 ? 0 : 4) & 15] * w->scale[i / w->block];
}

/* ---- The product ---- */

enum { COLS = 2 * QX_GEMM_NR };
typedef struct job { const codes *w; const float *x, *bias; float *y; int64_t m, in, out; } job;
typedef struct column_range { const codes *w; int64_t first; } column_range;

static void pack(const void *user, int64_t k0, int64_t kc, int64_t j0, int64_t nc, float *panel)
{
    const column_range *r = user;
    for (int64_t i = 0; i < kc; i++)
        for (int64_t j = 0; j < QX_GEMM_NR; j++) {
            const int64_t col = r->first + j0 + j, at = k0 + i;
            panel[i * QX_GEMM_NR + j] = j >= nc ? 0.0f : r->w->flip ? r->w->value(r->w, at, col) : r->w->value(r->w, col, at);
        }
}

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    const column_range r = {j->w, i * COLS};
    const int64_t cols = j->out - r.first < COLS ? j->out - r.first : COLS;
    const qx_sgemm g = {.m = j->m, .n = cols, .k = j->in, .x = j->x, .ldx = j->in, .cx = 1, .make = pack, .user = &r,
                        .bias = j->bias ? j->bias + r.first : NULL, .y = j->y + r.first, .ldy = j->out, .alpha = 1.0f};
    qx_sgemm_run(&g);
    return QX_OK;
}

static qx_status product(qx_call *c, const codes *w, uint32_t bias_in, const float *x)
{
    const qx_tensor *t = c->in[0], *bias = qx_call_in(c, bias_in);
    job j = {.w = w, .x = x, .in = w->flip ? w->n : w->k, .out = w->flip ? w->k : w->n};
    int64_t dims[QX_MAX_RANK];
    char a[96];
    if (t->rank < 1 || t->dims[t->rank - 1] != j.in)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%s by a weight with %lld rows", qx_tensor_describe(t, a, sizeof a), (long long)j.in);
    if (bias && bias->numel != j.out)
        QX_CALL_FAIL(c, QX_E_SHAPE, "bias has %lld elements for %lld columns", (long long)bias->numel, (long long)j.out);
    memcpy(dims, t->dims, sizeof dims);
    dims[t->rank - 1] = j.out;
    j.m = qx_prod(t->dims, 0, t->rank - 1);
    if (bias) QX_TRY(qx_call_in_f32(c, bias_in, &j.bias));
    QX_TRY(qx_call_out_f32(c, 0, t->dtype, t->rank, dims, &j.y));
    qx_call_note_kernel(c, "panels", 2.0 * (double)j.m * (double)j.in * (double)j.out);
    return j.m ? qx_parallel(c->ctx, (j.out + COLS - 1) / COLS, piece, &j) : QX_OK;
}

/* ---- The operators ---- */

static qx_status need_counts(const qx_call *c, const char *what, int64_t given, int64_t needed)
{
    if (given != needed) QX_CALL_FAIL(c, QX_E_SHAPE, "%s has %lld elements, %lld are needed", what, (long long)given, (long long)needed);
    return QX_OK;
}

static qx_status matrix(const qx_call *c, qx_dtype type, int64_t per_byte, int64_t block, codes *w)
{
    const qx_tensor *b;
    char a[96];
    QX_TRY(qx_call_need(c, 1, &b));
    if (b->dtype != type || b->rank != 2 || block < 1)
        QX_CALL_FAIL(c, QX_E_SHAPE, "B is %s in blocks of %lld; a matrix of %s is needed", qx_tensor_describe(b, a, sizeof a),
                     (long long)block, qx_dtype_get((int)type)->text);
    w->n = b->dims[0];
    w->k = b->dims[1] * per_byte;
    w->block = block;
    w->blocks = (w->k + block - 1) / block;
    w->data = b->data;
    return QX_OK;
}

static qx_status fp4(qx_call *c)
{
    const qx_tensor *scale;
    const float *x;
    double global;
    codes w = {.value = fp4_value};
    QX_TRY(matrix(c, QX_DT_UINT8, 2, qx_call_int(c, "block_size", 16), &w));
    QX_TRY(qx_call_need(c, 2, &scale));
    QX_TRY(need_counts(c, "weight_scale", (int64_t)scale->bytes, w.n * w.blocks));
    QX_TRY(qx_call_scalar_f64(c, 3, 1, &global));
    w.scale_e4m3 = scale->data;
    w.global = (float)global;
    QX_TRY(qx_call_in_f32(c, 0, &x));
    return product(c, &w, 5, x);
}

/* With a_scale the activation is rounded to fp8 first. */
static qx_status fp8(qx_call *c)
{
    const qx_tensor *scale;
    const float *x;
    codes w = {.value = fp8_value};
    QX_TRY(matrix(c, QX_DT_FLOAT8E4M3FN, 1, qx_call_int(c, "block_size", 128), &w));
    QX_TRY(qx_call_need(c, 2, &scale));
    QX_TRY(need_counts(c, "b_scale", scale->numel, w.n * w.blocks));
    QX_TRY(qx_call_in_f32(c, 2, &w.scale));
    QX_TRY(qx_call_in_f32(c, 0, &x));
    if (!qx_call_in(c, 3)) return product(c, &w, 4, x);
    double s;
    float *rounded = NULL;
    QX_TRY(qx_call_scalar_f64(c, 3, 1, &s));
    QX_TRY(QX_CALL_SCRATCH(c, c->in[0]->numel + 1, &rounded));
    for (int64_t i = 0; i < c->in[0]->numel; i++) rounded[i] = qx_sc_e4m3_to_f32(qx_sc_f32_to_e4m3(x[i] / (float)s, 1)) * (float)s;
    return product(c, &w, 4, rounded);
}

static qx_status bnb4(qx_call *c)
{
    const qx_tensor *b, *absmax;
    const float *x;
    const int64_t type = qx_call_int(c, "quant_type", 0);
    codes w = {.value = bnb_value, .n = qx_call_int(c, "N", 0), .k = qx_call_int(c, "K", 0), .block = qx_call_int(c, "block_size", 0),
               .table = type ? nf4_table : fp4_table, .flip = !qx_call_int(c, "transB", 1)};
    int64_t n;
    QX_TRY(qx_call_need(c, 1, &b));
    QX_TRY(qx_call_need(c, 2, &absmax));
    if (w.n < 1 || w.k < 1 || w.block < 1 || type < 0 || type > 1 || !qx_dims_product((int64_t[]){w.n, w.k}, 2, &n) ||
        b->dtype != QX_DT_UINT8)
        QX_CALL_FAIL(c, QX_E_SHAPE, "N %lld, K %lld, block_size %lld, quant_type %lld", (long long)w.n, (long long)w.k,
                     (long long)w.block, (long long)type);
    QX_TRY(need_counts(c, "B", b->numel, n / 2 + n % 2));
    QX_TRY(need_counts(c, "absmax", absmax->numel, n / w.block + (n % w.block != 0)));
    w.data = b->data;
    QX_TRY(qx_call_in_f32(c, 2, &w.scale));
    QX_TRY(qx_call_in_f32(c, 0, &x));
    return product(c, &w, UINT32_MAX, x);
}

qx_status qx_cpu_ms_matmul_codes(qx_call *c)
{
    if (c->node->op->id == QX_OP_ms_MatMulBlockQuantizedFp4Weight) return fp4(c);
    return c->node->op->id == QX_OP_ms_MatMulBnb4 ? bnb4(c) : fp8(c);
}
