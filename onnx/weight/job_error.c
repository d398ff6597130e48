/* job_error.c - how far codes are from the rows that they stand for, measured while a job makes them: what a report says of each
 * weight.
 *
 * Of a large weight one row in eight is decoded again, which costs a few percent of coding it and moves the figure by hundredths
 * of a decibel. The rows are those that reach the format: scaled, rotated, clipped or masked before, and as they were before a
 * solver moves them. Sums are kept for each tile and added in order, so that the number of threads does not show. */
#include <math.h>

#include "kernels/rows.h"
#include "onnx/weight/job_run.h"

enum { WHOLE = 1 << 16, EVERY = 8 }; /* elements of a weight that is measured whole; of others every eighth row, which starts at a byte */

static int64_t row_step(const qx_run *r, const qx_tile *t, int bits) { return r->j->in->numel > WHOLE || t->cols * bits % 8 ? EVERY : 1; }

/* Row i of the tile: as given into x, minus its codes' values into d. */
static bool row_error(const qx_tile *t, const qx_quant *q, int bits, int64_t i, float *x, float *d)
{
    const int64_t at = i / q->grid.block_r * qx_grid_cell_cols(&q->grid), c = t->cols;
    const int from = t->given ? (int)QX_DT_FLOAT : t->dtype;
    const uint8_t *src = t->given ? (const void *)t->given : t->src;
    qx_quant row = *q;
    row.grid = (qx_grid){1, c, 1, q->grid.block_c};
    row.scale += at;
    if (row.zero) row.zero += at;
    if (!qx_dequantize(&row, t->codes + i * c * (q->unpacked && bits < 8 ? 8 : bits) / 8, QX_DT_FLOAT, d)) return false;
    if (!qx_to_f32((qx_dtype)from, src + i * c * qx_dtype_bits((qx_dtype)from) / 8, c, x)) return false;
    for (int64_t k = 0; k < c; k++) d[k] = x[k] - d[k];
    return true;
}

qx_status qx_tile_measure(qx_run *r, const qx_tile *t, const qx_quant *q)
{
    const int bits = qx_job_code_bits(r->j);
    qx_tile_error *sum = &r->errors[t->first / r->tile];
    float *x;
    bool ok = true;
    QX_TRY(qx_alloc_raw_array(r->ctx, (size_t)t->cols, 2 * sizeof *x, (void **)&x));
    float *d = x + t->cols;
    for (int64_t i = 0; i < t->rows && ok; i += row_step(r, t, bits)) {
        ok = row_error(t, q, bits, i, x, d);
        sum->signal += (double)qx_dot(x, x, t->cols);
        sum->noise += (double)qx_dot(d, d, t->cols);
    }
    qx_free(r->ctx, x);
    if (!ok) QX_FAIL(r->ctx, QX_E_TYPE, "weight '%s': cannot decode %s", r->j->in->name, qx_dtype_get(r->j->spec.codes)->name);
    return QX_OK;
}

void qx_run_keep_error(const qx_run *r)
{
    struct qx_job_error *known = r->j->error;
    qx_tile_error all = {0, 0};
    int fresh = 0;
    for (int64_t i = 0; i < r->n_tiles; i++) {
        all.signal += r->errors[i].signal;
        all.noise += r->errors[i].noise;
    }
    if (!atomic_compare_exchange_strong(&known->state, &fresh, 1)) return;
    known->sum = all;
    atomic_store(&known->state, 2);
}

double qx_job_sqnr(const qx_job *j)
{
    const struct qx_job_error *e = j->error;
    if (atomic_load(&e->state) != 2 || !(e->sum.signal > 0)) return NAN;
    return 10 * log10(e->sum.signal / e->sum.noise);
}
