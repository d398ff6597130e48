/* conv_rows.h - convolutions of few pixels as one product: a row for each output pixel, of what its window sees. The weights are
 * read once, at the speed of the product, where kernels that go along the rows of a picture read them for every few pixels. */
#ifndef QX_RUNTIME_CPU_CONV_CONV_ROWS_H
#define QX_RUNTIME_CPU_CONV_CONV_ROWS_H

#include "runtime/cpu/matmul/gemm.h"

/* By shape alone, so that every number of threads takes the same way. */
bool qx_conv_rows_pay(const qx_conv_shape *s);
/* w [out_ch, in_ch, kernel...] */
qx_status qx_conv_rows_pack(qx_call *c, const qx_conv_shape *s, const float *w, qx_packed **out);
/* As qx_conv_run. */
qx_status qx_conv_rows_run(qx_call *c, qx_packed *w, const qx_conv_shape *s, const qx_conv_op *op);

#endif
