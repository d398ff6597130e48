/* probe.c - see probe.h. Inputs and results of all linear operators of the main graph are watched; when a result is made, Y += X
 * dW' (and what rounding X does) for operators that are to change. Convolutions and other shapes get noise of the energy that
 * their score says. */
#include "passes/search/probe.h"

#include <math.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/divergence.h"
#include "kernels/dot.h"
#include "kernels/quant.h"
#include "passes/search/group_read.h"
#include "passes/place/rules.h"

enum { TILE = 64 };
static const int64_t few_weights = 20000000, most_weights = 2000000000;

int64_t qx_probe_samples(int64_t weights) { return weights > most_weights ? 0 : weights < few_weights ? 4 : 1; }

double qx_probe_size(const qx_probe_effect *e) { return isnan(e->kl) ? e->noise : fmax(e->kl, 0); }

/* Of a sample in float. norm[output][rows]: log-sum-exp of each row of logits */
typedef struct held { qx_tensor *out; double **norm; qx_marks *marks; } held;
struct qx_probe {
    qx_ctx *ctx;
    struct qx_pipeline *pipe;
    const qx_stats *stats;
    qx_exec *exec, *own;             /* own: NULL when it is the sweep's */
    qx_probe_runs runs;
    held *ref;                       /* [count] */
    qx_ends ends;                    /* where the outputs are compared */
    bool *logits, any_logits;
    qx_value **watched; int n_watched;
    const qx_probe_change **change;  /* [items]: of this run, or NULL */
    const qx_value **first;          /* [changes]: what the operators that change read */
    float **x; int64_t *x_len;       /* [items]: copies of inputs in this run */
};

/* ---- one operator ------------------------------------------------------------------------------------------------------ */

typedef struct product {
    qx_probe *p;
    const qx_plan_item *item;
    const qx_probe_change *c;
    const float *x, *xq;             /* [rows][k]; xq is x when activations stay float */
    int64_t rows, n, k;
    float amax, alpha;
    const float *importance;         /* [k] of the columns as they are rounded, or NULL */
    float *y;                        /* [rows][n]: added to */
    bool biased;                     /* y is alpha X W' and a bias */
    bool cleared;                    /* y was X W' alone, and is zero now */
    int64_t strip;                   /* rows of W that a thread reads at once */
} product;

/* What a thread works with: rows of W as they are stored, and of one tile the rounded ones with their scales, and what both make of X. */
typedef struct room { float *a, *b, *scale, *y; int32_t *zero; } room;

static void close_room(qx_ctx *ctx, room *r)
{
    void *list[] = {r->a, r->b, r->scale, r->y, r->zero};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) qx_free(ctx, list[i]);
}

static qx_status open_room(const product *d, room *r)
{
    qx_ctx *ctx = d->p->ctx;
    QX_TRY(qx_alloc_raw(ctx, (size_t)(d->strip * d->k) * sizeof *r->a, (void **)&r->a));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(TILE * d->k) * sizeof *r->b, (void **)&r->b));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(TILE * d->k + TILE) * sizeof *r->scale, (void **)&r->scale));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(TILE * d->k + TILE) * sizeof *r->zero, (void **)&r->zero));
    return qx_alloc_raw(ctx, (size_t)(d->rows * TILE) * sizeof *r->y, (void **)&r->y);
}

/* Y[:, first...] += factor X b'. */
static void add_rows(const product *d, const float *x, const float *b, int64_t first, int64_t rows, float factor, float *y)
{
    qx_gemm_nt(d->rows, rows, d->k, x, d->k, b, d->k, y, rows);
    for (int64_t i = 0; i < d->rows; i++)
        for (int64_t j = 0; j < rows; j++) d->y[i * d->n + first + j] += factor * y[i * rows + j];
}

/* Y[:, tile] += alpha (Xq Wq' - X W'), which is X dW' when x stays float: then the factor is taken out of Wq again. Where Y was
 * nothing but X W', it has been cleared, and Xq Wq' is all. */
