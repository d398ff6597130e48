/* buf.h - growable byte buffer; always keeps a NUL behind the last byte, so data can be read as a string. */
#ifndef QX_BASE_BUF_H
#define QX_BASE_BUF_H

#include "base/status.h"

typedef struct qx_buf {
    qx_ctx *ctx;
    char *data; /* NULL while empty */
    size_t len, cap;
} qx_buf;

#define QX_BUF_INIT(c) ((qx_buf){.ctx = (c)})
qx_status qx_buf_put(qx_buf *b, const void *bytes, size_t n);
qx_status qx_buf_printf(qx_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Makes room for n more bytes, adds them to len and returns where they start in *out. */
qx_status qx_buf_extend(qx_buf *b, size_t n, void **out);
void qx_buf_clear(qx_buf *b);
void qx_buf_free(qx_buf *b);

#endif
