/* probe_effect.c - see probe_effect.h. */
#include "passes/search/probe_effect.h"

#include <math.h>

#include "base/thread.h"
#include "kernels/divergence.h"

/* Elements as float: the tensor's own when it is one (then *owned stays NULL). */
static qx_status as_f32(qx_ctx *ctx, const qx_tensor *t, const float **out, float **owned)
{
    *owned = NULL;
    *out = t->data;
    if (t->dtype == QX_DT_FLOAT) return QX_OK;
    QX_TRY(qx_alloc_raw(ctx, (size_t)t->numel * sizeof **owned + 1, (void **)owned));
    (void)qx_to_f32(t->dtype, t->data, t->numel, *owned);
    *out = *owned;
    return QX_OK;
}

enum { PIECE = 1 << 16 }; /* elements that are compared at a time, when they are no logits */

/* n: elements of a row, of `all` */
typedef struct rows { const float *a, *b; int64_t n, all; const double *norm; double *kl, *signal, *noise; } rows;

static qx_status row_norm(void *user, int64_t r)
{
    const rows *s = user;
    s->kl[r] = qx_log_sum_exp(s->a + r * s->n, s->n);
    return QX_OK;
}

static qx_status compare_row(void *user, int64_t r)
{
    const rows *s = user;
    const float *a = s->a + r * s->n, *b = s->b + r * s->n;
    const int64_t n = s->all - r * s->n < s->n ? s->all - r * s->n : s->n;
    qx_noise(a, b, n, &s->signal[r], &s->noise[r]);
    if (s->norm) s->kl[r] = qx_divergence(a, s->norm[r], b, qx_log_sum_exp(b, n), n);
    return QX_OK;
}

static int64_t row_count(const rows *r) { return (r->all + r->n - 1) / r->n; }

static qx_status compare_rows(qx_ctx *ctx, rows *r, qx_effect_sums *s)
{
    const int64_t count = row_count(r);
    double signal = 0, noise = 0;
    QX_TRY(qx_alloc_array(ctx, (size_t)(3 * count) + 1, sizeof *r->kl, (void **)&r->kl));
    r->signal = r->kl + count;
    r->noise = r->signal + count;
    qx_status st = qx_parallel(ctx, count, compare_row, r);
    for (int64_t i = 0; i < count; i++) s->kl += r->kl[i], signal += r->signal[i], noise += r->noise[i];
    if (r->norm) s->kl_rows += count;
    if (signal > 0) s->noise += noise / signal, s->outputs++;
    qx_free(ctx, r->kl);
    return st;
}

/* What both sides are cut into. */
static int64_t row_length(const qx_tensor *t, bool logits) { return logits ? t->dims[t->rank - 1] : PIECE; }

qx_status qx_effect_norms(qx_ctx *ctx, const qx_tensor *t, double **norm)
{
    rows r = {.n = row_length(t, true), .all = t->numel};
    float *own;
    QX_TRY(qx_alloc_array(ctx, (size_t)row_count(&r), sizeof *r.kl, (void **)norm));
    r.kl = *norm;
    QX_TRY(as_f32(ctx, t, &r.a, &own));
    const qx_status st = qx_parallel(ctx, row_count(&r), row_norm, &r);
    qx_free(ctx, own);
    return st;
}

qx_status qx_effect_compare(qx_ctx *ctx, const qx_tensor *ref, const double *norm, const qx_tensor *t, qx_effect_sums *s)
{
    float *a = NULL, *b = NULL;
    rows r = {.n = row_length(ref, norm != NULL), .all = ref->numel, .norm = norm};
    qx_status st;
    QX_TRY_GOTO(st, as_f32(ctx, ref, &r.a, &a));
    QX_TRY_GOTO(st, as_f32(ctx, t, &r.b, &b));
    st = compare_rows(ctx, &r, s);
done:
    qx_free(ctx, a);
    qx_free(ctx, b);
    return st;
}

qx_probe_effect qx_effect_of(const qx_effect_sums *s)
{
    return (qx_probe_effect){.kl = s->kl_rows ? s->kl / (double)s->kl_rows : NAN, .noise = s->outputs ? s->noise / (double)s->outputs : 0};
}
