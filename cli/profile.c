/* profile.c - where the time of a run went: a table by operator, one by node, and a trace for chrome://tracing. */
#include "cli/profile.h"

#include <stdlib.h>
#include <string.h>

typedef struct row { const char *name, *op, *kernel; double seconds, flops, bytes; int64_t calls; } row;

static int slower_first(const void *a, const void *b)
{
    const row *x = a, *y = b;
    if (x->seconds != y->seconds) return x->seconds < y->seconds ? 1 : -1;
    return strcmp(x->name, y->name);
}

static const char *op_of(const qx_node_time *t) { return t->op; }
static const char *kernel_of(const qx_node_time *t) { return t->kernel ? t->kernel : "plain"; }

/* One row for each key, the slowest first. */
static int grouped(const qx_node_time *t, int n, const char *(*key)(const qx_node_time *t), row *rows)
{
    int k = 0;
    for (int i = 0; i < n; i++) {
        int r = 0;
        while (r < k && strcmp(rows[r].op, key(&t[i])) != 0) r++;
        if (r == k) rows[k++] = (row){.name = key(&t[i]), .op = key(&t[i])};
        rows[r].seconds += t[i].seconds;
        rows[r].flops += t[i].flops;
        rows[r].bytes += t[i].bytes;
        rows[r].calls += t[i].calls;
    }
    qsort(rows, (size_t)k, sizeof *rows, slower_first);
    return k;
}

static qx_status print_rows(cli *c, const char *title, const row *rows, int n, int limit, double total)
{
    const char **cells = NULL;
    int shown = n < limit ? n : limit, k = 0;
    QX_TRY(qx_alloc_array(c->ctx, (size_t)(shown + 1) * 6, sizeof *cells, (void **)&cells));
    static const char *const head[6] = {"", "calls", "ms", "%", "GFLOP/s", "GB/s"};
    for (int i = 0; i < 6; i++) cells[k++] = i ? head[i] : title;
    for (int i = 0; i < shown; i++) {
        const row *r = &rows[i];
        double s = r->seconds > 0 ? r->seconds : 1e-12;
        cells[k++] = r->kernel ? qx_arena_printf(c->arena, "%s [%s]", cli_show(c, r->name), r->kernel) : cli_show(c, r->name);
        cells[k++] = qx_arena_printf(c->arena, "%lld", (long long)r->calls);
        cells[k++] = qx_arena_printf(c->arena, "%.3f", r->seconds * 1e3);
        cells[k++] = qx_arena_printf(c->arena, "%.1f", 100 * r->seconds / (total > 0 ? total : 1));
        cells[k++] = r->flops > 0 ? qx_arena_printf(c->arena, "%.1f", r->flops / s * 1e-9) : "";
        cells[k++] = qx_arena_printf(c->arena, "%.1f", r->bytes / s * 1e-9);
    }
    cli_table(stdout, cells, shown + 1, 6, "lrrrrr");
    qx_free(c->ctx, cells);
    return QX_OK;
}

/* Where a library could have done the work and does not: its words, once. */
static bool first_note(const qx_node_time *t, int i)
{
    for (int k = 0; k < i; k++)
        if (t[k].note && t[i].note && strcmp(t[k].note, t[i].note) == 0) return false;
    return t[i].note != NULL;
}

qx_status cli_profile_print(cli *c, const qx_node_time *t, int n)
{
    row *rows = NULL;
    double total = 0;
    QX_TRY(qx_alloc_array(c->ctx, (size_t)n + 1, sizeof *rows, (void **)&rows));
    for (int i = 0; i < n; i++) total += t[i].seconds;
    int ops = grouped(t, n, op_of, rows);
    qx_status st = print_rows(c, "operator", rows, ops, 40, total);
    for (int i = 0; i < n; i++) rows[i] = (row){t[i].name, t[i].op, t[i].kernel, t[i].seconds, t[i].flops, t[i].bytes, t[i].calls};
    qsort(rows, (size_t)n, sizeof *rows, slower_first);
    cli_print("\n");
    if (st == QX_OK) st = print_rows(c, "node", rows, n, 20, total);
    for (int i = 0; i < n && st == QX_OK; i++)
        if (first_note(t, i)) cli_print("%s: %s\n", cli_show(c, t[i].name), t[i].note);
    qx_free(c->ctx, rows);
    return st;
}

