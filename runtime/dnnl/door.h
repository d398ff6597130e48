/* door.h - the door to oneDNN (runtime/dnnl/). Every *_new gives NULL in *out, with QX_OK, when the library has no kernel for the
 * case whose result is the same bits for any number of threads ("gemm" and "ref" implementations split sums by thread): callers
 * then use their own. */
#ifndef QX_RUNTIME_DNNL_DOOR_H
#define QX_RUNTIME_DNNL_DOOR_H

#include "runtime/cpu/matmul/gemm.h"

/* Channels that lie side by side in the layout in which convolutions run best on this CPU: [N, C / block, H, W, block]. 0: no
 * such layout. */
int qx_dnnl_block(void);
/* bfloat16 products that are faster than float ones (emulated ones are not). */
bool qx_dnnl_has_bf16(void);
/* A picture of dims [N, C, H, W] from one layout to another; block 0: plain. C is a multiple of the blocks. x and y do not overlap. */
qx_status qx_dnnl_reblock(qx_call *c, const int64_t dims[4], int from, const float *x, int to, float *y);

/* Products of bfloat16 numbers with a constant matrix. */
typedef struct qx_dnnl_mm qx_dnnl_mm;
qx_status qx_dnnl_mm_new(qx_call *c, const qx_matrix *w, int64_t m_hint, qx_dnnl_mm **out);
qx_status qx_dnnl_mm_run(qx_call *c, qx_dnnl_mm *s, const qx_gemm *g);
void qx_dnnl_mm_free(qx_ctx *ctx, qx_dnnl_mm *s);

/* *done false: no kernel for these dims and strides, nothing was computed. */
typedef struct qx_dnnl_bmm qx_dnnl_bmm;
qx_status qx_dnnl_bmm_run(qx_call *c, qx_dnnl_bmm **state, const qx_bmm *g, bool *done);
void qx_dnnl_bmm_free(qx_ctx *ctx, qx_dnnl_bmm *s);

typedef struct qx_dnnl_conv qx_dnnl_conv;
qx_status qx_dnnl_conv_new(qx_call *c, const qx_conv_shape *s, const float *w, qx_dnnl_conv **out);
qx_status qx_dnnl_conv_run(qx_call *c, qx_dnnl_conv *s, const qx_conv_shape *shape, const qx_conv_op *op);
void qx_dnnl_conv_free(qx_ctx *ctx, qx_dnnl_conv *s);

#endif
