/* clip.c - CLIP's byte-pair encoding: NFC, white space, lower case, split into words, bytes to symbols, merges by rank.
 *
 * Both tokenizers of SDXL are of this kind; they differ in the padding token. Nothing of a vocabulary is built in. */
#include "clip.h"

#include <stdio.h>
#include <string.h>

#include "json.h"
#include "unicode.h"

enum { MOST_PROMPT = 16384, MOST_VOCAB = 1 << 20, MAX_LEN = 4096 };

typedef struct entry { uint64_t key; int32_t value, rank; } entry; /* words: key is a hash, checked against text */
typedef struct table { entry *e; size_t mask; } table;

struct sx_clip {
    char **words;  /* [n_words] by id; NULL: no such id */
    int n_words;
    table ids;     /* hash of a word -> id */
    table merges;  /* (left id, right id) -> merged id and rank */
    int32_t bos, eos, pad, unk;
    int max_length;
    int32_t byte_mid[256], byte_end[256]; /* id of a byte's symbol inside a word, and at its end */
};

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ (x >> 33);
}

static uint64_t hash_text(const char *s, size_t n)
{
    uint64_t h = 1469598103934665603ull;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 1099511628211ull;
    return mix(h) | 1;
}

static int table_new(sx_err *e, table *t, size_t count)
{
    size_t cap = 16;
    while (cap < count * 2) cap *= 2;
    t->mask = cap - 1;
    return SX_NEW(e, cap, &t->e);
}

static int32_t find_word(const sx_clip *t, const char *s, size_t n)
{
    uint64_t h = hash_text(s, n);
    for (size_t i = h & t->ids.mask; t->ids.e[i].key; i = (i + 1) & t->ids.mask) {
        const char *w = t->words[t->ids.e[i].value];
        if (t->ids.e[i].key == h && strncmp(w, s, n) == 0 && !w[n]) return t->ids.e[i].value;
    }
    return -1;
}

static void put_word(sx_clip *t, int32_t id)
{
    uint64_t h = hash_text(t->words[id], strlen(t->words[id]));
    size_t i = h & t->ids.mask;
    while (t->ids.e[i].key) i = (i + 1) & t->ids.mask;
    t->ids.e[i] = (entry){h, id, 0};
}

static uint64_t pair_key(int32_t a, int32_t b) { return ((uint64_t)(uint32_t)a << 32 | (uint32_t)b) + 1; }

static const entry *find_merge(const sx_clip *t, int32_t a, int32_t b)
{
    uint64_t k = pair_key(a, b);
    for (size_t i = mix(k) & t->merges.mask; t->merges.e[i].key; i = (i + 1) & t->merges.mask)
        if (t->merges.e[i].key == k) return &t->merges.e[i];
    return NULL;
}

static int load_vocab(sx_err *e, sx_clip *t, const sx_json *vocab, const char *path)
{
    int n = sx_json_count(vocab);
    if (!sx_json_is_object(vocab) || n < 2 || n > MOST_VOCAB)
        return sx_fail(e, SX_FAILED, "'%s': %d tokens, expected an object of 2 to %d", path, n, MOST_VOCAB);
    SX_TRY(SX_NEW(e, n, &t->words));
    t->n_words = n;
    SX_TRY(table_new(e, &t->ids, (size_t)n));
    for (const sx_json *m = sx_json_first(vocab); m; m = sx_json_next(m)) {
        double id = sx_json_value(m, -1);
        if (!(id >= 0 && id < n) || id != (int)id)
            return sx_fail(e, SX_FAILED, "'%s': token '%.80s' has id %g, expected a whole number below %d", path, sx_json_key(m), id, n);
        if (t->words[(int)id])
            return sx_fail(e, SX_FAILED, "'%s': tokens '%.80s' and '%.80s' share id %d", path, t->words[(int)id], sx_json_key(m), (int)id);
        SX_TRY(sx_strdup(e, sx_json_key(m), &t->words[(int)id]));
        put_word(t, (int32_t)id);
    }
    return SX_OK;
}

static int add_merge(sx_err *e, sx_clip *t, const char *a, size_t na, const char *b, size_t nb, int rank, const char *path)
{
    char both[1024];
    if (na + nb >= sizeof both)
        return sx_fail(e, SX_FAILED, "'%s': merge %d makes a token of %zu bytes, at most %zu are accepted", path, rank + 1, na + nb,
                       sizeof both - 1);
    memcpy(both, a, na);
    memcpy(both + na, b, nb);
    int32_t ia = find_word(t, a, na), ib = find_word(t, b, nb), id = find_word(t, both, na + nb);
    if (ia < 0 || ib < 0 || id < 0)
        return sx_fail(e, SX_FAILED, "'%s': merge %d, '%.*s %.*s', names a token that is not in the vocabulary of %d", path, rank + 1,
                       (int)na, a, (int)nb, b, t->n_words);
    uint64_t k = pair_key(ia, ib);
    size_t i = mix(k) & t->merges.mask;
    for (; t->merges.e[i].key; i = (i + 1) & t->merges.mask)
        if (t->merges.e[i].key == k) return SX_OK; /* the first rank counts */
    t->merges.e[i] = (entry){k, id, rank};
    return SX_OK;
}

