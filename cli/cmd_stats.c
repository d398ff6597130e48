/* cmd_stats.c - `qonnx stats show|merge`: what a statistics file knows, and one file out of several runs or machines. */
#include <math.h>
#include <string.h>

#include "calib/stats/stats.h"
#include "cli/cli.h"

static const qx_argdef options[] = {
    {"output", 'o', QX_ARG_VALUE, "FILE", NULL, "merge: file to write"},
    {"only", 0, QX_ARG_VALUE, "PATTERN", NULL, "show: values whose name matches this glob or /regex/"},
    {NULL, 0, QX_ARG_FLAG, NULL, NULL, NULL},
};

static const char *const kind_names[] = {"range", "histogram", "channels", "rows", "gram", "steps"};

static const char *kinds_text(cli *c, uint32_t kinds)
{
    char text[96] = "";
    size_t n = 0;
    for (size_t i = 0; i < sizeof kind_names / sizeof *kind_names; i++)
        if (kinds >> i & 1) n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", n ? " " : "", kind_names[i]);
    const char *kept = qx_arena_strdup(c->arena, text);
    return kept ? kept : "";
}

static double rms(const qx_value_stats *v) { return v->count ? sqrt(v->sumsq / (double)v->count) : 0; }

/* Threshold by a method as a share of the largest value; NaN when there is no histogram. */
static double share(const qx_stats *s, int64_t i, qx_range_method method)
{
    const qx_value_stats *v = qx_stats_at(s, i);
    qx_range_options o = {.method = method, .percentile = 99.99, .levels = 127, .format = QX_DT_INT8};
    float t;
    if (!(qx_stats_kinds(s, i) & QX_STAT_HISTOGRAM) || v->absmax <= 0 || qx_stats_threshold_at(s, i, &o, &t) != QX_OK) return NAN;
    return (double)t / (double)v->absmax;
}

static qx_status value_json(cli *c, qx_jsonw *w, const qx_stats *s, int64_t i)
{
    (void)c;
    const qx_value_stats *v = qx_stats_at(s, i);
    QX_TRY(qx_jsonw_begin_object(w, NULL));
    QX_TRY(qx_jsonw_string(w, "name", v->name));
    QX_TRY(qx_jsonw_begin_array(w, "kinds"));
    for (size_t k = 0; k < sizeof kind_names / sizeof *kind_names; k++)
        if (qx_stats_kinds(s, i) >> k & 1) QX_TRY(qx_jsonw_string(w, NULL, kind_names[k]));
    QX_TRY(qx_jsonw_end_array(w));
    QX_TRY(qx_jsonw_int(w, "samples", v->samples));
    QX_TRY(qx_jsonw_int(w, "count", v->count));
    QX_TRY(qx_jsonw_int(w, "zeros", v->zeros));
    QX_TRY(qx_jsonw_number(w, "min", (double)v->min));
    QX_TRY(qx_jsonw_number(w, "max", (double)v->max));
    QX_TRY(qx_jsonw_number(w, "mean", v->count ? v->sum / (double)v->count : 0));
    QX_TRY(qx_jsonw_number(w, "rms", rms(v)));
    QX_TRY(qx_jsonw_number(w, "percentile_99_99", share(s, i, QX_RANGE_PERCENTILE) * (double)v->absmax));
    QX_TRY(qx_jsonw_number(w, "entropy", share(s, i, QX_RANGE_ENTROPY) * (double)v->absmax));
    QX_TRY(qx_jsonw_number(w, "mse_int8", share(s, i, QX_RANGE_MSE) * (double)v->absmax));
    QX_TRY(qx_jsonw_int(w, "channels", v->channels.n));
    QX_TRY(qx_jsonw_int(w, "rows", v->n_rows));
    QX_TRY(qx_jsonw_int(w, "gram_k", v->gram_k));
    QX_TRY(qx_jsonw_int(w, "timesteps", v->n_steps));
    return qx_jsonw_end_object(w);
}

static qx_status show_json(cli *c, const qx_stats *s, const bool *shown)
{
    qx_buf b = QX_BUF_INIT(c->ctx);
    qx_jsonw w;
    char hash[24];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)qx_stats_model(s));
    qx_jsonw_init(&w, &b, true);
    QX_TRY(qx_jsonw_begin_object(&w, NULL));
    QX_TRY(qx_jsonw_string(&w, "model", hash));
    QX_TRY(qx_jsonw_string(&w, "samples", qx_stats_described(s)));
    QX_TRY(qx_jsonw_begin_array(&w, "values"));
    for (int64_t i = 0; i < qx_stats_count(s); i++)
        if (shown[i]) QX_TRY(value_json(c, &w, s, i));
    QX_TRY(qx_jsonw_end_array(&w));
    QX_TRY(qx_jsonw_end_object(&w));
    return cli_print_buf(c, &b);
}

static const char *cell(cli *c, const char *format, double v)
{
    const char *text = isnan(v) ? "-" : qx_arena_printf(c->arena, format, v);
    return text ? text : "?";
}

enum { COLUMNS = 9 };

