/* quantize.c - the whole job: read, plan, calibrate, rewrite, write, verify, report. A failure up to the writing leaves no
 * output; one behind it (of verification) leaves the whole file, and says so. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/thread.h"
#include "passes/job/find.h"
#include "passes/job/frontier.h"
#include "passes/job/hints.h"
#include "passes/job/job.h"
#include "passes/job/own_samples.h"
#include "passes/job/record.h"

typedef struct job {
    qx_ctx *ctx;
    const qx_quantize_options *opt;
    qx_report *report;
    qx_pipeline *pipe;
    qx_model *model;
    qx_samples *samples;          /* NULL: none */
    qx_samples_options so;        /* as opened: with what was found beside the model */
    qx_stats *stats;
    const char *output;
    bool found;                   /* samples were found, not given */
    bool made_up;                 /* calibrated on tokens that the job made up by itself */
    double clock;
} job;

static qx_status stage(job *j, const char *name) { return qx_report_add_stage(j->report, name, &j->clock); }

static const char *keep(job *j, const char *s) { return s ? qx_arena_strdup(j->report->arena, s) : NULL; }

static int64_t file_size(const char *path)
{
    struct stat st;
    return path && stat(path, &st) == 0 ? (int64_t)st.st_size : 0;
}

/* What the output is called after: the last format, without one the last pass. */
static const char *label_of(const qx_pipeline *p)
{
    int i = p->n_passes;
    while (i > 0 && !(p->passes[i - 1]->def->flags & QX_PASS_FORMAT)) i--;
    return p->passes[(i ? i : p->n_passes) - 1]->def->name;
}

