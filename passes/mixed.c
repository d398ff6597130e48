/* mixed.c - a format for every group of linear operators, so that the file fits a size (or the output a signal to noise) at the
 * least loss.
 *
 * Loss of a choice = sum over groups of effect(g) * error(g, format) / error(g, smallest format). error: relative squared error
 * of the group's outputs over sampled rows, no run of the model (mix_score.c). effect: what the smallest format of that one group
 * does to the model's output (KL of the logits, or noise), from one run a group (probe.h). The loss grows with the square of
 * small errors and adds up over independent ones, so the best choice for every size at once is a knapsack (knapsack.h) over the
 * bytes that will be written. */
#include <math.h>
#include <string.h>

#include "base/text.h"
#include "passes/search/mixed.h"

enum { MOST_TRIES = 5 };
static const int64_t meta_bytes = 4096;        /* what the file's metadata may take */

/* ---- plan -------------------------------------------------------------------------------------------------------------------- */

static qx_status want_rows(const qx_mix *m, qx_stats *stats)
{
    const qx_plan *plan = m->pass->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_linear *l = plan->items[i].lin;
        if (m->group[i] < 0 || !l->rows) continue;
        qx_stat_request r = {.value = l->rows, .kinds = QX_STAT_RANGE | QX_STAT_ROWS | (l->is_conv ? 0 : QX_STAT_CHANNELS),
                             .axis = qx_linear_axis(l), .window = qx_linear_window(l), .rows = 128};
        QX_TRY(qx_stats_want(stats, &r));
    }
    return QX_OK;
}

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    qx_mixed *x = qx_arena_alloc(m->arena, sizeof *x);
    if (!x) return QX_E_NOMEM;
    x->pass = p;
    p->state = x;
    QX_TRY(qx_mixed_goal_parse(p, &x->goal));
    QX_TRY(qx_mix_plan(p, qx_opt_text(p, "formats"), qx_opt_bool(p, "together"), stats, &x->mix));
    return want_rows(x->mix, stats);
}

/* ---- bytes -------------------------------------------------------------------------------------------------------------------- */

/* What other formats (--set) will make of weights that the mix does not have. */
static qx_status bytes_of_others(const qx_mixed *x, int64_t *change)
{
    const qx_plan *plan = x->pass->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        int64_t bytes;
        if (x->mix->group[i] >= 0 || !it->pass || !it->weight || !it->weight->spec.codes) continue;
        QX_TRY(qx_emit_bytes(x->pass->pipe, it, &it->weight->spec, x->mix->external, &bytes));
        *change += bytes - qx_write_tensor_bytes((int64_t)it->weight->tensor->bytes, x->mix->external);
    }
    return QX_OK;
}

static qx_status count_bytes(qx_mixed *x)
{
    const qx_mix *m = x->mix;
    x->input_bytes = m->input_bytes;
    x->fixed_bytes = x->input_bytes + meta_bytes;
    for (int64_t i = 0; i < x->pass->pipe->plan->linears.count; i++) {
        if (m->group[i] < 0 || !qx_mix_at(m, i, m->n)->bytes) continue;
        x->fixed_bytes -= qx_mix_at(m, i, m->n)->bytes;
        x->weights += x->pass->pipe->plan->items[i].weight->tensor->numel;
    }
    return bytes_of_others(x, &x->fixed_bytes);
}

/* ---- choosing ---------------------------------------------------------------------------------------------------------------- */

static bool has_kl(const qx_mixed *x)
{
    for (int64_t i = 0; i < x->mix->n_groups * (x->mix->n + 1); i++)
        if (isnan(x->kl[i])) return false;
    return x->probe != NULL;
}

static qx_status solve(qx_mixed *x)
{
    const qx_mix *m = x->mix;
    x->cost = x->goal.sqnr > 0 || !has_kl(x) ? x->noise : x->kl;
    for (int64_t g = 0; g < m->n_groups; g++) {
        bool any = false;
        for (int f = 0; f <= m->n; f++) {
            qx_choice *c = &x->choices[g * (m->n + 1) + f];
            c->allowed = qx_mix_allowed(m, g, f, &c->bytes) && (f < m->n || m->keep_float || !any);
            any = any || c->allowed;
            c->cost = x->cost[g * (m->n + 1) + f];
        }
    }
    QX_TRY(qx_knapsack_new(x->pass->ctx, x->choices, m->n_groups, m->n + 1, &x->sack));
    if (!qx_knapsack_exact(x->sack)) qx_log(x->pass->ctx, QX_LOG_INFO, "the frontier has more than %d points: thinned", QX_KNAPSACK_CAP);
    return QX_OK;
}

