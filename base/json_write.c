/* json_write.c - JSON out, straight into a buffer: no tree, so a report of 26,000 nodes costs its own length. */
#include "base/checked.h"
#include "base/json.h"
#include "base/json_scan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void qx_jsonw_init(qx_jsonw *w, qx_buf *buf, bool pretty)
{
    *w = (qx_jsonw){.buf = buf, .pretty = pretty};
}

static qx_status put(qx_jsonw *w, const char *text)
{
    return qx_buf_put(w->buf, text, strlen(text));
}

static qx_status new_line(qx_jsonw *w)
{
    if (!w->pretty) return QX_OK;
    QX_TRY(put(w, "\n"));
    for (int i = 0; i < w->depth; i++) QX_TRY(put(w, "  "));
    return QX_OK;
}

/* Bytes of text that need no escape. Invalid UTF-8 stops it; DEL passes, as the standard has it. */
static size_t plain_run(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && (unsigned char)text[i] >= 0x20 && text[i] != '"' && text[i] != '\\') {
        size_t u = qx_json_utf8((const unsigned char *)text + i, n - i);
        if (u == 0) break;
        i += u;
    }
    return i;
}

static const char *short_escape(char c)
{
    switch (c) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: return NULL;
    }
}

/* A byte that is not UTF-8 becomes the character U+FFFD: the text stays valid JSON whatever a model calls its nodes. */
static qx_status put_quoted(qx_jsonw *w, const char *text)
{
    size_t n = strlen(text);
    QX_TRY(put(w, "\""));
    while (n) {
        size_t run = plain_run(text, n);
        QX_TRY(qx_buf_put(w->buf, text, run));
        text += run, n -= run;
        if (!n) break;
        const char *esc = short_escape(*text);
        if (esc) QX_TRY(put(w, esc));
        else if ((unsigned char)*text >= 0x20) QX_TRY(put(w, "\\ufffd"));
        else QX_TRY(qx_buf_printf(w->buf, "\\u%04x", (unsigned)*text));
        text++, n--;
    }
    return put(w, "\"");
}

static qx_status start(qx_jsonw *w, const char *key)
{
    uint64_t bit = 1ull << (w->depth & 63);
    if (w->has_item & bit) QX_TRY(put(w, ","));
    w->has_item |= bit;
    if (w->depth > 0) QX_TRY(new_line(w));
    if (!key) return QX_OK;
    QX_TRY(put_quoted(w, key));
    return put(w, w->pretty ? ": " : ":");
}

static qx_status begin(qx_jsonw *w, const char *key, const char *bracket)
{
    if (w->depth >= 63) QX_FAIL(w->buf->ctx, QX_E_FAIL, "JSON output nested deeper than 63 levels");
    QX_TRY(start(w, key));
    w->depth++;
    w->has_item &= ~(1ull << w->depth);
    return put(w, bracket);
}

static qx_status end(qx_jsonw *w, const char *bracket)
{
    bool filled = w->has_item >> w->depth & 1;
    w->depth--;
    if (filled) QX_TRY(new_line(w));
    QX_TRY(put(w, bracket));
    return w->depth == 0 && w->pretty ? put(w, "\n") : QX_OK;
}

qx_status qx_jsonw_begin_object(qx_jsonw *w, const char *key)
{
    return begin(w, key, "{");
}

qx_status qx_jsonw_end_object(qx_jsonw *w)
{
    return end(w, "}");
}

qx_status qx_jsonw_begin_array(qx_jsonw *w, const char *key)
{
    return begin(w, key, "[");
}

qx_status qx_jsonw_end_array(qx_jsonw *w)
{
    return end(w, "]");
}

qx_status qx_jsonw_string(qx_jsonw *w, const char *key, const char *value)
{
    if (!value) return qx_jsonw_null(w, key);
    QX_TRY(start(w, key));
    return put_quoted(w, value);
}

qx_status qx_jsonw_int(qx_jsonw *w, const char *key, int64_t value)
{
    QX_TRY(start(w, key));
    return qx_buf_printf(w->buf, "%lld", (long long)value);
}

/* The fewest digits that read back as the same number. A host program may have set a locale with a decimal comma. */
static void shortest(double value, char *text, size_t cap)
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, cap, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    for (char *c = text; *c; c++)
        if (!strchr("0123456789+-e.", *c)) *c = '.';
}

qx_status qx_jsonw_number(qx_jsonw *w, const char *key, double value)
{
    char text[40];
    if (!isfinite(value)) return qx_jsonw_null(w, key);
    shortest(value, text, sizeof text);
    QX_TRY(start(w, key));
    return put(w, text);
}

qx_status qx_jsonw_bool(qx_jsonw *w, const char *key, bool value)
{
    QX_TRY(start(w, key));
    return put(w, value ? "true" : "false");
}

qx_status qx_jsonw_null(qx_jsonw *w, const char *key)
{
    QX_TRY(start(w, key));
    return put(w, "null");
}
