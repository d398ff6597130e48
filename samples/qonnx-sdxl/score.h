/* score.h - scores that need a network, which the user gives: LPIPS of reference and test, CLIP's agreement of picture and prompt. */
#ifndef SX_SCORE_H
#define SX_SCORE_H

#include "compare.h"

/* Fills the pairs' lpips, clip_ref and clip_test and their means by --lpips, --clip and --clip-text; without these options
 * nothing is done. */
int sx_score_pairs(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f, sx_comparison *c);

#endif
