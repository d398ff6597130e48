/* solve_kept.h - weights that are solved while layers go one after the other: what a solver is asked to aim at, and what it found,
 * kept in a file and read back instead of solved again. */
#ifndef QX_SEARCH_SOLVE_KEPT_H
#define QX_SEARCH_SOLVE_KEPT_H

#include "passes/search/solve_step.h"

/* Solves the weights of the items that are wanted now; their jobs, which are made, read back what was found. Solving twice costs
 * more than the file that the statistics then keep; where none can be made, nothing changes. */
qx_status qx_solve_ahead(struct qx_pipeline *pipe, qx_stats *stats, bool (*wanted)(const qx_plan_item *));

extern const qx_stepdef qx_step_shift; /* W + share W S in front of a solver; arg: qx_solve_shift */

#endif
