/* mixed.c - a format for every group of linear operators, so that the file fits a size (or the output a signal to noise) at the
 * least loss.
 *
 * Loss of a choice = sum over groups of effect(g) * error(g, format) / error(g, smallest format). error: relative squared error
 * of the group's outputs over sampled rows, no run of the model (mix_score.c). effect: what the smallest format of that one group
 * does to the model's output (KL of the logits, or noise), from one run a group (probe.h). The loss grows with the square of
 * small errors and adds up over independent ones, so the best choice for every size at once is a knapsack (knapsack.h) over the
 * bytes that will be written. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/text.h"
#include "passes/search/knapsack.h"
#include "passes/search/mix.h"
#include "passes/search/probe.h"

enum { TABLE_ROWS = 12, PICTURE_POINTS = 400, MOST_TRIES = 5 };
static const int64_t meta_bytes = 4096;        /* what the file's metadata may take */

/* What was asked for; one of them. */
typedef struct goal { double fraction; int64_t bytes; double bits; double sqnr; } goal;

typedef struct mixed {
    qx_pass *pass;
    qx_mix *mix;
    goal goal;
    qx_probe *probe;       /* while decide() runs; NULL: layers alone */
    int64_t weights;       /* elements of all candidates */
    int64_t input_bytes;   /* the model as it is */
    int64_t fixed_bytes;   /* everything that no choice changes */
    double *kl, *noise;    /* [groups][n + 1] predicted effect of each choice by itself; kl NaN without logits */
    double *cost;          /* one of them */
    qx_choice *choices;    /* [groups][n + 1] */
    qx_knapsack *sack;
    qx_probe_effect measured; /* of the choice that was made; NaN: not measured */
} mixed;

/* ---- what is asked for ---------------------------------------------------------------------------------------------------- */

static qx_status bad_size(const qx_pass *p, const char *text)
{
    QX_FAIL(p->ctx, QX_E_USAGE, "mixed(size=%.40s): write a share of the input (70%%), bytes (300M, 1.2G) or bits per weight (4.5bpw)",
            text);
}

static qx_status parse_number(const qx_pass *p, const char *text, size_t len, double *out)
{
    char copy[40];
    if (len >= sizeof copy) return bad_size(p, text);
    memcpy(copy, text, len);
    copy[len] = 0;
    return qx_parse_f64(p->ctx, copy, out) == QX_OK && *out > 0 ? QX_OK : bad_size(p, text);
}

/* "300M", "1.2G", "64KiB". No model has a hundred bytes: who writes 40 means 40%. */
static qx_status parse_bytes(const qx_pass *p, const char *text, int64_t *out)
{
    return qx_parse_size(p->ctx, text, out) == QX_OK && *out > 100 ? QX_OK : bad_size(p, text);
}

static qx_status parse_goal(const qx_pass *p, goal *g)
{
    const char *size = qx_opt_text(p, "size"), *sqnr = qx_opt_text(p, "sqnr");
    const size_t n = strlen(size);
    *g = (goal){0};
    if ((*size != 0) == (*sqnr != 0))
        QX_FAIL(p->ctx, QX_E_USAGE, "mixed needs one goal: size=70%% (or 300M, 4.5bpw) or sqnr=35 (decibels of the output)");
    if (*sqnr) {
        if (qx_parse_f64(p->ctx, sqnr, &g->sqnr) != QX_OK || !(g->sqnr > 0 && g->sqnr < 200))
            QX_FAIL(p->ctx, QX_E_USAGE, "mixed(sqnr=%.40s): write decibels between 0 and 200", sqnr);
        return QX_OK;
    }
    if (size[n - 1] == '%') {
        QX_TRY(parse_number(p, size, n - 1, &g->fraction));
        g->fraction /= 100;
        return g->fraction <= 1 ? QX_OK : bad_size(p, size);
    }
    if (n > 3 && strcmp(size + n - 3, "bpw") == 0) return parse_number(p, size, n - 3, &g->bits);
    return parse_bytes(p, size, &g->bytes);
}

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
    mixed *x = qx_arena_alloc(m->arena, sizeof *x);
    if (!x) return QX_E_NOMEM;
    x->pass = p;
    p->state = x;
    QX_TRY(parse_goal(p, &x->goal));
    QX_TRY(qx_mix_plan(p, qx_opt_text(p, "formats"), stats, &x->mix));
    return want_rows(x->mix, stats);
}