int64_t qx_mixed_bytes(const qx_mixed *x, int64_t i)
{
    int64_t bytes;
    double cost;
    qx_knapsack_point(x->sack, i, &bytes, &cost);
    return bytes + x->fixed_bytes;
}

double qx_mixed_cost(const qx_mixed *x, int64_t i)
{
    int64_t bytes;
    double cost;
    qx_knapsack_point(x->sack, i, &bytes, &cost);
    return cost;
}

static int64_t size_limit(const qx_mixed *x)
{
    if (x->goal.bytes) return x->goal.bytes;
    /* of the file as it was given, which a pass may have made smaller (--float fp16) */
    const qx_report *r = x->pass->pipe->report;
    if (x->goal.fraction > 0) return (int64_t)(x->goal.fraction * (double)(r && r->input_bytes > 0 ? r->input_bytes : x->input_bytes));
    return (int64_t)(x->goal.bits * (double)x->weights / 8) + x->fixed_bytes;
}

/* What to write when the formats do not go as low as was asked. */
static const char *lower_formats(const qx_mixed *x)
{
    for (int i = 0; i < x->mix->n; i++)
        if (strcmp(x->mix->formats[i]->def->name, "int2") == 0) return "";
    return qx_target_has(x->pass->pipe->opt->target, QX_TARGET_NO_TWO_BITS) ? "" : "; --formats \"int2,int4,int8\" goes lower";
}

static qx_status choose_by_size(qx_mixed *x, int64_t *at)
{
    const int64_t limit = size_limit(x), n = qx_knapsack_count(x->sack);
    char a[24], b[24];
    if (qx_mixed_bytes(x, 0) > limit)
        QX_FAIL(x->pass->ctx, QX_E_USAGE, "%s are asked for, the smallest that formats=%.200s give is %s (%.2f bits per weight of "
                                          "%lld weights; everything else takes %lld bytes)%s",
                qx_format_bytes(limit, a, sizeof a), x->mix->text, qx_format_bytes(qx_mixed_bytes(x, 0), b, sizeof b),
                8 * (double)(qx_mixed_bytes(x, 0) - x->fixed_bytes) / (double)x->weights, (long long)x->weights, (long long)x->fixed_bytes,
                lower_formats(x));
    for (*at = 0; *at + 1 < n && qx_mixed_bytes(x, *at + 1) <= limit;) ++*at;
    return QX_OK;
}

/* Runs the model with every group as point `at` has it. */
static qx_status measure_point(qx_mixed *x, int64_t at)
{
    const qx_mix *m = x->mix;
    uint8_t *pick = NULL;
    qx_probe_change *changes = NULL;
    int64_t n = 0;
    qx_status st;
    x->measured = (qx_probe_effect){NAN, NAN};
    if (!x->probe) return QX_OK;
    QX_TRY_GOTO(st, qx_alloc(x->pass->ctx, (size_t)m->n_groups + 1, (void **)&pick));
    QX_TRY_GOTO(st, qx_alloc_array(x->pass->ctx, (size_t)x->pass->pipe->plan->linears.count + 1, sizeof *changes, (void **)&changes));
    qx_knapsack_pick(x->sack, at, pick);
    for (int64_t g = 0; g < m->n_groups; g++) qx_mixed_changes(m, g, pick[g], changes, &n);
    st = qx_probe_run(x->probe, changes, n, &x->measured);
done:
    qx_free(x->pass->ctx, pick);
    qx_free(x->pass->ctx, changes);
    return st;
}

/* The smallest point whose measured noise meets the goal; predictions are corrected by what the last try showed. */
static qx_status choose_by_sqnr(qx_mixed *x, int64_t *at)
{
    const int64_t n = qx_knapsack_count(x->sack);
    const double most = pow(10, -x->goal.sqnr / 10);
    double correction = 1;
    for (int tries = 0; tries < MOST_TRIES; tries++) {
        for (*at = 0; *at + 1 < n && qx_mixed_cost(x, *at) * correction > most;) ++*at;
        QX_TRY(measure_point(x, *at));
        if (x->measured.noise <= most) return QX_OK;
        if (*at + 1 == n) break;
        correction = fmax(correction, 1.02 * x->measured.noise / fmax(qx_mixed_cost(x, *at), 1e-300));
    }
    *at = n - 1;
    QX_TRY(measure_point(x, *at));
    if (x->measured.noise <= most) return QX_OK;
    QX_FAIL(x->pass->ctx, QX_E_GATE, "%g dB are asked for, the best that formats=%.200s give is %.1f dB; add float or a finer format",
            x->goal.sqnr, x->mix->text, -10 * log10(x->measured.noise));
}

