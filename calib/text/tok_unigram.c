/* tok_unigram.c - Unigram (SentencePiece: T5, XLM-R, ...): of all ways to spell a word, the one whose pieces' scores (log
 * probabilities) have the largest sum, by Viterbi over the byte positions. A character that no piece begins with costs ten more
 * than the worst piece and is the unknown token, or its bytes' tokens where the file asks for that. */
#include "calib/text/tok.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct piece { const char *text; size_t len; int32_t id; double score; } piece;
/* The best spelling of the text before a byte: its score, and where its last piece starts. */
typedef struct node { double score; size_t start; int32_t id; bool reached; } node;

struct tok_model {
    qx_ctx *ctx;
    const tok_vocab *vocab;
    piece *pieces; /* [n], sorted by text */
    size_t n;
    int32_t unk; /* -1: none */
    double unk_score;
    bool bytes;
    qx_buf nodes, starts;
};

static const double unknown_penalty = 10;

static void unigram_free(tok_model *m)
{
    if (!m) return;
    qx_free(m->ctx, m->pieces);
    qx_buf_free(&m->nodes);
    qx_buf_free(&m->starts);
    qx_free(m->ctx, m);
}

static int by_text(const void *a, const void *b)
{
    const piece *x = a, *y = b;
    int c = strcmp(x->text, y->text);
    return c ? c : (x->id > y->id) - (x->id < y->id);
}

/* Sorted by bytes, so that pieces with a common beginning are neighbours. Of pieces that are there twice the last counts, as in a
 * table filled in order. */
static qx_status read_pieces(tok_model *m, const qx_json *vocab)
{
    int64_t count = qx_json_count(vocab);
    double least = 0;
    QX_TRY(QX_NEW_ARRAY(m->ctx, (size_t)count + 1, &m->pieces));
    for (int64_t i = 0; i < count; i++) {
        double score = qx_json_number(qx_json_at(qx_json_at(vocab, i), 1), 0);
        if (!isfinite(score)) QX_FAIL(m->ctx, QX_E_FORMAT, "tokenizer: piece '%s' has the score %g", m->vocab->tokens[i], score);
        if (i == 0 || score < least) least = score;
        const char *text = m->vocab->tokens[i];
        if (*text) m->pieces[m->n++] = (piece){text, strlen(text), (int32_t)i, score};
    }
    m->unk_score = least - unknown_penalty;
    qsort(m->pieces, m->n, sizeof *m->pieces, by_text);
    size_t kept = 0;
    for (size_t i = 0; i < m->n; i++)
        if (i + 1 == m->n || strcmp(m->pieces[i].text, m->pieces[i + 1].text)) m->pieces[kept++] = m->pieces[i];
    m->n = kept;
    return QX_OK;
}

static qx_status read_unknown(tok_model *m, const qx_json *j)
{
    const qx_json *unk = qx_json_get(j, "unk_id");
    double id = qx_json_number(unk, -1);
    if (qx_json_type(unk) == QX_JSON_NUMBER && (id < 0 || id >= (double)m->vocab->size || !m->vocab->tokens[(int64_t)id]))
        QX_FAIL(m->ctx, QX_E_FORMAT, "tokenizer: unk_id %g is not one of the %lld tokens", id, (long long)m->vocab->size);
    m->unk = (int32_t)id;
    m->bytes = qx_json_bool(qx_json_get(j, "byte_fallback"), false);
    return QX_OK;
}

static qx_status unigram_open(qx_ctx *ctx, qx_arena *a, const tok_vocab *v, const qx_json *j, tok_model **out)
{
    (void)a;
    tok_model *m;
    QX_TRY(QX_NEW(ctx, &m));
    *m = (tok_model){.ctx = ctx, .vocab = v, .nodes = QX_BUF_INIT(ctx), .starts = QX_BUF_INIT(ctx)};
    qx_status st = read_pieces(m, qx_json_get(j, "vocab"));
    if (st == QX_OK) st = read_unknown(m, j);
    if (st != QX_OK) unigram_free(m);
    else *out = m;
    return st;
}

