/* scheme.c - what all formats do: settle items, ask for statistics, choose scales, write nodes. Decides everything before it changes
 * anything. */
#include "passes/place/scheme.h"
#include "passes/place/blocks.h"
#include "passes/place/dynamic.h"
#include "passes/place/second_level.h"
#include "passes/place/square.h"
#include "passes/place/table.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/quant.h"
#include "kernels/search.h"
#include "onnx/weight/weight.h"

/* ---- plan ------------------------------------------------------------------------------------------------------------- */


/* What an operator with float inputs gets where its pass's own format is not meant or does not fit: the most accurate 8 bits. */
static const qx_qspec eight_bits = {.codes = QX_DT_INT8, .narrow = true, .rule = QX_SCALE_AMAX};

/* Weights that have no blocks (convolutions, contractions over several axes) take most of some files; in 8 bits with a scale a
 * channel they lose far less than those in blocks. First and last convolutions stay float. */
static qx_why takes_eight(const qx_pass *p, const qx_plan_item *it, char sizes[120], const char **detail)
{
    const qx_why why = qx_rule_size(it->lin, QX_FAMILY_INT8, sizes, 120);
    *detail = sizes;
    return why != QX_WHY_NONE ? why : qx_emit_fits(p->pipe, it, &eight_bits, detail);
}

static bool wants_eight(const qx_pass *p, const qx_scheme *s, const qx_plan_item *it)
{
    char sizes[120];
    const char *detail;
    return !it->forced && qx_dtype_bits(s->weight.codes) == 4 && qx_rule_wants_eight(it->lin) &&
        takes_eight(p, it, sizes, &detail) == QX_WHY_NONE;
}

/* In a network of convolutions, whose weights have no blocks, the classifier's 4 bits would save next to nothing and be most of the
 * model's error (an orientation classifier 10 dB, with INT8 43). */
static bool few_in_blocks(const qx_pass *p, const qx_scheme *s)
{
    enum { FEW = 10 }; /* less than a tenth of all elements */
    const qx_plan *plan = p->pipe->plan;
    double blocked = 0, all = 0;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const char *detail;
        const qx_plan_item *it = &plan->items[i];
        if (it->pass != p || it->lin->embedding) continue;
        const double size = (double)it->lin->n * (double)it->lin->k;
        all += size;
        if (qx_emit_fits(p->pipe, it, &s->weight, &detail) == QX_WHY_NONE) blocked += size;
    }
    return blocked * FEW < all;
}

/* Whether the weight alone can have 8 bits while x stays float: not when another operator reads it too. */
static bool weight_alone(const qx_pass *p, const qx_scheme *s, const qx_plan_item *it)
{
    char sizes[120];
    const char *detail;
    return (s->act || s->dynamic) && it->weight->items == 1 && takes_eight(p, it, sizes, &detail) == QX_WHY_NONE;
}

static bool one_row(const qx_pass *p, const qx_scheme *s, qx_plan_item *it)
{
    if (!s->act || it->asked || !qx_rule_one_row(it->lin, &p->pipe->plan->batch) || !weight_alone(p, s, it)) return false;
    it->notes = "one row a sample: input stays float";
    return it->weight_only = true;
}

/* FP8 has no kernels for large windows. They hold many weights, which need no such kernel to be stored in 8 bits. */
static bool large_kernel(const qx_pass *p, const qx_scheme *s, qx_plan_item *it, const char *detail)
{
    if (!weight_alone(p, s, it)) return false;
    const char *note = qx_arena_printf(p->pipe->arena, "large kernel (%s): input stays float", detail);
    it->notes = note ? note : "large kernel: input stays float";
    return it->weight_only = true;
}

/* ONNX Runtime has integer operators for convolutions and products, none for these: a pair in front would only be two more passes. */
static bool no_integer_kernel(const qx_pass *p, const qx_scheme *s, qx_plan_item *it)
{
    const bool none = p->pipe->opt->target == QX_TARGET_ORT && s->outputs && it->lin->node->op->id == QX_OP_ConvTranspose;
    if (!none || it->asked || !weight_alone(p, s, it)) return false;
    it->notes = "ONNX Runtime has no integer ConvTranspose: input stays float";
    return it->weight_only = true;
}