/* Lines "a b" behind an optional "#version" line; what exceeds vocabulary - 514 (OpenAI's original file) is not part of CLIP. */
static int load_merges_text(sx_err *e, sx_clip *t, const char *text, const char *path)
{
    int rank = 0, most = t->n_words > 514 ? t->n_words - 514 : t->n_words;
    SX_TRY(table_new(e, &t->merges, (size_t)most));
    const char *p = text;
    if (strncmp(p, "#version", 8) == 0) p += strcspn(p, "\n");
    while (*p && rank < most) {
        p += strspn(p, "\r\n");
        size_t n = strcspn(p, "\r\n"), a = strcspn(p, " \r\n");
        if (!n) break;
        if (a == 0 || a + 1 >= n)
            return sx_fail(e, SX_FAILED, "'%s': merge %d is '%.*s', expected two tokens with a space between", path, rank + 1,
                           (int)(n < 80 ? n : 80), p);
        SX_TRY(add_merge(e, t, p, a, p + a + 1, n - a - 1, rank++, path));
        p += n;
    }
    return rank ? SX_OK : sx_fail(e, SX_FAILED, "'%s' holds no merges", path);
}

static int load_merges_json(sx_err *e, sx_clip *t, const sx_json *merges, const char *path)
{
    int rank = 0;
    SX_TRY(table_new(e, &t->merges, (size_t)sx_json_count(merges)));
    for (const sx_json *m = sx_json_first(merges); m; m = sx_json_next(m), rank++) {
        const char *a = sx_json_string(m), *b = NULL;
        size_t na = a ? strcspn(a, " ") : 0;
        if (a && a[na]) b = a + na + 1;
        if (sx_json_is_array(m) && sx_json_count(m) == 2) {
            a = sx_json_string(sx_json_first(m));
            b = sx_json_string(sx_json_next(sx_json_first(m)));
            na = a ? strlen(a) : 0;
        }
        if (!a || !b) return sx_fail(e, SX_FAILED, "'%s': merge %d is not a pair of tokens", path, rank + 1);
        SX_TRY(add_merge(e, t, a, na, b, strlen(b), rank, path));
    }
    return rank ? SX_OK : sx_fail(e, SX_FAILED, "'%s' holds no merges", path);
}

