/* infer_num.c - arithmetic on what is known of an element or a dim: numbers stay numbers, names become expressions, and whatever
 * cannot be said exactly is unknown. */
#include <math.h>

#include "base/checked.h"
#include "onnx/infer/infer_op.h"

static const qx_num unknown = {QX_NUM_UNKNOWN, 0, 0, NULL};

static qx_num of_expr(qx_infer *ix, const qx_expr *e, int64_t den)
{
    int64_t v;
    if (!e || den <= 0) return unknown;
    if (den > 1) {
        const qx_expr *whole = qx_expr_exact_div(qx_ix_exprs(ix), e, qx_expr_int(qx_ix_exprs(ix), den));
        if (whole) e = whole, den = 1;
    }
    if (qx_expr_is_int(e, &v)) return den == 1 ? qx_num_of(v) : qx_num_real((double)v / (double)den);
    return (qx_num){.kind = QX_NUM_EXPR, .e = e, .i = den};
}

qx_num qx_num_of_dim(qx_infer *ix, qx_dim d)
{
    if (d.n >= 0) return qx_num_of(d.n);
    return d.sym ? of_expr(ix, qx_expr_parse(qx_ix_exprs(ix), d.sym), 1) : unknown;
}

qx_dim qx_dim_of_num(qx_infer *ix, qx_num v)
{
    (void)ix;
    int64_t i;
    if (qx_num_as_int(v, &i)) return i >= 0 ? qx_dim_of(i) : qx_dim_unknown();
    if (v.kind == QX_NUM_EXPR && v.i == 1) return (qx_dim){.n = -1, .sym = qx_expr_text(v.e)};
    return qx_dim_unknown();
}

bool qx_num_as_int(qx_num v, int64_t *out)
{
    if (v.kind == QX_NUM_REAL && fabs(v.f) < 9e15 && v.f == floor(v.f)) {
        *out = (int64_t)v.f;
        return true;
    }
    *out = v.i;
    return v.kind == QX_NUM_INT;
}

bool qx_num_as_real(qx_num v, double *out)
{
    *out = v.kind == QX_NUM_INT ? (double)v.i : v.f;
    return v.kind == QX_NUM_INT || v.kind == QX_NUM_REAL;
}

/* As numerator and divisor: reals only when they are a multiple of 1/1024. */
static bool as_ratio(qx_infer *ix, qx_num v, const qx_expr **e, int64_t *den)
{
    *den = 1;
    if (v.kind == QX_NUM_EXPR) {
        *e = v.e;
        *den = v.i;
        return true;
    }
    int64_t i;
    while (*den < 1024 && v.kind == QX_NUM_REAL && v.f != floor(v.f)) v.f *= 2, *den *= 2;
    if (!qx_num_as_int(v, &i)) return false;
    *e = qx_expr_int(qx_ix_exprs(ix), i);
    return *e != NULL;
}

typedef enum op { ADD, SUB, MUL } op;

static qx_num on_ratios(qx_infer *ix, op o, qx_num a, qx_num b)
{
    qx_exprs *x = qx_ix_exprs(ix);
    const qx_expr *ea, *eb;
    int64_t da, db, den;
    if (!as_ratio(ix, a, &ea, &da) || !as_ratio(ix, b, &eb, &db) || !qx_mul_i64(da, db, &den)) return unknown;
    if (o == MUL) return of_expr(ix, qx_expr_mul(x, ea, eb), den);
    ea = qx_expr_mul(x, ea, qx_expr_int(x, db));
    eb = qx_expr_mul(x, eb, qx_expr_int(x, da));
    return of_expr(ix, o == ADD ? qx_expr_add(x, ea, eb) : qx_expr_sub(x, ea, eb), den);
}

static qx_num arith(qx_infer *ix, op o, qx_num a, qx_num b)
{
    int64_t v;
    double x, y;
    if (a.kind == QX_NUM_UNKNOWN || b.kind == QX_NUM_UNKNOWN) return unknown;
    if (a.kind == QX_NUM_INT && b.kind == QX_NUM_INT) {
        bool ok = o == ADD ? qx_add_i64(a.i, b.i, &v) : o == SUB ? qx_sub_i64(a.i, b.i, &v) : qx_mul_i64(a.i, b.i, &v);
        return ok ? qx_num_of(v) : unknown;
    }
    if (qx_num_as_real(a, &x) && qx_num_as_real(b, &y)) return qx_num_real(o == ADD ? x + y : o == SUB ? x - y : x * y);
    return on_ratios(ix, o, a, b);
}

qx_num qx_num_add(qx_infer *ix, qx_num a, qx_num b) { return arith(ix, ADD, a, b); }
qx_num qx_num_sub(qx_infer *ix, qx_num a, qx_num b) { return arith(ix, SUB, a, b); }
qx_num qx_num_mul(qx_infer *ix, qx_num a, qx_num b) { return arith(ix, MUL, a, b); }

qx_num qx_num_floordiv(qx_infer *ix, qx_num a, qx_num b)
{
    const qx_expr *ea, *eb;
    int64_t da, db;
    if (a.kind == QX_NUM_INT && b.kind == QX_NUM_INT) {
        if (b.i == 0 || (b.i == -1 && a.i == INT64_MIN)) return unknown;
        return qx_num_of(a.i / b.i - (a.i % b.i != 0 && (a.i < 0) != (b.i < 0)));
    }
    if (!as_ratio(ix, a, &ea, &da) || !as_ratio(ix, b, &eb, &db) || da != 1 || db != 1) return unknown;
    return of_expr(ix, qx_expr_floordiv(qx_ix_exprs(ix), ea, eb), 1);
}