/* A mixture's or a recurrence's node has no place for codes of what its products read. */
static bool inside_node(const qx_pass *p, const qx_scheme *s, qx_plan_item *it)
{
    if (!weight_alone(p, s, it)) return false;
    it->notes = it->lin->mixture ? "layer of a mixture: input stays float" : "recurrence: input stays float";
    return it->weight_only = true;
}

/* A picture or spectrum of a few channels comes in: OpenVINO multiplies them as integers too, and what follows (a pooling above all)
 * then works on codes (P.808 1.9 to 2.6 times float). Whether the rounding of such an input hurts is measured like any other's. */
static bool takes_picture(const qx_pass *p, const qx_scheme *s, const qx_plan_item *it)
{
    enum { FEW = 4, LEAST = 16 };
    const qx_linear *l = it->lin;
    return p->pipe->opt->target == QX_TARGET_OPENVINO && s->family == QX_FAMILY_INT8 && s->act && l->node->op->id == QX_OP_Conv &&
        l->group == 1 && l->w->dims[0] >= LEAST && l->w->dims[1] <= FEW;
}

static void check_item(qx_pass *p, const qx_scheme *s, qx_plan_item *it)
{
    char detail[120];
    const char *why_detail;
    const qx_linear *l = it->lin;
    if (s->end_block >= 0 && l->is_conv && !it->asked && (qx_rule_up_block(l) == s->end_block ||
                                                          qx_path_has(l->path, "down_blocks.0", false))) {
        qx_item_keep(p->pipe, it, QX_WHY_LEVEL, "works at the size of the output");
        return;
    }
    if (qx_rule_above_level(l, s->level)) { qx_item_keep(p->pipe, it, QX_WHY_LEVEL, "level %g", s->level); return; }
    const bool takes_x = (s->act || s->dynamic) && !it->weight_only;
    if (takes_x && l->x->type.kind == QX_KIND_TENSOR && !qx_dtype_is_real(l->x->type.dtype)) {
        qx_item_keep(p->pipe, it, QX_WHY_NOT_FLOAT, "input '%.80s' is %s", l->x->name, qx_dtype_get(l->x->type.dtype)->text);
        return;
    }
    if (takes_x && l->x->type.kind != QX_KIND_TENSOR) {
        qx_item_keep(p->pipe, it, QX_WHY_UNKNOWN_SHAPE, "type of '%.80s'", l->x->name);
        return;
    }
    qx_why why = it->forced || takes_picture(p, s, it) ? QX_WHY_NONE : qx_rule_size(l, s->family, detail, sizeof detail);
    if (why == QX_WHY_LARGE_KERNEL && large_kernel(p, s, it, detail)) return;
    if (why != QX_WHY_NONE) { qx_item_keep(p->pipe, it, why, "%s", detail); return; }
    if (wants_eight(p, s, it)) { it->weight_only = true; return; }
    if (takes_x && (l->recurrent || (s->act && l->mixture))) {
        if (!inside_node(p, s, it))
            qx_item_keep(p->pipe, it, QX_WHY_NOT_ELIGIBLE, "its input stays float, and its weight does not take 8 bits");
        return;
    }
    if (s->few_blocks && !it->asked) {
        why = takes_eight(p, it, detail, &why_detail);
        if (why == QX_WHY_NONE) it->weight_only = true;
        else qx_item_keep(p->pipe, it, why, "%s", why_detail);
        return;
    }
    if (s->one_row && one_row(p, s, it)) return;
    if (no_integer_kernel(p, s, it)) return;
    if (s->dynamic && s->dynamic != QX_DYNAMIC_BLOCK && !qx_dynamic_fits(it, &why_detail)) it->weight_only = true;
    why = qx_emit_fits(p->pipe, it, &s->weight, &why_detail);
    if (why == QX_WHY_NONE) return;
    if (s->unblocked && !it->forced) why = takes_eight(p, it, detail, &why_detail);
    if (why == QX_WHY_NONE) it->weight_only = true;
    else qx_item_keep(p->pipe, it, why, "%s", why_detail);
}

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
static bool has_second(const qx_plan_item *it) { return it->dynamic == QX_DYNAMIC_BLOCK && it->weight->spec.scale == QX_DT_FLOAT8E4M3FN; }

