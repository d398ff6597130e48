/* vmath_avx512.c - rows of exponentials for AVX512. */
#if defined(__x86_64__)
#define LANES_ISA 512
#include "kernels/vmath_leaf.h"
#include "kernels/lanes.h"
#include "kernels/vmath_loops.h"

const qx_vmath *qx_vmath_avx512(void) { return &vmath; }
#endif
