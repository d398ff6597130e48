/* cmd_compare.c - `qonnx compare A B`: how far apart the outputs of two models are on the same inputs. */
#include "cli/compare_nodes.h"
#include "cli/device.h"
#include "passes/coded.h"

static const qx_argdef options[] = {
    {"input", 'i', QX_ARG_VALUE, "FILE.npz", "sample*.npz beside the model, else made up", "arrays named like the models' inputs"},
    {"simulate", 0, QX_ARG_FLAG, NULL, NULL, "Q/DQ in float arithmetic instead of real low-precision operations"},
    {"min-sqnr", 0, QX_ARG_VALUE, "DB", NULL, "exit code 4 when an output's SQNR is lower"},
    {"nodes", 0, QX_ARG_FLAG, NULL, NULL,
     "also every value that both compute under one name: the first that differs, and the ten furthest apart"},
    {"below", 0, QX_ARG_VALUE, "DB", "60", "with --nodes: from what SQNR down a value counts as different"},
    CLI_DEVICE_OPTIONS,
    {NULL, 0, QX_ARG_FLAG, NULL, NULL, NULL},
};

static qx_status as_float(cli *c, const qx_tensor *t, float **out)
{
    *out = NULL;
    QX_TRY(qx_alloc_array(c->ctx, (size_t)t->numel, sizeof **out, (void **)out));
    if (!t->is_sequence && !t->is_optional && qx_to_f32(t->dtype, t->data, t->numel, *out)) return QX_OK;
    QX_FAIL(c->ctx, QX_E_TYPE, "outputs of type %s are not compared", qx_dtype_get(t->dtype)->text);
}

static qx_status compare_output(cli *c, const qx_tensor *a, const qx_tensor *b, cli_difference *d)
{
    float *x = NULL, *y = NULL;
    char p[96], q[96];
    bool same = a->rank == b->rank && a->numel == b->numel;
    for (int i = 0; same && i < a->rank; i++) same = a->dims[i] == b->dims[i];
    if (!same)
        QX_FAIL(c->ctx, QX_E_SHAPE, "output '%s' is %s and %s", d->name, qx_tensor_describe(a, p, sizeof p),
                qx_tensor_describe(b, q, sizeof q));
    qx_status st = as_float(c, a, &x);
    if (st == QX_OK) st = as_float(c, b, &y);
    if (st == QX_OK) cli_measure(x, y, a->numel, d);
    qx_free(c->ctx, x);
    qx_free(c->ctx, y);
    return st;
}

static qx_status print_json(cli *c, const cli_difference *d, int n, const cli_difference *nodes, int n_nodes)
{
    qx_buf b = QX_BUF_INIT(c->ctx);
    qx_jsonw w;
    qx_jsonw_init(&w, &b, true);
    QX_TRY(qx_jsonw_begin_object(&w, NULL));
    QX_TRY(qx_jsonw_begin_array(&w, "outputs"));
    for (int i = 0; i < n; i++) {
        QX_TRY(qx_jsonw_begin_object(&w, NULL));
        QX_TRY(qx_jsonw_string(&w, "name", d[i].name));
        QX_TRY(qx_jsonw_number(&w, "sqnr_db", d[i].sqnr)); /* null: identical */
        QX_TRY(qx_jsonw_number(&w, "cosine", d[i].cosine));
        QX_TRY(qx_jsonw_number(&w, "max_abs", d[i].max_abs));
        QX_TRY(qx_jsonw_int(&w, "count", d[i].count));
        QX_TRY(qx_jsonw_end_object(&w));
    }
    QX_TRY(qx_jsonw_end_array(&w));
    if (nodes) QX_TRY(cli_nodes_json(&w, nodes, n_nodes));
    QX_TRY(qx_jsonw_end_object(&w));
    return cli_print_buf(c, &b);
}

static qx_status gate(cli *c, const cli_difference *d, int n)
{
    double limit;
    if (!cli_value(c, "min-sqnr")) return QX_OK;
    QX_TRY(cli_float(c, "min-sqnr", 0, -1000, 1000, &limit));
    for (int i = 0; i < n; i++)
        if (!(d[i].sqnr >= limit))
            QX_FAIL(c->ctx, QX_E_GATE, "output '%s': SQNR %.2f dB, at least %.2f dB is asked for", d[i].name, d[i].sqnr, limit);
    return QX_OK;
}

