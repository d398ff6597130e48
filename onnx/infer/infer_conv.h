/* infer_conv.h - windows, for the inference of convolutions and pooling in their ai.onnx and com.microsoft forms. */
#ifndef QX_ONNX_INFER_CONV_H
#define QX_ONNX_INFER_CONV_H

#include "onnx/infer/infer_op.h"

enum { QX_WINDOW_DIMS = 8 };
/* kernel 0: not given */
typedef struct qx_window { int spatial; bool same; int64_t kernel[QX_WINDOW_DIMS], stride[QX_WINDOW_DIMS], dilation[QX_WINDOW_DIMS],
                           pads[2 * QX_WINDOW_DIMS]; } qx_window;

/* From the attributes, checked: strides, dilations and kernel at least 1. */
qx_status qx_window_read(qx_infer *ix, qx_node *n, int spatial, qx_window *w);
/* Size of spatial axis i after the window. */
qx_dim qx_window_out(qx_infer *ix, const qx_window *w, int i, qx_dim in, bool ceil_mode);
qx_status qx_conv_shape(qx_infer *ix, qx_node *n, uint32_t x_in, uint32_t w_in, int dtype);
qx_status qx_nhwc_conv_shape(qx_infer *ix, qx_node *n, uint32_t x_in, uint32_t w_in, int dtype);
qx_status qx_pool_shape(qx_infer *ix, qx_node *n, int dtype, bool channels_last);
qx_status qx_global_pool_shape(qx_infer *ix, qx_node *n, int dtype, bool channels_last);

#endif
