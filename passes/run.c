/* run.c - a parsed pipeline on a model in memory: plan, one sweep, passes, and the record of what happened to every node. */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "base/thread.h"
#include "passes/linear/constants.h"
#include "passes/linear/loops.h"
#include "passes/linear/merge.h"
#include "passes/linear/noops.h"
#include "passes/linear/products.h"
#include "passes/linear/unfuse.h"
#include "passes/place/emit.h"
#include "passes/job/job.h"
#include "passes/linear/quantized.h"
#include "passes/search/sequence.h"

static const qx_quantize_options no_options;

/* ---- before -------------------------------------------------------------------------------------------------------------- */

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

static bool has_format(const qx_pipeline *p)
{
    for (int i = 0; i < p->n_passes; i++)
        if (p->passes[i]->def->flags & QX_PASS_FORMAT) return true;
    return false;
}

/* Where the runtime makes one step of them only while the weight is float. */
static qx_status merge_scales(const qx_pipeline *p, qx_model *m)
{
    int64_t merged = 0;
    if (p->opt->target != QX_TARGET_ORT || !has_format(p)) return QX_OK;
    QX_TRY(qx_merge_scales(m, &merged));
    if (merged) qx_log(p->ctx, QX_LOG_INFO, "%lld scales and shifts are part of the convolutions before them now", (long long)merged);
    return QX_OK;
}

typedef struct scan { const qx_node *first; int64_t count; } scan;

static qx_status find_quantized(void *user, qx_node *n)
{
    scan *s = user;
    if (!qx_quantized_node(n)) return QX_OK;
    if (!s->first) s->first = n;
    s->count++;
    return QX_OK;
}

static qx_status refuse_quantized(qx_pipeline *p, qx_model *m)
{
    scan s = {0};
    if (p->opt->allow_requantize) return QX_OK;
    QX_TRY(qx_model_each_node(m, find_quantized, &s));
    if (!s.first) return QX_OK;
    QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "the model is quantized already: %lld nodes such as '%s' (%s); quantize the float model "
                                      "that it was made of, or with --allow-requantize what is still float in this one", (long long)s.count,
            s.first->name, s.first->op_type);
}

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
    const char *asked = p->opt->tables ? p->opt->tables : "int8";
    const bool in_float = strcmp(asked, "float") == 0;
    qx_pass *format = NULL;
    p->tables = NULL;
    p->stores_rest = false;
    if (!in_float && strcmp(asked, "int8") != 0) QX_FAIL(p->ctx, QX_E_USAGE, "--tables '%s': write int8 or float", asked);
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

typedef enum phase { PHASE_PLAN, PHASE_DECIDE, PHASE_RUN, PHASE_FINISH } phase;

/* Says which pass failed, unless the message begins with its name: "mixed(size=10): write a share ..." */
static qx_status blame(const qx_pipeline *p, const qx_passdef *d, qx_status st)
{
    const size_t n = strlen(d->name);
    const char *text = qx_ctx_error(p->ctx);
    if (strncmp(text, d->name, n) == 0 && strchr("(: ", text[n])) return st;
    return qx_note(p->ctx, st, "pass %s", d->name);
}

static qx_status run_pass(qx_pipeline *p, qx_pass *pass, phase ph, qx_stats *stats)
{
    const qx_passdef *d = pass->def;
    qx_status (*const phases[])(qx_pass *, qx_model *, qx_stats *) =
        {[PHASE_PLAN] = d->plan, [PHASE_DECIDE] = d->decide, [PHASE_RUN] = d->run, [PHASE_FINISH] = d->finish};
    if (!phases[ph]) return QX_OK;
    QX_TRY(qx_check_cancel(p->ctx));
    qx_status st = phases[ph](pass, p->model, stats);
    if (st == QX_OK && ph == PHASE_RUN && p->opt->verify_each) st = qx_verify(p->model);
    return st == QX_OK ? st : blame(p, d, st);
}

/* One phase of every FORMAT pass (those of --set too), or of every other pass. */
static qx_status each_pass(qx_pipeline *p, bool formats, phase ph, qx_stats *stats)
{
    for (int i = 0; i < p->n_passes; i++)
        if (((p->passes[i]->def->flags & QX_PASS_FORMAT) != 0) == formats) QX_TRY(run_pass(p, p->passes[i], ph, stats));
    for (int i = 0; formats && i < p->n_set_passes; i++) QX_TRY(run_pass(p, p->set_passes[i], ph, stats));
    return QX_OK;
}

