/* hints.h - what would make a job's result better, for this model: the last lines of a run. */
#ifndef QX_PASSES_HINTS_H
#define QX_PASSES_HINTS_H

#include "calib/data/samples.h"
#include "passes/place/plan.h"

/* Fills report->hints, and report->next, from what the job was given (samples: NULL for none), how it ended
 * (report->grade, all_ran), and the kind of model. Texts live in the report's arena. */
qx_status qx_hints_add(qx_report *report, const qx_model *m, const qx_pipeline *pipe, const qx_quantize_options *opt,
                       const qx_samples *samples);

#endif
