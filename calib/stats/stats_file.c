/* stats_file.c - what writing and reading a file of statistics share: the arrays of a value, and hashes (see stats_file.h). */
#include "calib/stats/stats_file.h"

#include <string.h>
#include <unistd.h>

#include "base/file.h"

int qx_stats_parts(qx_observer *o, qx_stats_part *p, bool with_gram)
{
    int n = 0;
    qx_columns *a = &o->channels.acc;
    int64_t c = o->channels.n, steps = o->steps.n;
    if (o->hist.bins) p[n++] = (qx_stats_part){"histogram", (void **)&o->hist.bins, QX_HIST_BINS, sizeof(uint64_t)};
    if (c) p[n++] = (qx_stats_part){"channel_min", (void **)&a->min, c, sizeof(float)};
    if (c) p[n++] = (qx_stats_part){"channel_max", (void **)&a->max, c, sizeof(float)};
    if (c) p[n++] = (qx_stats_part){"channel_sum", (void **)&a->sum, c, sizeof(qx_dd)};
    if (c) p[n++] = (qx_stats_part){"channel_abs", (void **)&a->abs, c, sizeof(qx_dd)};
    if (c) p[n++] = (qx_stats_part){"channel_sq", (void **)&a->sq, c, sizeof(qx_dd)};
    if (o->rows.n) p[n++] = (qx_stats_part){"row_data", (void **)&o->rows.data, o->rows.n * o->rows.len, sizeof(float)};
    if (o->rows.n) p[n++] = (qx_stats_part){"row_hash", (void **)&o->rows.heap, o->rows.n, sizeof(qx_row_ref)};
    if (o->tops.n) p[n++] = (qx_stats_part){"top_data", (void **)&o->tops.data, o->tops.n * o->tops.len, sizeof(float)};
    if (o->tops.n) p[n++] = (qx_stats_part){"top_hash", (void **)&o->tops.heap, o->tops.n, sizeof(qx_row_ref)};
    if (steps) p[n++] = (qx_stats_part){"steps", (void **)&o->steps.rows, steps, sizeof(qx_step_row)};
    if (with_gram && o->gram.full)
        p[n++] = (qx_stats_part){"gram", (void **)&o->gram.full, o->gram.groups * o->gram.k * o->gram.k, sizeof(float)};
    if (with_gram && o->gram.tiles)
        p[n++] = (qx_stats_part){"gram_tiles", (void **)&o->gram.tiles, qx_gram_tile_count(o->gram.k, o->gram.groups), sizeof(double)};
    if (with_gram && o->gram.tiles && o->gram.n_pending)
        p[n++] = (qx_stats_part){"gram_pending", (void **)&o->gram.pending, o->gram.n_pending * o->gram.k * o->gram.groups, sizeof(float)};
    return n;
}

qx_status qx_stats_file_hash(qx_ctx *ctx, int fd, const char *path, int64_t n, char hex[33])
{
    enum { PIECE = 1 << 20 };
    qx_buf list = QX_BUF_INIT(ctx);
    char *piece;
    QX_TRY(qx_alloc_raw(ctx, PIECE, (void **)&piece));
    qx_status st = QX_OK;
    for (int64_t at = 0; at < n && st == QX_OK; at += PIECE) {
        size_t want = n - at < PIECE ? (size_t)(n - at) : PIECE;
        char part_hex[33];
        if (pread(fd, piece, want, (off_t)at) != (ssize_t)want)
            st = qx_fail(ctx, QX_E_IO, "%s: cannot be read back at %lld", path, (long long)at);
        else {
            qx_hash128_hex(piece, want, part_hex);
            st = qx_buf_put(&list, part_hex, QX_STATS_HASH_CHARS);
        }
    }
    if (st == QX_OK) qx_hash128_hex(list.data ? list.data : "", list.len, hex);
    qx_buf_free(&list);
    qx_free(ctx, piece);
    return st;
}

/* ---- hash of the content ---- */

static qx_status add_hash(qx_buf *list, const void *p, size_t n)
{
    uint64_t h = qx_hash64(p, n);
    return qx_buf_put(list, &h, sizeof h);
}

static qx_status hash_value(qx_buf *list, qx_observer *o)
{
    const qx_scan *r = &o->range;
    double scalars[] = {(double)o->have, (double)r->n, (double)r->zeros, (double)r->min, (double)r->max, qx_dd_value(r->sum),
                        qx_dd_value(r->sumsq), (double)o->hist.exp, (double)o->gram.rows};
    qx_stats_part p[QX_STATS_PARTS];
    int n = qx_stats_parts(o, p, true);
    QX_TRY(add_hash(list, o->name, strlen(o->name)));
    QX_TRY(add_hash(list, scalars, sizeof scalars));
    for (int i = 0; i < n; i++) QX_TRY(add_hash(list, *p[i].at, (size_t)p[i].n * p[i].width));
    qx_file_rest(o->gram.disk);
    return QX_OK;
}

uint64_t qx_stats_hash(const qx_stats *s)
{
    qx_buf list = QX_BUF_INIT(s->ctx);
    qx_status st = QX_OK;
    for (int64_t i = 0; i < qx_stats_count(s) && st == QX_OK; i++)
        if (qx_stats_entry_at(s, i)->o.have) st = hash_value(&list, &qx_stats_entry_at(s, i)->o);
    uint64_t h = st == QX_OK ? qx_hash64(list.data ? list.data : "", list.len) : 0;
    qx_buf_free(&list);
    return h;
}
