/* spool.h - an unnamed file for what waits outside of memory: written in order, read back in order, and gone with its handle. It lies in /var/tmp, which
 * is on a disk where /tmp often is memory. One thread at a time. */
#ifndef QX_BASE_SPOOL_H
#define QX_BASE_SPOOL_H

#include "base/file.h"

typedef struct qx_spool qx_spool;
/* what: names the content in messages ("activations"); kept by pointer. */
qx_status qx_spool_open(qx_ctx *ctx, const char *what, qx_spool **out);
void qx_spool_close(qx_spool *s); /* NULL is allowed */
/* At the place that the last call left, from which both go on. */
qx_status qx_spool_put(qx_spool *s, const void *data, size_t n);
qx_status qx_spool_get(qx_spool *s, void *data, size_t n);
void qx_spool_rewind(qx_spool *s);
/* Closes the spool; its content is a file from now on, for as long as that is open. */
qx_status qx_spool_to_file(qx_spool *s, qx_file **out);

#endif
