/* gathered.h - an embedding whose table is stored as INT8 codes: rows are gathered as they are, then multiplied by their scales. Or in
 * float16: gathered, then cast. */
#ifndef QX_PASSES_GATHERED_H
#define QX_PASSES_GATHERED_H

#include "passes/place/plan.h"

/* it's Gather becomes Gather (codes) - Cast [- Sub 128] - Mul by Gather (scales). codes: INT8 [n, k], or MatMulNBits's UINT8
 * [n, blocks, block]; scale: [n] or [n, blocks], by the spec of the weight. */
qx_status qx_gathered_rows(qx_plan_item *it, qx_value *codes, qx_value *scale);

/* `table`: float16; the node is the Cast. */
qx_status qx_gathered_half(qx_plan_item *it, qx_value *table);

#endif
