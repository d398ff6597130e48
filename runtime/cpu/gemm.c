/* gemm.c - products by oneDNN where it has a kernel that does not depend on the thread count, else by kernels/gemm.h: panels and row blocks of fixed
 * size, spread over threads. */
#include "runtime/cpu/gemm.h"

#include <string.h>

#include "kernels/dot.h"
#include "kernels/gemm.h"
#include "kernels/vmath_leaf.h"
#include "onnx/weight/weight.h"
#include "runtime/dnnl/door.h"

enum { ROW_BLOCK = 64, ALONE = 1 << 16, FINISH = 8192 }; /* multiplications that are done before a second thread has begun; elements that an epilogue takes through the nearest cache at a time */

struct qx_packed { int64_t k, n; qx_dnnl_mm *dnnl; float *own; };

/* ---- Activation and residual, for the paths that do not fuse them ---- */

qx_unary qx_act_unary(qx_act act)
{
    static const qx_unary table[] = {[QX_ACT_RELU] = QX_U_RELU, [QX_ACT_GELU] = QX_U_GELU, [QX_ACT_GELU_TANH] = QX_U_GELU_TANH,
                                     [QX_ACT_SILU] = QX_U_SWISH, [QX_ACT_SIGMOID] = QX_U_SIGMOID, [QX_ACT_TANH] = QX_U_TANH};
    return table[act];
}

void qx_act_row(qx_act act, const float *x, float *y, int64_t n)
{
    const float one[2] = {1, 0};
    const qx_vmath *vm = qx_vmath_cpu(qx_isa_best());
    if (act == QX_ACT_SILU) vm->silu(x, y, n);
    else if (act == QX_ACT_GELU) vm->gelu(x, y, n);
    else qx_unary_find(qx_act_unary(act), QX_DT_FLOAT)(x, y, n, one);
}

typedef struct finish_job { const qx_gemm *g; int64_t n; } finish_job;

static qx_status finish_piece(void *user, int64_t i)
{
    const finish_job *j = user;
    const qx_gemm *g = j->g;
    const int64_t first = i * FINISH, n = g->m * j->n - first < FINISH ? g->m * j->n - first : FINISH;
    float *y = g->y + first;
    if (g->act != QX_ACT_NONE) qx_act_row(g->act, y, y, n);
    if (g->mul) qx_binary_find(QX_B_MUL, QX_DT_FLOAT)(y, 1, g->mul + first, 1, y, n);
    if (g->add) qx_binary_find(QX_B_ADD, QX_DT_FLOAT)(y, 1, g->add + first, 1, y, n);
    return QX_OK;
}

static qx_status finish(qx_call *c, const qx_gemm *g, int64_t n)
{
    finish_job j = {g, n};
    if (g->act == QX_ACT_NONE && !g->mul && !g->add) return QX_OK;
    return qx_parallel(c->ctx, (g->m * n + FINISH - 1) / FINISH, finish_piece, &j);
}

/* ---- Own product ---- */

static int64_t panel_cols(int64_t n, int64_t p) { return n - p * QX_GEMM_NR < QX_GEMM_NR ? n - p * QX_GEMM_NR : QX_GEMM_NR; }

/* Panels of QX_GEMM_NR columns that we packed, or as wide as the library packs them. */
typedef struct own_job { const qx_gemm *g; qx_panels w; int64_t k, n, panels; } own_job;

static qx_status own_piece(void *user, int64_t i)
{
    const own_job *j = user;
    const int64_t p = i % j->panels, first = p * j->w.width, r = i / j->panels * ROW_BLOCK;
    qx_gemm_tile t = {.x = j->g->x + r * j->k, .ldx = j->k, .cx = 1, .panel = j->w.data + p * j->w.stride, .ldp = j->w.width,
                      .bias = j->g->bias ? j->g->bias + first : NULL, .y = j->g->y + r * j->n + first, .ldy = j->n,
                      .m = j->g->m - r < ROW_BLOCK ? j->g->m - r : ROW_BLOCK, .k = j->k, .cols = j->n - first < j->w.width ? j->n - first : j->w.width};
    qx_gemm_panel(&t);
    return QX_OK;
}

