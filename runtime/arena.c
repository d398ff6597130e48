/* arena.c - offsets in one arena for recorded allocations. Each is put at the lowest place where nothing alive at the same time
 * lies; the order of placing decides how good that gets. The usual orders are tried, and in each what came to lie on top is
 * placed first the next time, until the arena comes near the most bytes that are alive at once. */
#include <string.h>

#include "runtime/plan.h"

typedef struct packer {
    qx_alloc_rec *recs;
    int64_t n;
    size_t align, total, bound;
    int64_t *order, *placed;
    size_t *offsets; /* [n] each; offsets and total: the best so far */
} packer;

static size_t round_up(size_t n, size_t align) { return (n + align - 1) / align * align; }

static size_t lowest_fit(const packer *p, int64_t n, const qx_alloc_rec *r, int64_t *at)
{
    size_t end = 0, need = r->bytes;
    int64_t pos = 0;
    for (int64_t i = 0; i < n; i++) { /* by offset */
        const qx_alloc_rec *o = &p->recs[p->placed[i]];
        if (o->died < r->born || r->died < o->born || o->bytes == 0) continue;
        if (o->offset >= end && o->offset - end >= need) break;
        size_t o_end = round_up(o->offset + o->bytes, p->align);
        if (o_end > end) end = o_end;
    }
    while (pos < n && p->recs[p->placed[pos]].offset <= end) pos++;
    *at = pos;
    return end;
}

static size_t place(const packer *p)
{
    size_t total = 0;
    for (int64_t i = 0; i < p->n; i++) {
        qx_alloc_rec *r = &p->recs[p->order[i]];
        int64_t at;
        r->offset = lowest_fit(p, i, r, &at);
        memmove(p->placed + at + 1, p->placed + at, (size_t)(i - at) * sizeof *p->placed);
        p->placed[at] = p->order[i];
        if (r->offset + r->bytes > total) total = r->offset + r->bytes;
    }
    return total;
}

/* ---- Orders ---- */

typedef double weight_fn(const qx_alloc_rec *r);
static double lifetime(const qx_alloc_rec *r) { return (double)r->died - (double)r->born; }
static double size(const qx_alloc_rec *r) { return (double)r->bytes; }
static double soonest_dead(const qx_alloc_rec *r) { return -(double)r->died; }
static double area(const qx_alloc_rec *r) { return size(r) * lifetime(r); }

/* Heaviest first; ties in order of birth (merge sort: stable, n log n). */
static void sort_by(const packer *p, weight_fn *w)
{
    int64_t *idx = p->order, *tmp = p->placed, n = p->n;
    for (int64_t i = 0; i < n; i++) idx[i] = i;
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t lo = 0; lo < n; lo += 2 * width) {
            int64_t mid = lo + width < n ? lo + width : n, hi = lo + 2 * width < n ? lo + 2 * width : n, i = lo, j = mid;
            for (int64_t k = lo; k < hi; k++)
                tmp[k] = (i < mid && (j >= hi || w(&p->recs[idx[i]]) >= w(&p->recs[idx[j]]))) ? idx[i++] : idx[j++];
        }
        memcpy(idx, tmp, (size_t)n * sizeof *idx);
    }
}

/* The most bytes alive at once: no arena can be smaller. Records are in order of birth. */
static size_t most_alive(const packer *p)
{
    size_t most = 0, alive = 0;
    int64_t dead = 0;
    sort_by(p, soonest_dead);
    for (int64_t i = 0; i < p->n; i++) {
        while (dead < p->n && p->recs[p->order[dead]].died < p->recs[i].born) alive -= round_up(p->recs[p->order[dead++]].bytes, p->align);
        alive += round_up(p->recs[i].bytes, p->align);
        if (alive > most) most = alive;
    }
    return most;
}

/* Places in the present order; true when that is good enough. */
static bool attempt(packer *p)
{
    const size_t total = place(p);
    if (total < p->total) {
        p->total = total;
        for (int64_t i = 0; i < p->n; i++) p->offsets[i] = p->recs[i].offset;
    }
    return p->total / 100 * 99 <= p->bound;
}

/* The first in the order of those that reach to the top goes to the front. */
static void raise_top(packer *p)
{
    size_t top = 0;
    int64_t at = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const qx_alloc_rec *r = &p->recs[p->order[i]];
        if (r->offset + r->bytes > top) top = r->offset + r->bytes, at = i;
    }
    const int64_t id = p->order[at];
    memmove(p->order + 1, p->order, (size_t)at * sizeof *p->order);
    p->order[0] = id;
}

enum { TRIES = 64, EFFORT = 1 << 26 }; /* comparisons that the search may take beyond the plain orders */

static void search(packer *p)
{
    static weight_fn *const orders[] = {size, area, lifetime};
    for (size_t k = 0; k < sizeof orders / sizeof *orders; k++) {
        sort_by(p, orders[k]);
        if (attempt(p)) return;
        for (int64_t t = 0; t < TRIES && t < EFFORT / (p->n * p->n + 1); t++) {
            raise_top(p);
            if (attempt(p)) return;
        }
    }
}

bool qx_records_pack(qx_ctx *ctx, qx_alloc_rec *recs, int64_t n, size_t align, size_t *total)
{
    packer p = {.recs = recs, .n = n, .align = align, .total = SIZE_MAX};
    bool room = qx_alloc_array(ctx, (size_t)n + 1, sizeof *p.order, (void **)&p.order) == QX_OK &&
        qx_alloc_array(ctx, (size_t)n + 1, sizeof *p.placed, (void **)&p.placed) == QX_OK &&
                qx_alloc_array(ctx, (size_t)n + 1, sizeof *p.offsets, (void **)&p.offsets) == QX_OK;
    if (room) {
        p.bound = most_alive(&p);
        search(&p);
        for (int64_t i = 0; i < n; i++) recs[i].offset = p.offsets[i];
        *total = p.total;
    } else {
        qx_ctx_clear_error(ctx); /* no arena then: the heap still works */
    }
    qx_free(ctx, p.order);
    qx_free(ctx, p.placed);
    qx_free(ctx, p.offsets);
    return room;
}