/* ---- bytes -------------------------------------------------------------------------------------------------------------------- */

/* What other formats (--set) will make of weights that the mix does not have. */
static qx_status bytes_of_others(const mixed *x, int64_t *change)
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

static qx_status count_bytes(mixed *x)
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

/* ---- effect ------------------------------------------------------------------------------------------------------------------ */

/* Sum of the members' relative errors. */
static double group_error(const qx_mix *m, int64_t g, int format)
{
    double sum = 0;
    for (int64_t i = 0; i < m->pass->pipe->plan->linears.count; i++)
        if (m->group[i] == g) sum += qx_mix_at(m, i, format)->error;
    return sum;
}

static int smallest_format(const qx_mix *m, int64_t g)
{
    int best = m->n;
    int64_t least = INT64_MAX, bytes;
    for (int f = 0; f < m->n; f++)
        if (qx_mix_allowed(m, g, f, &bytes) && bytes < least) best = f, least = bytes;
    return best;
}

static void add_changes(const qx_mix *m, int64_t g, int format, qx_probe_change *out, int64_t *n)
{
    for (int64_t i = 0; i < m->pass->pipe->plan->linears.count && format < m->n; i++) {
        const qx_mix_cell *c = qx_mix_at(m, i, format);
        if (m->group[i] == g)
            out[(*n)++] = (qx_probe_change){.item = i, .spec = &c->spec, .x = {.act = c->act, .scale = c->act_scale}, .error = c->error};
    }
}

/* How many samples each group is measured on; 0: none. */
static int64_t probe_count(const mixed *x)
{
    const char *score = qx_opt_text(x->pass, "score");
    const int64_t asked = qx_opt_int(x->pass, "probes");
    const int64_t usual = qx_probe_samples(x->weights);
    if (!x->pass->pipe->samples || !strcmp(score, "layer") || (!strcmp(score, "auto") && !usual)) return 0;
    return asked ? asked : usual ? usual : 1;
}

/* Of what a run measures the effect: these operators rounded so, on these samples (whose statistics have the hash). */
static qx_status name_changes(const mixed *x, const qx_probe_change *changes, int64_t n, char key[33])
{
    const qx_plan_item *items = x->pass->pipe->plan->items;
    qx_buf b = QX_BUF_INIT(x->pass->ctx);
    qx_status st = qx_buf_printf(&b, "%016llx %lld", (unsigned long long)x->pass->pipe->stats_hash, (long long)probe_count(x));
    for (int64_t i = 0; i < n && st == QX_OK; i++) {
        const qx_qspec *s = changes[i].spec;
        st = qx_buf_printf(&b, ";%s %d %d %lld %d %d %d %d %d %.9g", items[changes[i].item].lin->node->name, s->codes, s->scale,
                           (long long)s->block, s->zero_point, s->narrow, s->allow_negative_scale, s->rule, changes[i].x.act,
                           (double)changes[i].x.scale);
    }
    if (st == QX_OK) qx_hash128_hex(b.data, b.len, key);
    qx_buf_free(&b);
    return st;
}

/* One run, unless statistics from an earlier job say what it gave. */
static qx_status measure_group(mixed *x, int64_t g, int format, qx_stats *stats, qx_probe_change *changes, qx_probe_effect *out)
{
    int64_t n = 0;
    char key[33];
    *out = (qx_probe_effect){.kl = NAN, .noise = group_error(x->mix, g, format)};
    if (!x->probe) return QX_OK;
    add_changes(x->mix, g, format, changes, &n);
    QX_TRY(name_changes(x, changes, n, key));
    if (qx_stats_noted(stats, key, &out->kl, &out->noise)) return QX_OK;
    QX_TRY(qx_probe_run(x->probe, changes, n, out));
    return qx_stats_note(stats, key, out->kl, out->noise);
}

