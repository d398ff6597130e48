/* obs_rows.c - the rows that a linear operator sees, and the sample of them that is kept.
 *
 * Kept are the rows whose content has the smallest hash: a uniform sample of the distinct rows that is the same for any order and any
 * cutting of the data, and that merges by taking the smallest again. */
#include "calib/stats/observer.h"

#include "base/checked.h"
#include "base/map.h"
#include "base/thread.h"
#include "kernels/quant.h"

#include <stdlib.h>
#include <string.h>

/* ---- reservoir: a heap of hashes with the largest on top ---- */

static void swap_rows(qx_reservoir *r, int64_t a, int64_t b)
{
    qx_row_ref t = r->heap[a];
    r->heap[a] = r->heap[b];
    r->heap[b] = t;
}

static void sift_down(qx_reservoir *r, int64_t i, int64_t n)
{
    for (int64_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && r->heap[c + 1].hash > r->heap[c].hash) c++;
        if (r->heap[c].hash <= r->heap[i].hash) return;
        swap_rows(r, i, c);
    }
}

static void put_row(qx_reservoir *r, const float *x, uint64_t hash)
{
    for (int64_t i = 0; i < r->n; i++)
        if (r->heap[i].hash == hash) return;
    bool full = r->n == r->cap;
    int64_t at = full ? 0 : r->n;
    if (!full) r->heap[r->n++].slot = at;
    r->heap[at].hash = hash;
    memcpy(r->data + r->heap[at].slot * r->len, x, (size_t)r->len * sizeof *x);
    if (full) sift_down(r, 0, r->n);
    else
        for (; at > 0 && r->heap[(at - 1) / 2].hash < r->heap[at].hash; at = (at - 1) / 2) swap_rows(r, at, (at - 1) / 2);
}

/* room: as many rows as come first; a sample that brings fewer than the cap shall not pay for it. */
static qx_status open_reservoir(qx_ctx *ctx, qx_reservoir *r, int64_t len, int64_t cap, int64_t room)
{
    int64_t n;
    if (!qx_mul_i64(len, cap, &n)) QX_FAIL(ctx, QX_E_BUDGET, "%lld rows of %lld", (long long)cap, (long long)len);
    QX_TRY(QX_NEW_ARRAY(ctx, room, &r->heap));
    qx_status st = QX_NEW_ARRAY(ctx, room * len, &r->data);
    if (st != QX_OK) {
        qx_free(ctx, r->heap);
        r->heap = NULL;
        return st;
    }
    r->len = len;
    r->cap = cap;
    r->room = room;
    return QX_OK;
}

/* Rows of `len` are there to be put; the product with cap was checked. */
static qx_status make_room(qx_ctx *ctx, qx_reservoir *r)
{
    const int64_t more = r->room > r->cap / 2 ? r->cap : 2 * r->room;
    if (r->n < r->room || r->room == r->cap) return QX_OK;
    QX_TRY(qx_regrow(ctx, (void **)&r->data, (size_t)(r->room * r->len) * sizeof *r->data, (size_t)(more * r->len) * sizeof *r->data));
    QX_TRY(qx_regrow(ctx, (void **)&r->heap, (size_t)r->room * sizeof *r->heap, (size_t)more * sizeof *r->heap));
    r->room = more;
    return QX_OK;
}

/* After sorting, the smallest is in front: make the largest come first again. */
static void make_heap(qx_reservoir *r)
{
    for (int64_t i = r->n / 2 - 1; i >= 0; i--) sift_down(r, i, r->n);
}

typedef struct hash_job { const float *x; int64_t rows, stride, len; uint64_t *out; bool by_size; } hash_job;
enum { HASH_ROWS = 64 };

