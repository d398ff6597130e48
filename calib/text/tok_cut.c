/* tok_cut.c - pre-tokenizers: how a text is cut into words before the vocabulary sees it. All but two are one regular expression
 * and a rule what becomes of its matches; ByteLevel and Metaspace also rewrite the text. */
#include "calib/text/tok.h"
#include "calib/text/unicode.h"

#include <string.h>

#define GPT2 "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define PUNCTUATION "[!-/:-@\\[-`{-~\\p{P}]"

/* ---- byte-level alphabet: printable bytes stand for themselves, the other 68 for U+0100 upwards ---- */

static bool byte_is_plain(unsigned b)
{
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

uint32_t qx_tok_byte_char(uint8_t b)
{
    if (byte_is_plain(b)) return b;
    return b <= ' ' ? 0x100u + b : b <= 0xa0 ? 0x121u + (b - 0x7f) : 0x143u;
}

int qx_tok_char_byte(uint32_t c)
{
    if (c < 0x100) return byte_is_plain(c) ? (int)c : -1;
    if (c <= 0x120) return (int)(c - 0x100);
    if (c <= 0x142) return (int)(c - 0x121 + 0x7f);
    return c == 0x143 ? 0xad : -1;
}

/* ---- cutting at a pattern ---- */

typedef struct cutter { tok_behavior behavior; bool have, was_match; size_t off, end; const char *s; bool first; tok_list *out; } cutter;

static qx_status flush(cutter *c)
{
    if (!c->have) return QX_OK;
    c->have = false;
    return qx_tok_list_add(c->out, c->s + c->off, c->end - c->off, -1, c->first && c->off == 0);
}

/* Whether the piece [.., end) that is pending takes in the next one. */
static bool joins(const cutter *c, bool is_match)
{
    switch (c->behavior) {
    case TOK_CONTIGUOUS: return c->was_match == is_match;
    case TOK_MERGED_PREVIOUS: return is_match && !c->was_match;
    case TOK_MERGED_NEXT: return c->was_match && !is_match;
    default: return false;
    }
}

static qx_status piece(cutter *c, size_t from, size_t to, bool is_match)
{
    if (from == to) return QX_OK;
    if (is_match && c->behavior == TOK_REMOVED) return flush(c);
    if (!c->have || !joins(c, is_match)) {
        QX_TRY(flush(c));
        c->off = from;
        c->have = true;
    }
    c->end = to;
    c->was_match = is_match;
    return QX_OK;
}

static qx_status cut_pattern(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, bool first, tok_list *out)
{
    (void)ctx;
    cutter c = {.behavior = s->behavior, .s = text, .first = first, .out = out};
    size_t done = 0, from = 0;
    while (from <= n) {
        size_t start, end;
        int found = qx_tok_regex_find(s->regex, text, n, from, &start, &end);
        if (found < 0) return QX_E_BUDGET;
        if (!found) break;
        QX_TRY(piece(&c, done, start, s->invert));
        QX_TRY(piece(&c, start, end, !s->invert));
        done = end;
        from = end;
        if (start == end) { /* an empty match: go on behind the next code point */
            uint32_t ch;
            if (end >= n) break;
            from += qx_utf8_get(text + end, &ch);
        }
    }
    QX_TRY(piece(&c, done, n, s->invert));
    return flush(&c);
}

/* ---- ByteLevel ---- */

static qx_status put_mapped(qx_buf *mapped, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char utf8[4];
        QX_TRY(qx_buf_put(mapped, utf8, qx_utf8_encode(qx_tok_byte_char((uint8_t)s[i]), utf8)));
    }
    return QX_OK;
}

static qx_status add_mapped(qx_ctx *ctx, const tok_list *in, tok_list *out)
{
    qx_buf mapped = QX_BUF_INIT(ctx);
    qx_status st = QX_OK;
    for (size_t i = 0; i < tok_count(in) && st == QX_OK; i++) {
        const tok_span *p = tok_at(in, i);
        qx_buf_clear(&mapped);
        st = put_mapped(&mapped, in->text.data + p->off, p->len);
        if (st == QX_OK) st = qx_tok_list_add(out, mapped.data, mapped.len, -1, p->first);
    }
    qx_buf_free(&mapped);
    return st;
}

