/* string.c - operators on strings: concatenate, split, normalise, full-match by regular expression, n-gram counts. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <string.h>

#include "runtime/cpu/op.h"

static qx_status need_strings(const qx_call *c, uint32_t i, const qx_tensor **out)
{
    QX_TRY(qx_call_need(c, i, out));
    if ((*out)->dtype == QX_DT_STRING) return QX_OK;
    QX_CALL_FAIL(c, QX_E_TYPE, "input %u is %s, not strings", i, qx_dtype_get((int)(*out)->dtype)->name);
}

static const char *str_at(const qx_tensor *t, int64_t i)
{
    const char *s = ((char *const *)t->data)[i];
    return s ? s : "";
}

/* Elements [n] of a new string. */
static qx_status make_string(qx_call *c, const char *s, size_t n, char **out)
{
    QX_TRY(qx_alloc(c->ctx, n + 1, (void **)out));
    memcpy(*out, s, n);
    return QX_OK;
}

static qx_status finish(qx_call *c, uint32_t i, qx_tensor *t, qx_status st)
{
    if (st == QX_OK) return qx_call_out_take(c, i, t);
    qx_tensor_free(c->ctx, t);
    return st;
}

qx_status qx_cpu_string_concat(qx_call *c)
{
    const qx_tensor *a, *b;
    qx_tensor y = {0};
    int64_t dims[QX_MAX_RANK], sa[QX_MAX_RANK], sb[QX_MAX_RANK];
    int rank;
    QX_TRY(need_strings(c, 0, &a));
    QX_TRY(need_strings(c, 1, &b));
    if (!qx_broadcast(a->dims, a->rank, b->dims, b->rank, dims, &rank)) QX_CALL_FAIL(c, QX_E_SHAPE, "the two inputs do not broadcast");
    QX_TRY(qx_tensor_new(c->ctx, &y, QX_DT_STRING, rank, dims));
    qx_strides(a->dims, a->rank, sa);
    qx_strides(b->dims, b->rank, sb);
    qx_status st = QX_OK;
    for (int64_t i = 0; st == QX_OK && i < y.numel; i++) {
        int64_t rest = i, ia = 0, ib = 0;
        for (int d = rank - 1; d >= 0; d--) {
            const int64_t at = rest % dims[d];
            const int da = d - (rank - a->rank), db = d - (rank - b->rank);
            rest /= dims[d];
            if (da >= 0 && a->dims[da] > 1) ia += at * sa[da];
            if (db >= 0 && b->dims[db] > 1) ib += at * sb[db];
        }
        const size_t na = strlen(str_at(a, ia)), nb = strlen(str_at(b, ib));
        char **out = (char **)y.data + i;
        st = qx_alloc(c->ctx, na + nb + 1, (void **)out);
        if (st == QX_OK) {
            memcpy(*out, str_at(a, ia), na);
            memcpy(*out + na, str_at(b, ib), nb);
        }
    }
    return finish(c, 0, &y, st);
}

/* ---- StringSplit ---- */

/* Next piece of s at *at: whitespace runs (delimiter "") or a literal delimiter; `left` pieces may still be cut off (negative: all). */
static bool next_piece(const char *s, size_t *at, const char *delim, int64_t left, size_t *from, size_t *len)
{
    const size_t n = strlen(s), d = strlen(delim);
    if (!d) {
        while (*at < n && isspace((unsigned char)s[*at])) (*at)++;
        if (*at >= n) return false;
        *from = *at;
        size_t end = *at;
        if (left == 0) {
            end = n;
            while (end > *from && isspace((unsigned char)s[end - 1])) end--;
        } else {
            while (end < n && !isspace((unsigned char)s[end])) end++;
        }
        *len = end - *from;
        *at = left == 0 ? n : end;
        return true;
    }
    if (*at > n) return false;
    const char *hit = left == 0 ? NULL : strstr(s + *at, delim);
    *from = *at;
    *len = hit ? (size_t)(hit - s) - *at : n - *at;
    *at = hit ? (size_t)(hit - s) + d : n + 1;
    return true;
}

/* Counts pieces (out NULL) or writes them. */
static qx_status split_one(qx_call *c, const char *s, const char *delim, int64_t max, char **out, int64_t *count)
{
    size_t at = 0, from, len;
    *count = 0;
    if (!*s) return QX_OK;
    while (next_piece(s, &at, delim, max < 0 ? -1 : max - *count, &from, &len)) {
        if (out) QX_TRY(make_string(c, s + from, len, &out[*count]));
        (*count)++;
    }
    return QX_OK;
}

