/* infer_matmul.c - inference of products of matrices (MatMul, Gemm, Einsum, Det). */
#include <string.h>

#include "onnx/infer/infer_op.h"
#include "onnx/infer/infer_matmul.h"

qx_status qx_matmul_shape(qx_infer *ix, qx_node *n, const qx_type *a, const qx_type *b, int dtype)
{
    qx_dim a2[2] = {{.n = 1}}, b2[2] = {{0}, {.n = 1}}, *batch, *dims;
    int ra = a->rank, rb = b->rank, rank;
    if (ra == 0 || rb == 0) QX_IX_FAIL(ix, n, QX_E_SHAPE, "it multiplies a scalar");
    const qx_dim *da = a->dims, *db = b->dims;
    if (ra == 1) a2[1] = a->dims[0], da = a2, ra = 2;
    if (rb == 1) b2[0] = b->dims[0], db = b2, rb = 2;
    qx_dim k = da[ra - 1];
    QX_TRY(qx_ix_equal(ix, n, "the inner dims of A and B", &k, db[rb - 2]));
    QX_TRY(qx_ix_broadcast(ix, n, da, ra - 2, db, rb - 2, &batch, &rank));
    dims = qx_ix_dims(ix, rank + 2);
    if (!dims) return QX_IX_NOMEM(ix);
    if (rank) memcpy(dims, batch, (size_t)rank * sizeof *dims);
    if (a->rank > 1) dims[rank++] = da[ra - 2];
    if (b->rank > 1) dims[rank++] = db[rb - 1];
    return qx_ix_out(ix, n, 0, dtype, rank, dims);
}

static qx_status matmul(qx_infer *ix, qx_node *n, uint32_t a_in, uint32_t b_in, int dtype)
{
    const qx_type *a, *b;
    if (!qx_ix_shaped(ix, n, a_in, &a) || !qx_ix_shaped(ix, n, b_in, &b)) return qx_ix_out_unranked(ix, n, 0, dtype);
    return qx_matmul_shape(ix, n, a, b, dtype);
}

int qx_infer_matmul(qx_infer *ix, qx_node *n)
{
    int a = qx_ix_dtype(ix, n, 0), b = qx_ix_dtype(ix, n, 1);
    if (a && b && a != b) QX_IX_FAIL(ix, n, QX_E_TYPE, "A is %s but B is %s", qx_dtype_get(a)->text, qx_dtype_get(b)->text);
    return matmul(ix, n, 0, 1, a ? a : b);
}

int qx_infer_matmul_integer(qx_infer *ix, qx_node *n) { return matmul(ix, n, 0, 1, QX_DT_INT32); }

int qx_infer_qlinear_matmul(qx_infer *ix, qx_node *n)
{
    int dtype = qx_ix_dtype(ix, n, 7);
    return matmul(ix, n, 0, 3, dtype ? dtype : qx_ix_dtype(ix, n, 0));
}

qx_status qx_gemm_shape(qx_infer *ix, qx_node *n, uint32_t b_in, int dtype)
{
    const qx_type *a, *b, *c;
    bool ta = qx_ix_int(ix, n, "transA", 0) != 0, tb = qx_ix_int(ix, n, "transB", 0) != 0;
    qx_dim *dims = qx_ix_dims(ix, 2), *both;
    int rank;
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = dims[1] = qx_dim_unknown();
    bool has_a = qx_ix_shaped(ix, n, 0, &a), has_b = qx_ix_shaped(ix, n, b_in, &b);
    if (has_a && a->rank != 2) QX_IX_FAIL(ix, n, QX_E_SHAPE, "A has rank %d instead of 2", a->rank);
    if (has_b && b->rank != 2) QX_IX_FAIL(ix, n, QX_E_SHAPE, "B has rank %d instead of 2", b->rank);
    if (has_a && has_b) {
        qx_dim k = a->dims[ta ? 0 : 1];
        QX_TRY(qx_ix_equal(ix, n, "the inner dims of A and B", &k, b->dims[tb ? 1 : 0]));
    }
    if (has_a) dims[0] = a->dims[ta ? 1 : 0];
    if (has_b) dims[1] = b->dims[tb ? 0 : 1];
    if (b_in == 1 && n->op->since >= 7 && has_a && has_b && qx_ix_shaped(ix, n, 2, &c)) {
        QX_TRY(qx_ix_broadcast(ix, n, dims, 2, c->dims, c->rank, &both, &rank));
        if (rank != 2 || (dims[0].n >= 0 && both[0].n != dims[0].n) || (dims[1].n >= 0 && both[1].n != dims[1].n))
            QX_IX_FAIL(ix, n, QX_E_SHAPE, "C does not broadcast to the product of A and B");
    }
    return qx_ix_out(ix, n, 0, dtype, 2, dims);
}

int qx_infer_gemm(qx_infer *ix, qx_node *n) { return qx_gemm_shape(ix, n, 1, qx_ix_dtype(ix, n, 0)); }

