/* probe_product.c - see probe_product.h. */
#include "passes/search/probe_product.h"

#include <math.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/dot.h"
#include "kernels/quant.h"
#include "passes/search/group_read.h"

enum { TILE = 64 };

typedef struct product {
    qx_rounded_product in;
    qx_ctx *ctx;
    const float *xq;                 /* [rows][k]; x itself when activations stay float */
    float amax;
    const float *importance;         /* [k] of the columns as they are rounded, or NULL */
    bool cleared;                    /* y was X W' alone, and is zero now */
    int64_t strip;                   /* rows of W that a thread reads at once */
} product;

/* What a thread works with: rows of W as they are stored, and of one tile the rounded ones with their scales, and what both make of X. */
typedef struct room { float *a, *b, *scale, *y; int32_t *zero; } room;

static void close_room(qx_ctx *ctx, room *r)
{
    void *list[] = {r->a, r->b, r->scale, r->y, r->zero};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) qx_free(ctx, list[i]);
}

static qx_status open_room(const product *d, room *r)
{
    qx_ctx *ctx = d->ctx;
    QX_TRY(qx_alloc_raw(ctx, (size_t)(d->strip * d->in.k) * sizeof *r->a, (void **)&r->a));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(TILE * d->in.k) * sizeof *r->b, (void **)&r->b));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(TILE * d->in.k + TILE) * sizeof *r->scale, (void **)&r->scale));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(TILE * d->in.k + TILE) * sizeof *r->zero, (void **)&r->zero));
    return qx_alloc_raw(ctx, (size_t)(d->in.rows * TILE) * sizeof *r->y, (void **)&r->y);
}

/* Y[:, first...] += factor X b'. */
static void add_rows(const product *d, const float *x, const float *b, int64_t first, int64_t rows, float factor, float *y)
{
    qx_gemm_nt(d->in.rows, rows, d->in.k, x, d->in.k, b, d->in.k, y, rows);
    for (int64_t i = 0; i < d->in.rows; i++)
        for (int64_t j = 0; j < rows; j++) d->in.y[i * d->in.n + first + j] += factor * y[i * rows + j];
}

/* Y[:, tile] += alpha (Xq Wq' - X W'), which is X dW' when x stays float: then the factor is taken out of Wq again. Where Y was
 * nothing but X W', it has been cleared, and Xq Wq' is all. */
static void add_tile(const product *d, const room *r, const float *a, int64_t first, int64_t rows)
{
    const int64_t k = d->in.k;
    const float *s = d->in.change->smooth;
    float *b = r->b;
    const bool both = d->xq != d->in.x;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < k; c++) b[i * k + c] = s ? a[i * k + c] * s[c] : a[i * k + c];
    const qx_row_tile tile = {.rows = rows, .k = k, .x = b, .amax = d->amax, .importance = d->importance, .scale = r->scale,
                              .zero = r->zero};
    qx_spec_fake(d->in.change->spec, &tile);
    for (int64_t i = 0; i < rows && !both; i++)
        for (int64_t c = 0; c < k; c++) b[i * k + c] = (s ? b[i * k + c] / s[c] : b[i * k + c]) - a[i * k + c];
    add_rows(d, d->xq, b, first, rows, d->in.alpha, r->y);
    if (both && !d->cleared) add_rows(d, d->in.x, a, first, rows, -d->in.alpha, r->y);
}

static qx_status add_strip(void *user, int64_t i)
{
    const product *d = user;
    const qx_plan_weight *w = d->in.item->weight;
    const int64_t first = i * d->strip, rows = d->in.n - first < d->strip ? d->in.n - first : d->strip;
    room r = {0};
    qx_status st;
    QX_TRY_GOTO(st, open_room(d, &r));
    QX_TRY_GOTO(st, qx_rows_read(d->ctx, w->tensor, &w->view, NULL, first, rows, r.a));
    for (int64_t t = 0; t < rows; t += TILE) add_tile(d, &r, r.a + t * d->in.k, first + t, rows - t < TILE ? rows - t : TILE);
done:
    close_room(d->ctx, &r);
    return st;
}