static void add_tile(const product *d, const room *r, const float *a, int64_t first, int64_t rows)
{
    const int64_t k = d->k;
    const float *s = d->c->smooth;
    float *b = r->b;
    const bool both = d->xq != d->x;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < k; c++) b[i * k + c] = s ? a[i * k + c] * s[c] : a[i * k + c];
    qx_spec_fake(d->c->spec, &(qx_row_tile){.rows = rows, .k = k, .x = b, .amax = d->amax, .importance = d->importance, .scale = r->scale,
                                            .zero = r->zero});
    for (int64_t i = 0; i < rows && !both; i++)
        for (int64_t c = 0; c < k; c++) b[i * k + c] = (s ? b[i * k + c] / s[c] : b[i * k + c]) - a[i * k + c];
    add_rows(d, d->xq, b, first, rows, d->alpha, r->y);
    if (both && !d->cleared) add_rows(d, d->x, a, first, rows, -d->alpha, r->y);
}

static qx_status add_strip(void *user, int64_t i)
{
    const product *d = user;
    const qx_plan_weight *w = d->item->weight;
    const int64_t first = i * d->strip, rows = d->n - first < d->strip ? d->n - first : d->strip;
    room r = {0};
    qx_status st;
    QX_TRY_GOTO(st, open_room(d, &r));
    QX_TRY_GOTO(st, qx_rows_read(d->p->ctx, w->tensor, &w->view, NULL, first, rows, r.a));
    for (int64_t t = 0; t < rows; t += TILE) add_tile(d, &r, r.a + t * d->k, first + t, rows - t < TILE ? rows - t : TILE);
done:
    close_room(d->p->ctx, &r);
    return st;
}

/* Rows that a thread reads at once: of a [K,N] weight long runs, of a large one not too many, of a small one a share. */
static int64_t strip_of(const product *d)
{
    enum { MOST = 512, BYTES = 16 << 20 };
    const int64_t share = qx_cells_of(d->n, qx_ctx_threads(d->p->ctx)), fit = BYTES / (d->k * (int64_t)sizeof(float)),
        most = share < fit ? share : fit;
    return most < TILE ? TILE : most < MOST ? most : MOST;
}

/* The largest |W s|. */
static qx_status tensor_amax(qx_ctx *ctx, qx_plan_item *it, int64_t k, const float *smooth, float *out)
{
    const qx_group one = qx_group_alone(&it);
    float *col;
    *out = 0;
    QX_TRY(qx_alloc_array(ctx, (size_t)k, sizeof *col, (void **)&col));
    qx_status st = qx_group_maxima(ctx, &one, col);
    for (int64_t j = 0; j < k && st == QX_OK; j++) *out = fmaxf(*out, smooth ? col[j] * smooth[j] : col[j]);
    qx_free(ctx, col);
    return st;
}

/* Importance of the columns as they are rounded; *own: memory of it that the caller frees. */
static qx_status find_importance(product *d, float **own)
{
    const qx_value_stats *vs = d->p->stats ? qx_stats_get(d->p->stats, d->item->lin->x) : NULL;
    const float *s = d->c->smooth;
    if (!vs || vs->channels.n != d->k || !vs->channels.importance) return QX_OK;
    d->importance = vs->channels.importance;
    if (!s) return QX_OK;
    QX_TRY(qx_alloc_raw(d->p->ctx, (size_t)d->k * sizeof **own, (void **)own));
    for (int64_t j = 0; j < d->k; j++) (*own)[j] = d->importance[j] / (s[j] * s[j]);
    d->importance = *own;
    return QX_OK;
}

