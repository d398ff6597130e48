/* tok.h - parts of the tokenizer (calib/data/samples.h has the public face): text pieces, the steps of a tokenizer.json's normalizer and
 * pre-tokenizer, added tokens, and the models that turn a word into ids. */
#ifndef QX_CALIB_TOK_H
#define QX_CALIB_TOK_H

#include "base/buf.h"
#include "base/json.h"
#include "base/map.h"
#include "calib/data/samples.h"
#include "calib/text/unicode.h"

/* Pieces of a text, in order. */
typedef struct tok_span { size_t off, len; int32_t id; bool first; } tok_span; /* id >= 0: an added token; first: begins the whole text */
typedef struct tok_list { qx_buf text, spans; } tok_list;
static inline size_t tok_count(const tok_list *l) { return l->spans.len / sizeof(tok_span); }
static inline const tok_span *tok_at(const tok_list *l, size_t i) { return (const tok_span *)(const void *)l->spans.data + i; }
qx_status qx_tok_list_add(tok_list *l, const char *s, size_t n, int32_t id, bool first); /* empty pieces are dropped */
void qx_tok_list_clear(tok_list *l);
void qx_tok_list_free(tok_list *l);

/* A compiled pattern with the meaning that the `tokenizers` package gives it (Oniguruma's classes of white space and lines). */
typedef struct tok_regex tok_regex;
qx_status qx_tok_regex_new(qx_ctx *ctx, const char *pattern, bool literal, tok_regex **out);
void qx_tok_regex_free(tok_regex *r);
/* First match at or after `from`: 1 found, 0 none, -1 error (limits; recorded). */
int qx_tok_regex_find(tok_regex *r, const char *s, size_t n, size_t from, size_t *start, size_t *end);

/* SentencePiece's "precompiled" normalizer: a map from short byte strings to others, kept as a double array (base64 in the JSON).
 * "" is the empty map. */
typedef struct tok_charsmap tok_charsmap;
qx_status qx_tok_charsmap_new(qx_ctx *ctx, const char *base64, tok_charsmap **out);
void qx_tok_charsmap_free(tok_charsmap *m);
qx_status qx_tok_charsmap_apply(const tok_charsmap *m, const char *text, size_t n, qx_buf *out);

/* Members of a class: what \w means to Unicode (alphabetic, marks, digits, connectors, joiners). */
#define TOK_WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{200c}\\x{200d}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"

typedef enum tok_behavior { TOK_REMOVED, TOK_ISOLATED, TOK_MERGED_PREVIOUS, TOK_MERGED_NEXT, TOK_CONTIGUOUS } tok_behavior;

/* One step: a normalizer maps text to text, a pre-tokenizer cuts pieces into smaller ones. */
typedef struct tok_step tok_step;
typedef qx_status tok_normalize_fn(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, qx_buf *out);
typedef qx_status tok_cut_fn(qx_ctx *ctx, const tok_step *s, const char *text, size_t n, bool first, tok_list *out);
struct tok_step {
    tok_normalize_fn *normalize;
    tok_cut_fn *cut;
    tok_regex *regex;
    tok_charsmap *charsmap;
    qx_normal_form form;
    tok_behavior behavior;
    bool invert, prefix_space, use_regex, left, right, split, first_only, clean, cjk, accents, lower;
    const char *content; size_t content_len;
    tok_step *next;
};
qx_status qx_tok_normalizer_parse(qx_ctx *ctx, qx_arena *a, const qx_json *j, tok_step **out);
qx_status qx_tok_pretokenizer_parse(qx_ctx *ctx, qx_arena *a, const qx_json *j, tok_step **out);
void qx_tok_steps_free(tok_step *s);
qx_status qx_tok_normalize(qx_ctx *ctx, const tok_step *steps, const char *text, size_t n, qx_buf *out);
/* Cuts one normalized piece; the words end up in *words (scratch is the other half of the ping-pong). */
qx_status qx_tok_pretokenize(qx_ctx *ctx, const tok_step *steps, const char *text, size_t n, bool first, tok_list *words,
                             tok_list *scratch);
/* Byte <-> the printable code point that byte-level vocabularies write it as. */
uint32_t qx_tok_byte_char(uint8_t b);
int qx_tok_char_byte(uint32_t c); /* -1: none */

/* Vocabulary. */
typedef struct tok_vocab { qx_map *ids; const char **tokens; int64_t size; } tok_vocab; /* tokens[id], NULL where unused */
int32_t qx_tok_vocab_id(const tok_vocab *v, const char *token); /* -1 when absent */
int32_t qx_tok_vocab_byte(const tok_vocab *v, uint8_t byte);     /* of "<0x2F>", which stands for a byte; -1 when absent */

/* Models: append the ids of one word. */
typedef struct tok_model tok_model;
typedef struct tok_modeldef {
    const char *type;
    bool scored; /* vocab is an array of [token, score] */
    qx_status (*open)(qx_ctx *ctx, qx_arena *a, const tok_vocab *v, const qx_json *model, tok_model **out);
    qx_status (*word)(tok_model *m, const char *s, size_t n, qx_buf *ids); /* int64 each */
    void (*free)(tok_model *m);
} tok_modeldef;
extern const tok_modeldef qx_tok_bpe, qx_tok_wordpiece, qx_tok_unigram;

/* Added tokens. */
typedef struct tok_added tok_added;
typedef struct tok_added_token {
    const char *content;
    size_t len;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} tok_added_token;
qx_status qx_tok_added_new(qx_ctx *ctx, const tok_added_token *tokens, int64_t n, tok_added **out); /* content is borrowed */
void qx_tok_added_free(tok_added *a);
/* Cuts s at the added tokens: text pieces have id -1. */
qx_status qx_tok_added_cut(tok_added *a, const char *s, size_t n, bool first, tok_list *out);

/* Token strings -> text. */
typedef struct tok_decoder tok_decoder;
qx_status qx_tok_decoder_parse(qx_ctx *ctx, qx_arena *a, const qx_json *decoder, tok_decoder **out);
/* `index` counts the tokens put so far. */
qx_status qx_tok_decode_one(const tok_decoder *d, const char *token, int64_t index, qx_buf *out);
void qx_tok_decode_end(const tok_decoder *d, size_t start, qx_buf *out);

#endif
