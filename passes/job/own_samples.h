/* own_samples.h - samples that a job takes by itself: those beside the model, or made-up tokens, when nobody gave any and a pass
 * gains from them that can do without ("name?"). */
#ifndef QX_PASSES_OWN_SAMPLES_H
#define QX_PASSES_OWN_SAMPLES_H

#include "calib/data/samples.h"

enum { QX_MADE_UP_SAMPLES = 4 };
typedef enum qx_own_samples { QX_OWN_NONE, QX_OWN_FOUND, QX_OWN_MADE_UP } qx_own_samples;
/* Only models of up to 5e8 parameters (2 GB in float32): to run a larger one is no small thing beside rounding its weights, which reads
 * each once. Found samples are taken; in place of few of them, or none, a transformer that reads nothing but tokens (ids, masks, positions,
 * caches) takes made-up ones: they nearly halve the loss of SmolLM2 (docs/passes/int4.md). Networks without attention, whose inputs
 * are bytes or letters, lose by random ones. `found` may be NULL. */
qx_status qx_own_samples_choose(qx_model *m, const qx_samples *found, qx_own_samples *out);
/* Opens made-up tokens by `o` (seed, dims, hold_out), which becomes what was opened. With exec, of a length that the model can run (else of
 * 256 tokens, untried). A model that runs with none leaves *out NULL: without samples, as was asked, the job goes on. */
qx_status qx_made_up_open(qx_ctx *ctx, qx_model *m, const qx_exec_options *exec, qx_samples_options *o, qx_samples **out);

#endif
