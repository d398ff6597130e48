/* shift.c - see shift.h. Rows wait until they fill a block and are weighed on their way there, so that all sums are plain ones. */
#include "passes/search/shift.h"

#include <math.h>
#include <string.h>

#include "base/thread.h"
#include "calib/stats/observer.h"
#include "kernels/dot.h"
#include "kernels/solve/solve.h"

enum { STRIP = 64, BLOCK = QX_GRAM_ROWS, HELD = 1024, TILE = 32 };
static const double DAMP = 0.1, FLOOR = 1e-4; /* shares of the mean diagonal; of |xq|^2 */

struct qx_shift {
    int64_t k;
    qx_gram h;
    float *d;                      /* [k][k] */
    float *x; int64_t waiting;     /* [BLOCK][2][k] x - xq, xq, weighed */
    float *held; int64_t n_held;   /* [HELD][2][k] the same of rows that judge: one of every `every` that came */
    int64_t every, offered;
};

qx_status qx_shift_new(qx_ctx *ctx, int64_t k, qx_shift **out)
{
    qx_shift *s;
    QX_TRY(QX_NEW(ctx, out));
    s = *out;
    s->k = k;
    s->every = 1;
    QX_TRY(qx_alloc_array(ctx, (size_t)(k * k), sizeof *s->d, (void **)&s->d));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(2 * BLOCK * k) * sizeof *s->x, (void **)&s->x));
    return qx_alloc_raw(ctx, (size_t)(2 * HELD * k) * sizeof *s->held, (void **)&s->held);
}

void qx_shift_free(qx_ctx *ctx, qx_shift *s)
{
    if (!s) return;
    qx_gram_free(ctx, &s->h);
    qx_free(ctx, s->d);
    qx_free(ctx, s->x);
    qx_free(ctx, s->held);
    qx_free(ctx, s);
}

int64_t qx_shift_bytes(int64_t k)
{
    enum { MATRICES = 6 }; /* D, H, the factor, D U' and S', one of them turned */
    return (MATRICES * k * k + 2 * (BLOCK + HELD) * k) * (int64_t)sizeof(float);
}

/* ---- sums over rows ---- */

static float *make_turned(qx_ctx *ctx, const float *x, int64_t stride, int64_t rows, int64_t k)
{
    float *y;
    if (qx_alloc_raw(ctx, (size_t)(rows * k) * sizeof *y, (void **)&y) != QX_OK) return NULL;
    (void)qx_transpose(4, rows, k, x, stride, y, rows);
    return y;
}

typedef struct product { int64_t rows, k; const float *a, *b; float *c; } product; /* c[k][k] += a[k][rows] b[k][rows]' */

static qx_status add_strip(void *user, int64_t i)
{
    const product *p = user;
    const int64_t first = i * STRIP, n = p->k - first < STRIP ? p->k - first : STRIP;
    float y[STRIP * STRIP];
    for (int64_t j = 0; j < p->k; j += STRIP) {
        const int64_t m = p->k - j < STRIP ? p->k - j : STRIP;
        qx_gemm_nt(n, m, p->rows, p->a + first * p->rows, p->rows, p->b + j * p->rows, p->rows, y, STRIP);
        for (int64_t r = 0; r < n; r++)
            for (int64_t c = 0; c < m; c++) p->c[(first + r) * p->k + j + c] += y[r * STRIP + c];
    }
    return QX_OK;
}

static qx_status add_product(qx_ctx *ctx, const product *p)
{
    return qx_parallel(ctx, qx_cells_of(p->k, STRIP), add_strip, (void *)(uintptr_t)p);
}

/* Blocks are counted along the stream of rows, so that its cuts do not matter. */
static qx_status add_waiting(qx_ctx *ctx, qx_shift *s)
{
    const int64_t k = s->k;
    if (!s->waiting) return QX_OK;
    QX_TRY(qx_gram_add(ctx, &s->h, s->x + k, s->waiting, 2 * k, k, 1));
    float *a = make_turned(ctx, s->x, 2 * k, s->waiting, k), *b = make_turned(ctx, s->x + k, 2 * k, s->waiting, k);
    const qx_status st = a && b ? add_product(ctx, &(product){s->waiting, k, a, b, s->d}) : QX_E_NOMEM;
    qx_free(ctx, a);
    qx_free(ctx, b);
    s->waiting = 0;
    return st;
}

