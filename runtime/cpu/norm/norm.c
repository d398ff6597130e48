/* norm.c - Softmax, LogSoftmax, LayerNormalization, RMSNormalization and its com.microsoft forms, InstanceNormalization,
 * GroupNormalization. All are loops over rows; fp16 and bf16 are converted as a whole, so statistics are float whatever
 * stash_type says. */
#include <string.h>

#include "kernels/rows.h"
#include "runtime/cpu/norm/group_norm.h"
#include "runtime/cpu/move/strided.h"

typedef struct job {
    const float *x, *skip, *bias, *gamma, *beta;
    float *y, *mean, *inv, *sum;
    int64_t n, rows, per, skip_rows, gamma_rows; /* gamma_rows: rows after which gamma repeats (1: shared) */
    float eps;
    bool rms, log;
} job;

static int64_t pieces(job *j)
{
    j->per = (1 << 14) / (j->n + 1) + 1;
    return (j->rows + j->per - 1) / j->per;
}
#define FOR_ROWS(j, i, r) for (int64_t r = (i) * (j)->per, r##_end = (r) + (j)->per < (j)->rows ? (r) + (j)->per : (j)->rows; r < r##_end; r++)

/* ---- Softmax ---- */

static qx_status softmax_piece(void *user, int64_t i)
{
    const job *j = user;
    FOR_ROWS(j, i, r) {
        if (j->log) qx_log_softmax_row(j->x + r * j->n, j->y + r * j->n, j->n);
        else qx_softmax_row(j->x + r * j->n, j->y + r * j->n, j->n, false);
    }
    return QX_OK;
}

/* Along an axis that is not the last: transposed there and back. */
static qx_status softmax_inner(qx_call *c, job *j, int64_t outer, int64_t n, int64_t inner)
{
    float *t = NULL, *y = j->y;
    qx_strided there = {3, {outer, inner, n}, {n * inner, 1, inner}}, back = {3, {outer, n, inner}, {n * inner, 1, n}};
    QX_TRY(QX_CALL_SCRATCH(c, outer * n * inner, &t));
    QX_TRY(qx_strided_copy(c->ctx, &there, j->x, t, sizeof *t));
    j->x = j->y = t;
    j->n = n;
    j->rows = outer * inner;
    QX_TRY(qx_parallel(c->ctx, pieces(j), softmax_piece, j));
    return qx_strided_copy(c->ctx, &back, t, y, sizeof *t);
}

qx_status qx_cpu_softmax(qx_call *c)
{
    const qx_tensor *x;
    int axis;
    job j = {.log = c->node->op->id == QX_OP_LogSoftmax};
    QX_TRY(qx_call_need(c, 0, &x));
    bool flat = c->version < 13; /* old form: everything from axis on is one row */
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", flat ? 1 : -1), x->rank + (flat && qx_call_int(c, "axis", 1) == x->rank), &axis));
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    qx_tensor *y = NULL;
    if (x->dtype == QX_DT_FLOAT) {
        QX_TRY(qx_call_out_reuse(c, 0, 0, x->dtype, x->rank, x->dims, &y));
        j.y = y->data;
    } else {
        QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &j.y));
    }
    if (x->numel == 0) return QX_OK;
    int64_t outer = qx_prod(x->dims, 0, axis), n = flat ? qx_prod(x->dims, axis, x->rank) : x->rank ? x->dims[axis] : 1;
    int64_t inner = x->numel / outer / n;
    if (inner > 1) return softmax_inner(c, &j, outer, n, inner);
    j.n = n;
    j.rows = outer;
    return qx_parallel(c->ctx, pieces(&j), softmax_piece, &j);
}

/* ---- LayerNormalization and RMS forms ---- */

