/* session.c - loading and running a model through the public interface. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

#include "include/facade.h"

/* ---- options text: "key=value key=value" ---- */

typedef struct opts { qx_exec_options exec; char plugin_dir[512]; } opts;
typedef struct opt_row { const char *key; qx_status (*set)(qonnx_ctx *c, opts *o, const char *value); } opt_row;

static qx_status set_flag(qonnx_ctx *c, const char *key, const char *value, bool *out)
{
    if (strcmp(value, "0") && strcmp(value, "1")) QX_FAIL(c->qx, QX_E_USAGE, "session option %s: '%s' is not 0 or 1", key, value);
    *out = value[0] == '1';
    return QX_OK;
}

static qx_status set_simulate(qonnx_ctx *c, opts *o, const char *v) { return set_flag(c, "simulate", v, &o->exec.simulate); }
static qx_status set_trace(qonnx_ctx *c, opts *o, const char *v) { return set_flag(c, "trace-nan", v, &o->exec.trace_nan); }
static qx_status set_fallback(qonnx_ctx *c, opts *o, const char *v) { return set_flag(c, "allow-fallback", v, &o->exec.allow_fallback); }

static qx_status set_compute(qonnx_ctx *c, opts *o, const char *v)
{
    if (strcmp(v, "f32") && strcmp(v, "bf16")) QX_FAIL(c->qx, QX_E_USAGE, "session option compute: '%s' is not f32 or bf16", v);
    o->exec.bf16 = v[0] == 'b';
    return QX_OK;
}

static qx_status set_device(qonnx_ctx *c, opts *o, const char *v)
{
    return qx_exec_set_device(c->qx, v, &o->exec) == QX_OK ? QX_OK : qx_note(c->qx, QX_E_USAGE, "session option");
}

static qx_status set_plugin_dir(qonnx_ctx *c, opts *o, const char *v)
{
    size_t n = strlen(v);
    if (n >= sizeof o->plugin_dir)
        QX_FAIL(c->qx, QX_E_USAGE, "session option plugin-dir: %zu characters, at most %zu", n, sizeof o->plugin_dir - 1);
    memcpy(o->plugin_dir, v, n + 1);
    o->exec.plugin_dir = o->plugin_dir;
    return QX_OK;
}

static qx_status set_device_memory(qonnx_ctx *c, opts *o, const char *v)
{
    int64_t bytes;
    if (qx_parse_size(c->qx, v, &bytes) != QX_OK) return qx_note(c->qx, QX_E_USAGE, "session option max-device-memory");
    o->exec.max_device_memory = (size_t)bytes;
    return QX_OK;
}

static qx_status set_max_loop(qonnx_ctx *c, opts *o, const char *v)
{
    char *end;
    o->exec.max_loop = strtoll(v, &end, 10);
    if (end == v || *end || o->exec.max_loop < 1) QX_FAIL(c->qx, QX_E_USAGE, "session option max-loop: '%s' is no number above 0", v);
    return QX_OK;
}

static const opt_row option_rows[] = {
    {"simulate", set_simulate}, {"trace-nan", set_trace}, {"allow-fallback", set_fallback}, {"compute", set_compute},
    {"device", set_device},
    {"plugin-dir", set_plugin_dir}, {"max-device-memory", set_device_memory}, {"max-loop", set_max_loop},
};

static qx_status set_option(qonnx_ctx *c, opts *o, const char *key, const char *value)
{
    for (size_t i = 0; i < sizeof option_rows / sizeof option_rows[0]; i++)
        if (!strcmp(key, option_rows[i].key)) return option_rows[i].set(c, o, value);
    QX_FAIL(c->qx, QX_E_USAGE, "unknown session option '%s': simulate, compute, device, plugin-dir, max-device-memory, trace-nan, "
                               "allow-fallback", key);
}

static qx_status parse_options(qonnx_ctx *c, const char *text, opts *o)
{
    char word[640];
    while (text && *text) {
        size_t n = strcspn(text, " ");
        if (n >= sizeof word) QX_FAIL(c->qx, QX_E_USAGE, "session option of %zu characters", n);
        memcpy(word, text, n);
        word[n] = 0;
        char *eq = strchr(word, '=');
        if (n && !eq) QX_FAIL(c->qx, QX_E_USAGE, "session option '%s' is not key=value", word);
        if (n) {
            *eq = 0;
            QX_TRY(set_option(c, o, word, eq + 1));
        }
        text += n + strspn(text + n, " ");
    }
    return QX_OK;
}

/* ---- ports ---- */

static void fill_port(qonnx_port *p, const qx_value *v)
{
    p->name = v->name;
    p->dtype = (int)v->type.dtype;
    p->rank = v->type.has_shape && v->type.rank <= QONNX_MAX_RANK ? v->type.rank : -1;
    for (int i = 0; i < p->rank; i++) p->dims[i] = v->type.dims[i].n;
}

