/* gemm.h - matrix products and convolutions for adapters: packed once, run often. Products of float are kernels/gemm.h's;
 * runtime/dnnl/ has those of bfloat16 numbers and convolutions through oneDNN, and what it has no thread-count independent kernel
 * for, and builds without it, go through our own loops. */
#ifndef QX_RUNTIME_CPU_MATMUL_GEMM_H
#define QX_RUNTIME_CPU_MATMUL_GEMM_H

#include "kernels/pointwise.h"
#include "runtime/cpu/pointwise/activation.h"

typedef enum qx_act { QX_ACT_NONE, QX_ACT_RELU, QX_ACT_GELU, QX_ACT_GELU_TANH, QX_ACT_SILU, QX_ACT_SIGMOID, QX_ACT_TANH,
                      QX_ACT_HARDSWISH } qx_act;

qx_unary qx_act_unary(qx_act act); /* not NONE */
void qx_act_row(qx_act act, const float *x, float *y, int64_t n); /* not NONE; y may be x */

/* A constant matrix W[k, n] in the layout that its kernel likes. */
typedef struct qx_packed qx_packed;
/* What it is packed from: element (i, j) at i * row + j * col of data; or, with data NULL, of a float weight that is read from
 * the model a piece at a time, so that the whole of it never lies beside its packed form. One of row and col is 1, the other at
 * least the length of a stored row. value: the constant that it is as a whole, so that steps which multiply by the same one (a
 * network unrolled over time) have one packed form; NULL: nobody shares it. */
typedef struct qx_matrix { int64_t k, n, row, col; const float *data; const struct qx_weight *stored; const qx_value *value; } qx_matrix;
/* The stored rows [first, first + count) of w: columns of W when col is the longer stride. In *out, which points into data or to
 * buf[count * length]. */
qx_status qx_matrix_rows(qx_call *c, const qx_matrix *w, int64_t first, int64_t count, float *buf, const float **out);
static inline bool qx_matrix_by_columns(const qx_matrix *w) { return w->row < w->col; }
/* w as panels of kernels/gemm.h, by all threads. */
qx_status qx_panels_pack(qx_call *c, const qx_matrix *w, float *to);
/* m_hint: rows that calls will bring. The source is not needed afterwards. */
qx_status qx_packed_new(qx_call *c, const qx_matrix *w, int64_t m_hint, qx_packed **out);
void qx_packed_free(qx_ctx *ctx, qx_packed *p);

/* y[m, n] = act(x[m, k] W + bias[n]) * mul[m, n] + add[m, n]; bias, mul and add may be NULL; all dense. */
typedef struct qx_gemm { int64_t m; const float *x, *bias, *mul, *add; qx_act act; float *y; } qx_gemm;
qx_status qx_gemm_run(qx_call *c, qx_packed *w, const qx_gemm *g);

/* y[b] = a[b] * b[b] for b < batch, both variable. Strides in elements: batch (0: shared), row, column. y is dense. */
typedef struct qx_bmm { int64_t batch, m, n, k; const float *a, *b; float *y; int64_t sa[3], sb[3]; } qx_bmm;
typedef struct qx_bmm_state qx_bmm_state; /* primitives of one node, kept between calls */
qx_status qx_bmm_run(qx_call *c, qx_bmm_state **state, const qx_bmm *g);
void qx_bmm_free(qx_ctx *ctx, qx_bmm_state *s);

/* Convolution of NCHW float pictures (1 to 3 spatial axes). */
typedef struct qx_conv_shape {
    int spatial;
    int64_t batch, in_ch, out_ch, group;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], begin[3], end[3];
    int x_block, y_block; /* layout of x and y, as qx_call_in_layout has it */
} qx_conv_shape;
typedef struct qx_conv qx_conv; /* packed weights and primitives of one node */
/* y = act(x * w + bias + add). w [out_ch, in_ch / group, kernel...], of which output o counts scale[o] times (NULL: once), is
 * looked at when it is packed and may be NULL later; add lies as y does. bias, scale and add may be NULL. */
typedef struct qx_conv_op { const float *x, *w, *scale, *bias, *add; const qx_activation *act; float *y; } qx_conv_op;
/* *state is made at the first call. */
qx_status qx_conv_run(qx_call *c, qx_conv **state, const qx_conv_shape *s, const qx_conv_op *op);
/* y = act(y + add), n elements, for whatever does not work it out by itself. */
qx_status qx_conv_finish(qx_call *c, const qx_conv_op *op, int64_t n);
void qx_conv_free(qx_ctx *ctx, qx_conv *s);

/* What the executor holds for the library: one engine and stream. NULL handle: none made yet. */
void qx_dnnl_free(qx_ctx *ctx, void *handle);

#endif