static uint32_t flags_of(const job *j)
{
    uint32_t flags = 0;
    for (int i = 0; i < j->pipe->n_passes; i++)
        if (!j->pipe->passes[i]->optional) flags |= j->pipe->passes[i]->def->flags;
    return flags;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

static qx_status read_model(job *j)
{
    const qx_quantize_options *o = j->opt;
    qx_read_options ro = {.strict = o->strict, .fix_order = o->fix_order, .allow_symlinks = o->allow_symlinks,
                          .external_data_root = o->external_data_root, .missing_data_ok = o->dry_run};
    QX_TRY(qx_pipeline_parse(j->ctx, o->passes, &j->pipe));
    QX_TRY(qx_model_read(j->ctx, o->input, &ro, &j->model));
    if (o->n_dims) QX_TRY(qx_infer_shapes(j->model, o->dims, o->n_dims));
    j->report->input = keep(j, o->input);
    j->output = o->output ? o->output : qx_output_name(j->report->arena, o->input, label_of(j->pipe));
    if (!j->report->input || !j->output) return QX_E_NOMEM;
    j->report->output = keep(j, j->output);
    return stage(j, "read");
}

/* The files of --verify are looked at before any work is done. */
static qx_status check_verify(job *j)
{
    qx_samples *samples = NULL;
    qx_samples_options so = {.paths = j->opt->verify, .n_paths = j->opt->n_verify, .dims = j->opt->dims, .n_dims = j->opt->n_dims};
    if (!j->opt->n_verify || j->opt->no_verify || j->opt->dry_run) return QX_OK;
    QX_TRY(qx_samples_open(j->ctx, j->model, &so, &samples));
    qx_samples_close(samples);
    return QX_OK;
}

static bool has_source(const qx_samples_options *s) { return s->n_paths || s->text || s->random > 0; }

/* They may be another model's, and nobody asked for them. */
static qx_status leave_found_samples(job *j)
{
    qx_warn(j->ctx, "the samples beside the model are not used: %s", qx_ctx_error(j->ctx));
    qx_ctx_clear_error(j->ctx);
    qx_samples_close(j->samples);
    j->samples = NULL;
    j->so.n_paths = 0;
    j->found = false;
    return QX_OK;
}

static qx_status open_samples(job *j, bool needed)
{
    const char **found = NULL;
    j->so = j->opt->samples;
    j->so.hold_out = !j->opt->no_verify && !j->opt->n_verify;
    if (!has_source(&j->so)) {
        QX_TRY(qx_find_samples(j->ctx, j->report->arena, j->opt->input, &found, &j->so.n_paths));
        j->so.paths = found;
        j->found = j->so.n_paths > 0;
    }
    if (!has_source(&j->so)) return QX_OK;
    if (j->so.text && !j->so.tokenizer) QX_TRY(qx_find_tokenizer(j->report->arena, j->opt->input, &j->so.tokenizer));
    qx_status st = qx_samples_open(j->ctx, j->model, &j->so, &j->samples);
    if (st != QX_OK && st != QX_E_NOMEM && st != QX_E_CANCELLED && j->found && !needed) return leave_found_samples(j);
    if (st != QX_OK) return st;
    if (!j->so.seq_len && !j->opt->dry_run) QX_TRY(qx_samples_fit(j->samples, &j->opt->exec, &j->so.seq_len));
    j->report->samples = keep(j, qx_samples_describe(j->samples));
    return QX_OK;
}

/* QX_E_UNSUPPORTED, with the reason in the context: the executor lacks an operator of the model. */
static qx_status can_run(job *j)
{
    qx_exec *exec = NULL;
    qx_exec_options eo = j->opt->exec;
    eo.allow_fallback = true;
    qx_status st = qx_exec_new(j->ctx, j->model, &eo, &exec);
    qx_exec_free(exec);
    return st;
}

/* A pipeline that can do without samples does so when the model cannot be run: said, not an error. */
static qx_status drop_unusable_samples(job *j)
{
    if (!j->pipe->have_data || !j->samples) return QX_OK;
    qx_status st = can_run(j);
    if (st != QX_E_UNSUPPORTED) return st;
    qx_warn(j->ctx, "the samples are not used: %s", qx_ctx_error(j->ctx));
    qx_ctx_clear_error(j->ctx);
    j->pipe->have_data = false;
    return QX_OK;
}

static bool gains_from_samples(const qx_pipeline *p)
{
    for (int i = 0; i < p->n_passes; i++)
        if (p->passes[i]->optional) return true;
    return false;
}

/* What was found beside the model goes on to verify. */
static qx_status make_up_samples(job *j)
{
    qx_samples *made = NULL;
    qx_samples_options so = j->opt->samples;
    so.hold_out = !j->found && !j->opt->no_verify && !j->opt->n_verify;
    QX_TRY(qx_made_up_open(j->ctx, j->model, j->opt->dry_run ? NULL : &j->opt->exec, &so, &made));
    if (!made) return QX_OK;
    if (!j->found) j->so = so;
    qx_samples_close(j->samples);
    j->samples = made;
    j->made_up = true;
    const char *text = qx_samples_describe(made);
    j->report->samples = !j->found || j->opt->no_verify ? keep(j, text)
                                                        : qx_arena_printf(j->report->arena, "%s; verified on %s", text, j->report->samples);
    return j->report->samples ? QX_OK : QX_E_NOMEM;
}

/* For passes that gain from samples and can do without. */
static qx_status take_own_samples(job *j, bool *taken)
{
    qx_own_samples own;
    *taken = false;
    if (!gains_from_samples(j->pipe) || j->opt->load_stats) return QX_OK;
    QX_TRY(qx_own_samples_choose(j->model, j->samples, &own));
    if (own == QX_OWN_NONE) return QX_OK;
    const qx_status st = can_run(j);
    if (st == QX_E_NOMEM || st == QX_E_CANCELLED) return st;
    if (st != QX_OK) return qx_ctx_clear_error(j->ctx), QX_OK;
    if (own == QX_OWN_MADE_UP) QX_TRY(make_up_samples(j));
    *taken = j->made_up || own == QX_OWN_FOUND;
    return QX_OK;
}

/* Samples and statistics, when the pipeline needs them or can use them. */
static qx_status prepare(job *j)
{
    bool needed = (flags_of(j) & QX_PASS_CALIBRATED) != 0;
    QX_TRY(qx_stats_new(j->ctx, qx_pipeline_stats_key(j->pipe, j->model), &j->stats));
    if (j->opt->load_stats) QX_TRY(qx_stats_load(j->stats, j->opt->load_stats));
    bool given = has_source(&j->opt->samples), own = false;
    /* a dry run tells of verification too */
    bool wanted = needed || given || !j->opt->no_verify || gains_from_samples(j->pipe);
    if (strcmp(label_of(j->pipe), "none") == 0) return QX_OK;
    if (wanted) QX_TRY(open_samples(j, needed));
    if (!needed && !given) QX_TRY(take_own_samples(j, &own));
    bool verify_only = !needed && !given && !own;
    if (verify_only && j->report->samples)
        j->report->samples = qx_arena_printf(j->report->arena, "%s; they only verify", j->report->samples);
    j->pipe->shapes = j->samples;
    if (needed && !j->samples && !j->opt->load_stats) {
        if (!j->opt->dry_run) return qx_no_samples(j->ctx, j->model);
        j->pipe->no_stats = true;
    }
    j->pipe->have_data = !verify_only && (j->samples != NULL || j->opt->load_stats);
    /* a plan is made without the sweep, of passes that can do without samples too, unless its formats hang on it */
    if (j->opt->dry_run && (needed || j->pipe->have_data) && !j->opt->load_stats && !(j->samples && qx_pipeline_decides(j->pipe)))
        j->pipe->no_stats = true;
    return needed || j->opt->load_stats ? QX_OK : drop_unusable_samples(j);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

static qx_status set_meta(job *j, const char *key, const char *value)
{
    return value && *value ? qx_model_set_meta(j->model, key, value) : QX_OK;
}

static qx_status put_options(job *j)
{
    qx_buf b = QX_BUF_INIT(j->ctx);
    qx_quantize_options o = *j->opt;
    if (j->made_up) o.samples.random = QX_MADE_UP_SAMPLES; /* --like makes them up again */
    qx_status st = qx_record_options(j->ctx, &o, &b);
    if (st == QX_OK) st = set_meta(j, "qonnx.options", b.data);
    qx_buf_free(&b);
    return st;
}

/* Less what the report says of verification. */
static const char *calibrated_on(const job *j)
{
    return !j->pipe->have_data ? NULL : j->made_up ? qx_samples_describe(j->samples) : j->report->samples;
}

/* What --like would have wanted, beside what is. */
static void compare_record(job *j)
{
    char source[20], stats[20];
    if (!j->opt->like) return;
    snprintf(source, sizeof source, "%016llx", (unsigned long long)j->model->graph_hash);
    snprintf(stats, sizeof stats, "%016llx", (unsigned long long)j->pipe->stats_hash);
    qx_record_compare(j->ctx, j->opt->like, source, j->pipe->have_data ? stats : NULL, calibrated_on(j));
}

static qx_status put_metadata(job *j)
{
    char hash[20], seed[24];
    if (!j->model->dirty) return QX_OK;
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)j->model->graph_hash);
    QX_TRY(set_meta(j, "qonnx.version", QONNX_VERSION));
    QX_TRY(set_meta(j, "qonnx.passes", qx_pipeline_text(j->pipe)));
    QX_TRY(set_meta(j, "qonnx.target", qx_target_name(j->opt->target)));
    QX_TRY(set_meta(j, "qonnx.source", hash));
    QX_TRY(put_options(j));
    if (j->pipe->have_data) {
        QX_TRY(set_meta(j, "qonnx.samples", calibrated_on(j)));
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)j->pipe->stats_hash);
        QX_TRY(set_meta(j, "qonnx.stats", hash));
    }
    if (j->so.random > 0 || j->made_up) {
        snprintf(seed, sizeof seed, "%llu", (unsigned long long)j->opt->samples.seed);
        QX_TRY(set_meta(j, "qonnx.seed", seed));
    }
    return QX_OK;
}

