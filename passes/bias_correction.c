/* bias_correction.c - takes the mean of the quantization error out of each layer's output (Nagel et al., arXiv 1906.04721; TensorFlow Lite and AIMET do the same by
 * running the model): E[Wq xq] - E[W x] is subtracted from the bias. Rounding errors of a channel do not cancel when its inputs are far from zero mean, as they are
 * behind a Relu; the shift would travel through the network.
 *
 * Both means are taken over the rows that calibration keeps, which are all different (a convolution's are pixels). It comes last (finish), when the codes of
 * the weight are decided: gptq, clipping and smoothing are all in them. */
#include <math.h>
#include <string.h>

#include "kernels/quant.h"
#include "onnx/weight/weight.h"
#include "passes/linear/bias.h"
#include "passes/search/search.h"

/* Rows of the channels of x, for a convolution one a pixel: a hundredth of the memory that its im2col rows would take, and as good for a mean. */
static qx_conv_window pixels(const qx_linear *l)
{
    qx_conv_window w = {.rank = l->window.rank, .group = 1};
    for (int i = 0; i < 3; i++) w.kernel[i] = w.stride[i] = w.dilation[i] = 1;
    return w;
}

static qx_status want_means(qx_stats *stats, const qx_linear *l)
{
    const qx_conv_window w = pixels(l);
    return qx_stats_want(stats, &(qx_stat_request){.value = l->x, .kinds = QX_STAT_RANGE | QX_STAT_CHANNELS | QX_STAT_ROWS, .axis = l->is_conv ? 1 : -1, .window = l->is_conv ? &w : NULL});
}

static bool wants(const qx_plan_item *it) { return it->pass && it->weight && qx_bias_can_change(it->lin) && it->lin->node->op->id != QX_OP_ConvTranspose; }

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const qx_plan *plan = p->pipe->plan;
    (void)m;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        if (wants(&plan->items[i])) QX_TRY(want_means(stats, plan->items[i].lin));
    }
    return QX_OK;
}

/* The channel of x that column j of row r of W meets. */
static int64_t channel_of(const qx_linear *l, int64_t r, int64_t j)
{
    if (!l->is_conv) return j;
    const int64_t in = l->w->dims[1], spatial = l->k / in;
    return r / (l->n / l->group) * in + j / spatial;
}

/* mean[channels] of x over the sampled rows. They are all different: padding and white paper count once, since what they cost elsewhere (7 dB of a tagger
 * whose words are padded to 64 letters) is more than they matter. Without rows the mean of everything. */
static bool input_mean(const qx_value_stats *st, const qx_value_stats *rows, int64_t channels, float *mean)
{
    const bool sampled = rows && rows->n_rows > 0 && rows->row_len == channels;
    for (int64_t j = 0; j < channels; j++) mean[j] = sampled ? 0 : st->channels.mean[j];
    for (int64_t r = 0; sampled && r < rows->n_rows; r++)
        for (int64_t j = 0; j < channels; j++) mean[j] += rows->rows[r * channels + j] / (float)rows->n_rows;
    return sampled;
}

/* shift[channels]: mean of Q(x) - x over the same rows; zeros where x stays float. */
static void input_shift(const qx_plan_item *it, const qx_value_stats *rows, int64_t channels, float *row, float *shift)
{
    if (!it->act || !(it->act_scale > 0)) return;
    const qx_quant q = {.grid = {1, channels, 1, channels}, .format = {.codes = it->act}, .scale = &it->act_scale, .zero = it->act == QX_DT_UINT8 ? &it->act_zero : NULL};
    for (int64_t r = 0; r < rows->n_rows; r++) {
        memcpy(row, rows->rows + r * channels, (size_t)channels * sizeof *row);
        (void)qx_fake_quantize(&q, row);
        for (int64_t j = 0; j < channels; j++) shift[j] += (row[j] - rows->rows[r * channels + j]) / (float)rows->n_rows;
    }
}

typedef struct corrector {
    qx_pass *p;
    const qx_plan_item *it;
    const float *mean, *shift; /* [channels] of x, and of its rounding */
    int64_t tile;              /* rows of W at a time */
    float *w, *wq;             /* [tile][k] */
    float *add;                /* [n] to the bias */
} corrector;

