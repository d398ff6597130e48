/* term.c - what a person sees while qonnx works: a bar with ETA on a terminal, plain lines elsewhere; and tables. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "cli/cli.h"

enum { BAR = 28 };

void cli_term_init(cli_term *t, bool quiet, bool verbose)
{
    const char *term = getenv("TERM");
    *t = (cli_term){.quiet = quiet, .verbose = verbose, .tty = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0};
}

void cli_term_clear(cli_term *t)
{
    if (t->drawn) fputs("\r\033[K", stderr);
    t->drawn = false;
}

void cli_term_log(void *user, qx_log_level level, const char *text)
{
    cli_term *t = user;
    if (level != QX_LOG_WARN && (t->quiet || (level == QX_LOG_DEBUG && !t->verbose))) return;
    cli_term_clear(t);
    fprintf(stderr, "%s%s\n", level == QX_LOG_WARN ? "warning: " : "", text);
}

static void new_stage(cli_term *t, const char *stage, double now)
{
    snprintf(t->stage, sizeof t->stage, "%s", stage);
    t->started = t->last = now;
    t->printed_pct = -1;
}

static void format_eta(double seconds, char *out, size_t cap)
{
    long s = (long)(seconds + 0.5);
    if (s >= 3600) snprintf(out, cap, "%ldh %02ldm", s / 3600, s / 60 % 60);
    else if (s >= 60) snprintf(out, cap, "%ldm %02lds", s / 60, s % 60);
    else snprintf(out, cap, "%lds", s);
}

static void draw(cli_term *t, int64_t done, int64_t total, double now)
{
    char bar[BAR + 1], eta[24] = "";
    double part = total > 0 ? (double)done / (double)total : 0;
    for (int i = 0; i < BAR; i++) bar[i] = i < (int)(part * BAR) ? '#' : '.';
    bar[BAR] = 0;
    if (part > 0.02 && part < 1) format_eta((now - t->started) * (1 - part) / part, eta, sizeof eta);
    fprintf(stderr, "\r\033[K%-12s [%s] %3d%% %lld/%lld%s%s", t->stage, bar, (int)(part * 100), (long long)done, (long long)total,
            eta[0] ? "  ETA " : "", eta);
    fflush(stderr);
    t->drawn = true;
    t->last = now;
}

/* Without a terminal: a line when a stage has run ten more seconds. */
static void plain(cli_term *t, int64_t done, int64_t total, double now)
{
    if (now - t->last < 10) return;
    t->last = now;
    fprintf(stderr, "%s: %lld of %lld\n", t->stage, (long long)done, (long long)total);
}

void cli_term_progress(void *user, const char *stage, int64_t done, int64_t total)
{
    cli_term *t = user;
    double now = qx_clock_seconds();
    if (t->quiet) return;
    if (strncmp(t->stage, stage, sizeof t->stage - 1) != 0) new_stage(t, stage, now);
    if (!t->tty) { plain(t, done, total, now); return; }
    if (total > 0 && done >= total) { cli_term_clear(t); return; }
    if (now - t->last >= 0.1) draw(t, done, total, now);
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

qx_status cli_print_buf(cli *c, qx_buf *b)
{
    bool ended = b->len > 0 && b->data[b->len - 1] == '\n';
    bool ok = fwrite(b->data ? b->data : "", 1, b->len, stdout) == b->len && (ended || fputc('\n', stdout) != EOF);
    qx_buf_free(b);
    return ok ? QX_OK : qx_fail(c->ctx, QX_E_IO, "writing to standard output failed");
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
