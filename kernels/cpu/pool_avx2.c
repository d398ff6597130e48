/* pool_avx2.c - sliding windows for AVX2. */
#if defined(__x86_64__)
#include <math.h>

#define LANES_ISA 2
#include "kernels/loops/pool_leaf.h"
#include "kernels/loops/lanes.h"
#include "kernels/loops/pool_loops.h"

void qx_pool_rows_avx2(const qx_windows *w, const qx_pool_band *b) { pool_rows(w, b); }
#endif
