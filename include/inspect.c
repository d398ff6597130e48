/* inspect.c - looking at a file through the public interface: what is in it, and what a target will not run. */
#include "include/facade.h"
#include "onnx/file/io.h"
#include "passes/job/lint.h"
#include "passes/job/summary.h"

static qx_status summarize(qx_model *m, qx_arena *arena, qx_buf *out)
{
    qx_summary s;
    QX_TRY(qx_summarize(m, arena, &s));
    return qx_summary_json(m, &s, false, false, out);
}

static qx_status lint(qx_model *m, qx_arena *arena, const char *target, qx_buf *out)
{
    qx_target t = QX_TARGET_GENERIC;
    qx_finding *findings;
    int64_t n;
    if (target) QX_TRY(qx_target_parse(m->ctx, target, &t));
    QX_TRY(qx_lint(m, t, arena, &findings, &n));
    return qx_lint_json(m->path, findings, n, out);
}

/* Structure only: weights that are missing or changed do not matter to either. */
static qx_status look(qonnx_ctx *c, const char *path, bool check, const char *target)
{
    const qx_read_options ro = {.skip_checksum = true, .missing_data_ok = !check};
    qx_model *m = NULL;
    qx_arena *arena = NULL;
    qx_buf_clear(&c->text);
    qx_ctx_clear_error(c->qx);
    qx_status st = qx_model_read(c->qx, path, &ro, &m);
    if (st == QX_OK) st = qx_arena_new(c->qx, &arena);
    if (st == QX_OK) st = check ? lint(m, arena, target, &c->text) : summarize(m, arena, &c->text);
    if (st == QX_OK) st = qx_buf_put(&c->text, "", 1);
    if (arena) qx_arena_free(arena);
    qx_model_free(m);
    return st;
}

qonnx_code qonnx_inspect(qonnx_ctx *c, const char *path, const char **json)
{
    const qx_status st = look(c, path, false, NULL);
    *json = st == QX_OK ? c->text.data : NULL;
    return qx_code(st);
}

qonnx_code qonnx_check(qonnx_ctx *c, const char *path, const char *target, const char **json)
{
    const qx_status st = look(c, path, true, target);
    *json = st == QX_OK ? c->text.data : NULL;
    return qx_code(st);
}