/* add[n] = E[W x] - E[Wq xq] of some rows of W. */
static qx_status correct_tile(corrector *c, int64_t first, int64_t rows)
{
    const qx_plan_weight *w = c->it->weight;
    const qx_linear *l = c->it->lin;
    /* steps in front of a solver's are part of W; what the solver does is rounding */
    const qx_step *steps = w->steps && w->steps->def->grid ? w->steps->prev : w->steps;
    QX_TRY(qx_rows_read(c->p->ctx, w->tensor, &w->view, steps, first, rows, c->w));
    QX_TRY(qx_job_rows_dequantized(c->p->ctx, w->job, first, rows, c->wq));
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0;
        for (int64_t j = 0; j < l->k; j++) {
            const int64_t at = channel_of(l, first + r, j);
            const double was = (double)c->w[r * l->k + j], is = (double)c->wq[r * l->k + j];
            sum += (is - was) * (double)c->mean[at] + is * (double)c->shift[at];
        }
        c->add[first + r] = (float)-sum;
    }
    return QX_OK;
}

static qx_status correct_all(corrector *c)
{
    qx_linear *l = &c->p->pipe->plan->linears.items[c->it->lin->index];
    double most = 0;
    for (int64_t first = 0; first < l->n; first += c->tile) QX_TRY(correct_tile(c, first, l->n - first < c->tile ? l->n - first : c->tile));
    for (int64_t i = 0; i < l->n; i++) most = fmax(most, fabs((double)c->add[i]));
    QX_TRY(qx_bias_change(c->p->pipe->model, l, NULL, c->add));
    return qx_item_note(c->p->pipe, &c->p->pipe->plan->items[l->index], "bias corrected (%.2g at most)", most);
}

static qx_status correct(qx_pass *p, qx_plan_item *it, const qx_stats *stats)
{
    enum { AT_ONCE = 1 << 20 }; /* elements of W */
    const qx_linear *l = it->lin;
    const qx_value_stats *st = qx_stats_get(stats, l->x);
    const int64_t channels = l->is_conv ? l->w->dims[1] * l->group : l->k;
    const qx_conv_window window = pixels(l);
    if (!st || st->channels.n != channels) return qx_item_note(p->pipe, it, "bias-correction: not observed");
    const qx_value_stats *rows = qx_stats_get_rows(stats, l->x, l->is_conv ? &window : NULL);
    float *mean = NULL, *shift = NULL, *row = NULL;
    qx_status s;
    corrector c = {.p = p, .it = it, .tile = l->k < AT_ONCE ? AT_ONCE / l->k : 1};
    if (c.tile > l->n) c.tile = l->n;
    QX_TRY_GOTO(s, qx_alloc_raw(p->ctx, (size_t)channels * sizeof *mean, (void **)&mean));
    QX_TRY_GOTO(s, qx_alloc_array(p->ctx, (size_t)channels, sizeof *shift, (void **)&shift));
    QX_TRY_GOTO(s, qx_alloc_raw(p->ctx, (size_t)channels * sizeof *row, (void **)&row));
    QX_TRY_GOTO(s, qx_alloc_raw(p->ctx, (size_t)(c.tile * l->k) * sizeof *c.w, (void **)&c.w));
    QX_TRY_GOTO(s, qx_alloc_raw(p->ctx, (size_t)(c.tile * l->k) * sizeof *c.wq, (void **)&c.wq));
    QX_TRY_GOTO(s, qx_alloc_raw(p->ctx, (size_t)l->n * sizeof *c.add, (void **)&c.add));
    if (input_mean(st, rows, channels, mean)) input_shift(it, rows, channels, row, shift);
    c.mean = mean;
    c.shift = shift;
    s = correct_all(&c);
done:
    qx_free(p->ctx, mean);
    qx_free(p->ctx, shift);
    qx_free(p->ctx, row);
    qx_free(p->ctx, c.w);
    qx_free(p->ctx, c.wq);
    qx_free(p->ctx, c.add);
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
    .doc = "bias -= E[Wq xq] - E[W x], both means over sampled rows that are all different. For operators that have a bias\n"
           "(convolutions and Gemm get one). Reads every weight once more. Goes with any format: \"bias-correction,int8\"."};
