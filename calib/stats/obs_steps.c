/* obs_steps.c - largest |x| per timestep of a diffusion model, keyed by the value of the timestep input: mean and maximum over the runs
 * that had this timestep. Two runs per step (guidance without a doubled batch) are two entries of that mean. */
#include "calib/stats/observer.h"

#include <string.h>

enum { MOST = 1 << 20 }; /* different timesteps; no sampler has so many */

qx_status qx_steps_add(qx_ctx *ctx, qx_steps *s, const qx_step_row *row)
{
    int64_t lo = 0, hi = s->n;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (s->rows[mid].key > row->key) lo = mid + 1;
        else hi = mid;
    }
    if (lo < s->n && s->rows[lo].key == row->key) {
        qx_step_row *r = &s->rows[lo];
        r->sum = qx_dd_join(r->sum, row->sum);
        r->batches += row->batches;
        if (row->max > r->max) r->max = row->max;
        return QX_OK;
    }
    if (s->n == MOST) QX_FAIL(ctx, QX_E_BUDGET, "more than %d different timesteps", MOST);
    QX_TRY(qx_grow(ctx, (void **)&s->rows, s->n, &s->cap, sizeof *s->rows));
    memmove(s->rows + lo + 1, s->rows + lo, (size_t)(s->n - lo) * sizeof *s->rows);
    s->rows[lo] = *row;
    s->n++;
    return QX_OK;
}

void qx_steps_free(qx_ctx *ctx, qx_steps *s)
{
    qx_free(ctx, s->rows);
    *s = (qx_steps){0};
}
