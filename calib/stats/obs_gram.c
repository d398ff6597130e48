/* obs_gram.c - Gram matrices H = X'X: blocks of 256 rows are multiplied in float32 and added up in float64, upper half only.
 *
 * Blocks are counted along the stream of rows, not per tensor, so that cutting the samples differently gives the same bits; rows
 * that do not fill a block wait. While collecting, H is a half of 16 x 16 tiles in f64 (as large as a full f32 matrix); finished,
 * it is that full f32 matrix. */
#include "calib/stats/observer.h"

#include "base/checked.h"
#include "base/spool.h"
#include "base/thread.h"

#include <string.h>

enum { T = QX_GRAM_TILE, TT = QX_GRAM_CELLS };

int64_t qx_gram_tile_count(int64_t k, int64_t groups) { return qx_gram_tiles(k) * groups * TT; }
size_t qx_gram_bytes(int64_t k, int64_t groups)
{
    return (size_t)(qx_gram_tiles(k) * groups) * TT * sizeof(double) + (size_t)(k * groups * QX_GRAM_ROWS) * sizeof(float);
}
size_t qx_gram_extra(int64_t k, int64_t groups)
{
    return (size_t)qx_gram_panels(k) * QX_GRAM_ROWS * T * sizeof(float) + (size_t)(groups * k * k) * sizeof(float);
}

typedef struct block { const float *x; int64_t k, stride; float *panels; qx_gram_block of; } block;

static qx_status pack_piece(void *user, int64_t i)
{
    const block *b = user;
    qx_gram_pack(b->x + i * T, b->of.rows, b->stride, b->k - i * T, b->panels + i * b->of.rows * T);
    return QX_OK;
}

static qx_status add_piece(void *user, int64_t i)
{
    const block *b = user;
    qx_gram_piece(&b->of, i);
    return QX_OK;
}

static qx_status add_block(qx_ctx *ctx, qx_gram *g, const float *x, int64_t rows, int64_t stride)
{
    const int64_t p = qx_gram_panels(g->k);
    block b = {.k = g->k, .stride = stride, .of = {.rows = rows, .p = p}};
    QX_TRY(qx_alloc_again(ctx, (size_t)(p * rows * T) * sizeof(float), (void **)&b.panels));
    b.of.panels = b.panels;
    qx_status st = QX_OK;
    for (int64_t group = 0; group < g->groups && st == QX_OK; group++) {
        b.x = x + group * g->k;
        b.of.tiles = g->tiles + group * qx_gram_tiles(g->k) * TT;
        st = qx_parallel(ctx, p, pack_piece, &b);
        if (st == QX_OK) st = qx_parallel(ctx, qx_gram_pieces(p), add_piece, &b);
    }
    qx_free(ctx, b.panels);
    return st;
}

static qx_status open_gram(qx_ctx *ctx, qx_gram *g, int64_t k, int64_t groups)
{
    size_t n;
    if (k > 1 << 20 || !qx_mul_size((size_t)(qx_gram_tiles(k) * TT), (size_t)groups, &n))
        QX_FAIL(ctx, QX_E_BUDGET, "a Gram matrix of %lld columns", (long long)k);
    QX_TRY(qx_alloc_raw_array(ctx, n, sizeof *g->tiles, (void **)&g->tiles)); /* on large pages: tiles are far apart */
    memset(g->tiles, 0, n * sizeof *g->tiles);
    g->k = k;
    g->groups = groups;
    return QX_OK;
}

qx_status qx_gram_add(qx_ctx *ctx, qx_gram *g, const float *x, int64_t rows, int64_t stride, int64_t k, int64_t groups)
{
    int64_t len = k * groups;
    if (!g->tiles) QX_TRY(open_gram(ctx, g, k, groups));
    if (g->k != k || g->groups != groups)
        QX_FAIL(ctx, QX_E_SHAPE, "rows of %lld x %lld elements now, %lld x %lld before", (long long)groups, (long long)k,
                (long long)g->groups, (long long)g->k);
    g->rows += rows;
    while (rows > 0) {
        if (g->n_pending == 0 && rows >= QX_GRAM_ROWS) { /* a whole block as it lies */
            QX_TRY(add_block(ctx, g, x, QX_GRAM_ROWS, stride));
            x += QX_GRAM_ROWS * stride;
            rows -= QX_GRAM_ROWS;
            continue;
        }
        if (!g->pending) QX_TRY(qx_alloc_raw(ctx, (size_t)(QX_GRAM_ROWS * len) * sizeof(float), (void **)&g->pending));
        memcpy(g->pending + g->n_pending * len, x, (size_t)len * sizeof *x);
        x += stride;
        rows--;
        if (++g->n_pending < QX_GRAM_ROWS) continue;
        g->n_pending = 0;
        QX_TRY(add_block(ctx, g, g->pending, QX_GRAM_ROWS, len));
    }
    return QX_OK;
}

static void add_tile(double *tile, const double *full, int64_t k, int64_t i, int64_t j)
{
    for (int64_t a = 0; a < T && i * T + a < k; a++)
        for (int64_t b = 0; b < T && j * T + b < k; b++)
            if (i != j || b >= a) tile[a * T + b] += full[(i * T + a) * k + j * T + b];
}

