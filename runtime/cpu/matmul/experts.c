/* experts.c - the step behind runtime/fuse/fuse_experts.c: each row times the one of several constant matrices that an index
 * names. Rows of the same expert are brought together and multiplied as one matrix, so that an expert is read once a run and one
 * that no row asks for not at all. Matrices of floats are packed at the first run; one of codes is dequantized and packed when
 * its turn comes, so that there is never a float copy of more than one. */
#include <string.h>

#include "kernels/gemm.h"
#include "onnx/weight/weight.h"
#include "runtime/cpu/matmul/matmul.h"
#include "runtime/cpu/codes/rows_of.h"
#include "runtime/plan.h"

enum { NR = QX_GEMM_NR, BLOCK = 56, COLS = 8 * NR }; /* rows and columns of a piece */

typedef struct state { float *packed; } state; /* [experts][panels] of qx_gemm_pack_panel */

static void drop(qx_ctx *ctx, void *block) { qx_free(ctx, ((state *)block)->packed); }

/* The product: `per` rows for each of `batches` indices. */
typedef struct product {
    int64_t experts, k, n, batches, per, pieces, packed_size; /* pieces: of the columns of a block */
    bool left;
    const float *packed;            /* [experts][packed_size], or of the one expert whose turn it is */
    int64_t stride, block;          /* in packed, from expert to expert; first block of this turn */
    const int64_t *expert;          /* [batches] */
    float *in;                      /* [batches * per, k] rows in order of their expert */
    int64_t *row;                   /* [batches * per] number of the output row of each, as (batch, row in it) */
    struct block { int64_t expert, first, rows; } *blocks; int64_t n_blocks;
    float *y;
} product;

/* ---- Packing ---- */

static void pack_matrix(const product *p, const float *w, float *dst)
{
    for (int64_t i = 0; i * NR < p->n; i++)
        qx_gemm_pack_panel(w, p->k, p->n, p->left ? 1 : p->n, p->left ? p->k : 1, i, dst + i * NR * p->k);
}

static qx_status pack(qx_call *c, const product *p, float **out)
{
    const qx_weight *stored = qx_call_stored(c, QX_EXPERTS_TABLE);
    const int64_t one = p->k * p->n;
    const float *all = NULL;
    float *buf = NULL, *packed = NULL;
    if (stored) QX_TRY(QX_CALL_SCRATCH(c, one, &buf));
    else QX_TRY(qx_call_in_f32(c, QX_EXPERTS_TABLE, &all));
    QX_TRY(qx_alloc_array(c->ctx, (size_t)p->experts, (size_t)p->packed_size * sizeof *packed, (void **)&packed));
    qx_status st = QX_OK;
    for (int64_t e = 0; e < p->experts && st == QX_OK; e++) {
        if (stored) st = qx_weight_read_f32(c->ctx, stored, e * one, one, buf);
        if (st == QX_OK) pack_matrix(p, stored ? buf : all + e * one, packed + e * p->packed_size);
    }
    if (st == QX_OK) *out = packed;
    else qx_free(c->ctx, packed);
    return st;
}

/* ---- Order of the rows ---- */

static qx_status read_indices(qx_call *c, const qx_mm_shape *s, const qx_tensor *picked, product *p)
{
    const int64_t *given;
    int64_t count, *expert;
    QX_TRY(qx_call_in_i64(c, QX_EXPERTS_INDEX, &given, &count));
    QX_TRY(QX_CALL_SCRATCH(c, p->batches, &expert));
    for (int64_t i = 0; i < p->batches; i++) {
        const int64_t at = given[qx_mm_batch_at(s, picked, i)];
        expert[i] = at < 0 ? at + p->experts : at;
        if (expert[i] < 0 || expert[i] >= p->experts)
            QX_CALL_FAIL(c, QX_E_SHAPE, "index %lld of %lld", (long long)at, (long long)p->experts);
    }
    p->expert = expert;
    return QX_OK;
}