/* Falls as the largest |x| rises (bits of a positive float are ordered like its value); of equal ones the hash decides. */
static uint64_t size_key(const float *x, int64_t n, uint64_t hash)
{
    float top = 0;
    uint32_t bits;
    (void)qx_amax(&(qx_grid){1, n, 1, n}, QX_DT_FLOAT, x, &top, NULL); /* cannot fail for floats */
    memcpy(&bits, &top, sizeof bits);
    return (uint64_t)~bits << 32 | hash >> 32;
}

static qx_status hash_piece(void *user, int64_t i)
{
    hash_job *j = user;
    for (int64_t r = i * HASH_ROWS; r < j->rows && r < (i + 1) * HASH_ROWS; r++) {
        const float *x = j->x + r * j->stride;
        j->out[r] = qx_hash64(x, (size_t)j->len * sizeof *x);
        if (j->by_size) j->out[r] = size_key(x, j->len, j->out[r]);
    }
    return QX_OK;
}

qx_status qx_reservoir_add(qx_ctx *ctx, qx_reservoir *r, const float *x, int64_t rows, int64_t stride, int64_t len, int64_t cap)
{
    if (!r->heap) QX_TRY(open_reservoir(ctx, r, len, cap, rows < 1 ? 1 : rows < cap ? rows : cap));
    if (r->len != len) QX_FAIL(ctx, QX_E_SHAPE, "rows of %lld elements now, %lld before", (long long)len, (long long)r->len);
    make_heap(r);
    hash_job j = {x, rows, stride, len, NULL, r->by_size};
    QX_TRY(QX_NEW_ARRAY(ctx, rows, &j.out));
    qx_status st = qx_parallel(ctx, (rows + HASH_ROWS - 1) / HASH_ROWS, hash_piece, &j);
    for (int64_t i = 0; i < rows && st == QX_OK; i++) {
        if (r->n == r->cap && j.out[i] >= r->heap[0].hash) continue;
        st = make_room(ctx, r);
        if (st == QX_OK) put_row(r, x + i * stride, j.out[i]);
    }
    qx_free(ctx, j.out);
    return st;
}

/* Row i comes from where heap[i] says, one cycle of moves after the other. */
static void lay_out_rows(qx_reservoir *r, float *spare)
{
    const size_t bytes = (size_t)r->len * sizeof *spare;
    for (int64_t i = 0; i < r->n; i++) {
        int64_t at = i;
        if (r->heap[i].slot == i) continue;
        memcpy(spare, r->data + i * r->len, bytes);
        for (int64_t from; (from = r->heap[at].slot) != i; at = from) {
            memcpy(r->data + at * r->len, r->data + from * r->len, bytes);
            r->heap[at].slot = at;
        }
        memcpy(r->data + at * r->len, spare, bytes);
        r->heap[at].slot = at;
    }
}

/* Heap sort, then the rows are laid out in that order; the array sorted the other way round is a heap again when more rows come. */
qx_status qx_reservoir_sort(qx_ctx *ctx, qx_reservoir *r)
{
    if (!r->n) return QX_OK;
    float *spare;
    QX_TRY(qx_alloc_raw(ctx, (size_t)r->len * sizeof *spare, (void **)&spare));
    for (int64_t i = r->n / 2 - 1; i >= 0; i--) sift_down(r, i, r->n);
    for (int64_t n = r->n - 1; n > 0; n--) {
        swap_rows(r, 0, n);
        sift_down(r, 0, n);
    }
    lay_out_rows(r, spare);
    qx_free(ctx, spare);
    return QX_OK;
}

void qx_reservoir_free(qx_ctx *ctx, qx_reservoir *r)
{
    qx_free(ctx, r->heap);
    qx_free(ctx, r->data);
    *r = (qx_reservoir){0};
}

/* ---- rows of a linear operator ---- */

