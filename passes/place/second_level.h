/* second_level.h - NVFP4's scale of the whole tensor, alike for weights that read the same input. */
#ifndef QX_PASSES_SECOND_LEVEL_H
#define QX_PASSES_SECOND_LEVEL_H

#include "passes/place/plan.h"

/* For the items that pass p has, before their jobs are made: sets spec.amax of two-level weights in groups of `least` and more. */
qx_status qx_second_level_share(qx_pass *p, int64_t least);

#endif