static qx_status norm_piece(void *user, int64_t i)
{
    const job *j = user;
    FOR_ROWS(j, i, r) {
        const float *x = j->x + r * j->n;
        if (j->skip) { /* sum of input, skip and bias first; it is an output of its own */
            const float *s = j->skip + r % j->skip_rows * j->n;
            float *sum = j->sum + r * j->n;
            for (int64_t k = 0; k < j->n; k++) sum[k] = x[k] + s[k] + (j->bias ? j->bias[k] : 0.0f);
            x = sum;
        }
        const float *gamma = j->gamma ? j->gamma + r % j->gamma_rows * j->n : NULL;
        if (j->rms) qx_rmsnorm_row(x, gamma, j->eps, j->y + r * j->n, j->n, j->inv ? j->inv + r : NULL);
        else qx_layernorm_row(x, gamma, j->beta, j->eps, j->y + r * j->n, j->n, j->mean ? j->mean + r : NULL, j->inv ? j->inv + r : NULL);
    }
    return QX_OK;
}

/* A scale that is not one full row is broadcast to one (or to every row when it varies over rows). */
static qx_status scale_rows(qx_call *c, uint32_t i, const qx_tensor *x, int axis, int64_t n, const float **out, int64_t *repeat)
{
    const qx_tensor *t = qx_call_in(c, i);
    int64_t dims[QX_MAX_RANK];
    int rank;
    *out = NULL;
    *repeat = 1;
    if (!t) return QX_OK;
    QX_TRY(qx_call_in_f32(c, i, out));
    if (t->numel == n && t->rank <= x->rank - axis) return QX_OK;
    if (!qx_broadcast(x->dims, x->rank, t->dims, t->rank, dims, &rank) || rank != x->rank) {
        char a[96], b[96];
        QX_CALL_FAIL(c, QX_E_SHAPE, "scale %s does not broadcast to %s", qx_tensor_describe(t, a, sizeof a),
                     qx_tensor_describe(x, b, sizeof b));
    }
    qx_strided s = {.rank = x->rank};
    for (int k = 0; k < x->rank; k++) {
        int own = k - (x->rank - t->rank);
        s.dims[k] = x->dims[k];
        s.stride[k] = own < 0 || t->dims[own] == 1 ? 0 : qx_prod(t->dims, own + 1, t->rank);
    }
    float *full = NULL;
    QX_TRY(QX_CALL_SCRATCH(c, x->numel, &full));
    QX_TRY(qx_strided_copy(c->ctx, &s, *out, full, sizeof *full));
    *out = full;
    *repeat = x->numel / n;
    return QX_OK;
}

qx_status qx_cpu_layernorm(qx_call *c)
{
    const qx_tensor *x;
    int axis;
    job j = {.rms = c->node->op->id != QX_OP_LayerNormalization, .eps = qx_call_float(c, "epsilon", 1e-5f)};
    int64_t stat_dims[QX_MAX_RANK], beta_rows;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", -1), x->rank, &axis));
    j.n = qx_prod(x->dims, axis, x->rank);
    j.rows = qx_prod(x->dims, 0, axis);
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    QX_TRY(scale_rows(c, 1, x, axis, j.n, &j.gamma, &j.gamma_rows));
    QX_TRY(scale_rows(c, 2, x, axis, j.n, &j.beta, &beta_rows));
    if (beta_rows != 1) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "a bias that varies over rows");
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &j.y));
    for (int i = 0; i < x->rank; i++) stat_dims[i] = i < axis ? x->dims[i] : 1;
    qx_tensor *t = NULL;
    if (c->n_out > 1 && !j.rms) {
        QX_TRY(qx_call_out(c, 1, QX_DT_FLOAT, x->rank, stat_dims, &t));
        j.mean = t->data;
    }
    uint32_t inv_at = j.rms ? 1 : 2;
    if (c->n_out > inv_at) {
        QX_TRY(qx_call_out(c, inv_at, QX_DT_FLOAT, x->rank, stat_dims, &t));
        j.inv = t->data;
    }
    if (x->numel == 0) return QX_OK;
    return qx_parallel(c->ctx, pieces(&j), norm_piece, &j);
}

