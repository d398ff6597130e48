/* row_codes.c - the steps by which a graph quantizes an activation row by row when it runs (int8-dynamic writes them as Abs,
 * ReduceMax, Div, Round, Add, Cast). */
#include <math.h>
#include <string.h>

#include "kernels/quant.h"
#include "runtime/fuse/fuse.h"

enum { PIECE = 1 << 14 }; /* elements of a piece */

typedef struct rows_job { const float *x, *scale; float *top; uint8_t *codes; int64_t rows, cols, per; int32_t zero; } rows_job;

static qx_status job_of(qx_call *c, rows_job *j, const qx_tensor **x)
{
    QX_TRY(qx_call_need(c, 0, x));
    QX_TRY(qx_call_in_f32(c, 0, &j->x));
    j->cols = (*x)->rank ? (*x)->dims[(*x)->rank - 1] : 1;
    j->rows = qx_prod((*x)->dims, 0, (*x)->rank - 1);
    j->per = PIECE / (j->cols + 1) + 1;
    return QX_OK;
}

static int64_t pieces(const rows_job *j) { return (j->rows + j->per - 1) / j->per; }

/* Without its sign a float compares as its bits do, and a NaN is above everything. */
static float row_top(const float *x, int64_t n)
{
    int32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t b;
        memcpy(&b, &x[i], sizeof b);
        b &= INT32_MAX;
        most = b > most ? b : most;
    }
    float top;
    memcpy(&top, &most, sizeof top);
    return n ? top : -INFINITY;
}

static qx_status top_piece(void *user, int64_t i)
{
    const rows_job *j = user;
    const int64_t last = (i + 1) * j->per < j->rows ? (i + 1) * j->per : j->rows;
    for (int64_t r = i * j->per; r < last; r++) j->top[r] = row_top(j->x + r * j->cols, j->cols);
    return QX_OK;
}

qx_status qx_cpu_row_top(qx_call *c)
{
    rows_job j = {0};
    const qx_tensor *x;
    int64_t dims[QX_MAX_RANK];
    QX_TRY(job_of(c, &j, &x));
    memcpy(dims, x->dims, sizeof dims);
    if (x->rank) dims[x->rank - 1] = 1;
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &j.top));
    return qx_parallel(c->ctx, pieces(&j), top_piece, &j);
}

static qx_status codes_piece(void *user, int64_t i)
{
    const rows_job *j = user;
    const int64_t last = (i + 1) * j->per < j->rows ? (i + 1) * j->per : j->rows;
    for (int64_t r = i * j->per; r < last; r++) {
        const qx_quant q = {.grid = {1, j->cols, 1, j->cols}, .format = {.codes = QX_DT_UINT8}, .scale = j->scale + r, .zero = &j->zero};
        qx_quantize(&q, QX_DT_FLOAT, j->x + r * j->cols, j->codes + r * j->cols);
    }
    return QX_OK;
}

qx_status qx_cpu_row_codes(qx_call *c)
{
    const qx_row_codes_params *p = c->fused;
    rows_job j = {.zero = p->zero};
    const qx_tensor *x;
    qx_tensor *y = NULL;
    QX_TRY(job_of(c, &j, &x));
    QX_TRY(qx_call_in_f32(c, 1, &j.scale));
    if (c->in[1]->numel != j.rows) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld scales for %lld rows", (long long)c->in[1]->numel, (long long)j.rows);
    QX_TRY(qx_call_out(c, 0, QX_DT_UINT8, x->rank, x->dims, &y));
    j.codes = y->data;
    return x->numel ? qx_parallel(c->ctx, pieces(&j), codes_piece, &j) : QX_OK;
}
