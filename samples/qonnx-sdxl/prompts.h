/* prompts.h - the list of what to draw. */
#ifndef SX_PROMPTS_H
#define SX_PROMPTS_H

#include <stdio.h>

#include "options.h"

typedef struct sx_prompts { char **text; int n; } sx_prompts;
/* From -p, a file, or "builtin". At least one, or an error. */
int sx_prompts_load(sx_err *e, const sx_list *given, const char *file, sx_prompts *out);
int sx_prompts_add(sx_err *e, sx_prompts *p, const char *s, size_t n);
void sx_prompts_free(sx_prompts *p);
void sx_prompts_print(FILE *to); /* those that come along */

#endif
