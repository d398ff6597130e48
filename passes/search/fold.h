/* fold.h - where a factor per channel of a linear operator's input can go without changing what the model computes.
 *
 * Smoothing (SmoothQuant, AWQ) divides the input channels of a group of linears by s[k] and multiplies their weight columns by
 * it. The division is folded, in order of preference, into a norm's gamma and beta, into the rows (and bias) of the linear that
 * produces the input, or stays as a Mul. Between producer and consumer only operators may lie that pass a positive per-channel
 * factor through unchanged. */
#ifndef QX_PASSES_FOLD_H
#define QX_PASSES_FOLD_H

#include "passes/search/group.h"

typedef enum qx_fold_kind { QX_FOLD_NORM, QX_FOLD_ROWS, QX_FOLD_MUL } qx_fold_kind;
/* a constant vector [k] (or [n] of the producer) at node->in[index] */
typedef struct qx_fold_param { qx_node *node; uint32_t index; } qx_fold_param;

typedef struct qx_fold {
    qx_fold_kind kind;
    qx_fold_param params[4]; int n_params; /* vectors that take the factor: gamma, beta; bias of the producer */
    qx_plan_item *producer;                /* ROWS: its weight rows take the factor */
    int64_t first;                         /* ROWS: channel 0 of the input is this row of the producer (packed projections) */
    int64_t each;                          /* ROWS: rows of one matrix of the producer (experts: every one takes the factor) */
    int64_t head, repeat;                  /* ROWS through attention: channels per head, query heads per key/value head (1: none) */
} qx_fold;

void qx_fold_find(struct qx_pipeline *pipe, const qx_group *g, qx_fold *out);
/* Makes s[k] something the fold can do: equal over repeated heads (geometric mean). */
void qx_fold_constrain(const qx_fold *f, int64_t k, float *s);
/* x becomes x / s: edits the producer side, puts scale_cols(s) behind every weight of the group, and rescales the statistics of
 * x. s is copied; behind a Mul, g->x is its result. */
qx_status qx_fold_apply(qx_pass *p, qx_group *g, const qx_fold *f, const float *s, qx_stats *stats);
const char *qx_fold_text(const qx_fold *f); /* "norm", "previous linear", "mul" */

#endif
