/* inputs.h - convolutions whose inputs, or rounded results, cost more than their share. */
#ifndef QX_PASSES_INPUTS_H
#define QX_PASSES_INPUTS_H

#include "passes/search/probe.h"

/* From decide(): runs the model with all inputs (and results) of convolutions rounded that will be, `others` with them (what other
 * operators do, n of them), then with halves of them, with halves of halves wherever much is left: 16 runs at most. Tensors that alone
 * do at least `least` of what is left without the worse ones (half of it, where outputs are very close by then) stay float, the weight
 * stored alone; one in four at most. Then, in 16 runs more (8 where results are many), results stay float until all that are rounded add
 * little (a third) to the noise that inputs make, those first that do most for their multiplications, 8 % of these at most. */
qx_status qx_inputs_keep(qx_pass *p, const qx_stats *stats, qx_probe *probe, const qx_probe_change *others, int64_t n, double least);
/* How many convolutions there are that round their inputs. */
int64_t qx_inputs_count(const struct qx_plan *plan);
/* Multiplications of their convolutions in one sample. */
double qx_inputs_work(const struct qx_plan *plan, const qx_stats *stats);

#endif
