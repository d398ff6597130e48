/* sparsity.c - 2:4 structured sparsity: of each 4 consecutive weights along the contraction two become exactly 0, the form that
 * sparse tensor cores run.
 *
 * magnitude keeps the largest |w|; wanda the largest |w| * rms of the input channel; sparsegpt (arXiv 2301.00774) prunes column
 * by column and lets the surviving weights make up for it; then each pair of a four is chosen anew, together with the values that
 * serve the output best, while that helps. With a format behind it rounding follows in the same job. Convolutions group along
 * input channels. */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "passes/search/reorder.h"
#include "passes/search/sequence.h"
#include "passes/search/solve_step.h"

typedef enum method { MAGNITUDE, WANDA, SPARSEGPT } method;

static method method_of(const qx_pass *p)
{
    const char *m = qx_opt_text(p, "method");
    return m[0] == 'm' ? MAGNITUDE : m[0] == 'w' ? WANDA : SPARSEGPT;
}

static int64_t spatial_of(const qx_plan_item *it)
{
    int64_t n = 1;
    for (int d = 0; it->lin->is_conv && d < it->lin->window.rank; d++) n *= it->lin->window.kernel[d];
    return n;
}

/* Sparse tensor cores want whole tiles: 8 output channels, 16 along the contraction (channels of a convolution). */
static bool eligible(qx_pass *p, const qx_plan_item *it)
{
    const int64_t k = qx_view_k(&it->lin->view), c = k / spatial_of(it);
    if (!it->weight || it->table || it->why != QX_WHY_NONE) return false;
    if (!it->lin->rows)
        return !qx_skipf(p, it->lin->node, QX_WHY_NOT_ELIGIBLE, "2:4: not a product with the rows of its input");
    if (it->lin->group > 1) return !qx_skipf(p, it->lin->node, QX_WHY_NOT_ELIGIBLE, "2:4: %lld groups", (long long)it->lin->group);
    if (it->lin->n % 8 || c % 16)
        return !qx_skipf(p, it->lin->node, QX_WHY_NOT_ELIGIBLE, "2:4: %lld outputs must be a multiple of 8, %lld inputs of 16",
                         (long long)it->lin->n, (long long)c);
    return true;
}

/* ---- the order of channels ---- */

typedef struct state { qx_reorders found; double *left; /* of each */ } state;

static qx_status rewrite(qx_pass *p, qx_model *m)
{
    qx_linears ls;
    state *s = qx_arena_alloc(m->arena, sizeof *s);
    if (!s) return QX_E_NOMEM;
    p->state = s;
    if (qx_opt_text(p, "permute")[0] == 'o') return QX_OK;
    QX_TRY(qx_linears_find(m, &ls));
    QX_TRY(qx_reorders_find(m, &ls, &s->found));
    s->left = qx_arena_array(m->arena, (size_t)s->found.n + 1, sizeof *s->left);
    if (!s->left) return QX_E_NOMEM;
    for (int64_t i = 0; i < s->found.n; i++) {
        qx_progress(p->ctx, "order of channels", i, s->found.n);
        QX_TRY(qx_check_cancel(p->ctx));
        QX_TRY(qx_reorder_apply(m, &s->found.items[i], &s->left[i]));
    }
    qx_progress(p->ctx, "order of channels", s->found.n, s->found.n);
    return QX_OK;
}

/* Outputs in another order are not comparable with the float model's. */
static qx_status note_orders(const qx_pass *p)
{
    const state *s = p->state;
    for (int64_t i = 0; i < s->found.n; i++) {
        const qx_reorder *r = &s->found.items[i];
        qx_plan_item *to = qx_plan_item_of(p->pipe->plan, r->to->node);
        for (int f = 0; f < r->n_from; f++) {
            qx_plan_item *from = qx_plan_item_of(p->pipe->plan, r->from[f]->node);
            if (from) from->rescaled = true;
        }
        if (to) QX_TRY(qx_item_note(p->pipe, to, "channels reordered (%.0f %% of the loss left)", 100 * s->left[i]));
    }
    return QX_OK;
}

/* ---- pruning ---- */

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const qx_plan *plan = p->pipe->plan;
    const method how = method_of(p);
    (void)m;
    for (int64_t i = 0; how != MAGNITUDE && i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        if (!it->weight || it->table || it->why != QX_WHY_NONE || it->lin->group > 1 || !it->lin->rows) continue;
        if (how == SPARSEGPT && qx_in_turn(p, it)) continue;
        QX_TRY(qx_stats_want(stats, &(qx_stat_request){.value = it->lin->rows, .kinds = QX_STAT_RANGE | QX_STAT_GRAM,
                                                       .axis = qx_linear_axis(it->lin), .window = qx_linear_window(it->lin),
                                                       .enough = qx_opt_int(p, "rows")}));
    }
    return QX_OK;
}