/* to[2][k] = x - xq and xq by the root of the row's weight. */
static void weigh_row(const float *both, int64_t k, float *to)
{
    double error = 0, size = 0;
    for (int64_t j = 0; j < k; j++) {
        const double d = (double)both[j] - both[k + j];
        error += d * d;
        size += (double)both[k + j] * both[k + j];
    }
    const double sum = error + FLOOR * size, root = sum > 0 ? 1 / sqrt(sum) : 0;
    for (int64_t j = 0; j < k; j++) {
        to[j] = (float)(((double)both[j] - both[k + j]) * root);
        to[k + j] = (float)(both[k + j] * root);
    }
}

/* Room for one more: when all are taken every second goes, and from there on as many fewer are kept. */
static float *room_for_judge(qx_shift *s)
{
    const size_t row = (size_t)(2 * s->k);
    if (s->offered++ % s->every) return NULL;
    if (s->n_held == HELD) {
        for (int64_t i = 1; i < HELD / 2; i++) memcpy(s->held + (size_t)i * row, s->held + (size_t)(2 * i) * row, row * sizeof *s->held);
        s->n_held = HELD / 2;
        s->every *= 2;
        if ((s->offered - 1) % s->every) return NULL;
    }
    return s->held + (size_t)s->n_held++ * row;
}

qx_status qx_shift_add(qx_ctx *ctx, qx_shift *s, const float *both, int64_t rows, int64_t stride, bool judges)
{
    for (int64_t r = 0; r < rows; r++) {
        float *to = judges ? room_for_judge(s) : s->x + s->waiting * 2 * s->k;
        if (!to) continue;
        weigh_row(both + r * stride, s->k, to);
        s->waiting += !judges;
        if (s->waiting == BLOCK) QX_TRY(add_waiting(ctx, s));
    }
    return QX_OK;
}

/* ---- S ---- */

/* S' = U' (U D'), inv(H + damping) = U' U. */
static qx_status multiply(qx_ctx *ctx, const qx_shift *s, const float *u, float **out)
{
    const int64_t k = s->k;
    float *ut = NULL, *du = NULL;
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_array(ctx, (size_t)(k * k), sizeof *du, (void **)&du));
    QX_TRY_GOTO(st, add_product(ctx, &(product){k, k, s->d, u, du}));
    if (!(ut = make_turned(ctx, u, k, k, k))) QX_TRY_GOTO(st, QX_E_NOMEM);
    QX_TRY_GOTO(st, qx_alloc_array(ctx, (size_t)(k * k), sizeof **out, (void **)out));
    st = add_product(ctx, &(product){k, k, ut, du, *out});
done:
    qx_free(ctx, ut);
    qx_free(ctx, du);
    return st;
}

static bool all_zero(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i] != 0) return false;
    return true;
}

qx_status qx_shift_find(qx_ctx *ctx, qx_shift *s, float **matrix)
{
    const int64_t k = s->k;
    float *u = NULL, *scratch = NULL;
    double damping;
    qx_status st;
    *matrix = NULL;
    QX_TRY_GOTO(st, add_waiting(ctx, s));
    QX_TRY_GOTO(st, qx_gram_finish(ctx, &s->h));
    if (!s->h.rows || all_zero(s->d, k * k)) goto done;
    QX_TRY_GOTO(st, qx_alloc_array(ctx, (size_t)(k * k), sizeof *u, (void **)&u));
    QX_TRY_GOTO(st, qx_alloc_raw(ctx, (size_t)(128 * k) * sizeof *scratch, (void **)&scratch));
    if (qx_factor_inverse(&(qx_factor){.h = s->h.full, .k = k, .damp = DAMP}, u, scratch, &damping)) st = multiply(ctx, s, u, matrix);
done:
    qx_free(ctx, u);
    qx_free(ctx, scratch);
    return st;
}

