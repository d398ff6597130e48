/* cmd_help.c - `qonnx help [COMMAND]`, and what packagers need: the man page and the completion scripts. */
#include "cli/cli.h"

static const qx_argdef options[] = {
    {"man", 0, QX_ARG_FLAG, NULL, NULL, "print the man page (troff)"},
    {"completion", 0, QX_ARG_VALUE, "bash|zsh", NULL, "print a completion script"},
    {NULL, 0, QX_ARG_FLAG, NULL, NULL, NULL},
};

static qx_status run(cli *c)
{
    if (cli_flag(c, "man")) { cli_man(stdout); return QX_OK; }
    if (cli_value(c, "completion")) return cli_completion(c->ctx, stdout, cli_value(c, "completion"));
    if (c->n_args == 0) { cli_overview(stdout); return QX_OK; }
    const cli_command *cmd = cli_find_command(c->args[0]);
    if (!cmd) return cli_no_command(c->ctx, c->args[0]);
    cli_usage(stdout, cmd);
    return QX_OK;
}

const cli_command cli_command_help = {
    .name = "help", .brief = "explain a command", .synopsis = "[COMMAND]", .options = options, .max_args = 1, .run = run};
