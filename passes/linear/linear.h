/* linear.h - finds the linear operators of a graph (MatMul, Gemm, Conv, ConvTranspose, FusedMatMul, Einsum with a constant weight
 * on either side; the layers of a MoE, the weights of LSTM, GRU and RNN; embeddings too, which are no products) and the groups that must
 * be treated alike. By structure alone; names are only kept beside, for rules that go by them. */
#ifndef QX_PASSES_LINEAR_H
#define QX_PASSES_LINEAR_H

#include "passes/pass.h"

typedef struct qx_linear {
    qx_node *node;
    qx_value *x;            /* activation input as the node sees it */
    uint32_t x_index, w_index;
    qx_value *w_in;          /* value at the node's weight input */
    qx_value *w_init;        /* initializer behind it, through Transpose/Cast/Identity/Reshape/Squeeze/Unsqueeze, and for
                              * MatMul and Gemm through a Gather of whole matrices (experts by token); NULL: variable weight */
    qx_weight *w;            /* w_init->init */
    qx_view view;            /* of w as stored: W[n, k] */
    bool quantized;          /* the weight comes from a DequantizeLinear: w is NULL */
    int64_t n, k;            /* rows of W (output channels, of all experts), contraction (per group for grouped convolutions) */
    int channel_axis;        /* of the stored tensor: axis of n; -1: several (stacked experts [E,K,N]) */
    int contract_axis;       /* of the stored tensor: axis of k; 1 for Conv (input channels); -1: several */
    qx_value *rows;          /* whose rows (last axis k; of a convolution, windows; columns: of W X, the columns) meet the rows of
                              * W: x, or in W x what a trailing 1 was put behind or what was transposed. NULL: embeddings, and
                              * the second layer of a mixture, whose input nobody sees */
    bool columns;
    bool plain;              /* x are rows, and n is the last axis of y: one matrix, no experts */
    bool is_conv;
    bool embedding;          /* Gather: x holds indices, rows of W come out as they are */
    bool mixture;            /* one of the weights of com.microsoft's MoE, which has an item for each; y is not x W' */
    bool recurrent;          /* W or R of LSTM, GRU, RNN, an item for each; y is not x W' */
    qx_conv_window window;   /* convolutions; rank 0: columns */
    int64_t group;
    qx_value *bias;          /* constant bias: Gemm C, Conv B, or the constant operand of a following Add; NULL: none */
    qx_node *bias_add;       /* that Add; NULL when the bias is an input of the node */
    /* where node and stored weight say that they are, below a module that wraps the whole model: "blocks.0/attn/to_q/MatMul" */
    const char *path, *w_path;
    int64_t index;           /* place in qx_linears.items */
    int64_t group_id;        /* linears with the same x: one id (q/k/v, gate/up, experts) */
} qx_linear;

typedef struct qx_linears { qx_linear *items; int64_t count; int64_t n_groups; } qx_linears;
/* All candidates of the model in graph order, subgraphs and functions included; those with a variable weight too (w NULL). In the
 * model's arena. */
qx_status qx_linears_find(qx_model *m, qx_linears *out);

/* How statistics cut what l reads of l->rows: as windows, as columns, or (NULL) as rows of the last axis; and the axis of k there. */
const qx_conv_window *qx_linear_window(const qx_linear *l);
int qx_linear_axis(const qx_linear *l);
/* Rows of the last axis, each as the operator reads it. */
bool qx_linear_reads_rows(const qx_linear *l);

/* Of a Transpose: only the last two axes trade places. */
bool qx_swaps_last_two(const qx_node *n);

/* The weight again, in its own type, behind `step`: for exact changes before the sweep. Only for an initializer (w_init->init)
 * that nothing else reads. */
qx_status qx_linear_store(qx_model *m, const qx_linear *l, const qx_step *step);

/* The tensor at the end of a chain of Transpose, Cast, Identity and reshapes that only add or drop dims of 1. axes: for each axis that the
 * consumer sees, the axis of the stored tensor (-1: a dim of 1 that is not stored). */
enum { QX_AXIS_PICKED = -2 };
typedef struct qx_const_view { qx_value *value; qx_weight *tensor; int rank; int axes[8]; bool quantized; } qx_const_view;
bool qx_const_trace(const qx_value *v, qx_const_view *out);
/* The same, through Gather and GatherND(constant, indices) too: axes that the indices make are QX_AXIS_PICKED. */
bool qx_weight_trace(const qx_value *v, qx_const_view *out);

/* Whether a MatMul that only an Add reads has v, which is no matrix, as its input: ONNX Runtime makes a Gemm of the two, and from
 * this opset on the INT8 pair in front of it is ill-typed then (docs/runtimes.md). */
enum { QX_ORT_BIASED_OPSET = 21 };
bool qx_feeds_biased_matmul(const qx_value *v);

/* Attention products (MatMul with two variable inputs around a Softmax). */
typedef struct qx_attention { qx_node *qk, *softmax, *pv; qx_value *mask; int64_t head_size; } qx_attention;
qx_status qx_attentions_find(qx_model *m, qx_attention **out, int64_t *count);

#endif
