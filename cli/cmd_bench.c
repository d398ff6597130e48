/* cmd_bench.c - `qonnx bench`: how long one or two models take on the same inputs. Runs alternate between the models, so that whatever else
 * the machine does hits both; the median and the spread (median absolute deviation) are reported. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "cli/device.h"
#include "cli/feeds.h"
#include "cli/profile.h"

enum { MAX_MODELS = 2 };
typedef struct side { const char *path; bool sparse; cli_session s; cli_feeds f; double *seconds; double median, mad, start; } side;

static const qx_argdef options[] = {
    {"input", 'i', QX_ARG_VALUE, "FILE.npz", "sample*.npz beside the model, else made up", "arrays named like the model's inputs"},
    {"runs", 'n', QX_ARG_VALUE, "N", "20", "timed runs of each model (after two that are not timed)"},
    {"simulate", 0, QX_ARG_FLAG, NULL, NULL, "Q/DQ in float arithmetic instead of real low-precision operations"},
    {"no-fuse", 0, QX_ARG_FLAG, NULL, NULL, "every node by itself"},
    {"profile", 0, QX_ARG_FLAG, NULL, NULL, "one more run of each model, with the time by operator (with --json: by what ran it)"},
    {"sparse", 0, QX_ARG_FLAG, NULL, NULL, "times one model twice on a device: dense, and weights with 2:4 zeros on sparse units"},
    {"compute", 0, QX_ARG_VALUE, "f32|bf16", "f32",
     "arithmetic of matrix products and convolutions; bf16 needs a CPU with AVX512_BF16 or AMX"},
    CLI_DEVICE_OPTIONS,
    {NULL, 0, QX_ARG_FLAG, NULL, NULL, NULL},
};

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int64_t n)
{
    qsort(v, (size_t)n, sizeof *v, ascending);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

static void summarize(side *s, int64_t n)
{
    s->median = median(s->seconds, n);
    for (int64_t i = 0; i < n; i++) s->seconds[i] = fabs(s->seconds[i] - s->median);
    s->mad = median(s->seconds, n);
}

static qx_status open_side(cli *c, int64_t runs, const side *first, side *s)
{
    const char *compute = cli_value(c, "compute");
    qx_exec_options o = {.simulate = cli_flag(c, "simulate"), .no_fuse = cli_flag(c, "no-fuse"),
                         .bf16 = compute && strcmp(compute, "bf16") == 0, .sparse = s->sparse};
    QX_TRY(cli_device(c, &o));
    double t0 = qx_clock_seconds();
    QX_TRY(cli_session_open(c, s->path, &o, &s->s));
    if (s->sparse && strcmp(qx_exec_device_name(s->s.exec), "cpu") == 0)
        QX_FAIL(c->ctx, QX_E_UNSUPPORTED, "--sparse: the CPU has no units for 2:4 products; --device cuda says why there is no other");
    QX_TRY(cli_feeds_open(c, s->s.model, first == s ? NULL : &first->f, &s->f));
    QX_TRY(cli_session_run(c, &s->s, &s->f));
    s->start = qx_clock_seconds() - t0;
    QX_TRY(cli_session_run(c, &s->s, &s->f));
    return qx_alloc_array(c->ctx, (size_t)runs, sizeof *s->seconds, (void **)&s->seconds);
}

/* One run with a clock at every step: not among those that are timed. */
static qx_status profile(cli *c, side *s, qx_jsonw *w)
{
    int n;
    qx_exec_profile(s->s.exec, true);
    QX_TRY(cli_session_run(c, &s->s, &s->f));
    const qx_node_time *t = qx_exec_times(s->s.exec, &n);
    if (!t) return QX_E_NOMEM;
    return w ? cli_profile_json(c, w, t, n) : cli_profile_print(c, t, n);
}