static qx_status make_decisions(qx_pipeline *p, qx_model *m)
{
    p->n_decisions = m->n_node_ids;
    p->decisions = qx_arena_array(m->arena, (size_t)p->n_decisions + 1, sizeof *p->decisions);
    return p->decisions ? QX_OK : QX_E_NOMEM;
}

static qx_status remember_node(void *user, qx_node *n)
{
    qx_pipeline *p = user;
    const char *name = n->name[0] ? n->name : n->n_out && n->out[0] ? n->out[0]->name : "";
    p->decisions[n->id] = (qx_decision){.node = n, .name = name, .op = n->op_type,
                                        .graph = n->graph->owner || n->graph->function ? n->graph->name : ""};
    return QX_OK;
}

static qx_status rewrite(qx_pipeline *p, qx_model *m)
{
    for (int i = 0; i < p->n_passes; i++) {
        qx_status st = p->passes[i]->def->rewrite ? p->passes[i]->def->rewrite(p->passes[i], m) : QX_OK;
        if (st == QX_OK && p->passes[i]->def->rewrite && p->opt->verify_each) st = qx_verify(m);
        if (st != QX_OK) return blame(p, p->passes[i]->def, st);
    }
    return QX_OK;
}

static bool rewrites(const qx_pass *p)
{
    return p->def->rewrite && !(p->def->rewrite_option && strcmp(qx_opt_text(p, p->def->rewrite_option), "off") == 0);
}

uint64_t qx_pipeline_stats_key(const qx_pipeline *p, const qx_model *m)
{
    uint64_t key = m->graph_hash;
    for (int i = 0; i < p->n_passes; i++) {
        const qx_pass *pass = p->passes[i];
        if (!rewrites(pass)) continue;
        key = key * 31 + qx_hash64(pass->def->name, strlen(pass->def->name));
        for (int o = 0; pass->def->options && pass->def->options[o].name; o++)
            if (!pass->def->rewrite_option || !strcmp(pass->def->rewrite_option, pass->def->options[o].name))
                key = key * 31 + qx_hash64(pass->values[o], strlen(pass->values[o]));
    }
    return key;
}

qx_status qx_pipeline_plan(qx_pipeline *p, qx_model *m, const qx_quantize_options *opt, qx_stats *stats)
{
    p->opt = opt ? opt : &no_options;
    p->model = m;
    const qx_samples_options *so = &p->opt->samples;
    p->have_data |= so->n_paths > 0 || so->text || so->random > 0 || p->opt->load_stats != NULL;
    QX_TRY(qx_pipeline_settle(p, p->have_data));
    QX_TRY(refuse_quantized(p, m));
    QX_TRY(parse_settings(p));
    QX_TRY(check_purpose(p));
    QX_TRY(parse_tables(p));
    QX_TRY(qx_sequence_check(p));
    if (changes_model(p)) {
        QX_TRY(fix_inputs(p, m));
        QX_TRY(inline_functions(p, m));
        QX_TRY(qx_dead_code(m, NULL)); /* a model cut at an earlier output: readers that are gone hold no weight in float */
        QX_TRY(qx_noops_drop(m));
        QX_TRY(qx_unfuse(m));
        QX_TRY(qx_einsum_products(m));
        QX_TRY(qx_loops_open(m));
        QX_TRY(qx_fold_computed_weights(m, &p->opt->exec));
        QX_TRY(merge_scales(p, m));
        QX_TRY(qx_dead_code(m, NULL)); /* what made them */
    }
    QX_TRY(make_decisions(p, m));
    QX_TRY(qx_model_each_node(m, remember_node, p));
    QX_TRY(rewrite(p, m));
    QX_TRY(qx_plan_new(p, m));
    QX_TRY(qx_emit_new(p));
    QX_TRY(each_pass(p, true, PHASE_PLAN, stats));
    return each_pass(p, false, PHASE_PLAN, stats);
}

/* ---- after --------------------------------------------------------------------------------------------------------------- */

static qx_status add_stage(qx_report *r, const char *name, double *since) { return r ? qx_report_add_stage(r, name, since) : QX_OK; }

