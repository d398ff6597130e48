/* tok_added.c - added tokens ("<|im_end|>"): found in the text before anything else, the longest at the leftmost place. */
#include "calib/text/tok.h"
#include "calib/text/unicode.h"

#include <string.h>

struct tok_added {
    qx_ctx *ctx;
    const tok_added_token *tokens;
    int64_t n;
    int64_t *order;        /* [n] by first byte, then longest first */
    int64_t start[257];    /* of each first byte in order */
    tok_regex *word;
};

/* Insertion by counting: bucket by first byte, then each bucket by length (stable), longest first. */
static void sort_tokens(tok_added *a)
{
    int64_t at[256];
    for (int64_t i = 0; i < a->n; i++) a->start[(unsigned char)a->tokens[i].content[0] + 1]++;
    for (int b = 0; b < 256; b++) a->start[b + 1] += a->start[b], at[b] = a->start[b];
    for (int64_t i = 0; i < a->n; i++) {
        unsigned char b = (unsigned char)a->tokens[i].content[0];
        int64_t p = at[b]++;
        for (; p > a->start[b] && a->tokens[a->order[p - 1]].len < a->tokens[i].len; p--) a->order[p] = a->order[p - 1];
        a->order[p] = i;
    }
}

qx_status qx_tok_added_new(qx_ctx *ctx, const tok_added_token *tokens, int64_t n, tok_added **out)
{
    *out = NULL;
    tok_added *a;
    QX_TRY(QX_NEW(ctx, &a));
    a->ctx = ctx;
    a->tokens = tokens;
    a->n = n;
    qx_status st = QX_NEW_ARRAY(ctx, n + 1, &a->order);
    if (st == QX_OK) st = qx_tok_regex_new(ctx, "[" TOK_WORD "]", false, &a->word);
    if (st == QX_OK) sort_tokens(a);
    if (st != QX_OK) qx_tok_added_free(a);
    else *out = a;
    return st;
}

void qx_tok_added_free(tok_added *a)
{
    if (!a) return;
    qx_tok_regex_free(a->word);
    qx_free(a->ctx, a->order);
    qx_free(a->ctx, a);
}

static const tok_added_token *longest_at(const tok_added *a, const char *s, size_t left)
{
    unsigned char b = (unsigned char)s[0];
    for (int64_t i = a->start[b]; i < a->start[b + 1]; i++) {
        const tok_added_token *t = &a->tokens[a->order[i]];
        if (t->len <= left && !memcmp(s, t->content, t->len)) return t;
    }
    return NULL;
}

static size_t char_before(const char *s, size_t at)
{
    size_t from = at - 1;
    while (from > 0 && ((unsigned char)s[from] & 0xc0) == 0x80) from--;
    return from;
}

static bool is_word(tok_added *a, const char *s, size_t from, size_t to)
{
    size_t b, e;
    return qx_tok_regex_find(a->word, s + from, to - from, 0, &b, &e) == 1 && b == 0;
}

/* Neither the code point before nor the one behind belongs to a word. */
static bool stands_alone(tok_added *a, const char *s, size_t n, size_t start, size_t end)
{
    uint32_t c;
    if (start > 0 && is_word(a, s, char_before(s, start), start)) return false;
    return end == n || !is_word(a, s, end, end + qx_utf8_get(s + end, &c));
}

static size_t spaces_before(const char *s, size_t at, size_t floor)
{
    while (at > floor) {
        size_t p = char_before(s, at);
        uint32_t c;
        qx_utf8_get(s + p, &c);
        if (p < floor || !qx_unicode_is_space(c)) break;
        at = p;
    }
    return at;
}

static size_t spaces_behind(const char *s, size_t at, size_t n)
{
    while (at < n) {
        uint32_t c;
        size_t len = qx_utf8_get(s + at, &c);
        if (!qx_unicode_is_space(c)) break;
        at += len;
    }
    return at;
}

qx_status qx_tok_added_cut(tok_added *a, const char *s, size_t n, bool first, tok_list *out)
{
    size_t done = 0;
    for (size_t at = 0; at < n;) {
        const tok_added_token *t = longest_at(a, s + at, n - at);
        if (!t) {
            at++;
            continue;
        }
        size_t start = at, end = at + t->len;
        at = end;
        if (t->single_word && !stands_alone(a, s, n, start, end)) continue;
        if (t->lstrip) start = spaces_before(s, start, done);
        if (t->rstrip) end = spaces_behind(s, end, n);
        /* a token may lie in white space that the last one took */
        if (start > done) QX_TRY(qx_tok_list_add(out, s + done, start - done, -1, first && done == 0));
        QX_TRY(qx_tok_list_add(out, NULL, 0, t->id, false));
        done = end;
    }
    return qx_tok_list_add(out, s + done, n - done, -1, first && done == 0);
}
