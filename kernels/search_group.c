/* search_group.c - blocks to lanes. Columns beside each other are lanes as they lie and are not copied. */
#include "kernels/search_group.h"

#include "kernels/loops/multi.h"

QX_INLINE void turn_body(const qx_group *g, const float *const *from, int64_t step, int64_t at, int64_t m, float *restrict tile)
{
    for (int l = 0; l < QX_LANES; l++) {
        const int64_t have = g->n[l] - at, n = have < 0 ? 0 : have < m ? have : m;
        const float *restrict x = from[l] + at * step;
        for (int64_t i = 0; i < n; i++) tile[i * QX_LANES + l] = x[i * step];
        for (int64_t i = n; i < m; i++) tile[i * QX_LANES + l] = 0.0f;
    }
}
QX_MULTI(static, turn, (const qx_group *g, const float *const *from, int64_t step, int64_t at, int64_t m, float *tile),
         (g, from, step, at, m, tile))

/* Blocks at equal distances, none too short. */
static bool even_steps(const qx_group *g, const float *const *from, int64_t end)
{
    for (int l = 0; l < QX_LANES; l++)
        if (g->n[l] < end || from[l] - from[0] != l * (from[1] - from[0]) || from[1] < from[0]) return false;
    return true;
}

static void load_tile(const qx_group *g, const float *const *from, int64_t step, int64_t at, int64_t m, float *tile)
{
    if (step == 1 && even_steps(g, from, at + m)) (void)qx_transpose(4, QX_LANES, m, from[0] + at, from[1] - from[0], tile, QX_LANES);
    else turn(g, from, step, at, m, tile);
}

int64_t qx_group_load(qx_group *g, int64_t at)
{
    const int64_t m = g->longest - at < QX_PIECE ? g->longest - at : QX_PIECE;
    if (g->loaded == at) return m;
    g->loaded = at;
    if (g->weighted) load_tile(g, g->w, 1, at, m, g->wtile);
    if (g->step != 1 && g->x[1] - g->x[0] == 1 && even_steps(g, g->x, at + m)) {
        g->tile = g->x[0] + at * g->step, g->ld = g->step;
        return m;
    }
    load_tile(g, g->x, g->step, at, m, g->room);
    g->tile = g->room, g->ld = QX_LANES;
    return m;
}

void qx_group_place(qx_group *g, const qx_lay *y, const float *x, int64_t first)
{
    const int64_t along = qx_lay_along(y), total = y->rows * along, fast_end = y->columns ? y->rows : along;
    const int64_t row_step = y->columns ? 1 : y->k, step = y->columns ? y->rows : 1;
    int64_t fast = first % fast_end, slow = first / fast_end;
    g->longest = 0, g->loaded = -1, g->fixed_loaded = -1, g->weighted = y->weight != NULL, g->step = step;
    for (int64_t l = 0; l < QX_LANES; l++) {
        const int64_t row = y->columns ? fast : slow, at = (y->columns ? slow : fast) * y->block,
            n = y->k - at < y->block ? y->k - at : y->block;
        const bool there = first + l < total;
        g->x[l] = there ? x + row * row_step + at * step : g->x[0], g->w[l] = !y->weight ? NULL : there ? y->weight + at : g->w[0];
        g->n[l] = there ? n : 0;
        g->longest = g->n[l] > g->longest ? g->n[l] : g->longest;
        if (++fast == fast_end) fast = 0, slow++;
    }
}