static qx_status put_rows(qx_jsonw *w, const char *list, bool kernels, const row *rows, int n)
{
    QX_TRY(qx_jsonw_begin_array(w, list));
    for (int i = 0; i < n; i++) {
        QX_TRY(qx_jsonw_begin_object(w, NULL));
        QX_TRY(kernels ? qx_jsonw_string(w, "kernel", rows[i].name) : qx_jsonw_string(w, "op", rows[i].name));
        QX_TRY(qx_jsonw_number(w, "seconds", rows[i].seconds));
        QX_TRY(qx_jsonw_int(w, "calls", rows[i].calls));
        QX_TRY(qx_jsonw_end_object(w));
    }
    return qx_jsonw_end_array(w);
}

qx_status cli_profile_json(cli *c, qx_jsonw *w, const qx_node_time *t, int n)
{
    row *rows = NULL;
    QX_TRY(qx_alloc_array(c->ctx, (size_t)n + 1, sizeof *rows, (void **)&rows));
    qx_status st;
    QX_TRY_GOTO(st, put_rows(w, "operators", false, rows, grouped(t, n, op_of, rows)));
    QX_TRY_GOTO(st, put_rows(w, "kernels", true, rows, grouped(t, n, kernel_of, rows)));
    QX_TRY_GOTO(st, qx_jsonw_begin_array(w, "notes"));
    for (int i = 0; i < n; i++)
        if (first_note(t, i)) QX_TRY_GOTO(st, qx_jsonw_string(w, NULL, qx_arena_printf(c->arena, "%s: %s", t[i].name, t[i].note)));
    QX_TRY_GOTO(st, qx_jsonw_end_array(w));
done:
    qx_free(c->ctx, rows);
    return st;
}

qx_status cli_profile_trace(cli *c, const qx_node_time *t, int n, const char *path)
{
    qx_buf b = QX_BUF_INIT(c->ctx);
    qx_jsonw w;
    qx_status st;
    double at = 0;
    qx_jsonw_init(&w, &b, false);
    QX_TRY_GOTO(st, qx_jsonw_begin_object(&w, NULL));
    QX_TRY_GOTO(st, qx_jsonw_begin_array(&w, "traceEvents"));
    for (int i = 0; i < n; i++) {
        QX_TRY_GOTO(st, qx_jsonw_begin_object(&w, NULL));
        QX_TRY_GOTO(st, qx_jsonw_string(&w, "name", t[i].name));
        QX_TRY_GOTO(st, qx_jsonw_string(&w, "cat", t[i].op));
        QX_TRY_GOTO(st, qx_jsonw_string(&w, "ph", "X"));
        QX_TRY_GOTO(st, qx_jsonw_int(&w, "pid", 1));
        QX_TRY_GOTO(st, qx_jsonw_int(&w, "tid", 1));
        QX_TRY_GOTO(st, qx_jsonw_number(&w, "ts", at * 1e6));
        QX_TRY_GOTO(st, qx_jsonw_number(&w, "dur", t[i].seconds * 1e6));
        QX_TRY_GOTO(st, qx_jsonw_end_object(&w));
        at += t[i].seconds;
    }
    QX_TRY_GOTO(st, qx_jsonw_end_array(&w));
    QX_TRY_GOTO(st, qx_jsonw_end_object(&w));
    st = cli_write_file(c, path, &b);
done:
    qx_buf_free(&b);
    return st;
}
