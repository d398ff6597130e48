/* cmd_inspect.c - `qonnx inspect MODEL`: what is in a file, what to feed it, what could be quantized. */
#include <string.h>

#include "cli/cli.h"
#include "onnx/infer/infer.h"
#include "onnx/weight/weight.h"
#include "passes/job/summary.h"

static const qx_argdef options[] = {
    {"nodes", 0, QX_ARG_FLAG, NULL, NULL, "one line a node"},
    {"tensors", 0, QX_ARG_FLAG, NULL, NULL, "one line an initializer"},
    {"dim", 0, QX_ARG_LIST, "NAME=N", NULL, "fix a symbolic dimension"},
    {"skip-check", 0, QX_ARG_FLAG, NULL, NULL, "look at a file that the checker refuses"},
    {"fix-order", 0, QX_ARG_FLAG, NULL, NULL, "sort nodes that the file lists before what they need"},
    {"allow-symlinks", 0, QX_ARG_FLAG, NULL, NULL, "follow symlinks to external data"},
    {"external-data-root", 0, QX_ARG_VALUE, "DIR", NULL, "allow external data to lie in DIR"},
    {NULL, 0, QX_ARG_FLAG, NULL, NULL, NULL},
};

static const char *type_text(cli *c, const qx_type *t)
{
    char text[256];
    return cli_show(c, qx_type_describe(t, text, sizeof text));
}

static const char *weight_text(cli *c, const qx_weight *w)
{
    char text[256];
    return cli_show(c, qx_weight_describe(w, text, sizeof text));
}

static const char *place_text(const qx_weight *w)
{
    switch (w->src.kind) {
    case QX_SRC_BYTES: return "inline";
    case QX_SRC_FILE: case QX_SRC_TYPED: return "file";
    default: return "-";
    }
}

static void print_ports(cli *c, const qx_model *m)
{
    for (uint32_t i = 0; i < m->graph->n_inputs; i++)
        if (!m->graph->inputs[i]->init)
            cli_print("  input    %-28s %s\n", cli_show(c, m->graph->inputs[i]->name), type_text(c, &m->graph->inputs[i]->type));
    for (uint32_t i = 0; i < m->graph->n_outputs; i++)
        cli_print("  output   %-28s %s\n", cli_show(c, m->graph->outputs[i]->name), type_text(c, &m->graph->outputs[i]->type));
}

static void print_head(cli *c, const qx_model *m, const qx_summary *s)
{
    cli_print("%s\n  IR %lld, opset", cli_show(c, m->path), (long long)m->ir_version);
    for (uint32_t i = 0; i < m->n_opsets; i++)
        cli_print(" %s%s%lld", cli_show(c, m->opsets[i].domain), *m->opsets[i].domain ? " " : "", (long long)m->opsets[i].version);
    if (*m->producer_name) cli_print(", producer %s %s", cli_show(c, m->producer_name), cli_show(c, m->producer_version));
    cli_print("\n");
    print_ports(c, m);
    cli_print("  nodes    %lld", (long long)s->nodes);
    if (s->graphs > 1 || s->functions) cli_print(" in %lld graphs and %lld local functions", (long long)s->graphs, (long long)s->functions);
    cli_print("\n");
    cli_print("  weights  %.4g M parameters, %s in %lld tensors\n", (double)s->parameters / 1e6, cli_bytes(c, s->bytes),
              (long long)s->tensors);
    for (int64_t i = 0; i < s->n_types; i++)
        cli_print("           %-10s %s in %lld\n", qx_dtype_get(s->types[i].dtype)->text, cli_bytes(c, s->types[i].bytes),
                  (long long)s->types[i].tensors);
}

static void print_ops(cli *c, const qx_summary *s)
{
    enum { SHOWN = 16 };
    const char *text = "";
    for (int64_t i = 0; text && i < s->n_ops && i < SHOWN; i++)
        text = qx_arena_printf(c->arena, "%s%s%s %lld", text, i ? ", " : "", cli_show(c, s->ops[i].op), (long long)s->ops[i].nodes);
    if (text && s->n_ops > SHOWN) text = qx_arena_printf(c->arena, "%s, %lld others", text, (long long)(s->n_ops - SHOWN));
    cli_field("  operators ", text ? text : "?");
}

static void print_quantizable(cli *c, const qx_summary *s)
{
    if (s->quantized_nodes) cli_print("  quantized already: %lld nodes\n", (long long)s->quantized_nodes);
    cli_fieldf("  quantizable ", "%lld of %lld linear operators have constant weights, %s%s%s%s%s%s; %lld attentions",
               (long long)s->linear_constant, (long long)s->linear,
               cli_bytes(c, s->linear_bytes), s->kept_bytes ? " (" : "", s->kept_bytes ? cli_bytes(c, s->kept_bytes) : "",
               s->kept_bytes ? " kept by default)" : "",
               s->embedding_bytes ? "; embeddings " : "", s->embedding_bytes ? cli_bytes(c, s->embedding_bytes) : "",
               (long long)s->attentions);
    if (s->linear_bytes)
        cli_print("  saves    %s in 8 bit (--int8, --fp8), %s in 4 bit (--int4)\n", cli_bytes(c, s->saves_8bit),
                  cli_bytes(c, s->saves_4bit));
}

