/* unicode.c - UTF-8, NFC, lower case and classes of code points, by utf8proc. */
#include "unicode.h"

#include <string.h>
#include <utf8proc.h>

size_t sx_utf8_decode(const char *s, size_t len, uint32_t *cp)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(len - i), &c);
        cp[n++] = k > 0 ? (uint32_t)c : 0xFFFD;
        i += k > 0 ? (size_t)k : 1;
    }
    return n;
}

int sx_utf8_encode(uint32_t cp, char out[4]) { return (int)utf8proc_encode_char((utf8proc_int32_t)cp, (utf8proc_uint8_t *)out); }

static bool in_categories(uint32_t cp, utf8proc_category_t first, utf8proc_category_t last)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)cp);
    return k >= first && k <= last;
}

bool sx_is_letter(uint32_t cp) { return in_categories(cp, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LO); }
bool sx_is_number(uint32_t cp) { return in_categories(cp, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO); }
bool sx_is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == 0x85 || in_categories(cp, UTF8PROC_CATEGORY_ZS, UTF8PROC_CATEGORY_ZP);
}

int sx_lower(uint32_t cp, uint32_t out[2])
{
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
    if (cp != 0x130) return 1;
    out[0] = 'i';
    out[1] = 0x307;
    return 2;
}

/* Marks behind a letter go in order of their combining class (stable). */
static void order_marks(utf8proc_int32_t *c, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        utf8proc_int32_t v = c[i];
        int k = utf8proc_get_property(v)->combining_class;
        size_t j = i;
        for (; k && j > 0 && utf8proc_get_property(c[j - 1])->combining_class > k; j--) c[j] = c[j - 1];
        c[j] = v;
    }
}

int sx_nfc(sx_err *e, const uint32_t *in, size_t n, uint32_t **out, size_t *n_out)
{
    enum { MOST = 4 }; /* values of one code point, decomposed */
    utf8proc_int32_t *c;
    utf8proc_ssize_t m = 0;
    SX_TRY(SX_NEW(e, n * MOST + 1, &c));
    for (size_t i = 0; i < n; i++) {
        int unused = 0;
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)in[i], c + m, MOST, UTF8PROC_DECOMPOSE, &unused);
        if (k < 1 || k > MOST) c[m] = (utf8proc_int32_t)in[i], k = 1;
        m += k;
    }
    order_marks(c, (size_t)m);
    *n_out = (size_t)utf8proc_normalize_utf32(c, m, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    *out = (uint32_t *)c;
    return SX_OK;
}
