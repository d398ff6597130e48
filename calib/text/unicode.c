/* unicode.c - UTF-8, NFC and NFD, lower case. The tables are generated (scripts/make_tokenizer_unicode.py); Hangul is arithmetic. */
#include "calib/text/unicode.h"

#include "base/mem.h"

#include <string.h>

#include "calib/text/unicode_tables.inc"

#define COUNT(a) (sizeof(a) / sizeof *(a))
enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7, L_N = 19, V_N = 21, T_N = 28, S_N = L_N * V_N * T_N };

/* ---- UTF-8 ---- */

static size_t sequence_length(const unsigned char *p, size_t left)
{
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] <= 0xdf ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : 0;
    if (n == 0 || n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    bool low = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool high = (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf4 && p[1] > 0x8f);
    return low || high ? 0 : n;
}

size_t qx_utf8_valid(const char *s, size_t n)
{
    size_t at = 0;
    while (at < n) {
        size_t len = sequence_length((const unsigned char *)s + at, n - at);
        if (len == 0) break;
        at += len;
    }
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

size_t qx_utf8_encode(uint32_t c, char *out)
{
    if (c < 0x80) return out[0] = (char)c, 1;
    if (c < 0x800) return out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 63)), 2;
    if (c < 0x10000) return out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 63)), out[2] = (char)(0x80 | (c & 63)), 3;
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

static qx_status put(qx_buf *out, uint32_t c)
{
    char utf8[4];
    return qx_buf_put(out, utf8, qx_utf8_encode(c, utf8));
}

/* ---- tables ---- */

/* Index of the last row whose first column is <= c, or -1. `width` columns of 32 bits. */
static long last_row(const void *table, size_t rows, size_t width, uint32_t c)
{
    const uint32_t *t = table;
    size_t lo = 0, hi = rows;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (t[mid * width] <= c) lo = mid + 1;
        else hi = mid;
    }
    return (long)lo - 1;
}

static bool in_ranges(const uint32_t (*t)[2], size_t rows, uint32_t c)
{
    long i = last_row(t, rows, 2, c);
    return i >= 0 && c <= t[i][1];
}

bool qx_unicode_is_accent(uint32_t c) { return in_ranges(marks, COUNT(marks), c); }
bool qx_unicode_is_mark(uint32_t c) { return qx_unicode_is_accent(c) || in_ranges(other_marks, COUNT(other_marks), c); }
bool qx_unicode_is_control(uint32_t c) { return in_ranges(controls, COUNT(controls), c); }

bool qx_unicode_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

bool qx_unicode_is_cjk(uint32_t c)
{
    static const uint32_t blocks[][2] = {{0x3400, 0x4dbf}, {0x4e00, 0x9fff}, {0xf900, 0xfaff}, {0x20000, 0x2a6df}, {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f}};
    return in_ranges(blocks, COUNT(blocks), c);
}

static uint32_t class_of(uint32_t c)
{
    long i = last_row(combining, COUNT(combining), 3, c);
    return i >= 0 && c <= combining[i][1] ? combining[i][2] : 0;
}

static uint32_t compose_pair(uint32_t a, uint32_t b)
{
    if (a >= L_BASE && a < L_BASE + L_N && b >= V_BASE && b < V_BASE + V_N) return S_BASE + ((a - L_BASE) * V_N + (b - V_BASE)) * T_N;
    if (a >= S_BASE && a < S_BASE + S_N && (a - S_BASE) % T_N == 0 && b > T_BASE && b < T_BASE + T_N) return a + (b - T_BASE);
    for (long i = last_row(compositions, COUNT(compositions), 3, a); i >= 0 && compositions[i][0] == a; i--)
        if (compositions[i][1] == b) return compositions[i][2];
    return 0;
}

/* ---- normal forms ---- */

/* Appends the full canonical decomposition of c to a list of code points (in a byte buffer). Depth is at most 4 in the tables. */
static qx_status decompose(qx_buf *list, uint32_t c)
{
    uint32_t parts[3] = {c, 0, 0};
    if (c >= S_BASE && c < S_BASE + S_N) {
        uint32_t s = c - S_BASE;
        parts[0] = L_BASE + s / (V_N * T_N), parts[1] = V_BASE + s % (V_N * T_N) / T_N, parts[2] = T_BASE + s % T_N;
        return qx_buf_put(list, parts, sizeof *parts * (s % T_N ? 3 : 2));
    }
    long i = last_row(decompositions, COUNT(decompositions), 3, c);
    if (i >= 0 && decompositions[i][0] == c) {
        QX_TRY(decompose(list, decompositions[i][1]));
        if (!decompositions[i][2]) return QX_OK;
        return decompose(list, decompositions[i][2]);
    }
    return qx_buf_put(list, parts, sizeof *parts);
}