/* Linear operators that stayed float say so, with the reason of the plan. Of a mixture's layers the first that has something to say. */
static qx_status explain_items(qx_pipeline *p)
{
    for (int64_t i = 0; i < p->plan->linears.count; i++) {
        const qx_plan_item *it = &p->plan->items[i];
        qx_decision *d = &p->decisions[it->lin->node->id];
        d->notes = d->notes ? d->notes : it->notes;
        d->rescaled |= it->rescaled;
        if (it->weight && !it->weight->job && qx_plan_first_reader(p->plan, i)) d->float_bytes += (int64_t)it->weight->tensor->bytes;
        if (it->why == QX_WHY_NONE || d->format || d->reason) continue;
        d->reason = it->detail ? qx_arena_printf(p->model->arena, "%s: %s", qx_why_text(it->why), it->detail) : qx_why_text(it->why);
        if (!d->reason) return QX_E_NOMEM;
    }
    return QX_OK;
}

static bool reads_first(const qx_node *n, const qx_value *v)
{
    for (const qx_use *u = v->uses; u; u = u->next)
        if (u->node->id < n->id && !(u->node->op->traits & QX_T_SHAPE_ONLY)) return false;
    return true;
}

/* Bytes of float constants that n reads, when they are large enough to be what a file's size is about: recurrences, mixtures in
 * one node, tables that are added. Not of those that linear operators read behind n (a Transpose): their items tell. */
static int64_t other_weights(const qx_node *n, const bool *of_linear)
{
    enum { LEAST = 16384 };
    int64_t bytes = 0;
    for (uint32_t i = 0; i < n->n_in && !(n->op->traits & (QX_T_QDQ | QX_T_QUANTIZED | QX_T_SHAPE_ONLY)); i++) {
        const qx_weight *w = n->in[i] && !of_linear[n->in[i]->id] ? qx_value_const(n->in[i]) : NULL;
        if (w && w->rank > 1 && qx_dtype_is_float(w->dtype) && w->bytes >= LEAST && reads_first(n, n->in[i])) bytes += (int64_t)w->bytes;
    }
    return bytes;
}

/* What holds weights and is no linear operator says that too: a file that hardly shrank has its reason there. */
static qx_status explain_rest(qx_pipeline *p, qx_decision *d, const bool *of_linear)
{
    if (d->format || d->reason) return QX_OK;
    d->float_bytes = other_weights(d->node, of_linear);
    d->reason = d->float_bytes ? qx_arena_printf(p->model->arena, "%s: %s", qx_why_text(QX_WHY_NO_FORMAT), d->op)
        : qx_why_text(QX_WHY_NOT_LINEAR);
    return d->reason ? QX_OK : QX_E_NOMEM;
}

static qx_status fill_report(qx_pipeline *p, qx_report *r)
{
    QX_TRY(explain_items(p));
    if (!r) return QX_OK;
    bool *of_linear = qx_arena_array(p->model->arena, (size_t)p->model->n_values + 1, sizeof *of_linear);
    if (!of_linear) return QX_E_NOMEM;
    for (int64_t i = 0; i < p->plan->n_weights; i++) of_linear[p->plan->weights[i].value->id] = true;
    for (uint32_t i = 0; i < p->n_decisions; i++) {
        qx_decision *d = &p->decisions[i];
        if (!d->node) continue;
        QX_TRY(explain_rest(p, d, of_linear));
        qx_report_node n = {d->name, d->op, d->graph, d->node->scope, d->pass ? d->pass->def->name : NULL, d->format,
                            d->format ? NULL : d->reason, d->notes, d->float_bytes, d->rescaled};
        QX_TRY(qx_report_add_node(r, &n));
    }
    r->n_quantized = p->n_quantized;
    r->pipeline = qx_arena_strdup(r->arena, p->text);
    return r->pipeline ? QX_OK : QX_E_NOMEM;
}

static bool any_double(const qx_pipeline *p)
{
    for (int64_t i = 0; i < p->plan->linears.count; i++)
        if (p->plan->linears.items[i].x->type.dtype == QX_DT_DOUBLE) return true;
    return false;
}

static qx_status find_integer(void *user, qx_node *n) { return n->op->traits & QX_T_QUANTIZED ? find_quantized(user, n) : QX_OK; }

/* Not a single one: integer operators, for one who allowed them, are told beside it. */
static qx_status nothing_linear(qx_pipeline *p)
{
    char already[200] = "";
    scan s = {0};
    QX_TRY(qx_model_each_node(p->model, find_integer, &s));
    if (s.first)
        (void)snprintf(already, sizeof already, "; %lld nodes such as '%.100s' (%.40s) are quantized already", (long long)s.count,
                       s.first->name, s.first->op_type);
    QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "no node was quantized: the model has no linear operator (MatMul, Gemm, Conv, Einsum ...)%s",
            already);
}

