/* tensor.h - a runtime value: a dense tensor, or a sequence / optional of them. */
#ifndef QX_RUNTIME_TENSOR_H
#define QX_RUNTIME_TENSOR_H

#include "base/mem.h"
#include "kernels/dtype.h"

enum { QX_MAX_RANK = 8 }; /* the executor refuses more, by name */

typedef struct qx_tensor {
    qx_dtype dtype;
    int rank;
    int64_t dims[QX_MAX_RANK];
    int64_t numel;
    size_t bytes;      /* packed content; strings: numel * sizeof(char *) */
    void *data;        /* row-major, contiguous; STRING: char *[numel]; device memory when on_device */
    bool on_device;
    /* Sequences and optionals: dtype is the element type, items[n_items]; an empty optional has is_optional and n_items 0. */
    bool is_sequence, is_optional;
    struct qx_tensor *items;
    int64_t n_items;
} qx_tensor;

/* Dims, numel and bytes set and checked (overflow, rank); data NULL. */
qx_status qx_tensor_shape(qx_ctx *ctx, qx_tensor *t, qx_dtype dtype, int rank, const int64_t *dims);
/* The same with data allocated (zeroed); free with qx_tensor_free. */
qx_status qx_tensor_new(qx_ctx *ctx, qx_tensor *t, qx_dtype dtype, int rank, const int64_t *dims);
void qx_tensor_free(qx_ctx *ctx, qx_tensor *t); /* items and strings too */
/* "f32[2,3]" into buf. */
const char *qx_tensor_describe(const qx_tensor *t, char *buf, size_t cap);

#endif
