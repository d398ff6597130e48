/* kv_cache.h - the caches of a decoder: pairs of a graph input (past) and the graph output that continues it (present). */
#ifndef QX_PASSES_KV_CACHE_H
#define QX_PASSES_KV_CACHE_H

#include "passes/pass.h"

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

/* Float caches of the main graph: inputs named "past..." of rank 3 or more with the output that continues them, by dataflow or by
 * name. In the model's arena. */
qx_status qx_kv_find(qx_model *m, qx_kv_pair **out, int64_t *n);

#endif
