/* fuzz_pattern.c - a name pattern, a newline, a name; the same text as a number, as a size, and made printable. */
#include "fuzz.h"
#include "base/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 300) return 0; /* fnmatch may take long on a long pattern, which only the user writes */
    qx_ctx *ctx = fuzz_ctx(size);
    char *text = fuzz_text(data, size), *name = strchr(text, '\n'), shown[40];
    qx_pattern *p;
    int64_t i;
    double d;
    if (name) *name++ = '\0';
    qx_status st = qx_pattern_new(ctx, text, &p);
    if (st == QX_OK) qx_pattern_matches(p, name ? name : text);
    qx_pattern_free(p);
    if (qx_parse_size(ctx, text, &i) == QX_OK && i < 0) abort();
    (void)qx_parse_i64(ctx, text, &i);
    if (qx_parse_f64(ctx, text, &d) == QX_OK && !(d - d == 0)) abort();
    for (size_t cap = 1; cap <= sizeof shown; cap += 13)
        if (strlen(qx_printable(name ? name : text, shown, cap)) >= cap) abort();
    if (st == QX_OK) st = qx_fail(ctx, QX_E_FAIL, "%s %.7s", text, text);
    free(text);
    fuzz_done(ctx, st);
    return 0;
}
