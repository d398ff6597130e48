/* find.h - what a person did not say: where samples and tokenizer lie, what to give when there are none, what the output is called. */
#ifndef QX_PASSES_FIND_H
#define QX_PASSES_FIND_H

#include "onnx/graph.h"

/* Files named sample*.npz or calib*.npz beside the model, sorted by name; in the arena. */
qx_status qx_find_samples(qx_ctx *ctx, qx_arena *arena, const char *model_path, const char ***paths, int *n);
/* tokenizer.json beside the model, or in the folder above (repositories keep exports in onnx/); NULL: none. In the arena. */
qx_status qx_find_tokenizer(qx_arena *arena, const char *model_path, const char **out);
/* QX_E_USAGE: what to give, with the model's inputs. */
qx_status qx_no_samples(qx_ctx *ctx, const qx_model *m);
/* "dir/unet.onnx" and "fp8" give "dir/unet.fp8.onnx". */
const char *qx_output_name(qx_arena *arena, const char *input, const char *label);

#endif
