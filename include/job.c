/* job.c - quantizing a file through the public interface: options by name, one run, the report as JSON. */
#include <string.h>

#include "base/buf.h"
#include "include/facade.h"
#include "passes/job/settings.h"

struct qonnx_job { qonnx_ctx *ctx; qx_job_args *args; qx_buf input, report; };

static qx_status make(qonnx_ctx *c, const char *input, qonnx_job **out)
{
    QX_TRY(qx_alloc(c->qx, sizeof **out, (void **)out));
    (*out)->ctx = c;
    (*out)->report = (*out)->input = QX_BUF_INIT(c->qx);
    QX_TRY(qx_buf_put(&(*out)->input, input, strlen(input)));
    return qx_job_args_new(c->qx, &(*out)->args);
}

qonnx_code qonnx_job_new(qonnx_ctx *c, const char *input, qonnx_job **out)
{
    *out = NULL;
    qx_ctx_clear_error(c->qx);
    qx_status st = make(c, input, out);
    if (st != QX_OK) {
        qonnx_job_free(*out);
        *out = NULL;
    }
    return qx_code(st);
}

qonnx_code qonnx_job_set(qonnx_job *j, const char *name, const char *value)
{
    qx_ctx_clear_error(j->ctx->qx);
    return qx_code(qx_job_args_set(j->args, name, value));
}

static qx_status run(qonnx_job *j, qx_report *r)
{
    const qx_quantize_options *opt;
    QX_TRY(qx_job_args_options(j->args, &opt));
    qx_quantize_options full = *opt;
    full.input = j->input.data ? j->input.data : "";
    qx_status st = qx_quantize_file(j->ctx->qx, &full, r);
    qx_buf_clear(&j->report);
    if (st != QX_OK && st != QX_E_GATE) return st;
    qx_status said = qx_report_json(r, &j->report); /* a missed gate has a report too */
    return said == QX_OK ? st : said;
}

qonnx_code qonnx_job_run(qonnx_job *j)
{
    qx_report *r;
    qx_ctx_clear_error(j->ctx->qx);
    qx_status st = qx_report_new(j->ctx->qx, &r);
    if (st != QX_OK) return qx_code(st);
    st = run(j, r);
    qx_report_free(r);
    return qx_code(st);
}

const char *qonnx_job_report(qonnx_job *j)
{
    return j->report.data;
}

void qonnx_job_free(qonnx_job *j)
{
    if (!j) return;
    qx_ctx *qx = j->ctx->qx;
    qx_job_args_free(j->args);
    qx_buf_free(&j->report);
    qx_buf_free(&j->input);
    qx_free(qx, j);
}
