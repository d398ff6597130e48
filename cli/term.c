/* term.c - what a person sees while qonnx works: a bar with ETA on a terminal, plain lines elsewhere; and tables. */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/thread.h"
#include "cli/cli.h"

static bool is_terminal(FILE *f)
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
    return is_terminal(f) && !(off && *off) ? codes[colour] : "";
}

void cli_term_init(cli_term *t, bool quiet, bool verbose)
{
    *t = (cli_term){.quiet = quiet, .verbose = verbose, .tty = is_terminal(stderr)};
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
    if (level == QX_LOG_WARN) fprintf(stderr, "%swarning:%s ", cli_colour_on(stderr, CLI_YELLOW), cli_colour_on(stderr, CLI_PLAIN));
    fprintf(stderr, "%s\n", text);
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

/* " 18% 3/16"; of what comes in bytes the percents alone. */
static void format_counts(int64_t done, int64_t total, char *out, size_t cap)
{
    enum { COUNTABLE = 100000 };
    const int percent = total > 0 ? (int)(100 * (double)done / (double)total) : 0;
    if (total < COUNTABLE) snprintf(out, cap, "%3d%% %lld/%lld", percent, (long long)done, (long long)total);
    else snprintf(out, cap, "%3d%%", percent);
}

/* "  ETA 12s" once there is something to go by, else "". */
static void format_left(const cli_term *t, int64_t done, int64_t total, double now, char *out, size_t cap)
{
    const double part = total > 0 ? (double)done / (double)total : 0;
    out[0] = 0;
    if (part <= 0.02 || part >= 1) return;
    snprintf(out, cap, "  ETA ");
    format_eta((now - t->started) * (1 - part) / part, out + 6, cap - 6);
}

/* "calibrate    [#####....]  18% 3/16  ETA 12s", on one line of the terminal: a bar that has no room is left out. */
static void draw(cli_term *t, int64_t done, int64_t total, double now)
{
    enum { LONGEST = 28, SHORTEST = 6, COUNTS = 16, ETA = 14, STAGE = 12 };
    char bar[LONGEST + 4] = "", eta[32], counts[48], line[192];
    const int columns = cli_columns(stderr), room = columns - 1 - (STAGE + 4 + COUNTS + ETA), width = room > LONGEST ? LONGEST : room;
    format_counts(done, total, counts, sizeof counts);
    format_left(t, done, total, now, eta, sizeof eta);
    if (width >= SHORTEST) {
        bar[0] = '[';
        for (int i = 0; i < width; i++) bar[1 + i] = (double)i < (double)done / (double)total * width - 1e-9 ? '#' : '.';
        memcpy(bar + 1 + width, "] ", 3);
    }
    snprintf(line, sizeof line, "%-12s %s%s%s", t->stage, bar, counts, eta);
    fprintf(stderr, "\r\033[K%.*s", columns - 1, line);
    fflush(stderr);
    t->drawn = true;
    t->last = now;
}

/* Without a terminal: a line when a stage has run ten more seconds. */
static void plain(cli_term *t, int64_t done, int64_t total, double now)
{
    char eta[32], counts[48];
    if (now - t->last < 10 || done >= total) return;
    t->last = now;
    format_counts(done, total, counts, sizeof counts);
    format_left(t, done, total, now, eta, sizeof eta);
    fprintf(stderr, "%s %s%s\n", t->stage, counts, eta);
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
