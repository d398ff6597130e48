/* products.h - Einsums that are products of rows and one matrix, as MatMul. */
#ifndef QX_PASSES_PRODUCTS_H
#define QX_PASSES_PRODUCTS_H

#include "onnx/graph.h"

/* Every Einsum of x, whose last axes are contracted, and a constant weight of these and of the result's last axes ("abc,cd->abd",
 * "bsd,dhk->bshk", "bshk,hkd->bsd") becomes a MatMul of that name, with a Reshape on the sides where several axes are one of the
 * matrix. Weights keep their content; those of more than two axes get two. Others (experts, axes in another order) stay. */
qx_status qx_einsum_products(qx_model *m);

#endif
