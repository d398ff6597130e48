/* tok_charsmap.c - the "Precompiled" normalizer of SentencePiece vocabularies (T5, XLM-R, ...): a double-array trie from byte
 * strings to places in a block of NUL-terminated replacements. In the file: base64 of { uint32 bytes of the trie, the trie's
 * uint32 units, the replacements }, little endian. A unit holds a label (the byte that leads to it), the offset of its children
 * and whether a value ends there, as in darts-clone. */
#include "calib/text/tok.h"

#include "base/mem.h"

#include <string.h>

struct tok_charsmap {
    qx_ctx *ctx;
    uint8_t *bytes;         /* the decoded block */
    size_t n_units;
    const char *texts;      /* [n_texts], ends with a NUL */
    size_t n_texts;
};

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* out holds 3 * len / 4 bytes; returns how many were written, or -1. */
static int64_t base64_decode(const char *s, size_t len, uint8_t *out)
{
    uint32_t bits = 0;
    int held = 0;
    int64_t n = 0;
    while (len && s[len - 1] == '=') len--;
    for (size_t i = 0; i < len; i++) {
        int d = base64_digit(s[i]);
        if (d < 0) return -1;
        bits = bits << 6 | (uint32_t)d;
        if ((held += 6) < 8) continue;
        held -= 8;
        out[n++] = (uint8_t)(bits >> held);
    }
    return n;
}

static uint32_t word(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }
static uint32_t unit(const tok_charsmap *m, size_t i) { return word(m->bytes + 4 + 4 * i); }

static size_t children(uint32_t u) { return (size_t)(u >> 10) << ((u & 1u << 9) >> 6); }

void qx_tok_charsmap_free(tok_charsmap *m)
{
    if (!m) return;
    qx_free(m->ctx, m->bytes);
    qx_free(m->ctx, m);
}

static qx_status read_block(tok_charsmap *m, const char *base64)
{
    size_t len = strlen(base64);
    if (!len) return QX_OK;
    QX_TRY(QX_NEW_ARRAY(m->ctx, len + 5, &m->bytes)); /* the length's four, and a NUL behind the texts */
    int64_t n = base64_decode(base64, len, m->bytes);
    if (n < 4) QX_FAIL(m->ctx, QX_E_FORMAT, "tokenizer: precompiled_charsmap is not base64 of a map");
    uint32_t trie = word(m->bytes);
    if (trie % 4 || trie < 4 || (int64_t)trie > n - 4)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tokenizer: precompiled_charsmap: a trie of %u bytes in a block of %lld", trie, (long long)n);
    m->n_units = trie / 4;
    m->texts = (const char *)m->bytes + 4 + trie;
    m->n_texts = (size_t)n - 4 - trie + 1;
    m->bytes[n] = 0;
    if (qx_utf8_valid(m->texts, m->n_texts) < m->n_texts)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tokenizer: precompiled_charsmap: its replacements are not UTF-8");
    return QX_OK;
}

qx_status qx_tok_charsmap_new(qx_ctx *ctx, const char *base64, tok_charsmap **out)
{
    tok_charsmap *m;
    QX_TRY(QX_NEW(ctx, &m));
    m->ctx = ctx;
    qx_status st = read_block(m, base64);
    if (st != QX_OK) qx_tok_charsmap_free(m);
    else *out = m;
    return st;
}

/* What the shortest key that begins s[0, n) becomes; NULL: no key does. */
static const char *replacement(const tok_charsmap *m, const char *s, size_t n)
{
    if (!m->n_units) return NULL;
    size_t at = children(unit(m, 0));
    for (size_t i = 0; i < n && s[i]; i++) {
        at ^= (unsigned char)s[i];
        if (at >= m->n_units) return NULL;
        uint32_t u = unit(m, at);
        if ((u & (1u << 31 | 0xff)) != (unsigned char)s[i]) return NULL;
        at ^= children(u);
        if (!(u >> 8 & 1)) continue;
        size_t text = at < m->n_units ? unit(m, at) & 0x7fffffff : m->n_texts;
        bool starts = text < m->n_texts && ((unsigned char)m->texts[text] & 0xc0) != 0x80; /* not within a character */
        return starts ? m->texts + text : NULL;
    }
    return NULL;
}

/* SentencePiece's rule as the `tokenizers` package has it: a grapheme of less than six bytes is looked up whole, then each of its
 * code points. */
static qx_status put_grapheme(const tok_charsmap *m, const char *s, size_t n, qx_buf *out)
{
    const char *whole = n < 6 ? replacement(m, s, n) : NULL;
    if (whole) return qx_buf_put(out, whole, strlen(whole));
    for (size_t at = 0; at < n;) {
        uint32_t c;
        size_t len = qx_utf8_get(s + at, &c);
        const char *one = replacement(m, s + at, len);
        QX_TRY(one ? qx_buf_put(out, one, strlen(one)) : qx_buf_put(out, s + at, len));
        at += len;
    }
    return QX_OK;
}

qx_status qx_tok_charsmap_apply(const tok_charsmap *m, const char *text, size_t n, qx_buf *out)
{
    int state = 0;
    for (size_t start = 0, at = 0; at < n;) {
        uint32_t c, next;
        at += qx_utf8_get(text + at, &c);
        if (at < n) {
            qx_utf8_get(text + at, &next);
            if (!qx_unicode_grapheme_ends(c, next, &state)) continue;
        }
        QX_TRY(put_grapheme(m, text + start, at - start, out));
        start = at;
    }
    return QX_OK;
}
