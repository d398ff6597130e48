/* feeds.c - see feeds.h. */
#include "cli/feeds.h"

#include <string.h>

#include "onnx/file/io.h"
#include "passes/coded.h"
#include "passes/job/find.h"

static bool is_input(const qx_model *m, const char *name)
{
    for (uint32_t i = 0; i < m->graph->n_inputs; i++)
        if (strcmp(m->graph->inputs[i]->name, name) == 0) return true;
    return false;
}

static qx_status open_file(cli *c, const qx_model *m, const char *path, cli_feeds *out)
{
    qx_feed *feeds;
    QX_TRY(qx_npz_open(c->ctx, path, &out->npz));
    int n = qx_npz_count(out->npz);
    QX_TRY(qx_alloc_array(c->ctx, (size_t)n + 1, sizeof *out->tensors, (void **)&out->tensors));
    out->given = feeds = qx_arena_array(c->arena, (size_t)n + 1, sizeof *feeds);
    if (!feeds) QX_FAIL(c->ctx, QX_E_NOMEM, "out of memory");
    for (int i = 0; i < n; i++) {
        const char *name = qx_npz_name(out->npz, i);
        if (!is_input(m, name)) {
            qx_warn(c->ctx, "%s: array '%s' is not an input of the model", path, name);
            continue;
        }
        QX_TRY(qx_npz_read(out->npz, i, &out->tensors[out->n]));
        feeds[out->n] = (qx_feed){name, &out->tensors[out->n]};
        out->n++;
    }
    return QX_OK;
}

/* Nothing was given: a smoke test, or a first timing. */
static qx_status open_found(cli *c, qx_model *m, cli_feeds *out)
{
    const char **paths;
    int64_t seq_len = 0;
    qx_samples_options o = {0};
    const qx_exec_options cpu = {0};
    QX_TRY(qx_find_samples(c->ctx, c->arena, m->path, &paths, &o.n_paths));
    if (o.n_paths) o.paths = paths;
    else o.random = 1;
    QX_TRY(qx_samples_open(c->ctx, m, &o, &out->samples));
    if (o.random) QX_TRY(qx_samples_fit(out->samples, &cpu, &seq_len));
    if (o.random) qx_log(c->ctx, QX_LOG_INFO, "inputs are made up (no sample*.npz beside the model); -i FILE.npz gives others");
    else qx_log(c->ctx, QX_LOG_INFO, "inputs: the first sample of %s; -i FILE.npz gives others", paths[0]);
    return qx_samples_get(out->samples, 0, &out->given, &out->n);
}

static qx_status find_arrays(cli *c, qx_model *m, const cli_feeds *first, cli_feeds *out)
{
    if (cli_value(c, "input")) return open_file(c, m, cli_value(c, "input"), out);
    if (!first) return open_found(c, m, out);
    out->given = first->given;
    out->n = first->n;
    return QX_OK;
}

qx_status cli_feeds_open(cli *c, qx_model *m, const cli_feeds *first, cli_feeds *out)
{
    *out = (cli_feeds){0};
    QX_TRY(find_arrays(c, m, first, out));
    qx_feed *feeds = qx_arena_array(c->arena, (size_t)out->n + 1, sizeof *feeds);
    if (!feeds) QX_FAIL(c->ctx, QX_E_NOMEM, "out of memory");
    out->feeds = feeds;
    QX_TRY(qx_alloc_array(c->ctx, (size_t)out->n + 1, sizeof *out->made, (void **)&out->made));
    return qx_coded_feeds(c->ctx, m, out->given, out->n, feeds, out->made);
}

void cli_feeds_close(cli *c, cli_feeds *f)
{
    for (int i = 0; f->npz && i < f->n; i++) qx_tensor_free(c->ctx, &f->tensors[i]);
    for (int i = 0; f->made && i < f->n; i++) qx_tensor_free(c->ctx, &f->made[i]);
    qx_free(c->ctx, f->tensors);
    qx_free(c->ctx, f->made);
    if (f->npz) qx_npz_close(f->npz);
    if (f->samples) qx_samples_close(f->samples);
    *f = (cli_feeds){0};
}

qx_status cli_session_open(cli *c, const char *path, const qx_exec_options *opt, cli_session *out)
{
    memset(out, 0, sizeof *out);
    QX_TRY(qx_model_read(c->ctx, path, NULL, &out->model));
    QX_TRY(qx_exec_new(c->ctx, out->model, opt, &out->exec));
    out->n_outs = (int)out->model->graph->n_outputs;
    return qx_alloc_array(c->ctx, (size_t)out->n_outs + 1, sizeof *out->outs, (void **)&out->outs);
}

static void free_outs(cli *c, cli_session *s)
{
    for (int i = 0; s->outs && i < s->n_outs; i++) qx_tensor_free(c->ctx, &s->outs[i]);
}

qx_status cli_session_run(cli *c, cli_session *s, const cli_feeds *f)
{
    free_outs(c, s);
    return qx_exec_run(s->exec, f->feeds, f->n, NULL, s->n_outs, s->outs);
}

void cli_session_close(cli *c, cli_session *s)
{
    free_outs(c, s);
    qx_free(c->ctx, s->outs);
    qx_exec_free(s->exec);
    if (s->model) qx_model_free(s->model);
    memset(s, 0, sizeof *s);
}
