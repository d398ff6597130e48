/* mixed.h - the parts of the pass mixed: the goal, the effects of formats, the report. passes/mixed.c chooses. */
#ifndef QX_PASSES_MIXED_H
#define QX_PASSES_MIXED_H

#include "passes/search/knapsack.h"
#include "passes/search/mix.h"
#include "passes/search/probe.h"

/* What was asked for; one of them is not 0. */
typedef struct qx_mixed_goal { double fraction; int64_t bytes; double bits; double sqnr; } qx_mixed_goal;

typedef struct qx_mixed {
    qx_pass *pass;
    qx_mix *mix;
    qx_mixed_goal goal;
    qx_probe *probe;       /* while decide() runs; NULL: layers alone */
    int64_t weights;       /* elements of all candidates */
    int64_t input_bytes;   /* the model as it is */
    int64_t fixed_bytes;   /* everything that no choice changes */
    double *kl, *noise;    /* [groups][n + 1] predicted effect of each choice by itself; kl NaN without logits */
    double *cost;          /* one of them */
    qx_choice *choices;    /* [groups][n + 1] */
    qx_knapsack *sack;
    qx_probe_effect measured; /* of the choice that was made; NaN: not measured */
} qx_mixed;

/* Of the pass's options. */
qx_status qx_mixed_goal_parse(const qx_pass *p, qx_mixed_goal *g);
/* kl and noise of every choice: the error of its group, scaled by what the smallest format there does to the output in a run. */
qx_status qx_mixed_measure(qx_mixed *x, qx_stats *stats);
/* Adds to changes what these formats do to the operators of a group. */
void qx_mixed_changes(const qx_mix *m, int64_t g, int format, qx_probe_change *out, int64_t *n);
/* Bytes of the file, and the loss, at a point of the frontier. */
int64_t qx_mixed_bytes(const qx_mixed *x, int64_t at);
double qx_mixed_cost(const qx_mixed *x, int64_t at);
/* The frontier with its chosen point, and what one format for all would be; pick [groups] is room to work with. */
qx_status qx_mixed_report(qx_mixed *x, int64_t chosen, uint8_t *pick);
/* On every operator: the loss that its group was chosen with. */
qx_status qx_mixed_note(const qx_mixed *x, const uint8_t *pick);

#endif
