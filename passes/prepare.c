/* prepare.c - see prepare.h. */
#include "passes/prepare.h"

#include <string.h>

#include "passes/linear/constants.h"
#include "passes/linear/loops.h"
#include "passes/linear/merge.h"
#include "passes/linear/noops.h"
#include "passes/linear/products.h"
#include "passes/linear/quantized.h"
#include "passes/linear/unfuse.h"

/* ---- the model ------------------------------------------------------------------------------------------------------------ */

/* Old exporters list every initializer as a graph input, which makes it overridable and so not a constant. A rewrite takes them
 * as what they are meant to be. */
static qx_status fix_inputs(qx_pipeline *p, qx_model *m)
{
    int64_t fixed = 0;
    for (uint32_t i = m->graph->n_inputs; i-- > 0;) {
        qx_value *v = m->graph->inputs[i];
        if (!v->init) continue;
        QX_TRY(qx_input_fix(v));
        fixed++;
    }
    if (!fixed) return QX_OK;
    if (m->ir_version < 4) QX_TRY(qx_model_set_ir(m, 4));
    else
        qx_warn(p->ctx, "%lld initializers were graph inputs too; they are constants in the output and can not be fed any more",
                (long long)fixed);
    return qx_infer_shapes(m, p->opt->dims, p->opt->n_dims);
}

static qx_status find_linear_in_function(void *user, qx_node *n)
{
    bool *found = user;
    *found |= n->graph->function && (n->op->traits & QX_T_LINEAR);
    return QX_OK;
}

/* A weight reaches the body of a local function as its input; written out at the call it is a constant like any other. */
static qx_status inline_functions(qx_pipeline *p, qx_model *m)
{
    bool found = false;
    if (!m->n_functions) return QX_OK;
    QX_TRY(qx_model_each_node(m, find_linear_in_function, &found));
    if (!found) return QX_OK;
    qx_log(p->ctx, QX_LOG_INFO, "%u local functions are written out: they hold linear operators", m->n_functions);
    QX_TRY(qx_functions_inline(m));
    return qx_infer_shapes(m, p->opt->dims, p->opt->n_dims);
}

static bool changes_model(const qx_pipeline *p)
{
    for (int i = 0; i < p->n_passes; i++)
        if (p->passes[i]->def->flags & (QX_PASS_FORMAT | QX_PASS_WEIGHTS)) return true;
    return false;
}

bool qx_pipeline_has_format(const qx_pipeline *p)
{
    for (int i = 0; i < p->n_passes; i++)
        if (p->passes[i]->def->flags & QX_PASS_FORMAT) return true;
    return false;
}

/* Where the runtime makes one step of them only while the weight is float. */
static qx_status merge_scales(const qx_pipeline *p, qx_model *m)
{
    int64_t merged = 0;
    if (!qx_target_has(p->opt->target, QX_TARGET_FUSES_CODES) || !qx_pipeline_has_format(p)) return QX_OK;
    QX_TRY(qx_merge_scales(m, &merged));
    if (merged) qx_log(p->ctx, QX_LOG_INFO, "%lld scales and shifts are part of the convolutions before them now", (long long)merged);
    return QX_OK;
}

static qx_status drop_debug_info(const qx_pipeline *p, qx_model *m)
{
    int64_t bytes = 0;
    if (p->opt->keep_debug_info) return QX_OK;
    QX_TRY(qx_debug_info_drop(m, &bytes));
    if (bytes) qx_log(p->ctx, QX_LOG_INFO, "%lld bytes that the exporter wrote beside nodes for debugging are left out", (long long)bytes);
    if (p->report) p->report->debug_bytes = bytes;
    return QX_OK;
}

qx_status qx_prepare_model(qx_pipeline *p, qx_model *m)
{
    if (!changes_model(p)) return QX_OK;
    QX_TRY(drop_debug_info(p, m));
    QX_TRY(fix_inputs(p, m));
    QX_TRY(inline_functions(p, m));
    QX_TRY(qx_dead_code(m, NULL)); /* a model cut at an earlier output: readers that are gone hold no weight in float */
    QX_TRY(qx_noops_drop(m));
    QX_TRY(qx_unfuse(m));
    QX_TRY(qx_einsum_products(m));
    QX_TRY(qx_loops_open(m));
    QX_TRY(qx_fold_computed_weights(m, &p->opt->exec));
    QX_TRY(merge_scales(p, m));
    return qx_dead_code(m, NULL); /* what made them */
}

qx_status qx_prepare_refuse(qx_pipeline *p, qx_model *m)
{
    qx_already s = {0};
    if (p->opt->allow_requantize) return QX_OK;
    QX_TRY(qx_already_quantized(m, &s));
    if (!s.first) return QX_OK;
    QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "the model is quantized already: %lld nodes such as '%s' (%s); quantize the float model "
                                      "that it was made of, or with --allow-requantize what is still float in this one", (long long)s.count,
            s.first->name, s.first->op_type);
}

/* ---- the formats ---------------------------------------------------------------------------------------------------------- */