static qx_status cut_bytes(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, bool first, tok_list *out)
{
    qx_buf spaced = QX_BUF_INIT(ctx);
    tok_list words = {QX_BUF_INIT(ctx), QX_BUF_INIT(ctx)};
    qx_status st = QX_OK;
    if (s->prefix_space && n && text[0] != ' ') {
        st = qx_buf_put(&spaced, " ", 1);
        if (st == QX_OK) st = qx_buf_put(&spaced, text, n);
        text = spaced.data, n = spaced.len;
    }
    if (st == QX_OK) st = s->use_regex ? cut_pattern(ctx, s, text, n, first, &words) : qx_tok_list_add(&words, text, n, -1, first);
    if (st == QX_OK) st = add_mapped(ctx, &words, out);
    qx_tok_list_free(&words);
    qx_buf_free(&spaced);
    return st;
}

/* ---- Metaspace ---- */

static qx_status cut_metaspace(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, bool first, tok_list *out)
{
    qx_buf b = QX_BUF_INIT(ctx);
    qx_status st = QX_OK;
    bool has = n >= s->content_len && !memcmp(text, s->content, s->content_len);
    bool starts = has || (n && text[0] == ' ');
    if (s->prefix_space && !starts && (first || !s->first_only)) st = qx_buf_put(&b, s->content, s->content_len);
    for (size_t i = 0; i < n && st == QX_OK; i++)
        st = text[i] == ' ' ? qx_buf_put(&b, s->content, s->content_len) : qx_buf_put(&b, text + i, 1);
    if (st == QX_OK && b.len)
        st = s->split ? cut_pattern(ctx, s, b.data, b.len, first, out) : qx_tok_list_add(out, b.data, b.len, -1, first);
    qx_buf_free(&b);
    return st;
}

/* ---- from JSON ---- */

typedef struct reader { qx_ctx *ctx; qx_arena *arena; tok_step **tail; int depth; } reader;

static qx_status add_step(reader *r, tok_cut_fn *cut, const char *pattern, bool literal, tok_behavior behavior, tok_step **out)
{
    tok_step *s = qx_arena_alloc(r->arena, sizeof *s);
    if (!s) return QX_E_NOMEM;
    s->cut = cut;
    s->behavior = behavior;
    *r->tail = s; /* linked first, so that it is freed whatever follows */
    r->tail = &s->next;
    *out = s;
    return pattern ? qx_tok_regex_new(r->ctx, pattern, literal, &s->regex) : QX_OK;
}

static qx_status behavior_of(reader *r, const qx_json *j, tok_behavior fallback, tok_behavior *out)
{
    static const char *const names[] = {[TOK_REMOVED] = "Removed", [TOK_ISOLATED] = "Isolated",
                                        [TOK_MERGED_PREVIOUS] = "MergedWithPrevious", [TOK_MERGED_NEXT] = "MergedWithNext",
                                        [TOK_CONTIGUOUS] = "Contiguous"};
    *out = fallback;
    const char *text = qx_json_string(qx_json_get(j, "behavior"), NULL);
    if (!text) return QX_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(text, names[i])) return *out = (tok_behavior)i, QX_OK;
    QX_FAIL(r->ctx, QX_E_UNSUPPORTED, "tokenizer: split behavior '%s' is unknown", text);
}

static qx_status read_split(reader *r, const qx_json *j)
{
    const qx_json *p = qx_json_get(j, "pattern");
    const char *regex = qx_json_string(qx_json_get(p, "Regex"), NULL),
        *text = regex ? regex : qx_json_string(qx_json_get(p, "String"), NULL);
    if (!text) QX_FAIL(r->ctx, QX_E_FORMAT, "tokenizer: Split without a Regex or String pattern");
    tok_behavior b;
    tok_step *s;
    QX_TRY(behavior_of(r, j, TOK_ISOLATED, &b));
    QX_TRY(add_step(r, cut_pattern, text, !regex, b, &s));
    s->invert = qx_json_bool(qx_json_get(j, "invert"), false);
    return QX_OK;
}

static qx_status read_bytes(reader *r, const qx_json *j)
{
    tok_step *s;
    QX_TRY(add_step(r, cut_bytes, GPT2, false, TOK_ISOLATED, &s));
    s->prefix_space = qx_json_bool(qx_json_get(j, "add_prefix_space"), true);
    s->use_regex = qx_json_bool(qx_json_get(j, "use_regex"), true);
    return QX_OK;
}

static qx_status read_metaspace(reader *r, const qx_json *j)
{
    const char *mark = qx_json_string(qx_json_get(j, "replacement"), "\xe2\x96\x81");
    const char *scheme = qx_json_string(qx_json_get(j, "prepend_scheme"), NULL);
    bool prefix = scheme ? strcmp(scheme, "never") != 0 : qx_json_bool(qx_json_get(j, "add_prefix_space"), true);
    tok_step *s;
    QX_TRY(add_step(r, cut_metaspace, mark, true, TOK_MERGED_NEXT, &s));
    s->prefix_space = prefix;
    s->first_only = scheme && !strcmp(scheme, "first");
    s->split = qx_json_bool(qx_json_get(j, "split"), true);
    s->content = qx_arena_strdup(r->arena, mark);
    s->content_len = strlen(mark);
    return s->content ? QX_OK : QX_E_NOMEM;
}