qx_status qx_cpu_string_split(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor y = {0}, *counts;
    int64_t most = 0, n, dims[QX_MAX_RANK + 1];
    QX_TRY(need_strings(c, 0, &x));
    const char *delim = qx_call_str(c, "delimiter", "");
    const int64_t max = qx_call_int(c, "maxsplit", -1);
    if (x->rank + 1 > QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "rank %d", x->rank + 1);
    QX_TRY(qx_call_out(c, 1, QX_DT_INT64, x->rank, x->dims, &counts));
    for (int64_t i = 0; i < x->numel; i++) {
        QX_TRY(split_one(c, str_at(x, i), delim, max, NULL, &n));
        ((int64_t *)counts->data)[i] = n;
        if (n > most) most = n;
    }
    memcpy(dims, x->dims, (size_t)x->rank * sizeof dims[0]);
    dims[x->rank] = most;
    QX_TRY(qx_tensor_new(c->ctx, &y, QX_DT_STRING, x->rank + 1, dims));
    qx_status st = QX_OK;
    for (int64_t i = 0; st == QX_OK && i < x->numel; i++) {
        char **row = (char **)y.data + i * most;
        st = split_one(c, str_at(x, i), delim, max, row, &n);
        for (; st == QX_OK && n < most; n++) st = make_string(c, "", 0, &row[n]);
    }
    return finish(c, 0, &y, st);
}

/* ---- StringNormalizer ---- (case change is ASCII; other letters stay) */

static void change_case(char *s, const char *action)
{
    for (; *s; s++)
        *s = (char)(!strcmp(action, "LOWER") ? tolower((unsigned char)*s) : !strcmp(action, "UPPER") ? toupper((unsigned char)*s) : *s);
}

static bool is_stopword(const qx_attr *stop, const char *s, bool sensitive)
{
    for (int64_t i = 0; stop && i < stop->n; i++)
        if (!(sensitive ? strcmp(stop->strings[i], s) : strcasecmp(stop->strings[i], s))) return true;
    return false;
}

qx_status qx_cpu_string_normalizer(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor y = {0};
    QX_TRY(need_strings(c, 0, &x));
    const char *action = qx_call_str(c, "case_change_action", "NONE");
    const bool sensitive = qx_call_int(c, "is_case_sensitive", 0) != 0;
    const qx_attr *stop = qx_call_attr(c, "stopwords");
    int64_t kept = 0, dims[2];
    if (x->rank < 1 || x->rank > 2 || (x->rank == 2 && x->dims[0] != 1)) QX_CALL_FAIL(c, QX_E_SHAPE, "the input must be [C] or [1, C]");
    for (int64_t i = 0; i < x->numel; i++) kept += !is_stopword(stop, str_at(x, i), sensitive);
    const bool empty = kept == 0;
    dims[0] = x->rank == 2 ? 1 : empty ? 1 : kept;
    dims[1] = empty ? 1 : kept;
    QX_TRY(qx_tensor_new(c->ctx, &y, QX_DT_STRING, x->rank, dims));
    char **out = y.data;
    qx_status st = empty ? make_string(c, "", 0, &out[0]) : QX_OK;
    for (int64_t i = 0; st == QX_OK && i < x->numel; i++) {
        const char *s = str_at(x, i);
        if (is_stopword(stop, s, sensitive)) continue;
        st = make_string(c, s, strlen(s), out);
        if (st == QX_OK) change_case(*out++, action);
    }
    return finish(c, 0, &y, st);
}

/* ---- RegexFullMatch ---- */

qx_status qx_cpu_regex_full_match(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor *y;
    int err;
    PCRE2_SIZE where;
    QX_TRY(need_strings(c, 0, &x));
    QX_TRY(qx_call_out(c, 0, QX_DT_BOOL, x->rank, x->dims, &y));
    const char *pattern = qx_call_str(c, "pattern", "");
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED, &err,
                                   &where, NULL);
    if (!re) QX_CALL_FAIL(c, QX_E_FORMAT, "pattern '%.60s' does not compile at %zu", pattern, (size_t)where);
    pcre2_match_data *md = pcre2_match_data_create_from_pattern(re, NULL);
    pcre2_match_context *mc = pcre2_match_context_create(NULL);
    qx_status st = md && mc ? QX_OK : qx_call_fail(c, QX_E_NOMEM, "no memory to match");
    if (mc) pcre2_set_match_limit(mc, 1000000);
    for (int64_t i = 0; st == QX_OK && i < x->numel; i++) {
        const int r = pcre2_match(re, (PCRE2_SPTR)str_at(x, i), PCRE2_ZERO_TERMINATED, 0, 0, md, mc);
        if (r < 0 && r != PCRE2_ERROR_NOMATCH) st = qx_call_fail(c, QX_E_BUDGET, "matching string %lld gave up (%d)", (long long)i, r);
        ((uint8_t *)y->data)[i] = r > 0;
    }
    pcre2_match_context_free(mc);
    pcre2_match_data_free(md);
    pcre2_code_free(re);
    return st;
}

/* ---- TfIdfVectorizer ---- */

typedef struct ngrams {
    const qx_attr *pool_i, *pool_s;
    const int64_t *counts, *indexes;
    const float *weights;
    int64_t n_counts, n_indexes, n_weights, min_len, max_len, max_skip, width;
} ngrams;

static bool same_item(const ngrams *g, int64_t pool_at, const qx_tensor *x, const int64_t *ids, int64_t at)
{
    if (g->pool_s) return !strcmp(g->pool_s->strings[pool_at], str_at(x, at));
    return g->pool_i->ints[pool_at] == ids[at];
}