/* "12 few channels, 3 excluded" of the linear operators that stayed float. */
static qx_status nothing_done(qx_pipeline *p)
{
    int64_t counts[QX_WHY_COUNT_] = {0};
    char text[600] = "";
    size_t at = 0;
    if (!p->plan->linears.count) return nothing_linear(p);
    for (int64_t i = 0; i < p->plan->linears.count; i++) counts[p->plan->items[i].why]++;
    for (int w = 1; w < QX_WHY_COUNT_ && at + 100 < sizeof text; w++)
        if (counts[w])
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%lld %s", at ? ", " : "", (long long)counts[w], qx_why_text((qx_why)w));
    QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "no node was quantized: of %lld linear operators %.500s%s", (long long)p->plan->linears.count, text,
            counts[QX_WHY_NOT_FLOAT] && any_double(p) ? "; float64 becomes float32 by --float fp32 (pass fp32) in front" : "");
}

enum { CHECKPOINT_SECONDS = 10, PARKED_GRAM = 1 << 20 }; /* of smaller Gram matrices a file costs more than it saves */

static bool reached(const qx_stats *stats, const qx_value *v)
{
    const qx_value_stats *s = qx_stats_get(stats, v);
    return s && s->count > 0;
}

/* A weight in both branches of an If (decoders with and without a cache in one file): where no sample took the one branch, what
 * the weight meets in the other stands for it. */
static qx_status share_reached(qx_pipeline *p, qx_stats *stats)
{
    qx_plan_item *items = p->plan->items, **of;
    QX_TRY(qx_alloc_array(p->ctx, (size_t)p->plan->n_weights + 1, sizeof(qx_plan_item *), (void **)&of));
    for (int64_t i = 0; i < p->plan->linears.count; i++)
        if (items[i].weight && reached(stats, items[i].x_stat)) of[items[i].weight - p->plan->weights] = &items[i];
    qx_status st = QX_OK;
    for (int64_t i = 0; i < p->plan->linears.count && st == QX_OK; i++) {
        const qx_plan_item *other = items[i].weight ? of[items[i].weight - p->plan->weights] : NULL;
        if (!other || reached(stats, items[i].x_stat)) continue;
        st = qx_stats_alias(stats, other->x_stat, items[i].x_stat);
        const qx_value *rows = other->lin->rows;
        if (st == QX_OK && rows && items[i].lin->rows && rows != other->x_stat && reached(stats, rows))
            st = qx_stats_alias(stats, rows, items[i].lin->rows);
    }
    qx_free(p->ctx, of);
    return st;
}

/* Passes that run the model again find its weights packed, unless a memory limit says how little may lie beside what they search with. */
static bool outlives_sweep(const qx_pipeline *p, const qx_exec *exec)
{
    return qx_pipeline_probes(p) && !qx_ctx_max_memory(p->ctx) && strcmp(qx_exec_device_name(exec), "cpu") == 0;
}

static qx_status collect(qx_pipeline *p, qx_samples *samples, qx_stats *stats)
{
    qx_exec *exec;
    const char *first = NULL;
    int64_t lacking = !samples && p->opt->load_stats ? qx_stats_lacking(stats, &first) : 0;
    if (lacking)
        qx_warn(p->ctx, "--load-stats: '%s' lacks what these passes ask for of %lld values ('%s' and others); collect with these "
                        "passes, or give the samples too", p->opt->load_stats, (long long)lacking, first);
    if (!samples || p->no_stats) return QX_OK;
    qx_exec_options eo = p->opt->exec;
    eo.allow_fallback = true;
    eo.only_watched = true; /* a detector's or classifier's tail (ZipMap, a TensorRT plugin) need not run */
    QX_TRY(qx_exec_new(p->ctx, p->model, &eo, &exec));
    qx_status st = qx_stats_resumable(stats, p->opt->resume, CHECKPOINT_SECONDS);
    if (st == QX_OK) st = qx_stats_collect(stats, exec, samples);
    if (st == QX_E_UNSUPPORTED)
        st = qx_note(p->ctx, st, "calibration runs the model as far as the last operator that is quantized (--exclude what lies "
                                 "behind; --int4, --passes int8-weights and fp8-weights need no run)");
    if (st == QX_OK) st = share_reached(p, stats);
    if (st == QX_OK && p->report) p->report->device = qx_arena_strdup(p->report->arena, qx_exec_device_name(exec));
    if (st == QX_OK && outlives_sweep(p, exec)) p->exec = exec;
    else qx_exec_free(exec);
    return st;
}

