/* unicode.c - UTF-8, NFC (Unicode Standard Annex 15, with Hangul by arithmetic), lower case and classes from generated tables. */
#include "unicode.h"

#include <string.h>

#include "unicode_tables.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
enum { S_BASE = 0xAC00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11A7, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = L_COUNT * V_COUNT * T_COUNT };

static int utf8_length(unsigned char c)
{
    if (c < 0x80) return 1;
    if (c >= 0xC2 && c <= 0xDF) return 2;
    if (c >= 0xE0 && c <= 0xEF) return 3;
    return c >= 0xF0 && c <= 0xF4 ? 4 : 0;
}

size_t sx_utf8_decode(const char *s, size_t len, uint32_t *cp)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)s[i];
        int k = utf8_length(c);
        uint32_t v = k == 1 ? c : k ? c & (0xFFu >> (k + 1)) : 0;
        bool ok = k > 0 && i + (size_t)k <= len;
        for (int j = 1; ok && j < k; j++) {
            ok = ((unsigned char)s[i + (size_t)j] & 0xC0) == 0x80;
            v = v << 6 | ((unsigned char)s[i + (size_t)j] & 0x3F);
        }
        ok = ok && v >= least[k] && v <= 0x10FFFF && !(v >= 0xD800 && v < 0xE000);
        cp[n++] = ok ? v : 0xFFFD;
        i += ok ? (size_t)k : 1;
    }
    return n;
}

int sx_utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int k = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int j = k - 1; j > 0; j--, cp >>= 6) out[j] = (char)(0x80 | (cp & 0x3F));
    out[0] = (char)((0xF00 >> k) | cp);
    return k;
}

static bool in_ranges(const uni_range *r, size_t n, uint32_t cp)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (cp > r[mid].last) lo = mid + 1;
        else hi = mid;
    }
    return lo < n && cp >= r[lo].first;
}

bool sx_is_letter(uint32_t cp) { return in_ranges(uni_letters, COUNT(uni_letters), cp); }
bool sx_is_number(uint32_t cp) { return in_ranges(uni_numbers, COUNT(uni_numbers), cp); }
bool sx_is_space(uint32_t cp) { return in_ranges(uni_spaces, COUNT(uni_spaces), cp); }

int sx_lower(uint32_t cp, uint32_t out[2])
{
    out[0] = cp;
    if (cp == 0x130) {
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    size_t lo = 0, hi = COUNT(uni_lower);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (cp >= uni_lower[mid].first) lo = mid + 1;
        else hi = mid;
    }
    for (size_t i = lo; i > 0 && i + 3 > lo; i--) { /* runs of stride 2 may interleave with their neighbours */
        const uni_run *r = &uni_lower[i - 1];
        if (cp < r->first || cp > r->last || (cp - r->first) % (uint32_t)r->stride) continue;
        out[0] = (uint32_t)((int32_t)cp + r->delta);
        break;
    }
    return 1;
}

static uint8_t combining(uint32_t cp)
{
    for (size_t lo = 0, hi = COUNT(uni_combining); lo < hi;) {
        size_t mid = (lo + hi) / 2;
        if (cp > uni_combining[mid].last) lo = mid + 1;
        else if (cp < uni_combining[mid].first) hi = mid;
        else return uni_combining[mid].ccc;
    }
    return 0;
}

static const uni_pair *decomposition(uint32_t cp)
{
    for (size_t lo = 0, hi = COUNT(uni_decompositions); lo < hi;) {
        size_t mid = (lo + hi) / 2;
        if (cp > uni_decompositions[mid].cp) lo = mid + 1;
        else if (cp < uni_decompositions[mid].cp) hi = mid;
        else return &uni_decompositions[mid];
    }
    return NULL;
}

/* Full canonical decomposition of one code point: at most 4 values in Unicode; the depth of pairs is at most 4. */
static size_t decompose(uint32_t cp, uint32_t out[4])
{
    if (cp >= S_BASE && cp < S_BASE + S_COUNT) {
        uint32_t s = cp - S_BASE, t = s % T_COUNT;
        out[0] = L_BASE + s / (V_COUNT * T_COUNT);
        out[1] = V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT;
        out[2] = T_BASE + t;
        return t ? 3 : 2;
    }
    uint32_t tail[4];
    size_t n_tail = 0, n = 0;
    for (const uni_pair *p; n_tail < 3 && (p = decomposition(cp)); cp = p->a)
        if (p->b) tail[n_tail++] = p->b;
    out[n++] = cp;
    while (n_tail) out[n++] = tail[--n_tail];
    return n;
}

/* 0 when the two do not compose. */
static uint32_t compose(uint32_t a, uint32_t b)
{
    if (a >= L_BASE && a < L_BASE + L_COUNT && b >= V_BASE && b < V_BASE + V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a >= S_BASE && a < S_BASE + S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE && b < T_BASE + T_COUNT) return a + (b - T_BASE);
    for (size_t i = 0; i < COUNT(uni_decompositions); i++) {
        const uni_pair *p = &uni_decompositions[i];
        if (p->a == a && p->b == b && p->composes) return p->cp;
    }
    return 0;
}

static void order_marks(uint32_t *c, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        uint8_t k = combining(c[i]);
        uint32_t v = c[i];
        size_t j = i;
        for (; k && j > 0 && combining(c[j - 1]) > k; j--) c[j] = c[j - 1];
        c[j] = v;
    }
}

static size_t recompose(uint32_t *c, size_t n)
{
    size_t out = 0, starter = SIZE_MAX;
    int last = -1; /* class of the mark kept last behind the starter; -1: none */
    for (size_t i = 0; i < n; i++) {
        int k = combining(c[i]);
        uint32_t both = starter != SIZE_MAX && (last < k || (last == -1 && k == 0)) ? compose(c[starter], c[i]) : 0;
        if (both) {
            c[starter] = both;
            continue;
        }
        if (k == 0) starter = out;
        last = k == 0 ? -1 : k;
        c[out++] = c[i];
    }
    return out;
}

int sx_nfc(sx_err *e, const uint32_t *in, size_t n, uint32_t **out, size_t *n_out)
{
    uint32_t *c;
    SX_TRY(SX_NEW(e, n * 4, &c));
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        if (in[i] < 0xC0) c[m++] = in[i];
        else m += decompose(in[i], c + m);
    }
    order_marks(c, m);
    *n_out = recompose(c, m);
    *out = c;
    return SX_OK;
}
