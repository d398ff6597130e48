/* weight.c - making weights from bytes and reading what they hold, whole or by ranges, whatever their source. */
#include "onnx/file/source.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "onnx/file/store.h"

/* ---- making ---- */

qx_status qx_weight_from_bytes(qx_model *m, qx_dtype dtype, int rank, const int64_t *dims, const void *bytes, qx_weight **out)
{
    qx_weight *w = qx_arena_alloc(m->arena, sizeof *w);
    if (!w) return QX_E_NOMEM;
    w->name = "";
    w->dtype = dtype;
    w->rank = rank;
    w->dims = rank ? qx_arena_memdup(m->arena, dims, (size_t)rank * sizeof *dims) : NULL;
    if (rank && !w->dims) return QX_E_NOMEM;
    if (!qx_dims_product(dims, rank, &w->numel) || !qx_dtype_bytes(dtype, w->numel, &w->bytes))
        QX_FAIL(m->ctx, QX_E_SHAPE, "a new tensor of %d dims of %s has no size", rank, qx_dtype_get(dtype)->name);
    w->src = (qx_source){.kind = QX_SRC_BYTES, .bytes = qx_arena_memdup(m->arena, bytes, w->bytes), .length = (int64_t)w->bytes};
    if (!w->src.bytes) return QX_E_NOMEM;
    *out = w;
    return QX_OK;
}

qx_status qx_weight_scalar_f32(qx_model *m, qx_dtype dtype, float v, qx_weight **out)
{
    uint8_t raw[4];
    if (!qx_dtype_is_real(dtype)) QX_FAIL(m->ctx, QX_E_TYPE, "a scalar of %s is not FLOAT, FLOAT16 or BFLOAT16", qx_dtype_get(dtype)->name);
    (void)qx_from_f32(dtype, &v, 1, raw);
    return qx_weight_from_bytes(m, dtype, 0, NULL, raw, out);
}

/* ---- reading ---- */

qx_status qx_source_read(qx_ctx *ctx, const qx_weight *w, size_t first, size_t n, void *out)
{
    const qx_source *s = &w->src;
    if (first > w->bytes || n > w->bytes - first)
        QX_FAIL(ctx, QX_E_FAIL, "tensor '%s': bytes %zu..%zu of %zu", w->name, first, first + n, w->bytes);
    switch (s->kind) {
    case QX_SRC_BYTES:
        if (n) memcpy(out, (const uint8_t *)s->bytes + first, n);
        return QX_OK;
    case QX_SRC_FILE: return qx_file_read(s->file, s->offset + (int64_t)first, n, out);
    case QX_SRC_TYPED: return qx_typed_read(ctx, w, first, n, out);
    default: QX_FAIL(ctx, QX_E_IO, "tensor '%s': the file with its content is not there", w->name);
    }
}

typedef struct memory { const qx_weight *part; uint8_t *out; } memory; /* part may be a renamed copy of the job's own */

static qx_status put_memory(void *user, const qx_weight *part, int64_t offset, const void *bytes, size_t n)
{
    const memory *to = user;
    if (part->part == to->part->part) memcpy(to->out + offset, bytes, n);
    return QX_OK;
}

qx_status qx_weight_read(qx_ctx *ctx, const qx_weight *w, void *out)
{
    memory to = {w, out};
    if (w->dtype == QX_DT_STRING) QX_FAIL(ctx, QX_E_TYPE, "tensor '%s' holds strings, which have no raw form", w->name);
    if (!w->job) return qx_source_read(ctx, w, 0, w->bytes, out);
    return qx_job_run(ctx, w->job, &(qx_sink){&to, put_memory});
}

static int64_t byte_start(const qx_weight *w, int64_t first) { return first * qx_dtype_bits(w->dtype) / 8; }

size_t qx_source_raw_bytes(const qx_weight *w, int64_t count) { return (size_t)((count + 8) * qx_dtype_bits(w->dtype) + 7) / 8; }

/* Packed types may start in the middle of a byte: the elements before `first` in its byte are decoded too and shifted out. */
static qx_status packed_f32(qx_ctx *ctx, const qx_weight *w, int64_t first, int64_t count, uint8_t *raw, float *out)
{
    const int per = 8 / qx_dtype_bits(w->dtype), skip = (int)(first % per);
    const int64_t head = skip ? (per - skip < count ? per - skip : count) : 0;
    const size_t at = (size_t)byte_start(w, first - skip), n = (size_t)((skip + count + per - 1) / per);
    float start[8];
    QX_TRY(qx_source_read(ctx, w, at, n, raw));
    if (head) {
        (void)qx_to_f32(w->dtype, raw, per, start);
        memcpy(out, start + skip, (size_t)head * sizeof *out);
    }
    (void)qx_to_f32(w->dtype, raw + (skip ? 1 : 0), count - head, out + head);
    return QX_OK;
}

