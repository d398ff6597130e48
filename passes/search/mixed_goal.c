/* mixed_goal.c - what a mix is asked for: a size, bits per weight or decibels, as text. */
#include "passes/search/mixed.h"

#include <string.h>

#include "base/text.h"

static qx_status bad_size(const qx_pass *p, const char *text)
{
    QX_FAIL(p->ctx, QX_E_USAGE, "mixed(size=%.40s): write a share of the input (70%%), bytes (300M, 1.2G) or bits per weight (4.5bpw)",
            text);
}

static qx_status parse_number(const qx_pass *p, const char *text, size_t len, double *out)
{
    char copy[40];
    if (len >= sizeof copy) return bad_size(p, text);
    memcpy(copy, text, len);
    copy[len] = 0;
    return qx_parse_f64(p->ctx, copy, out) == QX_OK && *out > 0 ? QX_OK : bad_size(p, text);
}

/* "300M", "1.2G", "64KiB". No model has a hundred bytes: who writes 40 means 40%. */
static qx_status parse_bytes(const qx_pass *p, const char *text, int64_t *out)
{
    return qx_parse_size(p->ctx, text, out) == QX_OK && *out > 100 ? QX_OK : bad_size(p, text);
}

qx_status qx_mixed_goal_parse(const qx_pass *p, qx_mixed_goal *g)
{
    const char *size = qx_opt_text(p, "size"), *sqnr = qx_opt_text(p, "sqnr");
    const size_t n = strlen(size);
    *g = (qx_mixed_goal){0};
    if ((*size != 0) == (*sqnr != 0))
        QX_FAIL(p->ctx, QX_E_USAGE, "mixed needs one goal: size=70%% (or 300M, 4.5bpw) or sqnr=35 (decibels of the output)");
    if (*sqnr) {
        if (qx_parse_f64(p->ctx, sqnr, &g->sqnr) != QX_OK || !(g->sqnr > 0 && g->sqnr < 200))
            QX_FAIL(p->ctx, QX_E_USAGE, "mixed(sqnr=%.40s): write decibels between 0 and 200", sqnr);
        return QX_OK;
    }
    if (size[n - 1] == '%') {
        QX_TRY(parse_number(p, size, n - 1, &g->fraction));
        g->fraction /= 100;
        return g->fraction <= 1 ? QX_OK : bad_size(p, size);
    }
    if (n > 3 && strcmp(size + n - 3, "bpw") == 0) return parse_number(p, size, n - 3, &g->bits);
    return parse_bytes(p, size, &g->bytes);
}
