/* bias_correction.c - takes the mean of the quantization error out of each layer's output (Nagel et al., arXiv 1906.04721;
 * TensorFlow Lite and AIMET do the same by running the model): E[Wq xq] - E[W x] is subtracted from the bias. Rounding errors of
 * a channel do not cancel when its inputs are far from zero mean, as they are behind a Relu; the shift would travel through the
 * network. A recurrence adds it up, step by step.
 *
 * Both means are taken over the rows that calibration keeps, which are all different (a convolution's are patches, of a wide one
 * pixels), and only as far as these rows make them sure. It comes last (finish), when the codes of the weight are decided: gptq,
 * clipping and smoothing are all in them. */
#include <math.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/dot.h"
#include "kernels/quant.h"
#include "onnx/weight/weight.h"
#include "passes/linear/bias.h"
#include "passes/place/scheme.h"
#include "passes/search/group.h"
#include "passes/search/solve_kept.h"

enum { ENOUGH = 256, FROM = 32768 }; /* rows that a mean is made of, and patches that they are chosen from */

/* A row is the patch that a result is made of, padding and all; of a wide convolution, whose patches would take too much memory,
 * one pixel, whose mean then stands for every place of the window: true where a picture is much larger than its margin. */
static bool by_patches(const qx_linear *l)
{
    enum { SMALL = 4096 }; /* 4 MB of rows */
    return l->is_conv && l->k * l->group <= SMALL;
}

static qx_conv_window window_of(const qx_linear *l)
{
    qx_conv_window w = {.rank = l->window.rank, .group = 1};
    if (by_patches(l)) return l->window;
    for (int i = 0; i < 3; i++) w.kernel[i] = w.stride[i] = w.dilation[i] = 1;
    return w;
}

/* What meets the weight: R of a recurrence what the node gives, which is its state a step later. NULL: states of both directions side by
 * side, or none that are given. */
static qx_value *met_by(const qx_linear *l)
{
    enum { R = 2 };
    if (!l->recurrent || l->w_index != R) return l->x;
    return strcmp(qx_attr_string(l->node, "direction", "forward"), "bidirectional") ? qx_node_out(l->node, 0) : NULL;
}

static qx_status want_means(qx_stats *stats, const qx_linear *l, const qx_value *y)
{
    const qx_conv_window w = window_of(l);
    qx_stat_request r = {.value = met_by(l), .kinds = QX_STAT_RANGE | QX_STAT_CHANNELS | QX_STAT_ROWS, .axis = l->is_conv ? 1 : -1,
                         .window = l->is_conv ? &w : NULL};
    if (l->recurrent) r.kinds &= ~(unsigned)QX_STAT_ROWS; /* what a state adds up is the mean of every step, alike or not */
    if (by_patches(l)) r.rows = ENOUGH, r.enough = (FROM + l->k - 1) / l->k;
    if (y) { /* rows of what x is made of instead, which tell those of x */
        r.kinds &= ~(unsigned)QX_STAT_ROWS;
        QX_TRY(qx_stats_want(stats, &r));
        r.value = y;
        r.kinds = QX_STAT_RANGE | QX_STAT_ROWS;
    }
    return qx_stats_want(stats, &r);
}

static bool wants(const qx_plan_item *it)
{
    if (!it->pass || !it->weight) return false;
    if (it->lin->recurrent) return met_by(it->lin) && qx_bias_recurrent_can_add(it->lin);
    return !it->table && qx_bias_can_change(it->lin) && it->lin->node->op->id != QX_OP_ConvTranspose;
}

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const qx_plan *plan = p->pipe->plan;
    qx_twice *twice = qx_arena_array(m->arena, (size_t)plan->linears.count + 1, sizeof *twice);
    if (!twice) return QX_E_NOMEM;
    p->state = twice;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        if (!wants(it)) continue;
        if (it->lin->is_conv && it->act) twice[i] = qx_output_twice(plan, it);
        QX_TRY(want_means(stats, it->lin, twice[i].f ? twice[i].y : NULL));
    }
    return QX_OK;
}

/* Values of x, or what rounding does to them, as panels: channel j of row r at [r / QX_PANEL][j][r % QX_PANEL]. */
typedef struct corrector {
    qx_pass *p;
    const qx_plan_item *it;
    int64_t rows, padded, channels; /* of x; rows up to whole panels */
    int64_t in;                  /* channels that a result is made of: of its group */
    float *x;                    /* 0 behind the last row */
    float *shift;                /* Q(x) - x; NULL: it stays float */
    const qx_twice *twice;       /* rows are of y, x = f(y), and y is rounded before; NULL: they are of x */
    int64_t tile;                /* rows of W at a time */
    float *add;                  /* [n] to the bias */
} corrector;

