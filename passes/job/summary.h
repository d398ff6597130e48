/* summary.h - facts about a model for `qonnx inspect`: sizes by type, operators, what is quantizable and what it would save. */
#ifndef QX_PASSES_SUMMARY_H
#define QX_PASSES_SUMMARY_H

#include "base/json.h"
#include "passes/linear/linear.h"

/* What a model is for, by its inputs and operators: what presets and hints go by. */
typedef enum qx_genre { QX_GENRE_NETWORK, QX_GENRE_TEXT, QX_GENRE_UNET, QX_GENRE_DIFFUSION_TRANSFORMER } qx_genre;
qx_genre qx_model_genre(const qx_model *m);

typedef struct qx_type_total { qx_dtype dtype; int64_t tensors, elements, bytes; } qx_type_total;
/* weight_bytes: of the linear operators' weights */
typedef struct qx_op_total { const char *op, *domain; int64_t nodes; int64_t weight_bytes; } qx_op_total;
typedef struct qx_summary {
    int64_t nodes, graphs, functions;      /* nodes of subgraphs and functions too */
    /* initializers, and Constant nodes of 512 bytes and more (parameters: floating point and quantized elements) */
    int64_t tensors, parameters, bytes;
    qx_type_total *types; int64_t n_types; /* most bytes first */
    qx_op_total *ops; int64_t n_ops;       /* most nodes first, then by name */
    int64_t linear, linear_constant;       /* linear operators; those with a constant float weight */
    int64_t linear_bytes, kept_bytes;      /* bytes of their weights; of those that default rules keep float */
    int64_t embedding_bytes;               /* of embedding tables, no linear operators; what a head shares is counted there */
    int64_t saves_8bit, saves_4bit;        /* bytes that int8-weights and int4 (block 32) would save */
    int64_t quantized_nodes;               /* Q/DQ and operators with low-precision weights */
    int64_t attentions;                    /* as one operator, or as the nodes that compute it */
} qx_summary;
/* Arrays live in `arena`. */
qx_status qx_summarize(qx_model *m, qx_arena *arena, qx_summary *out);
/* The summary, inputs, outputs and metadata as one JSON object (summary_json.c); nodes, tensors: lists of all of them too. */
qx_status qx_summary_json(qx_model *m, const qx_summary *s, bool nodes, bool tensors, qx_buf *out);

#endif
