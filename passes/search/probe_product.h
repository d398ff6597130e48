/* probe_product.h - what rounding does to the result of one operator: to a product of matrices exactly, to others noise of the same
 * energy. */
#ifndef QX_PASSES_PROBE_PRODUCT_H
#define QX_PASSES_PROBE_PRODUCT_H

#include "passes/search/probe.h"

typedef struct qx_rounded_product {
    const qx_plan_item *item;
    const qx_probe_change *change;
    const qx_value_stats *seen;      /* of x, or NULL */
    const float *x;                  /* [rows][k] */
    int64_t rows, n, k;
    float alpha;
    float *y;                        /* [rows][n]: alpha X W', and a bias if `biased`; as the change makes it afterwards */
    bool biased;
} qx_rounded_product;
qx_status qx_rounded_product_add(qx_ctx *ctx, const qx_rounded_product *d);
/* y[n] gets noise of `error` times its own energy; the same at each call. */
void qx_probe_noise(float *y, int64_t n, double error);

#endif