/* Counts, over one row of n items, how often each n-gram of the pool appears (skips up to max_skip between items). */
static void count_row(const ngrams *g, const qx_tensor *x, const int64_t *ids, int64_t first, int64_t n, float *out)
{
    const int64_t pool_n = g->pool_s ? g->pool_s->n : g->pool_i->n;
    int64_t gram = 0;
    for (int64_t len = 1; len <= g->n_counts; len++) {
        const int64_t end = len < g->n_counts ? g->counts[len] : pool_n;
        for (int64_t p = g->counts[len - 1]; p + len <= end; p += len, gram++) {
            if (len < g->min_len || len > g->max_len) continue;
            for (int64_t skip = 0; skip <= (len > 1 ? g->max_skip : 0) && (len - 1) * (skip + 1) < n; skip++)
                for (int64_t s = 0; s + (len - 1) * (skip + 1) < n; s++) {
                    bool hit = true;
                    for (int64_t j = 0; hit && j < len; j++) hit = same_item(g, p + j, x, ids, first + s + j * (skip + 1));
                    if (hit) out[g->indexes[gram]] += 1.0f;
                }
        }
    }
}

static qx_status check_ngrams(qx_call *c, ngrams *g)
{
    const int64_t pool_n = g->pool_s ? g->pool_s->n : g->pool_i ? g->pool_i->n : -1;
    int64_t grams = 0;
    if (pool_n < 0 || !g->counts || !g->indexes) QX_CALL_FAIL(c, QX_E_FORMAT, "pool, ngram_counts or ngram_indexes is missing");
    for (int64_t len = 1; len <= g->n_counts; len++) {
        const int64_t from = g->counts[len - 1], end = len < g->n_counts ? g->counts[len] : pool_n;
        if (from < 0 || end < from || end > pool_n || (end - from) % len)
            QX_CALL_FAIL(c, QX_E_FORMAT, "ngram_counts[%lld] is %lld, the pool has %lld", (long long)(len - 1), (long long)from,
                         (long long)pool_n);
        grams += (end - from) / len;
    }
    if (g->n_indexes != grams)
        QX_CALL_FAIL(c, QX_E_FORMAT, "%lld ngram_indexes for %lld n-grams", (long long)g->n_indexes, (long long)grams);
    for (int64_t i = 0; i < grams; i++) {
        if (g->indexes[i] < 0 || g->indexes[i] > 1 << 28)
            QX_CALL_FAIL(c, QX_E_FORMAT, "ngram_indexes[%lld] is %lld", (long long)i, (long long)g->indexes[i]);
        if (g->indexes[i] >= g->width) g->width = g->indexes[i] + 1;
    }
    return QX_OK;
}

static void apply_mode(const ngrams *g, const char *mode, float *row)
{
    for (int64_t i = 0; i < g->n_indexes; i++) {
        float *v = &row[g->indexes[i]];
        const float w = g->weights && i < g->n_weights ? g->weights[i] : 1.0f;
        if (!strcmp(mode, "IDF")) *v = *v > 0 ? w : 0;
        else if (!strcmp(mode, "TFIDF")) *v *= w;
    }
}

qx_status qx_cpu_tfidf(qx_call *c)
{
    const qx_tensor *x;
    const int64_t *ids = NULL;
    int64_t n_ids, dims[2];
    float *y;
    QX_TRY(qx_call_need(c, 0, &x));
    ngrams g = {.pool_i = qx_call_attr(c, "pool_int64s"), .pool_s = qx_call_attr(c, "pool_strings"),
                .min_len = qx_call_int(c, "min_gram_length", 1),
                .max_len = qx_call_int(c, "max_gram_length", 1), .max_skip = qx_call_int(c, "max_skip_count", 0)};
    g.counts = qx_call_ints(c, "ngram_counts", &g.n_counts);
    g.indexes = qx_call_ints(c, "ngram_indexes", &g.n_indexes);
    g.weights = qx_call_floats(c, "weights", &g.n_weights);
    QX_TRY(check_ngrams(c, &g));
    if (x->rank < 1 || x->rank > 2) QX_CALL_FAIL(c, QX_E_SHAPE, "rank %d, expected 1 or 2", x->rank);
    if (!g.pool_s) QX_TRY(qx_call_in_i64(c, 0, &ids, &n_ids));
    const int64_t rows = x->rank == 2 ? x->dims[0] : 1, n = x->dims[x->rank - 1];
    dims[0] = rows;
    dims[1] = g.width;
    QX_TRY(qx_call_out_f32(c, 0, QX_DT_FLOAT, x->rank, x->rank == 2 ? dims : dims + 1, &y));
    memset(y, 0, (size_t)(rows * g.width) * sizeof *y);
    for (int64_t r = 0; r < rows; r++) {
        count_row(&g, x, ids, r * n, n, y + r * g.width);
        apply_mode(&g, qx_call_str(c, "mode", "TF"), y + r * g.width);
    }
    return QX_OK;
}
