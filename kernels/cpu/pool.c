/* pool.c - sliding windows by the loops for this CPU (kernels/loops/pool_loops.h). */
#include "kernels/loops/pool_leaf.h"

int64_t qx_pool_scratch(const qx_windows *w, int64_t lanes, int64_t n) { return n * qx_pool_pitch(w) * lanes + QX_POOL_SLACK; }

void qx_pool_rows(const qx_windows *w, const qx_pool_band *b) { qx_pool_leaf_cpu(qx_isa_best())(w, b); }
