/* strided.h - the one engine behind Transpose, Slice, Expand, Tile: a dense output read from the input with a stride per axis. */
#ifndef QX_RUNTIME_CPU_MOVE_STRIDED_H
#define QX_RUNTIME_CPU_MOVE_STRIDED_H

#include "runtime/cpu/op.h"

enum { QX_STRIDED_RANK = 2 * QX_MAX_RANK };
typedef struct qx_strided { int rank; int64_t dims[QX_STRIDED_RANK], stride[QX_STRIDED_RANK]; } qx_strided;

/* dst (dense, dims of s) = src + sum index[i] * stride[i]; strides in elements of `size` bytes, any sign. In parallel. */
qx_status qx_strided_copy(qx_ctx *ctx, const qx_strided *s, const void *src, void *dst, int size);
/* Output i of the call, of in's type with these dims, filled that way from in (which starts at element `offset`). Strings are
 * duplicated. */
qx_status qx_strided_out(qx_call *c, uint32_t i, const qx_tensor *in, int64_t offset, int rank, const int64_t *dims, const qx_strided *s);
/* Bytes of an element (a pointer for strings). Packed types: QX_E_TYPE. */
qx_status qx_elem_size(const qx_call *c, const qx_tensor *t, int *size);
/* After pointers were copied into a string output: gives each element its own copy. */
qx_status qx_own_strings(qx_call *c, qx_tensor *t);

#endif
