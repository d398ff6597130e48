/* report.c - see report.h. The numbers are the job's; here they are put into words and columns. */
#include "cli/report.h"

#include <math.h>
#include <string.h>

typedef struct table { cli *c; const char **cells; int n, cap; } table;

static const char *text(cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static const char *text(cli *c, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    const char *s = qx_arena_strdup(c->arena, line);
    return s ? s : "?";
}

static const char *title(cli *c, const char *name, const char *scope)
{
    char line[480];
    return cli_show(c, qx_report_title(name, scope, line, sizeof line));
}

static const char *tensor_title(cli *c, const qx_report_tensor *t) { return title(c, t->node && *t->node ? t->node : t->name, t->scope); }

static const char **new_cells(cli *c, int64_t rows, int cols)
{
    return qx_arena_array(c->arena, (size_t)(rows * cols) + 1, sizeof(char *));
}

static const char *decibel(cli *c, double db) { return db >= 299 ? "exact" : isnan(db) ? "nan" : text(c, "%.1f dB", db); }

static void print_tensors(cli *c, const qx_report *r)
{
    const char **cells = r->n_tensors ? new_cells(c, r->n_tensors + 1, 5) : NULL;
    if (!cells) return;
    const char *head[5] = {"weight of", "N x K", "format", "before", "after"};
    memcpy(cells, head, sizeof head);
    for (int64_t i = 0; i < r->n_tensors; i++) {
        const qx_report_tensor *t = &r->tensors[i];
        const char **row = cells + (i + 1) * 5;
        row[0] = tensor_title(c, t);
        row[1] = text(c, "%lld x %lld", (long long)t->n, (long long)t->k);
        row[2] = t->format ? t->format : "float";
        row[3] = cli_bytes(c, t->bytes_before);
        row[4] = cli_bytes(c, t->bytes_after);
    }
    cli_table(stdout, cells, (int)r->n_tensors + 1, 5, "lrlrr");
}

static void print_explain(cli *c, const qx_report *r)
{
    for (int64_t i = 0; i < r->n_nodes; i++) {
        const qx_report_node *n = &r->nodes[i];
        cli_print("%-10s %s (%s%s%s)%s%s%s\n", n->format ? n->format : "float", cli_show(c, n->name), n->op, n->scope ? ", " : "",
                  n->scope ? cli_show(c, n->scope) : "", n->graph && *n->graph ? " in " : "",
                  n->graph && *n->graph ? cli_show(c, n->graph) : "",
                      n->reason ? text(c, ": %s", n->reason) : n->notes ? text(c, ": %s", n->notes) : "");
    }
}

enum { DETAILS = 4 };
typedef struct count { const char *key; int64_t n, float_bytes; const char *details[DETAILS + 1]; int n_details; } count;

/* What stands behind the ':' of a reason, each once, while there are few. */
static void add_detail(count *c, const char *reason)
{
    const char *colon = strstr(reason, ": ");
    if (!colon) return;
    for (int i = 0; i < c->n_details; i++)
        if (strcmp(c->details[i], colon + 2) == 0) return;
    if (c->n_details <= DETAILS) c->details[c->n_details++] = colon + 2;
}

/* Counts of nodes with this fate, by format or by reason up to ':', in order of appearance. */
static int tally(const qx_report *r, qx_fate fate, count *out, int cap)
{
    const bool applied = fate == QX_FATE_QUANTIZED;
    int n = 0;
    for (int64_t i = 0; i < r->n_nodes; i++) {
        const qx_report_node *node = &r->nodes[i];
        if (qx_report_fate(node) != fate) continue;
        const char *key = applied ? node->format : node->reason;
        size_t len = applied ? strlen(key) : strcspn(key, ":");
        int k = 0;
        while (k < n && (strncmp(out[k].key, key, len) != 0 || (out[k].key[len] && out[k].key[len] != ':'))) k++;
        if (k == cap) continue;
        if (k == n) out[n++] = (count){.key = key};
        out[k].n++;
        out[k].float_bytes += node->float_bytes;
        if (!applied) add_detail(&out[k], key);
    }
    return n;
}

/* "3 left in float: kept by default (embedding; language model head), 1.57 MB" */
static void print_kept(cli *c, const count *k)
{
    const char *details = "";
    for (int i = 0, width = 0; i < k->n_details; i++) {
        const char *detail = cli_show(c, k->details[i]);
        const bool room = i == 0 || (i < DETAILS && (width += (int)strlen(detail)) < 60);
        details = text(c, "%s%s%s", details, i ? "; " : "", room ? detail : "...");
        if (!room) break;
    }
    cli_fieldf(text(c, "  %6lld ", (long long)k->n), "left in float: %.*s%s%s%s%s%s", (int)strcspn(k->key, ":"), k->key,
               k->n_details ? " (" : "", details, k->n_details ? ")" : "",
               k->float_bytes ? ", " : "", k->float_bytes ? cli_bytes(c, k->float_bytes) : "");
}

static void print_counts(cli *c, const qx_report *r)
{
    enum { CAP = 32 };
    count counts[CAP];
    for (int fate = QX_FATE_QUANTIZED; fate <= QX_FATE_MERGED; fate++) {
        const int n = tally(r, (qx_fate)fate, counts, CAP);
        for (int i = 0; i < n; i++) cli_print("  %6lld node%s  %s\n", (long long)counts[i].n, counts[i].n == 1 ? " " : "s", counts[i].key);
    }
    const int n = tally(r, QX_FATE_FLOAT, counts, CAP);
    for (int i = 0; i < n; i++) print_kept(c, &counts[i]);
}

static void print_output(cli *c, const qx_report_output *o)
{
    const char *head = text(c, "  output %-16s ", cli_show(c, o->name)), *measured = "";
    if (!isnan(o->equal)) measured = text(c, "%.2f %% of %lld values equal", 100 * o->equal, (long long)o->count);
    else if (o->count) measured = text(c, "SQNR %s, cosine %.6f, largest difference %.4g", decibel(c, o->sqnr_db), o->cosine, o->max_abs);
    const char *top = isnan(o->top1) ? "" : text(c, ", same largest score %.1f %%", 100 * o->top1);
    cli_fieldf(head, "%s%s%s%s", measured, top, o->note && o->count ? ", " : "", o->note ? o->note : "");
}

/* Decoders have dozens of caches as outputs: behind the first few, only those that say something, and the worst of what is far
 * from float. */
enum { SHOWN = 6 };
static const double FINE_DB = 30;
static bool is_special(const qx_report_output *o) { return o->note || !isnan(o->top1) || isnan(o->sqnr_db) || !isnan(o->equal); }

static bool worth_showing(const qx_report *r, int64_t at)
{
    const qx_report_output *o = &r->outputs[at];
    int worse = 0;
    if (is_special(o)) return o->note || !isnan(o->top1) || isnan(o->equal) || o->equal < 1;
    if (o->sqnr_db >= FINE_DB) return false;
    for (int64_t i = SHOWN; i < r->n_outputs && worse < SHOWN; i++) {
        const double db = is_special(&r->outputs[i]) ? INFINITY : r->outputs[i].sqnr_db;
        worse += db < o->sqnr_db || (i < at && db == o->sqnr_db);
    }
    return worse < SHOWN;
}

/* All where something is to be done about them; of a good result a few. */
static void print_layers(cli *c, const qx_report *r)
{
    enum { FEW = 4 };
    const bool all = r->grade < QX_GRADE_CLOSE || cli_flag(c, "explain") || r->n_layers < FEW;
    const int n = all ? (int)r->n_layers : FEW;
    const char **cells = n ? new_cells(c, n, 4) : NULL;
    if (!cells) return;
    cli_print("  furthest from float:\n");
    for (int i = 0; i < n; i++) {
        const char **row = cells + i * 4;
        row[0] = text(c, "    %s", decibel(c, r->layers[i].sqnr_db));
        row[1] = text(c, "cosine %.5f", r->layers[i].cosine);
        row[2] = r->layers[i].format;
        row[3] = title(c, r->layers[i].name, r->layers[i].scope);
    }
    cli_table(stdout, cells, n, 4, "rlll");
}

static void print_quality(cli *c, const qx_report *r)
{
    int64_t left = 0;
    double least = FINE_DB;
    for (int64_t i = 0; i < r->n_outputs; i++) {
        const qx_report_output *o = &r->outputs[i];
        if (i < SHOWN || worth_showing(r, i)) {
            print_output(c, o);
            continue;
        }
        left++;
        if (!is_special(o) && o->sqnr_db < least) least = o->sqnr_db;
    }
    if (left) cli_print("  %lld more outputs, each %.3g dB or better, or all equal\n", (long long)left, floor(10 * least) / 10);
    if (r->verify_note) cli_field("  ", r->verify_note);
    print_layers(c, r);
}

/* Of the weights alone: known without samples. */
static void print_worst_weights(cli *c, const qx_report *r)
{
    enum { MOST = 10 };
    const qx_report_tensor *worst[MOST + 1];
    int n = 0;
    for (int64_t i = 0; i < r->n_tensors; i++) {
        int at = n;
        if (!isfinite(r->tensors[i].sqnr)) continue;
        for (; at > 0 && r->tensors[i].sqnr < worst[at - 1]->sqnr; at--) worst[at] = worst[at - 1];
        worst[at] = &r->tensors[i];
        if (n < MOST) n++;
    }
    const char **cells = new_cells(c, n, 4);
    if (!cells || !n) return;
    cli_print("  weights furthest from float:\n");
    for (int i = 0; i < n; i++) {
        const char **row = cells + i * 4;
        row[0] = text(c, "    %s", decibel(c, worst[i]->sqnr));
        row[1] = isfinite(worst[i]->input_sqnr) ? text(c, "input %s", decibel(c, worst[i]->input_sqnr)) : "";
        row[2] = worst[i]->format ? worst[i]->format : "";
        row[3] = tensor_title(c, worst[i]);
    }
    cli_table(stdout, cells, n, 4, "rlll");
}

static const char *nats(cli *c, double v) { return isfinite(v) ? text(c, "%.4f", v) : "-"; }
static const char *noise(cli *c, double v) { return isfinite(v) && v > 0 ? text(c, "%.1f dB", -10 * log10(v)) : "-"; }

static void print_frontier(cli *c, const qx_report *r)
{
    enum { COLS = 7 };
    const char **cells = new_cells(c, r->n_points + 1, COLS);
    int rows = 1;
    if (!r->n_points || !cells) return;
    cli_print("  choices of formats (KL and noise predicted; of the chosen one measured on samples):\n");
    static const char *const head[COLS] = {"", "    bytes", "bits/weight", "KL", "SQNR", "", "formats"};
    memcpy(cells, head, sizeof head);
    for (int64_t i = 0; i < r->n_points; i++) {
        const qx_report_point *p = &r->points[i];
        const char **row = cells + rows * COLS;
        if (!p->shown) continue;
        row[0] = p->chosen ? "  >" : "";
        row[1] = cli_bytes(c, p->bytes);
        row[2] = text(c, "%.2f", p->bits);
        row[3] = nats(c, p->chosen ? p->measured_kl : p->kl);
        row[4] = noise(c, p->chosen ? p->measured_noise : p->noise);
        row[5] = p->label ? p->label : "";
        row[6] = p->formats;
        rows++;
    }
    cli_table(stdout, cells, rows, COLS, "lrrrrll");
}

/* The last lines, where the eye is: is it good, what would make it better, and what comes next? */
static void print_verdict(cli *c, const qx_report *r)
{
    static const cli_colour colours[] = {[QX_GRADE_BROKEN] = CLI_RED, [QX_GRADE_FAR] = CLI_RED, [QX_GRADE_DIFFERS] = CLI_YELLOW,
                                         [QX_GRADE_CLOSE] = CLI_GREEN, [QX_GRADE_VERY_CLOSE] = CLI_GREEN};
    if (r->verdict) cli_print("  verdict %s%s%s\n", cli_colour_on(stdout, colours[r->grade]), r->verdict, cli_colour_on(stdout, CLI_PLAIN));
    for (int i = 0; i < r->n_hints; i++) cli_field("  hint   ", cli_show(c, r->hints[i]));
    if (r->next) cli_print("  next   %s\n", cli_show(c, r->next));
}

/* Codes, scales and zero points over the number of elements; NaN: no weight was quantized. */
static double bits_of_weights(const qx_report *r)
{
    double bytes = 0, elements = 0;
    for (int64_t i = 0; i < r->n_tensors; i++) {
        if (!r->tensors[i].format) continue;
        bytes += (double)r->tensors[i].bytes_after;
        elements += (double)r->tensors[i].n * (double)r->tensors[i].k;
    }
    return 8 * bytes / elements;
}

static void print_time(cli *c, const qx_report *r)
{
    double seconds = 0;
    const char *stages = "";
    for (int64_t i = 0; i < r->n_stages; i++) {
        seconds += r->stages[i].seconds;
        stages = text(c, "%s%s%s %.2f", stages, i ? ", " : "", r->stages[i].name, r->stages[i].seconds);
    }
    cli_fieldf("  time   ", "%.2f s (%s)", seconds, stages);
}

/* Two digits: it is an estimate. */
static const char *work_time(cli *c, double seconds)
{
    if (seconds < 1) return "a second";
    if (seconds < 10) return text(c, "%.1f s", seconds);
    if (seconds < 100) return text(c, "%.0f s", seconds);
    return seconds < 6000 ? text(c, "%.0f minutes", seconds / 60) : text(c, "%.1f hours", seconds / 3600);
}

static void print_summary(cli *c, const qx_report *r, bool dry)
{
    double ratio = r->input_bytes > 0 ? (double)r->output_bytes / (double)r->input_bytes : 0;
    cli_print("%s %s -> %s%s\n", dry ? "plan:" : "wrote", cli_show(c, r->input), cli_show(c, r->output),
              dry ? " (nothing is written)" : "");
    cli_print("  size   %s -> %s (%.0f%%)", cli_bytes(c, r->input_bytes), cli_bytes(c, r->output_bytes), ratio * 100);
    if (isfinite(bits_of_weights(r))) cli_print(", %.2f bits a quantized weight", bits_of_weights(r));
    cli_print("%s%s\n", r->data_path ? ", in " : "", r->data_path ? cli_show(c, r->data_path) : "");
    print_time(c, r);
    if (dry && r->expected_seconds > 0)
        cli_fieldf("  work   ", "about %s, when nothing else runs%s%s", work_time(c, r->expected_seconds),
                   r->expected_without ? "; not counted: " : "", r->expected_without ? r->expected_without : "");
    if (dry) cli_fieldf("  memory ", "about %s for the work", cli_bytes(c, r->expected_bytes));
    else
        cli_fieldf("  memory ", "%s%s", cli_bytes(c, r->peak_rss),
                   r->expected_bytes ? text(c, " (%s expected)", cli_bytes(c, r->expected_bytes)) : "");
    if (r->samples) cli_field("  samples ", cli_show(c, r->samples));
    print_counts(c, r);
    print_frontier(c, r);
    print_quality(c, r);
    if (!r->n_outputs || cli_flag(c, "explain")) print_worst_weights(c, r);
    print_verdict(c, r);
}

static qx_status write_report(cli *c, const qx_report *r, const char *path)
{
    qx_buf b = QX_BUF_INIT(c->ctx);
    const size_t n = strlen(path);
    const bool page = n > 5 && strcmp(path + n - 5, ".html") == 0;
    qx_status st = qx_out_check(c->ctx, path, (const char *const[]){r->input, r->output, r->data_path}, 3);
    if (st == QX_OK) st = page ? qx_report_html(r, &b) : qx_report_json(r, &b);
    if (st == QX_OK) st = qx_buf_put(&b, "\n", 1);
    if (st == QX_OK) st = cli_write_file(c, path, &b);
    qx_buf_free(&b);
    return st;
}

qx_status cli_report(cli *c, const qx_report *r)
{
    bool dry = cli_flag(c, "dry-run");
    if (cli_value(c, "report")) QX_TRY(write_report(c, r, cli_value(c, "report")));
    if (c->json) {
        qx_buf b = QX_BUF_INIT(c->ctx);
        QX_TRY(qx_report_json(r, &b));
        return cli_print_buf(c, &b);
    }
    if (c->quiet && !dry && !cli_flag(c, "explain")) return QX_OK;
    if (cli_flag(c, "explain")) print_explain(c, r);
    if (dry) print_tensors(c, r);
    print_summary(c, r, dry);
    return QX_OK;
}
