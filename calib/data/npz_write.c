/* npz_write.c - writes an .npz archive: members stored (not deflated), each array's data 64-byte aligned inside its .npy, no time
 * stamps (same tensors, same bytes). The archive is put together here, record by record, and committed by rename: libzip would keep
 * every array in memory until it closes, and would choose the temporary name itself. */
#include "calib/data/npy.h"
#include "calib/data/samples.h"

#include "base/checked.h"
#include "base/file.h"

#include <string.h>

enum { HEAD_MAX = 512, LOCAL_SIG = 0x04034b50, CENTRAL_SIG = 0x02014b50, END_SIG = 0x06054b50, END64_SIG = 0x06064b50,
       LOC64_SIG = 0x07064b50 };
#define U32_FULL 0xffffffffu

typedef struct record { const char *name; int64_t offset, size; uint32_t crc; } record;

static void put16(qx_buf *b, qx_status *st, uint32_t v)
{
    uint8_t p[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
    if (*st == QX_OK) *st = qx_buf_put(b, p, 2);
}
static void put32(qx_buf *b, qx_status *st, uint32_t v)
{
    put16(b, st, v & 0xffff);
    put16(b, st, v >> 16);
}
static void put64(qx_buf *b, qx_status *st, int64_t v)
{
    put32(b, st, (uint32_t)((uint64_t)v & U32_FULL));
    put32(b, st, (uint32_t)((uint64_t)v >> 32));
}

/* CRC-32 of zip, eight bytes a step (tables on the stack: no writable globals). */
typedef struct crc_tables { uint32_t t[8][256]; } crc_tables;

static void crc_init(crc_tables *c)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;
        for (int k = 0; k < 8; k++) v = (v >> 1) ^ (0xedb88320u & (0u - (v & 1)));
        c->t[0][i] = v;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++) c->t[k][i] = (c->t[k - 1][i] >> 8) ^ c->t[0][c->t[k - 1][i] & 255];
}

static uint32_t crc_add(const crc_tables *c, uint32_t crc, const uint8_t *p, size_t n)
{
    uint32_t v = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t lo = v ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
        v = c->t[7][lo & 255] ^ c->t[6][lo >> 8 & 255] ^ c->t[5][lo >> 16 & 255] ^ c->t[4][lo >> 24] ^ c->t[3][p[4]] ^
            c->t[2][p[5]] ^ c->t[1][p[6]] ^ c->t[0][p[7]];
    }
    while (n--) v = (v >> 8) ^ c->t[0][(v ^ *p++) & 255];
    return ~v;
}

/* Common fields of the local and the central record; sizes are in the zip64 extra field when they do not fit. */
static void put_record(qx_buf *b, qx_status *st, const record *r, bool central)
{
    bool big = r->size >= (int64_t)U32_FULL || (central && r->offset >= (int64_t)U32_FULL);
    size_t n = strlen(r->name) + 4;
    put32(b, st, central ? CENTRAL_SIG : LOCAL_SIG);
    if (central) put16(b, st, 45);
    put16(b, st, big ? 45 : 20);
    put16(b, st, 0x0800); /* names are UTF-8 */
    put16(b, st, 0); /* stored */
    put16(b, st, 0);
    put16(b, st, 0x21); /* 1980-01-01 */
    put32(b, st, r->crc);
    put32(b, st, big ? U32_FULL : (uint32_t)r->size);
    put32(b, st, big ? U32_FULL : (uint32_t)r->size);
    put16(b, st, (uint32_t)n);
    put16(b, st, !big ? 0 : central ? 28 : 20);
    if (central) {
        put16(b, st, 0);
        put16(b, st, 0);
        put16(b, st, 0);
        put32(b, st, 0);
        put32(b, st, big ? U32_FULL : (uint32_t)r->offset);
    }
    if (*st == QX_OK) *st = qx_buf_printf(b, "%s.npy", r->name);
    if (!big) return;
    put16(b, st, 1);
    put16(b, st, central ? 24 : 16);
    put64(b, st, r->size);
    put64(b, st, r->size);
    if (central) put64(b, st, r->offset);
}

