/* noops.h - nodes that hand on what they get. */
#ifndef QX_PASSES_NOOPS_H
#define QX_PASSES_NOOPS_H

#include "onnx/graph.h"

/* Identity, Dropout that is not trained, a Cast to the type that is there, Sum, Max, Min, Mean and Concat of one: what reads them reads
 * their input instead. One whose result is an output stays, its name is the interface; so does a Dropout whose mask is read. */
qx_status qx_noops_drop(qx_model *m);

#endif
