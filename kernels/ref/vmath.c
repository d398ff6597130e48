/* vmath.c - rows of exponentials in plain C. */
#define LANES_ISA 0
#include "kernels/vmath_leaf.h"
#include "kernels/lanes.h"
#include "kernels/vmath_loops.h"

const qx_vmath *qx_vmath_ref(void) { return &vmath; }
