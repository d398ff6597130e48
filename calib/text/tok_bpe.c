/* qx_tok_bpe.c - byte pair encoding: symbols of a word are joined by the merge of lowest rank, leftmost first, until none applies.
 *
 * A heap makes a word of n symbols n log n, because some tokenizers never cut the text and a word may be a megabyte. A merge that was
 * put on the heap is checked again when it is taken: its neighbours may have been merged meanwhile. */
#include "calib/text/tok.h"
#include "calib/text/unicode.h"

#include <string.h>

typedef struct merge { uint64_t pair; int32_t rank, id; } merge; /* pair: left << 32 | right; id < 0: free slot */
typedef struct symbol { int32_t id; int64_t prev, next; bool gone; } symbol;
typedef struct candidate { int32_t rank, id; int64_t at; } candidate;

struct tok_model {
    qx_ctx *ctx;
    const tok_vocab *vocab;
    merge *merges; /* [mask + 1], open addressing */
    uint64_t mask;
    const char *prefix, *suffix;
    int32_t unk, byte_ids[256]; /* -1: none */
    bool fuse_unk, byte_fallback, ignore_merges;
    qx_buf symbols, heap, text;
};

static uint64_t slot_of(uint64_t pair) { return pair * 0x9e3779b97f4a7c15u >> 20 ^ pair * 0xc2b2ae3d27d4eb4fu >> 31; }

static merge *find_merge(const tok_model *m, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (uint64_t i = slot_of(pair) & m->mask;; i = (i + 1) & m->mask)
        if (m->merges[i].id < 0 || m->merges[i].pair == pair) return &m->merges[i];
}

/* ---- opening ---- */

static qx_status split_merge(qx_ctx *ctx, const qx_json *j, int64_t rank, qx_buf *left, const char **right)
{
    const char *text = qx_json_string(j, NULL), *gap = text ? strchr(text, ' ') : NULL;
    const char *a = qx_json_string(qx_json_at(j, 0), NULL), *b = qx_json_string(qx_json_at(j, 1), NULL);
    qx_buf_clear(left);
    if (text && gap && gap != text && gap[1] && !strchr(gap + 1, ' ')) {
        *right = gap + 1;
        return qx_buf_put(left, text, (size_t)(gap - text));
    }
    if (text || qx_json_count(j) != 2 || !a || !b || !*a || !*b)
        QX_FAIL(ctx, QX_E_FORMAT, "tokenizer: merge %lld is not two parts", (long long)rank);
    *right = b;
    return qx_buf_put(left, a, strlen(a));
}

static qx_status add_merge(tok_model *m, const qx_json *j, int64_t rank, qx_buf *left)
{
    const char *right = "";
    QX_TRY(split_merge(m->ctx, j, rank, left, &right));
    int32_t a = qx_tok_vocab_id(m->vocab, left->data), b = qx_tok_vocab_id(m->vocab, right);
    if (a < 0 || b < 0)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tokenizer: merge %lld: '%s' is not in the vocabulary", (long long)rank, a < 0 ? left->data : right);
    size_t skip = strlen(m->prefix);
    QX_TRY(qx_buf_put(left, right + (strncmp(right, m->prefix, skip) ? 0 : skip),
                      strlen(right) - (strncmp(right, m->prefix, skip) ? 0 : skip)));
    int32_t id = qx_tok_vocab_id(m->vocab, left->data);
    if (id < 0)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tokenizer: merge %lld makes '%s', which is not in the vocabulary", (long long)rank, left->data);
    merge *slot = find_merge(m, a, b);
    /* a pair given twice: the later rank, as the package does */
    *slot = (merge){.pair = (uint64_t)(uint32_t)a << 32 | (uint32_t)b, .rank = (int32_t)rank, .id = id};
    return QX_OK;
}

static qx_status read_merges(tok_model *m, const qx_json *list)
{
    int64_t n = qx_json_count(list);
    if (qx_json_type(list) != QX_JSON_ARRAY || n > 1 << 24)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tokenizer: merges: a list of at most %d is expected", 1 << 24);
    uint64_t slots = 16;
    while (slots < (uint64_t)n * 2) slots *= 2;
    m->mask = slots - 1;
    QX_TRY(QX_NEW_ARRAY(m->ctx, slots, &m->merges));
    for (uint64_t i = 0; i < slots; i++) m->merges[i].id = -1;
    qx_buf left = QX_BUF_INIT(m->ctx);
    qx_status st = QX_OK;
    for (int64_t i = 0; i < n && st == QX_OK; i++) st = add_merge(m, qx_json_at(list, i), i, &left);
    qx_buf_free(&left);
    return st;
}

