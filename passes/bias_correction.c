/* bias_correction.c - takes the mean of the quantization error out of each layer's output (Nagel et al., arXiv 1906.04721; TensorFlow Lite and AIMET do the same by
 * running the model): E[Wq xq] - E[W x] is subtracted from the bias. Rounding errors of a channel do not cancel when its inputs are far from zero mean, as they are
 * behind a Relu; the shift would travel through the network.
 *
 * E[x] is the mean of each channel from the one sweep; E[xq] adds what rounding x does to sampled rows on average. It comes last (finish), when
 * the codes of the weight are decided: gptq, clipping and smoothing are all in them. */
#include <math.h>
#include <string.h>

#include "kernels/quant.h"
#include "onnx/weight.h"
#include "passes/bias.h"
#include "passes/search.h"

static qx_stat_request request(const qx_linear *l)
{
    return (qx_stat_request){.value = l->x, .kinds = QX_STAT_RANGE | QX_STAT_CHANNELS | (l->group > 1 ? 0 : QX_STAT_ROWS), .axis = l->is_conv ? 1 : -1, .window = l->is_conv && l->group == 1 ? &l->window : NULL};
}

static bool wants(const qx_plan_item *it) { return it->pass && it->weight && qx_bias_can_change(it->lin) && it->lin->node->op->id != QX_OP_ConvTranspose; }

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const qx_plan *plan = p->pipe->plan;
    (void)m;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_stat_request r = request(plan->items[i].lin);
        if (wants(&plan->items[i])) QX_TRY(qx_stats_want(stats, &r));
    }
    return QX_OK;
}

/* Mean of column j of the rows that row r of W meets. */
static int64_t channel_of(const qx_linear *l, int64_t r, int64_t j)
{
    if (!l->is_conv) return j;
    const int64_t in = l->w->dims[1], spatial = l->k / in;
    return r / (l->n / l->group) * in + j / spatial;
}

/* out[k]: mean of Q(x) - x over the sampled rows; false: x stays float, or nothing was sampled. */
static bool input_shift(const qx_plan_item *it, const qx_value_stats *rows, float *row, float *out)
{
    const int64_t k = it->lin->k;
    if (!it->act || !(it->act_scale > 0) || !rows || rows->n_rows < 1 || rows->row_len != k) return false;
    const qx_quant q = {.grid = {1, k, 1, k}, .format = {.codes = it->act}, .scale = &it->act_scale, .zero = it->act == QX_DT_UINT8 ? &it->act_zero : NULL};
    memset(out, 0, (size_t)k * sizeof *out);
    for (int64_t r = 0; r < rows->n_rows; r++) {
        memcpy(row, rows->rows + r * k, (size_t)k * sizeof *row);
        (void)qx_fake_quantize(&q, row);
        for (int64_t j = 0; j < k; j++) out[j] += (row[j] - rows->rows[r * k + j]) / (float)rows->n_rows;
    }
    return true;
}

/* shift[n] = E[Wq xq] - E[W x]; w and wq are [n][k]. */
static void expected_error(const qx_linear *l, const qx_channel_stats *x, const float *w, const float *wq, const float *dx, float *shift)
{
    for (int64_t r = 0; r < l->n; r++) {
        double sum = 0;
        for (int64_t j = 0; j < l->k; j++) {
            sum += ((double)wq[r * l->k + j] - (double)w[r * l->k + j]) * (double)x->mean[channel_of(l, r, j)];
            if (dx) sum += (double)wq[r * l->k + j] * (double)dx[j];
        }
        shift[r] = (float)-sum;
    }
}

typedef struct buffers { float *w, *wq, *row, *dx, *shift; } buffers;

