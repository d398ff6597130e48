/* cmd_check.c - `qonnx check MODEL [--target T]`: is the file right, and will the target run it well? */
#include <string.h>

#include "cli/cli.h"
#include "passes/job/lint.h"
#include "passes/job/sparse_check.h"

static const qx_argdef options[] = {
    {"target", 't', QX_ARG_VALUE, "generic|ort|tensorrt|openvino", "generic",
     "also what this runtime will not load, fuse or compute exactly"},
    {"sparsity", 0, QX_ARG_FLAG, NULL, NULL, "which weights hold the 2:4 pattern, group by group; fails when none does"},
    {"strict", 0, QX_ARG_FLAG, NULL, NULL, "warnings about the file are errors"},
    {"fix-order", 0, QX_ARG_FLAG, NULL, NULL, "sort nodes that the file lists before what they need"},
    {"allow-symlinks", 0, QX_ARG_FLAG, NULL, NULL, "follow symlinks to external data"},
    {"external-data-root", 0, QX_ARG_VALUE, "DIR", NULL, "allow external data to lie in DIR"},
    {NULL, 0, QX_ARG_FLAG, NULL, NULL, NULL},
};

static qx_status print_json(cli *c, const qx_finding *f, int64_t n)
{
    qx_buf b = QX_BUF_INIT(c->ctx);
    QX_TRY(qx_lint_json(c->args[0], f, n, &b));
    return cli_print_buf(c, &b);
}

/* Findings of the same rule among the first n. */
static int64_t same_rule(const qx_finding *f, int64_t n, const char *rule)
{
    int64_t same = 0;
    for (int64_t i = 0; i < n; i++) same += strcmp(f[i].rule, rule) == 0;
    return same;
}

/* Ten of each rule: a model of thousands of layers breaks a rule as often. */
static void print_text(cli *c, const qx_finding *f, int64_t n, int64_t errors)
{
    enum { SHOWN = 10 };
    for (int64_t i = 0; i < n; i++) {
        const int64_t before = c->verbose ? 0 : same_rule(f, i, f[i].rule);
        if (before < SHOWN)
            cli_print("%s: %s (%s): %s [%s]\n", f[i].error ? "error" : "warning", cli_show(c, f[i].node), f[i].op,
                      cli_show(c, f[i].text), f[i].rule);
        if (before == SHOWN)
            cli_print("... and %lld more [%s] (--verbose prints all)\n", (long long)(same_rule(f, n, f[i].rule) - SHOWN), f[i].rule);
    }
    if (n) cli_print("%s: %lld errors, %lld warnings\n", cli_show(c, c->args[0]), (long long)errors, (long long)(n - errors));
    else cli_print("%s: ok\n", cli_show(c, c->args[0]));
}

/* Most findings in a file of ours mean that it was written for somebody else. */
static void print_advice(cli *c, const qx_model *m, qx_target target)
{
    for (uint32_t i = 0; i < m->n_meta; i++) {
        if (strcmp(m->meta[i].key, "qonnx.target") != 0 || strcmp(m->meta[i].value, qx_target_name(target)) == 0) continue;
        cli_print("hint: it was written for %s; qonnx quantize MODEL.onnx --like %s --target %s writes the forms of %s\n",
                  cli_show(c, m->meta[i].value), cli_show(c, c->args[0]), qx_target_name(target),
                  qx_target_name(target));
    }
}

static qx_status sparsity_json(cli *c, const qx_sparse_row *r, int64_t n)
{
    qx_buf b = QX_BUF_INIT(c->ctx);
    qx_jsonw w;
    qx_jsonw_init(&w, &b, true);
    QX_TRY(qx_jsonw_begin_array(&w, NULL));
    for (int64_t i = 0; i < n; i++) {
        QX_TRY(qx_jsonw_begin_object(&w, NULL));
        QX_TRY(qx_jsonw_string(&w, "node", r[i].node));
        QX_TRY(qx_jsonw_string(&w, "weight", r[i].weight));
        QX_TRY(qx_jsonw_int(&w, "groups", r[i].groups));
        QX_TRY(qx_jsonw_int(&w, "broken", r[i].broken));
        QX_TRY(qx_jsonw_number(&w, "zeros", r[i].zeros));
        if (r[i].note) QX_TRY(qx_jsonw_string(&w, "note", r[i].note));
        QX_TRY(qx_jsonw_end_object(&w));
    }
    QX_TRY(qx_jsonw_end_array(&w));
    return cli_print_buf(c, &b);
}

static qx_status check_sparsity(cli *c, qx_model *m)
{
    qx_sparse_row *r;
    int64_t n, sparse = 0;
    QX_TRY(qx_sparse_check(m, c->arena, &r, &n));
    for (int64_t i = 0; i < n; i++) sparse += !r[i].note && r[i].groups && !r[i].broken;
    if (c->json) QX_TRY(sparsity_json(c, r, n));
    for (int64_t i = 0; !c->json && i < n; i++) {
        if (r[i].note) cli_print("  -    %s: %s\n", cli_show(c, r[i].node), r[i].note);
        else
            cli_print("%s  %s: %lld of %lld groups broken, %.1f %% zeros\n", r[i].groups && !r[i].broken ? "  2:4" : "dense",
                      cli_show(c, r[i].node), (long long)r[i].broken, (long long)r[i].groups, 100 * r[i].zeros);
    }
    if (!c->json) cli_print("%lld of %lld weights are 2:4 sparse\n", (long long)sparse, (long long)n);
    if (!sparse) QX_FAIL(c->ctx, QX_E_FAIL, "no weight holds the 2:4 pattern");
    return QX_OK;
}

static qx_status check(cli *c, qx_model *m)
{
    qx_target target = QX_TARGET_GENERIC;
    qx_finding *f;
    int64_t n, errors = 0;
    if (cli_value(c, "target")) QX_TRY(qx_target_parse(c->ctx, cli_value(c, "target"), &target));
    QX_TRY(qx_lint(m, target, c->arena, &f, &n));
    for (int64_t i = 0; i < n; i++) errors += f[i].error;
    if (c->json) QX_TRY(print_json(c, f, n));
    else print_text(c, f, n, errors);
    if (n && !c->json) print_advice(c, m, target);
    if (errors) QX_FAIL(c->ctx, QX_E_FAIL, "%lld findings that the target refuses or miscomputes", (long long)errors);
    return QX_OK;
}

static qx_status run(cli *c)
{
    qx_model *m;
    qx_read_options ro = {.strict = cli_flag(c, "strict"), .fix_order = cli_flag(c, "fix-order"),
                          .allow_symlinks = cli_flag(c, "allow-symlinks"), .external_data_root = cli_value(c, "external-data-root")};
    QX_TRY(qx_model_read(c->ctx, c->args[0], &ro, &m));
    qx_status st = cli_flag(c, "sparsity") ? check_sparsity(c, m) : check(c, m);
    qx_model_free(m);
    return st;
}

const cli_command cli_command_check = {
    .name = "check", .brief = "check a model file, and what a target will not run",
    .synopsis = "MODEL.onnx [--target generic|ort|tensorrt|openvino]", .options = options,
    .min_args = 1, .max_args = 1, .run = run, .examples = "qonnx check unet.fp8.onnx --target tensorrt"};
