/* print.c - what a command puts out: text, names from files made harmless, sizes, tables, lines broken where the terminal ends. */
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"

bool cli_is_terminal(FILE *f)
{
    const char *term = getenv("TERM");
    return isatty(fileno(f)) && term && strcmp(term, "dumb") != 0;
}

int cli_columns(FILE *f)
{
    enum { ELSEWHERE = 100 };
    const char *set = getenv("COLUMNS");
    struct winsize w;
    const long columns = set ? strtol(set, NULL, 10) : 0;
    if (columns > 0 && columns < 10000) return (int)columns;
    return ioctl(fileno(f), TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : ELSEWHERE;
}

const char *cli_colour_on(FILE *f, cli_colour colour)
{
    static const char *const codes[] = {"\033[0m", "\033[1;31m", "\033[1;32m", "\033[1;33m", "\033[1m"};
    const char *off = getenv("NO_COLOR");
    return cli_is_terminal(f) && !(off && *off) ? codes[colour] : "";
}

void cli_print(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
}

const char *cli_show(cli *c, const char *name)
{
    char *out = qx_arena_alloc(c->arena, 512);
    return out ? qx_printable(name ? name : "", out, 512) : "?";
}

const char *cli_bytes(cli *c, int64_t bytes)
{
    char *out = qx_arena_alloc(c->arena, 24);
    return out ? qx_format_bytes(bytes, out, 24) : "?";
}

/* errno may be of another call since: the pipe itself tells that nobody reads it. */
qx_status cli_stdout_failed(cli *c)
{
    struct pollfd pipe = {.fd = STDOUT_FILENO};
    if (poll(&pipe, 1, 0) > 0 && (pipe.revents & POLLERR)) { signal(SIGPIPE, SIG_DFL); raise(SIGPIPE); }
    return qx_fail(c->ctx, QX_E_IO, "writing to standard output failed");
}

qx_status cli_print_buf(cli *c, qx_buf *b)
{
    bool ended = b->len > 0 && b->data[b->len - 1] == '\n';
    bool ok = fwrite(b->data ? b->data : "", 1, b->len, stdout) == b->len && (ended || fputc('\n', stdout) != EOF);
    qx_buf_free(b);
    return ok ? QX_OK : cli_stdout_failed(c);
}

qx_status cli_write_file(cli *c, const char *path, const qx_buf *b)
{
    qx_outset *set;
    qx_out *out;
    QX_TRY(qx_outset_new(c->ctx, &set));
    qx_status st = qx_out_open(set, path, NULL, 0, &out);
    if (st == QX_OK) st = qx_out_write_at(out, 0, b->data, b->len);
    if (st == QX_OK) st = qx_outset_commit(set);
    qx_outset_free(set);
    return st;
}

void cli_field(const char *head, const char *text)
{
    const int indent = (int)strlen(head);
    fputs(head, stdout);
    if (isatty(fileno(stdout)) || getenv("COLUMNS")) cli_wrap(stdout, text, indent, indent);
    else puts(text);
}

void cli_fieldf(const char *head, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    cli_field(head, text);
}

/* Columns on a terminal: UTF-8 continuation bytes take none. */
static int width(const char *s)
{
    int n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static int column_width(const char *const *cells, int n_rows, int n_cols, int col)
{
    int w = 0;
    for (int r = 0; r < n_rows; r++) {
        int here = width(cells[r * n_cols + col]);
        if (here > w) w = here;
    }
    return w;
}

void cli_table(FILE *out, const char *const *cells, int n_rows, int n_cols, const char *align)
{
    enum { MAX_COLS = 16 };
    int w[MAX_COLS];
    for (int i = 0; i < n_cols && i < MAX_COLS; i++) w[i] = column_width(cells, n_rows, n_cols, i);
    for (int r = 0; r < n_rows; r++) {
        for (int i = 0; i < n_cols && i < MAX_COLS; i++) {
            const char *cell = cells[r * n_cols + i];
            int pad = w[i] - width(cell);
            bool last = i + 1 == n_cols;
            fprintf(out, "%*s%s%*s", align[i] == 'r' ? pad : 0, "", cell, align[i] == 'r' || last ? 0 : pad, "");
            fputs(last ? "\n" : "  ", out);
        }
    }
}

void cli_wrap(FILE *f, const char *text, int at, int indent)
{
    const int last = cli_columns(f) - 1;
    int col = at;
    bool fresh = true; /* no word stands on this line yet */
    for (const char *s = text; *s;) {
        if (*s == '\n' && (s[1] == ' ' || s[1] == '\n')) { /* a line that is meant so, or the end of a paragraph */
            const size_t n = strcspn(s + 1, "\n");
            fprintf(f, "\n%*s%.*s", n ? indent : 0, "", (int)n, s + 1);
            s += 1 + n;
            fresh = false;
            col = last;
        } else if (*s == ' ' || *s == '\n') {
            s++;
        } else {
            const int n = (int)strcspn(s, " \n");
            if (!fresh && col + 1 + n > last) { fprintf(f, "\n%*s", indent, ""); col = indent; fresh = true; }
            fprintf(f, "%s%.*s", fresh ? "" : " ", n, s);
            col += n + !fresh;
            fresh = false;
            s += n;
        }
    }
    fputc('\n', f);
}