/* What people mostly want next; docs/README.md has the whole table. */
static void print_try(cli *c, const qx_model *m, const qx_summary *s)
{
    static const char *const tries[] = {
        [QX_GENRE_NETWORK] = "--int8 --calib DIR",
        [QX_GENRE_TEXT] = "--int4 --text FILE, or --int8 --text FILE",
        [QX_GENRE_UNET] = "--preset sdxl-int8, or sdxl-fp8, with samples of real steps",
        [QX_GENRE_DIFFUSION_TRANSFORMER] = "--preset dit-int8, or dit-fp8, with samples of real steps",
    };
    if (s->saves_8bit > 0 && !s->quantized_nodes)
        cli_print("  try      qonnx quantize %s %s\n", cli_show(c, m->path), tries[qx_model_genre(m)]);
}

static qx_status print_node(void *user, qx_node *n)
{
    cli *c = user;
    cli_print("%-28s %s", cli_show(c, n->op_type), cli_show(c, n->name));
    for (uint32_t i = 0; i < n->n_in; i++) cli_print("%s%s", i ? ", " : "  (", n->in[i] ? cli_show(c, n->in[i]->name) : "-");
    cli_print("%s ->", n->n_in ? ")" : "");
    for (uint32_t i = 0; i < n->n_out; i++)
        if (n->out[i]) cli_print("%s %s %s", i ? "," : "", cli_show(c, n->out[i]->name), type_text(c, &n->out[i]->type));
    cli_print("\n");
    return qx_check_cancel(c->ctx);
}

static qx_status print_tensors(void *user, qx_graph *g)
{
    cli *c = user;
    for (uint32_t i = 0; i < g->n_inits; i++) {
        const qx_weight *w = g->inits[i]->init;
        if (w)
            cli_print("%-40s %-24s %10s  %-6s %lld reader%s\n", cli_show(c, g->inits[i]->name), weight_text(c, w),
                      cli_bytes(c, (int64_t)w->bytes), place_text(w), (long long)g->inits[i]->n_uses, g->inits[i]->n_uses == 1 ? "" : "s");
    }
    return qx_check_cancel(c->ctx);
}

static qx_status print_json(cli *c, qx_model *m, const qx_summary *s)
{
    qx_buf b = QX_BUF_INIT(c->ctx);
    QX_TRY(qx_summary_json(m, s, cli_flag(c, "nodes"), cli_flag(c, "tensors"), &b));
    return cli_print_buf(c, &b);
}

static qx_status inspect(cli *c, qx_model *m)
{
    qx_summary s;
    qx_dim_fix *dims;
    int n_dims;
    QX_TRY(cli_dims(c, "dim", &dims, &n_dims));
    if (n_dims) QX_TRY(qx_infer_shapes(m, dims, n_dims));
    QX_TRY(qx_summarize(m, c->arena, &s));
    if (c->json) return print_json(c, m, &s);
    if (cli_flag(c, "nodes")) QX_TRY(qx_model_each_node(m, print_node, c));
    if (cli_flag(c, "tensors")) QX_TRY(qx_model_each_graph(m, print_tensors, c));
    if (cli_flag(c, "nodes") || cli_flag(c, "tensors")) return QX_OK;
    print_head(c, m, &s);
    print_ops(c, &s);
    print_quantizable(c, &s);
    print_try(c, m, &s);
    return QX_OK;
}

static qx_status run(cli *c)
{
    qx_model *m;
    qx_read_options ro = {.skip_check = cli_flag(c, "skip-check"), .skip_checksum = true, .missing_data_ok = true,
                          .fix_order = cli_flag(c, "fix-order"), .allow_symlinks = cli_flag(c, "allow-symlinks"),
                          .external_data_root = cli_value(c, "external-data-root")};
    QX_TRY(qx_model_read(c->ctx, c->args[0], &ro, &m));
    qx_status st = inspect(c, m);
    qx_model_free(m);
    return st;
}

const cli_command cli_command_inspect = {
    .name = "inspect", .brief = "show what is in a model, what to feed it and what could be quantized",
    .synopsis = "MODEL.onnx [--nodes] [--tensors]",
    .options = options, .min_args = 1, .max_args = 1, .run = run,
        .examples = "qonnx inspect unet.onnx\nqonnx inspect unet.onnx --nodes | grep MatMul"};
