/* gptq.c - rounds weights one column at a time and lets the later columns make up for each error (arXiv 2210.17323), against H =
 * X'X of the layer's input from the one calibration sweep. Works for every weight format; block scales are chosen on the
 * compensated weights. When H cannot be factored the layer is rounded to nearest, and says so. */
#include "passes/search/sequence.h"
#include "passes/search/solve_step.h"

static bool wants(const qx_pass *p, const qx_plan_item *it)
{
    const qx_dtype codes = it->pass && !it->table && it->weight ? it->weight->spec.codes : QX_DT_UNDEFINED;
    return codes && qx_dtype_bits(codes) <= qx_opt_int(p, "bits") && it->lin->group <= 1 && it->lin->rows &&
        it->lin->k <= qx_opt_int(p, "columns");
}

/* The range finds what is not a number; beside a format that quantizes activations it does so at every other input, and these
 * need not be scanned. */
static qx_stat_request gram_of(const qx_pass *p, const qx_plan_item *it)
{
    return (qx_stat_request){.value = it->lin->rows, .kinds = it->weight_only ? QX_STAT_GRAM : QX_STAT_RANGE | QX_STAT_GRAM,
                             .axis = qx_linear_axis(it->lin), .window = qx_linear_window(it->lin), .enough = qx_opt_int(p, "rows")};
}

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const qx_plan *plan = p->pipe->plan;
    (void)m;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_stat_request r = gram_of(p, &plan->items[i]);
        if (wants(p, &plan->items[i]) && !qx_in_turn(p, &plan->items[i])) QX_TRY(qx_stats_want(stats, &r));
    }
    return QX_OK;
}

static qx_status solve_item(qx_pass *p, qx_plan_item *it, qx_stats *stats)
{
    qx_input_gram gram;
    const bool in_turn = qx_in_turn(p, it) && !p->pipe->no_stats;
    QX_TRY(qx_weight_gram(p->pipe, it, stats, &gram));
    if (!gram.rows && !in_turn) return qx_item_unobserved(p->pipe, it, "gptq: not observed");
    const qx_qspec *q = &it->weight->spec;
    /* nvfp4 chooses its scales on the way, so columns go in order */
    const bool on_the_way = qx_spec_two_level(q);
    const qx_solve_spec spec = {.compensate = true, .keep_zeros = it->weight->pruned,
                                .act_order = qx_opt_bool(p, "act-order") && !on_the_way, .refine = (int)qx_opt_int(p, "refine"),
                                .damp = qx_opt_float(p, "damp"), .shrink = qx_opt_float(p, "shrink"), .gram = gram,
                                .in_turn = in_turn, .k = qx_view_k(&it->lin->view), .spatial = 1};
    it->weight->solved = true;
    QX_TRY(qx_solve_step(p->pipe, it->weight, &spec));
    return qx_item_note(p->pipe, it, in_turn ? "gptq in turn" : "gptq");
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    qx_plan *plan = p->pipe->plan;
    (void)m;
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (wants(p, &plan->items[i]) && !plan->items[i].weight->solved) QX_TRY(solve_item(p, &plan->items[i], stats));
    return QX_OK;
}

static const qx_option options[] = {
    {"act-order", QX_OPT_BOOL, "true", 0, 1, NULL,
     "columns with large inputs first; block scales are then chosen beforehand (nvfp4: in order)"},
    {"damp", QX_OPT_FLOAT, "0.01", 1e-6, 1, NULL, "share of the mean diagonal of H that is added to it"},
    QX_SHRINK_OPTION("5"),
    {"refine", QX_OPT_INT, "2", 0, 100, NULL, "sweeps of coordinate descent on codes and scales afterwards"},
    QX_ROWS_OPTION,
    QX_SEQUENTIAL_OPTION,
    {"columns", QX_OPT_INT, "1048576", 1, 1048576, NULL,
     "only weights of at most so many inputs per output (channels times window): H has their square"},
    {"bits", QX_OPT_INT, "8", 2, 8, NULL, "only weights of at most so many bits; others are rounded to nearest"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_gptq = {
    .name = "gptq", .brief = "round weights so that later columns make up for each error", .options = options,
    .flags = QX_PASS_WEIGHTS | QX_PASS_CALIBRATED | QX_PASS_NEEDS_FORMAT, .order = 3, .plan = plan, .run = run,
    .doc = "For each row of W: q = Q(w_j), e = (w_j - q) / U_jj, w_later -= e U_j,later with U'U = inv(H + damp mean(diag H)).\n"
           "H = X'X is collected once; shrink takes back correlations that few rows show by chance. refine=N then moves single "
           "codes and scales while tr(dW H dW') falls. Put it before the format: gptq,int4."};
