/* mixture.h - com.microsoft's MoE in codes: QMoE, which holds those of all its layers. */
#ifndef QX_PASSES_MIXTURE_H
#define QX_PASSES_MIXTURE_H

#include "passes/place/plan.h"

/* Whether the item is a layer of a MoE that the target runs as QMoE: every layer has the same format, and QMoE has a place for it. */
bool qx_mixture_fits(const struct qx_pipeline *pipe, const qx_plan_item *it);
/* The largest block up to `most` that QMoE takes and that divides the rows of both layers; `most` where there is none. */
int64_t qx_mixture_block(const struct qx_pipeline *pipe, const qx_plan_item *it, int64_t most);
/* Gives the parts of the weight's job, which are in the layout NBITS, QMoE's dims. */
qx_status qx_mixture_shape(qx_model *m, const qx_plan_item *it);
/* Puts the layer's codes into the node, which becomes a QMoE with its first layer. */
qx_status qx_mixture_layer(struct qx_pipeline *pipe, const qx_plan_item *it, qx_value *codes, qx_value *scale, qx_value *zero);

#endif