/* X on its grid; *own: memory of it that the caller frees. */
static qx_status quantize_input(product *d, float **own)
{
    const float *s = d->c->smooth;
    d->xq = d->x;
    if (!qx_act_rounds(&d->c->x)) return QX_OK;
    QX_TRY(qx_alloc_raw(d->p->ctx, (size_t)(d->rows * d->k) * sizeof **own, (void **)own));
    for (int64_t i = 0; i < d->rows * d->k; i++) (*own)[i] = s ? d->x[i] / s[i % d->k] : d->x[i];
    qx_act_fake(&d->c->x, d->rows, d->k, *own);
    d->xq = *own;
    return QX_OK;
}

static qx_status add_product(product *d)
{
    qx_ctx *ctx = d->p->ctx;
    float *xq = NULL, *importance = NULL;
    qx_status st = QX_OK;
    if (d->c->spec->block < 0) QX_TRY(tensor_amax(ctx, (qx_plan_item *)(uintptr_t)d->item, d->k, d->c->smooth, &d->amax));
    QX_TRY_GOTO(st, find_importance(d, &importance));
    QX_TRY_GOTO(st, quantize_input(d, &xq));
    d->cleared = d->xq != d->x && !d->biased;
    if (d->cleared) memset(d->y, 0, (size_t)(d->rows * d->n) * sizeof *d->y);
    d->strip = strip_of(d);
    st = qx_parallel(ctx, qx_cells_of(d->n, d->strip), add_strip, d);
done:
    qx_free(ctx, importance);
    qx_free(ctx, xq);
    return st;
}

/* Close to normal: the sum of four uniform numbers, from the place alone. */
static float noise_at(uint64_t i)
{
    uint64_t z = (i + 1) * 0x9E3779B97F4A7C15u;
    float sum = 0;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    for (int b = 0; b < 4; b++) sum += (float)((z >> (16 * b)) & 0xFFFF) / 65536.0f - 0.5f;
    return sum * 1.7320508f; /* variance 4/12 */
}

static void add_noise(float *y, int64_t n, double error)
{
    double energy = 0;
    for (int64_t i = 0; i < n; i++) energy += (double)y[i] * (double)y[i];
    const float size = (float)sqrt(error * energy / (double)(n ? n : 1));
    for (int64_t i = 0; i < n; i++) y[i] += size * noise_at((uint64_t)i);
}

/* Y is X W' with the rows of X in memory order. */
static bool is_product(const qx_plan_item *it, int64_t x_len, int64_t y_len)
{
    const qx_linear *l = it->lin;
    if (!l->plain || !x_len || x_len % l->k) return false;
    return y_len == x_len / l->k * l->n;
}

/* The tensor's memory holds the result from here on: what a watch is allowed to change (runtime/exec.h). */
static qx_status change_result(qx_probe *p, int64_t i, const qx_tensor *t)
{
    const qx_plan_item *it = &p->pipe->plan->items[i];
    const qx_probe_change *c = p->change[i];
    float *y = NULL;
    qx_status st;
    if (t->on_device || !qx_dtype_is_float(t->dtype)) return QX_OK;
    QX_TRY(qx_alloc_raw(p->ctx, (size_t)t->numel * sizeof *y + 1, (void **)&y));
    (void)qx_to_f32(t->dtype, t->data, t->numel, y);
    if (p->x[i] && is_product(it, p->x_len[i], t->numel)) {
        product d = {.p = p, .biased = it->lin->node->n_in > 2 && it->lin->node->in[2], .item = it, .c = c,
                     .x = p->x[i], .rows = p->x_len[i] / it->lin->k, .n = it->lin->n, .k = it->lin->k,
                     .alpha = qx_attr_float(it->lin->node, "alpha", 1), .y = y};
        st = add_product(&d);
    } else {
        add_noise(y, t->numel, c->error);
        st = QX_OK;
    }
    if (st == QX_OK) (void)qx_from_f32(t->dtype, y, t->numel, t->data);
    qx_exec_changed(p->exec);
    qx_free(p->ctx, y);
    qx_free(p->ctx, p->x[i]); /* its one reader is done */
    p->x[i] = NULL;
    return st;
}

