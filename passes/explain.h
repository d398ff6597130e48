/* explain.h - the record of what happened to every node, with the reason where nothing did. */
#ifndef QX_PASSES_EXPLAIN_H
#define QX_PASSES_EXPLAIN_H

#include "passes/place/plan.h"

/* One for every node of the model as it is now, under its name of now. */
qx_status qx_decisions_new(qx_pipeline *p, qx_model *m);
/* Completes the reasons, and puts all in the report (may be NULL). */
qx_status qx_explain(qx_pipeline *p, qx_report *r);
/* The error when no node was quantized: "12 few channels, 3 excluded" of the linear operators. */
qx_status qx_explain_nothing(qx_pipeline *p);

#endif
