/* text.c - patterns for names, numbers and sizes from options, names made printable. */
#include "base/text.h"
#include "base/checked.h"
#include "base/ctx.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REGEX_STEPS 1000000u /* a pattern that needs more on one name is answered "no", with a warning */
#define REGEX_DEPTH 10000u

struct qx_pattern {
    qx_ctx *ctx;
    char *text;
    pcre2_general_context *general;
    pcre2_match_context *limits;
    pcre2_code *regex; /* NULL: a glob */
    pcre2_match_data *match;
    int64_t hits;
    bool warned;
};

static void *pcre_alloc(size_t size, void *ctx)
{
    void *p;
    return qx_alloc_raw(ctx, size, &p) == QX_OK ? p : NULL;
}

static void pcre_free(void *p, void *ctx)
{
    qx_free(ctx, p);
}

static qx_status compile(qx_pattern *p, const char *text, size_t n)
{
    int code;
    PCRE2_SIZE at;
    const uint32_t flags = PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C;
    p->general = pcre2_general_context_create(pcre_alloc, pcre_free, p->ctx);
    if (!p->general) return QX_E_NOMEM;
    pcre2_compile_context *cc = pcre2_compile_context_create(p->general);
    if (!cc) return QX_E_NOMEM;
    p->regex = pcre2_compile((PCRE2_SPTR)text, n, flags, &code, &at, cc);
    pcre2_compile_context_free(cc);
    if (!p->regex) {
        char why[256];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        QX_FAIL(p->ctx, QX_E_USAGE, "pattern '%s': %s (at character %zu)", p->text, why, (size_t)at + 1);
    }
    p->limits = pcre2_match_context_create(p->general);
    p->match = pcre2_match_data_create_from_pattern(p->regex, p->general);
    if (!p->limits || !p->match) QX_FAIL(p->ctx, QX_E_NOMEM, "out of memory for pattern '%s'", p->text);
    pcre2_set_match_limit(p->limits, REGEX_STEPS);
    pcre2_set_depth_limit(p->limits, REGEX_DEPTH);
    return QX_OK;
}

qx_status qx_pattern_new(qx_ctx *ctx, const char *text, qx_pattern **out)
{
    size_t n = strlen(text);
    qx_pattern *p;
    *out = NULL;
    if (n == 0) QX_FAIL(ctx, QX_E_USAGE, "an empty pattern matches nothing; use '*' for every name");
    QX_TRY(QX_NEW(ctx, &p));
    p->ctx = ctx;
    qx_status st = qx_alloc(ctx, n + 1, (void **)&p->text);
    if (st == QX_OK) {
        memcpy(p->text, text, n);
        if (n > 2 && text[0] == '/' && text[n - 1] == '/') st = compile(p, p->text + 1, n - 2);
    }
    if (st != QX_OK) qx_pattern_free(p);
    else *out = p;
    return st;
}

void qx_pattern_free(qx_pattern *p)
{
    if (!p) return;
    pcre2_match_data_free(p->match);
    pcre2_match_context_free(p->limits);
    pcre2_code_free(p->regex);
    pcre2_general_context_free(p->general);
    qx_free(p->ctx, p->text);
    qx_free(p->ctx, p);
}

static bool regex_matches(qx_pattern *p, const char *name)
{
    int rc = pcre2_match(p->regex, (PCRE2_SPTR)name, strlen(name), 0, 0, p->match, p->limits);
    if (rc < -1 && !p->warned) {
        char why[256];
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
        p->warned = true;
        qx_warn(p->ctx, "pattern '%s' gave up on the name '%s': %s", p->text, name, why);
    }
    return rc >= 0;
}

/* A name is its own pattern, even with [ or * in it. */
static bool one_matches(qx_pattern *p, const char *glob, const char *name)
{
    if (p->regex) return regex_matches(p, name);
    return strcmp(glob, name) == 0 || fnmatch(glob, name, 0) == 0;
}

