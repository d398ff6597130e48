/* tokenizer.c - a tokenizer.json, opened and used: added tokens are cut out, the rest is normalized, cut into words, and each word is
 * spelled by the model. Equal to the `tokenizers` package for the parts it supports; what it does not support is refused by name.
 * Ids in files are hostile: every id is checked to be small, unique and present. */
#include "calib/text/tok.h"
#include "calib/text/unicode.h"

#include <stdio.h>
#include <string.h>

enum { ID_MAX = 1 << 24 };
static const size_t file_cap = (size_t)256 << 20;

struct qx_tokenizer {
    qx_ctx *ctx;
    qx_arena *arena;
    tok_vocab vocab;
    bool *special;              /* [vocab.size] */
    tok_step *normalizer, *pre;
    const tok_modeldef *def;
    tok_model *model;
    tok_added *raw, *normalized; /* found before and after the normalizer */
    tok_decoder *decoder;
    int64_t *prefix, n_prefix;  /* ids that the post-processor puts before a text */
};

int32_t qx_tok_vocab_id(const tok_vocab *v, const char *token)
{
    return (int32_t)((intptr_t)qx_map_get(v->ids, token) - 1);
}

int32_t qx_tok_vocab_byte(const tok_vocab *v, uint8_t byte)
{
    char name[8];
    snprintf(name, sizeof name, "<0x%02X>", byte);
    return qx_tok_vocab_id(v, name);
}

int64_t qx_tokenizer_vocab(const qx_tokenizer *t) { return t->vocab.size; }

void qx_tokenizer_free(qx_tokenizer *t)
{
    if (!t) return;
    qx_tok_steps_free(t->normalizer);
    qx_tok_steps_free(t->pre);
    if (t->model) t->def->free(t->model);
    qx_tok_added_free(t->raw);
    qx_tok_added_free(t->normalized);
    qx_map_free(t->vocab.ids);
    qx_ctx *ctx = t->ctx;
    qx_arena_free(t->arena);
    qx_free(ctx, t);
}

/* ---- vocabulary ---- */

static qx_status check_id(qx_ctx *ctx, const char *token, const qx_json *v, int64_t *id)
{
    double d = qx_json_number(v, -1);
    if (qx_json_type(v) != QX_JSON_NUMBER || d < 0 || d >= ID_MAX || d != (double)(int64_t)d)
        QX_FAIL(ctx, QX_E_FORMAT, "tokenizer: token '%s': its id %g is not a whole number in [0, %d)", token, d, ID_MAX);
    *id = (int64_t)d;
    return QX_OK;
}

/* Entry i of a vocabulary: {"token": id, ...}, or [["token", score], ...] whose ids are the positions (Unigram). */
static qx_status vocab_at(qx_ctx *ctx, const qx_json *vocab, int64_t i, const char **token, int64_t *id)
{
    const qx_json *v = qx_json_at(vocab, i);
    if (qx_json_type(vocab) == QX_JSON_OBJECT) return *token = qx_json_key(v), check_id(ctx, *token, v, id);
    *token = qx_json_string(qx_json_at(v, 0), NULL);
    *id = i;
    if (!*token || qx_json_type(qx_json_at(v, 1)) != QX_JSON_NUMBER)
        QX_FAIL(ctx, QX_E_FORMAT, "tokenizer: entry %lld of model.vocab is not a token and its score", (long long)i);
    if (i >= ID_MAX) QX_FAIL(ctx, QX_E_FORMAT, "tokenizer: more than %d tokens", ID_MAX);
    return QX_OK;
}

static qx_status highest_id(qx_ctx *ctx, const qx_json *vocab, const qx_json *added, int64_t *size)
{
    int64_t id = 0;
    *size = 0;
    for (int64_t i = 0; i < qx_json_count(vocab); i++) {
        const char *token;
        QX_TRY(vocab_at(ctx, vocab, i, &token, &id));
        if (id >= *size) *size = id + 1;
    }
    for (int64_t i = 0; i < qx_json_count(added); i++) {
        const qx_json *v = qx_json_at(added, i);
        QX_TRY(check_id(ctx, qx_json_string(qx_json_get(v, "content"), ""), qx_json_get(v, "id"), &id));
        if (id >= *size) *size = id + 1;
    }
    int64_t entries = qx_json_count(vocab) + qx_json_count(added);
    if (*size > 16 * entries + 4096)
        QX_FAIL(ctx, QX_E_FORMAT, "tokenizer: highest id %lld for %lld tokens", (long long)*size - 1, (long long)entries);
    return QX_OK;
}