static void bpe_free(tok_model *m)
{
    if (!m) return;
    qx_buf_free(&m->symbols);
    qx_buf_free(&m->heap);
    qx_buf_free(&m->text);
    qx_free(m->ctx, m->merges);
    qx_free(m->ctx, m);
}

static void find_byte_ids(tok_model *m)
{
    for (int b = 0; b < 256; b++) m->byte_ids[b] = qx_tok_vocab_byte(m->vocab, (uint8_t)b);
}

static qx_status bpe_read(tok_model *m, qx_arena *a, const qx_json *j)
{
    const char *unk = qx_json_string(qx_json_get(j, "unk_token"), NULL);
    m->prefix = qx_arena_strdup(a, qx_json_string(qx_json_get(j, "continuing_subword_prefix"), ""));
    m->suffix = qx_arena_strdup(a, qx_json_string(qx_json_get(j, "end_of_word_suffix"), ""));
    if (!m->prefix || !m->suffix) return QX_E_NOMEM;
    m->unk = unk ? qx_tok_vocab_id(m->vocab, unk) : -1;
    m->fuse_unk = qx_json_bool(qx_json_get(j, "fuse_unk"), false);
    m->byte_fallback = qx_json_bool(qx_json_get(j, "byte_fallback"), false);
    m->ignore_merges = qx_json_bool(qx_json_get(j, "ignore_merges"), false);
    const qx_json *dropout = qx_json_get(j, "dropout");
    if (dropout && qx_json_number(dropout, 0) != 0)
        QX_FAIL(m->ctx, QX_E_UNSUPPORTED, "tokenizer: BPE dropout %g would make the ids random", qx_json_number(dropout, 0));
    find_byte_ids(m);
    return read_merges(m, qx_json_get(j, "merges"));
}

static qx_status bpe_open(qx_ctx *ctx, qx_arena *a, const tok_vocab *v, const qx_json *j, tok_model **out)
{
    tok_model *m;
    QX_TRY(QX_NEW(ctx, &m));
    m->ctx = ctx;
    m->vocab = v;
    m->symbols = m->heap = m->text = QX_BUF_INIT(ctx);
    qx_status st = bpe_read(m, a, j);
    if (st != QX_OK) bpe_free(m);
    else *out = m;
    return st;
}

/* ---- the heap: lowest rank, then leftmost ---- */

static bool before(const candidate *a, const candidate *b) { return a->rank != b->rank ? a->rank < b->rank : a->at < b->at; }

static qx_status heap_put(qx_buf *heap, const candidate *t)
{
    QX_TRY(qx_buf_put(heap, t, sizeof *t));
    candidate *h = (candidate *)(void *)heap->data;
    size_t i = heap->len / sizeof *t - 1;
    while (i > 0 && before(t, &h[(i - 1) / 2])) h[i] = h[(i - 1) / 2], i = (i - 1) / 2;
    h[i] = *t;
    return QX_OK;
}

static bool heap_take(qx_buf *heap, candidate *out)
{
    if (heap->len == 0) return false;
    candidate *h = (candidate *)(void *)heap->data;
    *out = h[0];
    heap->len -= sizeof *h;
    size_t n = heap->len / sizeof *h, i = 0;
    candidate last = h[n];
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && before(&h[c + 1], &h[c])) c++;
        if (!before(&h[c], &last)) break;
        h[i] = h[c];
    }
    h[i] = last;
    return true;
}

/* ---- a word ---- */

static qx_status add_symbol(tok_model *m, int32_t id)
{
    symbol s = {.id = id};
    return qx_buf_put(&m->symbols, &s, sizeof s);
}

static bool add_bytes(tok_model *m, const char *s, size_t n, qx_status *st)
{
    for (size_t i = 0; i < n; i++)
        if (m->byte_ids[(unsigned char)s[i]] < 0) return false;
    for (size_t i = 0; i < n && *st == QX_OK; i++) *st = add_symbol(m, m->byte_ids[(unsigned char)s[i]]);
    return true;
}