static qx_status keep_input(qx_probe *p, int64_t i, const qx_tensor *t)
{
    qx_free(p->ctx, p->x[i]);
    p->x[i] = NULL;
    p->x_len[i] = 0;
    if (t->on_device || p->pipe->plan->items[i].lin->is_conv || !qx_dtype_is_float(t->dtype)) return QX_OK;
    QX_TRY(qx_alloc_raw(p->ctx, (size_t)t->numel * sizeof(float) + 1, (void **)&p->x[i]));
    p->x_len[i] = t->numel;
    (void)qx_to_f32(t->dtype, t->data, t->numel, p->x[i]);
    return QX_OK;
}

bool qx_probe_can_round(const struct qx_pipeline *pipe, const qx_plan_item *it)
{
    const qx_value *v = it->lin->x;
    if (!v->def || v->is_output || v->graph != pipe->model->graph) return false;
    if (it->skips_too) return true;
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_plan_item *reader = qx_plan_item_of(pipe->plan, u->node);
        if (qx_use_reads_values(u) && !(reader && u->index == reader->lin->x_index && qx_item_rounds_x(reader))) return false;
    }
    return true;
}

/* A value on its grid, where it lies. */
static qx_status round_value(qx_probe *p, const qx_act_codes *c, const qx_tensor *t)
{
    const qx_quant q = {.grid = {1, t->numel, 1, t->numel}, .format = {.codes = c->act}, .scale = &c->scale,
                        .zero = c->act == QX_DT_UINT8 ? &c->zero : NULL};
    float *x;
    if (t->on_device || !qx_dtype_is_float(t->dtype) || !t->numel) return QX_OK;
    QX_TRY(qx_alloc_raw(p->ctx, (size_t)t->numel * sizeof *x, (void **)&x));
    (void)qx_to_f32(t->dtype, t->data, t->numel, x);
    (void)qx_fake_quantize(&q, x);
    (void)qx_from_f32(t->dtype, x, t->numel, t->data);
    qx_exec_changed(p->exec);
    qx_free(p->ctx, x);
    return QX_OK;
}

static qx_status on_result(qx_probe *p, int64_t i, const qx_tensor *t)
{
    const qx_probe_change *c = p->change[i];
    if (!c) return QX_OK;
    if (!c->input.act && (c->spec || c->error > 0)) QX_TRY(change_result(p, i, t));
    return c->output.act ? round_value(p, &c->output, t) : QX_OK;
}

static qx_status on_value(void *user, int watch, const qx_value *v, const qx_tensor *t)
{
    qx_probe *p = user;
    const qx_plan *plan = p->pipe->plan;
    (void)watch;
    if (v->def) {
        const qx_plan_item *it = qx_plan_item_of(plan, v->def);
        if (it) QX_TRY(on_result(p, it - plan->items, t));
    }
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_plan_item *it = qx_plan_item_of(plan, u->node);
        const qx_probe_change *c = it && u->index == it->lin->x_index ? p->change[it - plan->items] : NULL;
        if (c && c->input.act) return round_value(p, &c->input, t); /* all readers share one grid */
        if (c) QX_TRY(keep_input(p, it - plan->items, t));
    }
    return QX_OK;
}

/* ---- effect ------------------------------------------------------------------------------------------------------------------ */

/* Elements as float: the tensor's own when it is one (then *owned stays NULL). */
static qx_status as_f32(qx_ctx *ctx, const qx_tensor *t, const float **out, float **owned)
{
    *owned = NULL;
    *out = t->data;
    if (t->dtype == QX_DT_FLOAT) return QX_OK;
    QX_TRY(qx_alloc_raw(ctx, (size_t)t->numel * sizeof **owned + 1, (void **)owned));
    (void)qx_to_f32(t->dtype, t->data, t->numel, *owned);
    *out = *owned;
    return QX_OK;
}

