/* binary.c - operators of two broadcast operands (and the variadic Min, Max, Sum, Mean folded over them), and Where. */
#include "runtime/cpu/pointwise/broadcast.h"
#include "runtime/pointwise_ops.h"

enum { PIECE = 1 << 14, HALF_TILE = 1024 /* floats on the stack */ };

typedef struct job {
    qx_binary_fn *fn;
    const qx_bcast *b;
    const char *x[2];
    char *y;
    int64_t runs_a_piece, cuts, cut; /* cuts a run into pieces of `cut` elements when it is long */
    int size, out_size;
    qx_dtype half;                   /* FLOAT16 or BFLOAT16 when computed through float, else UNDEFINED */
    bool half_out;
} job;

static void half_run(const job *j, const char *a, int64_t sa, const char *b, int64_t sb, char *y, int64_t n)
{
    float ta[HALF_TILE], tb[HALF_TILE];
    if (!sa) qx_to_f32(j->half, a, 1, ta);
    if (!sb) qx_to_f32(j->half, b, 1, tb);
    for (int64_t k = 0; k < n; k += HALF_TILE) {
        int64_t m = n - k < HALF_TILE ? n - k : HALF_TILE;
        if (sa) qx_to_f32(j->half, a + 2 * k, m, ta);
        if (sb) qx_to_f32(j->half, b + 2 * k, m, tb);
        if (!j->half_out) {
            j->fn(ta, sa, tb, sb, y + k, m);
            continue;
        }
        float ty[HALF_TILE];
        j->fn(ta, sa, tb, sb, ty, m);
        qx_from_f32(j->half, ty, m, y + 2 * k);
    }
}

static void one_run(const job *j, int64_t r, int64_t from, int64_t n)
{
    const qx_bcast *b = j->b;
    int64_t off[3], sa = b->stride[0][b->rank - 1], sb = b->stride[1][b->rank - 1];
    qx_bcast_at(b, r, off);
    const char *pa = j->x[0] + (off[0] + from * sa) * j->size, *pb = j->x[1] + (off[1] + from * sb) * j->size;
    char *y = j->y + (r * b->run + from) * j->out_size;
    if (j->half) half_run(j, pa, sa, pb, sb, y, n);
    else j->fn(pa, sa, pb, sb, y, n);
}

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    if (j->cuts > 1) {
        int64_t from = i % j->cuts * j->cut, n = j->b->run - from < j->cut ? j->b->run - from : j->cut;
        one_run(j, i / j->cuts, from, n);
        return QX_OK;
    }
    int64_t first = i * j->runs_a_piece, last = first + j->runs_a_piece < j->b->runs ? first + j->runs_a_piece : j->b->runs;
    for (int64_t r = first; r < last; r++) one_run(j, r, 0, j->b->run);
    return QX_OK;
}

static qx_status run_job(qx_call *c, job *j)
{
    const qx_bcast *b = j->b;
    if (b->run == 0 || b->runs == 0) return QX_OK;
    int64_t pieces;
    if (b->run > PIECE) {
        j->cut = PIECE;
        j->cuts = (b->run + PIECE - 1) / PIECE;
        pieces = b->runs * j->cuts;
    } else {
        j->cuts = 1;
        j->runs_a_piece = PIECE / b->run;
        pieces = (b->runs + j->runs_a_piece - 1) / j->runs_a_piece;
    }
    return qx_parallel(c->ctx, pieces, piece, j);
}

/* y = fn(a, b); a and b of one type. */
static qx_status apply(qx_call *c, qx_binary op, bool to_bool, const qx_tensor *a, const qx_tensor *b, const qx_bcast *bc, qx_tensor *y)
{
    bool half = a->dtype == QX_DT_FLOAT16 || a->dtype == QX_DT_BFLOAT16;
    job j = {.fn = qx_binary_find(op, half ? QX_DT_FLOAT : a->dtype), .b = bc, .x = {a->data, b->data}, .y = y->data,
             .size = qx_dtype_bits(a->dtype) / 8, .out_size = to_bool ? 1 : qx_dtype_bits(a->dtype) / 8,
             .half = half ? a->dtype : QX_DT_UNDEFINED, .half_out = !to_bool};
    if (!j.fn) QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get(a->dtype)->text);
    return run_job(c, &j);
}