qx_status qx_source_f32(qx_ctx *ctx, const qx_weight *w, int64_t first, int64_t count, void *raw, float *out)
{
    const int bits = qx_dtype_bits(w->dtype);
    const char cls = qx_dtype_get(w->dtype)->cls;
    if (first < 0 || count < 0 || first > w->numel - count)
        QX_FAIL(ctx, QX_E_FAIL, "tensor '%s': elements %lld..%lld of %lld", w->name, (long long)first, (long long)(first + count),
                (long long)w->numel);
    if (cls == 'S' || cls == 'C')
        QX_FAIL(ctx, QX_E_TYPE, "tensor '%s' of %s cannot be read as float", w->name, qx_dtype_get(w->dtype)->name);
    if (!count) return QX_OK;
    if (bits < 8) return packed_f32(ctx, w, first, count, raw, out);
    const size_t at = (size_t)byte_start(w, first);
    if (w->src.kind == QX_SRC_BYTES) {
        if (!qx_to_f32(w->dtype, (const uint8_t *)w->src.bytes + at, count, out))
            QX_FAIL(ctx, QX_E_TYPE, "tensor '%s' of %s cannot be read as float", w->name, qx_dtype_get(w->dtype)->name);
        return QX_OK;
    }
    QX_TRY(qx_source_read(ctx, w, at, (size_t)(count * (bits / 8)), raw));
    if (!qx_to_f32(w->dtype, raw, count, out))
        QX_FAIL(ctx, QX_E_TYPE, "tensor '%s' of %s cannot be read as float", w->name, qx_dtype_get(w->dtype)->name);
    return QX_OK;
}

qx_status qx_weight_read_f32(qx_ctx *ctx, const qx_weight *w, int64_t first, int64_t count, float *out)
{
    void *raw;
    if (w->job) QX_FAIL(ctx, QX_E_FAIL, "tensor '%s' is made by a job; its elements are read with qx_rows_read", w->name);
    QX_TRY(qx_alloc_raw(ctx, qx_source_raw_bytes(w, count < 0 ? 0 : count), &raw));
    const qx_status st = qx_source_f32(ctx, w, first, count, raw, out);
    qx_free(ctx, raw);
    return st;
}

/* A hash of chunk hashes, so that memory stays small; equal content gives equal hashes. */
qx_status qx_weight_hash(qx_ctx *ctx, const qx_weight *w, uint64_t *out)
{
    enum { CHUNK = 1 << 20 };
    uint64_t h[2] = {w->bytes, 0};
    void *buf;
    qx_status st = QX_OK;
    if (w->dtype == QX_DT_STRING) QX_FAIL(ctx, QX_E_TYPE, "tensor '%s' holds strings, which are not hashed", w->name);
    const bool whole = w->job != NULL || w->src.kind == QX_SRC_TYPED;
    const size_t step = whole ? w->bytes : CHUNK;
    QX_TRY(qx_alloc_raw(ctx, whole ? w->bytes : CHUNK, &buf));
    if (whole) st = qx_weight_read(ctx, w, buf);
    for (size_t at = 0; at < w->bytes && st == QX_OK; at += CHUNK) {
        const size_t n = w->bytes - at < CHUNK ? w->bytes - at : CHUNK;
        const uint8_t *p = step == CHUNK && !whole ? buf : (const uint8_t *)buf + at;
        if (!whole) st = qx_source_read(ctx, w, at, n, buf);
        h[1] = qx_hash64(p, n);
        h[0] = qx_hash64(h, sizeof h);
    }
    qx_free(ctx, buf);
    *out = h[0];
    return st;
}

const char *qx_weight_describe(const qx_weight *w, char *buf, size_t cap)
{
    size_t at = (size_t)snprintf(buf, cap, "%s[", qx_dtype_get(w->dtype)->text);
    for (int i = 0; i < w->rank && at < cap; i++) at += (size_t)snprintf(buf + at, cap - at, "%s%lld", i ? "," : "", (long long)w->dims[i]);
    if (at < cap) snprintf(buf + at, cap - at, "]");
    return buf;
}

/* Index of value i in the flattened tensor, or -1: the file may have changed since it was checked. */
static int64_t sparse_place(const qx_sparse *s, const int64_t *at, int64_t total)
{
    const int width = s->indices->rank == 2 ? s->rank : 1;
    int64_t flat = 0;
    for (int k = 0; k < width; k++) {
        const int64_t limit = width == 1 ? total : s->dims[k];
        if (at[k] < 0 || at[k] >= limit) return -1;
        flat = flat * (width == 1 ? 1 : limit) + at[k];
    }
    return flat;
}

qx_status qx_sparse_read(qx_ctx *ctx, const qx_sparse *s, void *out)
{
    const qx_weight *v = s->values;
    const int bits = qx_dtype_bits(v->dtype);
    const size_t size = (size_t)bits / 8, width = s->indices->rank == 2 ? (size_t)s->rank : 1;
    uint8_t *values = NULL;
    int64_t *places = NULL, total;
    qx_status st;
    if (v->dtype == QX_DT_STRING || bits % 8 || !qx_dims_product(s->dims, s->rank, &total))
        QX_FAIL(ctx, QX_E_UNSUPPORTED, "sparse tensor '%s' of %s", v->name, qx_dtype_get(v->dtype)->text);
    QX_TRY_GOTO(st, qx_alloc_raw(ctx, v->bytes, (void **)&values));
    QX_TRY_GOTO(st, qx_alloc_raw(ctx, s->indices->bytes, (void **)&places));
    QX_TRY_GOTO(st, qx_weight_read(ctx, v, values));
    QX_TRY_GOTO(st, qx_weight_read(ctx, s->indices, places));
    memset(out, 0, (size_t)total * size);
    for (int64_t i = 0; i < v->numel && st == QX_OK; i++) {
        const int64_t to = sparse_place(s, places + (size_t)i * width, total);
        if (to < 0) st = qx_fail(ctx, QX_E_FORMAT, "sparse tensor '%s': value %lld lies outside of it", v->name, (long long)i);
        else memcpy((uint8_t *)out + (size_t)to * size, values + (size_t)i * size, size);
    }
done:
    qx_free(ctx, values);
    qx_free(ctx, places);
    return st;
}
