/* move.h - copying elements of any size (1, 2, 4, 8, 16 bytes) between strided and dense layouts. Strides are in elements. */
#ifndef QX_KERNELS_MOVE_H
#define QX_KERNELS_MOVE_H

#include <stdint.h>

/* dst[i] = src[i * stride], i in [0, n). Any stride, also 0 and negative. */
void qx_copy_run(const void *src, int64_t stride, void *dst, int64_t n, int size);
/* dst[r * dst_row + c] = src[r * row + c * col]; meant for row == 1 (a transposition, by registers), in tiles that stay
 * in the cache. */
void qx_copy_2d(const void *src, int64_t row, int64_t col, void *dst, int64_t dst_row, int64_t rows, int64_t cols, int size);

#endif