typedef struct comparison { cli_session a, b; cli_feeds fa, fb; cli_node_watch *watch; } comparison;

static qx_status open_both(cli *c, comparison *p)
{
    qx_exec_options o = {.simulate = cli_flag(c, "simulate")};
    QX_TRY(cli_device(c, &o));
    QX_TRY(cli_session_open(c, c->args[0], &o, &p->a));
    QX_TRY(cli_session_open(c, c->args[1], &o, &p->b));
    if (p->a.n_outs != p->b.n_outs) QX_FAIL(c->ctx, QX_E_SHAPE, "%d outputs and %d outputs", p->a.n_outs, p->b.n_outs);
    QX_TRY(cli_feeds_open(c, p->a.model, NULL, &p->fa));
    QX_TRY(cli_feeds_open(c, p->b.model, &p->fa, &p->fb));
    return cli_flag(c, "nodes") ? cli_nodes_watch(c, &p->a, &p->b, &p->watch) : QX_OK;
}

/* Outputs that are codes (--io int8) count as what they stand for. */
static qx_status compare_numbers(cli *c, comparison *p, int i, cli_difference *d)
{
    qx_tensor a, b = {0};
    const char *name_b = p->b.model->graph->outputs[i]->name;
    qx_status st = qx_coded_numbers(c->ctx, p->a.model, d->name, &p->a.outs[i], &a);
    if (st == QX_OK) st = qx_coded_numbers(c->ctx, p->b.model, name_b, &p->b.outs[i], &b);
    if (st == QX_OK) st = compare_output(c, a.data ? &a : &p->a.outs[i], b.data ? &b : &p->b.outs[i], d);
    qx_tensor_free(c->ctx, &a);
    qx_tensor_free(c->ctx, &b);
    return st;
}

static qx_status compare(cli *c, comparison *p)
{
    const cli_difference *nodes = NULL;
    int n_nodes = 0;
    double below;
    QX_TRY(cli_float(c, "below", 60, -1000, 1000, &below));
    QX_TRY(open_both(c, p));
    QX_TRY(cli_session_run(c, &p->a, &p->fa));
    QX_TRY(cli_session_run(c, &p->b, &p->fb));
    if (p->watch) QX_TRY(cli_nodes_differences(c, p->watch, &nodes, &n_nodes));
    const int n = p->a.n_outs;
    cli_difference *d = qx_arena_array(c->arena, (size_t)n + 1, sizeof *d);
    if (!d) QX_FAIL(c->ctx, QX_E_NOMEM, "out of memory");
    for (int i = 0; i < n; i++) {
        d[i].name = p->a.model->graph->outputs[i]->name;
        QX_TRY(compare_numbers(c, p, i, &d[i]));
        if (!c->json)
            cli_print("%-32s SQNR %7.2f dB  cosine %.8f  max |a-b| %.6g\n", cli_show(c, d[i].name), d[i].sqnr, d[i].cosine, d[i].max_abs);
    }
    if (c->json) QX_TRY(print_json(c, d, n, nodes, n_nodes));
    else if (nodes) cli_nodes_print(c, nodes, n_nodes, below);
    return gate(c, d, n);
}

static qx_status run(cli *c)
{
    comparison p = {0};
    qx_status st = compare(c, &p);
    cli_nodes_free(c, p.watch);
    cli_feeds_close(c, &p.fa);
    cli_feeds_close(c, &p.fb);
    cli_session_close(c, &p.a);
    cli_session_close(c, &p.b);
    return st;
}

const cli_command cli_command_compare = {
    .name = "compare", .brief = "compare the outputs of two models on the same inputs", .synopsis = "A B [-i IN.npz]",
    .text = "A is the reference: SQNR = 10 log10(sum a^2 / sum (a - b)^2) for each output. With --nodes values inside the models "
            "too, in 65,536 places at most.",
    .examples = "qonnx compare model.onnx model.int8.onnx -i heldout.npz --min-sqnr 20\n"
                "qonnx compare model.onnx model.int8.onnx -i heldout.npz --nodes --below 30",
    .options = options, .min_args = 2, .max_args = 2, .run = run};
