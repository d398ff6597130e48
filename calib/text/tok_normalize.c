/* qx_tok_normalize.c - normalizers of tokenizer.json: each maps a text to a text. Precompiled (SentencePiece's own
 * map) is in tok_charsmap.c. */
#include "calib/text/tok.h"
#include "calib/text/unicode.h"

#include <string.h>

static qx_status norm_form(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, qx_buf *out)
{
    return qx_unicode_normal(ctx, s->form, text, n, out);
}

static qx_status norm_lower(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, qx_buf *out)
{
    (void)ctx, (void)s;
    return qx_unicode_lower(text, n, out);
}

static qx_status norm_prepend(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, qx_buf *out)
{
    (void)ctx;
    if (n) QX_TRY(qx_buf_put(out, s->content, s->content_len));
    return qx_buf_put(out, text, n);
}

static qx_status norm_bytes(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, qx_buf *out)
{
    (void)ctx, (void)s;
    for (size_t i = 0; i < n; i++) {
        char utf8[4];
        QX_TRY(qx_buf_put(out, utf8, qx_utf8_encode(qx_tok_byte_char((uint8_t)text[i]), utf8)));
    }
    return QX_OK;
}

static qx_status norm_replace(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, qx_buf *out)
{
    (void)ctx;
    size_t done = 0, start, end;
    for (int found; done < n && (found = qx_tok_regex_find(s->regex, text, n, done, &start, &end)) != 0; done = end) {
        if (found < 0) return QX_E_BUDGET;
        if (start == end) break; /* a pattern that matches nothing replaces nothing */
        QX_TRY(qx_buf_put(out, text + done, start - done));
        if (s->content_len) QX_TRY(qx_buf_put(out, s->content, s->content_len));
    }
    return qx_buf_put(out, text + done, n - done);
}

static qx_status norm_strip(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, qx_buf *out)
{
    (void)ctx;
    size_t from = n, to = 0; /* of what is not white space */
    for (size_t at = 0; at < n;) {
        uint32_t c;
        size_t len = qx_utf8_get(text + at, &c);
        bool space = qx_unicode_is_space(c);
        if (!space && from == n) from = at;
        at += len;
        if (!space) to = at;
    }
    if (from == n && (s->left || s->right)) return QX_OK; /* nothing but white space */
    if (!s->left) from = 0;
    if (!s->right) to = n;
    return qx_buf_put(out, text + from, to - from);
}

static qx_status norm_precompiled(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, qx_buf *out)
{
    return (void)ctx, qx_tok_charsmap_apply(s->charsmap, text, n, out);
}

typedef bool char_class(uint32_t c);

static qx_status drop_class(char_class *drop, const char *text, size_t n, qx_buf *out)
{
    for (size_t at = 0; at < n;) {
        uint32_t c;
        size_t len = qx_utf8_get(text + at, &c);
        if (!drop(c)) QX_TRY(qx_buf_put(out, text + at, len));
        at += len;
    }
    return QX_OK;
}

static qx_status norm_strip_accents(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, qx_buf *out)
{
    (void)ctx, (void)s;
    return drop_class(qx_unicode_is_mark, text, n, out);
}

/* ---- BertNormalizer: clean, CJK spacing, accents, lower case ---- */

static qx_status bert_clean(const tok_step *s, const char *text, size_t n, qx_buf *out)
{
    for (size_t at = 0; at < n;) {
        uint32_t c;
        size_t len = qx_utf8_get(text + at, &c);
        bool drop = s->clean && (c == 0 || c == 0xfffd || qx_unicode_is_control(c));
        bool set_apart = s->cjk && qx_unicode_is_cjk(c);
        if (set_apart) QX_TRY(qx_buf_put(out, " ", 1));
        if (!drop) QX_TRY(s->clean && qx_unicode_is_space(c) ? qx_buf_put(out, " ", 1) : qx_buf_put(out, text + at, len));
        if (set_apart) QX_TRY(qx_buf_put(out, " ", 1));
        at += len;
    }
    return QX_OK;
}

static qx_status norm_bert(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, qx_buf *out)
{
    qx_buf clean = QX_BUF_INIT(ctx), flat = QX_BUF_INIT(ctx), bare = QX_BUF_INIT(ctx);
    qx_buf *last = &clean;
    qx_status st = bert_clean(s, text, n, &clean);
    if (st == QX_OK && s->accents && clean.len) {
        st = qx_unicode_normal(ctx, QX_NFD, clean.data, clean.len, &flat);
        if (st == QX_OK) st = drop_class(qx_unicode_is_accent, flat.data, flat.len, &bare);
        last = &bare;
    }
    if (st == QX_OK && last->len) st = s->lower ? qx_unicode_lower(last->data, last->len, out) : qx_buf_put(out, last->data, last->len);
    qx_buf_free(&clean);
    qx_buf_free(&flat);
    qx_buf_free(&bare);
    return st;
}

/* ---- from JSON ---- */

typedef struct reader { qx_ctx *ctx; qx_arena *arena; tok_step **tail; int depth; } reader;
typedef struct kind kind;
struct kind { const char *type; tok_normalize_fn *fn; qx_status (*read)(reader *r, const qx_json *j, tok_step *s); qx_normal_form form; };