static qx_status want_input(qx_pass *p, const qx_scheme *s, qx_stats *stats, const qx_plan_item *it)
{
    if (s->act && !it->weight_only) QX_TRY(qx_scheme_want_range(s, stats, it->x_stat));
    if (has_second(it)) QX_TRY(qx_scheme_want_range(s, stats, it->x_stat));
    if (!s->importance || !p->pipe->have_data || !has_columns(it->lin)) return QX_OK;
    qx_stat_request r = {.value = it->lin->rows, .kinds = QX_STAT_CHANNELS, .axis = -1};
    return qx_stats_want(stats, &r);
}

/* Smaller blocks where the target takes whole ones only; the format's name says so. */
static void fit_block(const qx_pass *p, qx_plan_item *it)
{
    qx_plan_weight *w = it->weight;
    const int64_t asked = w->spec.block, block = qx_emit_block(p->pipe, it, &w->spec);
    if (block <= 0 || block == asked) return;
    const char *name = strstr(w->format, " block ");
    const int len = name ? (int)(name - w->format) : (int)strlen(w->format);
    name = qx_arena_printf(p->pipe->model->arena, "%.*s block %lld", len, w->format, (long long)block);
    if (name) w->format = name;
    w->spec.block = block;
}

static void fit_blocks_of_x(const qx_pass *p, const qx_scheme *s, qx_plan_item *it)
{
    const char *detail;
    it->act_scale = 1;
    if (qx_blocks_fit(p->pipe, it, &it->weight->spec, &detail)) return;
    const char *note = qx_arena_printf(p->pipe->arena, "%s: input stays float", detail);
    it->notes = note ? note : "input stays float";
    it->dynamic = QX_DYNAMIC_NONE;
    it->weight->format = s->still;
}

static void fill_item(const qx_pass *p, const qx_scheme *s, qx_plan_item *it)
{
    qx_plan_weight *w = it->weight;
    const bool eight = it->weight_only && !(it->asked && it->lin->embedding);
    w->spec = eight ? eight_bits : s->weight;
    if (!w->spec.scale) w->spec.scale = w->tensor->dtype;
    w->format = eight ? "int8-weights" : s->name;
    w->exact_input = s->exact_input;
    if (w->spec.block > 0) fit_block(p, it);
    if (w->spec.given_rows > 1 && !qx_square_fits(p->pipe, it)) {
        w->spec.given_rows = 0;
        w->format = s->still;
    }
    it->act = it->weight_only ? QX_DT_UNDEFINED : s->act;
    it->dynamic = it->weight_only ? QX_DYNAMIC_NONE : s->dynamic;
    if (it->dynamic == QX_DYNAMIC_BLOCK) fit_blocks_of_x(p, s, it);
    qx_emit_prefer_blocks(p->pipe, it);
}

bool qx_scheme_float_weight(const qx_plan_item *it)
{
    enum { ONE_IN = 50 };
    const qx_pass *p = it->pass;
    const qx_scheme *s = p->state;
    const int64_t saved = (int64_t)it->weight->tensor->bytes - it->weight->tensor->numel;
    return s->outputs && p->pipe->opt->target == QX_TARGET_ORT && !it->asked && it->lin->is_conv && it->weight->items == 1 &&
        saved < p->pipe->plan->bytes / ONE_IN;
}

bool qx_scheme_float_input(qx_plan_item *it)
{
    const qx_pass *p = it->pass;
    if (it->asked || it->weight_only || !weight_alone(p, p->state, it)) return false;
    it->weight_only = true;
    fill_item(p, p->state, it);
    return true;
}

static bool is_main(const qx_pass *p)
{
    for (int i = 0; i < p->pipe->n_passes; i++)
        if (p->pipe->passes[i]->def->flags & QX_PASS_FORMAT) return p->pipe->passes[i] == p;
    return false;
}