static qx_status read_digits(reader *r, const qx_json *j)
{
    tok_step *s;
    return add_step(r, cut_pattern, "\\p{N}", false, qx_json_bool(qx_json_get(j, "individual_digits"), false) ? TOK_ISOLATED
                    : TOK_CONTIGUOUS, &s);
}

static qx_status read_punctuation(reader *r, const qx_json *j)
{
    tok_behavior b;
    tok_step *s;
    QX_TRY(behavior_of(r, j, TOK_ISOLATED, &b));
    return add_step(r, cut_pattern, PUNCTUATION, false, b, &s);
}

static qx_status read_whitespace(reader *r, const qx_json *j)
{
    (void)j;
    tok_step *s;
    QX_TRY(add_step(r, cut_pattern, "[" TOK_WORD "]+|[^" TOK_WORD "\\s]+", false, TOK_REMOVED, &s));
    s->invert = true;
    return QX_OK;
}

static qx_status read_whitespace_split(reader *r, const qx_json *j)
{
    (void)j;
    tok_step *s;
    return add_step(r, cut_pattern, "\\s", false, TOK_REMOVED, &s);
}

static qx_status read_bert(reader *r, const qx_json *j)
{
    tok_step *s;
    QX_TRY(read_whitespace_split(r, j));
    return add_step(r, cut_pattern, PUNCTUATION, false, TOK_ISOLATED, &s);
}

static qx_status read_delimiter(reader *r, const qx_json *j)
{
    tok_step *s;
    return add_step(r, cut_pattern, qx_json_string(qx_json_get(j, "delimiter"), ""), true, TOK_REMOVED, &s);
}

static qx_status read_sequence(reader *r, const qx_json *j);
typedef struct kind { const char *type; qx_status (*read)(reader *r, const qx_json *j); } kind;
static const kind kinds[] = {
    {"ByteLevel", read_bytes}, {"Split", read_split}, {"Sequence", read_sequence}, {"Digits", read_digits},
    {"Punctuation", read_punctuation}, {"Metaspace", read_metaspace},
    {"Whitespace", read_whitespace}, {"WhitespaceSplit", read_whitespace_split}, {"BertPreTokenizer", read_bert},
    {"CharDelimiterSplit", read_delimiter},
};

static qx_status read_one(reader *r, const qx_json *j)
{
    const char *type = qx_json_string(qx_json_get(j, "type"), NULL);
    if (!type) QX_FAIL(r->ctx, QX_E_FORMAT, "tokenizer: pre_tokenizer without a type");
    if (r->depth > 8) QX_FAIL(r->ctx, QX_E_FORMAT, "tokenizer: pre_tokenizer nested deeper than 8");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(type, kinds[i].type)) return kinds[i].read(r, j);
    QX_FAIL(r->ctx, QX_E_UNSUPPORTED, "tokenizer: pre_tokenizer '%s' is not supported", type);
}

static qx_status read_sequence(reader *r, const qx_json *j)
{
    const qx_json *list = qx_json_get(j, "pretokenizers");
    r->depth++;
    for (int64_t i = 0; i < qx_json_count(list); i++) QX_TRY(read_one(r, qx_json_at(list, i)));
    r->depth--;
    return QX_OK;
}

qx_status qx_tok_pretokenizer_parse(qx_ctx *ctx, qx_arena *a, const qx_json *j, tok_step **out)
{
    *out = NULL;
    if (!j || qx_json_type(j) == QX_JSON_NULL) return QX_OK;
    reader r = {ctx, a, out, 0};
    return read_one(&r, j);
}

qx_status qx_tok_pretokenize(qx_ctx *ctx, const tok_step *steps, const char *text, size_t n, bool first, tok_list *words, tok_list *scratch)
{
    qx_tok_list_clear(words);
    if (!steps) return qx_tok_list_add(words, text, n, -1, first);
    QX_TRY(steps->cut(ctx, steps, text, n, first, words));
    for (const tok_step *s = steps->next; s; s = s->next) {
        qx_tok_list_clear(scratch);
        for (size_t i = 0; i < tok_count(words); i++) {
            const tok_span *p = tok_at(words, i);
            QX_TRY(s->cut(ctx, s, words->text.data + p->off, p->len, p->first, scratch));
        }
        tok_list swap = *words;
        *words = *scratch;
        *scratch = swap;
    }
    return QX_OK;
}