static void turn(const corrector *c, const float *from, float *to)
{
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t j = 0; j < c->channels; j++)
            to[(r / QX_PANEL * c->channels + j) * QX_PANEL + r % QX_PANEL] = from[r * c->channels + j];
}

/* The rows to look at, all different: padding and white paper count once, since what they cost elsewhere (7 dB of a tagger whose
 * words are padded to 64 letters) is more than they matter. They are sorted by a hash, so the first of them are a sample too.
 * Without rows the mean of everything is the one row. */
static qx_status take_rows(corrector *c, const qx_value_stats *st, const qx_value_stats *rows)
{
    c->rows = !rows ? 1 : rows->n_rows < ENOUGH ? rows->n_rows : ENOUGH;
    c->padded = (c->rows + QX_PANEL - 1) / QX_PANEL * QX_PANEL;
    QX_TRY(qx_alloc_array(c->p->ctx, (size_t)(c->padded * c->channels), sizeof *c->x, (void **)&c->x));
    turn(c, rows ? rows->rows : st->channels.mean, c->x);
    return QX_OK;
}

static void round_to(const corrector *c, qx_dtype act, float scale, int32_t zero, float *x)
{
    const qx_quant q = {.grid = {c->channels, c->padded, c->channels, c->padded}, .format = {.codes = act}, .scale = &scale,
                        .zero = act == QX_DT_UINT8 ? &zero : NULL};
    if (act && scale > 0) (void)qx_fake_quantize(&q, x);
}

static void activate(const corrector *c, float *x)
{
    for (int64_t i = 0; i < c->padded * c->channels; i++) x[i] = qx_activation_at(c->twice->f, c->twice->slope, x[i]);
}

/* Where the activation bends, two roundings are not the sum of both: half a step of SiLU near 0 falls to another code for good. */
static qx_status find_shift(corrector *c)
{
    const qx_plan_item *it = c->it, *maker = c->twice ? c->twice->maker : NULL;
    const int64_t n = c->padded * c->channels;
    const bool rounds = it->act && it->act_scale > 0 && c->rows > 1; /* a mean is no value that is ever rounded */
    if (rounds) {
        QX_TRY(qx_alloc_array(c->p->ctx, (size_t)n, sizeof *c->shift, (void **)&c->shift));
        memcpy(c->shift, c->x, (size_t)n * sizeof *c->shift);
        if (maker) round_to(c, maker->out_act, maker->out_scale, maker->out_zero, c->shift), activate(c, c->shift);
        round_to(c, it->act, it->act_scale, it->act_zero, c->shift);
    }
    if (c->twice) activate(c, c->x);
    for (int64_t i = 0; rounds && i < n; i++) c->shift[i] -= c->x[i];
    return QX_OK;
}

/* Some rows of W, and of a thread: */
typedef struct part {
    float *w, *wq;               /* [tile][k]: W and Wq, and then Wq - W and Wq by `in` */
    float *error, *more;         /* [tile][padded]: of results, by their weights and by their inputs */
} part;

/* w = Wq - W and wq = Wq of some rows of W, [rows][in]: for pixels, the window of a convolution added up. */
static qx_status read_part(const corrector *c, int64_t first, int64_t rows, part *b)
{
    const qx_plan_weight *w = c->it->weight;
    const int64_t spatial = c->it->lin->k / c->in;
    /* steps in front of a solver's are part of W; what the solver does is rounding */
    const qx_step *steps = w->steps && w->steps->def->grid ? w->steps->prev : w->steps;
    QX_TRY(qx_rows_read(c->p->ctx, w->tensor, &w->view, steps, first, rows, b->w));
    memcpy(b->wq, b->w, (size_t)(rows * c->it->lin->k) * sizeof *b->wq);
    QX_TRY(qx_job_dequantize(c->p->ctx, w->job, first, rows, b->wq));
    for (int64_t i = 0; i < rows * c->in; i++) {
        float d = 0, q = 0;
        for (int64_t j = i * spatial; j < (i + 1) * spatial; j++) d += b->wq[j] - b->w[j], q += b->wq[j];
        b->w[i] = d;
        b->wq[i] = q;
    }
    return QX_OK;
}

