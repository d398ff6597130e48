/* ms_pointwise.c - com.microsoft's short loops over rows: BiasGelu, FastGelu, BiasAdd, BiasSplitGelu, GatedRMSNorm, BiasSoftmax.
 * A row is the last axis; a bias is one row. */
#include <math.h>
#include <string.h>

#include "kernels/pointwise.h"
#include "kernels/rows.h"
#include "runtime/cpu/op.h"

typedef struct job { const float *x, *bias, *skip; float *y; int64_t n, rows, group; float eps; qx_unary act; bool gate_only; } job;
typedef void row_fn(const job *j, int64_t r);
typedef struct run_job { const job *j; row_fn *fn; int64_t per; } run_job;

static qx_status piece(void *user, int64_t i)
{
    const run_job *k = user;
    for (int64_t r = i * k->per; r < (i + 1) * k->per && r < k->j->rows; r++) k->fn(k->j, r);
    return QX_OK;
}

static qx_status run_rows(qx_call *c, const job *j, row_fn *fn)
{
    run_job k = {j, fn, (1 << 13) / (j->n + 1) + 1};
    return qx_parallel(c->ctx, (j->rows + k.per - 1) / k.per, piece, &k);
}

/* x, its rows, and a vector as long as a row at input `bias_in` (may be missing). */
static qx_status read(qx_call *c, job *j, uint32_t bias_in, bool needed)
{
    const qx_tensor *x, *b = qx_call_in(c, bias_in);
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->rank < 1) QX_CALL_FAIL(c, QX_E_SHAPE, "the input is a scalar");
    if (!qx_dtype_is_float(x->dtype)) QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get((int)x->dtype)->text);
    j->n = x->dims[x->rank - 1];
    j->rows = qx_prod(x->dims, 0, x->rank - 1);
    QX_TRY(qx_call_in_f32(c, 0, &j->x));
    if (!b && !needed) return QX_OK;
    QX_TRY(qx_call_need(c, bias_in, &b));
    if (b->numel != j->n)
        QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has %lld elements for rows of %lld", bias_in, (long long)b->numel, (long long)j->n);
    return qx_call_in_f32(c, bias_in, &j->bias);
}

static void biased(const job *j, int64_t r, float *y)
{
    const float *x = j->x + r * j->n;
    for (int64_t i = 0; i < j->n; i++) y[i] = x[i] + (j->bias ? j->bias[i] : 0.0f);
}

static void gelu_row(const job *j, int64_t r)
{
    const float none[2] = {0, 0};
    float *y = j->y + r * j->n;
    biased(j, r, y);
    qx_unary_find(j->act, QX_DT_FLOAT)(y, y, j->n, none);
}

/* FastGelu is the tanh form, BiasGelu the one with erf. */
qx_status qx_cpu_ms_bias_gelu(qx_call *c)
{
    const bool fast = c->node->op->id == QX_OP_ms_FastGelu;
    job j = {.act = fast ? QX_U_GELU_TANH : QX_U_GELU};
    QX_TRY(read(c, &j, 1, !fast));
    QX_TRY(qx_call_out_f32(c, 0, c->in[0]->dtype, c->in[0]->rank, c->in[0]->dims, &j.y));
    return run_rows(c, &j, gelu_row);
}

static void add_row(const job *j, int64_t r)
{
    float *y = j->y + r * j->n;
    biased(j, r, y);
    for (int64_t i = 0; i < j->n; i++) y[i] += j->skip[r * j->n + i];
}

qx_status qx_cpu_ms_bias_add(qx_call *c)
{
    const qx_tensor *skip;
    job j = {0};
    QX_TRY(read(c, &j, 1, true));
    QX_TRY(qx_call_need(c, 2, &skip));
    if (skip->numel != c->in[0]->numel)
        QX_CALL_FAIL(c, QX_E_SHAPE, "skip has %lld elements, the input %lld", (long long)skip->numel, (long long)c->in[0]->numel);
    QX_TRY(qx_call_in_f32(c, 2, &j.skip));
    QX_TRY(qx_call_out_f32(c, 0, c->in[0]->dtype, c->in[0]->rank, c->in[0]->dims, &j.y));
    return run_rows(c, &j, add_row);
}