int qx_infer_det(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    if (x->rank < 2) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its input has rank %d and needs at least 2", x->rank);
    qx_dim k = x->dims[x->rank - 1];
    QX_TRY(qx_ix_equal(ix, n, "rows and columns", &k, x->dims[x->rank - 2]));
    return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank - 2, x->dims);
}

/* ---- Einsum -------------------------------------------------------------------------------------------------------------- */

enum { LETTERS = 52 };
typedef struct einsum {
    qx_infer *ix;
    const qx_node *n;
    bool seen[LETTERS];
    int uses[LETTERS];
    qx_dim dim[LETTERS];
    qx_dim *more; int n_more; /* dims behind "..." */
} einsum;

static int letter(char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? 26 + c - 'a' : -1;
}

/* One operand's term, e.g. "b...ij", against its shape. */
static qx_status einsum_term(einsum *e, const char *term, size_t len, const qx_type *t)
{
    int named = 0, k = 0, extra;
    bool dots = false;
    for (size_t i = 0; i < len; i++) named += letter(term[i]) >= 0;
    extra = t->rank - named;
    for (size_t i = 0; i < len; i++) {
        int c = letter(term[i]);
        if (term[i] == ' ') continue;
        if (term[i] == '.') {
            if (dots || i + 2 >= len || term[i + 1] != '.' || term[i + 2] != '.' || extra < 0)
                QX_IX_FAIL(e->ix, e->n, QX_E_FORMAT, "the equation has a misplaced '.'");
            dots = true;
            i += 2;
            QX_TRY(qx_ix_broadcast(e->ix, e->n, e->more, e->n_more, t->dims + k, extra, &e->more, &e->n_more));
            k += extra;
            continue;
        }
        if (c < 0) QX_IX_FAIL(e->ix, e->n, QX_E_FORMAT, "the equation has '%c' in it", term[i]);
        if (k >= t->rank) break;
        if (!e->seen[c] || e->dim[c].n == 1) e->dim[c] = t->dims[k];
        else if (t->dims[k].n != 1) QX_TRY(qx_ix_equal(e->ix, e->n, "dims of one letter", &e->dim[c], t->dims[k]));
        e->seen[c] = true;
        e->uses[c]++;
        k++;
    }
    if (named + (dots ? extra : 0) != t->rank)
        QX_IX_FAIL(e->ix, e->n, QX_E_SHAPE, "the equation has %d letters for an operand of rank %d", named, t->rank);
    return QX_OK;
}

static qx_status einsum_out(einsum *e, const char *right, int dtype)
{
    qx_dim *dims = qx_ix_dims(e->ix, LETTERS + e->n_more + 1);
    int rank = 0;
    if (!dims) return QX_IX_NOMEM(e->ix);
    if (!right) { /* implicit: "..." and then letters used once, in alphabetical order */
        for (int i = 0; i < e->n_more; i++) dims[rank++] = e->more[i];
        for (int c = 0; c < LETTERS; c++) {
            if (e->uses[c] == 1) dims[rank++] = e->dim[c];
        }
        return qx_ix_out(e->ix, e->n, 0, dtype, rank, dims);
    }
    for (const char *p = right; *p; p++) {
        int c = letter(*p);
        if (*p == ' ') continue;
        if (strncmp(p, "...", 3) == 0) {
            if (rank > LETTERS) break;
            for (int i = 0; i < e->n_more; i++) dims[rank++] = e->more[i];
            p += 2;
            continue;
        }
        if (c < 0 || !e->seen[c] || rank >= LETTERS)
            QX_IX_FAIL(e->ix, e->n, QX_E_FORMAT, "the result of the equation has '%c' in it, the operands have not", *p);
        dims[rank++] = e->dim[c];
    }
    return qx_ix_out(e->ix, e->n, 0, dtype, rank, dims);
}

int qx_infer_einsum(qx_infer *ix, qx_node *n)
{
    const char *equation = qx_ix_string(ix, n, "equation", NULL);
    einsum e = {.ix = ix, .n = n};
    if (!equation) return QX_OK;
    const char *arrow = strstr(equation, "->"), *p = equation, *stop = arrow ? arrow : equation + strlen(equation);
    for (uint32_t i = 0; i < n->n_in; i++) {
        const qx_type *t;
        const char *comma = memchr(p, ',', (size_t)(stop - p));
        if (!qx_ix_shaped(ix, n, i, &t)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
        if ((comma == NULL) != (i + 1 == n->n_in))
            QX_IX_FAIL(ix, n, QX_E_FORMAT, "the equation and the node differ in the number of operands (%u)", n->n_in);
        QX_TRY(einsum_term(&e, p, (size_t)((comma ? comma : stop) - p), t));
        p = comma ? comma + 1 : stop;
    }
    return einsum_out(&e, arrow ? arrow + 2 : NULL, qx_ix_dtype(ix, n, 0));
}