static void fill_group(mixed *x, int64_t g, int base, const qx_probe_effect *e)
{
    const qx_mix *m = x->mix;
    const double error = group_error(m, g, base);
    for (int f = 0; f <= m->n; f++) {
        const int64_t at = g * (m->n + 1) + f;
        const double share = f == m->n || !(error > 0) ? 0 : group_error(m, g, f) / error;
        x->kl[at] = share * fmax(e->kl, 0) + (isnan(e->kl) ? NAN : 0);
        x->noise[at] = share * e->noise;
    }
}

static qx_status measure(mixed *x, qx_stats *stats)
{
    const qx_mix *m = x->mix;
    qx_probe_change *changes;
    QX_TRY(qx_alloc_array(x->pass->ctx, (size_t)x->pass->pipe->plan->linears.count + 1, sizeof *changes, (void **)&changes));
    qx_status st = QX_OK;
    for (int64_t g = 0; g < m->n_groups && st == QX_OK; g++) {
        const int base = smallest_format(m, g);
        qx_probe_effect e = {.kl = x->probe ? 0 : NAN};
        qx_progress(x->pass->ctx, "effect on the output", g, m->n_groups);
        if (base < m->n) st = measure_group(x, g, base, stats, changes, &e);
        if (st == QX_OK) fill_group(x, g, base, &e);
    }
    qx_progress(x->pass->ctx, "effect on the output", m->n_groups, m->n_groups);
    qx_free(x->pass->ctx, changes);
    return st;
}

/* Groups are measured alone: what lies before them need not run each time. */
static qx_status new_probe(mixed *x, const qx_stats *stats, int64_t count)
{
    enum { BEGINS = 16 };
    const qx_linears *all = &x->pass->pipe->plan->linears;
    const qx_value *begins[BEGINS];
    const int n = all->count < BEGINS ? (int)all->count : BEGINS;
    for (int i = 0; i < n; i++) begins[i] = all->items[i * all->count / n].x;
    return qx_probe_new(x->pass->pipe, stats, &(qx_probe_runs){count, false, begins, n}, &x->probe);
}

static qx_status open_probe(mixed *x, qx_stats *stats)
{
    const int64_t count = probe_count(x);
    if (count) return new_probe(x, stats, count);
    if (x->goal.sqnr > 0)
        QX_FAIL(x->pass->ctx, QX_E_USAGE, "mixed(sqnr=%g) measures the output and needs samples and score=output", x->goal.sqnr);
    if (!strcmp(qx_opt_text(x->pass, "score"), "output"))
        QX_FAIL(x->pass->ctx, QX_E_USAGE, "mixed(score=output) runs the model and needs samples, not only statistics");
    qx_log(x->pass->ctx, QX_LOG_INFO, "formats are chosen by each layer's own error: %s",
           x->pass->pipe->samples ? "score=layer, or a model too large for score=auto" : "there are no samples to run");
    return QX_OK;
}

/* ---- choosing ---------------------------------------------------------------------------------------------------------------- */

static bool has_kl(const mixed *x)
{
    for (int64_t i = 0; i < x->mix->n_groups * (x->mix->n + 1); i++)
        if (isnan(x->kl[i])) return false;
    return x->probe != NULL;
}

static qx_status solve(mixed *x)
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

static int64_t bytes_at(const mixed *x, int64_t i)
{
    int64_t bytes;
    double cost;
    qx_knapsack_point(x->sack, i, &bytes, &cost);
    return bytes + x->fixed_bytes;
}

