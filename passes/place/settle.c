/* settle.c - see settle.h. */
#include "passes/place/settle.h"

#include <string.h>

#include "passes/place/blocks.h"
#include "passes/place/dynamic.h"
#include "passes/place/half_scale.h"
#include "passes/place/square.h"

/* ---- what the pass keeps -------------------------------------------------------------------------------------------------- */

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
    return !it->forced && qx_dtype_bits(s->weight.codes) <= 4 && qx_rule_wants_eight(it->lin) &&
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
    const bool none = s->outputs && qx_target_has(p->pipe->opt->target, QX_TARGET_FUSES_CODES) &&
        it->lin->node->op->id == QX_OP_ConvTranspose;
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

/* Left whole for its place in the network. */
static bool out_of_level(const qx_pass *p, const qx_scheme *s, qx_plan_item *it)
{
    const qx_linear *l = it->lin;
    const bool at_end = s->end_block >= 0 && l->is_conv && !it->asked &&
        (qx_rule_up_block(l) == s->end_block || qx_path_has(l->path, "down_blocks.0", false));
    if (at_end) qx_item_keep(p->pipe, it, QX_WHY_LEVEL, "works at the size of the output");
    else if (qx_rule_above_level(l, s->level)) qx_item_keep(p->pipe, it, QX_WHY_LEVEL, "level %g", s->level);
    else return false;
    return true;
}

/* ... and for an input that has no codes. */
static bool not_real(const qx_pass *p, qx_plan_item *it)
{
    const qx_value *x = it->lin->x;
    if (x->type.kind != QX_KIND_TENSOR) qx_item_keep(p->pipe, it, QX_WHY_UNKNOWN_SHAPE, "type of '%.80s'", x->name);
    else if (!qx_dtype_is_real(x->type.dtype))
        qx_item_keep(p->pipe, it, QX_WHY_NOT_FLOAT, "input '%.80s' is %s", x->name, qx_dtype_get(x->type.dtype)->text);
    else return false;
    return true;
}

/* The weight in 8 bits where it takes them, else float for the reason why it does not. */
static void eight_or_float(const qx_pass *p, qx_plan_item *it)
{
    char sizes[120];
    const char *detail;
    const qx_why why = takes_eight(p, it, sizes, &detail);
    if (why == QX_WHY_NONE) it->weight_only = true;
    else qx_item_keep(p->pipe, it, why, "%s", detail);
}

/* By size rules. */
static bool wrong_size(const qx_pass *p, const qx_scheme *s, qx_plan_item *it)
{
    char detail[120];
    if (it->forced || takes_picture(p, s, it)) return false;
    const qx_why why = qx_rule_size(it->lin, s->family, detail, sizeof detail);
    if (why == QX_WHY_NONE) return false;
    if (why != QX_WHY_LARGE_KERNEL || !large_kernel(p, s, it, detail)) qx_item_keep(p->pipe, it, why, "%s", detail);
    return true;
}

/* The last question: does the format have a form here? */
static void fit_format(const qx_pass *p, const qx_scheme *s, qx_plan_item *it)
{
    const char *detail;
    if (s->dynamic && s->dynamic != QX_DYNAMIC_BLOCK && !qx_dynamic_fits(it, &detail)) it->weight_only = true;
    const qx_why why = qx_emit_fits(p->pipe, it, &s->weight, &detail);
    if (why == QX_WHY_NONE) return;
    if (s->unblocked && !it->forced) eight_or_float(p, it);
    else qx_item_keep(p->pipe, it, why, "%s", detail);
}

void qx_settle_item(const qx_pass *p, const qx_scheme *s, qx_plan_item *it)
{
    const bool takes_x = (s->act || s->dynamic) && !it->weight_only;
    if (out_of_level(p, s, it) || (takes_x && not_real(p, it)) || wrong_size(p, s, it)) return;
    if (wants_eight(p, s, it)) { it->weight_only = true; return; }
    if (takes_x && (it->lin->recurrent || (s->act && it->lin->mixture))) {
        if (!inside_node(p, s, it))
            qx_item_keep(p->pipe, it, QX_WHY_NOT_ELIGIBLE, "its input stays float, and its weight does not take 8 bits");
        return;
    }
    if (s->few_blocks && !it->asked) eight_or_float(p, it);
    else if (!(s->one_row && one_row(p, s, it)) && !no_integer_kernel(p, s, it)) fit_format(p, s, it);
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

void qx_settle_find(const qx_pass *p, qx_scheme *s)
{
    s->end_block = s->keep_end ? last_up_block(p->pipe->plan) : -1;
    s->one_row = s->one_row && few_in_one_row(p);
    s->few_blocks = s->unblocked && few_in_blocks(p, s);
}

void qx_settle_rest(qx_pass *p, const qx_scheme *s)
{
    qx_plan *plan = p->pipe->plan;
    for (int64_t i = 0; s->rest && is_main(p) && i < plan->linears.count; i++) take_rest(p, s, &plan->items[i]);
}

/* ---- how it is stored ------------------------------------------------------------------------------------------------------ */

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

void qx_settle_format(const qx_pass *p, const qx_scheme *s, qx_plan_item *it)
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
    return s->outputs && qx_target_has(p->pipe->opt->target, QX_TARGET_FUSES_CODES) && !it->asked && it->lin->is_conv &&
        it->weight->items == 1 && saved < p->pipe->plan->bytes / ONE_IN;
}

bool qx_scheme_float_input(qx_plan_item *it)
{
    const qx_pass *p = it->pass;
    if (it->asked || it->weight_only || !weight_alone(p, p->state, it)) return false;
    it->weight_only = true;
    qx_settle_format(p, p->state, it);
    qx_half_scale_settle(p, it);
    return true;
}