static qx_status correct_with(qx_pass *p, qx_plan_item *it, const qx_stats *stats, const qx_value_stats *st, buffers *b)
{
    const qx_plan_weight *w = it->weight;
    qx_linear *l = &p->pipe->plan->linears.items[it->lin->index];
    const int64_t n = l->n;
    double before = 0;
    const qx_value_stats *rows = l->group > 1 ? NULL : qx_stats_get_rows(stats, l->x, l->is_conv ? &l->window : NULL);
    const bool shifted = input_shift(it, rows, b->row, b->dx);
    /* steps in front of a solver's are part of W; what the solver does is rounding */
    const qx_step *steps = w->steps && w->steps->def->grid ? w->steps->prev : w->steps;
    QX_TRY(qx_rows_read(p->ctx, w->tensor, &w->view, steps, 0, n, b->w));
    QX_TRY(qx_job_rows_dequantized(p->ctx, w->job, 0, n, b->wq));
    expected_error(l, &st->channels, b->w, b->wq, shifted ? b->dx : NULL, b->shift);
    for (int64_t i = 0; i < n; i++) before = fmax(before, fabs((double)b->shift[i]));
    QX_TRY(qx_bias_change(p->pipe->model, l, NULL, b->shift));
    return qx_item_note(p->pipe, it, "bias corrected (%.2g at most)", before);
}

static qx_status correct(qx_pass *p, qx_plan_item *it, const qx_stats *stats)
{
    const qx_linear *l = it->lin;
    const qx_value_stats *st = qx_stats_get(stats, l->x);
    const int64_t channels = l->is_conv ? l->w->dims[1] * l->group : l->k;
    buffers b = {0};
    qx_status s;
    if (!st || st->channels.n != channels) return qx_item_note(p->pipe, it, "bias-correction: not observed");
    QX_TRY_GOTO(s, qx_alloc_raw(p->ctx, (size_t)(l->n * l->k) * sizeof *b.w, (void **)&b.w));
    QX_TRY_GOTO(s, qx_alloc_raw(p->ctx, (size_t)(l->n * l->k) * sizeof *b.wq, (void **)&b.wq));
    QX_TRY_GOTO(s, qx_alloc_raw(p->ctx, (size_t)l->k * sizeof *b.row, (void **)&b.row));
    QX_TRY_GOTO(s, qx_alloc_raw(p->ctx, (size_t)l->k * sizeof *b.dx, (void **)&b.dx));
    QX_TRY_GOTO(s, qx_alloc_raw(p->ctx, (size_t)l->n * sizeof *b.shift, (void **)&b.shift));
    s = correct_with(p, it, stats, st, &b);
done:
    qx_free(p->ctx, b.w);
    qx_free(p->ctx, b.wq);
    qx_free(p->ctx, b.row);
    qx_free(p->ctx, b.dx);
    qx_free(p->ctx, b.shift);
    return s;
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)p, (void)m, (void)stats; /* its work is behind the formats' */
    return QX_OK;
}

static qx_status finish(qx_pass *p, qx_model *m, qx_stats *stats)
{
    qx_plan *plan = p->pipe->plan;
    (void)m;
    for (int64_t i = 0; i < plan->linears.count && !p->pipe->no_stats; i++) {
        qx_plan_item *it = &plan->items[i];
        if (!wants(it) || !it->weight->done || !it->weight->job || it->weight->pruned) continue;
        qx_progress(p->ctx, "bias correction", i, plan->linears.count);
        QX_TRY(qx_check_cancel(p->ctx));
        QX_TRY(correct(p, it, stats));
    }
    qx_progress(p->ctx, "bias correction", plan->linears.count, plan->linears.count);
    return QX_OK;
}

const qx_passdef qx_pass_bias_correction = {
    .name = "bias-correction", .brief = "take the mean of each layer's rounding error out of its bias", .flags = QX_PASS_CALIBRATED | QX_PASS_NEEDS_FORMAT,
    .plan = plan, .run = run, .finish = finish,
    .doc = "bias -= E[Wq xq] - E[W x], with E[x] of every channel from the sweep and E[xq] - E[x] from sampled rows. For operators that have a bias\n"
           "(convolutions and Gemm get one). Reads every weight once more. Goes with any format: \"bias-correction,int8\"."};
