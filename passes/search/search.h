/* search.h - the error that a candidate factor s[k] gives a group of linears: || X W' - Q(X / s) Q(W s)' ||^2 over sampled rows
 * of X and, of large groups, sampled rows of W. Rows whose output is larger than the median row's count by their relative error.
 * What is judged is read once and kept (some 1,000 rows of weights); no candidate ever exists as a whole matrix. */
#ifndef QX_PASSES_SEARCH_H
#define QX_PASSES_SEARCH_H

#include "kernels/quant.h"
#include "passes/search/fold.h"

typedef struct qx_judge qx_judge;
/* Columns of all weights of a group, after their steps: the largest |W| of each, and (NULL: not asked) the mean over rows of |W|
 * / max of its block (0: the row), which is AWQ's weight scale. */
typedef struct qx_group_columns { int64_t block; float *max, *mean; } qx_group_columns; /* [k] */
/* stats: of g->x, with rows. Judged are its first most_rows sampled rows, and beside them the rows with the largest values, each
 * like a sampled one: few, but the tokens that all others attend to. The group and the statistics must stay as they are while the
 * judge is used. columns (may be NULL): found while the weights are read. */
qx_status qx_judge_new(qx_ctx *ctx, const qx_group *g, const qx_value_stats *stats, int64_t most_rows, const qx_group_columns *columns,
                       qx_judge **out);
void qx_judge_free(qx_judge *j);
double qx_judge_reference(const qx_judge *j); /* || X W' ||^2 of what is judged, rows as they are weighed */
double qx_judge_usual(const qx_judge *j);     /* |y|^2 of the median row over all outputs of the group */

typedef struct qx_candidates {
    int64_t n;                     /* candidates */
    const float *s;                /* [n][k] */
    bool quantize_x;               /* activations are quantized too (W8A8) */
    const float *absmax;           /* [k] range of x that the activation scale comes from; NULL: stats->channels.absmax */
    /* [n] share of that range that the grid of activations reaches; NULL: all of it. Calibrated activations only */
    const float *clip;
    /* judged by one in so many of the sampled weights, and counted for all: to find where to look; 0: by all */
    int64_t every;
    int64_t seen;                  /* rows of calibration that the range is the largest of: the error then holds what clipping
                                    * larger values in rows nobody has seen is expected to cost (search.c); 0: the judged rows
                                    * alone */
} qx_candidates;
/* Operations of a search of factors for a group that so many rows are judged by, for the time told before: as measured on language
 * models (docs/calibration.md). */
double qx_judge_work(const qx_group *g, double rows);
/* error[n]: of each candidate, in the units of qx_judge_reference, with the formats that the group's items have now. */
qx_status qx_judge_run(qx_judge *j, const qx_candidates *c, double *error);

/* What a channel with the largest seen value m is expected to lose, in units of m^2, in as many new rows as were seen when the
 * grid reaches room m (>= m): the sum of (|x| - room m)^2 over the rows beyond. */
double qx_unseen_loss(double room);
/* How an activation is rounded: on a calibrated grid (scale; 0: it stays float), or by what it holds when the model runs (BLOCK: as
 * `blocks` says, the second level by the rows at hand). */
typedef struct qx_act_grid { qx_dtype act; qx_dynamic dynamic; float scale; const qx_qspec *blocks; } qx_act_grid;
bool qx_act_rounds(const qx_act_grid *g);
/* x[rows][k] on its grid. A tensor's own scale is that of these rows. */
void qx_act_fake(const qx_act_grid *g, int64_t rows, int64_t k, float *x);
/* Whether an operator reads x quantized, by calibration or when the model runs. */
bool qx_item_rounds_x(const qx_plan_item *it);
/* The first operator of the group that does (some may stay float); NULL: none does. */
const qx_plan_item *qx_group_quantized(const qx_group *g);
/* The maxima alone: max[k]. */
qx_status qx_group_maxima(qx_ctx *ctx, const qx_group *g, float *max);
/* One line about what a WEIGHTS pass did to an item, for reports: "smoothquant 0.55 (norm)". Lines add up. */
qx_status qx_item_note(struct qx_pipeline *pipe, qx_plan_item *it, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* `text` as a note, where a pass lacks statistics of the item's input: nothing in a plan, which is made before anything is observed. */
qx_status qx_item_unobserved(struct qx_pipeline *pipe, qx_plan_item *it, const char *text);

/* Rows of a weight tile after quantize + dequantize as the spec says (a coarse search where it searches): what candidates are
 * compared by. x is [rows][k]; scale has room for rows * ceil(k / block), zero too. importance [k] weighs a search (NULL: 1).
 * tensor_amax is used when the spec has one scale for the tensor. */
void qx_spec_fake(const qx_qspec *spec, int64_t rows, int64_t k, float tensor_amax, const float *importance, float *x, float *scale,
                  int32_t *zero);
/* The first half of it: scales, and how x is rounded with them. false: a format that its search does not know; nothing to round. */
bool qx_spec_scales(const qx_qspec *spec, int64_t rows, int64_t k, float tensor_amax, const float *importance, const float *x,
                    float *scale, int32_t *zero, qx_quant *q);

#endif