enum { PIECE = 1 << 16 }; /* elements that are compared at a time, when they are no logits */

typedef struct sums { double kl, noise; int64_t kl_rows, outputs; } sums;
/* n: elements of a row, of `all` */
typedef struct rows { const float *a, *b; int64_t n, all; const double *norm; double *kl, *signal, *noise; } rows;

static qx_status row_norm(void *user, int64_t r)
{
    const rows *s = user;
    s->kl[r] = qx_log_sum_exp(s->a + r * s->n, s->n);
    return QX_OK;
}

static qx_status compare_row(void *user, int64_t r)
{
    const rows *s = user;
    const float *a = s->a + r * s->n, *b = s->b + r * s->n;
    const int64_t n = s->all - r * s->n < s->n ? s->all - r * s->n : s->n;
    qx_noise(a, b, n, &s->signal[r], &s->noise[r]);
    if (s->norm) s->kl[r] = qx_divergence(a, s->norm[r], b, qx_log_sum_exp(b, n), n);
    return QX_OK;
}

static int64_t row_count(const rows *r) { return (r->all + r->n - 1) / r->n; }

static qx_status compare_rows(qx_ctx *ctx, rows *r, sums *s)
{
    const int64_t count = row_count(r);
    double signal = 0, noise = 0;
    QX_TRY(qx_alloc_array(ctx, (size_t)(3 * count) + 1, sizeof *r->kl, (void **)&r->kl));
    r->signal = r->kl + count;
    r->noise = r->signal + count;
    qx_status st = qx_parallel(ctx, count, compare_row, r);
    for (int64_t i = 0; i < count; i++) s->kl += r->kl[i], signal += r->signal[i], noise += r->noise[i];
    if (r->norm) s->kl_rows += count;
    if (signal > 0) s->noise += noise / signal, s->outputs++;
    qx_free(ctx, r->kl);
    return st;
}

static bool is_compared(const qx_probe *p, int o, const qx_tensor *t)
{
    return !t->is_sequence && !t->is_optional && qx_dtype_is_float(t->dtype) && (!p->any_logits || p->logits[o]) && t->rank >= 1 &&
        t->numel > 0;
}

static int64_t row_length(const qx_probe *p, int o, const qx_tensor *t) { return p->logits[o] ? t->dims[t->rank - 1] : PIECE; }

static qx_status compare(qx_probe *p, int o, const held *h, const qx_tensor *t, sums *s)
{
    const qx_tensor *ref = &h->out[o];
    float *a = NULL, *b = NULL;
    rows r = {.all = ref->numel, .norm = h->norm[o]};
    qx_status st;
    if (!is_compared(p, o, ref) || ref->numel != t->numel) return QX_OK;
    r.n = row_length(p, o, ref);
    QX_TRY_GOTO(st, as_f32(p->ctx, ref, &r.a, &a));
    QX_TRY_GOTO(st, as_f32(p->ctx, t, &r.b, &b));
    st = compare_rows(p->ctx, &r, s);
done:
    qx_free(p->ctx, a);
    qx_free(p->ctx, b);
    return st;
}

static void free_outputs(qx_probe *p, qx_tensor *out)
{
    for (int i = 0; out && i < p->ends.n; i++) qx_tensor_free(p->ctx, &out[i]);
    qx_free(p->ctx, out);
}

static qx_status run_sample(qx_probe *p, int64_t i, qx_tensor **out)
{
    const qx_feed *feeds;
    int n;
    QX_TRY(qx_check_cancel(p->ctx));
    QX_TRY(qx_alloc_array(p->ctx, (size_t)p->ends.n + 1, sizeof **out, (void **)out));
    qx_samples *all = p->pipe->samples;
    qx_samples_half(all, p->runs.half);
    const qx_status st = qx_samples_get(all, i * qx_samples_count(all) / p->runs.count, &feeds, &n);
    qx_samples_half(all, false);
    QX_TRY(st);
    return qx_exec_run(p->exec, feeds, n, p->ends.names, p->ends.n, *out);
}

