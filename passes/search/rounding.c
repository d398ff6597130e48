/* rounding.c - see rounding.h. */
#include "passes/search/rounding.h"

#include <math.h>
#include <string.h>

#include "kernels/quant.h"
#include "kernels/search.h"

/* ---- weights ---- */

bool qx_spec_scales(const qx_qspec *spec, const qx_row_tile *t, qx_quant *q)
{
    const int64_t block = spec->block > 0 ? spec->block : t->k;
    /* its second level keeps block scales in range */
    const bool two_level = qx_spec_two_level(spec);
    float *scale = t->scale;
    *q = (qx_quant){.grid = {t->rows, t->k, spec->block < 0 ? t->rows : 1, block},
                    .format = {.codes = spec->codes, .scale = two_level ? QX_DT_FLOAT : spec->scale, .narrow = spec->narrow},
                    .scale = scale};
    if (!two_level && spec->block >= 0 && (spec->rule == QX_SCALE_SEARCH || spec->zero_point)) {
        q->format.negative = spec->allow_negative_scale;
        q->zero = spec->zero_point ? t->zero : NULL;
        const qx_search search = {.format = q->format, .block = block, .zero_point = spec->zero_point, .weight = t->importance,
                                  .coarse = true};
        return qx_search_rows(&search, t->x, t->rows, t->k, scale, spec->zero_point ? t->zero : NULL, NULL);
    }
    const int64_t cells = qx_grid_cells(&q->grid);
    memset(scale, 0, (size_t)cells * sizeof *scale);
    if (spec->block < 0) scale[0] = t->amax;
    else qx_amax(&q->grid, QX_DT_FLOAT, t->x, scale, NULL);
    qx_scale_from_amax(&q->format, scale, cells, scale, NULL);
    return true;
}

void qx_spec_fake(const qx_qspec *spec, const qx_row_tile *t)
{
    qx_quant q;
    if (qx_spec_scales(spec, t, &q)) qx_fake_quantize(&q, t->x);
}

/* ---- activations ---- */

bool qx_act_rounds(const qx_act_grid *g) { return g->dynamic || (g->act && g->scale > 0); }

/* One scale for all, codes around zero. */
static void fake_even(qx_dtype codes, float scale, int64_t n, float *x)
{
    qx_fake_quantize(&(qx_quant){.grid = {1, n, 1, n}, .format = {.codes = codes}, .scale = &scale}, x);
}

static void fake_row(int64_t k, float *x)
{
    const qx_format f = {.codes = QX_DT_INT8, .scale = QX_DT_FLOAT};
    float top = 0, scale;
    for (int64_t j = 0; j < k; j++) top = fmaxf(top, fabsf(x[j]));
    qx_scale_from_amax(&f, &top, 1, &scale, NULL);
    fake_even(QX_DT_INT8, scale, k, x);
}

/* As DynamicQuantizeLinear: UINT8 from the least to the largest, zero among them. */
static void fake_tensor(int64_t n, float *x)
{
    float lo = 0, hi = 0;
    for (int64_t i = 0; i < n; i++) lo = fminf(lo, x[i]), hi = fmaxf(hi, x[i]);
    const float scale = (hi - lo) / 255;
    if (!(scale > 0)) return;
    const int32_t zero = (int32_t)fminf(fmaxf(nearbyintf(-lo / scale), 0), 255);
    qx_fake_quantize(&(qx_quant){.grid = {1, n, 1, n}, .format = {.codes = QX_DT_UINT8}, .scale = &scale, .zero = &zero}, x);
}

/* Rows at a time, whose blocks have room on the stack. */
static void fake_blocks(const qx_qspec *spec, int64_t rows, int64_t k, float *x)
{
    enum { CELLS = 256 };
    const qx_format f = {.codes = spec->codes, .scale = spec->scale};
    const int64_t block = spec->block, part = CELLS * block < k ? CELLS * block : k;
    float scale[CELLS], top = 0, second = 1, lo, most;
    (void)qx_format_range(&f, &lo, &most);
    if (spec->scale == QX_DT_FLOAT8E4M3FN) {
        for (int64_t i = 0; i < rows * k; i++) top = fmaxf(top, fabsf(x[i]));
        second = qx_nvfp4_global(top);
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < k; c += part) {
            const int64_t n = k - c < part ? k - c : part;
            const qx_grid grid = {1, n, 1, block};
            float *y = x + r * k + c;
            memset(scale, 0, sizeof scale);
            (void)qx_amax(&grid, QX_DT_FLOAT, y, scale, NULL);
            for (int64_t i = 0; i < qx_grid_cells(&grid); i++) scale[i] = scale[i] / most / second;
            qx_scales_stored(&f, scale, qx_grid_cells(&grid), NULL);
            for (int64_t i = 0; i < qx_grid_cells(&grid); i++) scale[i] *= second;
            (void)qx_fake_quantize(&(qx_quant){.grid = grid, .format = {.codes = spec->codes}, .scale = scale}, y);
        }
}

void qx_act_fake(const qx_act_grid *g, int64_t rows, int64_t k, float *x)
{
    if (g->dynamic == QX_DYNAMIC_TENSOR) fake_tensor(rows * k, x);
    for (int64_t i = 0; i < rows && g->dynamic == QX_DYNAMIC_ROW; i++) fake_row(k, x + i * k);
    if (g->dynamic == QX_DYNAMIC_BLOCK) fake_blocks(g->blocks, rows, k, x);
    if (!g->dynamic && g->act) fake_even(g->act == QX_DT_UINT8 ? QX_DT_INT8 : g->act, g->scale, rows * k, x);
}
