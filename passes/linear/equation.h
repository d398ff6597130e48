/* equation.h - what an Einsum of two operands says. */
#ifndef QX_PASSES_EQUATION_H
#define QX_PASSES_EQUATION_H

#include <stdbool.h>

enum { QX_EQUATION_AXES = 8 };

/* "ij,jk->ik" as three terms without blanks; "..." is one '.' each. */
typedef struct qx_equation { char term[3][QX_EQUATION_AXES + 1]; } qx_equation;
/* False for more operands, diagonals, more axes than fit, and no "->". */
bool qx_equation_read(const char *text, qx_equation *e);

#endif
