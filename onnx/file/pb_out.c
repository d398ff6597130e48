/* pb_out.c - messages to bytes, following the generated descriptors, with room left where payloads belong.
 *
 * protobuf-c's own pack would need every payload in memory and moves nested bodies once a level. One walk here measures (each message's
 * size is noted once), a second one writes the bytes between payloads and lists where those go. Fields go in order of
 * their numbers, unknown ones last, as C++ protobuf does. */
#include <string.h>

#include "onnx/file/pb_build.h"

enum { MAX_DEPTH = 1000, BLOCK = 64 << 10 }; /* BLOCK: bytes that are written at once */

typedef struct out {
    qx_out_plan *plan;
    qx_image *img;
    qx_out *to;               /* NULL: the first walk */
    int64_t pos, next;        /* in the file; in img->sizes */
    uint8_t *block; size_t fill; /* [BLOCK]; what stands before pos and is not written yet */
    int depth;
} out;

/* ---- bytes ---- */

static qx_status flush(out *o)
{
    const size_t n = o->fill;
    o->fill = 0;
    return n ? qx_out_write_at(o->to, o->pos - (int64_t)n, o->block, n) : QX_OK;
}

static qx_status put(out *o, const void *bytes, size_t n)
{
    if (o->to) {
        if (n > BLOCK - o->fill) QX_TRY(flush(o));
        if (n > BLOCK) QX_TRY(qx_out_write_at(o->to, o->pos, bytes, n));
        else {
            if (n) memcpy(o->block + o->fill, bytes, n);
            o->fill += n;
        }
    }
    o->pos += (int64_t)n;
    return QX_OK;
}

static qx_status put_varint(out *o, uint64_t v)
{
    uint8_t b[10];
    int n = 0;
    for (; v > 0x7f; v >>= 7) b[n++] = (uint8_t)(v | 0x80);
    b[n++] = (uint8_t)v;
    return put(o, b, (size_t)n);
}

static qx_status put_tag(out *o, uint32_t id, int wire) { return put_varint(o, (uint64_t)id << 3 | (unsigned)wire); }

static qx_status add_piece(out *o, int64_t n, int64_t span)
{
    qx_image *g = o->img;
    QX_TRY(qx_grow(o->plan->m->ctx, (void **)&g->pieces, g->n_pieces, &g->cap_pieces, sizeof *g->pieces));
    g->pieces[g->n_pieces++] = (qx_piece){o->pos, n, span};
    return QX_OK;
}

static qx_status put_payload(out *o, int64_t span, int64_t n)
{
    if (o->to) {
        QX_TRY(flush(o));
        QX_TRY(add_piece(o, n, span));
    }
    o->pos += n;
    return QX_OK;
}

/* ---- fields ---- */

static qx_status put_message(out *o, const ProtobufCMessage *m);

static uint64_t varint_value(ProtobufCType t, const void *p)
{
    switch (t) {
    case PROTOBUF_C_TYPE_INT64: case PROTOBUF_C_TYPE_UINT64: return *(const uint64_t *)p;
    case PROTOBUF_C_TYPE_UINT32: return *(const uint32_t *)p;
    case PROTOBUF_C_TYPE_BOOL: return *(const protobuf_c_boolean *)p ? 1 : 0;
    default: return (uint64_t)(int64_t)*(const int32_t *)p; /* int32: sign-extended to ten bytes, as the format says */
    }
}

static size_t fixed_size(ProtobufCType t) { return t == PROTOBUF_C_TYPE_FLOAT ? 4 : t == PROTOBUF_C_TYPE_DOUBLE ? 8 : 0; }

static size_t element_size(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_INT64: case PROTOBUF_C_TYPE_UINT64: case PROTOBUF_C_TYPE_DOUBLE: return 8;
    case PROTOBUF_C_TYPE_STRING: case PROTOBUF_C_TYPE_MESSAGE: return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES: return sizeof(ProtobufCBinaryData);
    default: return 4;
    }
}

