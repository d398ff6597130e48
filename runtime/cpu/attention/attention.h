/* attention.h - attention of whole tensors for adapters: heads and blocks of rows are spread over threads, each through
 * kernels/attention.h. */
#ifndef QX_RUNTIME_CPU_ATTENTION_ATTENTION_H
#define QX_RUNTIME_CPU_ATTENTION_ATTENTION_H

#include "kernels/attention.h"
#include "runtime/cpu/op.h"

/* A float operand seen as [batch, head, row, column]; strides in elements, 0 where it is shared. */
typedef struct qx_heads { const float *data; int64_t batch, head, row, col; } qx_heads;

/* Keys or values that are codes: their bytes instead of the floats in qx_heads, whose strides then count codes. Scales for each column
 * are one row a head. data NULL: floats. */
typedef struct qx_coded_heads { const void *data; qx_attn_codes codes; } qx_coded_heads;

typedef struct qx_attn {
    int64_t batch, heads, kv_heads, rows, keys, d, dv; /* heads is a multiple of kv_heads */
    qx_heads q, k, v;         /* q, v: col 1; k: col or row 1 */
    qx_coded_heads kc, vc;    /* k: col 1 */
    float *y; int64_t y_batch, y_head, y_row;
    float scale, softcap;
    qx_heads mask;            /* data NULL: none; added to the scores; col 1 */
    const uint8_t *keep; int64_t keep_batch, keep_head, keep_row; /* boolean mask, col 1; NULL: none */
    bool causal;
    int64_t offset;           /* causal: row i sees keys <= i + offset */
    int64_t left;             /* window: row i sees keys >= i + offset - left; negative: open */
    bool has_right; int64_t right; /* window: row i sees keys <= i + offset + right */
    const int64_t *offsets;   /* [batch] instead of offset; NULL: none */
    const int64_t *key_count; /* [batch] keys that exist, <= keys; NULL: all */
    const float *sink;        /* [heads] extra score of the softmax sum; NULL: none */
    bool nan_when_empty;      /* rows that see no key: NaN (nodes one by one) instead of zeros (the standard's Attention) */
} qx_attn;
qx_status qx_attn_run(qx_call *c, const qx_attn *a);

/* What a node may ask for beside the result: the whole matrix of scores, [batch, heads, rows, keys] dense. */
typedef enum qx_scores { QX_SCORES_RAW, QX_SCORES_CAPPED, QX_SCORES_MASKED, QX_SCORES_SOFTMAX } qx_scores;
qx_status qx_attn_scores(qx_call *c, const qx_attn *a, qx_scores kind, float *out);

#endif