static qx_status add_token(qx_tokenizer *t, const char *token, int64_t id)
{
    tok_vocab *v = &t->vocab;
    if (v->tokens[id]) QX_FAIL(t->ctx, QX_E_FORMAT, "tokenizer: id %lld belongs to '%s' and to '%s'", (long long)id, v->tokens[id], token);
    v->tokens[id] = qx_arena_strdup(t->arena, token);
    return v->tokens[id] ? qx_map_put(v->ids, token, (void *)(intptr_t)(id + 1)) : QX_E_NOMEM;
}

static qx_status read_vocab(qx_tokenizer *t, const qx_json *vocab, const qx_json *added)
{
    qx_json_kind kind = t->def->scored ? QX_JSON_ARRAY : QX_JSON_OBJECT;
    if (qx_json_type(vocab) != kind)
        QX_FAIL(t->ctx, QX_E_FORMAT, "tokenizer: model.vocab is not an %s", t->def->scored ? "array" : "object");
    QX_TRY(highest_id(t->ctx, vocab, added, &t->vocab.size));
    t->vocab.tokens = qx_arena_array(t->arena, (size_t)t->vocab.size + 1, sizeof *t->vocab.tokens);
    t->special = qx_arena_array(t->arena, (size_t)t->vocab.size + 1, sizeof *t->special);
    if (!t->vocab.tokens || !t->special) return QX_E_NOMEM;
    QX_TRY(qx_map_new(t->ctx, &t->vocab.ids));
    for (int64_t i = 0; i < qx_json_count(vocab); i++) {
        const char *token;
        int64_t id;
        QX_TRY(vocab_at(t->ctx, vocab, i, &token, &id));
        QX_TRY(add_token(t, token, id));
    }
    return QX_OK;
}

/* ---- added tokens ---- */

static qx_status read_added_one(qx_tokenizer *t, const qx_json *j, tok_added_token *out)
{
    const char *content = qx_json_string(qx_json_get(j, "content"), NULL);
    if (!content || !*content) QX_FAIL(t->ctx, QX_E_FORMAT, "tokenizer: an added token without content");
    int64_t id = (int64_t)qx_json_number(qx_json_get(j, "id"), 0);
    int32_t have = qx_tok_vocab_id(&t->vocab, content);
    if (have >= 0 && have != id)
        QX_FAIL(t->ctx, QX_E_FORMAT, "tokenizer: added token '%s' has id %lld, the vocabulary says %d", content, (long long)id, have);
    if (have < 0) QX_TRY(add_token(t, content, id));
    *out = (tok_added_token){.id = (int32_t)id, .single_word = qx_json_bool(qx_json_get(j, "single_word"), false),
                             .lstrip = qx_json_bool(qx_json_get(j, "lstrip"), false),
                             .rstrip = qx_json_bool(qx_json_get(j, "rstrip"), false),
                                 .special = qx_json_bool(qx_json_get(j, "special"), false)};
    out->normalized = qx_json_bool(qx_json_get(j, "normalized"), !out->special);
    out->content = t->vocab.tokens[id];
    out->len = strlen(content);
    t->special[id] = out->special;
    return QX_OK;
}

/* The text that a token with "normalized" looks for is its content after the normalizer. */
static qx_status normalize_content(qx_tokenizer *t, tok_added_token *a)
{
    qx_buf b = QX_BUF_INIT(t->ctx);
    qx_status st = qx_tok_normalize(t->ctx, t->normalizer, a->content, a->len, &b);
    if (st == QX_OK) {
        a->content = qx_arena_strndup(t->arena, b.data ? b.data : "", b.len);
        a->len = b.len;
        if (!a->content) st = QX_E_NOMEM;
    }
    qx_buf_free(&b);
    return st;
}

static qx_status read_added(qx_tokenizer *t, const qx_json *list)
{
    int64_t n = qx_json_count(list), n_raw = 0, n_norm = 0;
    tok_added_token *raw = qx_arena_array(t->arena, (size_t)n + 1, sizeof *raw),
        *norm = qx_arena_array(t->arena, (size_t)n + 1, sizeof *norm);
    if (!raw || !norm) return QX_E_NOMEM;
    for (int64_t i = 0; i < n; i++) {
        tok_added_token a;
        QX_TRY(read_added_one(t, qx_json_at(list, i), &a));
        if (!a.normalized) {
            raw[n_raw++] = a;
            continue;
        }
        QX_TRY(normalize_content(t, &a));
        if (a.len) norm[n_norm++] = a;
    }
    QX_TRY(qx_tok_added_new(t->ctx, raw, n_raw, &t->raw));
    return qx_tok_added_new(t->ctx, norm, n_norm, &t->normalized);
}

/* ---- post-processor: only what it puts before a single text ---- */