/* A message's size stands before it: found by the first walk, used by the second. */
static qx_status put_child(out *o, uint32_t id, const ProtobufCMessage *m)
{
    qx_image *g = o->img;
    QX_TRY(put_tag(o, id, 2));
    if (o->to) {
        QX_TRY(put_varint(o, (uint64_t)g->sizes[o->next++]));
        return put_message(o, m);
    }
    QX_TRY(qx_grow(o->plan->m->ctx, (void **)&g->sizes, g->n_sizes, &g->cap_sizes, sizeof *g->sizes));
    const int64_t index = g->n_sizes++, before = o->pos;
    QX_TRY(put_message(o, m));
    g->sizes[index] = o->pos - before;
    return put_varint(o, (uint64_t)g->sizes[index]);
}

static qx_status put_blob(out *o, uint32_t id, const void *bytes, size_t n)
{
    QX_TRY(put_tag(o, id, 2));
    QX_TRY(put_varint(o, n));
    return put(o, bytes, n);
}

static qx_status put_value(out *o, const ProtobufCFieldDescriptor *f, const void *p)
{
    const size_t fixed = fixed_size(f->type);
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) return put_child(o, f->id, *(const ProtobufCMessage *const *)p);
    if (f->type == PROTOBUF_C_TYPE_STRING) return put_blob(o, f->id, *(const char *const *)p, strlen(*(const char *const *)p));
    if (f->type == PROTOBUF_C_TYPE_BYTES)
        return put_blob(o, f->id, ((const ProtobufCBinaryData *)p)->data, ((const ProtobufCBinaryData *)p)->len);
    QX_TRY(put_tag(o, f->id, fixed == 4 ? 5 : fixed == 8 ? 1 : 0));
    return fixed ? put(o, p, fixed) : put_varint(o, varint_value(f->type, p));
}

static size_t varint_size(uint64_t v)
{
    size_t n = 1;
    while (v > 0x7f) v >>= 7, n++;
    return n;
}

static qx_status put_packed(out *o, const ProtobufCFieldDescriptor *f, const uint8_t *p, size_t n)
{
    const size_t fixed = fixed_size(f->type), size = element_size(f->type);
    size_t bytes = fixed * n;
    if (fixed) return put_blob(o, f->id, p, bytes); /* little-endian machine: the wire form already */
    for (size_t i = 0; i < n; i++) bytes += varint_size(varint_value(f->type, p + i * size));
    QX_TRY(put_tag(o, f->id, 2));
    QX_TRY(put_varint(o, bytes));
    for (size_t i = 0; i < n; i++) QX_TRY(put_varint(o, varint_value(f->type, p + i * size)));
    return QX_OK;
}

static qx_status put_repeated(out *o, const ProtobufCFieldDescriptor *f, const uint8_t *p, size_t n)
{
    if (n && (f->flags & PROTOBUF_C_FIELD_FLAG_PACKED)) return put_packed(o, f, p, n);
    for (size_t i = 0; i < n; i++) QX_TRY(put_value(o, f, p + i * element_size(f->type)));
    return QX_OK;
}

static bool is_set(const ProtobufCFieldDescriptor *f, const uint8_t *m)
{
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) return *(const uint32_t *)(m + f->quantifier_offset) == f->id;
    if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE) return *(const void *const *)(m + f->offset) != NULL;
    return *(const protobuf_c_boolean *)(m + f->quantifier_offset) != 0;
}

static qx_status put_field(out *o, const ProtobufCFieldDescriptor *f, const uint8_t *m)
{
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return put_repeated(o, f, *(const uint8_t *const *)(m + f->offset), *(const size_t *)(m + f->quantifier_offset));
    return is_set(f, m) ? put_value(o, f, m + f->offset) : QX_OK;
}

static qx_status put_unknown(out *o, const ProtobufCMessage *m)
{
    for (unsigned i = 0; i < m->n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *u = &m->unknown_fields[i];
        QX_TRY(put_tag(o, u->tag, u->wire_type));
        QX_TRY(put(o, u->data, u->len));
    }
    return QX_OK;
}