/* What is sure of the mean of e[n]: its square less that of twice the error which a mean of so many has (shrunk as James and
 * Stein, 1961). A mean that few rows make, as a token with massive values does, would be taken from all others as well. */
static double sure_mean(const float *e, int64_t n)
{
    double mean = 0, var = 0;
    for (int64_t r = 0; r < n; r++) mean += (double)e[r] / (double)n;
    for (int64_t r = 0; r < n; r++) var += ((double)e[r] - mean) * ((double)e[r] - mean);
    if (n == 1 || mean == 0) return mean;
    var /= (double)(n - 1) * (double)n;
    return mean * fmax(0, 1 - 4 * var / (mean * mean));
}

/* out[rows][padded] = rows of w[rows][in] by x, or by shift, from the channel `at` on. */
static void by_panels(const corrector *c, int64_t rows, int64_t at, const float *w, const float *x, float *out)
{
    for (int64_t r = 0; r < c->padded; r += QX_PANEL)
        qx_rows_times(rows, c->in, w, c->in, x + r * c->channels + at * QX_PANEL, out + r, c->padded);
}

/* E[Wq xq - W x] of results [first, first + rows) from row `from` of the part on, which meet channels from `at` on. */
static void mean_errors(const corrector *c, const part *b, int64_t first, int64_t from, int64_t rows, int64_t at)
{
    float *error = b->error + from * c->padded, *more = b->more + from * c->padded;
    by_panels(c, rows, at, b->w + from * c->in, c->x, error);
    if (c->shift) by_panels(c, rows, at, b->wq + from * c->in, c->shift, more);
    for (int64_t i = 0; c->shift && i < rows * c->padded; i++) error[i] += more[i];
    for (int64_t r = 0; r < rows; r++) c->add[first + from + r] = (float)-sure_mean(error + r * c->padded, c->rows);
}

static qx_status make_part(const corrector *c, part *b)
{
    const int64_t k = c->it->lin->k;
    qx_ctx *ctx = c->p->ctx;
    QX_TRY(qx_alloc_raw(ctx, (size_t)(c->tile * k) * sizeof *b->w, (void **)&b->w));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(c->tile * k) * sizeof *b->wq, (void **)&b->wq));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(c->tile * c->padded) * sizeof *b->error, (void **)&b->error));
    return qx_alloc_raw(ctx, (size_t)(c->tile * c->padded) * sizeof *b->more, (void **)&b->more);
}

static qx_status correct_part(void *user, int64_t i)
{
    const corrector *c = user;
    const qx_linear *l = c->it->lin;
    const int64_t first = i * c->tile, rows = l->n - first < c->tile ? l->n - first : c->tile,
        of_group = l->is_conv ? l->n / l->group : l->n;
    part b = {0};
    qx_status st = make_part(c, &b);
    if (st == QX_OK) st = read_part(c, first, rows, &b);
    for (int64_t r = 0, n; r < rows && st == QX_OK; r += n) {
        const int64_t group = (first + r) / of_group, left = (group + 1) * of_group - first - r;
        n = rows - r < left ? rows - r : left;
        mean_errors(c, &b, first, r, n, group * c->in);
    }
    void *list[] = {b.w, b.wq, b.error, b.more};
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) qx_free(c->p->ctx, list[k]);
    return st;
}

static qx_status correct_all(corrector *c)
{
    enum { AT_ONCE = 1 << 19, PARTS = 4 }; /* elements of W that a thread has; parts that even a small one is cut into */
    qx_linear *l = &c->p->pipe->plan->linears.items[c->it->lin->index];
    const int64_t few = (l->n + PARTS - 1) / PARTS, most = l->k < AT_ONCE ? AT_ONCE / l->k : 1;
    double largest = 0;
    c->tile = few < most ? few : most;
    QX_TRY(qx_alloc_raw(c->p->ctx, (size_t)l->n * sizeof *c->add, (void **)&c->add));
    QX_TRY(qx_job_share(c->p->ctx, c->it->weight->job));
    const qx_status st = qx_parallel(c->p->ctx, (l->n + c->tile - 1) / c->tile, correct_part, c);
    qx_job_unshare(c->p->ctx, c->it->weight->job);
    QX_TRY(st);
    for (int64_t i = 0; i < l->n; i++) largest = fmax(largest, fabs((double)c->add[i]));
    if (largest == 0) return qx_item_note(c->p->pipe, &c->p->pipe->plan->items[l->index], "bias-correction: no mean error is sure");
    QX_TRY(l->recurrent ? qx_bias_recurrent_add(c->p->pipe->model, l, c->add) : qx_bias_change(c->p->pipe->model, l, NULL, c->add));
    return qx_item_note(c->p->pipe, &c->p->pipe->plan->items[l->index], "bias corrected (%.2g at most)", largest);
}

