/* equalize.c - cross-layer equalization (Nagel et al., Data-Free Quantization, arXiv 1906.04721): between two layers with only
 * positive homogeneous functions (Relu, LeakyRelu, PRelu, pooling) channel i may be divided by s[i] in the first and multiplied
 * in the second. s = sqrt(r1 / r2), r1 and r2 the channel's largest weight in each, makes both equal, and what one scale per
 * tensor loses on small channels goes away; activations even out too. Exact in float.
 *
 * It happens before the sweep (rewrite), so statistics are those of the equalized model. With absorb (run, after the sweep): a
 * channel that stays above a bound c > 0 before its Relu passes c on to the next layer's bias, which narrows the range of the
 * activation; only where the next layer does not pad. */
#include <math.h>
#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/linear/bias.h"
#include "passes/place/plan.h"

enum { SWEEPS = 20, MAX_WALK = 6 };

/* A layer on a chain: W[n][k] with k = in * spatial; in: input channels a row reads. Depthwise: each group's rows read one
 * channel of their own. */
typedef struct layer {
    const qx_linear *lin;
    int64_t in, spatial, channels;   /* channels: of its input */
    bool depthwise, touched;
    float *top;                      /* [n][in]: largest |w| over the kernel */
    float *row, *col;                /* factors [n], [channels] */
} layer;
typedef struct pair { layer *first, *second; qx_value *before; /* the value that the first layer (with its bias) makes */ bool relu; } pair;
typedef struct state { layer *layers; int64_t n_layers; pair *pairs; int64_t n_pairs; } state;

/* ---- finding pairs --------------------------------------------------------------------------------------------------------- */

static bool homogeneous(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_Relu: case QX_OP_LeakyRelu: case QX_OP_MaxPool: case QX_OP_AveragePool: case QX_OP_GlobalAveragePool:
    case QX_OP_GlobalMaxPool: case QX_OP_Identity: case QX_OP_Dropout:
        return true;
    case QX_OP_PRelu: return qx_value_const(n->in[1]) != NULL;
    default: return false;
    }
}

static bool usable(const qx_linear *l)
{
    if (!l->w || l->w->job || l->w_in != l->w_init || !l->w_init->init || l->w_init->n_uses != 1 || l->node->op->id == QX_OP_ConvTranspose)
        return false;
    if (l->bias && !qx_bias_can_change(l)) return false;
    if (!l->is_conv) return l->plain && l->w->rank == 2 && qx_attr_float(l->node, "alpha", 1) == 1;
    return l->group == 1 || l->w->dims[1] == 1;
}

/* The value behind the layer's own bias. */
static qx_value *result(const qx_linear *l) { return l->bias_add ? l->bias_add->out[0] : l->node->out[0]; }

static layer *layer_of(state *s, const qx_node *n)
{
    for (int64_t i = 0; i < s->n_layers; i++)
        if (s->layers[i].lin->node == n) return &s->layers[i];
    return NULL;
}

/* The layer that reads channel for channel what `from` makes; NULL: none, or something else reads it too. */
static void find_pair(state *s, layer *from)
{
    qx_value *v = result(from->lin);
    pair p = {.first = from, .before = v};
    for (int i = 0; i < MAX_WALK && v && v->n_uses == 1 && !v->is_output; i++) {
        const qx_use *u = v->uses;
        layer *to = layer_of(s, u->node);
        if (to) {
            if (u->index != to->lin->x_index || to->channels != from->lin->n || to->lin->is_conv != from->lin->is_conv) return;
            p.second = to;
            s->pairs[s->n_pairs++] = p;
            return;
        }
        if (!homogeneous(u->node) || u->index != 0) return;
        p.relu = u->node->op->id == QX_OP_Relu && v == p.before;
        v = u->node->out[0];
    }
}

