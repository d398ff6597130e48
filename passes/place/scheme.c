/* scheme.c - what all formats do: settle items, ask for statistics, choose scales, write nodes. Decides everything before it changes
 * anything. */
#include "passes/place/scheme.h"

#include <math.h>
#include <string.h>

#include "kernels/quant.h"
#include "kernels/search.h"
#include "passes/place/blocks.h"
#include "passes/place/half_scale.h"
#include "passes/place/second_level.h"
#include "passes/place/settle.h"
#include "passes/place/square.h"
#include "passes/place/table.h"

/* ---- options ---------------------------------------------------------------------------------------------------------- */

qx_range_options qx_scheme_range(const qx_pass *p, float levels, qx_dtype format, qx_range_method without)
{
    static const struct { const char *name; qx_range_method method; } methods[] = {
        {"max", QX_RANGE_MAX}, {"percentile", QX_RANGE_PERCENTILE}, {"entropy", QX_RANGE_ENTROPY}, {"mse", QX_RANGE_MSE},
        {"steps-min-mean", QX_RANGE_STEPS_MIN_MEAN}, {"steps-mean-max", QX_RANGE_STEPS_MEAN_MAX},
    };
    qx_range_options r = {.method = without, .percentile = qx_opt_float(p, "percentile"), .step_fraction = qx_opt_float(p, "step-fraction"),
                          .levels = levels, .format = format};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(methods[i].name, qx_opt_text(p, "act")) == 0) r.method = methods[i].method;
    return r;
}

bool qx_scheme_unblocked(const qx_pass *p) { return qx_opt_text(p, "unblocked")[0] == 'i'; }

static bool is_set(const qx_pass *p, const char *option, const char *value) { return strcmp(qx_opt_text(p, option), value) == 0; }

/* The residual and concat options: "auto" is on for TensorRT. */
static bool fuses(const qx_pass *p, const char *option)
{
    return is_set(p, option, "on") || (is_set(p, option, "auto") && p->pipe->opt->target == QX_TARGET_TENSORRT);
}

qx_scheme qx_scheme_of_options(const qx_pass *p, qx_dtype act, float levels, qx_range_method without)
{
    const double level = qx_opt_float(p, "level");
    return (qx_scheme){
        .weight = {.block = is_set(p, "weights", "tensor") ? -1 : 0, .rule = QX_SCALE_AMAX}, .act = act, .levels = levels,
        .range = qx_scheme_range(p, levels, act, without), .range_auto = is_set(p, "act", "auto"),
        .level = level, .attention = level >= 4 || qx_opt_bool(p, "attention"),
        .rest = is_set(p, "rest", "weights"), .keep_end = is_set(p, "end", "float"), .one_row = is_set(p, "one-row", "weights"),
        .residual = fuses(p, "residual"), .concat = fuses(p, "concat"),
    };
}

/* ---- plan ------------------------------------------------------------------------------------------------------------- */

qx_status qx_scheme_want_range(const qx_scheme *s, qx_stats *stats, qx_value *v)
{
    const bool steps = s->range.method == QX_RANGE_STEPS_MIN_MEAN || s->range.method == QX_RANGE_STEPS_MEAN_MAX;
    qx_stat_request r = {.value = v, .kinds = QX_STAT_RANGE, .axis = -1};
    if (s->level > 0 || steps) r.kinds |= QX_STAT_STEPS;
    if (!steps && s->range.method != QX_RANGE_MAX) r.kinds |= QX_STAT_HISTOGRAM;
    return qx_stats_want(stats, &r);
}

/* Whether the columns of W are channels of one axis. */
static bool has_columns(const qx_linear *l) { return l->rows && !l->is_conv; }

/* Block scales of x are multiples of one that calibration finds. */
static bool has_second(const qx_plan_item *it) { return it->dynamic == QX_DYNAMIC_BLOCK && qx_spec_two_level(&it->weight->spec); }

static qx_status want_input(qx_pass *p, const qx_scheme *s, qx_stats *stats, const qx_plan_item *it)
{
    if (s->act && !it->weight_only) QX_TRY(qx_scheme_want_range(s, stats, it->x_stat));
    if (has_second(it)) QX_TRY(qx_scheme_want_range(s, stats, it->x_stat));
    if (!s->importance || !p->pipe->have_data || !has_columns(it->lin)) return QX_OK;
    return qx_stats_want(stats, &(qx_stat_request){.value = it->lin->rows, .kinds = QX_STAT_CHANNELS, .axis = qx_linear_axis(it->lin),
                                                   .window = qx_linear_window(it->lin)});
}