static qx_status correct(qx_pass *p, qx_plan_item *it, const qx_stats *stats)
{
    const qx_linear *l = it->lin;
    const qx_value_stats *st = qx_stats_get(stats, met_by(l));
    const qx_conv_window window = window_of(l);
    const qx_twice *twice = (const qx_twice *)p->state + l->index;
    /* statistics of x follow a factor that is folded into what makes it, those of y do not */
    const bool of_y = twice->f && !twice->maker->rescaled;
    const qx_value *seen = twice->f ? twice->y : met_by(l);
    const qx_value_stats *rows = l->recurrent || (twice->f && !of_y) ? NULL : qx_stats_get_rows(stats, seen, l->is_conv ? &window : NULL);
    corrector c = {.p = p, .it = it, .in = l->is_conv && !by_patches(l) ? l->w->dims[1] : l->k};
    qx_status s;
    c.channels = c.in * l->group;
    if (rows && (!rows->n_rows || rows->row_len != c.channels)) rows = NULL;
    if (rows && of_y) c.twice = twice;
    if (!st || (!rows && st->channels.n != c.channels)) return qx_item_unobserved(p->pipe, it, "bias-correction: not observed");
    QX_TRY_GOTO(s, take_rows(&c, st, rows));
    QX_TRY_GOTO(s, find_shift(&c));
    s = correct_all(&c);
done:
    qx_free(p->ctx, c.x);
    qx_free(p->ctx, c.shift);
    qx_free(p->ctx, c.add);
    return s;
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)p, (void)m, (void)stats; /* its work is behind the formats' */
    return QX_OK;
}

static bool is_corrected(const qx_plan_item *it)
{
    return wants(it) && it->weight->done && it->weight->job && !it->weight->pruned;
}

static qx_status finish(qx_pass *p, qx_model *m, qx_stats *stats)
{
    qx_plan *plan = p->pipe->plan;
    (void)m;
    if (!p->pipe->no_stats) QX_TRY(qx_solve_ahead(p->pipe, stats, is_corrected));
    for (int64_t i = 0; i < plan->linears.count && !p->pipe->no_stats; i++) {
        qx_plan_item *it = &plan->items[i];
        if (!is_corrected(it)) continue;
        qx_progress(p->ctx, "bias correction", i, plan->linears.count);
        QX_TRY(qx_check_cancel(p->ctx));
        QX_TRY(correct(p, it, stats));
    }
    qx_progress(p->ctx, "bias correction", plan->linears.count, plan->linears.count);
    return QX_OK;
}

/* For each weight: a product with rows, at its speed, with inputs that are rounded another one; reading and rounding it. */
static double work(const qx_pass *p, const qx_stats *stats)
{
    const double product = 2 * 1.8, read = 60;
    const qx_plan *plan = p->pipe->plan;
    double sum = 0;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        if (!wants(it)) continue;
        const qx_conv_window w = window_of(it->lin);
        const double all = qx_stats_rows_to_come(stats, met_by(it->lin), it->lin->is_conv ? &w : NULL),
            rows = it->lin->recurrent ? 1 : fmin(ENOUGH, all);
        sum += (double)it->weight->tensor->numel * ((qx_item_rounds_x(it) ? 2 : 1) * product * rows + read);
    }
    return sum;
}

const qx_passdef qx_pass_bias_correction = {
    .name = "bias-correction", .brief = "take the mean of each layer's rounding error out of its bias",
    .flags = QX_PASS_CALIBRATED | QX_PASS_NEEDS_FORMAT,
    .plan = plan, .run = run, .finish = finish, .work = work,
    .doc = "bias -= E[Wq xq] - E[W x], both means over sampled rows that are all different, as far as they are sure. For "
           "operators that have a bias\n"
           "(convolutions, Gemm, LSTM, GRU and RNN get one). Reads every weight once more. Goes with any format:\n"
           "\"bias-correction,int8\"."};