qx_status qx_gram_add_on_device(qx_ctx *ctx, qx_exec *exec, qx_gram *g, const qx_tensor *t)
{
    const int64_t k = t->dims[t->rank - 1];
    if (!g->tiles) QX_TRY(open_gram(ctx, g, k, 1));
    if (g->k != k || g->groups != 1)
        QX_FAIL(ctx, QX_E_SHAPE, "rows of %lld elements now, %lld x %lld before", (long long)k, (long long)g->groups, (long long)g->k);
    QX_TRY(qx_exec_gram_add(exec, t, &g->on_device));
    g->rows += t->numel / k;
    return QX_OK;
}

qx_status qx_gram_take(qx_ctx *ctx, qx_exec *exec, qx_gram *g, bool wanted)
{
    void *sum = g->on_device;
    const int64_t k = g->k, p = qx_gram_panels(k);
    double *full = NULL;
    if (!sum) return QX_OK;
    g->on_device = NULL;
    const qx_status room = wanted ? qx_alloc_raw(ctx, (size_t)(k * k) * sizeof *full, (void **)&full) : QX_OK;
    qx_status st = qx_exec_gram_take(exec, sum, full); /* in any case: the device wants its memory back */
    if (room != QX_OK) st = room;
    for (int64_t i = 0; i < p && st == QX_OK && full; i++)
        for (int64_t j = i; j < p; j++) add_tile(g->tiles + qx_gram_at(p, i, j) * TT, full, k, i, j);
    qx_free(ctx, full);
    return st;
}

static void unpack(const double *tiles, int64_t k, float *full)
{
    int64_t p = qx_gram_panels(k);
    for (int64_t i = 0; i < p; i++)
        for (int64_t j = i; j < p; j++) {
            const double *t = tiles + qx_gram_at(p, i, j) * TT;
            for (int64_t a = 0; a < T && i * T + a < k; a++)
                for (int64_t b = 0; b < T && j * T + b < k; b++) {
                    float v = (float)t[a * T + b];
                    if (i != j || b >= a) full[(i * T + a) * k + j * T + b] = full[(j * T + b) * k + i * T + a] = v;
                }
        }
}

static void drop_full(qx_ctx *ctx, qx_gram *g)
{
    if (g->disk) qx_file_close(g->disk);
    else qx_free(ctx, g->full);
    g->disk = NULL;
    g->full = NULL;
}

/* What was finished before (a store that was loaded, an earlier run) is added. */
qx_status qx_gram_finish(qx_ctx *ctx, qx_gram *g)
{
    if (!g->tiles) return QX_OK;
    if (g->n_pending) QX_TRY(add_block(ctx, g, g->pending, g->n_pending, g->k * g->groups));
    g->n_pending = 0;
    float *full;
    QX_TRY(QX_NEW_ARRAY(ctx, g->groups * g->k * g->k, &full));
    for (int64_t group = 0; group < g->groups; group++)
        unpack(g->tiles + group * qx_gram_tiles(g->k) * TT, g->k, full + group * g->k * g->k);
    for (int64_t i = 0; g->full && i < g->groups * g->k * g->k; i++) full[i] += g->full[i];
    drop_full(ctx, g);
    qx_free(ctx, g->tiles);
    qx_free(ctx, g->pending);
    g->full = full;
    g->tiles = NULL;
    g->pending = NULL;
    return QX_OK;
}

qx_status qx_gram_join(qx_ctx *ctx, qx_gram *into, const qx_gram *from, const char *name)
{
    if (!from->full) return QX_OK;
    int64_t n = from->groups * from->k * from->k;
    QX_TRY(qx_gram_own(ctx, into));
    if (!into->full) {
        QX_TRY(QX_NEW_ARRAY(ctx, n, &into->full));
        into->k = from->k;
        into->groups = from->groups;
    }
    if (into->k != from->k || into->groups != from->groups)
        QX_FAIL(ctx, QX_E_SHAPE, "statistics of '%s': Gram matrices of %lld and %lld columns", name, (long long)into->k,
                (long long)from->k);
    for (int64_t i = 0; i < n; i++) into->full[i] = (float)((double)into->full[i] + (double)from->full[i]);
    into->rows += from->rows;
    qx_file_rest(from->disk);
    return from->disk ? qx_gram_spill(ctx, into) : QX_OK; /* what was parked for want of memory stays so */
}

/* ---- on disk ---- */

qx_status qx_gram_spill(qx_ctx *ctx, qx_gram *g)
{
    qx_spool *spool;
    qx_file *file;
    const uint8_t *mapped;
    if (!g->full || g->disk) return QX_OK;
    QX_TRY(qx_spool_open(ctx, "a Gram matrix", NULL, false, &spool));
    qx_status st = qx_spool_put(spool, g->full, (size_t)(g->groups * g->k * g->k) * sizeof *g->full);
    if (st != QX_OK) return qx_spool_close(spool), st;
    QX_TRY(qx_spool_to_file(spool, &file));
    st = qx_file_map(file, &mapped);
    if (st != QX_OK) return qx_file_close(file), st;
    drop_full(ctx, g);
    g->disk = file;
    g->full = (float *)(uintptr_t)mapped;
    return QX_OK;
}

qx_status qx_gram_own(qx_ctx *ctx, qx_gram *g)
{
    if (!g->disk) return QX_OK;
    float *copy;
    size_t n = (size_t)(g->groups * g->k * g->k);
    QX_TRY(QX_NEW_ARRAY(ctx, n, &copy));
    memcpy(copy, g->full, n * sizeof *copy);
    drop_full(ctx, g);
    g->full = copy;
    return QX_OK;
}

void qx_gram_free(qx_ctx *ctx, qx_gram *g)
{
    drop_full(ctx, g);
    qx_free(ctx, g->tiles);
    qx_free(ctx, g->pending);
    *g = (qx_gram){0};
}
