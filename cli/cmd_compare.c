/* cmd_compare.c - `qonnx compare A B`: how far apart the outputs of two models are on the same inputs. */
#include <math.h>
#include <string.h>

#include "cli/device.h"
#include "cli/feeds.h"

static const qx_argdef options[] = {
    {"input", 'i', QX_ARG_VALUE, "FILE.npz", NULL, "arrays named like the models' inputs"},
    {"simulate", 0, QX_ARG_FLAG, NULL, NULL, "Q/DQ in float arithmetic instead of real low-precision operations"},
    {"min-sqnr", 0, QX_ARG_VALUE, "DB", NULL, "exit code 4 when an output's SQNR is lower"},
    CLI_DEVICE_OPTIONS,
    {NULL, 0, QX_ARG_FLAG, NULL, NULL, NULL},
};

typedef struct difference { const char *name; double sqnr, cosine, max_abs; int64_t count; } difference;

static qx_status as_float(cli *c, const qx_tensor *t, float **out)
{
    *out = NULL;
    QX_TRY(qx_alloc_array(c->ctx, (size_t)t->numel, sizeof **out, (void **)out));
    if (!t->is_sequence && !t->is_optional && qx_to_f32(t->dtype, t->data, t->numel, *out)) return QX_OK;
    QX_FAIL(c->ctx, QX_E_TYPE, "outputs of type %s are not compared", qx_dtype_get(t->dtype)->text);
}

static void measure(const float *a, const float *b, int64_t n, difference *d)
{
    double signal = 0, noise = 0, dot = 0, bb = 0;
    for (int64_t i = 0; i < n; i++) {
        double x = (double)a[i], y = (double)b[i], e = x == y ? 0 : x - y; /* Inf equals Inf */
        signal += x * x;
        noise += e * e;
        dot += x * y;
        bb += y * y;
        if (fabs(e) > d->max_abs || e != e) d->max_abs = fabs(e);
    }
    d->count = n;
    d->sqnr = noise == 0 ? INFINITY : 10 * log10(signal / noise);
    d->cosine = signal > 0 && bb > 0 ? dot / sqrt(signal * bb) : signal == bb ? 1 : 0;
}

static qx_status compare_output(cli *c, const qx_tensor *a, const qx_tensor *b, difference *d)
{
    float *x = NULL, *y = NULL;
    char p[96], q[96];
    bool same = a->rank == b->rank && a->numel == b->numel;
    for (int i = 0; same && i < a->rank; i++) same = a->dims[i] == b->dims[i];
    if (!same) QX_FAIL(c->ctx, QX_E_SHAPE, "output '%s' is %s and %s", d->name, qx_tensor_describe(a, p, sizeof p), qx_tensor_describe(b, q, sizeof q));
    qx_status st = as_float(c, a, &x);
    if (st == QX_OK) st = as_float(c, b, &y);
    if (st == QX_OK) measure(x, y, a->numel, d);
    qx_free(c->ctx, x);
    qx_free(c->ctx, y);
    return st;
}

static qx_status print_json(cli *c, const difference *d, int n)
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
    QX_TRY(qx_jsonw_end_object(&w));
    return cli_print_buf(c, &b);
}

static qx_status gate(cli *c, const difference *d, int n)
{
    double limit;
    if (!cli_value(c, "min-sqnr")) return QX_OK;
    QX_TRY(cli_float(c, "min-sqnr", 0, -1000, 1000, &limit));
    for (int i = 0; i < n; i++)
        if (!(d[i].sqnr >= limit)) QX_FAIL(c->ctx, QX_E_GATE, "output '%s': SQNR %.2f dB, at least %.2f dB is asked for", d[i].name, d[i].sqnr, limit);
    return QX_OK;
}

static qx_status compare(cli *c, cli_session *a, cli_session *b, cli_feeds *fa, cli_feeds *fb)
{
    qx_exec_options o = {.simulate = cli_flag(c, "simulate")};
    QX_TRY(cli_device(c, &o));
    QX_TRY(cli_session_open(c, c->args[0], &o, a));
    QX_TRY(cli_session_open(c, c->args[1], &o, b));
    if (a->n_outs != b->n_outs) QX_FAIL(c->ctx, QX_E_SHAPE, "%d outputs and %d outputs", a->n_outs, b->n_outs);
    QX_TRY(cli_feeds_open(c, a->model, cli_value(c, "input"), fa));
    QX_TRY(cli_feeds_open(c, b->model, cli_value(c, "input"), fb));
    QX_TRY(cli_session_run(c, a, fa));
    QX_TRY(cli_session_run(c, b, fb));
    difference *d = qx_arena_array(c->arena, (size_t)a->n_outs + 1, sizeof *d);
    if (!d) QX_FAIL(c->ctx, QX_E_NOMEM, "out of memory");
    for (int i = 0; i < a->n_outs; i++) {
        d[i].name = a->model->graph->outputs[i]->name;
        QX_TRY(compare_output(c, &a->outs[i], &b->outs[i], &d[i]));
        if (!c->json) cli_print("%-32s SQNR %7.2f dB  cosine %.8f  max |a-b| %.6g\n", cli_show(c, d[i].name), d[i].sqnr, d[i].cosine, d[i].max_abs);
    }
    if (c->json) QX_TRY(print_json(c, d, a->n_outs));
    return gate(c, d, a->n_outs);
}

static qx_status run(cli *c)
{
    cli_session a = {0}, b = {0};
    cli_feeds fa = {0}, fb = {0};
    if (!cli_value(c, "input")) QX_FAIL(c->ctx, QX_E_USAGE, "give the inputs with -i FILE.npz");
    qx_status st = compare(c, &a, &b, &fa, &fb);
    cli_feeds_close(c, &fa);
    cli_feeds_close(c, &fb);
    cli_session_close(c, &a);
    cli_session_close(c, &b);
    return st;
}

const cli_command cli_command_compare = {
    .name = "compare", .brief = "compare the outputs of two models on the same inputs", .synopsis = "A B -i IN.npz",
    .text = "A is the reference: SQNR = 10 log10(sum a^2 / sum (a - b)^2) for each output.",
    .examples = "qonnx compare model.onnx model.int8.onnx -i heldout.npz --min-sqnr 20", .options = options, .min_args = 2, .max_args = 2, .run = run};