/* Combining marks c[0, n) go in order of their class (stable). Long runs only occur in hostile text: a pass per class keeps them linear. */
static qx_status sort_run(qx_ctx *ctx, uint32_t *c, size_t n)
{
    for (size_t i = 1; n <= 64 && i < n; i++) {
        uint32_t v = c[i], k = class_of(v);
        size_t j = i;
        for (; j > 0 && class_of(c[j - 1]) > k; j--) c[j] = c[j - 1];
        c[j] = v;
    }
    if (n <= 64) return QX_OK;
    uint32_t *copy;
    QX_TRY(QX_NEW_ARRAY(ctx, n, &copy));
    memcpy(copy, c, n * sizeof *c);
    size_t out = 0;
    for (uint32_t k = 1; k < 256 && out < n; k++)
        for (size_t i = 0; i < n; i++)
            if (class_of(copy[i]) == k) c[out++] = copy[i];
    qx_free(ctx, copy);
    return QX_OK;
}

static qx_status reorder(qx_ctx *ctx, uint32_t *c, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t start = i;
        while (i < n && class_of(c[i])) i++;
        if (i > start + 1) QX_TRY(sort_run(ctx, c + start, i - start));
        i += i == start || i < n;
    }
    return QX_OK;
}

static size_t compose(uint32_t *c, size_t n)
{
    size_t out = 0, starter = (size_t)-1;
    uint32_t last = 0; /* class of what was kept last behind the starter */
    for (size_t i = 0; i < n; i++) {
        uint32_t k = class_of(c[i]), joined = 0;
        bool blocked = starter != (size_t)-1 && out > starter + 1 && (last == 0 || last >= k);
        if (starter != (size_t)-1 && !blocked) joined = compose_pair(c[starter], c[i]);
        if (joined) {
            c[starter] = joined;
            continue;
        }
        if (k == 0) starter = out;
        last = k;
        c[out++] = c[i];
    }
    return out;
}

static size_t ascii_prefix(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && (unsigned char)s[i] < 0x80) i++;
    return i;
}

static qx_status normal_form(qx_ctx *ctx, const char *s, size_t n, bool composed, qx_buf *out)
{
    if (ascii_prefix(s, n) == n) return qx_buf_put(out, s, n);
    qx_buf list = QX_BUF_INIT(ctx);
    qx_status st = QX_OK;
    for (size_t at = 0; at < n && st == QX_OK;) {
        uint32_t c;
        at += qx_utf8_get(s + at, &c);
        st = decompose(&list, c);
    }
    uint32_t *c = (uint32_t *)(void *)list.data; /* blocks are 64-byte aligned */
    size_t count = list.len / sizeof *c;
    if (st == QX_OK) st = reorder(ctx, c, count);
    if (st == QX_OK && composed && count) count = compose(c, count);
    for (size_t i = 0; i < count && st == QX_OK; i++) st = put(out, c[i]);
    qx_buf_free(&list);
    return st;
}

qx_status qx_unicode_nfc(qx_ctx *ctx, const char *s, size_t n, qx_buf *out) { return normal_form(ctx, s, n, true, out); }
qx_status qx_unicode_nfd(qx_ctx *ctx, const char *s, size_t n, qx_buf *out) { return normal_form(ctx, s, n, false, out); }

static uint32_t lower_of(uint32_t c)
{
    long i = last_row(lowers, COUNT(lowers), 4, c);
    if (i < 0 || (int32_t)c > lowers[i][1] || ((int32_t)c - lowers[i][0]) % lowers[i][2]) return c;
    return (uint32_t)((int32_t)c + lowers[i][3]);
}

qx_status qx_unicode_lower(const char *s, size_t n, qx_buf *out)
{
    for (size_t at = 0; at < n;) {
        uint32_t c;
        at += qx_utf8_get(s + at, &c);
        if (c == 0x130) QX_TRY(qx_buf_put(out, "i\xcc\x87", 3)); /* the only one that grows */
        else QX_TRY(put(out, lower_of(c)));
    }
    return QX_OK;
}
