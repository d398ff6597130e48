/* clip.h - CLIP's tokenizer from vocab.json and merges.txt (or a tokenizer.json that holds both), equal to Hugging Face's fast one. */
#ifndef SX_CLIP_H
#define SX_CLIP_H

#include "util.h"

typedef struct sx_clip sx_clip;
/* dir: a tokenizer folder. Padding, limits and special tokens come from tokenizer_config.json and special_tokens_map.json when there. */
int sx_clip_open(sx_err *e, const char *dir, sx_clip **out);
void sx_clip_free(sx_clip *t);
int sx_clip_max_length(const sx_clip *t);
/* Fills ids[len]: start, at most len - 2 tokens of the prompt, end, padding. *dropped (may be NULL): tokens that did not fit. */
int sx_clip_encode(sx_err *e, const sx_clip *t, const char *prompt, int64_t *ids, int len, int *dropped);

#endif
