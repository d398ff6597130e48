/* skim.c - the wire scan: checks a protobuf file of any size without recursion and copies it without its large tensor payloads.
 *
 * protobuf-c alone would copy every payload (2x the file in memory), stop at 2 GiB, overflow the stack on nesting and turn a
 * 2-byte node into 152 bytes; and its errors carry no text. So nothing reaches it that was not walked here: depth, lengths, wire
 * types, field numbers, repeats of singular fields, NULs in names, and an estimate of the memory that unpacking will take. The
 * walk follows the generated descriptors, so the schema is the only list of fields. It reads through a window with pread: the
 * kernel's page cache does the work of a mapping, and a file that shrinks meanwhile is an error code instead of SIGBUS. */
#include "onnx/file/wire.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"

enum { MAX_FIELDS = 24, WINDOW = 256 << 10, WINDOW_MIN = 4 << 10, FOREIGN = 536870911 };
enum { WT_VARINT = 0, WT_64 = 1, WT_LEN = 2, WT_32 = 5 };

typedef const ProtobufCMessageDescriptor msgdesc;
typedef const ProtobufCFieldDescriptor fielddesc;

typedef struct frame {
    msgdesc *d;
    fielddesc *via;             /* the parent's field that holds this message; NULL for the root */
    int64_t end;
    size_t len_at;              /* where the skeleton's 5-byte length of this message stands */
    size_t name_at, name_len;   /* its `name` in the skeleton, once seen; for messages of failures */
    uint32_t elided;            /* bit i: field i was left out */
    bool oneof;                 /* a member of its oneof was seen */
    uint32_t n_fields;
    uint32_t count[MAX_FIELDS]; /* occurrences by index of the field in the descriptor */
} frame;

typedef struct skim {
    qx_ctx *ctx;
    const qx_wire_src *src;
    const uint8_t *win;         /* bytes [win_at, win_at + win_len) of the source */
    uint8_t *win_mem;           /* NULL when the source is memory */
    int64_t win_at, win_len, fill, pos;
    int64_t skipped;            /* bytes left out so far */
    int64_t cost;               /* estimate of what unpacking takes */
    qx_buf out;
    qx_arena *arena;
    qx_span *spans; int64_t n_spans, cap_spans;
    int64_t bad_utf8;
    bool check_only;            /* nobody wants the skeleton: its bytes are dropped as soon as messages of failures cannot want them */
    int depth;
    frame stack[QX_WIRE_MAX_DEPTH + 1];
} skim;

/* ---- failures ---- */

static void put_path(skim *s, qx_buf *b, fielddesc *last)
{
    for (int i = 1; i <= s->depth; i++) {
        const frame *f = &s->stack[i], *up = &s->stack[i - 1];
        const uint32_t n = up->count[f->via - up->d->fields];
        (void)qx_buf_printf(b, "%s%s", i > 1 ? "." : "", f->via->name);
        if (f->via->label == PROTOBUF_C_LABEL_REPEATED && n) (void)qx_buf_printf(b, "[%u]", n - 1);
        if (f->name_len) (void)qx_buf_printf(b, " '%.*s'", (int)(f->name_len < 256 ? f->name_len : 256), s->out.data + f->name_at);
    }
    if (last) (void)qx_buf_printf(b, "%s%s", s->depth ? "." : "", last->name);
    if (!s->depth && !last) (void)qx_buf_printf(b, "%s", s->stack[0].d->short_name);
}

