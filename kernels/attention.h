/* attention.h - softmax(scale Q K' + mask) V for one head and one block of query rows, walking over the keys in blocks with a
 * running maximum and sum, so that no row of scores is ever held as a whole. Sums over keys are in key order: the bits depend on
 * the block sizes (fixed) only. */
#ifndef QX_KERNELS_ATTENTION_H
#define QX_KERNELS_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

enum { QX_ATTN_ROWS = 512, QX_ATTN_KEYS = 256 }; /* query rows of a call (at most); keys of a block */

typedef struct qx_attn_head {
    int64_t rows, keys, d, dv;           /* query rows of this call, all keys, head sizes of Q/K and V */
    const float *q; int64_t ldq;         /* [rows, d], row stride; columns are dense */
    const float *k; int64_t ldk;         /* [keys, d] */
    int64_t kc;                          /* column stride of k (1; the row stride is 1 for a transposed K) */
    const float *v; int64_t ldv;
    float *y; int64_t ldy;               /* [rows, dv] */
    float scale, softcap;                /* softcap 0: none; else s = softcap tanh(s / softcap), before the mask */
    const float *mask; int64_t ld_mask;  /* added to scores: [rows, keys], row stride (0: one row for all), NULL: none */
    const uint8_t *keep; int64_t ld_keep;/* boolean mask: 0 removes the key */
    /* row i sees keys [i + first, i + last] of its own (causal, window); INT64_MIN / INT64_MAX: open */
    int64_t first, last;
    float sink; bool has_sink;           /* one more score that takes part in the sum only */
    bool nan_when_empty;                 /* a row that sees no key: NaN, as Softmax has it, instead of zeros, as Attention has it */
} qx_attn_head;

/* Floats of scratch that a call needs. */
int64_t qx_attn_scratch(int64_t rows, int64_t d, int64_t dv);
void qx_attn_rows(const qx_attn_head *h, float *scratch);

#endif