bool qx_pipeline_probes(const qx_pipeline *p)
{
    for (int i = 0; i < p->n_passes; i++) {
        const qx_passdef *d = p->passes[i]->def;
        if (d->decide && (!d->probes || d->probes(p->passes[i]))) return true;
    }
    return false;
}

static bool chooses(const qx_pipeline *p)
{
    for (int i = 0; i < p->n_passes; i++)
        if (p->passes[i]->def->decide) return true;
    return false;
}

/* Formats, and then what is done before them, are chosen while the graph is still as it was read. */
static qx_status decide(qx_pipeline *p, qx_samples *samples, qx_stats *stats)
{
    p->samples = p->no_stats ? NULL : samples;
    /* the model runs again, with all its weights */
    qx_status st = p->samples && qx_pipeline_probes(p) ? qx_stats_park(stats, PARKED_GRAM) : QX_OK;
    (void)qx_mem_take_peak(p->ctx); /* of this stage from here on */
    if (st == QX_OK) st = each_pass(p, true, PHASE_DECIDE, stats);
    if (st == QX_OK) st = each_pass(p, false, PHASE_DECIDE, stats);
    p->samples = NULL;
    return st;
}

bool qx_pipeline_decides(const qx_pipeline *p)
{
    for (int i = 0; i < p->n_passes; i++)
        if (p->passes[i]->def->decide && (p->passes[i]->def->flags & QX_PASS_MIXES)) return true;
    return false;
}

static qx_status save_stats(const qx_pipeline *p, qx_stats *stats)
{
    return p->opt->save_stats && !p->opt->dry_run ? qx_stats_save(stats, p->opt->save_stats, p->opt->save_gram) : QX_OK;
}

/* Before any pass rescales them: what is kept belongs to the model as it was read. */
static qx_status keep_stats(qx_pipeline *p, qx_stats *stats)
{
    if (p->no_stats) return QX_OK;
    p->stats_hash = qx_stats_hash(stats);
    if (!p->stats_hash) return QX_E_NOMEM; /* of nothing at all it is not zero either */
    return save_stats(p, stats);
}

static qx_status run_all(qx_pipeline *p, qx_samples *samples, qx_stats *stats)
{
    QX_TRY(each_pass(p, false, PHASE_RUN, stats));
    QX_TRY(qx_sequence_run(p, samples, stats));
    QX_TRY(each_pass(p, true, PHASE_RUN, stats));
    QX_TRY(each_pass(p, false, PHASE_FINISH, stats));
    QX_TRY(qx_emit_biases(p));
    QX_TRY(qx_ort_products(p));
    QX_TRY(qx_ort_forms(p));
    QX_TRY(qx_plan_store_rest(p));
    if (has_format(p) && p->n_quantized == 0) return nothing_done(p);
    if (p->model->dirty) QX_TRY(qx_dead_code(p->model, NULL));
    return p->model->dirty ? qx_verify(p->model) : QX_OK;
}

/* All that needs the model as it was read. */
static qx_status look_and_choose(qx_pipeline *p, qx_samples *samples, qx_stats *stats, double *clock)
{
    QX_TRY(collect(p, samples, stats));
    if (samples) QX_TRY(add_stage(p->report, "calibrate", clock));
    QX_TRY(keep_stats(p, stats));
    const int64_t notes = qx_stats_notes(stats);
    const qx_status st = decide(p, samples, stats);
    if (!p->no_stats && qx_stats_notes(stats) > notes) QX_TRY(save_stats(p, stats)); /* also for who asked for a goal out of reach */
    QX_TRY(st);
    return chooses(p) ? add_stage(p->report, "choose", clock) : QX_OK;
}

qx_status qx_pipeline_run(qx_pipeline *p, qx_model *m, const qx_quantize_options *opt, qx_samples *samples, qx_stats *stats,
                          qx_report *report)
{
    double clock = qx_clock_seconds();
    p->report = report;
    p->have_data |= samples != NULL;
    QX_TRY(qx_pipeline_plan(p, m, opt, stats));
    const bool sweeps = samples || (p->no_stats && p->shapes); /* a dry run tells of the sweep that it leaves out */
    if (report) QX_TRY(qx_job_forecast(p, stats, sweeps, p->shapes && !p->opt->no_verify, report));
    QX_TRY(add_stage(report, "plan", &clock));
    const qx_status st = look_and_choose(p, samples, stats, &clock);
    qx_exec_free(p->exec);
    p->exec = NULL;
    QX_TRY(st);
    QX_TRY(run_all(p, samples, stats));
    QX_TRY(fill_report(p, report));
    return add_stage(report, "rewrite", &clock);
}
