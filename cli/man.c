/* man.c - the man page qonnx(1) in troff, from the same tables as --help. */
#include <ctype.h>

#include "cli/cli.h"

/* Escapes what troff would read as its own: backslash, leading dot or quote, and '-' that must stay a hyphen-minus. */
static void put_text(FILE *f, const char *s)
{
    for (bool line_start = true; *s; s++) {
        if (line_start && (*s == '.' || *s == '\'')) fputs("\\&", f);
        if (*s == '\\') fputs("\\e", f);
        else if (*s == '-') fputs("\\-", f);
        else fputc(*s, f);
        line_start = *s == '\n';
    }
}

static void put_option(FILE *f, const qx_argdef *o)
{
    fprintf(f, ".TP\n");
    if (o->letter) fprintf(f, "\\fB\\-%c\\fR, ", o->letter);
    fprintf(f, "\\fB\\-\\-");
    put_text(f, o->name);
    fprintf(f, "\\fR");
    if (o->meta) fprintf(f, " \\fI%s\\fR", o->meta);
    fputc('\n', f);
    put_text(f, o->help);
    if (o->kind == QX_ARG_LIST) fprintf(f, " (may be repeated)");
    if (o->def) { fprintf(f, "; default: "); put_text(f, o->def); }
    fputc('\n', f);
}

static void put_examples(FILE *f, const char *text)
{
    if (!text) return;
    fprintf(f, ".PP\n.nf\n");
    put_text(f, text);
    fprintf(f, "\n.fi\n");
}

static void put_command(FILE *f, const cli_command *cmd)
{
    fprintf(f, ".SS \"qonnx %s\"\n", cmd->name);
    put_text(f, cmd->synopsis);
    fprintf(f, "\n.PP\n");
    put_text(f, cmd->brief);
    fprintf(f, ".\n");
    if (cmd->text) { fprintf(f, ".PP\n"); put_text(f, cmd->text); fputc('\n', f); }
    for (const qx_argdef *o = cmd->options; o && o->name; o++) put_option(f, o);
    put_examples(f, cmd->examples);
}

void cli_man(FILE *f)
{
    int n;
    const cli_command *const *all = cli_commands(&n);
    fprintf(f, ".TH QONNX 1 \"\" \"qonnx %s\" \"User Commands\"\n.SH NAME\nqonnx \\- rewrite ONNX models for low precision\n",
            QONNX_VERSION);
    fprintf(f, ".SH SYNOPSIS\n.B qonnx\n.I COMMAND\n[options]\n.SH COMMANDS\n");
    for (int i = 0; i < n; i++)
        if (!all[i]->hidden) put_command(f, all[i]);
    fprintf(f, ".SH \"COMMON OPTIONS\"\n");
    for (const qx_argdef *o = cli_common; o->name; o++) put_option(f, o);
    fprintf(f, ".SH \"EXIT STATUS\"\n0 ok, 1 failure, 2 wrong use, 3 unsupported model, 4 quality gate missed.\n");
}
