/* slope.c - where codes of what a LeakyRelu or PRelu reads begin. Below 0 a value counts only as much as its channel's slope lets through,
 * while every step that reaches down there makes the steps above 0 coarser, and what convolutions write is often long on that side (a
 * judge of echoes: -98 to 26 in front of a slope of 0.1). Told by pixels that were kept: histograms know neither signs nor channels. */
#include <math.h>

#include "onnx/weight/weight.h"
#include "passes/linear/linear.h"
#include "passes/place/scheme.h"

enum { ROWS = 512, FROM = 32768, LEAST = 256, PARTS = 64 };

/* The one reader of v when it is such an activation. */
static const qx_node *bends(const qx_value *v)
{
    const qx_node *n = v->n_uses == 1 && !v->is_output && v->uses->index == 0 ? v->uses->node : NULL;
    return n && (n->op->id == QX_OP_LeakyRelu || n->op->id == QX_OP_PRelu) ? n : NULL;
}

/* Rows of channels. */
static qx_conv_window pixels(const qx_linear *l)
{
    qx_conv_window w = {.rank = l->window.rank, .group = 1};
    for (int i = 0; i < 3; i++) w.kernel[i] = w.stride[i] = w.dilation[i] = 1;
    return w;
}

qx_status qx_slope_plan(const qx_scheme *s, qx_stats *stats, const qx_plan_item *conv, const qx_value *v)
{
    const qx_conv_window w = pixels(conv->lin);
    if (!bends(v) || s->range.method != QX_RANGE_MSE) return QX_OK;
    return qx_stats_want(stats, &(qx_stat_request){.value = v, .kinds = QX_STAT_RANGE | QX_STAT_ROWS, .axis = 1, .window = &w, .rows = ROWS,
                                                   .enough = FROM / conv->lin->n + 1});
}

/* One number, or one a channel of [C, 1, ...]. */
static bool fits(const qx_weight *w, int64_t n)
{
    int64_t first = 1;
    for (int i = 0; i < w->rank && first == 1; i++) first = w->dims[i];
    return w->dtype == QX_DT_FLOAT && (w->numel == 1 || (w->numel == n && first == n && w->dims[w->rank - 1] == 1));
}

/* square[n]: of what each channel's values below 0 are multiplied by. */
static qx_status read_slopes(const qx_node *act, int64_t n, double *square, bool *found)
{
    qx_ctx *ctx = act->graph->model->ctx;
    const float alpha = qx_attr_float(act, "alpha", 0.01f);
    qx_const_view c;
    float *a = NULL;
    qx_status st = QX_OK;
    *found = act->op->id == QX_OP_LeakyRelu;
    for (int64_t i = 0; i < n && *found; i++) square[i] = (double)alpha * (double)alpha;
    if (*found || !qx_const_trace(act->in[1], &c) || c.quantized || !fits(c.tensor, n)) return QX_OK;
    QX_TRY(qx_alloc_raw(ctx, (size_t)c.tensor->numel * sizeof *a, (void **)&a));
    st = qx_weight_read_f32(ctx, c.tensor, 0, c.tensor->numel, a);
    for (int64_t i = 0; i < n && st == QX_OK; i++) {
        const double slope = (double)a[c.tensor->numel == 1 ? 0 : i];
        square[i] = slope * slope;
    }
    qx_free(ctx, a);
    *found = st == QX_OK;
    return st;
}

/* Values x[rows][n] in 255 steps from low to high: the squared error behind the activation. */
static double error_of(const qx_value_stats *st, const double *square, double low, double high)
{
    const double step = (high - low) / 255;
    double rounded = 0, cut = 0;
    for (int64_t i = 0; i < st->n_rows * st->row_len; i++) {
        const double x = (double)st->rows[i], below = low - x, s = square[i % st->row_len];
        if (below > 0) cut += s * below * below;
        else rounded += x < 0 ? s : 1;
    }
    return cut + rounded * step * step / 12;
}

static float best_reach(const qx_value_stats *st, const double *square, float low, float high)
{
    double best = INFINITY;
    float reach = 0;
    for (int i = PARTS; i > 0; i--) {
        const double part = (double)low * i / PARTS, error = error_of(st, square, part, (double)high);
        if (error < best) best = error, reach = (float)-part;
    }
    return reach;
}

qx_status qx_slope_reach(const qx_scheme *s, const qx_stats *stats, const qx_plan_item *conv, const qx_value *v, float *reach)
{
    const qx_conv_window w = pixels(conv->lin);
    const int64_t n = conv->lin->n;
    const qx_node *act = bends(v);
    const qx_value_stats *st = act && s->range.method == QX_RANGE_MSE ? qx_stats_get_rows(stats, v, &w) : NULL;
    float all, low, high;
    double *square;
    bool found;
    *reach = 0;
    if (!st || st->row_len != n || st->n_rows * n < LEAST) return QX_OK;
    QX_TRY(qx_stats_threshold(stats, v, &s->range, &all));
    QX_TRY(qx_stats_min_max(stats, v, all, &low, &high));
    QX_TRY(qx_alloc_array(v->graph->model->ctx, (size_t)n, sizeof *square, (void **)&square));
    const qx_status read = read_slopes(act, n, square, &found);
    if (read == QX_OK && found && low < 0) *reach = best_reach(st, square, low, high);
    qx_free(v->graph->model->ctx, square);
    return read;
}
