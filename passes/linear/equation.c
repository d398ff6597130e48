/* equation.c - see equation.h. */
#include "passes/linear/equation.h"

#include <string.h>

bool qx_equation_read(const char *text, qx_equation *e)
{
    int term = 0;
    *e = (qx_equation){0};
    for (const char *c = text; *c; c++) {
        char *t = e->term[term];
        const size_t n = strlen(t);
        if (*c == ' ') continue;
        if (*c == ',' || (*c == '-' && c[1] == '>')) {
            if (++term > 2 || (*c == '-') != (term == 2)) return false;
            c += *c == '-';
            continue;
        }
        if (n == QX_EQUATION_AXES || strchr(t, *c)) return false;
        t[n] = *c;
        if (*c != '.') continue;
        if (c[1] != '.' || c[2] != '.') return false;
        c += 2;
    }
    return term == 2;
}
