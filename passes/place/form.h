/* form.h - how the codes of a weight stand in the graph: which nodes are between them and the product. Found by what the item, its format
 * and the target allow; emit.c writes it. */
#ifndef QX_PASSES_FORM_H
#define QX_PASSES_FORM_H

#include "passes/place/emit.h"

typedef enum qx_form {
    QX_FORM_SAME,         /* dequantized in the layout that it has */
    QX_FORM_NK_TRANSPOSE, /* [N, K], dequantized, transposed */
    QX_FORM_NK_GEMM,      /* [N, K], dequantized, read by Gemm with transB */
    QX_FORM_NBITS,        /* MatMulNBits, and embeddings that share the codes */
    QX_FORM_GATHER,       /* GatherBlockQuantized */
    QX_FORM_INTEGER,      /* products of integers, for activations that are measured when the model runs */
    QX_FORM_MIXTURE,      /* a layer of MoE becomes one of QMoE */
} qx_form;

qx_form qx_form_of(const struct qx_pipeline *pipe, const qx_plan_item *it);
/* Whether ONNX Runtime shall make MatMulNBits of the item's product, which is written in the standard's operators: of a DequantizeLinear of
 * [K, N] straight in front of it (ort_products.c turns what is stored the other way). It rounds x to 8 bits then. */
bool qx_form_becomes_nbits(const struct qx_pipeline *pipe, const qx_plan_item *it);
/* Whether an embedding gathers its rows as codes, with their scales, and multiplies then. */
bool qx_form_rows_fit(const struct qx_pipeline *pipe, const qx_plan_item *it);
/* Whether every reader of the weight gathers rows of its codes. */
bool qx_form_only_gathered(const struct qx_pipeline *pipe, const qx_plan_weight *w);
/* Scales that are powers of two and stand in TensorRT's own operator, as bytes. */
bool qx_form_powers(const struct qx_pipeline *pipe, const qx_plan_weight *w);

#endif
