/* kv_cache.h - the caches of a decoder: pairs of a graph input (past) and the graph output that continues it (present). */
#ifndef QX_PASSES_KV_CACHE_H
#define QX_PASSES_KV_CACHE_H

#include "passes/pass.h"
#include "runtime/tensor.h"

typedef enum qx_kv_form {
    QX_KV_CONCAT,    /* present = Concat(past, new): new entries are quantized and put behind codes */
    QX_KV_FUSED,     /* GroupQueryAttention: reads and writes codes itself, by k_scale and v_scale */
    QX_KV_AROUND,    /* anything else: dequantized behind the input, quantized before the output */
} qx_kv_form;
typedef struct qx_kv_pair {
    qx_value *past, *present;
    qx_node *node;   /* CONCAT, FUSED */
    qx_kv_form form;
    bool key;        /* keys; else values */
} qx_kv_pair;

/* Float caches of the main graph: inputs named "past..." of rank 3 or more with the output that continues them, by dataflow or by name. In the model's arena. */
qx_status qx_kv_find(qx_model *m, qx_kv_pair **out, int64_t *n);
/* The constant scale that a model's quantized cache input is read with; NULL: not a quantized cache. Scalar, or one a channel of the last axis. */
const qx_weight *qx_kv_scale(const qx_value *past);
/* Turns a float tensor into what the quantized cache input takes (runs that compare with the float model). */
qx_status qx_kv_encode_input(qx_ctx *ctx, const qx_value *past, const qx_tensor *from, qx_tensor *to);

#endif
