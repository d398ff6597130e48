/* probe.h - how far the model's outputs move when some of its linear operators compute as a format would make them: the float
 * model runs, and what rounding does to the chosen operators is added to their results while it runs. No quantized model is
 * built. Belongs to the pipeline, as the sweep does: passes that choose formats call it from decide(). */
#ifndef QX_PASSES_PROBE_H
#define QX_PASSES_PROBE_H

#include "passes/place/scheme.h"
#include "passes/search/rounding.h"

typedef struct qx_probe qx_probe;
typedef struct qx_probe_change {
    int64_t item;            /* of the plan */
    const qx_qspec *spec;    /* of its weight */
    const float *smooth;     /* [k] x is divided by it and the columns of its weight multiplied, before either is rounded; NULL: neither */
    qx_act_grid x;           /* of x (divided) */
    /* relative squared error of the result alone: how much noise an operator gets that is not a plain matrix product */
    double error;
    /* act set: instead of all that, x itself is rounded, for whoever reads it; x must be made by a node (qx_probe_can_round) */
    qx_act_codes input;
    qx_act_codes output;     /* act set: the result is rounded besides */
} qx_probe_change;
typedef struct qx_probe_effect {
    double kl;               /* mean KL(float || changed) in nats over the rows of the logits; NaN when the model has none */
    /* sum of squared differences over sum of squares, mean over the float outputs (of a language model: the logits) */
    double noise;
} qx_probe_effect;
/* What effects are compared by: the divergence of a language model, the noise of others. */
double qx_probe_size(const qx_probe_effect *e);

/* How many samples are worth running for one choice in a model with so many weights that may change; 0: too large to run often. */
int64_t qx_probe_samples(int64_t weights);
/* Samples that are run, spread over all; half: of windows of text only the first half. begins: values from which a run may go on
 * when nothing before them is changed (what is alive there is kept in a file for each). */
typedef struct qx_probe_runs { int64_t count; bool half; const qx_value *const *begins; int n_begins; } qx_probe_runs;
/* Runs the pipeline's samples in float and keeps their outputs. */
qx_status qx_probe_new(struct qx_pipeline *pipe, const qx_stats *stats, const qx_probe_runs *runs, qx_probe **out);
void qx_probe_free(qx_probe *p);
/* Whether x of an operator may be rounded where it lies: a node makes it, and nobody else sees its values who would not round them. */
bool qx_probe_can_round(const struct qx_pipeline *pipe, const qx_plan_item *it);
qx_status qx_probe_run(qx_probe *p, const qx_probe_change *changes, int64_t n, qx_probe_effect *out);

#endif
