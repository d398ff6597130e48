/* lift.h - what a body computes from constants alone, computed in the main graph instead. */
#ifndef QX_PASSES_LIFT_H
#define QX_PASSES_LIFT_H

#include "base/buf.h"
#include "base/map.h"
#include "onnx/graph.h"

/* up: by id of the values that were there at the start, what became of them; seen: lifted values by what computes them. */
typedef struct qx_lifter { qx_model *m; qx_value **up; qx_map *seen; qx_buf key; } qx_lifter;

qx_status qx_lifter_open(qx_model *m, qx_lifter *out);
void qx_lifter_close(qx_lifter *l);
/* Whether a node can be made again: its attributes are of kinds that are copied. */
bool qx_lift_may(const qx_node *n);
/* v, of a body, made of constants by nodes that may be lifted, as a value of the main graph; v itself when it is one. What two bodies
 * compute alike (both branches of an If slice one weight) is made once. Types are known. */
qx_status qx_lift(qx_lifter *l, qx_value *v, qx_value **out);

#endif
