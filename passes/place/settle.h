/* settle.h - which operators a FORMAT pass keeps at plan time, and how each of them is stored: whole, its weight alone in 8 bits, or
 * float with the reason why. Statistics come later: here only names, shapes and what the target has. */
#ifndef QX_PASSES_SETTLE_H
#define QX_PASSES_SETTLE_H

#include "passes/place/scheme.h"

/* What the scheme leaves to be found in the whole plan: end_block, one_row, few_blocks. */
void qx_settle_find(const qx_pass *p, qx_scheme *s);
/* Leaves an item to the pass, takes its input out (weight_only), or keeps it float. */
void qx_settle_item(const qx_pass *p, const qx_scheme *s, qx_plan_item *it);
/* ... and takes up weights of what stays float for its name or level, where the scheme says so. */
void qx_settle_rest(qx_pass *p, const qx_scheme *s);
/* Fills in weight and activation format of an item that the pass keeps. */
void qx_settle_format(const qx_pass *p, const qx_scheme *s, qx_plan_item *it);

#endif