/* GPT-2's alphabet: printable bytes stand for themselves, the other 68 are moved to U+0100 and up. */
static uint32_t byte_symbol(int b)
{
    if ((b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE) return (uint32_t)b;
    int moved = b < '!' ? b : b <= 0xA0 ? b - 0x7F + 33 : 67;
    return 0x100 + (uint32_t)moved;
}

static void map_bytes(sx_clip *t)
{
    for (int b = 0; b < 256; b++) {
        char s[8];
        int n = sx_utf8_encode(byte_symbol(b), s);
        int32_t id = find_word(t, s, (size_t)n);
        t->byte_mid[b] = id >= 0 ? id : t->unk;
        memcpy(s + n, "</w>", 4);
        id = find_word(t, s, (size_t)n + 4);
        t->byte_end[b] = id >= 0 ? id : t->unk;
    }
}

/* A special token is written as text, or as an object with "content". */
static int32_t special(const sx_clip *t, const sx_json *cfg, const char *key, int32_t fallback)
{
    const char *s = sx_json_text(cfg, key, NULL);
    if (!s) s = sx_json_text(sx_json_get(cfg, key), "content", NULL);
    int32_t id = s ? find_word(t, s, strlen(s)) : -1;
    return id >= 0 ? id : fallback;
}

static int32_t by_name(const sx_clip *t, const char *s) { return find_word(t, s, strlen(s)); }

static int load_specials(sx_err *e, sx_clip *t, const char *dir)
{
    static const char *const files[] = {"tokenizer_config.json", "special_tokens_map.json"};
    t->bos = by_name(t, "<|startoftext|>");
    t->eos = t->unk = by_name(t, "<|endoftext|>");
    t->pad = -1;
    t->max_length = 77;
    for (int i = 0; i < 2; i++) {
        char *path;
        sx_json *cfg = NULL;
        SX_TRY(sx_join(e, dir, files[i], &path));
        int rc = sx_is_file(path) ? sx_json_read(e, path, &cfg) : SX_OK;
        sx_free(path);
        SX_TRY(rc);
        t->bos = special(t, cfg, "bos_token", t->bos);
        t->eos = special(t, cfg, "eos_token", t->eos);
        t->unk = special(t, cfg, "unk_token", t->unk);
        t->pad = special(t, cfg, "pad_token", t->pad);
        double most = sx_json_number(cfg, "model_max_length", t->max_length);
        if (most >= 3 && most <= MAX_LEN) t->max_length = (int)most; /* "no limit" is written as 1e30: the default stays */
        sx_json_free(cfg);
    }
    if (t->bos < 0 || t->eos < 0)
        return sx_fail(e, SX_FAILED, "'%s': the vocabulary of %d tokens lacks <|startoftext|> or <|endoftext|>", dir, t->n_words);
    if (t->pad < 0) t->pad = t->eos;
    return SX_OK;
}

static int load_pair(sx_err *e, sx_clip *t, const char *vocab_path, const char *merges_path)
{
    sx_json *vocab = NULL;
    char *text = NULL;
    size_t len;
    int rc;
    SX_TRY_GOTO(rc, sx_json_read(e, vocab_path, &vocab));
    SX_TRY_GOTO(rc, load_vocab(e, t, vocab, vocab_path));
    SX_TRY_GOTO(rc, sx_read_file(e, merges_path, 64 << 20, &text, &len));
    rc = load_merges_text(e, t, text, merges_path);
done:
    sx_json_free(vocab);
    sx_free(text);
    return rc;
}

static int load_single(sx_err *e, sx_clip *t, const char *path)
{
    sx_json *doc = NULL;
    SX_TRY(sx_json_read(e, path, &doc));
    const sx_json *model = sx_json_get(doc, "model");
    int rc = load_vocab(e, t, sx_json_get(model, "vocab"), path);
    if (rc == SX_OK) rc = load_merges_json(e, t, sx_json_get(model, "merges"), path);
    sx_json_free(doc);
    return rc;
}

static int load_files(sx_err *e, sx_clip *t, const char *dir)
{
    char *vocab = NULL, *merges = NULL, *single = NULL;
    int rc;
    SX_TRY_GOTO(rc, sx_join(e, dir, "vocab.json", &vocab));
    SX_TRY_GOTO(rc, sx_join(e, dir, "merges.txt", &merges));
    SX_TRY_GOTO(rc, sx_join(e, dir, "tokenizer.json", &single));
    bool v = sx_is_file(vocab), m = sx_is_file(merges), s = sx_is_file(single);
    if (v && m) rc = load_pair(e, t, vocab, merges);
    else if (s) rc = load_single(e, t, single);
    else
        rc = sx_fail(e, SX_FAILED, "tokenizer '%s': expected vocab.json and merges.txt, or tokenizer.json; found %s%s%s", dir,
                     v ? "vocab.json only" : "", m ? "merges.txt only" : "", v || m ? "" : "none of them");
done:
    sx_free(vocab);
    sx_free(merges);
    sx_free(single);
    return rc;
}

int sx_clip_open(sx_err *e, const char *dir, sx_clip **out)
{
    sx_clip *t;
    SX_TRY(SX_NEW(e, 1, &t));
    int rc = load_files(e, t, dir);
    if (rc == SX_OK) rc = load_specials(e, t, dir);
    if (rc != SX_OK) {
        sx_clip_free(t);
        return rc;
    }
    map_bytes(t);
    *out = t;
    return SX_OK;
}

void sx_clip_free(sx_clip *t)
{
    if (!t) return;
    for (int i = 0; t->words && i < t->n_words; i++) sx_free(t->words[i]);
    sx_free(t->words);
    sx_free(t->ids.e);
    sx_free(t->merges.e);
    sx_free(t);
}

int sx_clip_max_length(const sx_clip *t) { return t->max_length; }

/* One word: lowest rank first, leftmost among equals, until no pair merges. ids is changed in place. */
static int merge_word(const sx_clip *t, int32_t *ids, int n)
{
    for (;;) {
        const entry *best = NULL;
        int at = 0, out = 0;
        for (int i = 0; i + 1 < n; i++) {
            const entry *m = find_merge(t, ids[i], ids[i + 1]);
            if (m && (!best || m->rank < best->rank)) {
                best = m;
                at = i;
            }
        }
        if (!best) return n;
        int32_t a = ids[at], b = ids[at + 1];
        for (int i = 0; i < n; out++) { /* every occurrence of the pair at once, as the rank is the lowest */
            bool hit = i + 1 < n && ids[i] == a && ids[i + 1] == b;
            ids[out] = hit ? best->value : ids[i];
            i += hit ? 2 : 1;
        }
        n = out;
    }
}

typedef struct tokens { int32_t *id; int n; } tokens;

static void encode_word(const sx_clip *t, const uint32_t *cp, size_t n, tokens *out)
{
    int32_t *ids = out->id + out->n;
    int k = 0;
    for (size_t i = 0; i < n; i++) {
        char b[4];
        int len = sx_utf8_encode(cp[i], b);
        for (int j = 0; j < len; j++) {
            bool end = i + 1 == n && j + 1 == len;
            ids[k++] = (end ? t->byte_end : t->byte_mid)[(unsigned char)b[j]];
        }
    }
    out->n += merge_word(t, ids, k);
}

static size_t contraction(const uint32_t *c, size_t n)
{
    static const char *const known[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        size_t len = strlen(known[k]), i = 0;
        while (i < len && i < n && c[i] == (uint32_t)known[k][i]) i++;
        if (i == len) return len;
    }
    return 0;
}

static bool is_other(uint32_t c) { return !sx_is_space(c) && !sx_is_letter(c) && !sx_is_number(c); }

/* Length of the word that starts at c (no space): contraction, letters, one number character, or anything else. */
static size_t word_length(const uint32_t *c, size_t n)
{
    size_t k = contraction(c, n);
    if (k) return k;
    if (sx_is_number(c[0])) return 1;
    bool (*kind)(uint32_t) = sx_is_letter(c[0]) ? sx_is_letter : is_other;
    for (k = 1; k < n && kind(c[k]);) k++;
    return k;
}

/* Text between special tokens. */
static int encode_plain(sx_err *e, const sx_clip *t, const char *s, size_t len, tokens *out)
{
    uint32_t *cp = NULL, *nfc = NULL, *low = NULL;
    size_t n, m = 0;
    int rc;
    SX_TRY_GOTO(rc, SX_NEW(e, len, &cp));
    SX_TRY_GOTO(rc, sx_nfc(e, cp, sx_utf8_decode(s, len, cp), &nfc, &n));
    SX_TRY_GOTO(rc, SX_NEW(e, n * 2, &low));
    for (size_t i = 0; i < n; i++) m += (size_t)sx_lower(nfc[i], low + m);
    for (size_t i = 0; i < m;) {
        if (sx_is_space(low[i])) {
            i++;
            continue;
        }
        size_t k = word_length(low + i, m - i);
        encode_word(t, low + i, k, out);
        i += k;
    }
done:
    sx_free(cp);
    sx_free(nfc);
    sx_free(low);
    return rc;
}

static const char *next_special(const sx_clip *t, const char *s, int32_t *id)
{
    const char *b = strstr(s, t->words[t->bos]), *x = strstr(s, t->words[t->eos]);
    const char *first = !b || (x && x < b) ? x : b;
    *id = first == x ? t->eos : t->bos;
    return first;
}

static int encode_all(sx_err *e, const sx_clip *t, const char *s, tokens *out)
{
    for (;;) {
        int32_t id;
        const char *mark = next_special(t, s, &id);
        SX_TRY(encode_plain(e, t, s, mark ? (size_t)(mark - s) : strlen(s), out));
        if (!mark) return SX_OK;
        out->id[out->n++] = id;
        s = mark + strlen(t->words[id]);
    }
}

int sx_clip_encode(sx_err *e, const sx_clip *t, const char *prompt, int64_t *ids, int len, int *dropped)
{
    size_t bytes = strlen(prompt);
    if (bytes > MOST_PROMPT) return sx_fail(e, SX_USAGE, "prompt of %zu bytes, at most %d are accepted", bytes, MOST_PROMPT);
    if (len < 3) return sx_fail(e, SX_FAILED, "%d tokens leave no room for a prompt", len);
    tokens all = {0};
    SX_TRY(SX_NEW(e, bytes * 12 + 16, &all.id)); /* canonical decomposition and lower case at most triple the bytes, 4 bytes a symbol */
    int rc = encode_all(e, t, prompt, &all);
    if (rc == SX_OK) {
        int keep = all.n < len - 2 ? all.n : len - 2;
        if (dropped) *dropped = all.n - keep;
        ids[0] = t->bos;
        for (int i = 0; i < keep; i++) ids[i + 1] = all.id[i];
        for (int i = keep + 1; i < len; i++) ids[i] = i == keep + 1 ? t->eos : t->pad;
    }
    sx_free(all.id);
    return rc;
}
