/* decoder.h - a language model as a thing that takes tokens and gives logits, whatever its inputs are called. */
#ifndef LLM_DECODER_H
#define LLM_DECODER_H

#include <qonnx.h>

typedef struct llm_decoder llm_decoder;
/* options: of qonnx_session_open. head_size: of models whose past leaves it open; 0: not needed. NULL on failure, *why says what (a
 * literal, or qonnx_error when it is NULL). */
llm_decoder *llm_open(qonnx_ctx *ctx, const char *path, const char *options, int64_t head_size, const char **why);
void llm_close(llm_decoder *d);
/* Appends n tokens; *logits (vocab of them, float) are those behind the last one, and belong to the decoder until the next call. With a
 * past only the new tokens are computed, without one all of them again. */
qonnx_code llm_push(llm_decoder *d, const int64_t *ids, int64_t n, float **logits, int64_t *vocab);
int llm_has_past(const llm_decoder *d);
const char *llm_problem(const llm_decoder *d); /* of a push that failed without the library: a literal; else NULL */

#endif
