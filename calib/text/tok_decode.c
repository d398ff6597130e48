/* tok_decode.c - token strings back to text. A decoder of tokenizer.json is a few switches here: byte-level alphabet, a mark that
 * stands for a space, byte tokens, the leading space, WordPiece's "##". */
#include "calib/text/tok.h"
#include "calib/text/unicode.h"

#include <string.h>

struct tok_decoder {
    bool bytes, fallback, strip_first, wordpiece, cleanup, spaces_between;
    const char *mark;   /* replaced by `with` */
    const char *with;
    const char *prefix; /* WordPiece: continues a word */
    const char *suffix; /* ends a word */
};

typedef struct reader { qx_ctx *ctx; qx_arena *arena; tok_decoder *d; int depth; } reader;

static const char *keep(reader *r, const qx_json *j, const char *key, const char *fallback)
{
    return qx_arena_strdup(r->arena, qx_json_string(qx_json_get(j, key), fallback));
}

static qx_status read_replace(reader *r, const qx_json *j)
{
    const char *text = qx_json_string(qx_json_get(qx_json_get(j, "pattern"), "String"), NULL);
    if (!text || !*text) QX_FAIL(r->ctx, QX_E_UNSUPPORTED, "tokenizer: decoder Replace without a plain String pattern");
    r->d->mark = qx_arena_strdup(r->arena, text);
    r->d->with = keep(r, j, "content", "");
    return r->d->mark && r->d->with ? QX_OK : QX_E_NOMEM;
}

static qx_status read_metaspace(reader *r, const qx_json *j)
{
    const char *scheme = qx_json_string(qx_json_get(j, "prepend_scheme"), NULL);
    r->d->strip_first = scheme ? strcmp(scheme, "never") != 0 : qx_json_bool(qx_json_get(j, "add_prefix_space"), true);
    r->d->mark = keep(r, j, "replacement", "\xe2\x96\x81");
    r->d->with = " ";
    return r->d->mark ? QX_OK : QX_E_NOMEM;
}

static qx_status read_strip(reader *r, const qx_json *j)
{
    const char *content = qx_json_string(qx_json_get(j, "content"), " ");
    if (strcmp(content, " ") || qx_json_number(qx_json_get(j, "stop"), 0) != 0)
        QX_FAIL(r->ctx, QX_E_UNSUPPORTED, "tokenizer: decoder Strip of '%s' is not supported", content);
    r->d->strip_first = qx_json_number(qx_json_get(j, "start"), 0) >= 1;
    return QX_OK;
}

static qx_status read_wordpiece(reader *r, const qx_json *j)
{
    r->d->wordpiece = true;
    r->d->prefix = keep(r, j, "prefix", "##");
    r->d->cleanup = qx_json_bool(qx_json_get(j, "cleanup"), true);
    return r->d->prefix ? QX_OK : QX_E_NOMEM;
}

static qx_status read_bpe(reader *r, const qx_json *j)
{
    r->d->suffix = keep(r, j, "suffix", "</w>");
    return r->d->suffix ? QX_OK : QX_E_NOMEM;
}

static qx_status read_bytes(reader *r, const qx_json *j) { return (void)j, r->d->bytes = true, QX_OK; }
static qx_status read_fallback(reader *r, const qx_json *j) { return (void)j, r->d->fallback = true, QX_OK; }
static qx_status read_fuse(reader *r, const qx_json *j) { return (void)r, (void)j, QX_OK; }

typedef struct kind { const char *type; qx_status (*read)(reader *r, const qx_json *j); } kind;
static const kind kinds[] = {
    {"ByteLevel", read_bytes}, {"Replace", read_replace}, {"Metaspace", read_metaspace}, {"ByteFallback", read_fallback},
    {"Fuse", read_fuse}, {"Strip", read_strip}, {"WordPiece", read_wordpiece}, {"BPEDecoder", read_bpe},
};

static qx_status read_one(reader *r, const qx_json *j)
{
    const char *type = qx_json_string(qx_json_get(j, "type"), "");
    if (r->depth > 8) QX_FAIL(r->ctx, QX_E_FORMAT, "tokenizer: decoder nested deeper than 8");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(type, kinds[i].type)) return kinds[i].read(r, j);
    if (strcmp(type, "Sequence")) QX_FAIL(r->ctx, QX_E_UNSUPPORTED, "tokenizer: decoder '%s' is not supported", type);
    const qx_json *list = qx_json_get(j, "decoders");
    r->depth++;
    for (int64_t i = 0; i < qx_json_count(list); i++) QX_TRY(read_one(r, qx_json_at(list, i)));
    r->depth--;
    return QX_OK;
}

