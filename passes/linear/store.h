/* store.h - exact changes of a linear operator's stored weight before the sweep, each as a job: along its inputs or along its
 * outputs. What the job makes stands in the weight's place; other readers of the stored tensor keep it. */
#ifndef QX_PASSES_STORE_H
#define QX_PASSES_STORE_H

#include "passes/linear/linear.h"

/* The step sees rows of W [n, k]: what the operator takes in is changed. */
qx_status qx_store_inputs(qx_model *m, const qx_linear *l, const qx_stepdef *def, const void *arg);
/* The step sees columns of W as rows [k, n], and the bias as one more: what the operator puts out is changed. One matrix; a bias
 * must be a constant vector. */
qx_status qx_store_outputs(qx_model *m, const qx_linear *l, const qx_stepdef *def, const void *arg);
/* node->in[index], a constant vector, as one row. */
qx_status qx_store_vector(qx_model *m, qx_node *node, uint32_t index, const qx_stepdef *def, const void *arg);
/* `w`, seen as `view`, after the step. */
qx_status qx_store_matrix(qx_model *m, const qx_weight *w, const qx_view *view, const qx_stepdef *def, const void *arg, qx_layout layout,
                          qx_weight **out);

#endif
