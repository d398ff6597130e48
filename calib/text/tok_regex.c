/* tok_regex.c - the patterns of tokenizer.json on PCRE2.
 *
 * The files are written for Oniguruma (Ruby syntax): there \s is Unicode's White_Space, ^ and $ match at every line, and && cuts
 * classes. \s is spelled out as a class here, lines are switched on, && is refused rather than silently misread. Patterns come from
 * strangers, so matching has limits. */
#include "calib/text/tok.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { PATTERN_MAX = 1 << 16, MATCH_LIMIT = 10000000, HEAP_LIMIT_KIB = 64 << 10 };
#define SPACES "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

struct tok_regex {
    qx_ctx *ctx;
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    const char *literal; /* a plain string: no regex at all */
    size_t literal_len;
};

static const char *translate_escape(char c, bool in_class)
{
    if (c == 's') return in_class ? SPACES : "[" SPACES "]";
    if (c == 'S' && !in_class) return "[^" SPACES "]";
    return NULL;
}

/* Copies the pattern with \s and \S spelled out. */
static qx_status translate(qx_ctx *ctx, const char *p, qx_buf *out)
{
    bool in_class = false;
    for (; *p; p++) {
        if (*p == '\\' && p[1]) {
            const char *text = translate_escape(p[1], in_class);
            QX_TRY(text ? qx_buf_put(out, text, strlen(text)) : qx_buf_put(out, p, 2));
            p++;
            continue;
        }
        if (in_class && p[0] == '&' && p[1] == '&')
            QX_FAIL(ctx, QX_E_UNSUPPORTED, "tokenizer pattern with '&&' inside a class (Oniguruma's intersection) is not supported");
        if (!in_class && *p == '[') {
            in_class = true;
            QX_TRY(qx_buf_put(out, p, 1));
            if (p[1] == '^') QX_TRY(qx_buf_put(out, ++p, 1));
            if (p[1] != ']') continue;
            QX_TRY(qx_buf_put(out, "\\]", 2)); /* a bracket in first place is a member */
            p++;
            continue;
        }
        if (in_class && *p == ']') in_class = false;
        QX_TRY(qx_buf_put(out, p, 1));
    }
    return QX_OK;
}

static qx_status compile(tok_regex *r, const char *pattern, const qx_buf *text)
{
    int code;
    PCRE2_SIZE where;
    r->code = pcre2_compile((PCRE2_SPTR)text->data, text->len, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code,
                            &where, NULL);
    if (!r->code) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(code, message, sizeof message);
        QX_FAIL(r->ctx, QX_E_FORMAT, "tokenizer pattern '%s' does not compile: %s", pattern, (const char *)message);
    }
    pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* without it: the same, slower */
    r->match = pcre2_match_data_create_from_pattern(r->code, NULL);
    r->limits = pcre2_match_context_create(NULL);
    if (!r->match || !r->limits) QX_FAIL(r->ctx, QX_E_NOMEM, "tokenizer pattern: out of memory");
    pcre2_set_match_limit(r->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(r->limits, HEAP_LIMIT_KIB);
    return QX_OK;
}

qx_status qx_tok_regex_new(qx_ctx *ctx, const char *pattern, bool literal, tok_regex **out)
{
    *out = NULL;
    size_t n = strlen(pattern);
    if (n == 0 || n > PATTERN_MAX) QX_FAIL(ctx, QX_E_FORMAT, "tokenizer pattern of %zu bytes; 1 to %d are read", n, PATTERN_MAX);
    tok_regex *r;
    QX_TRY(QX_NEW(ctx, &r));
    r->ctx = ctx;
    qx_buf text = QX_BUF_INIT(ctx);
    qx_status st;
    if (literal) {
        st = qx_alloc(ctx, n + 1, (void **)&r->literal);
        if (st == QX_OK) memcpy((char *)(uintptr_t)r->literal, pattern, n);
        r->literal_len = n;
    } else {
        st = translate(ctx, pattern, &text);
        if (st == QX_OK) st = compile(r, pattern, &text);
    }
    qx_buf_free(&text);
    if (st != QX_OK) qx_tok_regex_free(r);
    else *out = r;
    return st;
}

void qx_tok_regex_free(tok_regex *r)
{
    if (!r) return;
    pcre2_code_free(r->code);
    pcre2_match_data_free(r->match);
    pcre2_match_context_free(r->limits);
    qx_free(r->ctx, (void *)(uintptr_t)r->literal);
    qx_free(r->ctx, r);
}

int qx_tok_regex_find(tok_regex *r, const char *s, size_t n, size_t from, size_t *start, size_t *end)
{
    if (r->literal) {
        const char *p = from < n ? memmem(s + from, n - from, r->literal, r->literal_len) : NULL;
        if (!p) return 0;
        *start = (size_t)(p - s);
        *end = *start + r->literal_len;
        return 1;
    }
    int rc = pcre2_match(r->code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK, r->match, r->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(r->code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, r->match, r->limits);
    if (rc == PCRE2_ERROR_NOMATCH) return 0;
    if (rc < 0) {
        qx_fail(r->ctx, QX_E_BUDGET, "tokenizer pattern gave up at byte %zu of %zu (PCRE2 error %d)", from, n, rc);
        return -1;
    }
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(r->match);
    *start = v[0];
    *end = v[1];
    return 1;
}
