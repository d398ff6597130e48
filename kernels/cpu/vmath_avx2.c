/* vmath_avx2.c - rows of exponentials for AVX2. */
#if defined(__x86_64__)
#define LANES_ISA 2
#include "kernels/vmath_leaf.h"
#include "kernels/lanes.h"
#include "kernels/vmath_loops.h"

const qx_vmath *qx_vmath_avx2(void) { return &vmath; }
#endif
