/* probe_effect.h - how far outputs are from those in float: divergence of logits, noise of anything else. */
#ifndef QX_PASSES_PROBE_EFFECT_H
#define QX_PASSES_PROBE_EFFECT_H

#include "passes/search/probe.h"

typedef struct qx_effect_sums { double kl, noise; int64_t kl_rows, outputs; } qx_effect_sums;
/* Log sums of the rows of float logits, which every comparison needs; the caller frees them. */
qx_status qx_effect_norms(qx_ctx *ctx, const qx_tensor *t, double **norm);
/* Adds what one output differs by from its float values. norm: as above; NULL: no logits. */
qx_status qx_effect_compare(qx_ctx *ctx, const qx_tensor *ref, const double *norm, const qx_tensor *t, qx_effect_sums *s);
qx_probe_effect qx_effect_of(const qx_effect_sums *s);

#endif