static qx_status read_tops(qx_model *m, layer *l)
{
    const int64_t n = l->lin->n, k = l->lin->k;
    float *x;
    QX_TRY(qx_alloc_raw(m->ctx, (size_t)(n * k) * sizeof *x, (void **)&x));
    const qx_status st = qx_rows_read(m->ctx, l->lin->w, &l->lin->view, NULL, 0, n, x);
    for (int64_t r = 0; st == QX_OK && r < n; r++)
        for (int64_t j = 0; j < k; j++) l->top[r * l->in + j / l->spatial] = fmaxf(l->top[r * l->in + j / l->spatial], fabsf(x[r * k + j]));
    qx_free(m->ctx, x);
    return st;
}

static qx_status add_layer(qx_model *m, state *s, const qx_linear *lin)
{
    layer *l = &s->layers[s->n_layers++];
    *l = (layer){.lin = lin, .depthwise = lin->group > 1, .in = lin->is_conv ? lin->w->dims[1] : lin->k};
    l->spatial = lin->k / l->in;
    l->channels = lin->is_conv ? lin->w->dims[1] * lin->group : lin->k;
    l->top = qx_arena_array(m->arena, (size_t)(lin->n * l->in), sizeof *l->top);
    l->row = qx_arena_array(m->arena, (size_t)lin->n, sizeof *l->row);
    l->col = qx_arena_array(m->arena, (size_t)l->channels, sizeof *l->col);
    if (!l->top || !l->row || !l->col) return QX_E_NOMEM;
    for (int64_t i = 0; i < lin->n; i++) l->row[i] = 1;
    for (int64_t i = 0; i < l->channels; i++) l->col[i] = 1;
    return QX_OK;
}

static qx_status find_all(qx_model *m, state *s)
{
    qx_linears *ls = qx_arena_alloc(m->arena, sizeof *ls);
    if (!ls) return QX_E_NOMEM;
    QX_TRY(qx_linears_find(m, ls));
    s->layers = qx_arena_array(m->arena, (size_t)ls->count + 1, sizeof *s->layers);
    s->pairs = qx_arena_array(m->arena, (size_t)ls->count + 1, sizeof *s->pairs);
    if (!s->layers || !s->pairs) return QX_E_NOMEM;
    for (int64_t i = 0; i < ls->count; i++)
        if (usable(&ls->items[i]) && ls->items[i].node->graph == m->graph) QX_TRY(add_layer(m, s, &ls->items[i]));
    for (int64_t i = 0; i < s->n_layers; i++) find_pair(s, &s->layers[i]);
    for (int64_t i = 0; i < s->n_pairs; i++) s->pairs[i].first->touched = s->pairs[i].second->touched = true;
    for (int64_t i = 0; i < s->n_layers; i++)
        if (s->layers[i].touched) QX_TRY(read_tops(m, &s->layers[i]));
    return QX_OK;
}

/* ---- factors --------------------------------------------------------------------------------------------------------------------- */

/* Input channel that column block c of row r reads. */
static int64_t channel_at(const layer *l, int64_t r, int64_t c) { return l->depthwise ? r / (l->lin->n / l->channels) : c; }

static float row_range(const layer *l, int64_t r)
{
    float top = 0;
    for (int64_t c = 0; c < l->in; c++) top = fmaxf(top, l->top[r * l->in + c] * l->col[channel_at(l, r, c)]);
    return top * l->row[r];
}

static float column_range(const layer *l, int64_t channel)
{
    const int64_t per = l->depthwise ? l->lin->n / l->channels : l->lin->n, first = l->depthwise ? channel * per : 0;
    float top = 0;
    for (int64_t r = first; r < first + per; r++) top = fmaxf(top, l->top[r * l->in + (l->depthwise ? 0 : channel)] * l->row[r]);
    return top * l->col[channel];
}

/* One step of all pairs; how far the largest factor was from 1. */
static double balance(state *s)
{
    double far = 0;
    for (int64_t i = 0; i < s->n_pairs; i++) {
        const pair *p = &s->pairs[i];
        for (int64_t c = 0; c < p->first->lin->n; c++) {
            const double a = (double)row_range(p->first, c), b = (double)column_range(p->second, c);
            if (!(a > 0) || !(b > 0)) continue;
            const double f = fmin(fmax(sqrt(a / b), 1e-4), 1e4);
            p->first->row[c] = (float)((double)p->first->row[c] / f);
            p->second->col[c] = (float)((double)p->second->col[c] * f);
            far = fmax(far, fabs(log(f)));
        }
    }
    return far;
}

