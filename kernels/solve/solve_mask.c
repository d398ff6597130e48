/* solve_mask.c - 2:4 masks by magnitude or by Wanda's score. Integer comparison of the scores' bits: deterministic, ties go to
 * the earlier. */
#include "kernels/scalar.h"
#include "kernels/solve/solve.h"

static uint32_t score_of(float w, const float *norm, int64_t c)
{
    const float s = norm ? w * norm[c] : w;
    const uint32_t a = qx_bits_of(s) & 0x7fffffffu;
    return a > 0x7f800000u ? 0u : a;
}

/* keep[4]: the two largest of four. An element stays when fewer than two others beat it. */
static void keep_two(const uint32_t s[4], uint8_t *keep)
{
    for (int i = 0; i < 4; i++) {
        int better = 0;
        for (int j = 0; j < 4; j++) better += s[j] > s[i] || (s[j] == s[i] && j < i);
        keep[i] = better < 2;
    }
}

void qx_mask_2_4(const float *w, int64_t rows, int64_t k, const float *norm, uint8_t *mask)
{
    for (int64_t r = 0; r < rows; r++, w += k, mask += k) {
        int64_t c = 0;
        for (; c + 4 <= k; c += 4) {
            uint32_t s[4];
            for (int i = 0; i < 4; i++) s[i] = score_of(w[c + i], norm, c + i);
            keep_two(s, mask + c);
        }
        for (; c < k; c++) mask[c] = 1;
    }
}