static qx_status add_prefix(qx_tokenizer *t, const char *token)
{
    int32_t id = token ? qx_tok_vocab_id(&t->vocab, token) : -1;
    if (id < 0) QX_FAIL(t->ctx, QX_E_FORMAT, "tokenizer: the post-processor's token '%s' is not in the vocabulary", token ? token : "");
    t->prefix[t->n_prefix++] = id;
    return QX_OK;
}

static qx_status read_template(qx_tokenizer *t, const qx_json *j)
{
    const qx_json *single = qx_json_get(j, "single");
    t->prefix = qx_arena_array(t->arena, (size_t)qx_json_count(single) + 1, sizeof *t->prefix);
    if (!t->prefix) return QX_E_NOMEM;
    for (int64_t i = 0; i < qx_json_count(single); i++) {
        const qx_json *special = qx_json_get(qx_json_at(single, i), "SpecialToken");
        if (!special) break; /* the text itself */
        QX_TRY(add_prefix(t, qx_json_string(qx_json_get(special, "id"), NULL)));
    }
    return QX_OK;
}

static qx_status read_post(qx_tokenizer *t, const qx_json *j, int depth)
{
    const char *type = qx_json_string(qx_json_get(j, "type"), "");
    if (depth > 8) QX_FAIL(t->ctx, QX_E_FORMAT, "tokenizer: post_processor nested deeper than 8");
    if (!strcmp(type, "TemplateProcessing")) return read_template(t, j);
    if (!strcmp(type, "Sequence")) {
        const qx_json *list = qx_json_get(j, "processors");
        for (int64_t i = 0; i < qx_json_count(list); i++) QX_TRY(read_post(t, qx_json_at(list, i), depth + 1));
        return QX_OK;
    }
    if (strcmp(type, "RobertaProcessing") && strcmp(type, "BertProcessing")) return QX_OK; /* ByteLevel only trims offsets */
    t->prefix = qx_arena_array(t->arena, 1, sizeof *t->prefix);
    return t->prefix ? add_prefix(t, qx_json_string(qx_json_at(qx_json_get(j, "cls"), 0), NULL)) : QX_E_NOMEM;
}

/* ---- opening ---- */

static qx_status pick_model(qx_tokenizer *t, const qx_json *model)
{
    static const tok_modeldef *const defs[] = {&qx_tok_bpe, &qx_tok_wordpiece, &qx_tok_unigram};
    const char *type = qx_json_string(qx_json_get(model, "type"), NULL);
    if (qx_json_type(model) != QX_JSON_OBJECT) QX_FAIL(t->ctx, QX_E_FORMAT, "tokenizer: \"model\" is no object");
    if (!type && qx_json_get(model, "merges")) type = "BPE"; /* older files leave it out */
    for (size_t i = 0; type && i < sizeof defs / sizeof *defs; i++)
        if (!strcmp(type, defs[i]->type)) return t->def = defs[i], QX_OK;
    QX_FAIL(t->ctx, QX_E_UNSUPPORTED, "tokenizer: model type '%s' is not supported (BPE, WordPiece and Unigram are)", type ? type : "none");
}

static qx_status read_all(qx_tokenizer *t, const qx_json *doc)
{
    const qx_json *model = qx_json_get(doc, "model"), *added = qx_json_get(doc, "added_tokens");
    if (!model) QX_FAIL(t->ctx, QX_E_FORMAT, "tokenizer: no \"model\": this is not a tokenizer.json");
    QX_TRY(pick_model(t, model));
    QX_TRY(read_vocab(t, qx_json_get(model, "vocab"), added));
    QX_TRY(qx_tok_normalizer_parse(t->ctx, t->arena, qx_json_get(doc, "normalizer"), &t->normalizer));
    QX_TRY(qx_tok_pretokenizer_parse(t->ctx, t->arena, qx_json_get(doc, "pre_tokenizer"), &t->pre));
    QX_TRY(read_added(t, added));
    QX_TRY(t->def->open(t->ctx, t->arena, &t->vocab, model, &t->model));
    QX_TRY(read_post(t, qx_json_get(doc, "post_processor"), 0));
    return qx_tok_decoder_parse(t->ctx, t->arena, qx_json_get(doc, "decoder"), &t->decoder);
}

static qx_status open_doc(qx_ctx *ctx, const qx_json *doc, qx_tokenizer **out)
{
    qx_tokenizer *t;
    QX_TRY(QX_NEW(ctx, &t));
    t->ctx = ctx;
    qx_status st = qx_arena_new(ctx, &t->arena);
    if (st == QX_OK) st = read_all(t, doc);
    if (st != QX_OK) qx_tokenizer_free(t);
    else *out = t;
    return st;
}

qx_status qx_tokenizer_open(qx_ctx *ctx, const char *path, qx_tokenizer **out)
{
    qx_json *doc;
    *out = NULL;
    QX_TRY(qx_json_parse_file(ctx, path, file_cap, &doc));
    qx_status st = open_doc(ctx, doc, out);
    qx_json_free(doc);
    return st == QX_OK ? st : qx_note(ctx, st, "%s", path);
}