/* An operand of a blocked output as [N, C / block, H, W, block]: a picture of that layout, one number a channel, or one number. */
static qx_status block_view(qx_call *c, uint32_t i, int block, qx_tensor *out)
{
    const qx_tensor *t = c->in[i];
    const int64_t *d = t->dims;
    int64_t ch = t->rank >= 3 ? d[t->rank - 3] : 1, n = t->rank == 4 ? d[0] : 1,
        last[2] = {t->rank >= 2 ? d[t->rank - 2] : 1, t->rank >= 1 ? d[t->rank - 1] : 1};
    bool pixels = qx_call_in_block(c, i) != 0;
    char text[96];
    if (t->rank > 4 || (!pixels && (last[0] != 1 || last[1] != 1)) || (ch != 1 && ch % block))
        QX_CALL_FAIL(c, QX_E_SHAPE, "input %u is %s, the model declares one number a channel", i, qx_tensor_describe(t, text, sizeof text));
    *out = *t;
    out->rank = 5;
    out->dims[0] = n;
    out->dims[1] = ch == 1 ? 1 : ch / block;
    out->dims[2] = last[0];
    out->dims[3] = last[1];
    out->dims[4] = ch == 1 ? 1 : block;
    return QX_OK;
}

static bool same_dims(const qx_tensor *t, const qx_bcast *b)
{
    if (t->rank != b->out_rank) return false;
    for (int i = 0; i < t->rank; i++)
        if (t->dims[i] != b->out_dims[i]) return false;
    return true;
}

/* Pow's exponent may have another type: it is converted to the base's when that is exact enough (through double for 64-bit types). */
static qx_status same_type(qx_call *c, const qx_tensor *a, const qx_tensor **b, qx_tensor *own)
{
    if ((*b)->dtype == a->dtype) return QX_OK;
    if (c->node->op->id != QX_OP_Pow)
        QX_CALL_FAIL(c, QX_E_TYPE, "operands are %s and %s", qx_dtype_get(a->dtype)->text, qx_dtype_get((*b)->dtype)->text);
    const float *f;
    QX_TRY(qx_call_to_f32(c, *b, &f));
    QX_TRY(qx_tensor_shape(c->ctx, own, a->dtype, (*b)->rank, (*b)->dims));
    QX_TRY(qx_call_scratch(c, own->bytes, &own->data));
    if (a->dtype == QX_DT_DOUBLE)
        for (int64_t i = 0; i < own->numel; i++) ((double *)own->data)[i] = f[i];
    else qx_from_f32(a->dtype, f, own->numel, own->data);
    *b = own;
    return QX_OK;
}

static qx_status string_equal(qx_call *c, const qx_bcast *bc, const qx_tensor *a, const qx_tensor *b)
{
    qx_tensor *y = NULL;
    QX_TRY(qx_call_out(c, 0, QX_DT_BOOL, bc->out_rank, bc->out_dims, &y));
    char *const *sa = a->data, *const *sb = b->data;
    for (int64_t r = 0; r < bc->runs; r++) {
        int64_t off[3];
        qx_bcast_at(bc, r, off);
        for (int64_t i = 0; i < bc->run; i++) {
            const char *u = sa[off[0] + i * bc->stride[0][bc->rank - 1]], *v = sb[off[1] + i * bc->stride[1][bc->rank - 1]];
            while (*u && *u == *v) { u++; v++; }
            ((uint8_t *)y->data)[r * bc->run + i] = *u == *v;
        }
    }
    return QX_OK;
}

static qx_binary kernel_of(const qx_call *c, qx_binary fn)
{
    if (c->node->op->id == QX_OP_Mod) return qx_call_int(c, "fmod", 0) ? QX_B_FMOD : QX_B_MOD;
    if (c->node->op->id == QX_OP_BitShift) return *qx_call_str(c, "direction", "LEFT") == 'L' ? QX_B_SHL : QX_B_SHR;
    return fn;
}

