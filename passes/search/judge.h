/* judge.h - the error that a candidate factor s[k] gives a group of linears: || X W' - Q(X / s) Q(W s)' ||^2 over sampled rows
 * of X and, of large groups, sampled rows of W. Rows whose output is larger than the median row's count by their relative error.
 * What is judged is read once and kept (some 1,000 rows of weights); no candidate ever exists as a whole matrix. */
#ifndef QX_PASSES_JUDGE_H
#define QX_PASSES_JUDGE_H

#include "passes/search/group_read.h"

typedef struct qx_judge qx_judge;
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
                                    * larger values in rows nobody has seen is expected to cost (candidates.c); 0: the judged rows
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

#endif
