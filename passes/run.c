/* run.c - a parsed pipeline on a model in memory: plan, one sweep, what is chosen by it, passes. What lies before is prepare.c, the record
 * of what happened to every node explain.c. */
#include <string.h>

#include "base/thread.h"
#include "passes/explain.h"
#include "passes/job/job.h"
#include "passes/place/emit.h"
#include "passes/prepare.h"
#include "passes/search/sequence.h"

static const qx_quantize_options no_options;

/* ---- before -------------------------------------------------------------------------------------------------------------- */

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
    QX_TRY(qx_prepare_refuse(p, m));
    QX_TRY(qx_prepare_formats(p));
    QX_TRY(qx_sequence_check(p));
    QX_TRY(qx_prepare_model(p, m));
    QX_TRY(qx_decisions_new(p, m));
    QX_TRY(rewrite(p, m));
    QX_TRY(qx_plan_new(p, m));
    QX_TRY(qx_emit_new(p));
    QX_TRY(each_pass(p, true, PHASE_PLAN, stats));
    return each_pass(p, false, PHASE_PLAN, stats);
}

/* ---- after --------------------------------------------------------------------------------------------------------------- */

static qx_status add_stage(qx_report *r, const char *name, double *since) { return r ? qx_report_add_stage(r, name, since) : QX_OK; }

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
    if (qx_pipeline_has_format(p) && p->n_quantized == 0) return qx_explain_nothing(p);
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
    QX_TRY(qx_job_fits_disk(p));
    QX_TRY(add_stage(report, "plan", &clock));
    const qx_status st = look_and_choose(p, samples, stats, &clock);
    qx_exec_free(p->exec);
    p->exec = NULL;
    QX_TRY(st);
    QX_TRY(run_all(p, samples, stats));
    QX_TRY(qx_explain(p, report));
    return add_stage(report, "rewrite", &clock);
}
