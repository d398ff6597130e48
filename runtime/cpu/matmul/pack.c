/* pack.c - a constant matrix into panels, by all threads: what takes the time is reading the file and the first touch of the memory. */
#include "kernels/gemm.h"
#include "runtime/cpu/matmul/gemm.h"

enum { PIECE = 1 << 18 }; /* floats that a thread reads at a time: they stay in its second cache */

/* rows: stored rows of w; step of them are a piece; ld floats from one to the next. */
typedef struct job { qx_call *c; const qx_matrix *w; float *to; int64_t rows, step, ld; float *buf; } job;

/* Stored rows [first, first + count), which are columns of W: whole panels. */
static void put_columns(const job *j, const float *x, int64_t first, int64_t count)
{
    const int64_t k = j->w->k;
    for (int64_t p = 0; p * QX_GEMM_NR < count; p++) qx_gemm_pack_panel(x, k, count, 1, j->ld, p, j->to + (first + p * QX_GEMM_NR) * k);
}

/* Stored rows that are rows of W: a few rows of every panel. */
static void put_rows(const job *j, const float *x, int64_t first, int64_t count)
{
    const int64_t k = j->w->k, n = j->w->n;
    for (int64_t p = 0; p * QX_GEMM_NR < n; p++) qx_gemm_pack_panel(x, count, n, j->ld, 1, p, j->to + (p * k + first) * QX_GEMM_NR);
}

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    const int64_t first = i * j->step, count = j->rows - first < j->step ? j->rows - first : j->step;
    const float *x;
    QX_TRY(qx_matrix_rows(j->c, j->w, first, count, j->buf ? j->buf + qx_thread_index() * j->step * j->ld : NULL, &x));
    (qx_matrix_by_columns(j->w) ? put_columns : put_rows)(j, x, first, count);
    return QX_OK;
}

qx_status qx_panels_pack(qx_call *c, const qx_matrix *w, float *to)
{
    const bool cols = qx_matrix_by_columns(w);
    const int64_t rows = cols ? w->n : w->k, length = cols ? w->k : w->n, unit = cols ? QX_GEMM_NR : 1,
        most = (rows + unit - 1) / unit * unit;
    job j = {c, w, to, rows, PIECE / length / unit * unit, w->data ? (cols ? w->col : w->row) : length, NULL};
    if (j.step < unit) j.step = unit;
    if (j.step > most) j.step = most;
    if (!w->data) QX_TRY(QX_CALL_SCRATCH(c, qx_ctx_threads(c->ctx) * j.step * length, &j.buf));
    return qx_parallel(c->ctx, (rows + j.step - 1) / j.step, piece, &j);
}
