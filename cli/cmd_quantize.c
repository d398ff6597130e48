/* cmd_quantize.c - `qonnx quantize`: options to the job, and its report printed. */
#include <ctype.h>
#include <string.h>

#include "base/file.h"
#include "cli/device.h"
#include "cli/report.h"

static const qx_argdef options[] = {
#define QX_JOB_OPTION(name, letter, kind, meta, def, help, type, offset, min, max, text) {name, letter, kind, meta, def, help},
#include "passes/job/job_options.def"
#undef QX_JOB_OPTION
    {"explain", 0, QX_ARG_FLAG, NULL, NULL, "print what was done to every node, or why nothing"},
    {"report", 0, QX_ARG_VALUE, "FILE.json|FILE.html", NULL, "write the whole report, as JSON or as a page"},
    {NULL, 0, QX_ARG_FLAG, NULL, NULL, NULL},
};

static const cli_group groups[] = {
    {"fp8", "format"}, {"output", "output"}, {"calib", "samples"}, {"include", "nodes"}, {"dim", "input"}, {"device", "device"},
    {"explain", "report"}, {NULL, NULL},
};

static const struct { const char *word, *instead; } foreign[] = {
#define CLI_FOREIGN(word, instead) {word, instead},
#include "cli/foreign.def"
#undef CLI_FOREIGN
};

/* Letters of either case, '_' as '-'. */
static bool same_word(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if ((*a == '_' ? '-' : tolower((unsigned char)*a)) != *b) return false;
    return !*a && !*b;
}

static const char *instead(qx_arena *arena, const char *word)
{
    int n, n_presets;
    const qx_preset *presets = qx_presets(&n_presets);
    const qx_passdef *const *passes = qx_passes(&n);
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (same_word(word, foreign[i].word)) return foreign[i].instead;
    for (const qx_argdef *o = options; o->name; o++)
        if (same_word(word, o->name)) return qx_arena_printf(arena, "--%s", o->name);
    for (int i = 0; i < n_presets; i++)
        if (same_word(word, presets[i].name)) return qx_arena_printf(arena, "--preset %s", presets[i].name);
    for (int i = 0; i < n; i++)
        if (same_word(word, passes[i]->name))
            return qx_arena_printf(arena, "--passes %s%s", passes[i]->name, passes[i]->flags & QX_PASS_FORMAT ? "" : ",FORMAT");
    return NULL;
}

/* `quantize IN OUT`, as cp has it: -o says the same. */
static qx_status set_output(cli *c, qx_job_args *a)
{
    if (c->n_args < 2) return QX_OK;
    const char *out = c->args[1], *hint = instead(c->arena, out);
    const size_t n = strlen(out);
    if (cli_value(c, "output")) QX_FAIL(c->ctx, QX_E_USAGE, "two outputs are named, '%s' and '%s': give one", out, cli_value(c, "output"));
    if (n < 6 || strcmp(out + n - 5, ".onnx") != 0)
        QX_FAIL(c->ctx, QX_E_USAGE, "'%s' is no output (OUT.onnx); formats are options%s%s", out,
                hint ? ", here: " : ": --fp8, --int8, --int4, --passes TEXT", hint ? hint : "");
    return qx_job_args_set(a, "output", out);
}

static qx_status set_options(cli *c, qx_job_args *a)
{
    QX_TRY(set_output(c, a));
    if (cli_plugin_path()) QX_TRY(qx_job_args_set(a, "plugin-dir", cli_plugin_path()));
    for (const qx_argdef *o = qx_job_argdefs; o->name; o++) {
        const char *const *values;
        int n = cli_list(c, o->name, &values);
        for (int i = o->kind == QX_ARG_LIST || n == 0 ? 0 : n - 1; i < n; i++)
            QX_TRY(qx_job_args_set(a, o->name, values[i]));
    }
    return QX_OK;
}

/* Before the work: that the report can be written, and as what. */
static qx_status check_report(cli *c, const char *path, const qx_quantize_options *opt)
{
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path, *ending = strrchr(name, '.');
    QX_TRY(qx_out_check(c->ctx, path, (const char *const[]){opt->input, opt->output}, 2));
    if (ending && strcmp(ending, ".json") != 0 && strcmp(ending, ".html") != 0)
        QX_FAIL(c->ctx, QX_E_USAGE, "--report '%s': write FILE.json or FILE.html", path);
    return QX_OK;
}

static qx_status quantize(cli *c, qx_job_args *a, qx_report *r)
{
    const qx_quantize_options *opt;
    QX_TRY(set_options(c, a));
    QX_TRY(qx_job_args_options(a, &opt));
    qx_quantize_options full = *opt;
    full.input = c->args[0];
    if (cli_value(c, "report")) QX_TRY(check_report(c, cli_value(c, "report"), &full));
    qx_status st = qx_quantize_file(c->ctx, &full, r);
    if (st == QX_OK || st == QX_E_GATE) {
        qx_status printed = cli_report(c, r);
        if (st == QX_OK) st = printed;
    }
    return st;
}

static qx_status run(cli *c)
{
    qx_job_args *a = NULL;
    qx_report *r = NULL;
    qx_status st = qx_job_args_new(c->ctx, &a);
    if (st == QX_OK) st = qx_report_new(c->ctx, &r);
    if (st == QX_OK) st = quantize(c, a, r);
    qx_report_free(r);
    qx_job_args_free(a);
    return st;
}

const cli_command cli_command_quantize = {
    .name = "quantize", .brief = "rewrite a model for low precision", .options = options, .min_args = 1, .max_args = 2, .groups = groups,
    .instead = instead, .run = run,
    .synopsis = "MODEL.onnx [OUT.onnx] (--fp8 | --int8 | --int4 | --preset NAME | --passes TEXT) [options]",
    .text = "Reads MODEL.onnx, calibrates where the format needs it, writes OUT.onnx (derived: unet.onnx gives unet.fp8.onnx) "
            "completely or not "
            "at all, runs float and quantized on samples that calibration did not see, and prints sizes, time and quality. "
            "Samples are found beside the model when named sample*.npz or calib*.npz, and so is tokenizer.json for --text.",
    .examples = "qonnx quantize unet.onnx --fp8\n"
                "qonnx quantize llm.onnx --int8 --text calib.txt\n"
                "qonnx quantize llm.onnx --int4 --set \"*down_proj*=int8-weights\"\n"
                "qonnx quantize unet.onnx --passes \"int8(act=percentile,percentile=99.99)\" --exclude \"*time_emb*\" --dry-run"};
