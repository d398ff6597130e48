/* vmath.c - rows of exponentials in plain C. */
#define LANES_ISA 0
#include "kernels/loops/vmath_leaf.h"
#include "kernels/loops/lanes.h"
#include "kernels/loops/vmath_loops.h"

const qx_vmath *qx_vmath_ref(void) { return &vmath; }
