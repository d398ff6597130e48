/* judge_own.h - what a judge holds, for judge.c, which makes it, and candidates.c, which asks it. */
#ifndef QX_PASSES_JUDGE_OWN_H
#define QX_PASSES_JUDGE_OWN_H

#include "passes/search/group_read.h"
#include "passes/search/judge.h"

struct qx_judge {
    qx_ctx *ctx;
    const qx_group *group;
    const qx_value_stats *stats;
    int64_t k, rows, sampled;      /* rows of x: sampled ones, then those with the largest values */
    qx_piece *pieces; int64_t n_pieces, n_weights;
    float *w;                      /* [n_weights][k] */
    float *raw;                    /* [rows][k] as collected */
    float *weigh;                  /* [rows] */
    float *y;                      /* raw W', rows weighed: [rows][piece rows] for one piece behind the other */
    double *part;                  /* [pieces][rows + k] */
    double *colsq;                 /* [k] squares of a column of w, summed */
    double reference, usual;       /* of the weights that are judged */
};

/* x[rows][n] of the judged rows, each as much as it weighs. */
void qx_judge_weigh(const qx_judge *j, float *x, int64_t n);

#endif
