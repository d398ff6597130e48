/* term.c - what a person sees while qonnx works: a bar with ETA on a terminal, plain lines elsewhere. */
#include <string.h>

#include "base/thread.h"
#include "cli/cli.h"

void cli_term_init(cli_term *t, bool quiet, bool verbose)
{
    *t = (cli_term){.quiet = quiet, .verbose = verbose, .tty = cli_is_terminal(stderr)};
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