qx_num qx_num_exact_div(qx_infer *ix, qx_num a, qx_num b)
{
    const qx_expr *ea, *eb;
    int64_t da, db;
    if (a.kind == QX_NUM_INT && b.kind == QX_NUM_INT) return b.i > 0 && a.i % b.i == 0 ? qx_num_of(a.i / b.i) : unknown;
    if (!as_ratio(ix, a, &ea, &da) || !as_ratio(ix, b, &eb, &db) || da != 1 || db != 1) return unknown;
    return of_expr(ix, qx_expr_exact_div(qx_ix_exprs(ix), ea, eb), 1);
}

qx_num qx_num_div(qx_infer *ix, qx_num a, qx_num b)
{
    double x, y;
    int64_t den;
    const qx_expr *e;
    int64_t da;
    if (qx_num_as_real(a, &x) && qx_num_as_real(b, &y)) return y != 0 ? qx_num_real(x / y) : unknown;
    qx_num exact = qx_num_exact_div(ix, a, b);
    if (exact.kind != QX_NUM_UNKNOWN) return exact;
    if (qx_num_as_int(b, &den) && den > 0 && as_ratio(ix, a, &e, &da) && qx_mul_i64(den, da, &den)) return of_expr(ix, e, den);
    return qx_num_as_real(b, &y) && y != 0 ? qx_num_mul(ix, a, qx_num_real(1 / y)) : unknown;
}

qx_num qx_num_floor(qx_infer *ix, qx_num a)
{
    if (a.kind == QX_NUM_REAL) return qx_num_real(floor(a.f));
    if (a.kind != QX_NUM_EXPR || a.i == 1) return a;
    return of_expr(ix, qx_expr_floordiv(qx_ix_exprs(ix), a.e, qx_expr_int(qx_ix_exprs(ix), a.i)), 1);
}

qx_num qx_num_ceil(qx_infer *ix, qx_num a)
{
    qx_exprs *x = qx_ix_exprs(ix);
    if (a.kind == QX_NUM_REAL) return qx_num_real(ceil(a.f));
    if (a.kind != QX_NUM_EXPR || a.i == 1) return a;
    return of_expr(ix, qx_expr_floordiv(x, qx_expr_add(x, a.e, qx_expr_int(x, a.i - 1)), qx_expr_int(x, a.i)), 1);
}

static qx_num extreme(qx_infer *ix, qx_num a, qx_num b, bool want_max)
{
    const qx_expr *ea, *eb;
    int64_t da, db;
    double x, y;
    if (a.kind == QX_NUM_UNKNOWN || b.kind == QX_NUM_UNKNOWN) return unknown;
    if (a.kind == QX_NUM_INT && b.kind == QX_NUM_INT) return (a.i > b.i) == want_max ? a : b;
    if (qx_num_as_real(a, &x) && qx_num_as_real(b, &y)) return (x > y) == want_max ? a : b;
    if (!as_ratio(ix, a, &ea, &da) || !as_ratio(ix, b, &eb, &db) || da != 1 || db != 1) return unknown;
    return of_expr(ix, want_max ? qx_expr_max(qx_ix_exprs(ix), ea, eb) : qx_expr_min(qx_ix_exprs(ix), ea, eb), 1);
}

qx_num qx_num_min(qx_infer *ix, qx_num a, qx_num b) { return extreme(ix, a, b, false); }
qx_num qx_num_max(qx_infer *ix, qx_num a, qx_num b) { return extreme(ix, a, b, true); }

bool qx_num_nonneg(qx_num a)
{
    return a.kind == QX_NUM_INT ? a.i >= 0 : a.kind == QX_NUM_REAL ? a.f >= 0 : a.kind == QX_NUM_EXPR && qx_expr_nonneg(a.e);
}

qx_dim qx_dim_add(qx_infer *ix, qx_dim a, qx_dim b)
{
    int64_t v;
    if (a.n >= 0 && b.n >= 0) return qx_add_i64(a.n, b.n, &v) ? qx_dim_of(v) : qx_dim_unknown();
    return qx_dim_of_num(ix, qx_num_add(ix, qx_num_of_dim(ix, a), qx_num_of_dim(ix, b)));
}

qx_dim qx_dim_mul(qx_infer *ix, qx_dim a, qx_dim b)
{
    int64_t v;
    if (a.n == 0 || b.n == 0) return qx_dim_of(0);
    if (a.n >= 0 && b.n >= 0) return qx_mul_i64(a.n, b.n, &v) ? qx_dim_of(v) : qx_dim_unknown();
    if (a.n == 1) return b;
    if (b.n == 1) return a;
    return qx_dim_of_num(ix, qx_num_mul(ix, qx_num_of_dim(ix, a), qx_num_of_dim(ix, b)));
}

qx_dim qx_dim_product(qx_infer *ix, const qx_dim *dims, int count)
{
    qx_dim p = qx_dim_of(1);
    for (int i = 0; i < count; i++) p = qx_dim_mul(ix, p, dims[i]);
    return p;
}
