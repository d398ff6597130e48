/* pass.c - what every pass uses: option values and the record of what was done to which node. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "passes/place/plan.h"

#define QX_PASS(symbol) extern const qx_passdef qx_pass_##symbol;
#include "passes/passes.def"
#undef QX_PASS

static const qx_passdef *const all[] = {
#define QX_PASS(symbol) &qx_pass_##symbol,
#include "passes/passes.def"
#undef QX_PASS
};

const qx_passdef *const *qx_passes(int *count)
{
    *count = (int)(sizeof all / sizeof *all);
    return all;
}

static const struct { const char *name, *also; unsigned limits; } targets[] = {
#define QX_TARGET(symbol, name, also, limits) {name, also, limits},
#include "passes/targets.def"
#undef QX_TARGET
};

const char *qx_target_name(qx_target t) { return targets[t].name; }
bool qx_target_has(qx_target t, unsigned limit) { return (targets[t].limits & limit) != 0; }

qx_status qx_target_parse(qx_ctx *ctx, const char *text, qx_target *out)
{
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (strcmp(text, targets[i].name) == 0 || strcmp(text, targets[i].also) == 0) { *out = (qx_target)i; return QX_OK; }
    QX_FAIL(ctx, QX_E_USAGE, "--target '%s': write one of generic|ort|tensorrt|openvino", text);
}

const char *qx_why_text(qx_why w)
{
    static const char *const texts[QX_WHY_COUNT_] = {
        "",
#define QX_WHY(name, text) text,
#include "passes/why.def"
#undef QX_WHY
    };
    return w < QX_WHY_COUNT_ ? texts[w] : "?";
}

/* The value was checked when the pipeline was parsed; asking for an option that the table lacks is our own bug. */
static const char *value_of(const qx_pass *p, const char *name)
{
    for (int i = 0; p->def->options && p->def->options[i].name; i++)
        if (strcmp(p->def->options[i].name, name) == 0) return p->values[i];
    assert(!"option is not in the pass's table");
    return "";
}

bool qx_opt_bool(const qx_pass *p, const char *name) { return strcmp(value_of(p, name), "true") == 0; }
int64_t qx_opt_int(const qx_pass *p, const char *name) { return strtoll(value_of(p, name), NULL, 10); }
double qx_opt_float(const qx_pass *p, const char *name) { return strtod(value_of(p, name), NULL); }
const char *qx_opt_text(const qx_pass *p, const char *name) { return value_of(p, name); }

static qx_decision *decision_of(qx_pass *p, const qx_node *n)
{
    qx_pipeline *pipe = p->pipe;
    return pipe && n->id < pipe->n_decisions ? &pipe->decisions[n->id] : NULL;
}

void qx_applied(qx_pass *p, const qx_node *n, const char *format)
{
    qx_decision *d = decision_of(p, n);
    if (!d) return;
    p->pipe->n_quantized += d->format == NULL; /* a mixture's layers come one by one */
    d->pass = p;
    d->format = format;
    d->reason = NULL;
}

bool qx_skip(qx_pass *p, const qx_node *n, qx_why why) { return why != QX_WHY_NONE && qx_skipf(p, n, why, "%s", ""); }

bool qx_skipf(qx_pass *p, const qx_node *n, qx_why why, const char *fmt, ...)
{
    if (why == QX_WHY_NONE) return false;
    qx_decision *d = decision_of(p, n);
    if (!d || d->format) return true;
    char detail[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    d->pass = p;
    d->reason = detail[0] ? qx_arena_printf(p->pipe->model->arena, "%s: %s", qx_why_text(why), detail) : qx_why_text(why);
    return true;
}