static qx_status bad(skim *s, int64_t at, fielddesc *f, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static qx_status bad(skim *s, int64_t at, fielddesc *f, const char *fmt, ...)
{
    qx_buf path = QX_BUF_INIT(s->ctx);
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    put_path(s, &path, f);
    const char *tail = !path.data ? "?" : path.len > 400 ? path.data + path.len - 400 : path.data; /* the end says more than the start */
    const qx_status st = qx_fail(s->ctx, QX_E_FORMAT, "%s: byte %lld, in %s%.400s: %s", s->src->name, (long long)at,
                                 tail == path.data ? "" : "...", tail, text);
    qx_buf_free(&path);
    return st;
}

/* ---- window ---- */

/* Makes n bytes at pos readable; the caller has checked that the source has them. */
static qx_status need(skim *s, int64_t n)
{
    if (s->pos >= s->win_at && s->pos + n <= s->win_at + s->win_len) return QX_OK;
    if (s->pos == s->win_at + s->win_len) s->fill = s->fill * 2 > WINDOW ? WINDOW : s->fill * 2; /* sequential: read ahead more */
    else s->fill = WINDOW_MIN;
    int64_t len = s->src->size - s->pos;
    if (len > s->fill) len = s->fill;
    if (len < n) len = n;
    QX_TRY(qx_file_read(s->src->file, s->pos, (size_t)len, s->win_mem));
    s->win_at = s->pos;
    s->win_len = len;
    return QX_OK;
}

static const uint8_t *here(const skim *s) { return s->win + (s->pos - s->win_at); }

/* Appends n bytes of the source to the skeleton. */
static qx_status copy(skim *s, int64_t n)
{
    void *to;
    if (s->out.len + (uint64_t)n > INT32_MAX) return bad(s, s->pos, NULL, "the file holds over 2 GiB besides tensor payloads");
    QX_TRY(qx_buf_extend(&s->out, (size_t)n, &to));
    if (s->win_mem && n > WINDOW_MIN && s->pos + n > s->win_at + s->win_len) {
        QX_TRY(qx_file_read(s->src->file, s->pos, (size_t)n, to));
    } else if (n) {
        QX_TRY(need(s, n));
        memcpy(to, here(s), (size_t)n);
    }
    s->pos += n;
    return QX_OK;
}

/* ---- varints ---- */

static qx_status get_varint(skim *s, int64_t end, fielddesc *f, uint64_t *out)
{
    int64_t room = end - s->pos;
    if (room > 10) room = 10;
    QX_TRY(need(s, room));
    const uint8_t *p = here(s);
    uint64_t v = 0;
    for (int64_t i = 0; i < room; i++) {
        v |= (uint64_t)(p[i] & 0x7f) << (7 * i);
        if (p[i] < 0x80) {
            s->pos += i + 1;
            *out = v;
            return QX_OK;
        }
    }
    if (room == 10) return bad(s, s->pos, f, "varint of more than 10 bytes");
    return bad(s, s->pos, f, "varint is cut off after %lld bytes", (long long)room);
}

static int varint_bytes(uint64_t v, uint8_t out[10])
{
    int n = 0;
    do {
        out[n] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        v >>= 7;
        n++;
    } while (v);
    return n;
}

static qx_status put_varint(skim *s, uint64_t v)
{
    uint8_t b[10];
    return qx_buf_put(&s->out, b, (size_t)varint_bytes(v, b));
}

static qx_status put_tag(skim *s, uint32_t number, int wire) { return put_varint(s, (uint64_t)number << 3 | (unsigned)wire); }

/* ---- memory estimate ---- */

static qx_status charge(skim *s, int64_t bytes, fielddesc *f)
{
    s->cost += bytes;
    if (s->cost <= QX_WIRE_BUDGET + 4 * (s->pos - s->skipped)) return QX_OK;
    return bad(s, s->pos, f, "unpacking the first %lld bytes would take more than %lld bytes", (long long)(s->pos - s->skipped),
               (long long)s->cost);
}

static int64_t round16(int64_t n) { return (n + 15) & ~(int64_t)15; }

/* ---- fields ---- */

static qx_status add_span(skim *s, int field, int64_t offset, int64_t length)
{
    if (s->check_only) return QX_OK;
    QX_TRY(qx_arena_grow(s->arena, (void **)&s->spans, s->n_spans, &s->cap_spans, sizeof *s->spans));
    s->spans[s->n_spans] = (qx_span){field, offset, length};
    QX_TRY(put_tag(s, FOREIGN, WT_VARINT));
    QX_TRY(put_varint(s, (uint64_t)s->n_spans));
    s->n_spans++;
    return QX_OK;
}

static int wire_of(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_FLOAT: case PROTOBUF_C_TYPE_FIXED32: case PROTOBUF_C_TYPE_SFIXED32: return WT_32;
    case PROTOBUF_C_TYPE_DOUBLE: case PROTOBUF_C_TYPE_FIXED64: case PROTOBUF_C_TYPE_SFIXED64: return WT_64;
    case PROTOBUF_C_TYPE_STRING: case PROTOBUF_C_TYPE_BYTES: case PROTOBUF_C_TYPE_MESSAGE: return WT_LEN;
    default: return WT_VARINT;
    }
}

