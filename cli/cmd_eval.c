/* cmd_eval.c - `qonnx eval`: perplexity of a language model on a text, and its distance from a reference model. */
#include <math.h>

#include "calib/eval.h"
#include "cli/device.h"
#include "passes/job/find.h"

static const qx_argdef options[] = {
    {"text", 0, QX_ARG_VALUE, "FILE", NULL, "UTF-8 text to predict"},
    {"tokenizer", 0, QX_ARG_VALUE, "FILE.json", "tokenizer.json beside MODEL or one folder above", "tokenizer of the model"},
    {"ref", 0, QX_ARG_VALUE, "FLOAT.onnx", NULL, "model to compare with: KL divergence and top-1 agreement a token"},
    {"seq-len", 0, QX_ARG_VALUE, "N", "256", "tokens in a window; each window starts anew"},
    {"samples", 0, QX_ARG_VALUE, "N", NULL, "at most this many windows from the start of the text"},
    {"dim", 0, QX_ARG_LIST, "NAME=N", NULL, "value of a symbolic dimension"},
    {"simulate", 0, QX_ARG_FLAG, NULL, NULL, "Q/DQ in float arithmetic instead of real low-precision operations"},
    {"max-kl", 0, QX_ARG_VALUE, "X", NULL, "exit with 4 when the mean KL divergence is larger"},
    CLI_DEVICE_OPTIONS,
    {NULL, 0, QX_ARG_FLAG, NULL, NULL, NULL},
};

static qx_status print_json(cli *c, const qx_eval_result *r)
{
    qx_buf b = QX_BUF_INIT(c->ctx);
    qx_jsonw w;
    qx_jsonw_init(&w, &b, true);
    QX_TRY(qx_jsonw_begin_object(&w, NULL));
    QX_TRY(qx_jsonw_string(&w, "model", c->args[0]));
    QX_TRY(qx_jsonw_int(&w, "windows", r->windows));
    QX_TRY(qx_jsonw_int(&w, "tokens", r->tokens));
    QX_TRY(qx_jsonw_number(&w, "perplexity", r->perplexity));
    QX_TRY(qx_jsonw_number(&w, "top1_accuracy", r->top1_accuracy));
    if (!isnan(r->mean_kl)) {
        QX_TRY(qx_jsonw_number(&w, "reference_perplexity", r->ref_perplexity));
        QX_TRY(qx_jsonw_number(&w, "mean_kl", r->mean_kl));
        QX_TRY(qx_jsonw_number(&w, "kl_99_percentile", r->kl_99));
        QX_TRY(qx_jsonw_number(&w, "max_kl", r->max_kl));
        QX_TRY(qx_jsonw_number(&w, "top1_agreement", r->top1_agreement));
    }
    QX_TRY(qx_jsonw_number(&w, "seconds", r->seconds));
    QX_TRY(qx_jsonw_end_object(&w));
    return cli_print_buf(c, &b);
}

static void print_text(const qx_eval_result *r)
{
    cli_print("tokens          %lld in %lld windows\n", (long long)r->tokens, (long long)r->windows);
    cli_print("perplexity      %.4f\n", r->perplexity);
    cli_print("top-1 accuracy  %.2f %%\n", 100 * r->top1_accuracy);
    if (!isnan(r->mean_kl)) {
        cli_print("reference       %.4f perplexity\n", r->ref_perplexity);
        cli_print("KL divergence   %.6f mean, %.4f at 99 %%, %.4f at most\n", r->mean_kl, r->kl_99, r->max_kl);
        cli_print("top-1 agreement %.2f %%\n", 100 * r->top1_agreement);
    }
    cli_print("speed           %.0f tokens/s\n", r->seconds > 0 ? (double)(r->tokens + r->windows) / r->seconds : 0.0);
}

static qx_status evaluate(cli *c, qx_model *m, qx_model *ref, qx_eval_result *r)
{
    qx_dim_fix *dims;
    qx_eval_options o = {.text = cli_value(c, "text"), .tokenizer = cli_value(c, "tokenizer"), .exec.simulate = cli_flag(c, "simulate")};
    if (!o.tokenizer) QX_TRY(qx_find_tokenizer(c->arena, c->args[0], &o.tokenizer));
    if (!o.tokenizer && ref) QX_TRY(qx_find_tokenizer(c->arena, ref->path, &o.tokenizer));
    QX_TRY(cli_device(c, &o.exec));
    QX_TRY(cli_int(c, "seq-len", 256, 2, 1 << 20, &o.seq_len));
    QX_TRY(cli_int(c, "samples", 0, 1, INT32_MAX, &o.windows));
    QX_TRY(cli_dims(c, "dim", &dims, &o.n_dims));
    o.dims = dims;
    QX_TRY(qx_infer_shapes(m, dims, o.n_dims));
    if (ref) QX_TRY(qx_infer_shapes(ref, dims, o.n_dims));
    return qx_eval_text(c->ctx, m, ref, &o, r);
}

static qx_status report(cli *c, const qx_eval_result *r)
{
    double limit;
    if (c->json) QX_TRY(print_json(c, r));
    else print_text(r);
    if (!cli_value(c, "max-kl")) return QX_OK;
    QX_TRY(cli_float(c, "max-kl", 0, 0, 1e6, &limit));
    if (isnan(r->mean_kl)) QX_FAIL(c->ctx, QX_E_USAGE, "--max-kl needs --ref");
    if (r->mean_kl > limit) QX_FAIL(c->ctx, QX_E_GATE, "mean KL divergence %.6f is above --max-kl %g", r->mean_kl, limit);
    return QX_OK;
}

static qx_status run(cli *c)
{
    qx_model *m = NULL, *ref = NULL;
    qx_eval_result r;
    const char *ref_path = cli_value(c, "ref");
    qx_status st = qx_model_read(c->ctx, c->args[0], NULL, &m);
    if (st == QX_OK && ref_path) st = qx_model_read(c->ctx, ref_path, NULL, &ref);
    if (st == QX_OK) st = evaluate(c, m, ref, &r);
    if (st == QX_OK) st = report(c, &r);
    qx_model_free(m);
    qx_model_free(ref);
    return st;
}

const cli_command cli_command_eval = {
    .name = "eval",
    .brief = "perplexity of a language model, and its distance from another",
    .synopsis = "MODEL --text FILE [--tokenizer FILE.json] [--ref FLOAT.onnx] [--seq-len N] [--samples N] [--max-kl X] [--json]",
    .text = "Predicts every token of the text from those before it in its window and prints the perplexity; with --ref also how "
            "far the predictions are from the reference's: the mean KL divergence in nats a token, "
            "and how often both put the same token first. Models with past_key_values are run with an empty past.",
    .examples = "qonnx eval model.int4.onnx --ref model.onnx --text heldout.txt",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
