/* compare_nodes.c - where two models part: values of one name, in the order of the second model. The first run's content is kept
 * (thinned out when a value is large), the second's is compared as it comes. Watching a value keeps the executor from fusing
 * across it. */
#include "cli/compare_nodes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES = 1 << 16, WORST = 10 };

void cli_measure(const float *a, const float *b, int64_t n, cli_difference *d)
{
    double signal = 0, noise = 0, dot = 0, bb = 0;
    d->max_abs = 0;
    d->count = n;
    d->differ = 0;
    for (int64_t i = 0; i < n; i++) {
        double x = (double)a[i], y = (double)b[i], e = x == y ? 0 : x - y; /* Inf equals Inf */
        signal += x * x;
        noise += e * e;
        dot += x * y;
        bb += y * y;
        d->differ += e != 0;
        if (fabs(e) > d->max_abs || e != e) d->max_abs = fabs(e);
    }
    d->sqnr = noise == 0 ? INFINITY : 10 * log10(signal / noise);
    d->cosine = signal > 0 && bb > 0 ? dot / sqrt(signal * bb) : signal == bb ? 1 : 0;
}

typedef struct kept { float *x; int64_t n, numel; } kept;
struct cli_node_watch {
    cli *c;
    qx_value **values[2];
    cli_difference *found; /* by value */
    kept *first;
    int n;
};

/* Evenly spread elements of t as float; NULL with *n 0 for types that hold no numbers. */
static qx_status places_of(cli *c, const qx_tensor *t, float **out, int64_t *n)
{
    const int64_t step = t->numel > PLACES ? t->numel / PLACES : 1;
    const size_t size = (size_t)qx_dtype_bits(t->dtype) / 8;
    *out = NULL;
    *n = 0;
    if (t->on_device || t->is_sequence || t->is_optional || !size || !t->numel) return QX_OK;
    const int64_t count = t->numel / step < PLACES ? t->numel / step : PLACES;
    QX_TRY(qx_alloc_array(c->ctx, (size_t)count, sizeof **out, (void **)out));
    for (int64_t i = 0; i < count; i++)
        if (!qx_to_f32(t->dtype, (const char *)t->data + (size_t)(i * step) * size, 1, *out + i)) return QX_OK;
    *n = count;
    return QX_OK;
}

static qx_status on_first(void *user, int watch, const qx_value *v, const qx_tensor *t)
{
    cli_node_watch *w = user;
    kept *k = &w->first[watch];
    (void)v;
    qx_free(w->c->ctx, k->x);
    k->numel = t->numel;
    return places_of(w->c, t, &k->x, &k->n);
}

static qx_status on_second(void *user, int watch, const qx_value *v, const qx_tensor *t)
{
    cli_node_watch *w = user;
    const kept *k = &w->first[watch];
    cli_difference *d = &w->found[watch];
    float *y;
    int64_t n;
    QX_TRY(places_of(w->c, t, &y, &n));
    if (n && n == k->n && t->numel == k->numel) {
        *d = (cli_difference){.name = v->name, .op = v->def->op_type, .codes = !qx_dtype_is_float(t->dtype)};
        cli_measure(k->x, y, n, d);
    }
    qx_free(w->c->ctx, y);
    return QX_OK;
}

/* What both models compute (not inputs, not constants) in their main graphs. */
static void find_shared(cli_node_watch *w, const cli_session *a, const cli_session *b)
{
    QX_FOR_NODES(b->model->graph, node) {
        for (uint32_t i = 0; i < node->n_out; i++) {
            qx_value *y = node->out[i], *x = y && y->name[0] ? qx_graph_find(a->model->graph, y->name) : NULL;
            if (!x || !x->def || node->op->id == QX_OP_Constant) continue;
            w->values[0][w->n] = x;
            w->values[1][w->n++] = y;
        }
    }
}

