/* loops.h - constants that Loops hand on from turn to turn, as constants. */
#ifndef QX_PASSES_LOOPS_H
#define QX_PASSES_LOOPS_H

#include "onnx/graph.h"

/* A float matrix that enters a Loop as a state and leaves each turn as it came is read by the body from outside instead, where a
 * format finds it; the state goes. A state that is an output of the graph stays. */
qx_status qx_loops_open(qx_model *m);

#endif