static qx_status make_ports(qonnx_session *s)
{
    qx_ctx *qx = s->ctx->qx;
    qx_graph *g = s->model->graph;
    QX_TRY(qx_alloc_array(qx, g->n_inputs + 1, sizeof *s->inputs, (void **)&s->inputs));
    QX_TRY(qx_alloc_array(qx, g->n_outputs + 1, sizeof *s->outputs, (void **)&s->outputs));
    for (uint32_t i = 0; i < g->n_inputs; i++)
        if (!g->inputs[i]->init) fill_port(&s->inputs[s->n_inputs++], g->inputs[i]);
    for (uint32_t i = 0; i < g->n_outputs; i++) fill_port(&s->outputs[s->n_outputs++], g->outputs[i]);
    return QX_OK;
}

static qx_status session_open(qonnx_ctx *c, const char *path, const char *options, qonnx_session *s)
{
    opts o = {0};
    QX_TRY(parse_options(c, options, &o));
    QX_TRY(qx_model_read(c->qx, path, NULL, &s->model));
    QX_TRY(qx_infer_shapes(s->model, NULL, 0));
    QX_TRY(qx_exec_new(c->qx, s->model, &o.exec, &s->exec));
    return make_ports(s);
}

qonnx_code qonnx_session_open(qonnx_ctx *c, const char *path, const char *options, qonnx_session **out)
{
    *out = NULL;
    qonnx_session *s = NULL;
    qx_ctx_clear_error(c->qx);
    qx_status st = qx_alloc(c->qx, sizeof *s, (void **)&s);
    if (st != QX_OK) return qx_code(st);
    s->ctx = c;
    st = session_open(c, path, options, s);
    if (st != QX_OK) {
        qonnx_session_close(s);
        return qx_code(st);
    }
    *out = s;
    return QONNX_OK;
}

static void drop_held(qonnx_session *s)
{
    for (int i = 0; i < s->n_held; i++) qx_tensor_free(s->ctx->qx, &s->held[i]);
    s->n_held = 0;
}

void qonnx_session_close(qonnx_session *s)
{
    if (!s) return;
    qx_ctx *qx = s->ctx->qx;
    drop_held(s);
    qx_free(qx, s->held);
    qx_free(qx, s->inputs);
    qx_free(qx, s->outputs);
    if (s->exec) qx_exec_free(s->exec);
    if (s->model) qx_model_free(s->model);
    qx_free(qx, s);
}

int qonnx_session_inputs(const qonnx_session *s, const qonnx_port **ports)
{
    *ports = s->inputs;
    return s->n_inputs;
}

int qonnx_session_outputs(const qonnx_session *s, const qonnx_port **ports)
{
    *ports = s->outputs;
    return s->n_outputs;
}

qonnx_code qonnx_session_expose(qonnx_session *s, const char *name)
{
    qx_value *v = qx_graph_find(s->model->graph, name);
    if (!v) return qx_code(qx_fail(s->ctx->qx, QX_E_USAGE, "the graph has no value '%s'", name));
    return qx_code(qx_exec_expose(s->exec, v));
}

qonnx_code qonnx_session_carry(qonnx_session *s, const char *output, const char *input)
{
    qx_ctx_clear_error(s->ctx->qx);
    return qx_code(qx_exec_carry(s->exec, output, input));
}

/* ---- run ---- */

static qx_status run(qonnx_session *s, const qonnx_tensor *in, int n_in, const char *const *wanted, int n_out)
{
    qx_ctx *qx = s->ctx->qx;
    qx_tensor *tensors = NULL;
    qx_feed *feeds = NULL;
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_array(qx, (size_t)n_in + 1, sizeof *tensors, (void **)&tensors));
    QX_TRY_GOTO(st, qx_alloc_array(qx, (size_t)n_in + 1, sizeof *feeds, (void **)&feeds));
    for (int i = 0; i < n_in; i++) {
        QX_TRY_GOTO(st, qx_borrow(s->ctx, &in[i], &tensors[i]));
        feeds[i] = (qx_feed){in[i].name, &tensors[i]};
    }
    st = qx_exec_run(s->exec, feeds, n_in, wanted, n_out, s->held);
    if (st == QX_OK) s->n_held = n_out;
done:
    qx_free(qx, tensors);
    qx_free(qx, feeds);
    return st;
}

qonnx_code qonnx_session_run(qonnx_session *s, const qonnx_tensor *in, int n_in, const char *const *wanted, int n_out, qonnx_tensor *outs)
{
    qx_ctx *qx = s->ctx->qx;
    qx_ctx_clear_error(qx);
    if (n_in < 0 || n_out < 0 || (!wanted && n_out > s->n_outputs))
        return qx_code(qx_fail(qx, QX_E_USAGE, "run: %d inputs and %d outputs asked for, the model has %d outputs", n_in, n_out,
                               s->n_outputs));
    drop_held(s);
    qx_free(qx, s->held);
    s->held = NULL;
    qx_status st = qx_alloc_array(qx, (size_t)n_out + 1, sizeof *s->held, (void **)&s->held);
    if (st == QX_OK) st = run(s, in, n_in, wanted, n_out);
    if (st != QX_OK) return qx_code(st);
    for (int i = 0; i < n_out; i++) qx_lend(&s->held[i], wanted ? wanted[i] : s->outputs[i].name, &outs[i]);
    return QONNX_OK;
}