/* ---- applying -------------------------------------------------------------------------------------------------------------------- */

static qx_status scale_weight(qx_model *m, const layer *l)
{
    const int64_t n = l->lin->n, k = l->lin->k;
    float *rows = qx_arena_array(m->arena, (size_t)n, sizeof *rows), *cols = qx_arena_array(m->arena, (size_t)k, sizeof *cols);
    if (!rows || !cols) return QX_E_NOMEM;
    for (int64_t r = 0; r < n; r++) rows[r] = l->row[r] * (l->depthwise ? l->col[channel_at(l, r, 0)] : 1);
    for (int64_t j = 0; j < k; j++) cols[j] = l->depthwise ? 1 : l->col[j / l->spatial];
    const qx_step *step = qx_step_new(m, &qx_step_scale_cols, NULL, cols);
    return step ? qx_linear_store(m, l->lin, qx_step_new(m, &qx_step_scale_rows, step, rows)) : QX_E_NOMEM;
}

static qx_status rewrite(qx_pass *p, qx_model *m)
{
    state *s = qx_arena_alloc(m->arena, sizeof *s);
    if (!s) return QX_E_NOMEM;
    p->state = s;
    QX_TRY(find_all(m, s));
    if (!s->n_pairs)
        QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "equalize: no two layers with only Relu, LeakyRelu or pooling between them; leave it out");
    for (int i = 0; i < SWEEPS && balance(s) > 1e-3; i++) QX_TRY(qx_check_cancel(p->ctx));
    for (int64_t i = 0; i < s->n_layers; i++) {
        layer *l = &s->layers[i];
        if (!l->touched) continue;
        QX_TRY(scale_weight(m, l));
        if (l->lin->bias) QX_TRY(qx_bias_change(m, (qx_linear *)(uintptr_t)l->lin, l->row, NULL));
    }
    return QX_OK;
}

/* ---- absorbing ------------------------------------------------------------------------------------------------------------------- */

/* c is handed on as a constant, which zeros of a padding are not. */
static bool absorbs(const pair *p)
{
    const qx_linear *l = p->second->lin;
    if (!p->relu || p->before->uses->node->out[0]->uses->node != l->node) return false;
    for (int i = 0; l->is_conv && i < l->window.rank; i++)
        if (l->window.pad_begin[i] || l->window.pad_end[i]) return false;
    return !l->is_conv || strncmp(qx_attr_string(l->node, "auto_pad", "NOTSET"), "SAME", 4) != 0;
}

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const state *s = p->state;
    (void)m;
    for (int64_t i = 0; i < s->n_pairs && qx_opt_bool(p, "absorb") && p->pipe->have_data; i++)
        if (absorbs(&s->pairs[i])) {
            const int axis = s->pairs[i].first->lin->is_conv ? 1 : -1;
            QX_TRY(qx_stats_want(stats, &(qx_stat_request){.value = s->pairs[i].before, .kinds = QX_STAT_RANGE | QX_STAT_CHANNELS,
                                                           .axis = axis}));
            const qx_linear *next = s->pairs[i].second->lin; /* its rows make the histogram anew */
            const bool rows = next->group == 1;
            QX_TRY(qx_stats_want(stats, &(qx_stat_request){.value = next->x,
                                                           .kinds = QX_STAT_RANGE | QX_STAT_CHANNELS | (rows ? QX_STAT_ROWS : 0),
                                                           .axis = axis,
                                                           .window = next->is_conv && rows ? &next->window : NULL}));
        }
    return QX_OK;
}

/* What the next layer gains from inputs c: W c. */
static qx_status product(qx_pass *p, const qx_plan_item *it, const layer *l, const float *c, float *out)
{
    const int64_t n = l->lin->n, k = l->lin->k;
    float *x;
    QX_TRY(qx_alloc_raw(p->ctx, (size_t)(n * k) * sizeof *x, (void **)&x));
    const qx_status st = qx_rows_read(p->ctx, it->weight->tensor, &it->weight->view, it->weight->steps, 0, n, x);
    for (int64_t r = 0; st == QX_OK && r < n; r++) {
        double sum = 0;
        for (int64_t j = 0; j < k; j++) sum += (double)x[r * k + j] * (double)c[channel_at(l, r, j / l->spatial)];
        out[r] = (float)sum;
    }
    qx_free(p->ctx, x);
    return st;
}

