/* cmd_run.c - `qonnx run`: a model on arrays of an .npz file, its outputs to another; with timing and NaN tracing. */
#include <string.h>

#include "base/thread.h"
#include "cli/device.h"
#include "cli/feeds.h"
#include "cli/profile.h"

static const qx_argdef options[] = {
    {"input", 'i', QX_ARG_VALUE, "FILE.npz", "sample*.npz beside the model, else made up", "arrays named like the model's inputs"},
    {"output", 'o', QX_ARG_VALUE, "FILE.npz", NULL, "where the outputs go; none: only their shapes are printed"},
    {"simulate", 0, QX_ARG_FLAG, NULL, NULL, "Q/DQ in float arithmetic instead of real low-precision operations"},
    {"compute", 0, QX_ARG_VALUE, "f32|bf16", "f32",
     "arithmetic of matrix products and convolutions; bf16 needs a CPU with AVX512_BF16 or AMX"},
    {"no-fuse", 0, QX_ARG_FLAG, NULL, NULL, "every node by itself"},
    {"profile", 0, QX_ARG_FLAG, NULL, NULL,
     "print time by operator and by node, of a run behind two that warm up; a second argument TRACE.json gets a Chrome trace"},
    {"trace-nan", 0, QX_ARG_FLAG, NULL, NULL, "stop at the first node that makes NaN or Inf out of finite inputs"},
    {"max-loop", 0, QX_ARG_VALUE, "N", "1000000", "most iterations of a Loop; beyond it the run stops with an error"},
    CLI_DEVICE_OPTIONS,
    {NULL, 0, QX_ARG_FLAG, NULL, NULL, NULL},
};

static qx_status exec_options(cli *c, qx_exec_options *o)
{
    const char *compute = cli_value(c, "compute");
    *o = (qx_exec_options){.simulate = cli_flag(c, "simulate"), .no_fuse = cli_flag(c, "no-fuse"), .trace_nan = cli_flag(c, "trace-nan")};
    if (compute && strcmp(compute, "f32") != 0 && strcmp(compute, "bf16") != 0)
        QX_FAIL(c->ctx, QX_E_USAGE, "--compute %s: f32 or bf16", compute);
    o->bf16 = compute && strcmp(compute, "bf16") == 0;
    QX_TRY(cli_int(c, "max-loop", 1000000, 1, INT64_MAX, &o->max_loop));
    return cli_device(c, o);
}

static qx_status outputs_json(cli *c, const cli_session *s, double seconds, const qx_node_time *t, int n)
{
    qx_buf b = QX_BUF_INIT(c->ctx);
    qx_jsonw w;
    qx_jsonw_init(&w, &b, true);
    QX_TRY(qx_jsonw_begin_object(&w, NULL));
    QX_TRY(qx_jsonw_string(&w, "device", qx_exec_device_name(s->exec)));
    QX_TRY(qx_jsonw_number(&w, "seconds", seconds));
    QX_TRY(qx_jsonw_int(&w, "peak_activation_bytes", (int64_t)qx_exec_peak_bytes(s->exec)));
    QX_TRY(qx_jsonw_begin_array(&w, "outputs"));
    for (int i = 0; i < s->n_outs; i++) {
        QX_TRY(qx_jsonw_begin_object(&w, NULL));
        QX_TRY(qx_jsonw_string(&w, "name", s->model->graph->outputs[i]->name));
        QX_TRY(qx_jsonw_string(&w, "type", qx_dtype_get(s->outs[i].dtype)->text));
        QX_TRY(qx_jsonw_begin_array(&w, "dims"));
        for (int d = 0; d < s->outs[i].rank; d++) QX_TRY(qx_jsonw_int(&w, NULL, s->outs[i].dims[d]));
        QX_TRY(qx_jsonw_end_array(&w));
        QX_TRY(qx_jsonw_end_object(&w));
    }
    QX_TRY(qx_jsonw_end_array(&w));
    if (t) QX_TRY(cli_profile_json(c, &w, t, n));
    QX_TRY(qx_jsonw_end_object(&w));
    return cli_print_buf(c, &b);
}

static void outputs_text(cli *c, const cli_session *s, double seconds)
{
    char type[96];
    for (int i = 0; i < s->n_outs; i++)
        cli_print("%s %s\n", cli_show(c, s->model->graph->outputs[i]->name), qx_tensor_describe(&s->outs[i], type, sizeof type));
    if (!c->quiet)
        cli_print("%.1f ms on %s, activations %s\n", seconds * 1e3, qx_exec_device_name(s->exec),
                  cli_bytes(c, (int64_t)qx_exec_peak_bytes(s->exec)));
}

static qx_status save(cli *c, const cli_session *s, const char *path)
{
    const char **names = qx_arena_array(c->arena, (size_t)s->n_outs + 1, sizeof *names);
    if (!names) QX_FAIL(c->ctx, QX_E_NOMEM, "out of memory");
    for (int i = 0; i < s->n_outs; i++) names[i] = s->model->graph->outputs[i]->name;
    return qx_npz_write(c->ctx, path, names, s->outs, s->n_outs);
}

static qx_status print_run(cli *c, const cli_session *s, double seconds, bool timed)
{
    int n = 0;
    const qx_node_time *t = timed ? qx_exec_times(s->exec, &n) : NULL;
    if (timed && !t) QX_FAIL(c->ctx, QX_E_NOMEM, "out of memory");
    if (c->json) QX_TRY(outputs_json(c, s, seconds, t, n));
    else outputs_text(c, s, seconds);
    if (timed && !c->json) QX_TRY(cli_profile_print(c, t, n));
    return timed && c->n_args > 1 ? cli_profile_trace(c, t, n, c->args[1]) : QX_OK;
}

static qx_status run_model(cli *c, cli_session *s, cli_feeds *f)
{
    qx_exec_options o;
    bool timed = cli_flag(c, "profile");
    QX_TRY(exec_options(c, &o));
    QX_TRY(cli_session_open(c, c->args[0], &o, s));
    QX_TRY(cli_feeds_open(c, s->model, NULL, f));
    /* planning, packing and fresh memory are not what is asked about */
    for (int warm = 0; timed && warm < 2; warm++) QX_TRY(cli_session_run(c, s, f));
    qx_exec_profile(s->exec, timed);
    double t0 = qx_clock_seconds();
    QX_TRY(cli_session_run(c, s, f));
    double seconds = qx_clock_seconds() - t0;
    if (cli_value(c, "output")) QX_TRY(save(c, s, cli_value(c, "output")));
    return print_run(c, s, seconds, timed);
}

static qx_status run(cli *c)
{
    cli_session s = {0};
    cli_feeds f = {0};
    if (c->n_args > 1 && !cli_flag(c, "profile"))
        QX_FAIL(c->ctx, QX_E_USAGE, "'%s' is one argument too many: inputs are given with -i FILE.npz, a trace is written with --profile",
                c->args[1]);
    qx_status st = run_model(c, &s, &f);
    cli_feeds_close(c, &f);
    cli_session_close(c, &s);
    return st;
}

const cli_command cli_command_run = {
    .name = "run", .brief = "run a model on arrays of an .npz file, or a sample beside it",
    .synopsis = "MODEL [-i IN.npz] [-o OUT.npz] [--profile [TRACE.json]]",
    .text = "Runs a float or quantized model. Wrong names, types, ranks or dims are errors that name the input.",
    .examples = "qonnx run model.onnx -i sample.npz -o out.npz\nqonnx run model.onnx -i sample.npz --profile trace.json",
    .options = options, .min_args = 1, .max_args = 2, .run = run};
