/* smooth.h - which smoothing factor serves a group of linears best when their inputs are quantized (smoothquant.c says when and
 * where it goes). */
#ifndef QX_PASSES_SMOOTH_H
#define QX_PASSES_SMOOTH_H

#include "passes/search/fold.h"
#include "passes/search/judge.h"

typedef struct qx_smooth {
    double alpha;          /* share of the difficulty that moves to the weights */
    bool smooth;           /* false: x stays as it is, and so does the format's own range */
    float clip;            /* share of the range of x / s that the grid reaches */
    double gain_db;        /* over not smoothing, judged on rows that the range has not seen */
    double left_db;        /* output over the error that is left */
    double error;          /* that error, in the units of the outputs squared, for a row of usual size */
    float *s;              /* [k] the factor, in the model's arena; NULL: not smoothed */
    float top;             /* the largest |x / s| that the grid shall reach; not smoothed: by the format's own rule */
} qx_smooth;

/* Searches alpha (fixed: takes that one) and clip; statistics of g->x with channels and rows are there. */
qx_status qx_smooth_choose(qx_pass *p, const qx_group *g, const qx_stats *stats, const double *fixed, qx_smooth *out);

#endif
