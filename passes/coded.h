/* coded.h - inputs and outputs of a graph that are codes (kv-cache, io), or floats of another type (io-half), and the numbers
 * they stand for: for runs that compare with the float model. */
#ifndef QX_PASSES_CODED_H
#define QX_PASSES_CODED_H

#include "passes/pass.h"
#include "runtime/exec.h"

/* scale: scalar, one a channel of the last axis, or one a head and channel ([1, heads, 1, channels] over a tensor [batch, heads, rows,
 * channels]); NULL: of plain numbers. zero NULL: 0. codes UINT4: two in each byte of a UINT8 tensor, moved up by 8. */
typedef struct qx_coded { qx_dtype codes; const qx_weight *scale, *zero; } qx_coded;
/* What an input's codes are read with, or its float type; false: it is no input of either. */
bool qx_coded_input(const qx_value *v, qx_coded *out);
/* What an output's codes were made with; false: it is none. */
bool qx_coded_output(const qx_value *v, qx_coded *out);
/* A float tensor as codes, and back (float32). E_SHAPE when the scales do not fit its last axis. */
qx_status qx_coded_encode(qx_ctx *ctx, const qx_coded *c, const qx_tensor *from, qx_tensor *to);
qx_status qx_coded_decode(qx_ctx *ctx, const qx_coded *c, const qx_tensor *from, qx_tensor *to);
/* What a model like m, but with float32 ends, is fed, in the types that m takes: out[i] is feeds[i] or points at made[i], which the
 * caller frees (both [n], made zeroed). Integers and unknown names stay as they are. */
qx_status qx_coded_feeds(qx_ctx *ctx, const qx_model *m, const qx_feed *feeds, int n, qx_feed *out, qx_tensor *made);
/* An output of m by its name: *numbers is decoded where it is codes (free it), and empty where `t` is numbers already. */
qx_status qx_coded_numbers(qx_ctx *ctx, const qx_model *m, const char *name, const qx_tensor *t, qx_tensor *numbers);

#endif
