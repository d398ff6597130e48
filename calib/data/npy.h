/* npy.h - the .npy header: type, order, shape. Shared by the readers of npz.c and samples.c. */
#ifndef QX_CALIB_NPY_H
#define QX_CALIB_NPY_H

#include "runtime/tensor.h"

enum { QX_NPY_HEAD_MAX = 65536 + 12 }; /* longest header that is read: longer ones hold structured types, which are refused */

typedef struct qx_npy {
    qx_tensor shape;      /* dtype, rank, dims, numel, bytes; data NULL */
    bool fortran, swap;   /* column-major; foreign byte order: qx_npy_fix turns both into what the rest expects */
    int64_t data_offset;  /* of the first element */
} qx_npy;

/* Length of the whole header (magic to newline) from its first 12 bytes. */
qx_status qx_npy_head_length(qx_ctx *ctx, const char *what, const uint8_t *p, size_t n, size_t *length);
/* p holds the whole header. `what` names the array in messages. */
qx_status qx_npy_parse(qx_ctx *ctx, const char *what, const uint8_t *p, size_t n, qx_npy *out);
/* Element data as read -> row-major, little endian, in place. */
qx_status qx_npy_fix(qx_ctx *ctx, const qx_npy *h, void *data);
/* Header for a tensor into buf (cap at least 256); QX_E_TYPE for types that .npy cannot hold. */
qx_status qx_npy_head(qx_ctx *ctx, const char *what, const qx_tensor *t, char *buf, size_t cap, size_t *length);

#endif
