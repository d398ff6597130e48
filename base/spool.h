/* spool.h - a file for what waits outside of memory: written in order, read back in order. Unnamed, it is gone with its handle;
 * it lies in /var/tmp then, which is on a disk where /tmp often is memory. With a name it stays. One thread at a time. */
#ifndef QX_BASE_SPOOL_H
#define QX_BASE_SPOOL_H

#include "base/file.h"

typedef struct qx_spool qx_spool;
/* what: names the content in messages ("activations"); kept by pointer, as path is. path NULL: without a name; else that file,
 * made empty, or (again) with what it holds. */
qx_status qx_spool_open(qx_ctx *ctx, const char *what, const char *path, bool again, qx_spool **out);
void qx_spool_close(qx_spool *s); /* NULL is allowed */
/* At the place that the last call left, from which both go on. */
qx_status qx_spool_put(qx_spool *s, const void *data, size_t n);
qx_status qx_spool_get(qx_spool *s, void *data, size_t n);
void qx_spool_rewind(qx_spool *s);
/* Of the first `bytes` bytes; qx_spool_at: of all that was written since the rewind. */
qx_status qx_spool_hash(const qx_spool *s, int64_t bytes, uint64_t *out);
int64_t qx_spool_at(const qx_spool *s);
/* Closes the spool; its content is a file from now on, for as long as that is open. */
qx_status qx_spool_to_file(qx_spool *s, qx_file **out);

#endif