/* ---- how much of it ---- */

/* Of a tile of rows of W: what S makes up for of each judging row's error, and how large that is. */
typedef struct judging {
    qx_ctx *ctx;
    const qx_shift *s;
    const float *moved;            /* [n_held][k] S xq */
    const qx_weight *w; const qx_view *view; const qx_step *steps;
    double *met, *size;            /* [tiles] sums of (W (x - xq)) (W S xq) and of (W S xq)^2 */
} judging;

static qx_status judge_tile(void *user, int64_t i)
{
    const judging *g = user;
    const int64_t k = g->s->k, h = g->s->n_held, first = i * TILE, n = g->view->n - first < TILE ? g->view->n - first : TILE;
    float *w = NULL, *error = NULL, *shift = NULL;
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_raw(g->ctx, (size_t)(TILE * k) * sizeof *w, (void **)&w));
    QX_TRY_GOTO(st, qx_alloc_raw(g->ctx, (size_t)(TILE * h) * sizeof *error, (void **)&error));
    QX_TRY_GOTO(st, qx_alloc_raw(g->ctx, (size_t)(TILE * h) * sizeof *shift, (void **)&shift));
    QX_TRY_GOTO(st, qx_rows_read(g->ctx, g->w, g->view, g->steps, first, n, w));
    qx_gemm_nt(h, n, k, g->s->held, 2 * k, w, k, error, n);
    qx_gemm_nt(h, n, k, g->moved, k, w, k, shift, n);
    for (int64_t j = 0; j < h * n; j++) g->met[i] += (double)error[j] * shift[j], g->size[i] += (double)shift[j] * shift[j];
done:
    qx_free(g->ctx, w);
    qx_free(g->ctx, error);
    qx_free(g->ctx, shift);
    return st;
}

typedef struct moving { const qx_shift *s; const float *matrix; float *moved; } moving; /* matrix[k][k] = S */

static qx_status move_rows(void *user, int64_t i)
{
    const moving *m = user;
    const int64_t k = m->s->k, first = i * TILE, n = m->s->n_held - first < TILE ? m->s->n_held - first : TILE;
    qx_gemm_nt(n, k, k, m->s->held + (2 * first + 1) * k, 2 * k, m->matrix, k, m->moved + first * k, k);
    return QX_OK;
}

static qx_status judge(qx_ctx *ctx, judging *g, const float *matrix, double *share)
{
    const int64_t k = g->s->k, tiles = qx_cells_of(g->view->n, TILE);
    float *turned = make_turned(ctx, matrix, k, k, k), *moved = NULL;
    double met = 0, size = 0;
    qx_status st;
    if (!turned) QX_TRY_GOTO(st, QX_E_NOMEM);
    QX_TRY_GOTO(st, qx_alloc_raw(ctx, (size_t)(g->s->n_held * k) * sizeof *moved, (void **)&moved));
    QX_TRY_GOTO(st, qx_parallel(ctx, qx_cells_of(g->s->n_held, TILE), move_rows, &(moving){g->s, turned, moved}));
    g->moved = moved;
    QX_TRY_GOTO(st, qx_parallel(ctx, tiles, judge_tile, g));
    for (int64_t i = 0; i < tiles; i++) met += g->met[i], size += g->size[i];
    *share = met > 0 && size > 0 ? fmin(met / size, 1) : 0;
done:
    qx_free(ctx, turned);
    qx_free(ctx, moved);
    return st;
}

qx_status qx_shift_share(qx_ctx *ctx, const qx_shift *s, const float *matrix, const qx_weight *w, const qx_view *view, const qx_step *steps,
                         double *share)
{
    const int64_t tiles = qx_cells_of(view->n, TILE);
    double *sums;
    *share = 0;
    if (!s->n_held) return QX_OK;
    QX_TRY(qx_alloc_array(ctx, (size_t)(2 * tiles), sizeof *sums, (void **)&sums));
    const qx_status st = judge(ctx, &(judging){ctx, s, NULL, w, view, steps, sums, sums + tiles}, matrix, share);
    qx_free(ctx, sums);
    return st;
}