static void put_end(qx_buf *b, qx_status *st, int n, int64_t start, int64_t length)
{
    bool big = n >= 0xffff || start >= (int64_t)U32_FULL || length >= (int64_t)U32_FULL;
    if (big) {
        put32(b, st, END64_SIG);
        put64(b, st, 44);
        put16(b, st, 45);
        put16(b, st, 45);
        put32(b, st, 0);
        put32(b, st, 0);
        put64(b, st, n);
        put64(b, st, n);
        put64(b, st, length);
        put64(b, st, start);
        put32(b, st, LOC64_SIG);
        put32(b, st, 0);
        put64(b, st, start + length);
        put32(b, st, 1);
    }
    put32(b, st, END_SIG);
    put16(b, st, 0);
    put16(b, st, 0);
    put16(b, st, big ? 0xffff : (uint32_t)n);
    put16(b, st, big ? 0xffff : (uint32_t)n);
    put32(b, st, big ? U32_FULL : (uint32_t)length);
    put32(b, st, big ? U32_FULL : (uint32_t)start);
    put16(b, st, 0);
}

static qx_status check_name(qx_ctx *ctx, const char *path, const char *const *names, int i)
{
    if (!*names[i] || strlen(names[i]) > 4096) QX_FAIL(ctx, QX_E_USAGE, "%s: array name of %zu bytes", path, strlen(names[i]));
    for (int k = 0; k < i; k++)
        if (!strcmp(names[k], names[i])) QX_FAIL(ctx, QX_E_USAGE, "%s: two arrays named '%s'", path, names[i]);
    return QX_OK;
}

static qx_status write_array(qx_ctx *ctx, qx_out *out, const crc_tables *crc, record *r, const qx_tensor *t, qx_buf *b, int64_t *end)
{
    char head[HEAD_MAX];
    size_t n;
    QX_TRY(qx_npy_head(ctx, r->name, t, head, sizeof head, &n));
    r->offset = *end;
    r->size = (int64_t)n + (int64_t)t->bytes;
    r->crc = crc_add(crc, crc_add(crc, 0, (const uint8_t *)head, n), t->data, t->bytes);
    qx_status st = QX_OK;
    qx_buf_clear(b);
    put_record(b, &st, r, false);
    if (st == QX_OK) st = qx_buf_put(b, head, n);
    QX_TRY(st);
    QX_TRY(qx_out_write_at(out, *end, b->data, b->len));
    if (t->bytes) QX_TRY(qx_out_write_at(out, *end + (int64_t)b->len, t->data, t->bytes));
    *end += (int64_t)b->len + (int64_t)t->bytes;
    return QX_OK;
}

static qx_status write_all(qx_ctx *ctx, qx_out *out, const char *path, const char *const *names, const qx_tensor *tensors, int n,
                           record *records, qx_buf *b)
{
    crc_tables crc;
    crc_init(&crc);
    int64_t end = 0;
    for (int i = 0; i < n; i++) {
        QX_TRY(check_name(ctx, path, names, i));
        records[i].name = names[i];
        QX_TRY(write_array(ctx, out, &crc, &records[i], &tensors[i], b, &end));
    }
    qx_status st = QX_OK;
    qx_buf_clear(b);
    for (int i = 0; i < n; i++) put_record(b, &st, &records[i], true);
    put_end(b, &st, n, end, (int64_t)b->len);
    return st == QX_OK ? qx_out_write_at(out, end, b->data, b->len) : st;
}

qx_status qx_npz_write(qx_ctx *ctx, const char *path, const char *const *names, const qx_tensor *tensors, int n)
{
    qx_outset *set = NULL;
    qx_out *out;
    record *records = NULL;
    qx_buf b = QX_BUF_INIT(ctx);
    qx_status st = QX_NEW_ARRAY(ctx, n + 1, &records);
    if (st == QX_OK) st = qx_outset_new(ctx, &set);
    if (st == QX_OK) st = qx_out_open(set, path, NULL, 0, &out);
    if (st == QX_OK) st = write_all(ctx, out, path, names, tensors, n, records, &b);
    if (st == QX_OK) st = qx_outset_commit(set);
    qx_buf_free(&b);
    qx_outset_free(set);
    qx_free(ctx, records);
    return st;
}
