/* qx_tok_wordpiece.c - WordPiece (BERT): the longest piece that the vocabulary has, from left to right; a word that cannot be spelled is
 * one unknown token. */
#include "calib/text/tok.h"
#include "calib/text/unicode.h"

#include <string.h>

struct tok_model {
    qx_ctx *ctx;
    const tok_vocab *vocab;
    const char *prefix;
    int32_t unk;
    int64_t max_chars;
    qx_buf text;
};

static void wordpiece_free(tok_model *m)
{
    if (!m) return;
    qx_buf_free(&m->text);
    qx_free(m->ctx, m);
}

static qx_status wordpiece_open(qx_ctx *ctx, qx_arena *a, const tok_vocab *v, const qx_json *j, tok_model **out)
{
    const char *unk = qx_json_string(qx_json_get(j, "unk_token"), "[UNK]");
    int32_t unk_id = qx_tok_vocab_id(v, unk);
    if (unk_id < 0) QX_FAIL(ctx, QX_E_FORMAT, "tokenizer: unknown token '%s' is not in the vocabulary", unk);
    const char *prefix = qx_arena_strdup(a, qx_json_string(qx_json_get(j, "continuing_subword_prefix"), "##"));
    if (!prefix) return QX_E_NOMEM;
    tok_model *m;
    QX_TRY(QX_NEW(ctx, &m));
    double limit = qx_json_number(qx_json_get(j, "max_input_chars_per_word"), 100);
    *m = (tok_model){.ctx = ctx, .vocab = v, .prefix = prefix, .unk = unk_id,
                     .max_chars = limit >= 1 && limit <= 4096 ? (int64_t)limit : 100, .text = QX_BUF_INIT(ctx)};
    *out = m;
    return QX_OK;
}

static qx_status put_id(qx_buf *ids, int32_t id)
{
    int64_t v = id;
    return qx_buf_put(ids, &v, sizeof v);
}

/* Longest piece that starts at `at`: its length in bytes (0: none) and id. */
static qx_status longest(tok_model *m, const char *s, size_t at, size_t n, size_t *len, int32_t *id)
{
    *len = 0;
    for (size_t end = n; end > at; end--) {
        if (end < n && ((unsigned char)s[end] & 0xc0) == 0x80) continue;
        qx_buf_clear(&m->text);
        if (at > 0 && *m->prefix) QX_TRY(qx_buf_put(&m->text, m->prefix, strlen(m->prefix)));
        QX_TRY(qx_buf_put(&m->text, s + at, end - at));
        *id = qx_tok_vocab_id(m->vocab, m->text.data);
        if (*id < 0) continue;
        *len = end - at;
        return QX_OK;
    }
    return QX_OK;
}

static qx_status wordpiece_word(tok_model *m, const char *s, size_t n, qx_buf *ids)
{
    int64_t chars = 0;
    for (size_t i = 0; i < n; i++) chars += ((unsigned char)s[i] & 0xc0) != 0x80;
    if (chars > m->max_chars || memchr(s, 0, n)) return put_id(ids, m->unk);
    size_t before = ids->len;
    for (size_t at = 0, len; at < n; at += len) {
        int32_t id;
        QX_TRY(longest(m, s, at, n, &len, &id));
        if (len == 0) {
            ids->len = before; /* spell all of it or none */
            return put_id(ids, m->unk);
        }
        QX_TRY(put_id(ids, id));
    }
    return QX_OK;
}

const tok_modeldef qx_tok_wordpiece = {.type = "WordPiece", .open = wordpiece_open, .word = wordpiece_word, .free = wordpiece_free};