/* Rows that a thread reads at once: of a [K,N] weight long runs, of a large one not too many, of a small one a share. */
static int64_t strip_of(const product *d)
{
    enum { MOST = 512, BYTES = 16 << 20 };
    const int64_t share = qx_cells_of(d->in.n, qx_ctx_threads(d->ctx)), fit = BYTES / (d->in.k * (int64_t)sizeof(float)),
        most = share < fit ? share : fit;
    return most < TILE ? TILE : most < MOST ? most : MOST;
}

/* The largest |W s|. */
static qx_status tensor_amax(qx_ctx *ctx, qx_plan_item *it, int64_t k, const float *smooth, float *out)
{
    const qx_group one = qx_group_alone(&it);
    float *col;
    *out = 0;
    QX_TRY(qx_alloc_array(ctx, (size_t)k, sizeof *col, (void **)&col));
    qx_status st = qx_group_maxima(ctx, &one, col);
    for (int64_t j = 0; j < k && st == QX_OK; j++) *out = fmaxf(*out, smooth ? col[j] * smooth[j] : col[j]);
    qx_free(ctx, col);
    return st;
}

/* Importance of the columns as they are rounded; *own: memory of it that the caller frees. */
static qx_status find_importance(product *d, float **own)
{
    const qx_value_stats *vs = d->in.seen;
    const float *s = d->in.change->smooth;
    if (!vs || vs->channels.n != d->in.k || !vs->channels.importance) return QX_OK;
    d->importance = vs->channels.importance;
    if (!s) return QX_OK;
    QX_TRY(qx_alloc_raw(d->ctx, (size_t)d->in.k * sizeof **own, (void **)own));
    for (int64_t j = 0; j < d->in.k; j++) (*own)[j] = d->importance[j] / (s[j] * s[j]);
    d->importance = *own;
    return QX_OK;
}

/* X on its grid; *own: memory of it that the caller frees. */
static qx_status quantize_input(product *d, float **own)
{
    const float *s = d->in.change->smooth;
    d->xq = d->in.x;
    if (!qx_act_rounds(&d->in.change->x)) return QX_OK;
    QX_TRY(qx_alloc_raw(d->ctx, (size_t)(d->in.rows * d->in.k) * sizeof **own, (void **)own));
    for (int64_t i = 0; i < d->in.rows * d->in.k; i++) (*own)[i] = s ? d->in.x[i] / s[i % d->in.k] : d->in.x[i];
    qx_act_fake(&d->in.change->x, d->in.rows, d->in.k, *own);
    d->xq = *own;
    return QX_OK;
}

qx_status qx_rounded_product_add(qx_ctx *ctx, const qx_rounded_product *in)
{
    product own = {.in = *in, .ctx = ctx}, *d = &own;
    float *xq = NULL, *importance = NULL;
    qx_status st = QX_OK;
    const qx_probe_change *c = in->change;
    if (c->spec->block < 0) QX_TRY(tensor_amax(ctx, (qx_plan_item *)(uintptr_t)in->item, in->k, c->smooth, &d->amax));
    QX_TRY_GOTO(st, find_importance(d, &importance));
    QX_TRY_GOTO(st, quantize_input(d, &xq));
    d->cleared = d->xq != d->in.x && !d->in.biased;
    if (d->cleared) memset(d->in.y, 0, (size_t)(d->in.rows * d->in.n) * sizeof *d->in.y);
    d->strip = strip_of(d);
    st = qx_parallel(ctx, qx_cells_of(d->in.n, d->strip), add_strip, d);
done:
    qx_free(ctx, importance);
    qx_free(ctx, xq);
    return st;
}

/* Close to normal: the sum of four uniform numbers, from the place alone. */
static float noise_at(uint64_t i)
{
    uint64_t z = (i + 1) * 0x9E3779B97F4A7C15u;
    float sum = 0;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    for (int b = 0; b < 4; b++) sum += (float)((z >> (16 * b)) & 0xFFFF) / 65536.0f - 0.5f;
    return sum * 1.7320508f; /* variance 4/12 */
}

void qx_probe_noise(float *y, int64_t n, double error)
{
    double energy = 0;
    for (int64_t i = 0; i < n; i++) energy += (double)y[i] * (double)y[i];
    const float size = (float)sqrt(error * energy / (double)(n ? n : 1));
    for (int64_t i = 0; i < n; i++) y[i] += size * noise_at((uint64_t)i);
}