/* The bound is three standard deviations below the mean, and never above what was seen. */
static int64_t bounds(const qx_channel_stats *ch, float *c, float *minus)
{
    int64_t found = 0;
    for (int64_t i = 0; i < ch->n; i++) {
        const double mean = (double)ch->mean[i], sd = sqrt(fmax((double)ch->mean_sq[i] - mean * mean, 0));
        c[i] = (float)fmax(0, fmin(mean - 3 * sd, (double)ch->min[i]));
        minus[i] = -c[i];
        found += c[i] > 0;
    }
    return found;
}

static qx_status absorb(qx_pass *p, const pair *pr, qx_stats *stats)
{
    qx_model *m = p->pipe->model;
    const qx_value_stats *st = qx_stats_get(stats, pr->before);
    qx_plan_item *first = qx_plan_item_of(p->pipe->plan, pr->first->lin->node),
        *second = qx_plan_item_of(p->pipe->plan, pr->second->lin->node);
    const int64_t n = pr->first->lin->n;
    if (!st || st->channels.n != n || !first || !second || !second->weight || !qx_bias_can_change(first->lin) ||
        !qx_bias_can_change(second->lin))
        return QX_OK;
    float *c = qx_arena_array(m->arena, (size_t)n * 2, sizeof *c),
        *gain = qx_arena_array(m->arena, (size_t)pr->second->lin->n, sizeof *gain);
    if (!c || !gain) return QX_E_NOMEM;
    const int64_t found = bounds(&st->channels, c, c + n);
    if (!found) return QX_OK;
    QX_TRY(product(p, second, pr->second, c, gain));
    QX_TRY(qx_bias_change(m, &p->pipe->plan->linears.items[first->lin->index], NULL, c + n));
    QX_TRY(qx_bias_change(m, &p->pipe->plan->linears.items[second->lin->index], NULL, gain));
    QX_TRY(qx_item_note(p->pipe, first, "absorbed %lld channels", (long long)found));
    return qx_stats_shift_channels(stats, second->lin->x, c + n, n);
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const state *s = p->state;
    const bool takes = qx_opt_bool(p, "absorb") && p->pipe->have_data && !p->pipe->no_stats;
    (void)m;
    for (int64_t i = 0; i < s->n_pairs; i++) {
        qx_plan_item *first = qx_plan_item_of(p->pipe->plan, s->pairs[i].first->lin->node),
            *second = qx_plan_item_of(p->pipe->plan, s->pairs[i].second->lin->node);
        if (first) first->rescaled = true;
        if (first) QX_TRY(qx_item_note(p->pipe, first, "equalized (out)"));
        if (second) QX_TRY(qx_item_note(p->pipe, second, "equalized (in)"));
        if (takes && absorbs(&s->pairs[i])) QX_TRY(absorb(p, &s->pairs[i], stats));
    }
    return QX_OK;
}

static const qx_option options[] = {
    {"absorb", QX_OPT_BOOL, "true", 0, 1, NULL,
     "with samples: hand what a channel always exceeds before its Relu on to the next layer's bias (layers without padding)"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_equalize = {
    .name = "equalize", .brief = "cross-layer equalization of convolution networks, before formats with coarse weight scales",
    .options = options, .flags = QX_PASS_WEIGHTS,
    .rewrite = rewrite, .plan = plan, .run = run,
    .doc = "Channel i between two layers with only Relu, LeakyRelu, PRelu or pooling between them is divided by s[i] in the first "
           "(weights and bias) and\n"
           "multiplied in the second, s = sqrt(r1 / r2) with r the largest weight of the channel; repeated over all pairs until "
           "even. Depthwise layers take part.\n"
           "absorb: c = max(0, min(mean - 3 sd, least seen)) leaves the first bias and joins the second as W c, which narrows the "
           "activation's range."};
