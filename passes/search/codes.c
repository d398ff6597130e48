/* codes.c - see codes.h. */
#include "passes/search/codes.h"

#include <math.h>

#include "kernels/igemm.h"

/* 32 bits hold so many products of two codes, the unsigned one up to 255 (igemm.h). */
static const int64_t most_products = 65536;

bool qx_codes_weight(const qx_qspec *spec)
{
    return spec->codes == QX_DT_INT8 && spec->block <= 0 && !spec->zero_point && spec->scale != QX_DT_FLOAT8E8M0;
}

bool qx_codes_input(const qx_act_grid *g, int64_t k)
{
    const bool fixed = !g->dynamic && (g->act == QX_DT_INT8 || g->act == QX_DT_UINT8) && g->scale > 0;
    return (fixed || g->dynamic == QX_DYNAMIC_ROW) && k <= most_products;
}

void qx_codes_row(const qx_act_grid *g, int64_t k, const float *x, float weigh, int8_t *codes, float *scale)
{
    const qx_format f = {.codes = QX_DT_INT8, .scale = QX_DT_FLOAT};
    float own = g->scale, top = 0;
    for (int64_t j = 0; g->dynamic && j < k; j++) top = fmaxf(top, fabsf(x[j]));
    if (g->dynamic) qx_scale_from_amax(&f, &top, 1, &own, NULL);
    (void)qx_quantize(&(qx_quant){.grid = {1, k, 1, k}, .format = f, .scale = &own}, QX_DT_FLOAT, x, codes);
    *scale = own * weigh;
}

/* What a thread works with: codes of w as they are rounded and as panels, their scales, x W'. */
typedef struct room { int8_t *codes, *packed; int32_t *sums; float *scale, *y; } room;

static void close_room(qx_ctx *ctx, room *r)
{
    void *list[] = {r->codes, r->packed, r->sums, r->scale, r->y};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) qx_free(ctx, list[i]);
}

static qx_status open_room(qx_ctx *ctx, int64_t rows, int64_t n, int64_t k, room *r)
{
    QX_TRY(qx_alloc_raw(ctx, (size_t)(n * k), (void **)&r->codes));
    QX_TRY(qx_alloc_raw(ctx, qx_igemm_packed_bytes(k, n), (void **)&r->packed));
    QX_TRY(qx_alloc_raw(ctx, (size_t)qx_igemm_sums(n) * sizeof *r->sums, (void **)&r->sums));
    QX_TRY(qx_alloc_raw(ctx, (size_t)n * sizeof *r->scale, (void **)&r->scale));
    return qx_alloc_raw(ctx, (size_t)(rows * n) * sizeof *r->y, (void **)&r->y);
}

static double distance(int64_t n, const float *a, const float *b)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = (double)a[i] - (double)b[i];
        sum += d * d;
    }
    return sum;
}

qx_status qx_codes_error(qx_ctx *ctx, const qx_qspec *spec, const qx_row_tile *w, const qx_code_rows *x, const float *y, double *error)
{
    const int64_t rows = x->n, n = w->rows, k = w->k;
    qx_row_tile tile = *w;
    room r = {0};
    qx_quant q;
    qx_status st;
    QX_TRY_GOTO(st, open_room(ctx, rows, n, k, &r));
    tile.scale = r.scale;
    tile.zero = NULL;
    (void)qx_spec_scales(spec, &tile, &q);
    (void)qx_quantize(&q, QX_DT_FLOAT, w->x, r.codes);
    const qx_igemm g = {.m = rows, .n = n, .k = k, .a = x->codes, .lda = k, .a_signed = true, .packed = r.packed, .sums = r.sums,
                        .b_signed = true, .y = r.y, .ldy = n, .scale_a = x->scale, .scale_a_per_row = true, .scale_b = r.scale,
                        .scale_b_per_col = spec->block == 0};
    for (int64_t p = 0; p < qx_igemm_panels(n); p++) {
        qx_igemm_pack_panel(r.codes, true, k, n, 1, k, p, r.packed, r.sums);
        qx_igemm_run(&g, p, 0, rows);
    }
    *error = 0;
    for (int64_t i = 0; i < rows; i++) *error += distance(n, y + i * n, r.y + i * n);
done:
    close_room(ctx, &r);
    return st;
}
