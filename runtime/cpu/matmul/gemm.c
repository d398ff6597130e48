/* gemm.c - products by kernels/gemm.h, shared out to threads in pieces of rows and columns, and what follows a product while its
 * piece is in the second cache. Those of bfloat16 numbers, and of two variable tensors where the library has a kernel that does
 * not depend on the thread count, by oneDNN. */
#include "runtime/cpu/matmul/gemm.h"

#include <string.h>

#include "kernels/dot.h"
#include "kernels/gemm.h"
#include "kernels/matmul.h"
#include "kernels/loops/vmath_leaf.h"
#include "onnx/weight/weight.h"
#include "runtime/dnnl/door.h"
#include "runtime/plan.h"

enum { ALONE = 1 << 16 }; /* multiplications that are done before a second thread has begun */

static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

/* refs: steps that hold it; value, row: what it was made of, for others to find it in *list. value NULL: it is in none. */
struct qx_packed { int64_t k, n; qx_dnnl_mm *dnnl; float *own; int refs; const qx_value *value; int64_t row; qx_packed **list, *next; };

/* ---- Activation and residual ---- */

qx_unary qx_act_unary(qx_act act)
{
    static const qx_unary table[] = {[QX_ACT_RELU] = QX_U_RELU, [QX_ACT_GELU] = QX_U_GELU, [QX_ACT_GELU_TANH] = QX_U_GELU_TANH,
                                     [QX_ACT_SILU] = QX_U_SWISH, [QX_ACT_SIGMOID] = QX_U_SIGMOID, [QX_ACT_TANH] = QX_U_TANH,
                                     [QX_ACT_HARDSWISH] = QX_U_HARDSWISH};
    return table[act];
}

void qx_act_row(qx_act act, const float *x, float *y, int64_t n)
{
    const float one[2] = {1, 0};
    const qx_vmath *vm = qx_vmath_cpu(qx_isa_best());
    if (act == QX_ACT_SILU) vm->silu(x, y, n);
    else if (act == QX_ACT_GELU) vm->gelu(x, y, n);
    else if (act == QX_ACT_GELU_TANH) vm->gelu_tanh(x, y, n);
    else qx_unary_find(qx_act_unary(act), QX_DT_FLOAT)(x, y, n, one);
}

/* What follows a product, for rows [r, r + rows) and columns [c, c + cols) of its n. */
static void finish(const qx_gemm *g, int64_t n, int64_t r, int64_t rows, int64_t c, int64_t cols)
{
    for (int64_t i = r; i < r + rows; i++) {
        float *y = g->y + i * n + c;
        if (g->act != QX_ACT_NONE) qx_act_row(g->act, y, y, cols);
        if (g->mul) qx_binary_find(QX_B_MUL, QX_DT_FLOAT)(y, 1, g->mul + i * n + c, 1, y, cols);
        if (g->add) qx_binary_find(QX_B_ADD, QX_DT_FLOAT)(y, 1, g->add + i * n + c, 1, y, cols);
    }
}

/* ---- Own product ---- */

/* How a product of m rows and n columns is shared out: blocks of rows, groups of columns (whole panels). No bit of the result
 * depends on it. */
typedef struct cut { int64_t rows, cols, blocks, groups; } cut;

/* a piece that stays in the second cache; packing a row takes as long as so many columns of its product */
enum { HIGH = 112, WIDE = 2048, PACK = 10 };

static cut cut_of(int64_t m, int64_t n, int64_t blocks, int64_t groups)
{
    cut u = {.rows = (m + blocks - 1) / blocks};
    u.blocks = (m + u.rows - 1) / u.rows;
    u.cols = ((n + groups - 1) / groups + QX_GEMM_NR - 1) / QX_GEMM_NR * QX_GEMM_NR;
    u.groups = (n + u.cols - 1) / u.cols;
    return u;
}

/* The groups of columns of so many blocks of rows that make the thread that has most to do done first; of equal ones the most,
 * for threads that come late. Returns how long that takes. */