static bool utf8_ok(const uint8_t *p, int64_t n)
{
    for (int64_t i = 0; i < n;) {
        const uint8_t c = p[i];
        if (c < 0x80) { i++; continue; }
        const int len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
        if (c < 0xc2 || c > 0xf4 || i + len > n) return false;
        for (int k = 1; k < len; k++) if ((p[i + k] & 0xc0) != 0x80) return false;
        if ((c == 0xe0 && p[i + 1] < 0xa0) || (c == 0xed && p[i + 1] > 0x9f) || (c == 0xf0 && p[i + 1] < 0x90) ||
            (c == 0xf4 && p[i + 1] > 0x8f))
            return false;
        i += len;
    }
    return true;
}

static qx_status check_string(skim *s, frame *f, fielddesc *fd, int64_t at, size_t from)
{
    const uint8_t *p = (const uint8_t *)s->out.data + from;
    const size_t n = s->out.len - from;
    if (n && memchr(p, 0, n)) return bad(s, at, fd, "a NUL byte inside a string of %zu bytes", n);
    if (n && !utf8_ok(p, (int64_t)n)) s->bad_utf8++;
    if (!strcmp(fd->name, "name")) f->name_at = from, f->name_len = n;
    return QX_OK;
}

/* Packed numbers: whole elements, and for varints the last one is complete and none is longer than 10 bytes. */
static qx_status check_packed(skim *s, fielddesc *fd, int wire, int64_t at, const uint8_t *p, int64_t n)
{
    const int64_t size = wire == WT_32 ? 4 : wire == WT_64 ? 8 : 1;
    if (n % size) return bad(s, at, fd, "%lld bytes are not a multiple of %lld", (long long)n, (long long)size);
    if (wire != WT_VARINT) return charge(s, round16(n), fd);
    int64_t run = 0, count = 0;
    for (int64_t i = 0; i < n; i++) {
        if (p[i] < 0x80) run = 0, count++;
        else if (++run >= 10) return bad(s, at + i, fd, "varint of more than 10 bytes");
    }
    if (run) return bad(s, at + n, fd, "varint is cut off after %lld bytes", (long long)run);
    return charge(s, 8 * count, fd);
}

static qx_status push(skim *s, fielddesc *fd, int64_t len)
{
    msgdesc *d = fd->descriptor;
    if (s->depth == QX_WIRE_MAX_DEPTH) return bad(s, s->pos, fd, "messages nest more than %d deep", QX_WIRE_MAX_DEPTH);
    QX_TRY(charge(s, round16((int64_t)d->sizeof_message) + 8, fd));
    QX_TRY(put_tag(s, fd->id, WT_LEN));
    frame *f = &s->stack[++s->depth];
    f->d = d;
    f->via = fd;
    f->end = s->pos + len;
    f->len_at = s->out.len;
    f->name_len = 0;
    f->elided = 0;
    f->oneof = false;
    f->n_fields = 0;
    memset(f->count, 0, d->n_fields * sizeof f->count[0]);
    return qx_buf_put(&s->out, "\0\0\0\0", 5); /* room for the length */
}

/* Skeleton lengths are five bytes always, so that they can be filled in once the children are known. */
static void pop(skim *s)
{
    const frame *f = &s->stack[s->depth];
    if (s->check_only) {
        s->depth--;
        if (s->depth > 1) return;
        qx_buf_clear(&s->out);
        s->stack[0].name_len = s->stack[1].name_len = 0;
        return;
    }
    uint8_t *p = (uint8_t *)s->out.data + f->len_at;
    const uint64_t n = s->out.len - f->len_at - 5;
    for (int i = 0; i < 5; i++) p[i] = (uint8_t)((n >> (7 * i) & 0x7f) | (i < 4 ? 0x80 : 0));
    s->depth--;
}