/* What writing has measured of each weight. */
static void note_errors(job *j)
{
    const qx_plan *plan = j->pipe->plan;
    for (int64_t i = 0; plan && i < plan->n_weights; i++)
        if (plan->weights[i].report_row >= 0) j->report->tensors[plan->weights[i].report_row].sqnr = qx_job_sqnr(plan->weights[i].job);
}

static qx_status write_model(job *j)
{
    qx_write_options wo = {.external_data = j->opt->external_data, .force = j->opt->force};
    qx_write_result res = {0};
    compare_record(j);
    QX_TRY(put_metadata(j));
    QX_TRY(j->opt->dry_run ? qx_model_write_size(j->model, &wo, &res) : qx_model_write(j->model, j->output, &wo, &res));
    note_errors(j);
    j->report->output_bytes = res.model_bytes + res.data_bytes;
    j->report->data_path = !res.data_bytes ? NULL : j->opt->dry_run ? qx_arena_printf(j->report->arena, "%s.data", j->output)
        : keep(j, res.data_path);
    return stage(j, j->opt->dry_run ? "size" : "write");
}

/* ---- verification ------------------------------------------------------------------------------------------------------- */

/* both models run on each: a sixteenth of the samples is an eighth of the sweep */
enum { MOST_VERIFIED = 8, LEAST_VERIFIED = 2, VERIFIED_SHARE = 16 };