static qx_status blocked_binary(qx_call *c, qx_binary fn, int block)
{
    qx_tensor v[2], *y = NULL;
    const qx_tensor *ops[2] = {&v[0], &v[1]};
    qx_bcast bc;
    for (uint32_t i = 0; i < 2; i++) QX_TRY(block_view(c, i, block, &v[i]));
    QX_TRY(qx_bcast_make(c, ops, 2, &bc));
    const int64_t *d = bc.out_dims, dims[4] = {d[0], d[1] * d[4], d[2], d[3]};
    uint32_t take = same_dims(&v[0], &bc) && qx_call_may_reuse(c, 0, 0) ? 0 : 1;
    if (same_dims(&v[take], &bc)) QX_TRY(qx_call_out_reuse(c, 0, take, v[0].dtype, 4, dims, &y));
    else QX_TRY(qx_call_out(c, 0, v[0].dtype, 4, dims, &y));
    return apply(c, fn, false, &v[0], &v[1], &bc, y);
}

qx_status qx_cpu_binary(qx_call *c)
{
    const qx_tensor *a, *b;
    qx_tensor own, *y = NULL, old;
    qx_bcast bc;
    const qx_binary_row *row = qx_binary_row_of(c->node->op->id);
    qx_binary fn = kernel_of(c, row ? row->fn : QX_B_COUNT_);
    bool to_bool = row && row->to_bool;
    if (fn == QX_B_COUNT_) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "not in the table of binary functions");
    QX_TRY(qx_call_need(c, 0, &a));
    QX_TRY(qx_call_need(c, 1, &b));
    if (qx_call_out_block(c, 0)) return blocked_binary(c, fn, qx_call_out_block(c, 0));
    QX_TRY(same_type(c, a, &b, &own));
    if (c->version < 7 && qx_call_int(c, "broadcast", 0)) { /* old form: b's dims stand at `axis` of a */
        int axis;
        QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", a->rank - b->rank), a->rank + 1, &axis));
        if (axis + b->rank > a->rank) QX_CALL_FAIL(c, QX_E_SHAPE, "axis %d and rank %d reach past rank %d", axis, b->rank, a->rank);
        old = *b;
        for (int i = b->rank; i < a->rank - axis; i++) old.dims[i] = 1;
        old.rank = a->rank - axis;
        b = &old;
    }
    const qx_tensor *ops[2] = {a, b};
    QX_TRY(qx_bcast_make(c, ops, 2, &bc));
    if (a->dtype == QX_DT_STRING) return string_equal(c, &bc, a, b);
    qx_dtype dt = to_bool ? QX_DT_BOOL : a->dtype;
    bool take_b = !same_dims(a, &bc) || !qx_call_may_reuse(c, 0, 0);
    bool ok = same_dims(take_b ? b : a, &bc) && !to_bool;
    if (ok) QX_TRY(qx_call_out_reuse(c, 0, take_b ? 1 : 0, dt, bc.out_rank, bc.out_dims, &y));
    else QX_TRY(qx_call_out(c, 0, dt, bc.out_rank, bc.out_dims, &y));
    return apply(c, fn, to_bool, a, b, &bc, y);
}

/* Min, Max, Sum, Mean: folded from the left. */
qx_status qx_cpu_variadic(qx_call *c)
{
    const qx_binary_row *row = qx_binary_row_of(c->node->op->id);
    const qx_tensor *first;
    qx_tensor *y = NULL, acc;
    qx_bcast bc = {0};
    QX_TRY(qx_call_need(c, 0, &first));
    if (!row) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "not in the table of binary functions");
    if (c->n_in == 1) return qx_call_out_view(c, 0, 0, first->rank, first->dims);
    int64_t dims[QX_MAX_RANK];
    int rank = 0;
    for (uint32_t i = 0; i < c->n_in; i++) {
        const qx_tensor *t;
        int64_t wider[QX_MAX_RANK];
        QX_TRY(qx_call_need(c, i, &t));
        if (!qx_broadcast(dims, rank, t->dims, t->rank, wider, &rank))
            QX_CALL_FAIL(c, QX_E_SHAPE, "input %u cannot be broadcast to the others", i);
        for (int k = 0; k < rank; k++) dims[k] = wider[k];
    }
    QX_TRY(qx_call_out(c, 0, first->dtype, rank, dims, &y));
    acc = *first;
    for (uint32_t i = 1; i < c->n_in; i++) { /* the partial results live in scratch, the last in the output */
        const qx_tensor *ops[2] = {&acc, c->in[i]};
        qx_tensor next;
        QX_TRY(qx_bcast_make(c, ops, 2, &bc));
        QX_TRY(qx_tensor_shape(c->ctx, &next, first->dtype, bc.out_rank, bc.out_dims));
        if (i + 1 == c->n_in) next.data = y->data;
        else QX_TRY(qx_call_scratch(c, next.bytes, &next.data));
        QX_TRY(apply(c, row->fn, false, &acc, c->in[i], &bc, &next));
        acc = next;
    }
    if (row->op != QX_OP_Mean) return QX_OK;
    float count = (float)c->n_in;
    uint64_t k_bits[1];
    qx_tensor k = {.dtype = first->dtype, .numel = 1, .data = k_bits};
    if (first->dtype == QX_DT_DOUBLE) *(double *)k.data = count;
    else qx_from_f32(first->dtype, &count, 1, k.data);
    const qx_tensor *ops[2] = {y, &k};
    QX_TRY(qx_bcast_make(c, ops, 2, &bc));
    return apply(c, QX_B_DIV, false, y, &k, &bc, y);
}