static qx_status read_content(reader *r, tok_step *s, const char *text)
{
    s->content = qx_arena_strdup(r->arena, text);
    s->content_len = strlen(text);
    return s->content ? QX_OK : QX_E_NOMEM;
}

static qx_status read_replace(reader *r, const qx_json *j, tok_step *s)
{
    const qx_json *p = qx_json_get(j, "pattern");
    const char *regex = qx_json_string(qx_json_get(p, "Regex"), NULL),
        *text = regex ? regex : qx_json_string(qx_json_get(p, "String"), NULL);
    if (!text) QX_FAIL(r->ctx, QX_E_FORMAT, "tokenizer: Replace without a Regex or String pattern");
    QX_TRY(read_content(r, s, qx_json_string(qx_json_get(j, "content"), "")));
    return qx_tok_regex_new(r->ctx, text, !regex, &s->regex);
}

static qx_status read_prepend(reader *r, const qx_json *j, tok_step *s)
{
    return read_content(r, s, qx_json_string(qx_json_get(j, "prepend"), "\xe2\x96\x81"));
}

static qx_status read_strip(reader *r, const qx_json *j, tok_step *s)
{
    (void)r;
    s->left = qx_json_bool(qx_json_get(j, "strip_left"), true);
    s->right = qx_json_bool(qx_json_get(j, "strip_right"), true);
    return QX_OK;
}

static qx_status read_precompiled(reader *r, const qx_json *j, tok_step *s)
{
    return qx_tok_charsmap_new(r->ctx, qx_json_string(qx_json_get(j, "precompiled_charsmap"), ""), &s->charsmap);
}

static qx_status read_bert(reader *r, const qx_json *j, tok_step *s)
{
    (void)r;
    s->clean = qx_json_bool(qx_json_get(j, "clean_text"), true);
    s->cjk = qx_json_bool(qx_json_get(j, "handle_chinese_chars"), true);
    s->lower = qx_json_bool(qx_json_get(j, "lowercase"), true);
    s->accents = qx_json_bool(qx_json_get(j, "strip_accents"), s->lower); /* null: as lowercase */
    return QX_OK;
}

static const kind kinds[] = {
    {"NFC", norm_form, NULL, QX_NFC}, {"NFD", norm_form, NULL, QX_NFD}, {"NFKC", norm_form, NULL, QX_NFKC},
    {"NFKD", norm_form, NULL, QX_NFKD},
    {"Precompiled", norm_precompiled, read_precompiled, 0}, {"BertNormalizer", norm_bert, read_bert, 0},
    {"Replace", norm_replace, read_replace, 0},
    {"Prepend", norm_prepend, read_prepend, 0}, {"Strip", norm_strip, read_strip, 0}, {"StripAccents", norm_strip_accents, NULL, 0},
    {"Lowercase", norm_lower, NULL, 0},
    {"ByteLevel", norm_bytes, NULL, 0},
};

static qx_status add_step(reader *r, const kind *k, const qx_json *j)
{
    tok_step *s = qx_arena_alloc(r->arena, sizeof *s);
    if (!s) return QX_E_NOMEM;
    s->normalize = k->fn;
    s->form = k->form;
    *r->tail = s;
    r->tail = &s->next;
    return k->read ? k->read(r, j, s) : QX_OK;
}

static qx_status read_one(reader *r, const qx_json *j)
{
    const char *type = qx_json_string(qx_json_get(j, "type"), NULL);
    if (!type) QX_FAIL(r->ctx, QX_E_FORMAT, "tokenizer: normalizer without a type");
    if (r->depth > 8) QX_FAIL(r->ctx, QX_E_FORMAT, "tokenizer: normalizer nested deeper than 8");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(type, kinds[i].type)) return add_step(r, &kinds[i], j);
    if (strcmp(type, "Sequence")) QX_FAIL(r->ctx, QX_E_UNSUPPORTED, "tokenizer: normalizer '%s' is not supported", type);
    const qx_json *list = qx_json_get(j, "normalizers");
    r->depth++;
    for (int64_t i = 0; i < qx_json_count(list); i++) QX_TRY(read_one(r, qx_json_at(list, i)));
    r->depth--;
    return QX_OK;
}

qx_status qx_tok_normalizer_parse(qx_ctx *ctx, qx_arena *a, const qx_json *j, tok_step **out)
{
    *out = NULL;
    if (!j || qx_json_type(j) == QX_JSON_NULL) return QX_OK;
    reader r = {ctx, a, out, 0};
    return read_one(&r, j);
}

void qx_tok_steps_free(tok_step *s)
{
    for (; s; s = s->next) {
        qx_tok_regex_free(s->regex);
        qx_tok_charsmap_free(s->charsmap);
    }
}

qx_status qx_tok_normalize(qx_ctx *ctx, const tok_step *steps, const char *text, size_t n, qx_buf *out)
{
    qx_buf a = QX_BUF_INIT(ctx), b = QX_BUF_INIT(ctx);
    qx_status st = qx_buf_put(&a, text, n);
    for (const tok_step *s = steps; s && st == QX_OK && a.len; s = s->next) {
        qx_buf_clear(&b);
        st = s->normalize(ctx, s, a.data, a.len, &b);
        qx_buf swap = a;
        a = b;
        b = swap;
    }
    if (st == QX_OK && a.len) st = qx_buf_put(out, a.data, a.len);
    qx_buf_free(&a);
    qx_buf_free(&b);
    return st;
}
