/* mixed_report.c - the frontier that a mix chose from, for the report and its picture, and a note for each operator. */
#include "passes/search/mixed.h"

#include <math.h>

enum { TABLE_ROWS = 12, PICTURE_POINTS = 400 };

/* "int4 96, int8-weights 25, float 2": operators by format. */
static const char *describe(const qx_mixed *x, const uint8_t *pick)
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

static qx_status report_point(qx_mixed *x, const uint8_t *pick, const char *label, bool shown, bool chosen)
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
static double place(const qx_mixed *x, int64_t i)
{
    const int64_t n = qx_knapsack_count(x->sack), first = qx_mixed_bytes(x, 0), span = qx_mixed_bytes(x, n - 1) - first;
    const double most = qx_mixed_cost(x, 0), least = fmax(n > 1 ? qx_mixed_cost(x, n - 2) : most, most * 1e-12);
    const double by_bytes = span ? (double)(qx_mixed_bytes(x, i) - first) / (double)span : 0;
    const double by_loss = most > least ? log(most / fmax(qx_mixed_cost(x, i), least)) / log(most / least) : 0;
    return (by_bytes + by_loss) / 2;
}

/* Points at even distances; the chosen one among them. */
static qx_status report_frontier(qx_mixed *x, int64_t chosen, uint8_t *pick)
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
static qx_status report_uniform(qx_mixed *x, uint8_t *pick)
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

qx_status qx_mixed_report(qx_mixed *x, int64_t chosen, uint8_t *pick)
{
    QX_TRY(report_frontier(x, chosen, pick));
    return report_uniform(x, pick);
}

qx_status qx_mixed_note(const qx_mixed *x, const uint8_t *pick)
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
