/* solve_kept.h - weights that are solved while layers go one after the other: what a solver is asked to aim at, and what it found,
 * kept in a file and read back instead of solved again. */
#ifndef QX_SEARCH_SOLVE_KEPT_H
#define QX_SEARCH_SOLVE_KEPT_H

#include "passes/search/solve_step.h"

extern const qx_stepdef qx_step_shift; /* W + share W S in front of a solver; arg: qx_solve_shift */

#endif