static qx_status own_run(qx_call *c, const qx_packed *p, const qx_panels *w, const qx_gemm *g)
{
    own_job j = {g, *w, p->k, p->n, (p->n + w->width - 1) / w->width};
    const int64_t pieces = (g->m + ROW_BLOCK - 1) / ROW_BLOCK * j.panels;
    qx_call_note_kernel(c, g->m > QX_GEMM_FEW ? "own" : "few", 2.0 * (double)g->m * (double)p->k * (double)p->n);
    if (g->m * p->k * p->n < ALONE)
        for (int64_t i = 0; i < pieces; i++) QX_TRY(own_piece(&j, i));
    else QX_TRY(qx_parallel(c->ctx, pieces, own_piece, &j));
    return finish(c, g, p->n);
}

qx_status qx_matrix_rows(qx_call *c, const qx_matrix *w, int64_t first, int64_t count, float *buf, const float **out)
{
    const int64_t length = qx_matrix_by_columns(w) ? w->k : w->n;
    *out = buf;
    if (!w->data) return qx_weight_read_f32(c->ctx, w->stored, first * length, count * length, buf);
    *out = w->data + first * (qx_matrix_by_columns(w) ? w->col : w->row);
    return QX_OK;
}

static qx_status own_pack(qx_call *c, const qx_matrix *w, float **packed)
{
    size_t bytes;
    if (!qx_mul_size((size_t)qx_gemm_packed_size(w->k, w->n), sizeof **packed, &bytes)) QX_CALL_FAIL(c, QX_E_SHAPE, "weight of %lld x %lld overflows", (long long)w->k, (long long)w->n);
    QX_TRY(qx_alloc_raw(c->ctx, bytes, (void **)packed));
    return qx_panels_pack(c, w, &(qx_panels){*packed, QX_GEMM_NR, QX_GEMM_NR * w->k});
}

qx_status qx_packed_new(qx_call *c, const qx_matrix *w, int64_t m_hint, qx_packed **out)
{
    qx_packed *p = NULL;
    QX_TRY(QX_NEW(c->ctx, &p));
    p->k = w->k;
    p->n = w->n;
    qx_status st = qx_dnnl_mm_new(c, w, m_hint, &p->dnnl);
    if (st == QX_OK && !p->dnnl) st = own_pack(c, w, &p->own);
    if (st != QX_OK) {
        qx_packed_free(c->ctx, p);
        return st;
    }
    *out = p;
    return QX_OK;
}

void qx_packed_free(qx_ctx *ctx, qx_packed *p)
{
    if (!p) return;
    qx_dnnl_mm_free(ctx, p->dnnl);
    qx_free(ctx, p->own);
    qx_free(ctx, p);
}

qx_status qx_gemm_run(qx_call *c, qx_packed *w, const qx_gemm *g)
{
    qx_panels panels = {w->own, QX_GEMM_NR, QX_GEMM_NR * w->k};
    if (g->m == 0 || w->n == 0) return QX_OK;
    if (!w->dnnl || (g->m <= QX_GEMM_FEW && qx_dnnl_mm_panels(w->dnnl, &panels))) return own_run(c, w, &panels, g);
    if (g->act == QX_ACT_SILU) { /* the library's takes longer than our own and one more pass */
        const qx_gemm bare = {.m = g->m, .x = g->x, .bias = g->bias, .y = g->y};
        QX_TRY(qx_dnnl_mm_run(c, w->dnnl, &bare));
        return finish(c, g, w->n);
    }
    return qx_dnnl_mm_run(c, w->dnnl, g);
}

/* ---- Both variable ---- */

struct qx_bmm_state { qx_dnnl_bmm *dnnl; };

void qx_bmm_free(qx_ctx *ctx, qx_bmm_state *s)
{
    if (!s) return;
    qx_dnnl_bmm_free(ctx, s->dnnl);
    qx_free(ctx, s);
}

typedef struct bmm_job { const qx_bmm *g; float *packed; int64_t panels, blocks, packed_size; } bmm_job;