qx_status qx_tokenizer_parse(qx_ctx *ctx, const char *json, size_t len, qx_tokenizer **out)
{
    qx_json *doc;
    *out = NULL;
    QX_TRY(qx_json_parse(ctx, json, len, "tokenizer", &doc));
    qx_status st = open_doc(ctx, doc, out);
    qx_json_free(doc);
    return st;
}

const int64_t *qx_tokenizer_prefix(const qx_tokenizer *t, int64_t *n)
{
    *n = t->n_prefix;
    return t->prefix;
}

/* ---- encoding ---- */

typedef struct encoder { qx_tokenizer *t; qx_buf normal, ids; tok_list pieces, inner, words, scratch; } encoder;

static qx_status put_id(encoder *e, int64_t id) { return qx_buf_put(&e->ids, &id, sizeof id); }

static qx_status encode_words(encoder *e, const char *s, size_t n, bool first)
{
    QX_TRY(qx_tok_pretokenize(e->t->ctx, e->t->pre, s, n, first, &e->words, &e->scratch));
    for (size_t i = 0; i < tok_count(&e->words); i++) {
        const tok_span *w = tok_at(&e->words, i);
        QX_TRY(e->t->def->word(e->t->model, e->words.text.data + w->off, w->len, &e->ids));
    }
    return QX_OK;
}

static qx_status encode_piece(encoder *e, const char *s, size_t n, bool first)
{
    qx_buf_clear(&e->normal);
    QX_TRY(qx_tok_normalize(e->t->ctx, e->t->normalizer, s, n, &e->normal));
    if (e->normal.len == 0) return QX_OK;
    qx_tok_list_clear(&e->inner);
    QX_TRY(qx_tok_added_cut(e->t->normalized, e->normal.data, e->normal.len, first, &e->inner));
    for (size_t i = 0; i < tok_count(&e->inner); i++) {
        const tok_span *p = tok_at(&e->inner, i);
        QX_TRY(p->id >= 0 ? put_id(e, p->id) : encode_words(e, e->inner.text.data + p->off, p->len, p->first));
    }
    return QX_OK;
}

static qx_status encode_all(encoder *e, const char *text, size_t len)
{
    QX_TRY(qx_tok_added_cut(e->t->raw, text, len, true, &e->pieces));
    for (size_t i = 0; i < tok_count(&e->pieces); i++) {
        const tok_span *p = tok_at(&e->pieces, i);
        QX_TRY(p->id >= 0 ? put_id(e, p->id) : encode_piece(e, e->pieces.text.data + p->off, p->len, p->first));
    }
    return QX_OK;
}

qx_status qx_tokenizer_encode(qx_tokenizer *t, const char *text, size_t len, int64_t **ids, int64_t *n)
{
    *ids = NULL;
    *n = 0;
    size_t valid = qx_utf8_valid(text, len);
    if (valid < len) QX_FAIL(t->ctx, QX_E_FORMAT, "text is not UTF-8: byte 0x%02x at %zu of %zu", (unsigned char)text[valid], valid, len);
    qx_buf none = QX_BUF_INIT(t->ctx);
    encoder e = {t, none, none, {none, none}, {none, none}, {none, none}, {none, none}};
    qx_status st = encode_all(&e, text, len);
    if (st == QX_OK) st = QX_NEW_ARRAY(t->ctx, e.ids.len / sizeof **ids + 1, ids);
    if (st == QX_OK) {
        *n = (int64_t)(e.ids.len / sizeof **ids);
        if (e.ids.len) memcpy(*ids, e.ids.data, e.ids.len);
    }
    qx_buf_free(&e.normal);
    qx_buf_free(&e.ids);
    qx_tok_list_free(&e.pieces);
    qx_tok_list_free(&e.inner);
    qx_tok_list_free(&e.words);
    qx_tok_list_free(&e.scratch);
    return st;
}

/* ---- decoding ---- */

qx_status qx_tokenizer_decode(qx_tokenizer *t, const int64_t *ids, int64_t n, struct qx_buf *out)
{
    int64_t put = 0;
    size_t start = out->len;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->vocab.size)
            QX_FAIL(t->ctx, QX_E_FORMAT, "token id %lld at %lld: the vocabulary ends at %lld", (long long)ids[i], (long long)i,
                    (long long)t->vocab.size - 1);
        const char *token = t->vocab.tokens[ids[i]];
        if (!token || t->special[ids[i]]) continue;
        QX_TRY(qx_tok_decode_one(t->decoder, token, put++, out));
    }
    qx_tok_decode_end(t->decoder, start, out);
    return QX_OK;
}