/* start[e]: where the rows of expert e begin. */
static qx_status cut_blocks(qx_call *c, product *p, const int64_t *start)
{
    int64_t n = 0;
    for (int64_t e = 0; e < p->experts; e++) n += (start[e + 1] - start[e] + BLOCK - 1) / BLOCK;
    QX_TRY(QX_CALL_SCRATCH(c, n, &p->blocks));
    for (int64_t e = 0; e < p->experts; e++)
        for (int64_t r = start[e]; r < start[e + 1]; r += BLOCK)
            p->blocks[p->n_blocks++] = (struct block){e, r, start[e + 1] - r < BLOCK ? start[e + 1] - r : BLOCK};
    return QX_OK;
}

static void copy_row(const product *p, const float *x, int64_t j, float *dst)
{
    if (p->left)
        for (int64_t i = 0; i < p->k; i++) dst[i] = x[i * p->per + j];
    else
        memcpy(dst, x + j * p->k, (size_t)p->k * sizeof *dst);
}

static qx_status sort_rows(qx_call *c, const qx_mm_shape *s, const qx_tensor *tx, const float *x, product *p)
{
    int64_t *start, *next;
    QX_TRY(QX_CALL_SCRATCH(c, 2 * p->experts + 2, &start));
    QX_TRY(QX_CALL_SCRATCH(c, p->batches * p->per * p->k, &p->in));
    QX_TRY(QX_CALL_SCRATCH(c, p->batches * p->per, &p->row));
    next = start + p->experts + 1;
    memset(start, 0, (size_t)(p->experts + 1) * sizeof *start);
    for (int64_t i = 0; i < p->batches; i++) start[p->expert[i] + 1] += p->per;
    for (int64_t e = 0; e < p->experts; e++) start[e + 1] += start[e];
    memcpy(next, start, (size_t)p->experts * sizeof *next);
    for (int64_t i = 0; i < p->batches; i++)
        for (int64_t j = 0; j < p->per; j++) {
            const int64_t at = next[p->expert[i]]++;
            p->row[at] = i * p->per + j;
            copy_row(p, x + qx_mm_batch_at(s, tx, i) * p->per * p->k, j, p->in + at * p->k);
        }
    return cut_blocks(c, p, start);
}

/* ---- Product ---- */

static qx_status piece(void *user, int64_t i)
{
    const product *p = user;
    const struct block *b = &p->blocks[p->block + i / p->pieces];
    const int64_t first = i % p->pieces * COLS, cols = p->n - first < COLS ? p->n - first : COLS, step = p->left ? p->per : 1;
    float tile[BLOCK * COLS];
    const qx_sgemm g = {.m = b->rows, .k = p->k, .n = cols, .x = p->in + b->first * p->k, .ldx = p->k, .cx = 1,
                        .panels = p->packed + b->expert * p->stride + first * p->k, .step = NR * p->k,
                        .y = tile, .ldy = COLS, .alpha = 1.0f};
    qx_sgemm_run(&g);
    for (int64_t r = 0; r < b->rows; r++) {
        const int64_t row = p->row[b->first + r], batch = row / p->per;
        float *y = p->left ? p->y + (batch * p->n + first) * p->per + row % p->per : p->y + row * p->n + first;
        for (int64_t j = 0; j < cols; j++) y[j * step] = tile[r * COLS + j];
    }
    return QX_OK;
}

static qx_status run_floats(qx_call *c, product *p)
{
    state *st = NULL;
    QX_TRY(qx_call_state(c, sizeof *st, drop, (void **)&st));
    if (st->packed && !qx_call_in_const(c, QX_EXPERTS_TABLE)) { /* weights are not kept: read again */
        qx_free(c->ctx, st->packed);
        st->packed = NULL;
    }
    if (!st->packed) QX_TRY(pack(c, p, &st->packed));
    qx_call_drop_const(c, QX_EXPERTS_TABLE);
    p->packed = st->packed;
    p->stride = p->packed_size;
    return qx_parallel(c->ctx, p->n_blocks * p->pieces, piece, p);
}