qx_status qx_scheme_plan(qx_pass *p, qx_model *m, qx_stats *stats, const qx_scheme *scheme)
{
    qx_scheme *s = qx_arena_memdup(m->arena, scheme, sizeof *s);
    if (!s) return QX_E_NOMEM;
    qx_plan *plan = p->pipe->plan;
    p->state = s;
    qx_settle_find(p, s);
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (plan->items[i].pass == p) qx_settle_item(p, s, &plan->items[i]);
    qx_settle_rest(p, s);
    qx_plan_settle(p->pipe);
    for (int64_t i = 0; i < plan->linears.count; i++) {
        if (plan->items[i].pass != p) continue;
        QX_TRY(qx_half_scale_measure(p, &plan->items[i]));
        qx_settle_format(p, s, &plan->items[i]);
        QX_TRY(qx_table_settle(p, &plan->items[i]));
        qx_half_scale_settle(p, &plan->items[i]);
        QX_TRY(want_input(p, s, stats, &plan->items[i]));
    }
    if (s->residual) QX_TRY(qx_residual_plan(p, stats, s));
    if (s->outputs) QX_TRY(qx_outputs_plan(p, stats, s));
    if (s->outputs) qx_skips_mark(p, true);
    return s->attention ? qx_attention_plan(p, stats, s) : QX_OK;
}

/* ---- scales ----------------------------------------------------------------------------------------------------------- */

/* Decibels of x under its scale, on some of the rows that calibration kept for whoever asked; NaN: nobody did. */
static double input_sqnr(const qx_plan_item *it, const qx_stats *stats)
{
    enum { ROWS = 64, AT_ONCE = 256 };
    const qx_linear *l = it->lin;
    const qx_value_stats *vs = stats ? qx_stats_get_rows(stats, l->x, qx_linear_window(l)) : NULL;
    const int64_t all = vs ? (vs->n_rows < ROWS ? vs->n_rows : ROWS) * vs->row_len : 0;
    double signal = 0, noise = 0;
    for (int64_t i = 0, n; i < all; i += n) {
        float x[AT_ONCE];
        n = all - i < AT_ONCE ? all - i : AT_ONCE;
        memcpy(x, vs->rows + i, (size_t)n * sizeof *x);
        (void)qx_fake_quantize(&(qx_quant){.grid = {1, n, 1, n}, .format = {.codes = it->act}, .scale = &it->act_scale,
                                           .zero = it->act == QX_DT_UINT8 ? &it->act_zero : NULL}, x);
        for (int64_t k = 0; k < n; k++) {
            const double v = vs->rows[i + k], d = x[k] - v;
            signal += v * v;
            noise += d * d;
        }
    }
    return signal > 0 ? 10 * log10(signal / noise) : NAN;
}

static void decide_input(qx_pass *p, const qx_stats *stats, qx_plan_item *it)
{
    char detail[120];
    qx_act_codes c;
    const qx_why why = qx_scheme_input_codes(it, stats, &c, detail);
    if (why != QX_WHY_NONE) {
        qx_item_keep(p->pipe, it, why, "input '%.60s' %s", it->lin->x->name, detail);
        return;
    }
    it->act = c.act;
    it->act_scale = c.scale;
    it->act_zero = c.zero;
    it->act_sqnr = input_sqnr(it, stats);
}

static void decide_second(qx_pass *p, const qx_scheme *s, const qx_stats *stats, qx_plan_item *it)
{
    char detail[120];
    qx_act_codes c;
    const qx_why why = qx_scheme_act_scale(p, s, stats, it->x_stat, &c, detail);
    if (why != QX_WHY_NONE) {
        qx_item_keep(p->pipe, it, why, "input '%.60s' %s", it->lin->x->name, detail);
        return;
    }
    const qx_value_stats *seen = p->pipe->no_stats ? NULL : qx_stats_get(stats, it->x_stat);
    if (seen) it->act_scale = qx_nvfp4_global(seen->absmax);
}

/* One scale a row where rows lie on several axes (experts): a block that is the whole row says that in the standard's form.
 * TensorRT has no blocks of 8 bits: one scale for the tensor, unless a solver has chosen one a row. OpenVINO 2026.4 reads a gathered table
 * with one INT8 block a row wrongly (5 dB; tests/interop/ov.py): two blocks there, and for recurrences too, which it refuses with a scale
 * a row beside INT8 activations ("expects Constant"). */
