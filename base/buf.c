/* buf.c - growable byte buffer. */
#include "base/buf.h"
#include "base/checked.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static qx_status reserve(qx_buf *b, size_t n)
{
    size_t need, cap = b->cap ? b->cap : 64;
    if (!qx_add_size(b->len, n, &need) || !qx_add_size(need, 1, &need) || need > SIZE_MAX / 2)
        QX_FAIL(b->ctx, QX_E_NOMEM, "a buffer of %zu bytes cannot grow by %zu", b->len, n);
    if (need <= b->cap) return QX_OK;
    while (cap < need) cap *= 2;
    QX_TRY(qx_regrow(b->ctx, (void **)&b->data, b->cap, cap));
    b->cap = cap;
    return QX_OK;
}

qx_status qx_buf_extend(qx_buf *b, size_t n, void **out)
{
    QX_TRY(reserve(b, n));
    *out = b->data + b->len;
    b->len += n;
    b->data[b->len] = '\0';
    return QX_OK;
}

qx_status qx_buf_put(qx_buf *b, const void *bytes, size_t n)
{
    void *to;
    QX_TRY(qx_buf_extend(b, n, &to));
    if (n) memcpy(to, bytes, n);
    return QX_OK;
}

static qx_status print_va(qx_buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    qx_status st = n < 0 ? qx_fail(b->ctx, QX_E_FAIL, "cannot format a text with '%s'", fmt) : reserve(b, (size_t)n);
    if (st == QX_OK) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return st;
}

qx_status qx_buf_printf(qx_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    qx_status st = print_va(b, fmt, ap);
    va_end(ap);
    return st;
}

void qx_buf_clear(qx_buf *b)
{
    b->len = 0;
    if (b->data) b->data[0] = '\0';
}

void qx_buf_free(qx_buf *b)
{
    qx_free(b->ctx, b->data);
    *b = (qx_buf){.ctx = b->ctx};
}