static bool any_matches(qx_pattern *p, const char *name)
{
    char small[512], *dotted = small;
    const char *glob = p->text + (p->text[0] == '/'), *bare = name + (name[0] == '/');
    size_t n = strlen(bare);
    if (one_matches(p, p->text, name)) return true;
    if ((bare != name || glob != p->text) && one_matches(p, glob, bare)) return true;
    if (!strchr(bare, '/')) return false;
    if (n >= sizeof small && qx_alloc_raw(p->ctx, n + 1, (void **)&dotted) != QX_OK) return false;
    for (size_t i = 0; i <= n; i++) dotted[i] = bare[i] == '/' ? '.' : bare[i];
    bool hit = one_matches(p, glob, dotted);
    if (dotted != small) qx_free(p->ctx, dotted);
    return hit;
}

bool qx_pattern_matches(qx_pattern *p, const char *name)
{
    bool hit = any_matches(p, name);
    p->hits += hit;
    return hit;
}

int64_t qx_pattern_hits(const qx_pattern *p)
{
    return p->hits;
}

const char *qx_pattern_text(const qx_pattern *p)
{
    return p->text;
}

static const struct { const char *unit; int64_t bytes; } units[] = {
    {"", 1}, {"B", 1},
    {"K", 1ll << 10}, {"KiB", 1ll << 10}, {"KB", 1000ll},
    {"M", 1ll << 20}, {"MiB", 1ll << 20}, {"MB", 1000000ll},
    {"G", 1ll << 30}, {"GiB", 1ll << 30}, {"GB", 1000000000ll},
    {"T", 1ll << 40}, {"TiB", 1ll << 40}, {"TB", 1000000000000ll},
};

/* The digits from t on into *value; *t stands behind them. False where they are too many. */
static bool read_digits(const char **t, int64_t *value)
{
    for (*value = 0; **t >= '0' && **t <= '9'; ++*t)
        if (!qx_mul_i64(*value, 10, value) || !qx_add_i64(*value, **t - '0', value)) return false;
    return true;
}

/* "1.5G" is exact, rounded down to a whole byte: and six digits of a fraction times a TiB fit. */
qx_status qx_parse_size(qx_ctx *ctx, const char *text, int64_t *out)
{
    int64_t whole, part = 0, of = 1;
    const char *t = text;
    if (!read_digits(&t, &whole)) QX_FAIL(ctx, QX_E_USAGE, "size '%s' is too large", text);
    bool number = t != text;
    if (number && *t == '.') {
        const char *point = t++;
        number = read_digits(&t, &part) && t - point > 1 && t - point <= 7;
        for (; number && ++point < t;) of *= 10;
    }
    for (size_t i = 0; number && i < sizeof units / sizeof *units; i++) {
        if (strcasecmp(t, units[i].unit) != 0 || (of > 1 && units[i].bytes == 1)) continue;
        if (!qx_mul_i64(whole, units[i].bytes, &whole) || !qx_add_i64(whole, part * units[i].bytes / of, &whole))
            QX_FAIL(ctx, QX_E_USAGE, "size '%s' is too large", text);
        *out = whole;
        return QX_OK;
    }
    QX_FAIL(ctx, QX_E_USAGE, "'%s' is not a size; write bytes, or a number with K, M, G or T, like 512M or 1.5G", text);
}

qx_status qx_parse_i64(qx_ctx *ctx, const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || text[0] == ' ' || text[0] == '\t') QX_FAIL(ctx, QX_E_USAGE, "'%s' is not a whole number", text);
    if (errno == ERANGE) QX_FAIL(ctx, QX_E_USAGE, "'%s' does not fit 64 bits", text);
    *out = value;
    return QX_OK;
}

qx_status qx_parse_f64(qx_ctx *ctx, const char *text, double *out)
{
    char *end;
    double value = strtod_l(text, &end, ctx->c_locale);
    if (end == text || *end || text[0] == ' ' || text[0] == '\t') QX_FAIL(ctx, QX_E_USAGE, "'%s' is not a number", text);
    if (!isfinite(value)) QX_FAIL(ctx, QX_E_USAGE, "'%s' is not a finite number", text);
    *out = value;
    return QX_OK;
}

