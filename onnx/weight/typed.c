/* typed.c - large int32_data, int64_data and uint64_data: protobuf varints that stay in the file and are decoded in a stream.
 * Reading from the middle decodes from the start, because varints cannot be indexed; exporters that store weights this way are
 * old and rare. */
#include <string.h>

#include "onnx/file/store.h"

enum { CHUNK = 64 << 10 };

typedef struct stream { qx_ctx *ctx; const qx_source *src; uint8_t *buf; const uint8_t *p; int64_t at, have, pos; } stream;

static qx_status open_stream(stream *s, qx_ctx *ctx, const qx_source *src)
{
    void *buf = NULL;
    *s = (stream){.ctx = ctx, .src = src};
    if (!src->bytes) QX_TRY(qx_alloc_raw(ctx, CHUNK, &buf));
    s->buf = buf;
    return QX_OK;
}

static qx_status refill(stream *s)
{
    s->at += s->have;
    s->pos = 0;
    s->have = s->src->length - s->at;
    if (s->src->bytes) return s->p = (const uint8_t *)s->src->bytes + s->at, QX_OK;
    if (s->have > CHUNK) s->have = CHUNK;
    s->p = s->buf;
    return qx_file_read(s->src->file, s->src->offset + s->at, (size_t)s->have, s->buf);
}

static bool at_end(const stream *s) { return s->at + s->pos >= s->src->length; }

static qx_status next(stream *s, const char *name, int64_t *out)
{
    uint64_t v = 0;
    for (int i = 0; i < 10 && !at_end(s); i++) {
        if (s->pos == s->have) QX_TRY(refill(s));
        const uint8_t b = s->p[s->pos++];
        v |= (uint64_t)(b & 0x7f) << (7 * i);
        if (b < 0x80) return *out = (int64_t)v, QX_OK;
    }
    QX_FAIL(s->ctx, QX_E_FORMAT, "tensor '%s': varint of more than 10 bytes or cut off at byte %lld of its data", name,
            (long long)(s->at + s->pos));
}

/* int32_data is written sign-extended to 64 bits, or as 32 bits by some; both mean the low 32. */
static int64_t value_of(const qx_weight *w, int64_t v) { return w->src.typed_field == 5 ? (int32_t)(uint32_t)v : v; }

qx_status qx_typed_count(qx_ctx *ctx, const qx_weight *w, int64_t *entries)
{
    stream s;
    int64_t n = 0, v = 0;
    qx_status st;
    QX_TRY(open_stream(&s, ctx, &w->src));
    for (st = QX_OK; st == QX_OK && !at_end(&s); n++) st = next(&s, w->name, &v);
    qx_free(ctx, s.buf);
    *entries = n;
    return st;
}

/* Decodes all entries; copies those bytes of the raw form that fall into [first, first + n). */
static qx_status decode(qx_ctx *ctx, const qx_weight *w, int64_t entries, size_t first, size_t n, uint8_t *out)
{
    stream s;
    int64_t v = 0;
    qx_typed_bytes b;
    qx_status st;
    QX_TRY(open_stream(&s, ctx, &w->src));
    for (int64_t i = 0; i < entries; i++) {
        QX_TRY_GOTO(st, next(&s, w->name, &v));
        QX_TRY_GOTO(st, qx_typed_entry(ctx, w, entries, i, value_of(w, v), &b));
        if (out && b.at >= first + n) break;
        for (size_t k = 0; out && k < b.n; k++)
            if (b.at + k >= first && b.at + k < first + n) out[b.at + k - first] = b.bytes[k];
    }
    st = QX_OK;
done:
    qx_free(ctx, s.buf);
    return st;
}

qx_status qx_typed_check(qx_ctx *ctx, const qx_weight *w, int64_t entries) { return decode(ctx, w, entries, 0, 0, NULL); }

qx_status qx_typed_read(qx_ctx *ctx, const qx_weight *w, size_t first, size_t n, void *out)
{
    int64_t entries;
    QX_TRY(qx_typed_count(ctx, w, &entries));
    return decode(ctx, w, entries, first, n, out);
}