/* ---- tensors ---- */

/* Field and length of a span: of the input file, or a payload that this output makes. */
static qx_span span_of(const out *o, uint64_t index)
{
    const qx_store *s = o->plan->m->store;
    if (index < (uint64_t)s->n_spans) return s->spans[index];
    return (qx_span){9, 0, o->plan->inline_.v[index - (uint64_t)s->n_spans].bytes};
}

static qx_status put_spans(out *o, const Onnx__TensorProto *t, uint32_t id)
{
    for (size_t i = 0; i < t->n_qx_span; i++) {
        const qx_span s = span_of(o, t->qx_span[i]);
        if ((uint32_t)s.field != id) continue;
        if (id) {
            QX_TRY(put_tag(o, id, 2));
            QX_TRY(put_varint(o, (uint64_t)s.length));
        }
        QX_TRY(put_payload(o, (int64_t)t->qx_span[i], s.length));
    }
    return QX_OK;
}

/* Nothing may point at the input's data files: they have other names and offsets here. */
static qx_status check_location(out *o, const Onnx__TensorProto *t)
{
    if (!t->has_data_location || t->data_location != 1) return QX_OK;
    if (t->n_external_data && o->plan->location && t->external_data[0]->value == o->plan->location) return QX_OK;
    QX_FAIL(o->plan->m->ctx, QX_E_UNSUPPORTED,
            "tensor '%s' has external data where the graph does not reach (training_info); it cannot be moved", t->name ? t->name : "");
}

static qx_status put_tensor(out *o, const Onnx__TensorProto *t)
{
    const ProtobufCMessageDescriptor *d = &onnx__tensor_proto__descriptor;
    QX_TRY(check_location(o, t));
    for (unsigned i = 0; i < d->n_fields; i++) {
        if (d->fields[i].id == 536870911) continue; /* qx_span is never in a file */
        QX_TRY(put_field(o, &d->fields[i], (const uint8_t *)t));
        if (t->n_qx_span) QX_TRY(put_spans(o, t, d->fields[i].id));
    }
    QX_TRY(put_unknown(o, &t->base));
    return put_spans(o, t, 0);
}

static qx_status put_fields(out *o, const ProtobufCMessage *m)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    for (unsigned i = 0; i < d->n_fields; i++) QX_TRY(put_field(o, &d->fields[i], (const uint8_t *)m));
    return put_unknown(o, m);
}

static qx_status put_message(out *o, const ProtobufCMessage *m)
{
    if (o->depth >= MAX_DEPTH) QX_FAIL(o->plan->m->ctx, QX_E_FORMAT, "the output nests more than %d deep", MAX_DEPTH);
    o->depth++;
    const qx_status st = m->descriptor == &onnx__tensor_proto__descriptor ? put_tensor(o, (const Onnx__TensorProto *)m) : put_fields(o, m);
    o->depth--;
    return st;
}

qx_status qx_pb_measure(qx_out_plan *p, qx_image *img)
{
    *img = (qx_image){0};
    out o = {.plan = p, .img = img};
    const qx_status st = put_message(&o, &p->proto->base);
    img->size = o.pos;
    if (st != QX_OK) qx_image_free(p->m->ctx, img);
    return st;
}

qx_status qx_pb_put(qx_out_plan *p, qx_image *img, qx_out *to)
{
    out o = {.plan = p, .img = img, .to = to};
    void *block;
    QX_TRY(qx_alloc_raw(p->m->ctx, BLOCK, &block));
    o.block = block;
    qx_status st = put_message(&o, &p->proto->base);
    if (st == QX_OK) st = flush(&o);
    qx_free(p->m->ctx, block);
    return st;
}

void qx_image_free(qx_ctx *ctx, qx_image *img)
{
    qx_free(ctx, img->sizes);
    qx_free(ctx, img->pieces);
    *img = (qx_image){0};
}
