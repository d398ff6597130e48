/* rewrite.h - for tests: a model from text through a quantize job's passes, without files. */
#ifndef REWRITE_H
#define REWRITE_H

#include "model_text.h"
#include "base/buf.h"
#include "passes/job/settings.h"
#include "passes/place/plan.h"

/* Lines "name value" of a quantize job; text is cut up. */
static inline void set_options(qx_ctx *ctx, qx_job_args *a, char *text)
{
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (line[0] == '#') continue;
        char *value = strchr(line, ' ');
        if (value) *value++ = 0;
        if (qx_job_args_set(a, line, value) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
    }
}

/* Runs the passes; with dry-run without samples, every activation scale is then 1. *stats outlives the call: jobs may point into them
 * until the model is printed. */
static inline qx_status rewrite(qx_ctx *ctx, const qx_quantize_options *o, qx_model *m, qx_report *r, qx_stats **stats)
{
    qx_pipeline *p = NULL;
    qx_samples *samples = NULL;
    qx_status st = qx_pipeline_parse(ctx, o->passes, &p);
    if (st == QX_OK) st = qx_stats_new(ctx, m->graph_hash, stats);
    if (st == QX_OK) p->no_stats = o->dry_run;
    if (st == QX_OK && o->samples.random) st = qx_samples_open(ctx, m, &o->samples, &samples);
    if (st == QX_OK) st = qx_pipeline_run(p, m, o, samples, *stats, r);
    qx_samples_close(samples);
    qx_pipeline_free(p);
    return st;
}

/* "// name: format or reason" for every linear operator, and what else was rewritten. */
static inline void print_decisions(const qx_report *r, qx_buf *out)
{
    for (int64_t i = 0; i < r->n_nodes; i++) {
        const qx_report_node *n = &r->nodes[i];
        if (n->reason && strcmp(n->reason, "not a linear operator") == 0) continue;
        qx_buf_printf(out, "// %s: %s\n", n->name, n->format ? n->format : n->reason);
    }
}

#endif
