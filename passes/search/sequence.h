/* sequence.h - gptq and sparsegpt with `sequential`: weights are solved one layer after the other, each against the inputs that it
 * will meet when the layers before it are rounded. */
#ifndef QX_PASSES_SEQUENCE_H
#define QX_PASSES_SEQUENCE_H

#include "passes/place/plan.h"

/* Whether pass p solves the weight of this item in turn: asked for, and what the item's weight and place allow. Others have the
 * Gram matrix of the one sweep. */
bool qx_in_turn(const qx_pass *p, const qx_plan_item *it);
/* What cannot be asked for together with it is QX_E_USAGE. */
qx_status qx_sequence_check(const struct qx_pipeline *pipe);
/* Behind run() of the WEIGHTS passes and before the formats are written: runs the samples, layer by layer, and leaves each weight
 * that waits (qx_solve_waits) with what was solved for it, which lies in files that stats keeps. */
qx_status qx_sequence_run(struct qx_pipeline *pipe, qx_samples *samples, qx_stats *stats);
/* Memory that one input takes, with the weights that read it, at most; 0: nothing is solved in turn. */
int64_t qx_sequence_bytes(const struct qx_pipeline *pipe);

#endif