/* Which samples: --verify's own, else those that calibration did not see, else (said) the ones it saw. */
static qx_status choose_verification(job *j, qx_verification *v)
{
    qx_samples_options so = {.paths = j->opt->verify, .n_paths = j->opt->n_verify, .dims = j->opt->dims, .n_dims = j->opt->n_dims};
    if (j->opt->n_verify) {
        QX_TRY(qx_samples_open(j->ctx, v->before, &so, &v->samples));
        v->count = qx_samples_count(v->samples);
    } else {
        QX_TRY(qx_samples_open(j->ctx, v->before, &j->so, &v->samples));
        const int64_t n = qx_samples_count(v->samples), held_out = qx_samples_held_out(v->samples), share = n / VERIFIED_SHARE,
            most = share < LEAST_VERIFIED ? LEAST_VERIFIED : share;
        v->first = n;
        v->count = held_out < most ? held_out : most;
        if (!v->count) {
            v->count = n;
            v->first = 0;
            if (j->pipe->have_data && !(j->made_up && j->found))
                j->report->verify_note = "no samples were held out: verified on samples that calibration saw";
        }
    }
    if (v->count > MOST_VERIFIED) v->count = MOST_VERIFIED;
    return QX_OK;
}

static qx_status verify_models(job *j, qx_model *before, qx_model *after)
{
    qx_verification v = {.before = before, .after = after, .exec = j->opt->exec};
    v.exec.allow_fallback = true;
    v.exec.tell_device = false; /* calibration has told */
    v.exec.only_watched = true;
    qx_status st = choose_verification(j, &v);
    if (st == QX_OK) st = qx_verify_run(j->ctx, &v, j->report);
    qx_samples_close(v.samples);
    return st;
}

/* What the executor cannot run was still written: not measured, and said so. Samples that were given for it are another matter. */
static qx_status verify_unsupported(job *j, qx_status st)
{
    if (st != QX_E_UNSUPPORTED || j->opt->n_verify) return st;
    j->report->verify_note = qx_arena_printf(j->report->arena, "not verified: %s", qx_ctx_error(j->ctx));
    qx_ctx_clear_error(j->ctx);
    return j->report->verify_note ? QX_OK : QX_E_NOMEM;
}

/* Both models are read from their files, so that what was written is what is measured. */
static qx_status verify(job *j)
{
    qx_model *before = NULL, *after = NULL;
    const qx_quantize_options *o = j->opt;
    qx_read_options ro = {.fix_order = o->fix_order, .allow_symlinks = o->allow_symlinks, .external_data_root = o->external_data_root};
    if (o->no_verify || o->dry_run || !j->model->dirty) {
        j->report->verify_note = o->no_verify ? "not verified: --no-verify" : NULL;
        return QX_OK;
    }
    if (!j->samples && !o->n_verify) { j->report->verify_note = "not verified: no samples (--verify FILE.npz)"; return QX_OK; }
    qx_status st = qx_model_read(j->ctx, o->input, &ro, &before);
    if (st == QX_OK && o->n_dims) st = qx_infer_shapes(before, o->dims, o->n_dims);
    if (st == QX_OK) st = qx_model_read(j->ctx, j->output, NULL, &after);
    if (st == QX_OK) st = verify_unsupported(j, verify_models(j, before, after));
    qx_model_free(before);
    qx_model_free(after);
    return st == QX_OK ? stage(j, "verify") : st;
}

