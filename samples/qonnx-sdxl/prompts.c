/* prompts.c - prompts of the command line, of a file, and those that come along. */
#include "prompts.h"

#include <ctype.h>
#include <string.h>

static const char *const builtin[] = {
#define PROMPT(text) text,
#include "prompts.def"
#undef PROMPT
};
enum { N_BUILTIN = sizeof builtin / sizeof *builtin, MOST_PROMPTS = 4096 };

void sx_prompts_print(FILE *to)
{
    for (int i = 0; i < N_BUILTIN; i++) fprintf(to, "%s\n", builtin[i]);
}

int sx_prompts_add(sx_err *e, sx_prompts *p, const char *s, size_t n)
{
    if (p->n >= MOST_PROMPTS) return sx_fail(e, SX_USAGE, "more than %d prompts", MOST_PROMPTS);
    SX_TRY(sx_regrow(e, (size_t)p->n + 1, sizeof *p->text, (void **)&p->text));
    SX_TRY(sx_printf(e, &p->text[p->n], "%.*s", (int)n, s));
    p->n++;
    return SX_OK;
}

/* Empty lines and lines that begin with # are left out. */
static int read_prompts(sx_err *e, const char *path, sx_prompts *p)
{
    char *text;
    size_t len;
    SX_TRY(sx_read_file(e, path, 16 << 20, &text, &len));
    int rc = strlen(text) == len ? SX_OK : sx_fail(e, SX_FAILED, "'%s' is not a text file: byte %zu is zero", path, strlen(text));
    for (char *s = text; rc == SX_OK && *s;) {
        size_t n = strcspn(s, "\n"), a = 0, z = n;
        while (a < z && isspace((unsigned char)s[a])) a++;
        while (z > a && isspace((unsigned char)s[z - 1])) z--;
        if (z > a && s[a] != '#') rc = sx_prompts_add(e, p, s + a, z - a);
        s += n + (s[n] == '\n');
    }
    if (rc == SX_OK && p->n == 0) rc = sx_fail(e, SX_FAILED, "'%s' holds no prompt", path);
    sx_free(text);
    return rc;
}

int sx_prompts_load(sx_err *e, const sx_list *given, const char *file, sx_prompts *p)
{
    int rc = SX_OK;
    *p = (sx_prompts){0};
    for (int i = 0; rc == SX_OK && i < given->n; i++) rc = sx_prompts_add(e, p, given->v[i], strlen(given->v[i]));
    if (rc == SX_OK && file && strcmp(file, "builtin") == 0) {
        for (int i = 0; rc == SX_OK && i < N_BUILTIN; i++) rc = sx_prompts_add(e, p, builtin[i], strlen(builtin[i]));
    } else if (rc == SX_OK && file) {
        rc = read_prompts(e, file, p);
    }
    if (rc == SX_OK && p->n == 0) rc = sx_fail(e, SX_USAGE, "no prompt: give -p TEXT or --prompts FILE");
    if (rc != SX_OK) sx_prompts_free(p);
    return rc;
}

void sx_prompts_free(sx_prompts *p)
{
    for (int i = 0; i < p->n; i++) sx_free(p->text[i]);
    sx_free(p->text);
    *p = (sx_prompts){0};
}
