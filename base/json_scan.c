/* json_scan.c - a JSON text is checked here before cJSON builds anything: cJSON takes NaN, 01, 1e999, broken UTF-8 and a
 * thousand levels, and its memory is not counted, so the number of values must be known beforehand. */
#include "base/json_scan.h"
#include "base/ctx.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct scan {
    qx_ctx *ctx;
    const char *what, *text, *at, *end; /* NUL at end is not promised */
    size_t values;
    int depth;
} scan;

static qx_status bad(scan *s, const char *why)
{
    int64_t line = 1, column = 1;
    for (const char *p = s->text; p < s->at; p++) {
        column++;
        if (*p == '\n') line++, column = 1;
    }
    return qx_fail(s->ctx, QX_E_FORMAT, "'%s' line %lld column %lld: %s", s->what, (long long)line, (long long)column, why);
}

static int peek(const scan *s)
{
    return s->at < s->end ? (unsigned char)*s->at : -1;
}

static bool take(scan *s, char c)
{
    if (peek(s) != c) return false;
    s->at++;
    return true;
}

static void skip_space(scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t')) s->at++;
}

size_t qx_json_utf8(const unsigned char *s, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t need = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    if (need == 0 || need > n) return 0;
    uint32_t cp = need == 1 ? s[0] : s[0] & (0xFFu >> (need + 1));
    for (size_t i = 1; i < need; i++) {
        if (s[i] >> 6 != 2) return 0;
        cp = cp << 6 | (s[i] & 0x3Fu);
    }
    return cp < least[need] || cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000) ? 0 : need;
}

static bool hex4(scan *s, unsigned *out)
{
    *out = 0;
    if (s->end - s->at < 4) return false;
    for (int i = 0; i < 4; i++, s->at++) {
        char c = *s->at;
        int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (d < 0) return false;
        *out = *out << 4 | (unsigned)d;
    }
    return true;
}

static qx_status unicode_escape(scan *s)
{
    unsigned hi, lo;
    if (!hex4(s, &hi)) return bad(s, "\\u wants four hexadecimal digits");
    if (hi == 0) return bad(s, "\\u0000 in a string is not supported");
    if (hi < 0xD800 || hi > 0xDFFF) return QX_OK;
    if (hi > 0xDBFF || !take(s, '\\') || !take(s, 'u') || !hex4(s, &lo) || lo < 0xDC00 || lo > 0xDFFF)
        return bad(s, "half of a surrogate pair");
    return QX_OK;
}

static qx_status escape(scan *s)
{
    int c = peek(s);
    if (c < 0 || !strchr("\"\\/bfnrtu", c) || c == 0) return bad(s, "unknown escape in a string");
    s->at++;
    return c == 'u' ? unicode_escape(s) : QX_OK;
}

static qx_status scan_string(scan *s)
{
    if (!take(s, '"')) return bad(s, "a string is missing");
    for (;;) {
        int c = peek(s);
        if (c < 0) return bad(s, "the text ends inside a string");
        if (c < 0x20) return bad(s, "control character in a string");
        size_t n = qx_json_utf8((const unsigned char *)s->at, (size_t)(s->end - s->at));
        if (n == 0) return bad(s, "a string is not valid UTF-8");
        s->at += n;
        if (c == '"') return QX_OK;
        if (c == '\\') QX_TRY(escape(s));
    }
}

static int digits(scan *s)
{
    const char *from = s->at;
    while (peek(s) >= '0' && peek(s) <= '9') s->at++;
    return (int)(s->at - from);
}

static qx_status scan_number(scan *s)
{
    char copy[400];
    const char *from = s->at;
    take(s, '-');
    if (!take(s, '0') && digits(s) == 0) return bad(s, "a value is missing");
    if (take(s, '.') && digits(s) == 0) return bad(s, "a number ends in '.'");
    if (take(s, 'e') || take(s, 'E')) {
        if (!take(s, '+')) take(s, '-');
        if (digits(s) == 0) return bad(s, "a number without its exponent");
    }
    size_t n = (size_t)(s->at - from);
    if (n >= sizeof copy) return bad(s, "a number has more than 400 digits");
    memcpy(copy, from, n);
    copy[n] = '\0';
    return isfinite(strtod_l(copy, NULL, s->ctx->c_locale)) ? QX_OK : bad(s, "a number is too large for a double");
}

static qx_status scan_word(scan *s, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0) return bad(s, "unknown word; only true, false and null are known");
    s->at += n;
    return QX_OK;
}

static qx_status scan_value(scan *s);

static qx_status scan_member(scan *s, bool object)
{
    if (object) {
        skip_space(s);
        QX_TRY(scan_string(s));
        skip_space(s);
        if (!take(s, ':')) return bad(s, "':' is missing after a key");
    }
    return scan_value(s);
}

static qx_status scan_container(scan *s, char close)
{
    s->at++;
    if (++s->depth > QX_JSON_DEPTH) return bad(s, "nested deeper than 64 levels");
    skip_space(s);
    if (!take(s, close)) {
        do QX_TRY(scan_member(s, close == '}'));
        while (take(s, ','));
        if (!take(s, close)) return bad(s, close == '}' ? "',' or '}' is missing" : "',' or ']' is missing");
    }
    s->depth--;
    return QX_OK;
}

static qx_status scan_value(scan *s)
{
    if (++s->values > QX_JSON_VALUES) return bad(s, "more than 8388608 values");
    skip_space(s);
    int c = peek(s);
    if (c == '{') QX_TRY(scan_container(s, '}'));
    else if (c == '[') QX_TRY(scan_container(s, ']'));
    else if (c == '"') QX_TRY(scan_string(s));
    else if (c == 't') QX_TRY(scan_word(s, "true"));
    else if (c == 'f') QX_TRY(scan_word(s, "false"));
    else if (c == 'n') QX_TRY(scan_word(s, "null"));
    else if (c < 0) return bad(s, "the text ends where a value should be");
    else QX_TRY(scan_number(s));
    skip_space(s);
    return QX_OK;
}

qx_status qx_json_scan(qx_ctx *ctx, const char *text, size_t len, const char *what, size_t *values)
{
    scan s = {.ctx = ctx, .what = what, .text = text, .at = text, .end = text + len};
    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) s.at += 3; /* a byte order mark; cJSON skips it too */
    QX_TRY(scan_value(&s));
    *values = s.values;
    return s.at == s.end ? QX_OK : bad(&s, "something follows the JSON value");
}
