/* expr.h - whole-number expressions over named dimensions: polynomials whose atoms are names, floor divisions, minima and maxima.
 *
 * Expressions are canonical and interned by their text, so equal expressions are equal pointers. Names stand for sizes and are taken
 * to be >= 0. Division is floor division. A result that would overflow, or be larger than the caps, is NULL: "not known". */
#ifndef QX_ONNX_EXPR_H
#define QX_ONNX_EXPR_H

#include "base/map.h"

typedef struct qx_expr qx_expr;
typedef struct qx_exprs qx_exprs;

/* Texts are interned in `names`, which must outlive the table. */
qx_status qx_exprs_new(qx_ctx *ctx, qx_strings *names, qx_exprs **out);
void qx_exprs_free(qx_exprs *x);
/* True after an allocation failed; every result since then may be NULL for that reason. */
bool qx_exprs_out_of_memory(const qx_exprs *x);
/* From now on a name stands for a number (--dim name=value). */
qx_status qx_exprs_fix(qx_exprs *x, const char *name, int64_t value);

/* From text as it stands in files: identifiers, integers, + - * / // ( ) floor ceil ceiling min max. Text that is none of this is
 * taken whole as one name. */
const qx_expr *qx_expr_parse(qx_exprs *x, const char *text);
const qx_expr *qx_expr_int(qx_exprs *x, int64_t v);
const qx_expr *qx_expr_add(qx_exprs *x, const qx_expr *a, const qx_expr *b);
const qx_expr *qx_expr_sub(qx_exprs *x, const qx_expr *a, const qx_expr *b);
const qx_expr *qx_expr_mul(qx_exprs *x, const qx_expr *a, const qx_expr *b);
const qx_expr *qx_expr_floordiv(qx_exprs *x, const qx_expr *a, const qx_expr *b); /* b = 0: NULL */
/* a / b when b divides a as polynomials, else NULL. */
const qx_expr *qx_expr_exact_div(qx_exprs *x, const qx_expr *a, const qx_expr *b);
const qx_expr *qx_expr_min(qx_exprs *x, const qx_expr *a, const qx_expr *b);
const qx_expr *qx_expr_max(qx_exprs *x, const qx_expr *a, const qx_expr *b);
bool qx_expr_is_int(const qx_expr *e, int64_t *v);
/* Provably >= 0 for all sizes of the names. */
bool qx_expr_nonneg(const qx_expr *e);
/* A plain name: preferred when two dims must be equal. */
bool qx_expr_is_name(const qx_expr *e);
const char *qx_expr_text(const qx_expr *e); /* canonical, interned */

#endif