/* The FORMAT pass of one --set; NULL for "float". */
static qx_status parse_setting(qx_pipeline *p, const qx_setting *s, qx_pass **out)
{
    static const char *const floats[] = {"float", "none", "fp32", "fp16", "f32", "f16", "keep"};
    *out = NULL;
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        if (strcmp(s->format, floats[i]) == 0) return QX_OK;
    qx_status st = qx_pipeline_parse_format(p, s->format, out);
    return st == QX_OK ? QX_OK : qx_note(p->ctx, st, "--set '%s=%s'", s->pattern, s->format);
}

/* The pass that already stands for this format, with the same options: nodes that share a weight share a format however it was named. */
static qx_pass *known_format(qx_pipeline *p, qx_pass *new)
{
    for (int i = 0; i < p->n_passes; i++)
        if (qx_pass_same(p->passes[i], new)) return p->passes[i];
    for (int i = 0; i < p->n_set_passes; i++)
        if (qx_pass_same(p->set_passes[i], new)) return p->set_passes[i];
    return p->set_passes[p->n_set_passes++] = new;
}

static qx_status parse_settings(qx_pipeline *p)
{
    int n = p->opt->n_settings;
    p->settings = qx_arena_array(p->arena, (size_t)n + 1, sizeof *p->settings);
    p->set_passes = qx_arena_array(p->arena, (size_t)n + 2, sizeof *p->set_passes); /* and `tables` */
    p->n_set_passes = 0;
    if (!p->settings || !p->set_passes) return QX_E_NOMEM;
    for (int i = 0; i < n; i++) {
        QX_TRY(parse_setting(p, &p->opt->settings[i], &p->settings[i]));
        if (p->settings[i]) p->settings[i] = known_format(p, p->settings[i]);
    }
    return QX_OK;
}

static const char *option_value(const qx_pass *pass, const char *name)
{
    for (int i = 0; pass->def->options && pass->def->options[i].name; i++)
        if (strcmp(pass->def->options[i].name, name) == 0) return pass->values[i];
    return NULL;
}

/* Embeddings, language model heads and what else stays float by its name are stored in INT8, whatever the format of the rest: 4 bits of
 * them do much to the output, 8 hardly anything, and in float they would be most of a small file. */
static qx_status parse_tables(qx_pipeline *p)
{
    const char *asked = p->opt->tables ? p->opt->tables : "auto";
    const bool in_float = strcmp(asked, "float") == 0;
    qx_pass *format = NULL;
    p->tables = NULL;
    p->stores_rest = false;
    p->tables_measured = strcmp(asked, "auto") == 0;
    if (!in_float && !p->tables_measured && strcmp(asked, "int8") != 0)
        QX_FAIL(p->ctx, QX_E_USAGE, "--tables '%s': write auto, int8 or float", asked);
    for (int i = p->n_passes; i-- > 0;)
        if (p->passes[i]->def->flags & QX_PASS_FORMAT) format = p->passes[i];
    if (!format || in_float || qx_target_has(p->opt->target, QX_TARGET_FLOAT_TABLES)) return QX_OK;
    const char *level = option_value(format, "accuracy-level"), *rest = option_value(format, "rest");
    p->stores_rest = rest && rest[0] == 'w';
    QX_TRY(qx_pipeline_parse_format(p, level && level[0] == '0' ? "int8-weights(accuracy-level=0)" : "int8-weights", &p->tables));
    p->tables = format->def == p->tables->def ? format : known_format(p, p->tables);
    return QX_OK;
}

/* What formats of the pipeline do with activations; a mix may do either. */
static void add_format(const qx_pass *f, bool *rounds, bool *leaves)
{
    const uint32_t flags = f->def->flags;
    if (!(flags & QX_PASS_FORMAT)) return;
    *rounds |= (flags & (QX_PASS_ROUNDS_X | QX_PASS_MIXES)) != 0;
    *leaves |= !(flags & QX_PASS_ROUNDS_X);
}

/* A pass for quantized activations beside formats that leave them float has nothing to do, and the other way round. */
static qx_status check_purpose(const qx_pipeline *p)
{
    bool rounds = false, leaves = false;
    const char *format = "";
    for (int i = 0; i < p->n_passes; i++) add_format(p->passes[i], &rounds, &leaves);
    for (int i = 0; i < p->n_set_passes; i++) add_format(p->set_passes[i], &rounds, &leaves);
    for (int i = p->n_passes; i-- > 0;)
        if (p->passes[i]->def->flags & QX_PASS_FORMAT) format = p->passes[i]->def->name;
    for (int i = 0; i < p->n_passes; i++) {
        const qx_passdef *d = p->passes[i]->def;
        if (d->flags & QX_PASS_FOR_X && !rounds)
            QX_FAIL(p->ctx, QX_E_USAGE, "%s balances activations that a format quantizes, and %s leaves them float: write "
                                        "\"awq,%s\", or \"%s,int8\"", d->name, format, format, d->name);
        if (d->flags & QX_PASS_FOR_FLOAT_X && !leaves)
            QX_FAIL(p->ctx, QX_E_USAGE, "%s scales weights whose activations stay float, and %s quantizes those: write "
                                        "\"smoothquant,%s\", or \"%s,int4\"", d->name, format, format, d->name);
    }
    return QX_OK;
}

qx_status qx_prepare_formats(qx_pipeline *p)
{
    QX_TRY(parse_settings(p));
    QX_TRY(check_purpose(p));
    return parse_tables(p);
}
