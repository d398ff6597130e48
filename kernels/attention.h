/* attention.h - softmax(scale Q K' + mask) V for one head and one block of query rows, walking over the keys in blocks with a
 * running maximum and sum, so that no row of scores is ever held as a whole. Sums over keys are in key order: the bits depend on
 * the block sizes (fixed) only. Keys and values may be codes of a cache: a tile at a time is turned to floats, never the whole. */
#ifndef QX_KERNELS_ATTENTION_H
#define QX_KERNELS_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

enum { QX_ATTN_ROWS = 512, QX_ATTN_KEYS = 256, QX_ATTN_FEW = 7 }; /* query rows of a call (at most); keys of a block; "few" rows */

/* What keys or values are made of: (code - zero) * scale, of any type that qx_to_f32 knows. type 0: floats, and the rest says nothing. */
typedef struct qx_attn_codes {
    int type;
    float zero;
    const float *scale; bool per_column; /* [1], or [d] a column; NULL: 1 */
} qx_attn_codes;

typedef struct qx_attn_head {
    int64_t rows, keys, d, dv;           /* query rows of this call, all keys, head sizes of Q/K and V */
    const float *q; int64_t ldq;         /* [rows, d], row stride; columns are dense */
    const void *k; int64_t ldk;          /* [keys, d] of k_codes; strides in elements, of codes below a byte whole bytes */
    int64_t kc;                          /* column stride of k (1; the row stride is 1 for a transposed K of floats) */
    const void *v; int64_t ldv;
    qx_attn_codes k_codes, v_codes;
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

/* ---- At most QX_ATTN_FEW rows, as of one token: all heads that share keys and values go over them together ---- h is the first of
 * them; what the next head has lies these strides further. Stretches of keys are separate calls, each with a part of its own. */
typedef struct qx_attn_group { int64_t heads, q, y, mask, keep; const float *sink; /* [heads], NULL: none */ } qx_attn_group;
static inline int64_t qx_attn_part(int64_t rows, int64_t dv) { return rows * (dv + 2); } /* floats of a part; rows of all heads */
int64_t qx_attn_few_scratch(int64_t rows, int64_t d, int64_t dv);
void qx_attn_few(const qx_attn_head *h, const qx_attn_group *g, int64_t from, int64_t to, float *part, float *scratch);
/* y from n parts that lie behind each other; the first is used up. */
void qx_attn_join(const qx_attn_head *h, const qx_attn_group *g, int64_t n, float *parts);

#endif