int64_t qx_rows_length(int rank, const int64_t *dims, const qx_conv_window *w)
{
    if (!w) return rank > 0 ? dims[rank - 1] : 0;
    if (!w->rank) return rank > 0 ? dims[rank > 1 ? rank - 2 : 0] : 0;
    if (rank != w->rank + 2 || w->rank < 1 || w->rank > 3) return 0;
    int64_t n = dims[1];
    for (int d = 0; d < w->rank; d++)
        if (w->kernel[d] < 1 || w->stride[d] < 1 || w->dilation[d] < 1 || !qx_mul_i64(n, w->kernel[d], &n)) return 0;
    return n;
}

/* Which rows of a tensor: one of every `every` along the stream of rows, at a place in its stretch that the stretch's number
 * decides, so that neither cutting the samples nor the width of a picture matters. */
static uint64_t place_in_stretch(int64_t stretch, int64_t every)
{
    const uint64_t x = ((uint64_t)stretch + 1) * 0x9E3779B97F4A7C15u; /* Fibonacci hashing: its upper bits are spread evenly */
    return (x >> 32) % (uint64_t)every;
}

/* out[]: the rows among [seen, seen + rows), counted from seen. */
static int64_t pick_rows(int64_t seen, int64_t rows, int64_t every, int64_t *out)
{
    int64_t n = 0;
    for (int64_t s = seen / every; s * every < seen + rows; s++) {
        const int64_t at = s * every + (int64_t)place_in_stretch(s, every) - seen;
        if (at >= 0 && at < rows) out[n++] = at;
    }
    return n;
}

typedef struct row_source {
    const float *x;
    const qx_conv_window *w;          /* NULL: rows lie as they are */
    int rank;
    int64_t channels, in[3], out[3], kernel, len, rows, first; /* kernel: elements of the window; first: of the picked */
    const int64_t *picked;            /* NULL: all */
    float *made;                      /* [at most QX_GRAM_ROWS][len] */
} row_source;

/* One row: the patch at output place `at`, channels outermost, as the weight [O, I, kh, kw] lies. Outside the input: 0. */
static void im2col_row(const row_source *m, int64_t at, float *row)
{
    int64_t pos[3] = {0}, area = 1, places = 1;
    for (int d = 0; d < m->rank; d++) area *= m->in[d], places *= m->out[d];
    const float *x = m->x + at / places * m->channels * area;
    at %= places;
    for (int d = m->rank - 1; d >= 0; d--) pos[d] = at % m->out[d] * m->w->stride[d] - m->w->pad_begin[d], at /= m->out[d];
    for (int64_t e = 0; e < m->kernel; e++) {
        int64_t rest = e, offset = 0, step = 1;
        bool inside = true;
        for (int d = m->rank - 1; d >= 0; d--) {
            int64_t p = pos[d] + rest % m->w->kernel[d] * m->w->dilation[d];
            rest /= m->w->kernel[d];
            inside &= p >= 0 && p < m->in[d];
            offset += p * step;
            step *= m->in[d];
        }
        for (int64_t c = 0; c < m->channels; c++) row[c * m->kernel + e] = inside ? x[c * area + offset] : 0.0f;
    }
}

static qx_status make_row(void *user, int64_t i)
{
    const row_source *m = user;
    const int64_t at = m->picked ? m->picked[m->first + i] : m->first + i;
    if (m->w) im2col_row(m, at, m->made + i * m->len);
    else memcpy(m->made + i * m->len, m->x + at * m->len, (size_t)m->len * sizeof(float));
    return QX_OK;
}

static qx_status prepare(qx_ctx *ctx, row_source *m, const int64_t *dims, const char *name)
{
    const qx_conv_window *w = m->w;
    m->channels = dims[1];
    m->kernel = 1;
    m->rows = dims[0];
    for (int d = 0; d < m->rank; d++) {
        int64_t reach = w->dilation[d] * (w->kernel[d] - 1) + 1, padded = dims[d + 2] + w->pad_begin[d] + w->pad_end[d];
        m->in[d] = dims[d + 2];
        m->out[d] = padded >= reach ? (padded - reach) / w->stride[d] + 1 : 0;
        m->kernel *= w->kernel[d];
        if (!qx_mul_i64(m->rows, m->out[d], &m->rows)) QX_FAIL(ctx, QX_E_SHAPE, "statistics of '%s': too many convolution windows", name);
    }
    return QX_OK;
}