static int64_t share_columns(int64_t m, int64_t n, int64_t blocks, int threads, cut *best)
{
    const int64_t panels = (n + QX_GEMM_NR - 1) / QX_GEMM_NR, least = (n + WIDE - 1) / WIDE;
    int64_t time = INT64_MAX;
    for (int64_t g = least; g <= panels && g < least + 8 * threads; g++) {
        const cut u = cut_of(m, n, blocks, g);
        const int64_t t = (u.blocks * u.groups + threads - 1) / threads * u.rows * (u.cols + (m > QX_GEMM_FEW ? PACK : 0));
        if (t > time) continue;
        time = t;
        *best = u;
    }
    return time;
}

/* Threads take rows of their own if they can: the next operation then finds most of its rows in its own cache, where columns of
 * another thread's have to come over (a third of the time of small products). */
static cut share_out(int64_t m, int64_t n, int64_t k, int threads)
{
    const int64_t blocks = (m + HIGH - 1) / HIGH, even = (blocks + (threads - 1) / 2) / threads * threads, least = (n + WIDE - 1) / WIDE;
    cut columns, rows;
    if (m * n * k < ALONE) return cut_of(m, n, blocks, least);
    const int64_t time = share_columns(m, n, blocks, threads, &columns);
    if (threads == 1 || even == 0) return columns;
    rows = cut_of(m, n, even, least);
    const int64_t turns = (rows.blocks + threads - 1) / threads * rows.groups;
    return turns * rows.rows * (rows.cols + PACK) <= time + time / 8 ? rows : columns;
}

typedef struct own_job { const qx_gemm *g; const float *panels; int64_t k, n; cut cut; } own_job;

static qx_status own_piece(void *user, int64_t i)
{
    const own_job *j = user;
    const qx_gemm *g = j->g;
    const int64_t r = i / j->cut.groups * j->cut.rows, c = i % j->cut.groups * j->cut.cols;
    const qx_sgemm p = {.m = at_most(j->cut.rows, g->m - r), .k = j->k, .n = at_most(j->cut.cols, j->n - c),
                        .x = g->x + r * j->k, .ldx = j->k, .cx = 1, .panels = j->panels + c * j->k, .step = QX_GEMM_NR * j->k,
                        .bias = g->bias ? g->bias + c : NULL, .y = g->y + r * j->n + c, .ldy = j->n, .alpha = 1.0f};
    qx_sgemm_run(&p);
    finish(g, j->n, r, p.m, c, p.n);
    return QX_OK;
}

static qx_status finish_piece(void *user, int64_t i)
{
    const own_job *j = user;
    finish(j->g, j->n, i * j->cut.rows, at_most(j->cut.rows, j->g->m - i * j->cut.rows), 0, j->n);
    return QX_OK;
}

static qx_status own_run(qx_call *c, const qx_packed *p, const qx_gemm *g)
{
    own_job j = {g, p->own, p->k, p->n, share_out(g->m, p->n, p->k, qx_ctx_threads(c->ctx))};
    qx_call_note_kernel(c, g->m > QX_GEMM_FEW ? "own" : "few", 2.0 * (double)g->m * (double)p->k * (double)p->n);
    return qx_parallel(c->ctx, j.cut.blocks * j.cut.groups, own_piece, &j);
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
    if (!qx_mul_size((size_t)qx_gemm_packed_size(w->k, w->n), sizeof **packed, &bytes))
        QX_CALL_FAIL(c, QX_E_SHAPE, "weight of %lld x %lld overflows", (long long)w->k, (long long)w->n);
    QX_TRY(qx_alloc_raw(c->ctx, bytes, (void **)packed));
    return qx_panels_pack(c, w, *packed);
}

/* One that another step has packed already. */
static qx_packed *packed_before(const qx_call *c, const qx_matrix *w)
{
    qx_packed *p = w->value ? c->exec->packed : NULL;
    while (p && (p->value != w->value || p->k != w->k || p->n != w->n || p->row != w->row)) p = p->next;
    return p;
}

