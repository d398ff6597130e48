/* unary.c - every operator that is one function of one element. fp16 and bf16 go through float in small tiles. */
#include <math.h>

#include "kernels/loops/vmath_leaf.h"
#include "runtime/cpu/pointwise/unary.h"
#include "runtime/pointwise_ops.h"

enum { PIECE = 1 << 14 /* elements a piece */, HALF_TILE = 1024 /* floats on the stack */ };

typedef struct job { qx_unary_fn *fn; const qx_tensor *x; void *y; float p[2]; int size; bool half; } job;

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    int64_t first = i * PIECE, n = j->x->numel - first < PIECE ? j->x->numel - first : PIECE;
    const char *x = (const char *)j->x->data + first * j->size;
    char *y = (char *)j->y + first * j->size;
    if (!j->half) {
        j->fn(x, y, n, j->p);
        return QX_OK;
    }
    float tile[HALF_TILE];
    for (int64_t k = 0; k < n; k += HALF_TILE) {
        int64_t m = n - k < HALF_TILE ? n - k : HALF_TILE;
        qx_to_f32(j->x->dtype, x + 2 * k, m, tile);
        j->fn(tile, tile, m, j->p);
        qx_from_f32(j->x->dtype, tile, m, y + 2 * k);
    }
    return QX_OK;
}

static void silu_row(const void *x, void *y, int64_t n, const float *p) { (void)p, qx_vmath_cpu(qx_isa_best())->silu(x, y, n); }
static void gelu_row(const void *x, void *y, int64_t n, const float *p) { (void)p, qx_vmath_cpu(qx_isa_best())->gelu(x, y, n); }
static void tanh_gelu_row(const void *x, void *y, int64_t n, const float *p) { (void)p, qx_vmath_cpu(qx_isa_best())->gelu_tanh(x, y, n); }
static void sigmoid_row(const void *x, void *y, int64_t n, const float *p) { (void)p, qx_vmath_cpu(qx_isa_best())->sigmoid(x, y, n); }

/* Those that models spend time in have faster rows. */
static qx_unary_fn *find(qx_unary op, qx_dtype dtype, const float p[2])
{
    static qx_unary_fn *const fast[QX_U_COUNT_] = {[QX_U_GELU] = gelu_row, [QX_U_GELU_TANH] = tanh_gelu_row, [QX_U_SIGMOID] = sigmoid_row,
                                                   [QX_U_SWISH] = silu_row};
    const bool other = op == QX_U_SWISH && (p[0] < 1 || p[0] > 1);
    return dtype == QX_DT_FLOAT && fast[op] && !other ? fast[op] : qx_unary_find(op, dtype);
}

qx_status qx_unary_run(qx_call *c, qx_unary op, const float p[2])
{
    const qx_tensor *x;
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &x));
    bool half = x->dtype == QX_DT_FLOAT16 || x->dtype == QX_DT_BFLOAT16;
    job j = {.fn = find(op, half ? QX_DT_FLOAT : x->dtype, p), .x = x, .size = qx_dtype_bits(x->dtype) / 8, .half = half,
             .p = {p[0], p[1]}};
    if (!j.fn || x->is_sequence) QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get(x->dtype)->text);
    QX_TRY(qx_call_out_reuse(c, 0, 0, x->dtype, x->rank, x->dims, &y));
    j.y = y->data;
    return qx_parallel(c->ctx, (x->numel + PIECE - 1) / PIECE, piece, &j);
}

qx_status qx_cpu_unary(qx_call *c)
{
    const qx_unary_row *r = qx_unary_row_of(c->node->op->id);
    if (!r) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "not in the table of unary functions");
    const float p[2] = {r->p0 ? qx_call_float(c, r->p0, r->d0) : 0, r->p1 ? qx_call_float(c, r->p1, r->d1) : 0};
    const bool by_tanh = r->op == QX_OP_Gelu && *qx_call_str(c, "approximate", "none") == 't';
    return qx_unary_run(c, by_tanh ? QX_U_GELU_TANH : r->fn, p);
}

/* Not: bool. BitwiseNot: integers. IsNaN, IsInf: float to bool. */
qx_status qx_cpu_not(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_out_reuse(c, 0, 0, x->dtype, x->rank, x->dims, &y));
    const uint8_t *a = x->data;
    uint8_t *b = y->data, flip = x->dtype == QX_DT_BOOL ? 1 : 0xff;
    for (size_t i = 0; i < x->bytes; i++) b[i] = a[i] ^ flip;
    return QX_OK;
}

qx_status qx_cpu_isnan(qx_call *c)
{
    const qx_tensor *x;
    const float *v;
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_f32(c, 0, &v));
    QX_TRY(qx_call_out(c, 0, QX_DT_BOOL, x->rank, x->dims, &y));
    uint8_t *b = y->data;
    bool nan = c->node->op->id == QX_OP_IsNaN, pos = qx_call_int(c, "detect_positive", 1) != 0,
        neg = qx_call_int(c, "detect_negative", 1) != 0;
    for (int64_t i = 0; i < x->numel; i++) b[i] = nan ? v[i] != v[i] : (pos && v[i] == INFINITY) || (neg && v[i] == -INFINITY);
    return QX_OK;
}
