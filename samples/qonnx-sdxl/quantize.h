/* quantize.h - calibration over the real pipeline, and a quantized copy of a pipeline folder. */
#ifndef SX_QUANTIZE_H
#define SX_QUANTIZE_H

#include "run.h"

/* What to collect for fp8 and int8 at every level, with every way of choosing ranges; no Gram matrices, which GPTQ and the
 * presets want besides. */
#define SX_EVERY_LEVEL "fp8(level=4,act=mse)"

/* Runs the prompts of o->calibrate without decoding and writes the UNet's statistics to `stats`. */
int sx_calibrate(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f, const char *passes, const char *stats,
                 double *seconds);
/* Calibrates, quantizes the UNet and writes o->out as a complete folder; the rest is linked, or copied. The report (JSON) is for
 * the caller to free. */
int sx_quantize_folder(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f, char **report);
/* fp8 and int8 mean the presets for diffusion models; other texts are passes as they stand. */
const char *sx_quantize_passes(const char *format);

#endif