/* What stays float for its name or level keeps float arithmetic; its weight takes the format's place in the file. */
static void take_rest(qx_pass *p, const qx_scheme *s, qx_plan_item *it)
{
    const char *detail;
    if (it->pass || !it->weight || it->lin->embedding || (it->why != QX_WHY_DEFAULT_NAME && it->why != QX_WHY_LEVEL)) return;
    char sizes[120];
    if (qx_rule_size(it->lin, QX_FAMILY_INT8, sizes, sizeof sizes) != QX_WHY_NONE) return; /* the first and last convolution above all */
    if (qx_emit_fits(p->pipe, it, &s->weight, &detail) != QX_WHY_NONE) return;
    it->pass = p;
    it->weight_only = true;
    it->why = QX_WHY_NONE;
}

/* Number of the last up block, when there are at least two. */
static int last_up_block(const qx_plan *plan)
{
    int last = -1;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        int n = qx_rule_up_block(&plan->linears.items[i]);
        last = n > last ? n : last;
    }
    return last > 0 ? last : -1;
}

/* Where most weights are read for one row a sample (a step of a language model, a network of a few dense layers), the rule would
 * leave little of the format. */
static bool few_in_one_row(const qx_pass *p)
{
    const qx_plan *plan = p->pipe->plan;
    double one = 0, all = 0;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_linear *l = plan->items[i].lin;
        if (plan->items[i].pass != p || l->embedding) continue;
        all += (double)l->n * (double)l->k;
        if (qx_rule_one_row(l, &plan->batch)) one += (double)l->n * (double)l->k;
    }
    return one < all / 2;
}

qx_status qx_scheme_plan(qx_pass *p, qx_model *m, qx_stats *stats, const qx_scheme *scheme)
{
    qx_scheme *s = qx_arena_memdup(m->arena, scheme, sizeof *s);
    if (!s) return QX_E_NOMEM;
    qx_plan *plan = p->pipe->plan;
    p->state = s;
    s->end_block = s->keep_end ? last_up_block(plan) : -1;
    s->one_row = s->one_row && few_in_one_row(p);
    s->few_blocks = s->unblocked && few_in_blocks(p, s);
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (plan->items[i].pass == p) check_item(p, s, &plan->items[i]);
    for (int64_t i = 0; s->rest && is_main(p) && i < plan->linears.count; i++) take_rest(p, s, &plan->items[i]);
    qx_plan_settle(p->pipe);
    for (int64_t i = 0; i < plan->linears.count; i++) {
        if (plan->items[i].pass != p) continue;
        fill_item(p, s, &plan->items[i]);
        QX_TRY(qx_table_settle(p, &plan->items[i]));
        QX_TRY(want_input(p, s, stats, &plan->items[i]));
    }
    if (s->residual) QX_TRY(qx_residual_plan(p, stats, s));
    if (s->outputs) QX_TRY(qx_outputs_plan(p, stats, s));
    if (s->outputs) qx_skips_mark(p, true);
    return s->attention ? qx_attention_plan(p, stats, s) : QX_OK;
}

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

/* ---- scales ----------------------------------------------------------------------------------------------------------- */

/* A scale that is written is finite and normal. In float16 models small scales are raised to the smallest normal number (2^-14). */
static qx_why round_scale(qx_dtype type, float raw, float *scale, char detail[120])
{
    snprintf(detail, 120, "would have a scale of %g", (double)raw);
    if (!isfinite(raw) || raw < FLT_MIN) return QX_WHY_SCALE_NOT_NORMAL;
    if (type == QX_DT_FLOAT16 && raw < 0x1p-14f) raw = 0x1p-14f;
    if (type == QX_DT_FLOAT16 && raw > 65504.0f) return QX_WHY_SCALE_NOT_NORMAL;
    qx_format f = {.codes = QX_DT_INT8, .scale = type};
    *scale = qx_scale_stored(&f, raw, NULL);
    return QX_WHY_NONE;
}

static qx_status raw_scale(const qx_scheme *s, const qx_stats *stats, const qx_value *v, float *raw, float *low)
{
    float reach = s->given, hi;
    *low = 0;
    if (!(reach > 0)) QX_TRY(qx_stats_threshold(stats, v, &s->range, &reach));
    *raw = reach / s->levels;
    if (!s->act_zero) return QX_OK;
    QX_TRY(qx_stats_min_max(stats, v, reach, low, &hi));
    if (s->flat > 0) *low = fmaxf(*low, -s->flat);
    *raw = (hi - *low) / 255;
    return QX_OK;
}