/* The id of the code point s[at, at + len) of a word of n bytes, with the prefix and suffix that the vocabulary puts on. */
static qx_status char_id(tok_model *m, const char *s, size_t at, size_t len, size_t n, int32_t *id)
{
    qx_buf_clear(&m->text);
    if (at > 0 && *m->prefix) QX_TRY(qx_buf_put(&m->text, m->prefix, strlen(m->prefix)));
    QX_TRY(qx_buf_put(&m->text, s + at, len));
    if (at + len == n && *m->suffix) QX_TRY(qx_buf_put(&m->text, m->suffix, strlen(m->suffix)));
    *id = qx_tok_vocab_id(m->vocab, m->text.data);
    return QX_OK;
}

static qx_status load_symbols(tok_model *m, const char *s, size_t n)
{
    bool pending = false; /* an unknown token that is not written yet */
    qx_buf_clear(&m->symbols);
    for (size_t at = 0, len; at < n; at += len) {
        uint32_t c;
        int32_t id;
        qx_status st = QX_OK;
        len = qx_utf8_get(s + at, &c);
        QX_TRY(char_id(m, s, at, len, n, &id));
        if (id < 0 && m->byte_fallback && add_bytes(m, s + at, len, &st)) {
            QX_TRY(st);
            continue;
        }
        if (pending && (id >= 0 || !m->fuse_unk)) QX_TRY(add_symbol(m, m->unk));
        pending = id < 0 && m->unk >= 0;
        if (id >= 0) QX_TRY(add_symbol(m, id));
    }
    return pending ? add_symbol(m, m->unk) : QX_OK;
}

static qx_status offer(tok_model *m, symbol *s, int64_t left, int64_t right)
{
    if (left < 0 || right < 0) return QX_OK;
    const merge *f = find_merge(m, s[left].id, s[right].id);
    if (f->id < 0) return QX_OK;
    candidate t = {.rank = f->rank, .id = f->id, .at = left};
    return heap_put(&m->heap, &t);
}

static qx_status merge_all(tok_model *m)
{
    symbol *s = (symbol *)(void *)m->symbols.data;
    int64_t n = (int64_t)(m->symbols.len / sizeof *s);
    qx_buf_clear(&m->heap);
    for (int64_t i = 0; i < n; i++) s[i].prev = i - 1, s[i].next = i + 1 < n ? i + 1 : -1;
    for (int64_t i = 0; i + 1 < n; i++) QX_TRY(offer(m, s, i, i + 1));
    for (candidate t; heap_take(&m->heap, &t);) {
        symbol *left = &s[t.at];
        if (left->gone || left->next < 0) continue;
        symbol *right = &s[left->next];
        const merge *f = find_merge(m, left->id, right->id);
        if (f->id != t.id) continue; /* what stood here was merged otherwise */
        left->id = t.id;
        right->gone = true;
        left->next = right->next;
        if (left->next >= 0) s[left->next].prev = t.at;
        QX_TRY(offer(m, s, left->prev, t.at));
        QX_TRY(offer(m, s, t.at, left->next));
    }
    return QX_OK;
}

static qx_status put_id(qx_buf *ids, int32_t id)
{
    int64_t v = id;
    return qx_buf_put(ids, &v, sizeof v);
}

static qx_status bpe_word(tok_model *m, const char *s, size_t n, qx_buf *ids)
{
    if (m->ignore_merges) {
        qx_buf_clear(&m->text);
        QX_TRY(qx_buf_put(&m->text, s, n));
        int32_t id = memchr(s, 0, n) ? -1 : qx_tok_vocab_id(m->vocab, m->text.data);
        if (id >= 0) return put_id(ids, id);
    }
    QX_TRY(load_symbols(m, s, n));
    QX_TRY(merge_all(m));
    const symbol *p = (const symbol *)(const void *)m->symbols.data;
    for (size_t i = 0; i < m->symbols.len / sizeof *p; i++)
        if (!p[i].gone) QX_TRY(put_id(ids, p[i].id));
    return QX_OK;
}

const tok_modeldef qx_tok_bpe = {.type = "BPE", .open = bpe_open, .word = bpe_word, .free = bpe_free};
