/* tok_list.c - pieces of text: one growing text with spans into it. */
#include "calib/text/tok.h"

qx_status qx_tok_list_add(tok_list *l, const char *s, size_t n, int32_t id, bool first)
{
    if (n == 0 && id < 0) return QX_OK;
    tok_span span = {.off = l->text.len, .len = n, .id = id, .first = first};
    if (n) QX_TRY(qx_buf_put(&l->text, s, n));
    return qx_buf_put(&l->spans, &span, sizeof span);
}

void qx_tok_list_clear(tok_list *l)
{
    qx_buf_clear(&l->text);
    qx_buf_clear(&l->spans);
}

void qx_tok_list_free(tok_list *l)
{
    qx_buf_free(&l->text);
    qx_buf_free(&l->spans);
}