static double cost_at(const mixed *x, int64_t i)
{
    int64_t bytes;
    double cost;
    qx_knapsack_point(x->sack, i, &bytes, &cost);
    return cost;
}

static int64_t size_limit(const mixed *x)
{
    if (x->goal.bytes) return x->goal.bytes;
    /* of the file as it was given, which a pass may have made smaller (--float fp16) */
    const qx_report *r = x->pass->pipe->report;
    if (x->goal.fraction > 0) return (int64_t)(x->goal.fraction * (double)(r && r->input_bytes > 0 ? r->input_bytes : x->input_bytes));
    return (int64_t)(x->goal.bits * (double)x->weights / 8) + x->fixed_bytes;
}

/* What to write when the formats do not go as low as was asked. */
static const char *lower_formats(const mixed *x)
{
    for (int i = 0; i < x->mix->n; i++)
        if (strcmp(x->mix->formats[i]->def->name, "int2") == 0) return "";
    return qx_target_has(x->pass->pipe->opt->target, QX_TARGET_NO_TWO_BITS) ? "" : "; --formats \"int2,int4,int8\" goes lower";
}

static qx_status choose_by_size(mixed *x, int64_t *at)
{
    const int64_t limit = size_limit(x), n = qx_knapsack_count(x->sack);
    char a[24], b[24];
    if (bytes_at(x, 0) > limit)
        QX_FAIL(x->pass->ctx, QX_E_USAGE, "%s are asked for, the smallest that formats=%.200s give is %s (%.2f bits per weight of "
                                          "%lld weights; everything else takes %lld bytes)%s",
                qx_format_bytes(limit, a, sizeof a), x->mix->text, qx_format_bytes(bytes_at(x, 0), b, sizeof b),
                8 * (double)(bytes_at(x, 0) - x->fixed_bytes) / (double)x->weights, (long long)x->weights, (long long)x->fixed_bytes,
                lower_formats(x));
    for (*at = 0; *at + 1 < n && bytes_at(x, *at + 1) <= limit;) ++*at;
    return QX_OK;
}

/* Runs the model with every group as point `at` has it. */
static qx_status measure_point(mixed *x, int64_t at)
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
    for (int64_t g = 0; g < m->n_groups; g++) add_changes(m, g, pick[g], changes, &n);
    st = qx_probe_run(x->probe, changes, n, &x->measured);
done:
    qx_free(x->pass->ctx, pick);
    qx_free(x->pass->ctx, changes);
    return st;
}

/* The smallest point whose measured noise meets the goal; predictions are corrected by what the last try showed. */
static qx_status choose_by_sqnr(mixed *x, int64_t *at)
{
    const int64_t n = qx_knapsack_count(x->sack);
    const double most = pow(10, -x->goal.sqnr / 10);
    double correction = 1;
    for (int tries = 0; tries < MOST_TRIES; tries++) {
        for (*at = 0; *at + 1 < n && cost_at(x, *at) * correction > most;) ++*at;
        QX_TRY(measure_point(x, *at));
        if (x->measured.noise <= most) return QX_OK;
        if (*at + 1 == n) break;
        correction = fmax(correction, 1.02 * x->measured.noise / fmax(cost_at(x, *at), 1e-300));
    }
    *at = n - 1;
    QX_TRY(measure_point(x, *at));
    if (x->measured.noise <= most) return QX_OK;
    QX_FAIL(x->pass->ctx, QX_E_GATE, "%g dB are asked for, the best that formats=%.200s give is %.1f dB; add float or a finer format",
            x->goal.sqnr, x->mix->text, -10 * log10(x->measured.noise));
}

static void give(const mixed *x, int64_t at, uint8_t *pick)
{
    qx_knapsack_pick(x->sack, at, pick);
    for (int64_t g = 0; g < x->mix->n_groups; g++) qx_mix_give_group(x->mix, g, pick[g]);
}

/* ---- report ------------------------------------------------------------------------------------------------------------------- */

