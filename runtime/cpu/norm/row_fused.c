/* row_fused.c - the row by row steps behind runtime/fuse/fuse_patterns.def: normalisation of the last axis, rotary embedding,
 * gated units. */
#include "kernels/pointwise.h"
#include "kernels/rows.h"
#include "runtime/cpu/pointwise/unary.h"
#include "runtime/fuse/fuse.h"

enum { PIECE = 1 << 14 }; /* elements of a piece */

static int64_t rows_a_piece(int64_t cols) { return PIECE / (cols + 1) + 1; }

/* ---- y = norm(x) * gamma (+ beta) ---- */

typedef struct norm_job { const qx_norm_params *p; const float *x, *gamma, *beta; float *y; int64_t rows, cols, per; } norm_job;

static qx_status norm_piece(void *user, int64_t i)
{
    const norm_job *j = user;
    const int64_t last = (i + 1) * j->per < j->rows ? (i + 1) * j->per : j->rows, n = j->cols;
    for (int64_t r = i * j->per; r < last; r++) {
        if (j->p->rms) qx_rmsnorm_row(j->x + r * n, j->gamma, j->p->eps, j->y + r * n, n, NULL);
        else qx_layernorm_row(j->x + r * n, j->gamma, j->beta, j->p->eps, j->y + r * n, n, NULL, NULL);
    }
    return QX_OK;
}

qx_status qx_cpu_row_norm(qx_call *c)
{
    norm_job j = {.p = c->fused};
    const qx_tensor *x;
    QX_TRY(qx_call_need(c, 0, &x));
    j.cols = x->rank ? x->dims[x->rank - 1] : 0;
    for (uint32_t i = 1; i < c->n_in; i++)
        if (c->in[i]->numel != j.cols)
            QX_CALL_FAIL(c, QX_E_SHAPE, "%lld factors for rows of %lld", (long long)c->in[i]->numel, (long long)j.cols);
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    QX_TRY(qx_call_in_f32(c, 1, &j.gamma));
    if (!j.p->rms) QX_TRY(qx_call_in_f32(c, 2, &j.beta));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &j.y));
    if (x->numel == 0) return QX_OK;
    j.rows = x->numel / j.cols;
    j.per = rows_a_piece(j.cols);
    return qx_parallel(c->ctx, (j.rows + j.per - 1) / j.per, norm_piece, &j);
}

/* ---- y = x cos + (-x_high, x_low) sin ---- */

/* x as [batch, heads, seq, d] with strides; cos and sin with strides that are 0 where they are shared. */
typedef struct rope_job { const float *x, *cs[2]; float *y; int64_t heads, seq, d, sx[3], st[2][3], rows, per; } rope_job;

static qx_status rope_piece(void *user, int64_t i)
{
    const rope_job *j = user;
    const int64_t last = (i + 1) * j->per < j->rows ? (i + 1) * j->per : j->rows;
    for (int64_t r = i * j->per; r < last; r++) {
        const int64_t s = r % j->seq, h = r / j->seq % j->heads, b = r / j->seq / j->heads;
        qx_rotate_half_row(j->x + b * j->sx[0] + h * j->sx[1] + s * j->sx[2],
                           j->cs[0] + b * j->st[0][0] + h * j->st[0][1] + s * j->st[0][2],
                           j->cs[1] + b * j->st[1][0] + h * j->st[1][1] + s * j->st[1][2], j->d, j->y + r * j->d);
    }
    return QX_OK;
}

/* Strides of cos or sin under [batch, heads, seq, d]. */
static qx_status table_strides(qx_call *c, uint32_t i, const int64_t dims[4], int64_t st[3])
{
    const qx_tensor *t = c->in[i];
    char text[96];
    bool fits = t->rank >= 1 && t->rank <= 4 && t->dims[t->rank - 1] == dims[3];
    for (int a = 0; fits && a < 3; a++) {
        int own = a - (4 - t->rank);
        st[a] = own < 0 || t->dims[own] == 1 ? 0 : qx_prod(t->dims, own + 1, t->rank);
        fits = st[a] == 0 || t->dims[own] == dims[a];
    }
    if (!fits)
        QX_CALL_FAIL(c, QX_E_SHAPE, "angles %s for [%lld,%lld,%lld,%lld]", qx_tensor_describe(t, text, sizeof text), (long long)dims[0],
                     (long long)dims[1], (long long)dims[2], (long long)dims[3]);
    return QX_OK;
}

qx_status qx_cpu_rope(qx_call *c)
{
    const qx_rope_params *p = c->fused;
    const qx_tensor *x;
    rope_job j = {.x = NULL};
    char text[96];
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->rank != 4 || x->dims[3] % 2) QX_CALL_FAIL(c, QX_E_SHAPE, "%s has no halves of heads", qx_tensor_describe(x, text, sizeof text));
    const int64_t *e = x->dims, dims[4] = {e[0], p->bshd ? e[2] : e[1], p->bshd ? e[1] : e[2], e[3]};
    j.heads = dims[1];
    j.seq = dims[2];
    j.d = dims[3];
    j.sx[0] = dims[1] * dims[2] * dims[3];
    j.sx[1] = p->bshd ? j.d : j.seq * j.d;
    j.sx[2] = p->bshd ? j.heads * j.d : j.d;
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    for (uint32_t i = 0; i < 2; i++) {
        QX_TRY(table_strides(c, i + 1, dims, j.st[i]));
        QX_TRY(qx_call_in_f32(c, i + 1, &j.cs[i]));
    }
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, 4, dims, &j.y));
    if (x->numel == 0) return QX_OK;
    j.rows = x->numel / j.d;
    j.per = rows_a_piece(j.d);
    return qx_parallel(c->ctx, (j.rows + j.per - 1) / j.per, rope_piece, &j);
}

/* ---- y = act(one half of x) * the other ---- */

typedef struct glu_job { qx_act act; const float *x; float *y; int64_t rows, cols, per; bool upper; } glu_job;

static qx_status glu_piece(void *user, int64_t i)
{
    const glu_job *j = user;
    qx_binary_fn *mul = qx_binary_find(QX_B_MUL, QX_DT_FLOAT);
    const int64_t last = (i + 1) * j->per < j->rows ? (i + 1) * j->per : j->rows, n = j->cols;
    for (int64_t r = i * j->per; r < last; r++) {
        const float *low = j->x + 2 * r * n, *high = low + n;
        float *y = j->y + r * n;
        qx_act_row(j->act, j->upper ? high : low, y, n);
        mul(y, 1, j->upper ? low : high, 1, y, n);
    }
    return QX_OK;
}

qx_status qx_cpu_glu(qx_call *c)
{
    const qx_glu_params *p = c->fused;
    const qx_tensor *x;
    glu_job j = {.act = p->act, .upper = p->upper};
    int64_t dims[QX_MAX_RANK];
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->rank < 1 || x->dims[x->rank - 1] % 2)
        QX_CALL_FAIL(c, QX_E_SHAPE, "rows of %lld have no halves", (long long)(x->rank ? x->dims[x->rank - 1] : 0));
    for (int i = 0; i < x->rank; i++) dims[i] = x->dims[i];
    j.cols = dims[x->rank - 1] /= 2;
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &j.y));
    if (x->numel == 0) return QX_OK;
    j.rows = x->numel / (2 * j.cols);
    j.per = rows_a_piece(j.cols);
    return qx_parallel(c->ctx, (j.rows + j.per - 1) / j.per, glu_piece, &j);
}