static qx_status bmm_pack_piece(void *user, int64_t i)
{
    const bmm_job *j = user;
    int64_t b = i / j->panels, p = i % j->panels;
    qx_gemm_pack_panel(j->g->b + b * j->g->sb[0], j->g->k, j->g->n, j->g->sb[1], j->g->sb[2], p, QX_GEMM_NR, j->packed + b * j->packed_size + p * QX_GEMM_NR * j->g->k);
    return QX_OK;
}

static qx_status bmm_piece(void *user, int64_t i)
{
    const bmm_job *j = user;
    const qx_bmm *g = j->g;
    int64_t p = i % j->panels, blk = i / j->panels % j->blocks, b = i / j->panels / j->blocks, r = blk * ROW_BLOCK;
    int64_t m = g->m - r < ROW_BLOCK ? g->m - r : ROW_BLOCK;
    const float *packed = j->packed + (g->sb[0] ? b * j->packed_size : 0);
    qx_gemm_tile t = {.x = g->a + b * g->sa[0] + r * g->sa[1], .ldx = g->sa[1], .cx = g->sa[2], .panel = packed + p * QX_GEMM_NR * g->k, .ldp = QX_GEMM_NR,
                      .y = g->y + (b * g->m + r) * g->n + p * QX_GEMM_NR, .ldy = g->n, .m = m, .k = g->k, .cols = panel_cols(g->n, p)};
    qx_gemm_panel(&t);
    return QX_OK;
}

static qx_status own_bmm(qx_call *c, const qx_bmm *g)
{
    bmm_job j = {.g = g, .panels = (g->n + QX_GEMM_NR - 1) / QX_GEMM_NR, .blocks = (g->m + ROW_BLOCK - 1) / ROW_BLOCK, .packed_size = qx_gemm_packed_size(g->k, g->n)};
    int64_t packs = g->sb[0] ? g->batch : 1;
    QX_TRY(QX_CALL_SCRATCH(c, packs * j.packed_size, &j.packed));
    QX_TRY(qx_parallel(c->ctx, packs * j.panels, bmm_pack_piece, &j));
    qx_call_note_kernel(c, "own", 2.0 * (double)g->batch * (double)g->m * (double)g->k * (double)g->n);
    return qx_parallel(c->ctx, g->batch * j.blocks * j.panels, bmm_piece, &j);
}

/* ---- One row: read once, and never packed ---- */

enum { ROW_COLS = 512 };
typedef struct row_job { const qx_bmm *g; int64_t pieces; } row_job;

static bool is_row(const qx_bmm *g) { return g->m == 1 && (g->sa[2] == 1 || g->k == 1) && (g->sb[2] == 1 || g->sb[1] == 1); }

static qx_status row_piece(void *user, int64_t i)
{
    const row_job *j = user;
    const qx_bmm *g = j->g;
    const int64_t b = i / j->pieces, first = i % j->pieces * ROW_COLS, n = g->n - first < ROW_COLS ? g->n - first : ROW_COLS;
    const float *x = g->a + b * g->sa[0], *w = g->b + b * g->sb[0] + first * g->sb[2];
    float *y = g->y + b * g->n + first;
    if (g->sb[2] == 1) qx_row_times(n, g->k, x, w, g->sb[1], y);
    else qx_gemm_nt(1, n, g->k, x, g->k, w, g->sb[2], y, n);
    return QX_OK;
}

static qx_status row_bmm(qx_call *c, const qx_bmm *g)
{
    row_job j = {g, (g->n + ROW_COLS - 1) / ROW_COLS};
    qx_call_note_kernel(c, "row", 2.0 * (double)g->batch * (double)g->k * (double)g->n);
    return qx_parallel(c->ctx, g->batch * j.pieces, row_piece, &j);
}

qx_status qx_bmm_run(qx_call *c, qx_bmm_state **state, const qx_bmm *g)
{
    bool done = false;
    if (g->batch == 0 || g->m == 0 || g->n == 0) return QX_OK;
    if (is_row(g)) return row_bmm(c, g);
    if (!*state) QX_TRY(QX_NEW(c->ctx, state));
    QX_TRY(qx_dnnl_bmm_run(c, &(*state)->dnnl, g, &done));
    return done ? QX_OK : own_bmm(c, g);
}