static bool is_payload(const frame *f, fielddesc *fd, int64_t len)
{
    if (f->d != &onnx__tensor_proto__descriptor || len <= QX_WIRE_ELIDE_OVER) return false;
    return fd->id == 4 || fd->id == 5 || fd->id == 7 || (fd->id >= 9 && fd->id <= 11);
}

static qx_status elide(skim *s, frame *f, fielddesc *fd, int64_t len)
{
    const unsigned i = (unsigned)(fd - f->d->fields);
    if (f->count[i] > 1) return bad(s, s->pos, fd, "a large payload in %u pieces is not supported", f->count[i]);
    f->elided |= 1u << i;
    const int64_t at = s->pos;
    s->pos += len;
    s->skipped += len;
    return add_span(s, (int)fd->id, at, len);
}

static qx_status length_delimited(skim *s, frame *f, fielddesc *fd, int64_t len)
{
    const int64_t at = s->pos;
    if (fd->type == PROTOBUF_C_TYPE_MESSAGE) return push(s, fd, len);
    if (is_payload(f, fd, len)) return elide(s, f, fd, len);
    QX_TRY(put_tag(s, fd->id, WT_LEN));
    QX_TRY(put_varint(s, (uint64_t)len));
    const size_t from = s->out.len;
    QX_TRY(copy(s, len));
    if (fd->type == PROTOBUF_C_TYPE_STRING) QX_TRY(check_string(s, f, fd, at, from));
    if (wire_of(fd->type) != WT_LEN) return check_packed(s, fd, wire_of(fd->type), at, (const uint8_t *)s->out.data + from, len);
    return charge(s, round16(len + 1) + 16, fd);
}

/* Reads a length and checks it against what its parent has left. */
static qx_status get_length(skim *s, const frame *f, fielddesc *fd, int64_t *out)
{
    uint64_t len = 0;
    const int64_t at = s->pos;
    QX_TRY(get_varint(s, f->end, fd, &len));
    if (len > (uint64_t)(f->end - s->pos))
        return bad(s, at, fd, "length %llu runs past its parent, which has %lld bytes left", (unsigned long long)len,
                   (long long)(f->end - s->pos));
    *out = (int64_t)len;
    return QX_OK;
}

static qx_status fixed_or_varint(skim *s, const frame *f, fielddesc *fd, int wire)
{
    const int64_t start = s->pos, size = wire == WT_32 ? 4 : 8;
    if (wire != WT_VARINT) {
        if (f->end - start < size) return bad(s, start, fd, "%lld bytes wanted, %lld left", (long long)size, (long long)(f->end - start));
        return copy(s, size);
    }
    uint64_t v;
    QX_TRY(get_varint(s, f->end, fd, &v));
    const int64_t n = s->pos - start;
    s->pos = start;
    return copy(s, n);
}

static qx_status skip_value(skim *s, const frame *f, int wire)
{
    uint64_t v;
    int64_t len = wire == WT_32 ? 4 : 8;
    if (wire == WT_VARINT) return get_varint(s, f->end, NULL, &v);
    if (wire == WT_LEN) QX_TRY(get_length(s, f, NULL, &len));
    if (f->end - s->pos < len) return bad(s, s->pos, NULL, "%lld bytes wanted, %lld left", (long long)len, (long long)(f->end - s->pos));
    s->pos += len;
    return QX_OK;
}

/* A field that the schema does not have: kept byte for byte. */
static qx_status unknown_field(skim *s, frame *f, int64_t tag_at, int wire)
{
    QX_TRY(skip_value(s, f, wire));
    const int64_t n = s->pos - tag_at;
    s->pos = tag_at;
    QX_TRY(copy(s, n));
    return charge(s, round16(n) + 32, NULL);
}

static qx_status foreign_field(skim *s, frame *f, int64_t tag_at, int wire)
{
    QX_TRY(skip_value(s, f, wire));
    s->skipped += s->pos - tag_at;
    QX_TRY(charge(s, 8 + (int64_t)sizeof(qx_span), NULL));
    return add_span(s, 0, tag_at, s->pos - tag_at);
}

