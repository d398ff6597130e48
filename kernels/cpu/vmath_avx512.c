/* vmath_avx512.c - rows of exponentials for AVX512. */
#if defined(__x86_64__)
#define LANES_ISA 512
#include "kernels/loops/vmath_leaf.h"
#include "kernels/loops/lanes.h"
#include "kernels/loops/vmath_loops.h"

const qx_vmath *qx_vmath_avx512(void) { return &vmath; }
#endif