/* One expert as float in m; buf: room for it in the table's type. */
static qx_status read_expert(qx_call *c, const qx_code_table *t, int64_t e, void *buf, float *m)
{
    if (t->type == QX_DT_FLOAT) return qx_code_table_read(c, t, &e, 1, m);
    QX_TRY(qx_code_table_read(c, t, &e, 1, buf));
    return qx_to_f32(t->type, buf, t->row, m) ? QX_OK : QX_E_TYPE;
}

static qx_status run_codes(qx_call *c, product *p, const qx_rows_dq_params *dq)
{
    qx_code_table t;
    float *m, *packed;
    uint64_t *buf;
    QX_TRY(qx_code_table_open(c, dq, QX_EXPERTS_TABLE, &t));
    QX_TRY(QX_CALL_SCRATCH(c, t.row, &m));
    QX_TRY(QX_CALL_SCRATCH(c, t.row, &buf));
    QX_TRY(QX_CALL_SCRATCH(c, p->packed_size, &packed));
    p->packed = packed;
    for (int64_t n; p->block < p->n_blocks; p->block += n) {
        const int64_t e = p->blocks[p->block].expert;
        for (n = 1; p->block + n < p->n_blocks && p->blocks[p->block + n].expert == e;) n++;
        const qx_scratch_mark mark = qx_scratch_here(c->exec);
        QX_TRY(read_expert(c, &t, e, buf, m));
        qx_scratch_back(c->exec, mark);
        pack_matrix(p, m, packed);
        QX_TRY(qx_parallel(c->ctx, n * p->pieces, piece, p));
    }
    return QX_OK;
}

/* The operand that the graph would have gathered: a shape without data. */
static qx_status picked_shape(qx_call *c, const qx_tensor *ix, const qx_tensor *w, bool nd, qx_tensor *out)
{
    const int batch = ix->rank - nd;
    *out = (qx_tensor){.dtype = c->in[QX_EXPERTS_X]->dtype, .rank = batch + 2};
    if (batch < 0 || batch + 2 > QX_MAX_RANK || (nd && ix->dims[batch] != 1))
        QX_CALL_FAIL(c, QX_E_SHAPE, "indices of rank %d for matrices", ix->rank);
    memcpy(out->dims, ix->dims, (size_t)batch * sizeof *out->dims);
    memcpy(out->dims + batch, w->dims + 1, 2 * sizeof *out->dims);
    return QX_OK;
}

qx_status qx_cpu_experts(qx_call *c)
{
    const qx_experts_params *f = c->fused;
    const qx_tensor *x, *ix, *w;
    const float *fx;
    qx_tensor picked;
    qx_mm_shape s;
    QX_TRY(qx_call_need(c, QX_EXPERTS_X, &x));
    QX_TRY(qx_call_need(c, QX_EXPERTS_INDEX, &ix));
    QX_TRY(qx_call_need(c, QX_EXPERTS_TABLE, &w));
    QX_TRY(picked_shape(c, ix, w, f->nd, &picked));
    QX_TRY(qx_mm_shape_of(c, f->left ? &picked : x, f->left ? x : &picked, &s));
    product p = {.experts = w->dims[0], .k = s.k, .n = f->left ? s.m : s.n, .per = f->left ? s.n : s.m,
                 .batches = qx_prod(s.batch_dims, 0, s.n_batch), .left = f->left};
    p.pieces = (p.n + COLS - 1) / COLS;
    p.packed_size = qx_gemm_packed_size(p.k, p.n);
    QX_TRY(qx_call_in_f32(c, QX_EXPERTS_X, &fx));
    QX_TRY(read_indices(c, &s, &picked, &p));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, s.rank, s.dims, &p.y));
    QX_TRY(sort_rows(c, &s, x, fx, &p));
    qx_call_note_kernel(c, "experts", 2.0 * (double)(p.batches * p.per) * (double)p.k * (double)p.n);
    return qx_call_in(c, QX_EXPERTS_SCALE) ? run_codes(c, &p, &f->dq) : run_floats(c, &p);
}