static qx_status known_field(skim *s, frame *f, fielddesc *fd, int64_t tag_at, int wire)
{
    const int want = wire_of(fd->type);
    const unsigned i = (unsigned)(fd - f->d->fields);
    const bool repeated = fd->label == PROTOBUF_C_LABEL_REPEATED;
    const bool packed = repeated && wire == WT_LEN && want != WT_LEN;
    if (wire != want && !packed) return bad(s, tag_at, fd, "wire type %d where %d belongs", wire, want);
    if (!repeated && f->count[i]) return bad(s, tag_at, fd, "given twice; parsers disagree about what that means");
    if (fd->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        if (f->oneof) return bad(s, tag_at, fd, "a second value of a oneof; parsers disagree about what that means");
        f->oneof = true;
    }
    if (f->elided >> i & 1) return bad(s, tag_at, fd, "a large payload in several pieces is not supported");
    f->count[i]++;
    if (wire == WT_LEN) {
        int64_t len = 0;
        QX_TRY(get_length(s, f, fd, &len));
        return length_delimited(s, f, fd, len);
    }
    QX_TRY(put_tag(s, fd->id, wire));
    QX_TRY(fixed_or_varint(s, f, fd, wire));
    return repeated ? charge(s, 8, fd) : QX_OK;
}

static qx_status field(skim *s, frame *f)
{
    uint64_t tag;
    const int64_t at = s->pos;
    QX_TRY(get_varint(s, f->end, NULL, &tag));
    const int wire = (int)(tag & 7);
    const uint64_t number = tag >> 3;
    if (number == 0) return bad(s, at, NULL, "field number 0");
    if (number > FOREIGN) return bad(s, at, NULL, "field number %llu is over %d", (unsigned long long)number, FOREIGN);
    if (wire != WT_VARINT && wire != WT_64 && wire != WT_LEN && wire != WT_32)
        return bad(s, at, NULL, "field %u has wire type %d, which does not exist", (unsigned)number, wire);
    if (++f->n_fields > 16) QX_TRY(charge(s, 64, NULL)); /* protobuf-c's own record of a field, in doubling slabs */
    if (number == FOREIGN && f->d == &onnx__tensor_proto__descriptor) return foreign_field(s, f, at, wire);
    fielddesc *fd = protobuf_c_message_descriptor_get_field(f->d, (unsigned)number);
    return fd ? known_field(s, f, fd, at, wire) : unknown_field(s, f, at, wire);
}

static qx_status walk(skim *s)
{
    int64_t next_cancel = 0;
    for (;;) {
        frame *f = &s->stack[s->depth];
        if (s->pos < f->end) {
            QX_TRY(field(s, f));
        } else if (s->depth) {
            pop(s);
        } else {
            return QX_OK;
        }
        if (s->pos >= next_cancel) {
            QX_TRY(qx_check_cancel(s->ctx));
            next_cancel = s->pos + (1 << 20);
        }
    }
}

qx_status qx_skim(qx_ctx *ctx, const qx_wire_src *src, const ProtobufCMessageDescriptor *root, qx_arena *arena, qx_skeleton *out)
{
    skim *s = NULL;
    qx_status st;
    if (out) *out = (qx_skeleton){0};
    QX_TRY(QX_NEW(ctx, &s));
    s->check_only = !out;
    s->ctx = ctx;
    s->src = src;
    s->arena = arena;
    s->out = QX_BUF_INIT(ctx);
    s->stack[0].d = root;
    s->stack[0].end = src->size;
    s->fill = WINDOW_MIN;
    if (src->file) {
        void *mem;
        QX_TRY_GOTO(st, qx_alloc_raw(ctx, WINDOW, &mem));
        s->win = s->win_mem = mem;
    } else {
        s->win = src->bytes;
        s->win_len = src->size;
    }
    QX_TRY_GOTO(st, walk(s));
    if (!out) goto done;
    *out = (qx_skeleton){s->out.data, s->out.len, s->spans, s->n_spans, s->bad_utf8};
    s->out = QX_BUF_INIT(ctx);
done:
    qx_buf_free(&s->out);
    qx_free(ctx, s->win_mem);
    qx_free(ctx, s);
    return st;
}
