/* unicode.c - UTF-8, normal forms, lower case and classes of code points, by utf8proc's tables. */
#include "calib/text/unicode.h"

#include "base/mem.h"

#include <string.h>
#include <utf8proc.h>

/* ---- UTF-8 ---- */

size_t qx_utf8_valid(const char *s, size_t n)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t len;
    size_t at = 0;
    while (at < n && (len = utf8proc_iterate((const utf8proc_uint8_t *)s + at, (utf8proc_ssize_t)(n - at), &c)) > 0) at += (size_t)len;
    return at;
}

size_t qx_utf8_get(const char *s, uint32_t *c)
{
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) return *c = p[0], 1;
    if (p[0] < 0xe0) return *c = (uint32_t)(p[0] & 31) << 6 | (p[1] & 63), 2;
    if (p[0] < 0xf0) return *c = (uint32_t)(p[0] & 15) << 12 | (uint32_t)(p[1] & 63) << 6 | (p[2] & 63), 3;
    return *c = (uint32_t)(p[0] & 7) << 18 | (uint32_t)(p[1] & 63) << 12 | (uint32_t)(p[2] & 63) << 6 | (p[3] & 63), 4;
}

size_t qx_utf8_encode(uint32_t c, char *out) { return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out); }

static qx_status put(qx_buf *out, uint32_t c)
{
    char utf8[4];
    return qx_buf_put(out, utf8, qx_utf8_encode(c, utf8));
}

/* ---- classes ---- */

bool qx_unicode_is_accent(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_MN; }

bool qx_unicode_is_mark(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME;
}

bool qx_unicode_is_control(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    if (c == '\t' || c == '\n' || c == '\r') return false;
    return k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CN || k == UTF8PROC_CATEGORY_CO;
}

bool qx_unicode_is_space(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (c >= 9 && c <= 13) || c == 0x85 || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

bool qx_unicode_is_cjk(uint32_t c)
{
    static const uint32_t blocks[][2] = {{0x3400, 0x4dbf}, {0x4e00, 0x9fff}, {0xf900, 0xfaff}, {0x20000, 0x2a6df}, {0x2a700, 0x2b73f},
                                         {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (c >= blocks[i][0] && c <= blocks[i][1]) return true;
    return false;
}

bool qx_unicode_grapheme_ends(uint32_t a, uint32_t b, int *state)
{
    return utf8proc_grapheme_break_stateful((utf8proc_int32_t)a, (utf8proc_int32_t)b, state);
}

/* ---- normal forms ---- */

static int class_of(int32_t c) { return utf8proc_get_property(c)->combining_class; }

/* Combining marks c[0, n) go in order of their class (stable). Long runs only occur in hostile text: a pass per class keeps them linear,
 * which is why this is not left to utf8proc_decompose. */
static qx_status sort_run(qx_ctx *ctx, int32_t *c, size_t n)
{
    for (size_t i = 1; n <= 64 && i < n; i++) {
        int32_t v = c[i];
        int k = class_of(v);
        size_t j = i;
        for (; j > 0 && class_of(c[j - 1]) > k; j--) c[j] = c[j - 1];
        c[j] = v;
    }
    if (n <= 64) return QX_OK;
    int32_t *copy;
    QX_TRY(QX_NEW_ARRAY(ctx, n, &copy));
    memcpy(copy, c, n * sizeof *c);
    size_t out = 0;
    for (int k = 1; k < 256 && out < n; k++)
        for (size_t i = 0; i < n; i++)
            if (class_of(copy[i]) == k) c[out++] = copy[i];
    qx_free(ctx, copy);
    return QX_OK;
}

static qx_status order_marks(qx_ctx *ctx, int32_t *c, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t start = i;
        while (i < n && class_of(c[i])) i++;
        if (i > start + 1) QX_TRY(sort_run(ctx, c + start, i - start));
        i += i == start || i < n;
    }
    return QX_OK;
}

/* Appends the decomposition of each code point to a list of int32 in a byte buffer. */
static qx_status decompose(const char *s, size_t n, utf8proc_option_t options, qx_buf *list)
{
    for (size_t at = 0; at < n;) {
        uint32_t c;
        int32_t parts[32]; /* 18 at most: U+FDFA */
        int unused = 0;
        at += qx_utf8_get(s + at, &c);
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)c, parts, 32, options, &unused);
        QX_TRY(k > 0 && k <= 32 ? qx_buf_put(list, parts, (size_t)k * sizeof *parts) : qx_buf_put(list, &c, sizeof c));
    }
    return QX_OK;
}

static bool ascii(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] >= 0x80) return false;
    return true;
}

qx_status qx_unicode_normal(qx_ctx *ctx, qx_normal_form form, const char *s, size_t n, qx_buf *out)
{
    if (ascii(s, n)) return qx_buf_put(out, s, n);
    bool compat = form == QX_NFKC || form == QX_NFKD, composed = form == QX_NFC || form == QX_NFKC;
    qx_buf list = QX_BUF_INIT(ctx);
    qx_status st = decompose(s, n, UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0), &list);
    int32_t *c = (int32_t *)(void *)list.data; /* blocks are 64-byte aligned */
    size_t count = list.len / sizeof *c;
    if (st == QX_OK) st = order_marks(ctx, c, count);
    if (st == QX_OK && composed) count = (size_t)utf8proc_normalize_utf32(c, (utf8proc_ssize_t)count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (size_t i = 0; i < count && st == QX_OK; i++) st = put(out, (uint32_t)c[i]);
    qx_buf_free(&list);
    return st;
}

qx_status qx_unicode_lower(const char *s, size_t n, qx_buf *out)
{
    for (size_t at = 0; at < n;) {
        uint32_t c;
        at += qx_utf8_get(s + at, &c);
        if (c == 0x130) QX_TRY(qx_buf_put(out, "i\xcc\x87", 3)); /* the only one that grows */
        else QX_TRY(put(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c)));
    }
    return QX_OK;
}