qx_status cli_nodes_watch(cli *c, cli_session *a, cli_session *b, cli_node_watch **out)
{
    cli_node_watch *w = qx_arena_alloc(c->arena, sizeof *w);
    if (!w) return QX_E_NOMEM;
    *w = (cli_node_watch){.c = c};
    *out = w;
    for (int i = 0; i < 2; i++) {
        w->values[i] = qx_arena_array(c->arena, b->model->n_values + 1, sizeof *w->values[i]);
        if (!w->values[i]) return QX_E_NOMEM;
    }
    find_shared(w, a, b);
    w->found = qx_arena_array(c->arena, (size_t)w->n + 1, sizeof *w->found);
    w->first = qx_arena_array(c->arena, (size_t)w->n + 1, sizeof *w->first);
    if (!w->found || !w->first) return QX_E_NOMEM;
    QX_TRY(qx_exec_watch(a->exec, w->values[0], w->n, on_first, w));
    return qx_exec_watch(b->exec, w->values[1], w->n, on_second, w);
}

qx_status cli_nodes_differences(cli *c, cli_node_watch *w, const cli_difference **out, int *n)
{
    *n = 0;
    for (int i = 0; i < w->n; i++)
        if (w->found[i].name) w->found[(*n)++] = w->found[i];
    *out = w->found;
    if (!*n) QX_FAIL(c->ctx, QX_E_USAGE, "--nodes: the models have no computed value of one name");
    return QX_OK;
}

void cli_nodes_free(cli *c, cli_node_watch *w)
{
    for (int i = 0; w && w->first && i < w->n; i++) qx_free(c->ctx, w->first[i].x);
}

/* ---- printing ----------------------------------------------------------------------------------------------------------------------- */

static void print_line(cli *c, const char *label, const cli_difference *d)
{
    cli_print("%-24s %7.2f dB  %lld of %lld differ, by at most %.4g  %s (%s)\n", label, d->sqnr, (long long)d->differ,
              (long long)d->count, d->max_abs, cli_show(c, d->name), cli_show(c, d->op));
}

static int by_sqnr(const void *a, const void *b)
{
    const cli_difference *x = *(const cli_difference *const *)a, *y = *(const cli_difference *const *)b;
    return x->sqnr < y->sqnr ? -1 : x->sqnr > y->sqnr ? 1 : x < y ? -1 : x > y;
}

void cli_nodes_print(cli *c, const cli_difference *d, int n, double below)
{
    const cli_difference *codes = NULL, *far = NULL, **worst = qx_arena_array(c->arena, (size_t)n, sizeof *worst);
    char label[40];
    if (!worst) return;
    for (int i = 0; i < n; i++) {
        worst[i] = &d[i];
        if (!codes && d[i].codes && d[i].differ) codes = &d[i];
        if (!far && d[i].sqnr < below) far = &d[i];
    }
    snprintf(label, sizeof label, "first below %g dB", below);
    cli_print("%d values of one name, in the order of the second model\n", n);
    if (codes) print_line(c, "first integers", codes);
    if (far) print_line(c, label, far);
    else cli_print("%-24s none\n", label);
    qsort(worst, (size_t)n, sizeof *worst, by_sqnr);
    for (int i = 0; i < n && i < WORST && worst[i]->differ; i++) print_line(c, i ? "" : "furthest", worst[i]);
}

qx_status cli_nodes_json(qx_jsonw *w, const cli_difference *d, int n)
{
    QX_TRY(qx_jsonw_begin_array(w, "nodes"));
    for (int i = 0; i < n; i++) {
        QX_TRY(qx_jsonw_begin_object(w, NULL));
        QX_TRY(qx_jsonw_string(w, "name", d[i].name));
        QX_TRY(qx_jsonw_string(w, "op", d[i].op));
        QX_TRY(qx_jsonw_number(w, "sqnr_db", d[i].sqnr)); /* null: identical */
        QX_TRY(qx_jsonw_number(w, "max_abs", d[i].max_abs));
        QX_TRY(qx_jsonw_int(w, "differ", d[i].differ));
        QX_TRY(qx_jsonw_int(w, "count", d[i].count));
        QX_TRY(qx_jsonw_end_object(w));
    }
    return qx_jsonw_end_array(w);
}
