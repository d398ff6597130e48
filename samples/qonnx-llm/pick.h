/* pick.h - which token comes next. */
#ifndef LLM_PICK_H
#define LLM_PICK_H

#include <stdint.h>

/* temperature 0: always the likeliest; top_k 0: all */
typedef struct llm_pick { double temperature; int64_t top_k; uint64_t state; } llm_pick;
/* logits[n] are changed. The same seed (state) and logits give the same token. */
int64_t llm_pick_token(llm_pick *p, float *logits, int64_t n);

#endif