static void forget(qx_probe *p)
{
    const int64_t n = p->pipe->plan->linears.count;
    for (int64_t i = 0; i < n; i++) {
        if (p->x) qx_free(p->ctx, p->x[i]);
        if (p->x) p->x[i] = NULL;
        if (p->change) p->change[i] = NULL;
    }
}

qx_status qx_probe_run(qx_probe *p, const qx_probe_change *changes, int64_t n, qx_probe_effect *out)
{
    sums s = {0};
    qx_status st = QX_OK;
    for (int64_t i = 0; i < n; i++) {
        p->change[changes[i].item] = &changes[i];
        p->first[i] = p->pipe->plan->items[changes[i].item].lin->x;
    }
    for (int64_t i = 0; i < p->runs.count && st == QX_OK; i++) {
        qx_tensor *got = NULL;
        qx_exec_begin(p->exec, p->ref[i].marks, p->first, (int)n);
        st = run_sample(p, i, &got);
        for (int o = 0; o < p->ends.n && st == QX_OK; o++) st = compare(p, o, &p->ref[i], &got[o], &s);
        free_outputs(p, got);
    }
    forget(p);
    *out = (qx_probe_effect){.kl = s.kl_rows ? s.kl / (double)s.kl_rows : NAN, .noise = s.outputs ? s.noise / (double)s.outputs : 0};
    return st;
}

/* ---- making one ---------------------------------------------------------------------------------------------------------------- */

/* Inputs and results of linear operators with a weight; only those of the main graph can be changed while they are passed on. */
static qx_status watch(qx_probe *p)
{
    const qx_plan *plan = p->pipe->plan;
    const uint32_t n_values = p->pipe->model->n_values;
    uint8_t *seen;
    QX_TRY(qx_alloc(p->ctx, n_values + 1u, (void **)&seen));
    qx_status st = qx_alloc_array(p->ctx, (size_t)(2 * plan->linears.count) + 1, sizeof *p->watched, (void **)&p->watched);
    for (int64_t i = 0; i < plan->linears.count && st == QX_OK; i++) {
        const qx_linear *l = plan->items[i].lin;
        qx_value *v[2] = {l->x, l->node->out[0]};
        for (int j = 0; j < 2 && plan->items[i].weight && l->node->graph == p->pipe->model->graph; j++)
            if (v[j] && v[j]->graph == l->node->graph && p->ends.can[v[j]->id] && !seen[v[j]->id])
                seen[v[j]->id] = 1, p->watched[p->n_watched++] = v[j];
    }
    qx_free(p->ctx, seen);
    return st == QX_OK ? qx_exec_watch(p->exec, p->watched, p->n_watched, on_value, p) : st;
}

static void find_logits(qx_probe *p)
{
    const qx_plan *plan = p->pipe->plan;
    for (int i = 0; i < p->ends.n; i++) {
        const qx_value *v = qx_graph_find(p->pipe->model->graph, p->ends.names[i]);
        p->logits[i] = strcmp(p->ends.names[i], "logits") == 0;
        for (int64_t k = 0; k < plan->linears.count && !p->logits[i]; k++) p->logits[i] = qx_rule_head_output(plan->items[k].lin) == v;
        p->any_logits = p->any_logits || p->logits[i];
    }
}

