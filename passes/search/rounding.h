/* rounding.h - what rounding makes of rows of a weight and of an activation: quantize and dequantize at once, as candidates are compared
 * by. A search of scales is a coarse one here. */
#ifndef QX_PASSES_ROUNDING_H
#define QX_PASSES_ROUNDING_H

#include "kernels/quant.h"
#include "passes/place/plan.h"

/* Rows of a weight, and what rounding them takes. */
typedef struct qx_row_tile {
    int64_t rows, k;
    float *x;                  /* [rows][k] */
    float amax;                /* of the tensor, when the spec has one scale for it */
    const float *importance;   /* [k]: weighs a search; NULL: 1 */
    float *scale;              /* room for rows * ceil(k / block) */
    int32_t *zero;             /* as many; NULL for formats without zero points */
} qx_row_tile;
/* Scales of a tile, and how it is rounded with them. false: a format that its search does not know; nothing to round. */
bool qx_spec_scales(const qx_qspec *spec, const qx_row_tile *t, qx_quant *q);
/* ... and rounds it. */
void qx_spec_fake(const qx_qspec *spec, const qx_row_tile *t);

/* How an activation is rounded: on a calibrated grid (scale; 0: it stays float), or by what it holds when the model runs (BLOCK: as
 * `blocks` says, the second level by the rows at hand). */
typedef struct qx_act_grid { qx_dtype act; qx_dynamic dynamic; float scale; const qx_qspec *blocks; } qx_act_grid;
bool qx_act_rounds(const qx_act_grid *g);
/* x[rows][k] on its grid. A tensor's own scale is that of these rows. */
void qx_act_fake(const qx_act_grid *g, int64_t rows, int64_t k, float *x);

#endif
