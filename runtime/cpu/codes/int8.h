/* int8.h - products of 8-bit codes with exact integer sums: y = act(scale[n] * (sum (x - zero) w) + bias[n]), of convolutions also as
 * codes again. */
#ifndef QX_RUNTIME_CPU_CODES_INT8_H
#define QX_RUNTIME_CPU_CODES_INT8_H

#include "runtime/cpu/pointwise/activation.h"
#include "runtime/cpu/matmul/gemm.h"

/* The convolution that node attributes, x and w describe (runtime/cpu/conv/conv.c). */
qx_status qx_conv_shape_of(const qx_call *c, const qx_tensor *x, const qx_tensor *w, qx_conv_shape *out);

typedef struct qx_int8_op {
    bool conv;
    qx_conv_shape shape;           /* convolutions */
    int64_t m, k, n;               /* products: x [m, k] */
    qx_dtype x_type;               /* INT8, UINT8 */
    const void *x;
    int32_t zero;
    const int8_t *w;               /* codes; w[i * w_row + j * w_col] for products, [out_ch, in_ch / group, kernel] for convolutions */
    int64_t w_row, w_col;
    const float *scale; int64_t n_scales; /* 1 or n */
    const float *bias;             /* [n] or NULL */
    float *y;
    /* Of convolutions, what follows; NULL: nothing. */
    const qx_activation *act;
    const struct qx_int8_codes *codes;
} qx_int8_op;

/* The result as codes: saturated rne(y / scale) + zero. */
typedef struct qx_int8_codes { qx_dtype type; float scale, zero; void *data; } qx_int8_codes;

/* oneDNN where its integer kernels are exact (VNNI). *done false: nothing was computed. w is only read when `*need_w` says so:
 * NULL w then sets it. */
typedef struct qx_dnnl_int8 qx_dnnl_int8;
qx_status qx_dnnl_int8_run(qx_call *c, qx_dnnl_int8 **state, const qx_int8_op *op, bool *done, bool *need_w);
/* Packed weights of a product as panels of `width` columns, four rows of k beside each other, zeros behind the last; stride bytes
 * from panel to panel. They are packed now if they are not yet. data NULL: none, or packed otherwise. */
typedef struct qx_int8_panels { const int8_t *data; int64_t width, stride; } qx_int8_panels;
qx_status qx_dnnl_int8_panels(qx_call *c, qx_dnnl_int8 **state, const qx_int8_op *op, qx_int8_panels *out);
void qx_dnnl_int8_free(qx_ctx *ctx, qx_dnnl_int8 *s);

#endif
