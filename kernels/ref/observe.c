/* observe.c - observation loops in plain C: the reference. */
#include "kernels/loops/observe_leaf.h"

#include <math.h>

#define FN(name) ref_##name
#define TARGET
#include "kernels/loops/observe_loops.h"

const qx_observe_leaf *qx_observe_ref(void)
{
    static const qx_observe_leaf leaf = {ref_scan, ref_hist, ref_columns};
    return &leaf;
}
