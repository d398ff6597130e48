/* help.c - usage of one command and the overview, from the tables. */
#include <ctype.h>
#include <string.h>

#include "cli/cli.h"

#define CLI_COMMAND(symbol) extern const cli_command cli_command_##symbol;
#include "cli/commands.def"
#undef CLI_COMMAND

static const cli_command *const all[] = {
#define CLI_COMMAND(symbol) &cli_command_##symbol,
#include "cli/commands.def"
#undef CLI_COMMAND
};

const cli_command *const *cli_commands(int *count)
{
    *count = (int)(sizeof all / sizeof *all);
    return all;
}

const cli_command *cli_find_command(const char *name)
{
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i]->name, name) == 0) return all[i];
    return NULL;
}

/* What other tools call these commands. */
static const struct { const char *word, *instead; } others[] = {
    {"benchmark", "bench MODEL"},
    {"calibrate", "quantize MODEL --int8 --save-stats FILE"},
    {"compress", "quantize MODEL --int8"},
    {"convert", "quantize MODEL --float fp16"},
    {"diff", "compare A B"},
    {"info", "inspect MODEL"},
    {"infer", "run MODEL"},
    {"list", "passes"},
    {"optimize", "quantize MODEL --int8"},
    {"perplexity", "eval MODEL --text FILE"},
    {"print", "inspect MODEL"},
    {"prune", "quantize MODEL --passes sparsity"},
    {"show", "inspect MODEL"},
    {"validate", "check MODEL"},
    {"verify", "compare A B"},
};

qx_status cli_no_command(qx_ctx *ctx, const char *name)
{
    char hint[80];
    qx_nearest near = qx_nearest_to(name, strlen(name));
    const size_t n = strlen(name);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const bool begun = n >= 3 && strncmp(all[i]->name, name, n) == 0;
        if (begun) near = qx_nearest_to(all[i]->name, strlen(all[i]->name));
        qx_nearest_offer(&near, all[i]->name, strlen(all[i]->name));
    }
    if (n > 5 && strcmp(name + n - 5, ".onnx") == 0)
        QX_FAIL(ctx, QX_E_USAGE, "'%s' is a file; what shall be done with it? qonnx inspect FILE, or qonnx quantize FILE --int8 "
                                 "(qonnx help lists all)", name);
    if (name[0] == '-')
        QX_FAIL(ctx, QX_E_USAGE, "'%s' stands where a command belongs: qonnx quantize MODEL.onnx %s (qonnx help lists the commands)",
                name, name);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(others[i].word, name) == 0)
            QX_FAIL(ctx, QX_E_USAGE, "there is no command '%s'; here: qonnx %s (qonnx help lists all)", name, others[i].instead);
    QX_FAIL(ctx, QX_E_USAGE, "there is no command '%s'%s (qonnx help lists them)", name, qx_nearest_text(&near, "", hint, sizeof hint));
}

enum { LEFT = 33, NARROW = 70 };

static void print_option(FILE *f, const qx_argdef *o)
{
    char left[80], text[400];
    int n = snprintf(left, sizeof left, "  %s%c%s--%s%s%s", o->letter ? "-" : " ", o->letter ? o->letter : ' ', o->letter ? ", " : "  ",
                     o->name, o->meta ? " " : "", o->meta ? o->meta : "");
    const int indent = cli_columns(f) < NARROW ? 10 : LEFT;
    snprintf(text, sizeof text, "%s%s%s%s%s", o->help, o->kind == QX_ARG_LIST ? " (may be repeated)" : "", o->def ? " [" : "",
             o->def ? o->def : "", o->def ? "]" : "");
    if (n >= indent) fprintf(f, "%s\n%*s", left, indent, "");
    else fprintf(f, "%-*s", indent, left);
    cli_wrap(f, text, indent, indent);
}

static const char *heading(const cli_group *g, const char *option)
{
    for (; g && g->first; g++)
        if (strcmp(g->first, option) == 0) return g->title;
    return NULL;
}

static void print_options(FILE *f, const char *title, const qx_argdef *t, const cli_group *groups)
{
    for (int i = 0; t && t[i].name; i++) {
        const char *group = heading(groups, t[i].name);
        if (i == 0 || group) fprintf(f, "\n%s:\n", group ? group : title);
        print_option(f, &t[i]);
    }
}

static void print_indented(FILE *f, const char *text)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        fprintf(f, "  %.*s\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

void cli_usage(FILE *f, const cli_command *cmd)
{
    const int n = fprintf(f, "usage: qonnx %s ", cmd->name);
    cli_wrap(f, cmd->synopsis, n, n);
    fprintf(f, "\n%c%s.\n", toupper((unsigned char)cmd->brief[0]), cmd->brief + 1);
    if (cmd->text) { fputc('\n', f); cli_wrap(f, cmd->text, 0, 0); }
    print_options(f, "options", cmd->options, cmd->groups);
    print_options(f, "common options", cli_common, NULL);
    if (cmd->examples) {
        fprintf(f, "\nexamples:\n");
        print_indented(f, cmd->examples);
    }
}

void cli_overview(FILE *f)
{
    fprintf(f, "qonnx %s - makes ONNX models small and fast: FP8, INT8, INT4 and what helps them stay accurate\n\nusage: qonnx "
               "COMMAND ...\n\n", QONNX_VERSION);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!all[i]->hidden) fprintf(f, "  %-10s %s\n", all[i]->name, all[i]->brief);
    fprintf(f, "\n  qonnx quantize unet.onnx --fp8       is all that most people need\n"
               "  qonnx COMMAND --help                 lists the options of a command\n\n"
               "exit codes: 0 ok, 1 failure, 2 usage, 3 unsupported model, 4 quality gate missed\n");
}
