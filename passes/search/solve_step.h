/* solve_step.h - the job step behind gptq and sparsity: rows of W are rounded (and pruned) against the Gram matrix H of the input, so that
 * tr(dW H dW') stays small. The factor of H is made when the job runs and dropped after it: one at a time is in memory. */
#ifndef QX_PASSES_SOLVE_STEP_H
#define QX_PASSES_SOLVE_STEP_H

#include "passes/place/plan.h"

/* X'X of what operators read. */
typedef struct qx_input_gram {
    const float *h;       /* [k][k], lives as long as the statistics */
    int64_t rows;         /* how many rows it is the sum of; 0: none was observed */
    struct qx_file *file; /* as gram_file of qx_value_stats */
} qx_input_gram;

typedef struct qx_solve_spec {
    bool compensate;     /* spread each error over later columns (GPTQ, SparseGPT); needs gram */
    bool prune;          /* 2:4 by w^2 / U(j,j)^2 on the compensated weights (SparseGPT), then: */
    int swaps;           /* sweeps that choose each pair of four anew, with what is left moved to where it serves best */
    bool stay_float;     /* prune in float though a format follows: gptq rounds later */
    bool keep_zeros;     /* zeros of an earlier pruning stay */
    bool act_order;      /* columns by falling diagonal of H; scales are then chosen beforehand */
    int refine;          /* sweeps of coordinate descent on the codes afterwards */
    double damp;         /* share of the mean diagonal */
    double shrink;       /* strength of qx_shrink_gram */
    qx_input_gram gram;
    bool in_turn;        /* gram comes later, by qx_solve_give */
    int64_t k;
    int64_t spatial;     /* kernel positions of a convolution: columns are (channel, position), 2:4 groups run over channels; 1: plain */
} qx_solve_spec;

/* H of all operators that read the weight of `it`: a matrix of the statistics, or their sum in the model's arena. */
qx_status qx_weight_gram(struct qx_pipeline *pipe, const qx_plan_item *it, const qx_stats *stats, qx_input_gram *out);

/* For weights that are solved one after the other (passes/search/sequence.h). Whether the weight has solvers that wait for a Gram
 * matrix; what they get: gram, and by how much the target moves first (passes/search/shift.h). */
typedef struct qx_solve_shift { const float *matrix; double share; } qx_solve_shift; /* w += share w S; S'[k][k], alive until settled */
bool qx_solve_waits(const qx_plan_weight *w);
qx_status qx_solve_give(struct qx_pipeline *pipe, qx_plan_weight *w, const qx_input_gram *gram, const qx_solve_shift *shift);
/* The weight's steps from the first solver on become what they make, which is computed now and waits in `file` (opened here, the
 * caller's to close); *seen: the weight as its readers will see it, as a tensor of its own type and dims. */
qx_status qx_solve_settle(struct qx_pipeline *pipe, qx_plan_weight *w, struct qx_file **file, qx_weight **seen);
/* The steps in front of its solvers. */
const qx_step *qx_steps_before_solver(const qx_plan_weight *w);

#define QX_SHRINK_OPTION(value) {"shrink", QX_OPT_FLOAT, value, 0, 1000, NULL, "how much correlations between inputs that few rows show are distrusted; 0 takes H as it is"}

#define QX_SEQUENTIAL_OPTION {"sequential", QX_OPT_BOOL, "false", 0, 1, NULL, "one layer after the other, each making up for what its inputs lack because the layers before it are rounded: two more runs of the samples, on the CPU"}

#define QX_ROWS_OPTION {"rows", QX_OPT_INT, "0", 0, 4096, NULL, "so many rows of activations for each input are enough for H; pictures have far more, and a sum over all costs several times the sweep; 0: all"}

/* Puts the step behind the weight's other steps. With a format it decides scales and codes together (and must stay the last step). */
qx_status qx_solve_step(struct qx_pipeline *pipe, qx_plan_weight *w, const qx_solve_spec *spec);
/* 2:4 mask by |w| (norm NULL) or |w| norm[k] (Wanda), nothing else moves. */
qx_status qx_mask_step(struct qx_pipeline *pipe, qx_plan_weight *w, const float *norm, int64_t spatial);

#endif
