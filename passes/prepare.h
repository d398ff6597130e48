/* prepare.h - what is done before any pass plans: the model is brought into the forms that passes know, and the formats of --set and
 * --tables become passes. */
#ifndef QX_PASSES_PREPARE_H
#define QX_PASSES_PREPARE_H

#include "passes/place/plan.h"

/* Of models that are quantized already. */
qx_status qx_prepare_refuse(qx_pipeline *p, qx_model *m);
/* --set, --tables, and whether the passes go together. */
qx_status qx_prepare_formats(qx_pipeline *p);
/* Exact changes of the float graph: bodies of local functions, constants that were computed, forms of other exporters. */
qx_status qx_prepare_model(qx_pipeline *p, qx_model *m);
bool qx_pipeline_has_format(const qx_pipeline *p);

#endif
