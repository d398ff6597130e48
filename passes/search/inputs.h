/* inputs.h - convolutions whose input, or rounded result, costs more than all others together. */
#ifndef QX_PASSES_INPUTS_H
#define QX_PASSES_INPUTS_H

#include "passes/search/probe.h"

/* From decide(): runs the model with all inputs rounded that will be (`others` is what operators besides convolutions do, n of
 * them) and with those of single convolutions. One that alone does at least `least` of what all others left do, together with its own,
 * keeps a float input and stores its weight alone (or a float result), one in four operators at most. */
qx_status qx_inputs_keep(qx_pass *p, const qx_stats *stats, qx_probe *probe, const qx_probe_change *others, int64_t n, double least);
/* How many convolutions there are that round their inputs. */
int64_t qx_inputs_count(const struct qx_plan *plan);

#endif
