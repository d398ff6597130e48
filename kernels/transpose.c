/* transpose.c - matrix transpose by small blocks, so that both sides stay in the cache. */
#include "kernels/quant.h"

enum { BLOCK = 32 };

#define TRANSPOSE(type)                                                                                            \
    static void transpose_##type(int64_t rows, int64_t cols, const type *s, int64_t sl, type *d, int64_t dl)       \
    {                                                                                                              \
        for (int64_t r0 = 0; r0 < rows; r0 += BLOCK)                                                               \
            for (int64_t c0 = 0; c0 < cols; c0 += BLOCK) {                                                         \
                const int64_t r1 = r0 + BLOCK < rows ? r0 + BLOCK : rows, c1 = c0 + BLOCK < cols ? c0 + BLOCK : cols; \
                for (int64_t c = c0; c < c1; c++)                                                                  \
                    for (int64_t r = r0; r < r1; r++) d[c * dl + r] = s[r * sl + c];                               \
            }                                                                                                      \
    }
TRANSPOSE(uint8_t)
TRANSPOSE(uint16_t)
TRANSPOSE(uint32_t)
TRANSPOSE(uint64_t)

bool qx_transpose(int elem_size, int64_t rows, int64_t cols, const void *src, int64_t src_ld, void *dst, int64_t dst_ld)
{
    if (elem_size == 1) transpose_uint8_t(rows, cols, src, src_ld, dst, dst_ld);
    else if (elem_size == 2) transpose_uint16_t(rows, cols, src, src_ld, dst, dst_ld);
    else if (elem_size == 4) transpose_uint32_t(rows, cols, src, src_ld, dst, dst_ld);
    else if (elem_size == 8) transpose_uint64_t(rows, cols, src, src_ld, dst, dst_ld);
    else return false;
    return true;
}