static void enlist(const qx_call *c, const qx_matrix *w, qx_packed *p)
{
    if (!w->value || p->dnnl) return; /* the library's form goes by the number of rows */
    p->value = w->value;
    p->row = w->row;
    p->list = &c->exec->packed;
    p->next = *p->list;
    *p->list = p;
}

qx_status qx_packed_new(qx_call *c, const qx_matrix *w, int64_t m_hint, qx_packed **out)
{
    qx_packed *p = packed_before(c, w);
    if (p) {
        p->refs++;
        *out = p;
        return QX_OK;
    }
    QX_TRY(QX_NEW(c->ctx, &p));
    p->refs = 1;
    p->k = w->k;
    p->n = w->n;
    qx_status st = qx_call_bf16(c) ? qx_dnnl_mm_new(c, w, m_hint, &p->dnnl) : QX_OK;
    if (st == QX_OK && !p->dnnl) st = own_pack(c, w, &p->own);
    if (st != QX_OK) {
        qx_packed_free(c->ctx, p);
        return st;
    }
    enlist(c, w, p);
    *out = p;
    return QX_OK;
}

void qx_packed_free(qx_ctx *ctx, qx_packed *p)
{
    if (!p || --p->refs > 0) return;
    for (qx_packed **at = p->list; at && *at; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    qx_dnnl_mm_free(ctx, p->dnnl);
    qx_free(ctx, p->own);
    qx_free(ctx, p);
}

qx_status qx_gemm_run(qx_call *c, qx_packed *w, const qx_gemm *g)
{
    if (g->m == 0 || w->n == 0) return QX_OK;
    if (!w->dnnl) return own_run(c, w, g);
    if (g->act != QX_ACT_SILU) return qx_dnnl_mm_run(c, w->dnnl, g);
    const qx_gemm bare = {.m = g->m, .x = g->x, .bias = g->bias, .y = g->y}; /* the library's takes longer than our own and one more pass */
    const own_job j = {.g = g, .n = w->n, .cut = cut_of(g->m, w->n, (g->m + HIGH - 1) / HIGH, 1)};
    QX_TRY(qx_dnnl_mm_run(c, w->dnnl, &bare));
    return qx_parallel(c->ctx, j.cut.blocks, finish_piece, (void *)(uintptr_t)&j);
}

/* ---- Both variable ---- */

struct qx_bmm_state { qx_dnnl_bmm *dnnl; };

void qx_bmm_free(qx_ctx *ctx, qx_bmm_state *s)
{
    if (!s) return;
    qx_dnnl_bmm_free(ctx, s->dnnl);
    qx_free(ctx, s);
}

typedef struct bmm_job { const qx_bmm *g; cut cut; } bmm_job;

static qx_status bmm_piece(void *user, int64_t i)
{
    const bmm_job *j = user;
    const qx_bmm *g = j->g;
    const int64_t each = j->cut.blocks * j->cut.groups, b = i / each, r = i % each / j->cut.groups * j->cut.rows,
        c = i % j->cut.groups * j->cut.cols;
    const qx_matmul p = {.m = at_most(j->cut.rows, g->m - r), .n = at_most(j->cut.cols, g->n - c), .k = g->k,
                         .a = g->a + b * g->sa[0] + r * g->sa[1], .ra = g->sa[1], .ca = g->sa[2],
                         .b = g->b + b * g->sb[0] + c * g->sb[2], .rb = g->sb[1], .cb = g->sb[2], .c = g->y + (b * g->m + r) * g->n + c,
                             .ldc = g->n, .alpha = 1.0f};
    qx_matmul_f32(NULL, &p);
    return QX_OK;
}

static qx_status own_bmm(qx_call *c, const qx_bmm *g)
{
    const int threads = (int)((qx_ctx_threads(c->ctx) + g->batch - 1) / g->batch);
    const bmm_job j = {g, share_out(g->m, g->n, g->k, threads)};
    qx_call_note_kernel(c, "own", 2.0 * (double)g->batch * (double)g->m * (double)g->k * (double)g->n);
    return qx_parallel(c->ctx, g->batch * j.cut.blocks * j.cut.groups, bmm_piece, (void *)(uintptr_t)&j);
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
