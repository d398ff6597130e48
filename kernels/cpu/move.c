/* move.c - strided runs and tiled transposition; one loop text for every element size. */
#include "kernels/move.h"

#include <string.h>

#include "kernels/loops/multi.h"
#include "kernels/quant.h"

typedef struct wide { uint64_t lo, hi; } wide;
enum { TILE = 32 };

#define RUN(T) \
    for (int64_t i = 0; i < n; i++) ((T *)dst)[i] = ((const T *)src)[i * stride];

void qx_copy_run(const void *src, int64_t stride, void *dst, int64_t n, int size)
{
    if (stride == 1) {
        if (n > 0) memcpy(dst, src, (size_t)n * (size_t)size);
        return;
    }
    switch (size) {
    case 1: RUN(uint8_t) break;
    case 2: RUN(uint16_t) break;
    case 4: RUN(uint32_t) break;
    case 8: RUN(uint64_t) break;
    default: RUN(wide) break;
    }
}

#define TILES(T)                                                                      \
    for (int64_t r0 = 0; r0 < rows; r0 += TILE)                                       \
        for (int64_t c0 = 0; c0 < cols; c0 += TILE) {                                 \
            int64_t r1 = r0 + TILE < rows ? r0 + TILE : rows, c1 = c0 + TILE < cols ? c0 + TILE : cols; \
            for (int64_t r = r0; r < r1; r++)                                         \
                for (int64_t c = c0; c < c1; c++) ((T *)dst)[r * dst_row + c] = ((const T *)src)[r * row + c * col]; \
        }

QX_INLINE void copy_tiles_body(const void *src, int64_t row, int64_t col, void *dst, int64_t dst_row, int64_t rows, int64_t cols, int size)
{
    switch (size) {
    case 1: TILES(uint8_t) break;
    case 2: TILES(uint16_t) break;
    case 4: TILES(uint32_t) break;
    case 8: TILES(uint64_t) break;
    default: TILES(wide) break;
    }
}
QX_MULTI(static, copy_tiles, (const void *src, int64_t row, int64_t col, void *dst, int64_t dst_row, int64_t rows, int64_t cols, int size),
         (src, row, col, dst, dst_row, rows, cols, size))

void qx_copy_2d(const void *src, int64_t row, int64_t col, void *dst, int64_t dst_row, int64_t rows, int64_t cols, int size)
{
    if (row != 1 || !qx_transpose(size, cols, rows, src, col, dst, dst_row)) copy_tiles(src, row, col, dst, dst_row, rows, cols, size);
}