static qx_status print_json(cli *c, side *sides, int n, int64_t runs)
{
    qx_buf b = QX_BUF_INIT(c->ctx);
    qx_jsonw w;
    qx_jsonw_init(&w, &b, true);
    QX_TRY(qx_jsonw_begin_object(&w, NULL));
    QX_TRY(qx_jsonw_int(&w, "runs", runs));
    QX_TRY(qx_jsonw_int(&w, "threads", qx_ctx_threads(c->ctx)));
    QX_TRY(qx_jsonw_begin_array(&w, "models"));
    for (int i = 0; i < n; i++) {
        QX_TRY(qx_jsonw_begin_object(&w, NULL));
        QX_TRY(qx_jsonw_string(&w, "model", sides[i].path));
        if (sides[i].sparse) QX_TRY(qx_jsonw_bool(&w, "sparse", true));
        QX_TRY(qx_jsonw_string(&w, "device", qx_exec_device_name(sides[i].s.exec)));
        QX_TRY(qx_jsonw_number(&w, "median_seconds", sides[i].median));
        QX_TRY(qx_jsonw_number(&w, "mad_seconds", sides[i].mad));
        QX_TRY(qx_jsonw_number(&w, "start_seconds", sides[i].start));
        QX_TRY(qx_jsonw_int(&w, "peak_activation_bytes", (int64_t)qx_exec_peak_bytes(sides[i].s.exec)));
        if (cli_flag(c, "profile")) QX_TRY(profile(c, &sides[i], &w));
        QX_TRY(qx_jsonw_end_object(&w));
    }
    QX_TRY(qx_jsonw_end_array(&w));
    QX_TRY(qx_jsonw_end_object(&w));
    return cli_print_buf(c, &b);
}

static void print_sides(cli *c, const side *sides, int n)
{
    enum { COLS = 5 };
    const char *cells[(MAX_MODELS + 1) * COLS] = {"model", "a run", "+-", "first run", "activations"};
    for (int i = 0; i < n; i++) {
        const char **row = cells + (i + 1) * COLS;
        row[0] = cli_show(c, qx_arena_printf(c->arena, "%s%s", sides[i].path, sides[i].sparse ? " (2:4)" : ""));
        row[1] = cli_show(c, qx_arena_printf(c->arena, "%.3f ms", sides[i].median * 1e3));
        row[2] = cli_show(c, qx_arena_printf(c->arena, "%.3f", sides[i].mad * 1e3));
        row[3] = cli_show(c, qx_arena_printf(c->arena, "%.1f ms", sides[i].start * 1e3));
        row[4] = cli_bytes(c, (int64_t)qx_exec_peak_bytes(sides[i].s.exec));
    }
    cli_table(stdout, cells, n + 1, COLS, "lrrrr");
}

static qx_status print_text(cli *c, side *sides, int n, int64_t runs)
{
    cli_print("%lld runs, %d threads, %s\n", (long long)runs, qx_ctx_threads(c->ctx), qx_exec_device_name(sides[0].s.exec));
    print_sides(c, sides, n);
    if (n == 2) cli_print("the second takes %.3f of the first's time\n", sides[1].median / sides[0].median);
    for (int i = 0; i < n && cli_flag(c, "profile"); i++) {
        cli_print("\n%s\n", cli_show(c, sides[i].path));
        QX_TRY(profile(c, &sides[i], NULL));
    }
    return QX_OK;
}

static qx_status bench(cli *c, side *sides, int n)
{
    int64_t runs;
    QX_TRY(cli_int(c, "runs", 20, 1, 100000, &runs));
    for (int i = 0; i < n; i++) QX_TRY(open_side(c, runs, sides, &sides[i]));
    for (int64_t r = 0; r < runs; r++)
        for (int i = 0; i < n; i++) {
            double t0 = qx_clock_seconds();
            QX_TRY(cli_session_run(c, &sides[i].s, &sides[i].f));
            sides[i].seconds[r] = qx_clock_seconds() - t0;
        }
    for (int i = 0; i < n; i++) summarize(&sides[i], runs);
    if (c->json) return print_json(c, sides, n, runs);
    return print_text(c, sides, n, runs);
}

static qx_status run(cli *c)
{
    side sides[MAX_MODELS];
    memset(sides, 0, sizeof sides);
    const bool sparse = cli_flag(c, "sparse");
    const int n = sparse ? 2 : c->n_args;
    if (sparse && c->n_args != 1) QX_FAIL(c->ctx, QX_E_USAGE, "--sparse times one model");
    for (int i = 0; i < n; i++) sides[i].path = c->args[sparse ? 0 : i];
    sides[1].sparse = sparse;
    qx_status st = bench(c, sides, n);
    for (int i = 0; i < n; i++) {
        cli_feeds_close(c, &sides[i].f);
        cli_session_close(c, &sides[i].s);
        qx_free(c->ctx, sides[i].seconds);
    }
    return st;
}

const cli_command cli_command_bench = {
    .name = "bench", .brief = "time one or two models on the same inputs", .synopsis = "MODEL [MODEL2] [-i IN.npz]",
    .text = "Two runs warm up; then the models take turns. Prints the median and the median absolute deviation.",
    .examples = "qonnx bench model.onnx model.int8.onnx -i sample.npz", .options = options, .min_args = 1, .max_args = MAX_MODELS,
        .run = run};
