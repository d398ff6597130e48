/* knapsack.h - one choice per group so that the sum of costs is least for every sum of bytes: the whole Pareto frontier at once.
 *
 * Multiple-choice knapsack by dynamic programming over lists of undominated (bytes, cost) sums, with the real byte counts: no
 * rounding to a grid. The lists stay short because layers of a network repeat the same few sizes. Should one outgrow
 * QX_KNAPSACK_CAP, it is thinned to the best point of each of that many equal ranges of bytes; every point that remains is still
 * a true one, and qx_knapsack_exact says so. */
#ifndef QX_PASSES_KNAPSACK_H
#define QX_PASSES_KNAPSACK_H

#include "base/mem.h"

enum { QX_KNAPSACK_CAP = 32768, QX_KNAPSACK_CHOICES = 16 };
typedef struct qx_choice { int64_t bytes; double cost; bool allowed; } qx_choice; /* cost >= 0 and finite, bytes >= 0 */
typedef struct qx_knapsack qx_knapsack;

/* choices[groups][n]; every group needs at least one that is allowed. n is at most QX_KNAPSACK_CHOICES. */
qx_status qx_knapsack_new(qx_ctx *ctx, const qx_choice *choices, int64_t groups, int n, qx_knapsack **out);
void qx_knapsack_free(qx_knapsack *k);
bool qx_knapsack_exact(const qx_knapsack *k);
/* The frontier by rising bytes and falling cost; never empty. */
int64_t qx_knapsack_count(const qx_knapsack *k);
void qx_knapsack_point(const qx_knapsack *k, int64_t i, int64_t *bytes, double *cost);
/* The choice of every group at point i: pick[groups]. */
void qx_knapsack_pick(const qx_knapsack *k, int64_t i, uint8_t *pick);

#endif