/* "int4 96, int8-weights 25, float 2": operators by format. */
static const char *describe(const mixed *x, const uint8_t *pick)
{
    const qx_mix *m = x->mix;
    const int64_t items = x->pass->pipe->plan->linears.count;
    qx_arena *arena = x->pass->pipe->model->arena;
    const char *text = "";
    for (int f = 0; f <= m->n && text; f++) {
        int64_t count = 0;
        for (int64_t i = 0; i < items; i++) count += m->group[i] >= 0 && pick[m->group[i]] == f;
        if (count) text = qx_arena_printf(arena, "%s%s%s %lld", text, *text ? ", " : "", m->names[f], (long long)count);
    }
    return text;
}

static qx_status report_point(mixed *x, const uint8_t *pick, const char *label, bool shown, bool chosen)
{
    const qx_mix *m = x->mix;
    qx_report_point r = {.label = label, .bytes = x->fixed_bytes, .shown = shown, .chosen = chosen};
    for (int64_t g = 0; g < m->n_groups; g++) {
        const int64_t at = g * (m->n + 1) + pick[g];
        r.bytes += x->choices[at].bytes;
        r.kl += x->kl[at];
        r.noise += x->noise[at];
    }
    r.bits = x->weights ? 8 * (double)(r.bytes - x->fixed_bytes) / (double)x->weights : 0;
    r.measured_kl = chosen ? x->measured.kl : NAN;
    r.measured_noise = chosen ? x->measured.noise : NAN;
    if (!x->probe) r.kl = NAN;
    if (shown && !(r.formats = describe(x, pick))) return QX_E_NOMEM;
    return qx_report_add_point(x->pass->pipe->report, &r);
}

/* Where point i lies between both ends of the frontier, 0 to 1: half by bytes, half by the logarithm of the loss. */
static double place(const mixed *x, int64_t i)
{
    const int64_t n = qx_knapsack_count(x->sack), first = bytes_at(x, 0), span = bytes_at(x, n - 1) - first;
    const double most = cost_at(x, 0), least = fmax(n > 1 ? cost_at(x, n - 2) : most, most * 1e-12);
    const double by_bytes = span ? (double)(bytes_at(x, i) - first) / (double)span : 0;
    const double by_loss = most > least ? log(most / fmax(cost_at(x, i), least)) / log(most / least) : 0;
    return (by_bytes + by_loss) / 2;
}

/* Points at even distances; the chosen one among them. */
static qx_status report_frontier(mixed *x, int64_t chosen, uint8_t *pick)
{
    const int64_t n = qx_knapsack_count(x->sack);
    int64_t row = -1, dot = -1;
    for (int64_t i = 0; i < n; i++) {
        const int64_t here = (int64_t)(place(x, i) * (TABLE_ROWS - 1)), spot = (int64_t)(place(x, i) * PICTURE_POINTS);
        const bool shown = here > row || i == chosen || i + 1 == n;
        if (!shown && spot == dot) continue;
        row = here > row ? here : row;
        dot = spot;
        qx_knapsack_pick(x->sack, i, pick);
        QX_TRY(report_point(x, pick, NULL, shown, i == chosen));
    }
    return QX_OK;
}

/* One format for all that can have it, the next better for the rest: what the frontier is compared with. */
static qx_status report_uniform(mixed *x, uint8_t *pick)
{
    const qx_mix *m = x->mix;
    for (int f = 0; f < m->n; f++) {
        for (int64_t g = 0; g < m->n_groups; g++) {
            int use = f;
            while (use < m->n && !x->choices[g * (m->n + 1) + use].allowed) use++;
            pick[g] = (uint8_t)use;
        }
        const char *label = qx_arena_printf(m->pass->pipe->model->arena, "all %s", m->names[f]);
        if (!label) return QX_E_NOMEM;
        QX_TRY(report_point(x, pick, label, true, false));
    }
    return QX_OK;
}