/* (x + bias) in two halves a, b: a gelu(b). */
static void split_gelu_row(const job *j, int64_t r)
{
    const int64_t half = j->n / 2;
    const float *x = j->x + r * j->n, none[2] = {0, 0};
    float *y = j->y + r * half;
    for (int64_t i = 0; i < half; i++) y[i] = x[half + i] + j->bias[half + i];
    qx_unary_find(QX_U_GELU, QX_DT_FLOAT)(y, y, half, none);
    for (int64_t i = 0; i < half; i++) y[i] *= x[i] + j->bias[i];
}

qx_status qx_cpu_ms_bias_split_gelu(qx_call *c)
{
    job j = {0};
    int64_t dims[QX_MAX_RANK];
    QX_TRY(read(c, &j, 1, true));
    if (j.n % 2) QX_CALL_FAIL(c, QX_E_SHAPE, "rows of %lld have no halves", (long long)j.n);
    memcpy(dims, c->in[0]->dims, sizeof dims);
    dims[c->in[0]->rank - 1] = j.n / 2;
    QX_TRY(qx_call_out_f32(c, 0, c->in[0]->dtype, c->in[0]->rank, dims, &j.y));
    return run_rows(c, &j, split_gelu_row);
}

/* y = x / sqrt(mean(x^2) + eps) scale, times silu(gate) or sigmoid(gate); here a row is one group of C elements. */
static void gated_row(const job *j, int64_t r)
{
    const float one[2] = {1, 0};
    float inv, *y = j->y + r * j->n;
    qx_unary_find(j->act, QX_DT_FLOAT)(j->skip + r * j->n, y, j->n, one);
    const float *x = j->x + r * j->n;
    double sum = 0;
    for (int64_t i = 0; i < j->n; i++) sum += (double)x[i] * (double)x[i];
    inv = (float)(1.0 / sqrt(sum / (double)j->n + (double)j->eps));
    for (int64_t i = 0; i < j->n; i++) y[i] *= x[i] * inv * j->bias[i];
}

qx_status qx_cpu_ms_gated_rms_norm(qx_call *c)
{
    const qx_tensor *x, *scale, *gate;
    const char *act = qx_call_str(c, "activation", "silu");
    job j = {.eps = qx_call_float(c, "epsilon", 1e-5f), .act = strcmp(act, "sigmoid") ? QX_U_SWISH : QX_U_SIGMOID};
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &scale));
    QX_TRY(qx_call_need(c, 2, &gate));
    if (strcmp(act, "silu") && strcmp(act, "swish") && strcmp(act, "sigmoid")) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "activation '%s'", act);
    if (x->rank < 1 || scale->numel < 1 || x->dims[x->rank - 1] % scale->numel || gate->numel != x->numel)
        QX_CALL_FAIL(c, QX_E_SHAPE, "scale has %lld elements, gate %lld, the input %lld", (long long)scale->numel,
                     (long long)gate->numel, (long long)x->numel);
    j.n = scale->numel;
    j.rows = x->numel / j.n;
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    QX_TRY(qx_call_in_f32(c, 1, &j.bias));
    QX_TRY(qx_call_in_f32(c, 2, &j.skip));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &j.y));
    return run_rows(c, &j, gated_row);
}

/* softmax(x + bias) over everything from axis on; the bias broadcasts over the axes in front of it, or (inner) over [bias rank.., axis). */
static void softmax_row(const job *j, int64_t r)
{
    const float *x = j->x + r * j->n, *b = j->bias + (j->gate_only ? r / j->group : r % j->group) * j->n;
    float *y = j->y + r * j->n;
    for (int64_t i = 0; i < j->n; i++) y[i] = x[i] + b[i];
    qx_softmax_row(y, y, j->n, false);
}

qx_status qx_cpu_ms_bias_softmax(qx_call *c)
{
    const qx_tensor *x, *b;
    int axis;
    job j = {.gate_only = qx_call_int(c, "is_inner_broadcast", 0) != 0};
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &b));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 1), x->rank, &axis));
    j.n = qx_prod(x->dims, axis, x->rank);
    j.rows = qx_prod(x->dims, 0, axis);
    if (j.n < 1 || b->numel < j.n || b->numel % j.n || j.rows % (b->numel / j.n))
        QX_CALL_FAIL(c, QX_E_SHAPE, "bias has %lld elements for %lld rows of %lld", (long long)b->numel, (long long)j.rows, (long long)j.n);
    const int64_t rows = b->numel / j.n;
    j.group = j.gate_only ? j.rows / rows : rows;
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    QX_TRY(qx_call_in_f32(c, 1, &j.bias));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &j.y));
    return run_rows(c, &j, softmax_row);
}
