/* inputs.h - convolutions whose inputs, or rounded results, cost more than their share. */
#ifndef QX_PASSES_INPUTS_H
#define QX_PASSES_INPUTS_H

#include "passes/search/probe.h"

/* From decide(): runs the model with all inputs (and results) of convolutions rounded that will be, `others` with them (what other
 * operators do, n of them), then with halves of them, with halves of halves wherever much is left: 16 runs at most. Tensors that alone
 * do at least `least` of what is left without the worse ones (half of it, where outputs are very close by then) stay float, the weight
 * stored alone; one in four at most. */
qx_status qx_inputs_keep(qx_pass *p, const qx_stats *stats, qx_probe *probe, const qx_probe_change *others, int64_t n, double least);
/* How many convolutions there are that round their inputs. */
int64_t qx_inputs_count(const struct qx_plan *plan);

#endif