static qx_status note_effects(const mixed *x, const uint8_t *pick)
{
    const qx_mix *m = x->mix;
    const double *cost = x->cost;
    for (int64_t i = 0; i < x->pass->pipe->plan->linears.count; i++) {
        if (m->group[i] < 0 || pick[m->group[i]] == m->n) continue;
        const int64_t at = m->group[i] * (m->n + 1) + pick[m->group[i]];
        QX_TRY(qx_item_note(x->pass->pipe, &x->pass->pipe->plan->items[i], "mixed: group of %s %.3g",
                            cost == x->kl ? "KL" : x->probe ? "noise" : "error", cost[at]));
    }
    return QX_OK;
}

/* ---- decide, run ----------------------------------------------------------------------------------------------------------------- */

static qx_status make_tables(mixed *x)
{
    const size_t n = (size_t)(x->mix->n_groups * (x->mix->n + 1)) + 1;
    qx_arena *arena = x->pass->pipe->model->arena;
    x->kl = qx_arena_array(arena, n, sizeof *x->kl);
    x->noise = qx_arena_array(arena, n, sizeof *x->noise);
    x->choices = qx_arena_array(arena, n, sizeof *x->choices);
    return x->kl && x->noise && x->choices ? QX_OK : QX_E_NOMEM;
}

static qx_status choose(mixed *x, qx_stats *stats, uint8_t *pick)
{
    int64_t at;
    QX_TRY(open_probe(x, stats));
    QX_TRY(measure(x, stats));
    QX_TRY(solve(x));
    QX_TRY(x->goal.sqnr > 0 ? choose_by_sqnr(x, &at) : choose_by_size(x, &at));
    if (!(x->goal.sqnr > 0)) QX_TRY(measure_point(x, at));
    if (x->pass->pipe->report) {
        QX_TRY(report_frontier(x, at, pick));
        QX_TRY(report_uniform(x, pick));
    }
    give(x, at, pick);
    return note_effects(x, pick);
}

static qx_status decide(qx_pass *p, qx_model *model, qx_stats *stats)
{
    mixed *x = p->state;
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
    const mixed *x = p->state;
    return qx_mix_run(x->mix, m, stats);
}

static const qx_option options[] = {
    {"size", QX_OPT_TEXT, "", 0, 0, NULL,
     "of the output: a share of the input (70%), bytes (300M) or bits per weight that may be quantized (4.5bpw)"},
    {"sqnr", QX_OPT_TEXT, "", 0, 0, NULL, "instead: decibels that the output shall have, measured on samples; the smallest such file"},
    {"formats", QX_OPT_TEXT, "int4(block=128)+int4+int8-weights+float", 0, 0, NULL,
     "to choose from, joined by '+'; int8 and fp8 beside 4-bit formats mean weights alone"},
    {"score", QX_OPT_CHOICE, "auto", 0, 0, "auto|output|layer", "output: one run of the model a group says what its error does to "
                                                                "the output; layer: the group's own error; auto: output up to 2 "
                                                                "billion weights"},
    {"probes", QX_OPT_INT, "0", 0, 64, NULL, "samples that score=output runs for each group; 0: 4 for small models, 1 for others"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_mixed = {
    .name = "mixed", .brief = "the best format for each group of layers within a size, or for a quality", .options = options,
    .flags = QX_PASS_FORMAT | QX_PASS_CALIBRATED | QX_PASS_MIXES | QX_PASS_UNTIMED, .plan = plan, .decide = decide, .run = run,
    .doc = "Every group of layers that must agree (q/k/v, gate/up, experts of a layer) gets one of `formats`. The loss of a "
           "choice is the sum over\n"
           "groups of effect * error: the error of the group's outputs over sampled rows, scaled by what the group's smallest "
           "format does to\n"
           "the model's output (KL of the logits; noise for other models), from one run each. The bytes are those of the file, "
           "and an exact knapsack finds\n"
           "the least loss for every size. --target-size, --target-sqnr and --formats are short for this pass. Heads take part too."};