typedef struct where_job { const qx_bcast *b; const uint8_t *cond; const char *x, *z; char *y; int size; int64_t per; } where_job;

static qx_status where_piece(void *user, int64_t i)
{
    const where_job *j = user;
    const qx_bcast *b = j->b;
    int l = b->rank - 1;
    int64_t last = (i + 1) * j->per < b->runs ? (i + 1) * j->per : b->runs;
    for (int64_t r = i * j->per; r < last; r++) {
        int64_t off[3];
        qx_bcast_at(b, r, off);
        qx_select(j->cond + off[0], b->stride[0][l], j->x + off[1] * j->size, b->stride[1][l], j->z + off[2] * j->size, b->stride[2][l],
                  j->y + r * b->run * j->size, b->run, j->size);
    }
    return QX_OK;
}

static qx_status where_strings(qx_call *c, const qx_bcast *b, const qx_tensor *const *ops)
{
    qx_tensor y;
    QX_TRY(qx_tensor_new(c->ctx, &y, QX_DT_STRING, b->out_rank, b->out_dims));
    qx_status st = QX_OK;
    for (int64_t i = 0; i < b->run * b->runs && st == QX_OK; i++) {
        int64_t off[3], k = i % b->run;
        qx_bcast_at(b, i / b->run, off);
        bool yes = ((const uint8_t *)ops[0]->data)[off[0] + k * b->stride[0][b->rank - 1]];
        int o = yes ? 1 : 2;
        const char *s = ((char *const *)ops[o]->data)[off[o] + k * b->stride[o][b->rank - 1]];
        size_t n = 0;
        while (s[n]) n++;
        st = qx_alloc(c->ctx, n + 1, (void **)&((char **)y.data)[i]);
        for (size_t q = 0; st == QX_OK && q < n; q++) ((char **)y.data)[i][q] = s[q];
    }
    if (st != QX_OK) qx_tensor_free(c->ctx, &y);
    return st == QX_OK ? qx_call_out_take(c, 0, &y) : st;
}

qx_status qx_cpu_where(qx_call *c)
{
    const qx_tensor *ops[3];
    qx_bcast b;
    qx_tensor *y = NULL;
    for (uint32_t i = 0; i < 3; i++) QX_TRY(qx_call_need(c, i, &ops[i]));
    if (ops[0]->dtype != QX_DT_BOOL || ops[1]->dtype != ops[2]->dtype)
        QX_CALL_FAIL(c, QX_E_TYPE, "condition is %s, operands are %s and %s", qx_dtype_get(ops[0]->dtype)->text,
                     qx_dtype_get(ops[1]->dtype)->text, qx_dtype_get(ops[2]->dtype)->text);
    QX_TRY(qx_bcast_make(c, ops, 3, &b));
    if (ops[1]->dtype == QX_DT_STRING) return where_strings(c, &b, ops);
    QX_TRY(qx_call_out(c, 0, ops[1]->dtype, b.out_rank, b.out_dims, &y));
    if (!b.run || !b.runs) return QX_OK;
    where_job j = {&b, ops[0]->data, ops[1]->data, ops[2]->data, y->data, qx_dtype_bits(ops[1]->dtype) / 8, PIECE / b.run + 1};
    return qx_parallel(c->ctx, (b.runs + j.per - 1) / j.per, where_piece, &j);
}