static void give(const qx_mixed *x, int64_t at, uint8_t *pick)
{
    qx_knapsack_pick(x->sack, at, pick);
    for (int64_t g = 0; g < x->mix->n_groups; g++) qx_mix_give_group(x->mix, g, pick[g]);
}

/* ---- decide, run ----------------------------------------------------------------------------------------------------------------- */

static qx_status make_tables(qx_mixed *x)
{
    const size_t n = (size_t)(x->mix->n_groups * (x->mix->n + 1)) + 1;
    qx_arena *arena = x->pass->pipe->model->arena;
    x->kl = qx_arena_array(arena, n, sizeof *x->kl);
    x->noise = qx_arena_array(arena, n, sizeof *x->noise);
    x->choices = qx_arena_array(arena, n, sizeof *x->choices);
    return x->kl && x->noise && x->choices ? QX_OK : QX_E_NOMEM;
}

static qx_status choose(qx_mixed *x, qx_stats *stats, uint8_t *pick)
{
    int64_t at;
    QX_TRY(qx_mixed_measure(x, stats));
    QX_TRY(solve(x));
    QX_TRY(x->goal.sqnr > 0 ? choose_by_sqnr(x, &at) : choose_by_size(x, &at));
    if (!(x->goal.sqnr > 0)) QX_TRY(measure_point(x, at));
    if (x->pass->pipe->report) QX_TRY(qx_mixed_report(x, at, pick));
    give(x, at, pick);
    return qx_mixed_note(x, pick);
}

static qx_status decide(qx_pass *p, qx_model *model, qx_stats *stats)
{
    qx_mixed *x = p->state;
    (void)model;
    if (!x->mix->n_groups) return QX_OK;
    QX_TRY(make_tables(x));
    QX_TRY(count_bytes(x));
    QX_TRY(qx_mix_score(x->mix, p->pipe->no_stats ? NULL : stats));
    uint8_t *pick = qx_arena_alloc(p->pipe->model->arena, (size_t)x->mix->n_groups + 1);
    if (!pick) return QX_E_NOMEM;
    const qx_status st = choose(x, stats, pick);
    qx_probe_free(x->probe);
    qx_knapsack_free(x->sack);
    x->probe = NULL;
    x->sack = NULL;
    return st;
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const qx_mixed *x = p->state;
    return qx_mix_run(x->mix, m, stats);
}

static const qx_option options[] = {
    {"size", QX_OPT_TEXT, "", 0, 0, NULL,
     "of the output: a share of the input (70%), bytes (300M) or bits per weight that may be quantized (4.5bpw)"},
    {"sqnr", QX_OPT_TEXT, "", 0, 0, NULL, "instead: decibels that the output shall have, measured on samples; the smallest such file"},
    {"formats", QX_OPT_TEXT, "int4(block=128)+int4+int8-weights+float", 0, 0, NULL,
     "to choose from, with '+' or ',' between; int8 and fp8 beside 4-bit formats mean weights alone"},
    {"score", QX_OPT_CHOICE, "auto", 0, 0, "auto|output|layer", "output: one run of the model a group says what its error does to "
                                                                "the output; layer: the group's own error; auto: output up to 2 "
                                                                "billion weights"},
    {"probes", QX_OPT_INT, "0", 0, 64, NULL, "samples that score=output runs for each group; 0: 4 for small models, 1 for others"},
    {"together", QX_OPT_BOOL, "false", 0, 1, NULL,
     "q, k and v get one format, gate and up too, for runtimes that join them; else each its own where only weights are rounded"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_mixed = {
    .name = "mixed", .brief = "the best format for each group of layers within a size, or for a quality", .options = options,
    .flags = QX_PASS_FORMAT | QX_PASS_CALIBRATED | QX_PASS_MIXES | QX_PASS_UNTIMED, .plan = plan, .decide = decide, .run = run,
    .doc = "Every layer, or group that must agree (experts of a layer; q/k/v and gate/up where inputs are rounded), gets one "
           "of `formats`. The loss of a choice is the sum over\n"
           "groups of effect * error: the error of the group's outputs over sampled rows, scaled by what the group's smallest "
           "format does to\n"
           "the model's output (KL of the logits; noise for other models), from one run each. The bytes are those of the file, "
           "and an exact knapsack finds\n"
           "the least loss for every size. --target-size, --target-sqnr and --formats are short for this pass. Heads take part too."};
