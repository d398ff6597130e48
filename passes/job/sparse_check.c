/* sparse_check.c - see sparse_check.h. A quantized value is 0 when its code is the zero point (code 0 without one). */
#include "passes/job/sparse_check.h"

#include "passes/linear/linear.h"

typedef struct source { const qx_weight *codes, *zero; bool transposed; } source;
typedef struct checker { qx_ctx *ctx; qx_arena *arena; qx_sparse_row *rows; int64_t n, cap; } checker;

/* Back from the operator's weight input to what the file stores. */
static bool find_source(const qx_value *v, source *s)
{
    for (int depth = 0; v && depth < 16; depth++) {
        const qx_weight *w = qx_value_const(v);
        if (w) return s->codes = w, true;
        const qx_node *d = v->def;
        if (!d) return false;
        if (d->op->id == QX_OP_Transpose) s->transposed = !s->transposed;
        else if (d->op->id == QX_OP_DequantizeLinear) s->zero = qx_node_in(d, 2) ? qx_value_const(d->in[2]) : NULL;
        else if (d->op->id != QX_OP_Cast && d->op->id != QX_OP_Identity) return false;
        v = qx_node_in(d, 0);
    }
    return false;
}

/* One zero point for the whole tensor, or none. */
static qx_status one_zero(qx_ctx *ctx, const qx_weight *zero, float *z, bool *ok)
{
    float tile[512];
    *z = 0;
    *ok = true;
    for (int64_t at = 0; zero && at < zero->numel; at += 512) {
        const int64_t n = zero->numel - at < 512 ? zero->numel - at : 512;
        QX_TRY(qx_weight_read_f32(ctx, zero, at, n, tile));
        if (!at) *z = tile[0];
        for (int64_t i = 0; i < n; i++) *ok = *ok && tile[i] == *z;
    }
    return QX_OK;
}

/* How the stored tensor is laid out: `outer` blocks, in each `k` values along the contraction, `inner` apart. */
typedef struct layout { int64_t outer, k, inner; } layout;

static bool layout_of(const qx_node *n, const source *s, layout *l)
{
    const qx_weight *w = s->codes;
    if (n->op->id == QX_OP_Conv) {
        if (w->rank < 3) return false;
        *l = (layout){w->dims[0], w->dims[1], 1};
        for (int d = 2; d < w->rank; d++) l->inner *= w->dims[d];
        return true;
    }
    if (w->rank != 2 || (n->op->id != QX_OP_MatMul && n->op->id != QX_OP_Gemm)) return false;
    const bool last = s->transposed != (n->op->id == QX_OP_Gemm && qx_attr_int(n, "transB", 0)); /* contraction is the last stored axis */
    *l = last ? (layout){w->dims[0], w->dims[1], 1} : (layout){1, w->dims[0], w->dims[1]};
    return true;
}

static qx_status count(checker *c, const source *s, const layout *l, float z, qx_sparse_row *row)
{
    float *x = NULL;
    int64_t zeros = 0;
    qx_status st = qx_alloc_raw(c->ctx, (size_t)(4 * l->inner) * sizeof *x, (void **)&x);
    for (int64_t o = 0; st == QX_OK && o < l->outer; o++)
        for (int64_t k = 0; st == QX_OK && k < l->k; k += 4) {
            const int64_t len = l->k - k < 4 ? l->k - k : 4;
            st = qx_weight_read_f32(c->ctx, s->codes, (o * l->k + k) * l->inner, len * l->inner, x);
            for (int64_t i = 0; st == QX_OK && i < l->inner; i++) {
                int live = 0;
                for (int64_t j = 0; j < len; j++) live += x[j * l->inner + i] != z;
                zeros += len - live;
                row->groups += len == 4;
                row->broken += len == 4 && live > 2;
            }
        }
    qx_free(c->ctx, x);
    row->zeros = s->codes->numel ? (double)zeros / (double)s->codes->numel : 0;
    return st;
}

static qx_status look(void *user, qx_node *n)
{
    checker *c = user;
    source s = {0};
    layout l;
    float z;
    bool same;
    if (!(n->op->traits & QX_T_LINEAR) || !find_source(qx_node_in(n, 1), &s)) return QX_OK;
    QX_TRY(qx_arena_grow(c->arena, (void **)&c->rows, c->n, &c->cap, sizeof *c->rows));
    qx_sparse_row *row = &c->rows[c->n++];
    *row = (qx_sparse_row){.node = n->name, .weight = s.codes->name};
    if (!layout_of(n, &s, &l)) return row->note = "layout is not looked at", QX_OK;
    QX_TRY(one_zero(c->ctx, s.zero, &z, &same));
    if (!same) return row->note = "zero points differ from block to block", QX_OK;
    return count(c, &s, &l, z, row);
}

qx_status qx_sparse_check(qx_model *m, qx_arena *arena, qx_sparse_row **out, int64_t *n)
{
    checker c = {.ctx = m->ctx, .arena = arena};
    QX_TRY(qx_model_each_node(m, look, &c));
    *out = c.rows;
    *n = c.n;
    return QX_OK;
}
