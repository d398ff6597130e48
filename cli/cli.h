/* cli.h - the frame of the command line. A subcommand is one file cli/cmd_NAME.c that ends in a const cli_command, and one line in
 * commands.def. Its options table drives parsing, --help, the man page and shell completion, so none of them can disagree.
 *
 * A command writes its result to stdout (one JSON document under --json) and nothing else there; log lines, progress and errors go
 * to stderr. It returns a qx_status; main() prints the message and turns it into the exit code (0 ok, 1 failure, 2 usage,
 * 3 unsupported, 4 gate). */
#ifndef QX_CLI_H
#define QX_CLI_H

#include <stdio.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/text.h"
#include "passes/job/settings.h"

typedef struct cli cli;
typedef struct cli_group { const char *first, *title; } cli_group; /* the options from `first` on, until the next group */
typedef struct cli_command {
    const char *name, *brief;
    const char *synopsis;        /* "MODEL [-o OUT.onnx] (--fp8 | ...)": what follows the name in usage lines */
    const char *text;            /* longer description for --help and the man page; NULL: none */
    const char *examples;        /* lines, "\n" separated; NULL: none */
    const qx_argdef *options;    /* own options, ends with name NULL; NULL: none. Common ones are added: see cli_common */
    int min_args, max_args;      /* positional arguments; max -1: any number */
    bool hidden;
    const cli_group *groups;     /* headings of --help, ends with first NULL; NULL: none */
    /* What to write instead of a word that is no option here, because other tools call it so; NULL: nothing known. */
    const char *(*instead)(qx_arena *arena, const char *word);
    qx_status (*run)(cli *c);
} cli_command;

struct cli {
    const cli_command *cmd;
    qx_ctx *ctx;
    qx_arena *arena;             /* for whatever the command keeps; freed by main */
    int n_args;
    const char **args;           /* positional */
    const char ***values;        /* by option (own table first, then cli_common): its values in order */
    int *counts;
    int n_options;
    bool json, quiet, verbose;
};

/* --threads, --max-memory, --json, --quiet, --verbose, --help: understood by every command. */
extern const qx_argdef cli_common[];
const cli_command *const *cli_commands(int *count);
const cli_command *cli_find_command(const char *name);
/* "there is no command 'x'; did you mean y? (qonnx help lists them)" */
qx_status cli_no_command(qx_ctx *ctx, const char *name);

/* Values of an option of the running command. `name` must be in its table (checked by assert). */
bool cli_flag(const cli *c, const char *name);
const char *cli_value(const cli *c, const char *name);                     /* the last one given; NULL: not given */
int cli_list(const cli *c, const char *name, const char *const **out);      /* all of them */
qx_status cli_int(const cli *c, const char *name, int64_t fallback, int64_t min, int64_t max, int64_t *out);
qx_status cli_float(const cli *c, const char *name, double fallback, double min, double max, double *out);
/* "--dim name=value" options as a list in c->arena. */
qx_status cli_dims(cli *c, const char *option, qx_dim_fix **out, int *n);

/* stdout. Strings that come from files go through cli_show first: control bytes and escapes made visible. */
void cli_print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
const char *cli_show(cli *c, const char *name);
const char *cli_bytes(cli *c, int64_t bytes);
qx_status cli_stdout_failed(cli *c); /* an error; where the reader of a pipe has gone (qonnx ... | head) the process ends, as filters do */
qx_status cli_print_buf(cli *c, qx_buf *b); /* the whole buffer to stdout, newline added; frees it */
qx_status cli_write_file(cli *c, const char *path, const qx_buf *b); /* whole or not at all */

bool cli_is_terminal(FILE *f); /* one that moves its cursor: TERM is set, and not to dumb */
/* Columns of the terminal behind f (COLUMNS says otherwise); 100 elsewhere. */
int cli_columns(FILE *f);
/* Words of text in lines no longer than that, each but the first (which begins at column `at`) indented; ends with a newline. A
 * line that begins with a space stays as it is, and an empty one separates paragraphs. */
void cli_wrap(FILE *f, const char *text, int at, int indent);
/* A line of a summary on stdout: head (" time "), and text wrapped behind it. Where there is no terminal, and COLUMNS does not
 * say how wide, it stays one line. */
void cli_field(const char *head, const char *text);
/* The same, put together: at most 1 KiB. */
void cli_fieldf(const char *head, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What turns a colour on, or CLI_PLAIN off: "" where f is no terminal, or NO_COLOR is set (no-color.org). */
typedef enum cli_colour { CLI_PLAIN, CLI_RED, CLI_GREEN, CLI_YELLOW, CLI_BOLD } cli_colour;
const char *cli_colour_on(FILE *f, cli_colour colour);

/* Columns with aligned cells: widths are measured first. Rows are arrays of n_cols strings; align: 'l' or 'r' per column. */
void cli_table(FILE *out, const char *const *cells, int n_rows, int n_cols, const char *align);

/* args.c, help.c, man.c, complete.c, term.c: used by main.c and cmd_help.c only. */
qx_status cli_parse(qx_ctx *ctx, qx_arena *arena, const cli_command *cmd, int argc, char **argv, cli *out);
void cli_usage(FILE *f, const cli_command *cmd);
void cli_overview(FILE *f);
void cli_man(FILE *f);
qx_status cli_completion(qx_ctx *ctx, FILE *f, const char *shell);
typedef struct cli_term { bool tty, quiet, verbose, drawn; double started, last; char stage[64]; int64_t printed_pct; } cli_term;
void cli_term_init(cli_term *t, bool quiet, bool verbose);
void cli_term_clear(cli_term *t);
void cli_term_log(void *user, qx_log_level level, const char *text);
void cli_term_progress(void *user, const char *stage, int64_t done, int64_t total);

#endif
