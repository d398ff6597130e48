/* lint.h - what a runtime will not load, not fuse, or not compute exactly, found by reading the graph. */
#ifndef QX_PASSES_LINT_H
#define QX_PASSES_LINT_H

#include "base/json.h"
#include "passes/pass.h"

typedef struct qx_finding {
    const char *rule;     /* short name: "isolated-pair" */
    bool error;           /* the target refuses or miscomputes it; else: slower than it could be */
    const char *node, *op;
    const char *text;     /* what and why, with the names */
} qx_finding;

/* Findings in graph order; strings and array live in `arena`. Target generic: rules of the standard only. */
qx_status qx_lint(qx_model *m, qx_target target, qx_arena *arena, qx_finding **out, int64_t *count);
/* {"model": ..., "findings": [{"rule", "severity", "node", "op", "text"}, ...]} */
qx_status qx_lint_json(const char *model, const qx_finding *f, int64_t n, qx_buf *out);
/* The rules: name, one line each; NULL behind the last. */
const char *qx_lint_rule(int i, const char **brief);

#endif