static qx_status hand_over(qx_ctx *ctx, row_source *m, int64_t total, qx_rows_fn *fn, void *user)
{
    const int64_t most = total < QX_GRAM_ROWS ? total : QX_GRAM_ROWS;
    if (!total) return QX_OK;
    QX_TRY(qx_alloc_raw(ctx, (size_t)(most * m->len) * sizeof *m->made, (void **)&m->made));
    qx_status st = QX_OK;
    for (m->first = 0; m->first < total && st == QX_OK; m->first += most) {
        int64_t n = total - m->first < most ? total - m->first : most;
        st = qx_parallel(ctx, n, make_row, m);
        if (st == QX_OK) st = fn(user, m->made, n, m->len, m->len);
    }
    qx_free(ctx, m->made);
    return st;
}

static qx_status hand_over_some(qx_ctx *ctx, row_source *m, const qx_thinning *t, qx_rows_fn *fn, void *user)
{
    int64_t *picked;
    QX_TRY(QX_NEW_ARRAY(ctx, m->rows / t->every + 2, &picked));
    m->picked = picked;
    const qx_status st = hand_over(ctx, m, pick_rows(t->seen, m->rows, t->every, picked), fn, user);
    qx_free(ctx, picked);
    return st;
}

/* Columns of matrices are what a convolution without a neighbourhood sees of [matrices, k, columns]. */
static const qx_conv_window each_place = {.kernel = {1, 1, 1}, .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .rank = 1, .group = 1};

static void as_pictures(const qx_seen_by *t, int64_t dims[3])
{
    const int rank = t->rank;
    dims[0] = 1;
    for (int d = 0; d < rank - 2; d++) dims[0] *= t->dims[d];
    dims[1] = t->dims[rank > 1 ? rank - 2 : 0];
    dims[2] = rank > 1 ? t->dims[rank - 1] : 1;
}

/* Decided once, by the first tensor: every run is taken to be as long. */
static bool thins(qx_thinning *t, int64_t rows, int64_t columns)
{
    const double ratio = t->enough ? (double)t->runs * (double)rows / ((double)t->enough * (double)columns) : 1;
    if (!t->every) t->every = ratio < 2 ? 1 : ratio < 1 << 30 ? (int64_t)ratio : 1 << 30;
    return t->every > 1;
}

qx_status qx_rows_each(qx_ctx *ctx, const qx_seen_by *t, qx_thinning *thinning, qx_rows_fn *fn, void *user)
{
    const bool columns = t->w && !t->w->rank;
    const qx_conv_window *w = columns ? &each_place : t->w;
    int64_t len = qx_rows_length(t->rank, t->dims, t->w), numel = 1, pictures[3];
    if (len <= 0) QX_FAIL(ctx, QX_E_SHAPE, "statistics of '%s': a tensor of rank %d has no rows for this operator", t->name, t->rank);
    for (int d = 0; d < t->rank; d++) numel *= t->dims[d];
    row_source m = {.x = t->x, .w = w, .rank = w ? w->rank : 0, .len = len, .rows = numel / len};
    if (columns) as_pictures(t, pictures);
    if (w) QX_TRY(prepare(ctx, &m, columns ? pictures : t->dims, t->name));
    if (thinning && thins(thinning, m.rows, len / (w && w->group > 1 ? w->group : 1))) {
        QX_TRY(hand_over_some(ctx, &m, thinning, fn, user));
        thinning->seen += m.rows;
        return QX_OK;
    }
    return w ? hand_over(ctx, &m, m.rows, fn, user) : fn(user, t->x, m.rows, len, len);
}
