/* observe.c - the face of observe.h: picks the loops of the best instruction set. */
#include "kernels/loops/observe_leaf.h"

qx_scan qx_scan_f32(const float *x, int64_t n, bool sizes) { return qx_observe_cpu(qx_isa_best())->scan(x, n, sizes); }
void qx_hist_f32(const float *x, int64_t n, float inv_width, uint64_t *bins) { qx_observe_cpu(qx_isa_best())->hist(x, n, inv_width, bins); }
int64_t qx_columns_f32(const float *x, int64_t rows, int64_t stride, int64_t cols, const qx_columns *acc)
{
    return qx_observe_cpu(qx_isa_best())->columns(x, rows, stride, cols, acc);
}

int64_t qx_first_nonfinite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        if ((bits & 0x7f800000u) == 0x7f800000u) return i;
    }
    return -1;
}
