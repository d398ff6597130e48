/* npz.h - what samples.c needs of npz.c beyond calib/data/samples.h: parts of an array, so that one sample at a time is in memory. */
#ifndef QX_CALIB_NPZ_H
#define QX_CALIB_NPZ_H

#include "calib/data/samples.h"

/* Elements [first, first + count) in row-major order, converted, into out. Cheap when called with rising ranges; an array that is
 * stored column-major is read whole each time. */
qx_status qx_npz_read_part(qx_npz *z, int i, int64_t first, int64_t count, void *out);
/* Raw binary files as arrays: each spec is "name=file:f32[2,3]" or "name=file.npy". */
qx_status qx_npz_open_raw(qx_ctx *ctx, const char *const *specs, int n, qx_npz **out);
const char *qx_npz_path(const qx_npz *z);
int qx_npz_find(const qx_npz *z, const char *name); /* -1 when absent */

#endif