qx_status qx_tok_decoder_parse(qx_ctx *ctx, qx_arena *a, const qx_json *j, tok_decoder **out)
{
    reader r = {ctx, a, qx_arena_alloc(a, sizeof(tok_decoder)), 0};
    *out = r.d;
    if (!r.d) return QX_E_NOMEM;
    r.d->spaces_between = !j || qx_json_type(j) == QX_JSON_NULL;
    return r.d->spaces_between ? QX_OK : read_one(&r, j);
}

/* ---- decoding ---- */

/* A token with a code point outside the alphabet (an added token) is text as it is. */
static qx_status put_bytes(const char *token, qx_buf *out)
{
    size_t before = out->len, n = strlen(token);
    for (size_t at = 0; at < n;) {
        uint32_t c;
        at += qx_utf8_get(token + at, &c);
        int b = qx_tok_char_byte(c);
        if (b < 0) {
            out->len = before;
            return qx_buf_put(out, token, n);
        }
        char byte = (char)b;
        QX_TRY(qx_buf_put(out, &byte, 1));
    }
    return QX_OK;
}

static int hex(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

static qx_status put_marked(const tok_decoder *d, const char *token, bool first, qx_buf *out)
{
    size_t start = out->len, n = d->mark ? strlen(d->mark) : 0;
    for (const char *p = token; *p;) {
        bool is_mark = n && !strncmp(p, d->mark, n);
        QX_TRY(is_mark ? qx_buf_put(out, d->with, strlen(d->with)) : qx_buf_put(out, p, 1));
        p += is_mark ? n : 1;
    }
    if (!first || !d->strip_first || out->len == start || out->data[start] != ' ') return QX_OK;
    memmove(out->data + start, out->data + start + 1, out->len - start - 1);
    out->data[--out->len] = 0;
    return QX_OK;
}

/* Spaces that WordPiece's cleanup takes away again. */
static bool hugs_left(const char *token)
{
    static const char *const words[] = {".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re", " do not"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(token, words[i])) return true;
    return false;
}

static qx_status put_wordpiece(const tok_decoder *d, const char *token, bool first, qx_buf *out)
{
    size_t n = strlen(d->prefix);
    bool goes_on = !first && !strncmp(token, d->prefix, n);
    if (!first && !goes_on && !(d->cleanup && hugs_left(token))) QX_TRY(qx_buf_put(out, " ", 1));
    token += goes_on ? n : 0;
    return qx_buf_put(out, token, strlen(token));
}

static qx_status put_suffixed(const tok_decoder *d, const char *token, qx_buf *out)
{
    size_t n = strlen(token), m = strlen(d->suffix);
    bool ends = n >= m && !strcmp(token + n - m, d->suffix);
    QX_TRY(qx_buf_put(out, token, ends ? n - m : n));
    return ends ? qx_buf_put(out, " ", 1) : QX_OK;
}

qx_status qx_tok_decode_one(const tok_decoder *d, const char *token, int64_t index, qx_buf *out)
{
    int hi = -1, lo = -1;
    if (d->fallback && strlen(token) == 6 && !strncmp(token, "<0x", 3) && token[5] == '>') hi = hex(token[3]), lo = hex(token[4]);
    if (hi >= 0 && lo >= 0) {
        char byte = (char)(hi * 16 + lo);
        return qx_buf_put(out, &byte, 1);
    }
    if (d->wordpiece) return put_wordpiece(d, token, index == 0, out);
    if (d->bytes) return put_bytes(token, out);
    if (d->suffix) return put_suffixed(d, token, out);
    if (d->spaces_between && index > 0) QX_TRY(qx_buf_put(out, " ", 1));
    return put_marked(d, token, index == 0, out);
}

void qx_tok_decode_end(const tok_decoder *d, size_t start, qx_buf *out)
{
    if (d->suffix && out->len > start && out->data[out->len - 1] == ' ') out->data[--out->len] = 0; /* the last word ends without a space */
}