static void scale_rows(const qx_pass *p, qx_plan_item *it)
{
    qx_plan_weight *w = it->weight;
    const qx_target target = p->pipe->opt->target;
    if ((it->lin->channel_axis >= 0 && !qx_rule_needs_blocks(it->lin, target)) || w->spec.block) return;
    w->spec.block = it->lin->k;
    if (w->solved) return;
    if (target == QX_TARGET_TENSORRT) w->spec.block = -1;
    else if (target == QX_TARGET_OPENVINO && !it->act && w->spec.codes == QX_DT_INT8 && it->lin->k % 2 == 0) w->spec.block = it->lin->k / 2;
}

void qx_scheme_weigh(const qx_pass *p, const qx_stats *stats, qx_plan_item *it)
{
    const qx_scheme *s = p->state;
    const qx_linear *l = it->lin;
    const qx_value_stats *vs = !s->importance || !stats || !has_columns(l) ? NULL
        : l->columns ? qx_stats_get_rows(stats, l->rows, &l->window) : qx_stats_get(stats, l->rows);
    if (vs && vs->channels.n == it->lin->k && !it->weight->spec.importance) it->weight->spec.importance = vs->channels.importance;
}

/* ---- run -------------------------------------------------------------------------------------------------------------- */

static qx_status raise_opset(qx_pass *p, const qx_plan_item *it)
{
    const qx_qspec *w = &it->weight->spec;
    qx_need need = qx_emit_weight_need(p->pipe, it), act = {0, 0};
    if (it->act) act = qx_emit_pair_need(p->pipe, it->lin->x, it->act);
    if (it->dynamic == QX_DYNAMIC_BLOCK) act = qx_blocks_need(p->pipe, w);
    if (act.opset > need.opset) need = act;
    return qx_emit_raise(p->pipe, need, qx_dtype_get(need.opset == act.opset && it->act ? it->act : w->codes)->name);
}

/* The embedding that a head's weight is too (or the other way round) reads the same codes, whoever asked for them. */
static void report_sharers(qx_pass *p, const qx_plan_item *it)
{
    const qx_plan *plan = p->pipe->plan;
    for (int64_t i = 0; it->weight->embedding && it->weight->items > 1 && i < plan->linears.count; i++)
        if (plan->items[i].weight == it->weight && !plan->items[i].pass) qx_applied(p, plan->items[i].lin->node, it->weight->format);
}

static qx_status write_item(qx_pass *p, qx_plan_item *it)
{
    qx_value *x;
    QX_TRY(qx_emit_weight(p->pipe, it));
    if (it->act) QX_TRY(qx_emit_pair(p->pipe, it->lin->x, it->act, it->act_scale, it->act_zero, &x));
    else if (it->dynamic == QX_DYNAMIC_BLOCK) QX_TRY(qx_emit_blocks(p->pipe, it->lin->x, &it->weight->spec, it->act_scale, &x));
    else x = NULL;
    if (x) QX_TRY(qx_node_set_in(it->lin->node, it->lin->x_index, x));
    const qx_scheme *s = p->state;
    qx_applied(p, it->lin->node, it->dynamic ? s->name : it->weight->format);
    report_sharers(p, it);
    return QX_OK;
}

qx_status qx_scheme_run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)m; /* the pipeline has it */
    const qx_scheme *s = p->state;
    qx_plan *plan = p->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        if (plan->items[i].pass != p) continue;
        qx_scheme_weigh(p, stats, &plan->items[i]);
        scale_rows(p, &plan->items[i]);
        if (plan->items[i].act) decide_input(p, stats, &plan->items[i]);
        if (has_second(&plan->items[i])) decide_second(p, s, stats, &plan->items[i]);
    }
    if (p->pipe->failed != QX_OK) return p->pipe->failed;
    if (s->concat) QX_TRY(qx_concat_share(p));
    qx_plan_settle(p->pipe);
    QX_TRY(qx_second_level_share(p, 2));
    QX_TRY(qx_square_scales(p));
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (plan->items[i].pass == p) QX_TRY(raise_opset(p, &plan->items[i]));
    if (s->outputs) qx_skips_mark(p, false);
    if (s->pools) QX_TRY(qx_outputs_run(p, stats, s));
    if (s->outputs) QX_TRY(qx_skips_write(p));
    if (s->residual) QX_TRY(qx_residual_run(p, stats, s));
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (plan->items[i].pass == p) QX_TRY(write_item(p, &plan->items[i]));
    if (s->attention) QX_TRY(qx_attention_run(p, stats, s));
    return p->pipe->failed;
}
