/* main.c - qonnx: picks the command, makes the context, prints what went wrong, and returns the exit code. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cli/cli.h"
#include "cli/spin/spin.h"

static volatile int interrupted;

/* The first Ctrl-C asks the library to stop and clean up; a second one ends at once (temporaries may stay). */
static void on_signal(int sig)
{
    if (interrupted) { signal(sig, SIG_DFL); raise(sig); }
    interrupted = 1;
}

static void catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal}, hangup;
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &sa, NULL); /* nohup ignores it */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* beyond `ulimit -f` writing fails with a message instead */
}

static int report(const qx_ctx *ctx, const cli_command *cmd, qx_status st)
{
    if (st == QX_OK) return 0;
    const char *text = qx_ctx_error(ctx);
    fprintf(stderr, "%sqonnx%s%s:%s %s\n", cli_colour_on(stderr, CLI_RED), cmd ? " " : "", cmd ? cmd->name : "",
            cli_colour_on(stderr, CLI_PLAIN), *text ? text : qx_status_text(st));
    return qx_status_exit_code(st);
}

static qx_status context_options(const cli *c, cli_term *term, qx_ctx_options *o)
{
    int64_t threads, memory = 0;
    QX_TRY(cli_int(c, "threads", 0, 1, 1024, &threads));
    if (cli_value(c, "max-memory") && qx_parse_size(c->ctx, cli_value(c, "max-memory"), &memory) != QX_OK)
        return qx_note(c->ctx, QX_E_USAGE, "--max-memory");
    cli_term_init(term, c->quiet, c->verbose);
    *o = (qx_ctx_options){.threads = (int)threads, .max_memory = (size_t)memory, .log = cli_term_log, .progress = cli_term_progress,
                          .user = term, .cancel = &interrupted};
    return QX_OK;
}

/* Runs the parsed command in a context of its own, with the limits that the command line gave. */
static int run_command(cli *c)
{
    cli_term term;
    qx_ctx_options opt;
    qx_ctx *boot = c->ctx;
    qx_status st = context_options(c, &term, &opt);
    if (st != QX_OK) return report(boot, c->cmd, st);
    c->ctx = qx_ctx_new(&opt);
    if (!c->ctx) return report(boot, c->cmd, QX_E_NOMEM);
    st = c->cmd->run(c);
    cli_term_clear(&term);
    if (st == QX_OK && (fflush(stdout) != 0 || ferror(stdout))) st = cli_stdout_failed(c);
    int code = report(c->ctx, c->cmd, st);
    qx_ctx_free(c->ctx);
    return code;
}

static int run_words(qx_ctx *boot, qx_arena *arena, const cli_command *cmd, int argc, char **argv)
{
    cli c;
    qx_status st = cli_parse(boot, arena, cmd, argc, argv, &c);
    if (st != QX_OK) return report(boot, cmd, st);
    if (cli_flag(&c, "help")) { cli_usage(stdout, cmd); return 0; }
    return run_command(&c);
}

static int start(qx_ctx *boot, int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0 || strcmp(name, "version") == 0) {
        printf("qonnx %s\n", QONNX_VERSION);
        return 0;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) name = "help";
    const cli_command *cmd = cli_find_command(name);
    if (!cmd) {
        (void)cli_no_command(boot, name);
        fprintf(stderr, "qonnx: %s\n", qx_ctx_error(boot));
        return 2;
    }
    qx_arena *arena;
    if (qx_arena_new(boot, &arena) != QX_OK) return report(boot, cmd, QX_E_NOMEM);
    int code = run_words(boot, arena, cmd, argc > 2 ? argc - 2 : 0, argv + 2);
    qx_arena_free(arena);
    return code;
}

/* Some exporters write one data file a tensor, and each stays open while its model lives. */
static void allow_many_files(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur == r.rlim_max) return;
    r.rlim_cur = r.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &r);
}

int main(int argc, char **argv)
{
    spin_briefly(argv);
    catch_signals();
    allow_many_files();
    qx_ctx *boot = qx_ctx_new(NULL);
    if (!boot) { fprintf(stderr, "qonnx: out of memory\n"); return 1; }
    int code = start(boot, argc, argv);
    qx_ctx_free(boot);
    return code;
}