/* Log sums of the float logits, which every comparison needs. */
static qx_status norms(qx_probe *p, held *h)
{
    QX_TRY(qx_alloc_array(p->ctx, (size_t)p->ends.n + 1, sizeof *h->norm, (void **)&h->norm));
    for (int o = 0; o < p->ends.n; o++) {
        float *own;
        rows r = {.all = h->out[o].numel};
        if (!p->logits[o] || !is_compared(p, o, &h->out[o])) continue;
        r.n = row_length(p, o, &h->out[o]);
        QX_TRY(qx_alloc_array(p->ctx, (size_t)row_count(&r), sizeof *r.kl, (void **)&h->norm[o]));
        r.kl = h->norm[o];
        QX_TRY(as_f32(p->ctx, &h->out[o], &r.a, &own));
        const qx_status st = qx_parallel(p->ctx, row_count(&r), row_norm, &r);
        qx_free(p->ctx, own);
        QX_TRY(st);
    }
    return QX_OK;
}

static void free_held(qx_probe *p, held *h)
{
    free_outputs(p, h->out);
    qx_marks_free(h->marks);
    for (int o = 0; h->norm && o < p->ends.n; o++) qx_free(p->ctx, h->norm[o]);
    qx_free(p->ctx, h->norm);
}

static qx_status open_exec(qx_probe *p)
{
    const qx_exec_options eo = {.device = QX_DEVICE_CPU, .only_watched = true};
    if (!p->pipe->exec) QX_TRY(qx_exec_new(p->ctx, p->pipe->model, &eo, &p->own));
    p->exec = p->own ? p->own : p->pipe->exec;
    return QX_OK;
}

static qx_status make(qx_probe *p)
{
    const size_t items = (size_t)p->pipe->plan->linears.count + 1;
    QX_TRY(qx_exec_ends(p->ctx, p->pipe->model, &p->ends));
    QX_TRY(qx_alloc_array(p->ctx, (size_t)p->runs.count, sizeof *p->ref, (void **)&p->ref));
    QX_TRY(qx_alloc_array(p->ctx, (size_t)p->ends.n + 1, sizeof *p->logits, (void **)&p->logits));
    QX_TRY(qx_alloc_array(p->ctx, items, sizeof *p->change, (void **)&p->change));
    QX_TRY(qx_alloc_array(p->ctx, items, sizeof *p->first, (void **)&p->first));
    QX_TRY(qx_alloc_array(p->ctx, items, sizeof *p->x, (void **)&p->x));
    QX_TRY(qx_alloc_array(p->ctx, items, sizeof *p->x_len, (void **)&p->x_len));
    find_logits(p);
    QX_TRY(open_exec(p));
    QX_TRY(watch(p));
    for (int64_t i = 0; i < p->runs.count; i++) {
        QX_TRY(qx_marks_new(p->ctx, p->runs.begins, p->runs.n_begins, &p->ref[i].marks));
        qx_exec_mark(p->exec, p->ref[i].marks);
        QX_TRY(run_sample(p, i, &p->ref[i].out));
        QX_TRY(norms(p, &p->ref[i]));
    }
    return QX_OK;
}

qx_status qx_probe_new(struct qx_pipeline *pipe, const qx_stats *stats, const qx_probe_runs *runs, qx_probe **out)
{
    qx_probe *p;
    *out = NULL;
    QX_TRY(QX_NEW(pipe->ctx, &p));
    *p = (qx_probe){.ctx = pipe->ctx, .pipe = pipe, .stats = stats, .runs = *runs};
    if (p->runs.count > qx_samples_count(pipe->samples)) p->runs.count = qx_samples_count(pipe->samples);
    qx_status st = make(p);
    if (st == QX_OK) *out = p;
    else qx_probe_free(p);
    return st;
}

void qx_probe_free(qx_probe *p)
{
    if (!p) return;
    forget(p);
    qx_exec_free(p->own);
    for (int64_t i = 0; p->ref && i < p->runs.count; i++) free_held(p, &p->ref[i]);
    qx_ends_free(p->ctx, &p->ends);
    void *list[] = {p->ref, p->logits, p->watched, p->change, p->first, p->x, p->x_len};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) qx_free(p->ctx, list[i]);
    qx_free(p->ctx, p);
}