/* Root mean square of each column of X, in the solver's order of columns. */
static qx_status norms(qx_pass *p, const qx_input_gram *gram, int64_t k, int64_t spatial, const float **out)
{
    const int64_t c = k / spatial;
    float *norm = qx_arena_array(p->pipe->model->arena, (size_t)k, sizeof *norm);
    if (!norm) return QX_E_NOMEM;
    for (int64_t j = 0; j < k; j++) {
        const int64_t at = j % c * spatial + j / c;
        norm[j] = sqrtf(gram->h[at * k + at] / (float)gram->rows);
    }
    qx_file_rest(gram->file);
    *out = norm;
    return QX_OK;
}

static bool gptq_follows(const qx_pass *p)
{
    for (int i = 0; i < p->pipe->n_passes; i++)
        if (strcmp(p->pipe->passes[i]->def->name, "gptq") == 0) return true;
    return false;
}

static qx_status prune(qx_pass *p, qx_plan_item *it, qx_stats *stats)
{
    static const char *const names[] = {"magnitude", "wanda", "sparsegpt"};
    const int64_t k = qx_view_k(&it->lin->view), spatial = spatial_of(it);
    method how = method_of(p);
    const float *norm = NULL;
    qx_input_gram gram;
    const bool in_turn = how == SPARSEGPT && qx_in_turn(p, it) && !p->pipe->no_stats;
    QX_TRY(qx_weight_gram(p->pipe, it, stats, &gram));
    if (how != MAGNITUDE && !gram.rows && !in_turn) {
        QX_TRY(qx_item_unobserved(p->pipe, it, "2:4: input not observed, by magnitude"));
        how = MAGNITUDE;
    }
    if (how == WANDA) QX_TRY(norms(p, &gram, k, spatial, &norm));
    it->weight->pruned = true;
    QX_TRY(qx_item_note(p->pipe, it, "2:4 %s%s", names[how], in_turn ? " in turn" : ""));
    if (how != SPARSEGPT) return qx_mask_step(p->pipe, it->weight, norm, spatial);
    const qx_solve_spec spec = {.compensate = true, .prune = true, .swaps = (int)qx_opt_int(p, "swaps"), .stay_float = gptq_follows(p),
                                .damp = qx_opt_float(p, "damp"), .shrink = qx_opt_float(p, "shrink"), .gram = gram, .in_turn = in_turn,
                                .k = k, .spatial = spatial};
    if (!gptq_follows(p)) it->weight->solved = it->weight->spec.codes != QX_DT_UNDEFINED;
    return qx_solve_step(p->pipe, it->weight, &spec);
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    qx_plan *plan = p->pipe->plan;
    int64_t done = 0;
    (void)m;
    QX_TRY(note_orders(p));
    for (int64_t i = 0; i < plan->linears.count; i++) {
        qx_plan_item *it = &plan->items[i];
        if (!eligible(p, it) || it->weight->pruned) continue;
        QX_TRY(prune(p, it, stats));
        if (!it->pass) qx_applied(p, it->lin->node, "2:4");
        done++;
    }
    if (!done) QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "no linear operator of the model fits 2:4 (8 outputs, 16 inputs, constant weight)");
    return QX_OK;
}

static const qx_option options[] = {
    {"method", QX_OPT_CHOICE, "sparsegpt", 0, 0, "magnitude|wanda|sparsegpt",
     "how the two of each four weights are chosen; sparsegpt also makes up for them"},
    {"permute", QX_OPT_CHOICE, "auto", 0, 0, "auto|off",
     "put channels between products in an order whose fours lose less, folded into the weights that make and read them"},
    {"swaps", QX_OPT_INT, "2", 0, 100, NULL,
     "sparsegpt: sweeps that choose the two of each four anew, with the values that serve the output best"},
    {"damp", QX_OPT_FLOAT, "0.01", 1e-6, 1, NULL, "share of the mean diagonal of H that is added to it"},
    QX_SHRINK_OPTION("1"),
    QX_ROWS_OPTION,
    QX_SEQUENTIAL_OPTION,
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_sparsity = {
    .name = "sparsity", .brief = "2:4 structured sparsity along the contraction", .options = options,
    .flags = QX_PASS_WEIGHTS | QX_PASS_REORDERS, .order = 2, .rewrite = rewrite, .rewrite_option = "permute",
    .plan = plan, .run = run,
    .doc = "Two of each four weights along the contraction become 0. sparsegpt chooses column by column; swaps then choose each "
           "pair anew together with\n"
           "its values while tr(dW H dW') falls. With a format behind it (sparsity,int8) rounding makes up for itself too, and "
           "zeros are exact in the codes.\n"
           "Layers need a multiple of 8 outputs and of 16 inputs; others keep their weights and say so."};