static qx_status gate(job *j)
{
    const qx_quantize_options *o = j->opt;
    if (!o->has_min_sqnr || o->dry_run) return QX_OK;
    int64_t measured = 0;
    for (int64_t i = 0; i < j->report->n_outputs; i++) {
        const qx_report_output *out = &j->report->outputs[i];
        if (!isnan(out->equal)) continue;
        measured++;
        if (!(out->sqnr_db >= o->min_sqnr))
            QX_FAIL(j->ctx, QX_E_GATE, "output '%s' has %.2f dB, --min-sqnr asks for %.2f dB", out->name, out->sqnr_db, o->min_sqnr);
    }
    if (!measured)
        QX_FAIL(j->ctx, QX_E_GATE, "--min-sqnr %g: nothing was measured (%s)", o->min_sqnr,
                j->report->verify_note ? j->report->verify_note : "no float outputs");
    return QX_OK;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------------ */

/* Found out before the work, not behind it. */
static qx_status check_outputs(const job *j)
{
    const qx_quantize_options *o = j->opt;
    const char *const kept[] = {o->input, j->output}, *const others[] = {o->save_stats, o->frontier, o->resume};
    struct stat st;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i]) QX_TRY(qx_out_check(j->ctx, others[i], kept, 2));
    if (o->dry_run) return QX_OK;
    QX_TRY(qx_out_check(j->ctx, j->output, kept, 1));
    const int64_t room = qx_out_room(j->output);
    j->pipe->disk_room = room < 0 ? 0 : room + 1;
    if (o->force || stat(j->output, &st) != 0) return QX_OK;
    QX_FAIL(j->ctx, QX_E_USAGE, "'%s' is there already (--force replaces it)", j->output);
}

static qx_status run_job(job *j)
{
    QX_TRY(read_model(j));
    if (j->opt->frontier && !qx_pipeline_decides(j->pipe))
        QX_FAIL(j->ctx, QX_E_USAGE, "frontier '%s': no pass chooses among formats; ask for --target-size or --target-sqnr",
                j->opt->frontier);
    QX_TRY(check_outputs(j));
    j->report->input_bytes = file_size(j->opt->input) + qx_model_external_bytes(j->model);
    QX_TRY(check_verify(j));
    QX_TRY(prepare(j));
    /* Samples that merely lie beside the model do not fill the gaps of statistics that the user named: they may be of another kind. */
    bool use = j->pipe->have_data && j->samples && !j->pipe->no_stats && !(j->found && j->opt->load_stats);
    QX_TRY(qx_pipeline_run(j->pipe, j->model, j->opt, use ? j->samples : NULL, j->stats, j->report));
    j->clock = qx_clock_seconds();
    QX_TRY(qx_arena_status(j->model->arena)); /* names and shapes that were kept without looking */
    QX_TRY(qx_arena_status(j->report->arena));
    QX_TRY(write_model(j));
    if (j->opt->frontier) QX_TRY(qx_frontier_png(j->report, j->opt->frontier));
    qx_stats_free(j->stats); /* rows and Gram matrices: verification needs the memory for two models */
    j->stats = NULL;
    (void)qx_mem_take_peak(j->ctx); /* of the next stage from here on */
    const qx_status verified = verify(j);
    if (verified != QX_OK) return qx_note(j->ctx, verified, "'%s' is written and whole, but not verified", j->output);
    QX_TRY(qx_hints_add(j->report, j->model, j->pipe, j->opt, j->samples));
    return qx_arena_status(j->report->arena);
}

static void fill_resources(job *j)
{
    j->report->peak_rss = (int64_t)qx_process_peak();
    j->report->peak_bytes = qx_mem_peak(j->ctx);
    j->report->warnings = qx_ctx_warnings(j->ctx);
}

qx_status qx_quantize_file(qx_ctx *ctx, const qx_quantize_options *opt, qx_report *report)
{
    job j = {.ctx = ctx, .opt = opt, .report = report, .clock = qx_clock_seconds()};
    qx_status st = run_job(&j);
    fill_resources(&j);
    if (st == QX_OK) st = gate(&j);
    qx_samples_close(j.samples);
    qx_stats_free(j.stats);
    qx_pipeline_free(j.pipe);
    qx_model_free(j.model);
    return st;
}