/* Of the pieces [lo, hi), which agree in their first k bytes, the first whose next byte is at least c. */
static size_t lower_bound(const tok_model *m, size_t lo, size_t hi, size_t k, unsigned c)
{
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((unsigned char)m->pieces[mid].text[k] < c) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static void offer(node *to, double score, size_t start, int32_t id)
{
    if (!to->reached || score > to->score) *to = (node){score, start, id, true};
}

static size_t char_length(const char *s)
{
    uint32_t c;
    return qx_utf8_get(s, &c);
}

/* Offers every piece that begins at `at`, or the unknown token when none is just the next character. */
static qx_status extend(tok_model *m, const char *s, size_t at, size_t n, node *nodes)
{
    size_t one = char_length(s + at);
    bool known = false;
    size_t lo = 0, hi = m->n;
    for (size_t k = 0; at + k < n && s[at + k] && lo < hi; k++) { /* pieces hold no NUL */
        unsigned c = (unsigned char)s[at + k];
        lo = lower_bound(m, lo, hi, k, c);
        hi = lower_bound(m, lo, hi, k, c + 1);
        if (lo == hi || m->pieces[lo].len != k + 1) continue; /* the shortest of a range is its first */
        offer(&nodes[at + k + 1], nodes[at].score + m->pieces[lo].score, at, m->pieces[lo].id);
        if (k + 1 == one) known = true;
    }
    if (known) return QX_OK;
    if (m->unk < 0) QX_FAIL(m->ctx, QX_E_FORMAT, "tokenizer: a character is in no piece, and the file names no unknown token");
    offer(&nodes[at + one], nodes[at].score + m->unk_score, at, m->unk);
    return QX_OK;
}

static qx_status put_id(qx_buf *ids, int32_t id)
{
    int64_t v = id;
    return qx_buf_put(ids, &v, sizeof v);
}

/* The piece that is just s[0, n), or -1. */
static int32_t piece_of(const tok_model *m, const char *s, size_t n)
{
    size_t lo = 0, hi = m->n;
    for (size_t k = 0; k < n && s[k] && lo < hi; k++) {
        unsigned c = (unsigned char)s[k];
        lo = lower_bound(m, lo, hi, k, c);
        hi = lower_bound(m, lo, hi, k, c + 1);
    }
    return lo < hi && m->pieces[lo].len == n ? m->pieces[lo].id : -1;
}

/* Characters in a row that are unknown: the token of that name if there is one (the unknown token's own), else their bytes, if
 * the file has tokens for all of them, else the unknown token once. */
static qx_status put_unknown(const tok_model *m, const char *s, size_t n, qx_buf *ids)
{
    int32_t named = piece_of(m, s, n);
    if (named >= 0) return put_id(ids, named);
    bool all = m->bytes;
    for (size_t i = 0; i < n && all; i++) all = qx_tok_vocab_byte(m->vocab, (uint8_t)s[i]) >= 0;
    if (!all) return put_id(ids, m->unk);
    for (size_t i = 0; i < n; i++) QX_TRY(put_id(ids, qx_tok_vocab_byte(m->vocab, (uint8_t)s[i])));
    return QX_OK;
}

/* From the end back to the start; then in order, unknown characters that follow each other as one. */
static qx_status put_best(tok_model *m, const char *s, size_t n, const node *nodes, qx_buf *ids)
{
    qx_buf_clear(&m->starts);
    for (size_t end = n; end > 0; end = nodes[end].start) QX_TRY(qx_buf_put(&m->starts, &end, sizeof end));
    const size_t *ends = (const size_t *)(const void *)m->starts.data;
    for (size_t i = m->starts.len / sizeof *ends; i-- > 0;) {
        const node *e = &nodes[ends[i]];
        size_t start = e->start;
        if (e->id != m->unk) {
            QX_TRY(put_id(ids, e->id));
            continue;
        }
        while (i > 0 && nodes[ends[i - 1]].id == m->unk) i--;
        QX_TRY(put_unknown(m, s + start, ends[i] - start, ids));
    }
    return QX_OK;
}

static qx_status unigram_word(tok_model *m, const char *s, size_t n, qx_buf *ids)
{
    void *nodes;
    qx_buf_clear(&m->nodes);
    QX_TRY(qx_buf_extend(&m->nodes, (n + 1) * sizeof(node), &nodes));
    memset(nodes, 0, (n + 1) * sizeof(node));
    for (size_t at = 0; at < n; at += char_length(s + at)) QX_TRY(extend(m, s, at, n, nodes));
    return put_best(m, s, n, nodes, ids);
}

const tok_modeldef qx_tok_unigram = {.type = "Unigram", .scored = true, .open = unigram_open, .word = unigram_word, .free = unigram_free};