static qx_status show_text(cli *c, const qx_stats *s, const bool *shown)
{
    static const char *const head[COLUMNS] = {"value", "min", "max", "rms", "max/rms", "99.99%", "entropy", "mse", "kinds"};
    int64_t n = qx_stats_count(s), row = 1;
    const char **cells = qx_arena_array(c->arena, (size_t)(n + 1) * COLUMNS, sizeof *cells);
    if (!cells) return QX_E_NOMEM;
    memcpy(cells, head, sizeof head);
    for (int64_t i = 0; i < n; i++) {
        const qx_value_stats *v = qx_stats_at(s, i);
        if (!shown[i]) continue;
        const char **r = cells + row++ * COLUMNS;
        r[0] = cli_show(c, v->name);
        r[1] = cell(c, "%.4g", (double)v->min);
        r[2] = cell(c, "%.4g", (double)v->max);
        r[3] = cell(c, "%.4g", rms(v));
        r[4] = cell(c, "%.1f", rms(v) > 0 ? (double)v->absmax / rms(v) : NAN);
        r[5] = cell(c, "%.3f", share(s, i, QX_RANGE_PERCENTILE));
        r[6] = cell(c, "%.3f", share(s, i, QX_RANGE_ENTROPY));
        r[7] = cell(c, "%.3f", share(s, i, QX_RANGE_MSE));
        r[8] = kinds_text(c, qx_stats_kinds(s, i));
    }
    cli_print("model %016llx, %s\n", (unsigned long long)qx_stats_model(s),
              *qx_stats_described(s) ? qx_stats_described(s) : "samples unknown");
    cli_print("99.99%%, entropy, mse: thresholds as a share of the largest |x| (mse for INT8)\n\n");
    cli_table(stdout, cells, (int)row, COLUMNS, "lrrrrrrrl");
    return QX_OK;
}

static qx_status choose(cli *c, const qx_stats *s, bool *shown)
{
    const char *text = cli_value(c, "only");
    qx_pattern *p = NULL;
    if (text) QX_TRY(qx_pattern_new(c->ctx, text, &p));
    for (int64_t i = 0; i < qx_stats_count(s); i++) shown[i] = !p || qx_pattern_matches(p, qx_stats_at(s, i)->name);
    bool none = p && qx_pattern_hits(p) == 0;
    qx_pattern_free(p);
    if (none) QX_FAIL(c->ctx, QX_E_USAGE, "--only %s matches none of the %lld values", text, (long long)qx_stats_count(s));
    return QX_OK;
}

static qx_status show(cli *c, const qx_stats *s)
{
    bool *shown = qx_arena_array(c->arena, (size_t)qx_stats_count(s) + 1, sizeof *shown);
    if (!shown) return QX_E_NOMEM;
    QX_TRY(choose(c, s, shown));
    return c->json ? show_json(c, s, shown) : show_text(c, s, shown);
}

static qx_status load_one(cli *c, const char *path, qx_stats *into)
{
    qx_stats *s;
    QX_TRY(qx_stats_new(c->ctx, 0, &s));
    qx_status st = qx_stats_load(s, path);
    if (st == QX_OK) {
        st = qx_stats_merge(into, s);
        if (st != QX_OK) st = qx_note(c->ctx, st, "%s", path);
    }
    qx_stats_free(s);
    return st;
}

static qx_status merge(cli *c, qx_stats *s)
{
    const char *out = cli_value(c, "output");
    bool gram = false;
    if (!out) QX_FAIL(c->ctx, QX_E_USAGE, "merge: give the file to write with -o FILE");
    for (int i = 1; i < c->n_args; i++) QX_TRY(load_one(c, c->args[i], s));
    for (int64_t i = 0; i < qx_stats_count(s); i++) gram |= (qx_stats_kinds(s, i) & QX_STAT_GRAM) != 0;
    QX_TRY(qx_stats_save(s, out, gram));
    if (!c->quiet && !c->json) cli_print("%s: %lld values from %d files\n", out, (long long)qx_stats_count(s), c->n_args - 1);
    return QX_OK;
}

static qx_status run(cli *c)
{
    qx_stats *s;
    bool is_merge = strcmp(c->args[0], "merge") == 0;
    if (!is_merge && strcmp(c->args[0], "show") != 0)
        QX_FAIL(c->ctx, QX_E_USAGE, "'%s' is neither show nor merge: qonnx stats show FILE", c->args[0]);
    if (c->n_args < 2) QX_FAIL(c->ctx, QX_E_USAGE, "FILE is missing: qonnx stats %s FILE", c->args[0]);
    if (!is_merge && c->n_args != 2)
        QX_FAIL(c->ctx, QX_E_USAGE, "show takes one file, %d are given: qonnx stats merge FILE... -o OUT makes one of several",
                c->n_args - 1);
    QX_TRY(qx_stats_new(c->ctx, 0, &s));
    qx_status st = is_merge ? merge(c, s) : qx_stats_load(s, c->args[1]);
    if (st == QX_OK && !is_merge) st = show(c, s);
    qx_stats_free(s);
    return st;
}

const cli_command cli_command_stats = {
    .name = "stats",
    .brief = "show a statistics file, or merge several",
    .synopsis = "show FILE [--only PATTERN] [--json] | merge FILE... -o OUT",
    .text = "Statistics files are written by --save-stats and read by --load-stats. Files of the same model and the same passes "
            "can be merged: the result is that of one run over all their samples.",
    .examples = "qonnx stats show model.stats --only '*down_proj*'\nqonnx stats merge part1.stats part2.stats -o all.stats",
    .options = options,
    .min_args = 1,
    .max_args = -1,
    .run = run,
};