qx_status qx_cpu_skip_norm(qx_call *c)
{
    const qx_tensor *x, *skip, *g;
    bool rms = c->node->op->id == QX_OP_ms_SkipSimplifiedLayerNormalization;
    job j = {.rms = rms, .eps = qx_call_float(c, "epsilon", 1e-12f), .gamma_rows = 1};
    uint32_t bias_at = rms ? 3 : 4;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &skip));
    QX_TRY(qx_call_need(c, 2, &g));
    if (x->rank < 2) QX_CALL_FAIL(c, QX_E_SHAPE, "input has rank %d", x->rank);
    j.n = x->dims[x->rank - 1];
    if (g->numel != j.n || j.n == 0 || skip->numel % j.n || skip->numel == 0 || x->numel % skip->numel)
        QX_CALL_FAIL(c, QX_E_SHAPE, "hidden size %lld, gamma %lld, skip %lld elements", (long long)j.n, (long long)g->numel,
                     (long long)skip->numel);
    j.rows = x->numel / j.n;
    j.skip_rows = skip->numel / j.n;
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    QX_TRY(qx_call_in_f32(c, 1, &j.skip));
    QX_TRY(qx_call_in_f32(c, 2, &j.gamma));
    if (!rms && qx_call_in(c, 3)) QX_TRY(qx_call_in_f32(c, 3, &j.beta));
    if (qx_call_in(c, bias_at)) QX_TRY(qx_call_in_f32(c, bias_at, &j.bias));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &j.y));
    QX_TRY(qx_call_out_f32(c, 3, x->dtype, x->rank, x->dims, &j.sum));
    int64_t stat[QX_MAX_RANK];
    memcpy(stat, x->dims, sizeof stat);
    stat[x->rank - 1] = 1;
    qx_tensor *t = NULL;
    QX_TRY(qx_call_out(c, 1, QX_DT_FLOAT, x->rank, stat, &t));
    j.mean = t->data;
    QX_TRY(qx_call_out(c, 2, QX_DT_FLOAT, x->rank, stat, &t));
    j.inv = t->data;
    return qx_parallel(c->ctx, pieces(&j), norm_piece, &j);
}

/* ---- Instance and group normalisation ---- */

qx_status qx_cpu_group_norm(qx_call *c)
{
    const qx_tensor *x, *gamma, *beta;
    bool instance = c->node->op->id == QX_OP_InstanceNormalization;
    qx_group_norm g = {.eps = qx_call_float(c, "epsilon", 1e-5f), .block = qx_call_out_block(c, 0)};
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &gamma));
    QX_TRY(qx_call_need(c, 2, &beta));
    if (x->rank < 2) QX_CALL_FAIL(c, QX_E_SHAPE, "input has rank %d", x->rank);
    g.batch = x->dims[0];
    g.channels = x->dims[1];
    g.groups = instance ? g.channels : qx_call_int(c, "num_groups", 0);
    if (g.groups < 1 || g.channels % g.groups)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld channels in %lld groups", (long long)g.channels, (long long)g.groups);
    QX_TRY(qx_call_in_f32(c, 0, &g.x));
    QX_TRY(qx_call_in_f32(c, 1, &g.gamma));
    QX_TRY(qx_call_in_f32(c, 2, &g.beta));
    if (gamma->numel != beta->numel || (gamma->numel != g.channels && gamma->numel != g.groups))
        QX_CALL_FAIL(c, QX_E_SHAPE, "scale has %lld and bias %lld elements for %lld channels", (long long)gamma->numel,
                     (long long)beta->numel, (long long)g.channels);
    if (gamma->numel != g.channels) { /* version 18: one value a group */
        float *wide = NULL;
        QX_TRY(QX_CALL_SCRATCH(c, 2 * g.channels, &wide));
        for (int64_t k = 0; k < g.channels; k++) {
            wide[k] = g.gamma[k / (g.channels / g.groups)];
            wide[g.channels + k] = g.beta[k / (g.channels / g.groups)];
        }
        g.gamma = wide;
        g.beta = wide + g.channels;
    }
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &g.y));
    g.pixels = qx_prod(x->dims, 2, x->rank);
    return qx_group_norm_run(c, &g);
}
