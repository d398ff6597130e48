/* unary.c - every operator that is one function of one element. fp16 and bf16 go through float in small tiles. */
#include <math.h>

#include "runtime/cpu/half.h"
#include "runtime/cpu/unary.h"

/* Operator, kernel, and its parameters as attribute names with their defaults. */
typedef struct unary_row { qx_op_id op; qx_unary fn; const char *p0; float d0; const char *p1; float d1; } unary_row;
static const unary_row rows[] = {
    {QX_OP_Abs, QX_U_ABS, 0, 0, 0, 0}, {QX_OP_Neg, QX_U_NEG, 0, 0, 0, 0}, {QX_OP_Sign, QX_U_SIGN, 0, 0, 0, 0},
    {QX_OP_Sqrt, QX_U_SQRT, 0, 0, 0, 0}, {QX_OP_Exp, QX_U_EXP, 0, 0, 0, 0}, {QX_OP_Log, QX_U_LOG, 0, 0, 0, 0},
    {QX_OP_Reciprocal, QX_U_RECIPROCAL, 0, 0, 0, 0}, {QX_OP_Floor, QX_U_FLOOR, 0, 0, 0, 0}, {QX_OP_Ceil, QX_U_CEIL, 0, 0, 0, 0},
    {QX_OP_Round, QX_U_ROUND, 0, 0, 0, 0}, {QX_OP_Relu, QX_U_RELU, 0, 0, 0, 0}, {QX_OP_Sigmoid, QX_U_SIGMOID, 0, 0, 0, 0},
    {QX_OP_Tanh, QX_U_TANH, 0, 0, 0, 0}, {QX_OP_Erf, QX_U_ERF, 0, 0, 0, 0}, {QX_OP_Sin, QX_U_SIN, 0, 0, 0, 0},
    {QX_OP_Cos, QX_U_COS, 0, 0, 0, 0}, {QX_OP_Tan, QX_U_TAN, 0, 0, 0, 0}, {QX_OP_Asin, QX_U_ASIN, 0, 0, 0, 0},
    {QX_OP_Acos, QX_U_ACOS, 0, 0, 0, 0}, {QX_OP_Atan, QX_U_ATAN, 0, 0, 0, 0}, {QX_OP_Sinh, QX_U_SINH, 0, 0, 0, 0},
    {QX_OP_Cosh, QX_U_COSH, 0, 0, 0, 0}, {QX_OP_Asinh, QX_U_ASINH, 0, 0, 0, 0}, {QX_OP_Acosh, QX_U_ACOSH, 0, 0, 0, 0},
    {QX_OP_Atanh, QX_U_ATANH, 0, 0, 0, 0}, {QX_OP_Softplus, QX_U_SOFTPLUS, 0, 0, 0, 0}, {QX_OP_Softsign, QX_U_SOFTSIGN, 0, 0, 0, 0},
    {QX_OP_Mish, QX_U_MISH, 0, 0, 0, 0}, {QX_OP_HardSwish, QX_U_HARDSWISH, 0, 0, 0, 0},
    {QX_OP_LeakyRelu, QX_U_LEAKY_RELU, "alpha", 0.01f, 0, 0}, {QX_OP_Elu, QX_U_ELU, "alpha", 1.0f, 0, 0},
    {QX_OP_Celu, QX_U_CELU, "alpha", 1.0f, 0, 0}, {QX_OP_Selu, QX_U_SELU, "alpha", 1.67326319217681884765625f, "gamma", 1.05070102214813232421875f},
    {QX_OP_HardSigmoid, QX_U_HARDSIGMOID, "alpha", 0.2f, "beta", 0.5f}, {QX_OP_ThresholdedRelu, QX_U_THRESHOLDED, "alpha", 1.0f, 0, 0},
    {QX_OP_Shrink, QX_U_SHRINK, "bias", 0.0f, "lambd", 0.5f}, {QX_OP_Swish, QX_U_SWISH, "alpha", 1.0f, 0, 0},
    {QX_OP_ms_QuickGelu, QX_U_SWISH, "alpha", 1.702f, 0, 0}, {QX_OP_Gelu, QX_U_GELU, 0, 0, 0, 0}, {QX_OP_ms_Gelu, QX_U_GELU, 0, 0, 0, 0},
};

enum { PIECE = 1 << 14 }; /* elements a piece */

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
    float tile[QX_HALF_TILE];
    for (int64_t k = 0; k < n; k += QX_HALF_TILE) {
        int64_t m = n - k < QX_HALF_TILE ? n - k : QX_HALF_TILE;
        qx_to_f32(j->x->dtype, x + 2 * k, m, tile);
        j->fn(tile, tile, m, j->p);
        qx_half_from_f32(j->x->dtype, tile, m, y + 2 * k);
    }
    return QX_OK;
}

qx_status qx_unary_run(qx_call *c, qx_unary op, const float p[2])
{
    const qx_tensor *x;
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &x));
    bool half = x->dtype == QX_DT_FLOAT16 || x->dtype == QX_DT_BFLOAT16;
    job j = {.fn = qx_unary_find(op, half ? QX_DT_FLOAT : x->dtype), .x = x, .size = qx_dtype_bits(x->dtype) / 8, .half = half, .p = {p[0], p[1]}};
    if (!j.fn || x->is_sequence) QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get(x->dtype)->text);
    QX_TRY(qx_call_out_reuse(c, 0, 0, x->dtype, x->rank, x->dims, &y));
    j.y = y->data;
    return qx_parallel(c->ctx, (x->numel + PIECE - 1) / PIECE, piece, &j);
}

qx_status qx_cpu_unary(qx_call *c)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].op != c->node->op->id) continue;
        float p[2] = {rows[i].p0 ? qx_call_float(c, rows[i].p0, rows[i].d0) : 0, rows[i].p1 ? qx_call_float(c, rows[i].p1, rows[i].d1) : 0};
        qx_unary fn = rows[i].fn;
        if (rows[i].op == QX_OP_Gelu && *qx_call_str(c, "approximate", "none") == 't') fn = QX_U_GELU_TANH;
        return qx_unary_run(c, fn, p);
    }
    QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "not in the table of unary functions");
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
    bool nan = c->node->op->id == QX_OP_IsNaN, pos = qx_call_int(c, "detect_positive", 1) != 0, neg = qx_call_int(c, "detect_negative", 1) != 0;
    for (int64_t i = 0; i < x->numel; i++) b[i] = nan ? v[i] != v[i] : (pos && v[i] == INFINITY) || (neg && v[i] == -INFINITY);
    return QX_OK;
}
