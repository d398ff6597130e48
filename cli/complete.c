/* complete.c - shell completion scripts for bash and zsh, from the command tables. */
#include <string.h>

#include "cli/cli.h"

static void option_words(FILE *f, const qx_argdef *t)
{
    for (; t && t->name; t++) {
        fprintf(f, " --%s", t->name);
        if (t->letter) fprintf(f, " -%c", t->letter);
    }
}

static void bash(FILE *f)
{
    int n;
    const cli_command *const *all = cli_commands(&n);
    fprintf(f, "# bash completion for qonnx\n_qonnx() {\n    local cur=${COMP_WORDS[COMP_CWORD]} words=\n"
               "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"");
    for (int i = 0; i < n; i++)
        if (!all[i]->hidden) fprintf(f, "%s ", all[i]->name);
    fprintf(f, "\"\n    else\n        case ${COMP_WORDS[1]} in\n");
    for (int i = 0; i < n; i++) {
        fprintf(f, "        %s) words=\"", all[i]->name);
        option_words(f, all[i]->options);
        option_words(f, cli_common);
        fprintf(f, "\" ;;\n");
    }
    fprintf(f, "        esac\n    fi\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
               "    [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- \"$cur\"))\n}\ncomplete -o filenames -F _qonnx qonnx\n");
}

/* Single quotes end a zsh word, brackets and colons end a description. */
static void zsh_text(FILE *f, const char *s)
{
    for (; *s; s++) {
        if (*s == '\'') fputs("'\\''", f);
        else if (strchr("[]:\\", *s)) fprintf(f, "\\%c", *s);
        else fputc(*s, f);
    }
}

static void zsh_options(FILE *f, const qx_argdef *t)
{
    for (; t && t->name; t++) {
        fprintf(f, " '%s--%s[", t->kind == QX_ARG_LIST ? "*" : "", t->name);
        zsh_text(f, t->help);
        fprintf(f, "]");
        if (t->kind != QX_ARG_FLAG) { fprintf(f, ":"); zsh_text(f, t->meta); fprintf(f, ":_files"); }
        fprintf(f, "'");
    }
}

static void zsh(FILE *f)
{
    int n;
    const cli_command *const *all = cli_commands(&n);
    fprintf(f, "#compdef qonnx\nif (( CURRENT == 2 )); then\n    local -a names=(");
    for (int i = 0; i < n; i++) {
        if (all[i]->hidden) continue;
        fprintf(f, " '%s:", all[i]->name);
        zsh_text(f, all[i]->brief);
        fprintf(f, "'");
    }
    fprintf(f, " )\n    _describe command names\nelse\n    local name=$words[2]\n    shift words; (( CURRENT-- ))\n    case $name in\n");
    for (int i = 0; i < n; i++) {
        fprintf(f, "    %s) _arguments", all[i]->name);
        zsh_options(f, all[i]->options);
        zsh_options(f, cli_common);
        fprintf(f, " '*:file:_files' ;;\n");
    }
    fprintf(f, "    esac\nfi\n");
}

qx_status cli_completion(qx_ctx *ctx, FILE *f, const char *shell)
{
    if (strcmp(shell, "bash") == 0) bash(f);
    else if (strcmp(shell, "zsh") == 0) zsh(f);
    else QX_FAIL(ctx, QX_E_USAGE, "--completion %s: write bash or zsh", shell);
    return QX_OK;
}