const char *qx_format_bytes(int64_t bytes, char *buf, size_t cap)
{
    static const char *const names[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double v = (double)bytes;
    size_t u = 0;
    for (; fabs(v) >= 999.95 && u + 1 < sizeof names / sizeof *names; u++) v /= 1000;
    if (u == 0) snprintf(buf, cap, "%lld B", (long long)bytes);
    else snprintf(buf, cap, "%.*f %s", fabs(v) < 9.995 ? 2 : 1, v, names[u]);
    return buf;
}

/* Bytes of the valid UTF-8 sequence at s, its code point in *cp; 0 when it is not one. */
static size_t utf8_next(const unsigned char *s, uint32_t *cp)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    if (n == 0) return 0;
    *cp = n == 1 ? s[0] : s[0] & (0xFFu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if (s[i] >> 6 != 2) return 0;
        *cp = *cp << 6 | (s[i] & 0x3Fu);
    }
    return *cp < least[n] || *cp > 0x10FFFF || (*cp >= 0xD800 && *cp < 0xE000) ? 0 : n;
}

/* Control characters, and the marks that turn the direction of text around. */
static bool is_hidden(uint32_t cp)
{
    return cp < 0x20 || (cp >= 0x7F && cp < 0xA0) || cp == 0x200E || cp == 0x200F || (cp >= 0x2028 && cp <= 0x202E) ||
        (cp >= 0x2066 && cp <= 0x2069);
}

static size_t show_char(const unsigned char *s, char *shown, size_t *used)
{
    uint32_t cp = 0;
    size_t n = utf8_next(s, &cp);
    *used = n ? n : 1;
    if (n == 0) return (size_t)snprintf(shown, 16, "\\x%02x", s[0]);
    if (cp == '\n') return (size_t)snprintf(shown, 16, "\\n");
    if (cp == '\t') return (size_t)snprintf(shown, 16, "\\t");
    if (cp == '\r') return (size_t)snprintf(shown, 16, "\\r");
    if (is_hidden(cp)) return (size_t)snprintf(shown, 16, cp < 0x80 ? "\\x%02x" : "\\u%04x", (unsigned)cp);
    memcpy(shown, s, n);
    return n;
}

const char *qx_printable(const char *name, char *out, size_t cap)
{
    const unsigned char *s = (const unsigned char *)name;
    size_t len = 0, safe = 0; /* safe: where "..." still fits, between two characters */
    while (*s) {
        char shown[16];
        size_t used, n = show_char(s, shown, &used);
        if (len + n >= cap) {
            snprintf(out + safe, cap - safe, "%.3s", "...");
            return out;
        }
        memcpy(out + len, shown, n);
        len += n;
        s += used;
        if (len + 3 < cap) safe = len;
    }
    if (cap) out[len] = '\0';
    return out;
}

/* ---- mistyped words --------------------------------------------------------------------------------------------------- */

static int smallest(int a, int b, int c)
{
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Edits between two short words (Levenshtein, one row); long words count as far apart. */
static int edits_between(const char *a, size_t na, const char *b, size_t nb)
{
    enum { CAP = 40 };
    int row[CAP + 1];
    if (na > CAP || nb > CAP) return CAP;
    for (size_t j = 0; j <= nb; j++) row[j] = (int)j;
    for (size_t i = 0; i < na; i++) {
        int diagonal = row[0];
        row[0] = (int)i + 1;
        for (size_t j = 0; j < nb; j++) {
            const int next = smallest(row[j] + 1, row[j + 1] + 1, diagonal + (a[i] != b[j]));
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    return row[nb];
}

qx_nearest qx_nearest_to(const char *word, size_t len)
{
    enum { MOST = 3 };
    const int half = (int)(len < 100 ? (len + 1) / 2 : 50);
    return (qx_nearest){.word = word, .len = len, .edits = half < MOST + 1 ? half : MOST + 1};
}

void qx_nearest_offer(qx_nearest *n, const char *candidate, size_t len)
{
    const int d = edits_between(n->word, n->len, candidate, len);
    if (d >= n->edits) return;
    n->edits = d;
    n->best = candidate;
    n->best_len = len;
}

const char *qx_nearest_text(const qx_nearest *n, const char *prefix, char *out, size_t cap)
{
    out[0] = 0;
    if (n->best) snprintf(out, cap, "; did you mean %s%.*s?", prefix, (int)n->best_len, n->best);
    return out;
}
