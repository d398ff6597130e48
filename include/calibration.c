/* calibration.c - statistics collected while the caller runs the model itself. The passes that will be applied later say what they
 * want (their plan() sees the same graph), so the file holds what quantize needs and nothing else. */
#include "include/facade.h"
#include "passes/pipeline.h"
#include "passes/place/plan.h"

struct qonnx_calibration { qonnx_session *session; qx_stats *stats; };

static qx_status begin(qonnx_session *s, const char *passes, qonnx_calibration *c)
{
    qx_ctx *qx = s->ctx->qx;
    if (s->rewritten)
        QX_FAIL(qx, QX_E_USAGE, "passes of an earlier calibration changed this session's model: open a session for each calibration");
    qx_pipeline *p = NULL;
    qx_quantize_options opt = {.passes = passes};
    qx_status st = qx_pipeline_parse(qx, opt.passes, &p);
    if (st == QX_OK) st = qx_stats_new(qx, qx_pipeline_stats_key(p, s->model), &c->stats); /* quantize's, or it refuses the file */
    if (st == QX_OK) s->rewritten = qx_pipeline_stats_key(p, s->model) != s->model->graph_hash;
    if (st == QX_OK) p->have_data = true; /* the caller's runs: what passes want only when there is data, too */
    if (st == QX_OK) st = qx_pipeline_plan(p, s->model, &opt, c->stats);
    if (st == QX_OK) st = qx_stats_attach(c->stats, s->exec);
    qx_pipeline_free(p);
    return st;
}

qonnx_code qonnx_calibration_begin(qonnx_session *s, const char *passes, qonnx_calibration **out)
{
    qonnx_calibration *c = NULL;
    *out = NULL;
    qx_ctx_clear_error(s->ctx->qx);
    qx_status st = qx_alloc(s->ctx->qx, sizeof *c, (void **)&c);
    if (st != QX_OK) return qx_code(st);
    c->session = s;
    st = begin(s, passes, c);
    if (st != QX_OK) {
        qonnx_calibration_end(c);
        return qx_code(st);
    }
    *out = c;
    return QONNX_OK;
}

void qonnx_calibration_expect(qonnx_calibration *c, int64_t runs)
{
    qx_stats_expect(c->stats, runs > 0 ? runs : 0);
}

void qonnx_calibration_step(qonnx_calibration *c, double timestep)
{
    qx_stats_set_step(c->stats, timestep);
}

qonnx_code qonnx_calibration_save(qonnx_calibration *c, const char *path)
{
    qx_status st = qx_stats_finish(c->stats);
    return qx_code(st == QX_OK ? qx_stats_save(c->stats, path, true) : st);
}

void qonnx_calibration_end(qonnx_calibration *c)
{
    if (!c) return;
    qx_ctx *qx = c->session->ctx->qx;
    (void)qx_exec_watch(c->session->exec, NULL, 0, NULL, NULL);
    qx_stats_free(c->stats);
    qx_free(qx, c);
}