qx_why qx_scheme_act_scale(qx_pass *p, const qx_scheme *s, const qx_stats *stats, const qx_value *v, float *scale, int32_t *zero,
                           char detail[120])
{
    float raw = 1, low = 0;
    detail[0] = 0;
    *zero = 0;
    *scale = 1;
    if (p->pipe->no_stats) return QX_WHY_NONE;
    const qx_value_stats *vs = qx_stats_get(stats, v);
    if (!vs || vs->count == 0) return QX_WHY_NOT_OBSERVED;
    if (vs->absmax == 0) snprintf(detail, 120, "is zero on every sample");
    else snprintf(detail, 120, "has a largest value of %g", (double)vs->absmax);
    if (!isfinite(vs->absmax) || vs->absmax == 0) return QX_WHY_SCALE_NOT_NORMAL;
    if (vs->min <= -1e30f || vs->max >= 1e30f) return QX_WHY_MASK;
    qx_status st = raw_scale(s, stats, v, &raw, &low);
    if (st != QX_OK) {
        p->pipe->failed = st;
        return QX_WHY_NOT_OBSERVED;
    }
    qx_why why = round_scale(v->type.dtype, raw, scale, detail);
    if (why != QX_WHY_NONE || !s->act_zero) return why;
    float z = rintf(-low / *scale);
    *zero = z < 0 ? 0 : z > 255 ? 255 : (int32_t)z;
    return QX_WHY_NONE;
}

/* Decibels of x under its scale, on some of the rows that calibration kept for whoever asked; NaN: nobody did. */
static double input_sqnr(const qx_plan_item *it, const qx_stats *stats)
{
    enum { ROWS = 64, AT_ONCE = 256 };
    const qx_linear *l = it->lin;
    const qx_value_stats *vs = stats ? qx_stats_get_rows(stats, l->x, l->is_conv ? &l->window : NULL) : NULL;
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

float qx_scheme_reach(qx_dtype act, float scale)
{
    const qx_format f = {.codes = act, .narrow = act == QX_DT_INT8};
    float lo = 0, hi = 1;
    (void)qx_format_range(&f, &lo, &hi);
    return scale * (act == QX_DT_UINT8 ? hi / 2 : hi);
}

/* Behind Relu, GELU or SiLU a zero point makes the steps nearly half as large. Where x is merely uneven by the samples seen, the
 * shorter side is left its room; and of few values only those are sure that hardly have a shorter side (four pictures' pooled 64
 * features: the held-out ones were cut off, 9.7 dB instead of 24.6). */
static void take_zero_point(qx_pass *p, qx_scheme *s, const qx_stats *stats, const qx_value *v, qx_act_codes *c)
{
    enum { FEW = 4096 };
    const qx_value_stats *seen = stats ? qx_stats_get(stats, v) : NULL;
    const float worth = seen && seen->count < FEW ? 0.6f : 0.85f;
    char detail[120];
    float scale;
    int32_t zero;
    s->act_zero = true;
    s->range.format = QX_DT_UINT8;
    if (p->pipe->no_stats || qx_scheme_act_scale(p, s, stats, v, &scale, &zero, detail) != QX_WHY_NONE || scale >= worth * c->scale) return;
    *c = (qx_act_codes){QX_DT_UINT8, scale, zero};
}

qx_why qx_scheme_input_codes(const qx_plan_item *it, const qx_stats *stats, qx_act_codes *out, char detail[120])
{
    qx_pass *p = it->pass;
    qx_scheme mine = *(const qx_scheme *)p->state;
    const bool zero_auto = mine.act_zero_auto;
    if (mine.range_auto) mine.given = it->act_range;
    out->act = it->act;
    const qx_why why = qx_scheme_act_scale(p, &mine, stats, it->x_stat, &out->scale, &out->zero, detail);
    if (why == QX_WHY_NONE && zero_auto) take_zero_point(p, &mine, stats, it->x_stat, out);
    return why;
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
    float scale;
    int32_t zero;
    const qx_why why = qx_scheme_act_scale(p, s, stats, it->x_stat, &scale, &zero, detail);
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
    const qx_value_stats *vs = s->importance && stats && has_columns(it->lin) ? qx_stats_get(stats, it->lin->rows) : NULL;
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
