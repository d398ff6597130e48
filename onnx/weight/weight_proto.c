/* weight_proto.c - TensorProto to qx_weight: which field holds the content, whether its size is what type and dims say, and where
 * external data lies. Every tensor of a model passes here, whatever holds it. Nothing large is read: a payload that the wire
 * scan left in the file is described by its range. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "onnx/file/store.h"

/* Which typed field may hold a type, and how many entries an element takes: entries = numel * per, or for the packed
 * types one entry a byte (what everybody writes) or a full 32 bits an entry (what the standard's checker also lets pass). */
typedef struct field_rule { int field; int per; bool packed; int64_t lo, hi; } field_rule;
static const field_rule rules[QX_DT_COUNT_] = {
    [QX_DT_FLOAT] = {4, 1, 0, 0, 0}, [QX_DT_COMPLEX64] = {4, 2, 0, 0, 0}, [QX_DT_DOUBLE] = {10, 1, 0, 0, 0},
    [QX_DT_COMPLEX128] = {10, 2, 0, 0, 0},
    [QX_DT_INT64] = {7, 1, 0, INT64_MIN, INT64_MAX}, [QX_DT_UINT64] = {11, 1, 0, INT64_MIN, INT64_MAX},
    [QX_DT_UINT32] = {11, 1, 0, 0, UINT32_MAX},
    [QX_DT_INT32] = {5, 1, 0, INT32_MIN, INT32_MAX}, [QX_DT_STRING] = {6, 1, 0, 0, 0},
    [QX_DT_INT8] = {5, 1, 0, -128, 127}, [QX_DT_UINT8] = {5, 1, 0, 0, 255}, [QX_DT_BOOL] = {5, 1, 0, 0, 255},
    [QX_DT_INT16] = {5, 1, 0, -32768, 32767}, [QX_DT_UINT16] = {5, 1, 0, 0, 65535}, [QX_DT_FLOAT16] = {5, 1, 0, 0, 65535},
    [QX_DT_BFLOAT16] = {5, 1, 0, 0, 65535},
    [QX_DT_FLOAT8E4M3FN] = {5, 1, 0, 0, 255}, [QX_DT_FLOAT8E4M3FNUZ] = {5, 1, 0, 0, 255}, [QX_DT_FLOAT8E5M2] = {5, 1, 0, 0, 255},
    [QX_DT_FLOAT8E5M2FNUZ] = {5, 1, 0, 0, 255}, [QX_DT_FLOAT8E8M0] = {5, 1, 0, 0, 255},
    [QX_DT_UINT4] = {5, 1, 1, -128, 255}, [QX_DT_INT4] = {5, 1, 1, -128, 255}, [QX_DT_FLOAT4E2M1] = {5, 1, 1, -128, 255},
    [QX_DT_UINT2] = {5, 1, 1, -128, 255}, [QX_DT_INT2] = {5, 1, 1, -128, 255},
};

/* What one tensor holds, by TensorProto field number; entries of a span of varints are counted later. */
typedef struct content { int field; int64_t entries; const qx_span *span; int fields; } content;

static const char *field_name(int field)
{
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(&onnx__tensor_proto__descriptor, (unsigned)field);
    return f ? f->name : "no field";
}

static void found(content *c, int field, int64_t entries, const qx_span *span)
{
    c->fields++;
    if (c->fields > 1) return;
    c->field = field;
    c->entries = entries;
    c->span = span;
}

static content find_content(const qx_store *s, const Onnx__TensorProto *t)
{
    content c = {0};
    if (t->n_float_data) found(&c, 4, (int64_t)t->n_float_data, NULL);
    if (t->n_int32_data) found(&c, 5, (int64_t)t->n_int32_data, NULL);
    if (t->n_string_data) found(&c, 6, (int64_t)t->n_string_data, NULL);
    if (t->n_int64_data) found(&c, 7, (int64_t)t->n_int64_data, NULL);
    if (t->has_raw_data && t->raw_data.len) found(&c, 9, (int64_t)t->raw_data.len, NULL);
    if (t->n_double_data) found(&c, 10, (int64_t)t->n_double_data, NULL);
    if (t->n_uint64_data) found(&c, 11, (int64_t)t->n_uint64_data, NULL);
    for (size_t i = 0; i < t->n_qx_span; i++) {
        const qx_span *p = &s->spans[t->qx_span[i]];
        if (p->field == 4) found(&c, 4, p->length / 4, p);
        else if (p->field == 10) found(&c, 10, p->length / 8, p);
        else if (p->field) found(&c, p->field, p->length, p);
    }
    return c;
}

/* ---- type and shape ---- */

static qx_status read_type(qx_model *m, const Onnx__TensorProto *t, qx_weight *w)
{
    const int code = t->has_data_type ? t->data_type : 0;
    if (code <= 0 || code >= QX_DT_COUNT_)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': data_type %d is not one of 1..%d", w->name, code, QX_DT_COUNT_ - 1);
    if (t->segment)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s' is one segment of a larger tensor, which nothing writes and nobody reads", w->name);
    if (t->n_dims > 64) QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s' has %zu dims, more than 64", w->name, t->n_dims);
    w->dtype = (qx_dtype)code;
    w->rank = (int)t->n_dims;
    w->dims = t->dims;
    for (int i = 0; i < w->rank; i++)
        if (w->dims[i] < 0) QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': dim %d is %lld", w->name, i, (long long)w->dims[i]);
    if (!qx_dims_product(w->dims, w->rank, &w->numel))
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': the product of its %d dims overflows (%lld and more)", w->name, w->rank,
                (long long)w->dims[0]);
    if (code != QX_DT_STRING && !qx_dtype_bytes(code, w->numel, &w->bytes))
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': %lld elements of %s overflow", w->name, (long long)w->numel, qx_dtype_get(code)->name);
    if (w->bytes > (size_t)INT64_MAX) QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': %zu bytes are too many", w->name, w->bytes);
    return QX_OK;
}

/* ---- content inside the message or the model file ---- */

static qx_status check_fields(qx_model *m, const qx_weight *w, const content *c)
{
    const int want = rules[w->dtype].field;
    const char *type = qx_dtype_get(w->dtype)->name;
    if (c->fields > 1)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s' fills %d value fields, first of them %s", w->name, c->fields, field_name(c->field));
    if (w->numel == 0 && c->fields)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s' has 0 elements but %lld entries in %s", w->name, (long long)c->entries,
                field_name(c->field));
    if (w->numel && !c->fields)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s' has %lld elements of %s but no data", w->name, (long long)w->numel, type);
    if (c->field == 9 && w->dtype == QX_DT_STRING) QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': STRING elements in raw_data", w->name);
    if (c->field && c->field != 9 && c->field != want)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': elements of %s in %s instead of %s", w->name, type, field_name(c->field),
                field_name(want));
    if (c->field == 9 && (uint64_t)c->entries != w->bytes)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': raw_data has %lld bytes, %lld elements of %s take %zu", w->name,
                (long long)c->entries, (long long)w->numel, type, w->bytes);
    return QX_OK;
}

static qx_status check_entries(qx_model *m, const qx_weight *w, int field, int64_t entries)
{
    const field_rule *r = &rules[w->dtype];
    const int64_t per_word = 32 / (qx_dtype_bits(w->dtype) ? qx_dtype_bits(w->dtype) : 32);
    const int64_t want = r->packed ? (int64_t)w->bytes : w->numel * r->per;
    if (entries == want || (r->packed && entries == w->numel / per_word + (w->numel % per_word != 0))) return QX_OK;
    QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': %s has %lld entries, %lld elements of %s take %lld", w->name, field_name(field),
            (long long)entries, (long long)w->numel,
            qx_dtype_get(w->dtype)->name, (long long)want);
}

static void store_le(uint8_t *p, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)(v >> (8 * i));
}

qx_status qx_typed_entry(qx_ctx *ctx, const qx_weight *w, int64_t entries, int64_t i, int64_t v, qx_typed_bytes *out)
{
    const field_rule *r = &rules[w->dtype];
    const bool words = r->packed && entries != (int64_t)w->bytes;
    if (!words && (v < r->lo || v > r->hi))
        QX_FAIL(ctx, QX_E_FORMAT, "tensor '%s': entry %lld of %s is %lld, outside %lld..%lld of %s", w->name, (long long)i,
                field_name(r->field), (long long)v, (long long)r->lo, (long long)r->hi,
                qx_dtype_get(w->dtype)->name);
    const size_t size = words ? 4 : r->packed ? 1 : (size_t)qx_dtype_bits(w->dtype) / 8;
    const size_t left = w->bytes - (size_t)i * size;
    out->at = (size_t)i * size;
    out->n = left < size ? left : size;
    store_le(out->bytes, (uint64_t)v, out->n);
    return QX_OK;
}

static qx_status put_entry(qx_model *m, const qx_weight *w, int64_t entries, int64_t i, int64_t v, uint8_t *p)
{
    qx_typed_bytes b;
    QX_TRY(qx_typed_entry(m->ctx, w, entries, i, v, &b));
    memcpy(p + b.at, b.bytes, b.n);
    return QX_OK;
}

/* Small typed content becomes raw bytes at once. */
static qx_status decode_small(qx_model *m, const Onnx__TensorProto *t, const content *c, qx_weight *w)
{
    QX_TRY(check_entries(m, w, c->field, c->entries));
    uint8_t *p = qx_arena_alloc(m->arena, w->bytes);
    if (!p) return QX_E_NOMEM;
    w->src = (qx_source){.kind = QX_SRC_BYTES, .bytes = p, .length = (int64_t)w->bytes};
    if (c->field == 4) memcpy(p, t->float_data, w->bytes);
    if (c->field == 10) memcpy(p, t->double_data, w->bytes);
    for (int64_t i = 0; i < c->entries; i++) {
        if (c->field == 5) QX_TRY(put_entry(m, w, c->entries, i, t->int32_data[i], p));
        if (c->field == 7) QX_TRY(put_entry(m, w, c->entries, i, t->int64_data[i], p));
        if (c->field == 11) QX_TRY(put_entry(m, w, c->entries, i, (int64_t)t->uint64_data[i], p));
    }
    return QX_OK;
}

static qx_status take_strings(qx_model *m, const Onnx__TensorProto *t, qx_weight *w)
{
    const size_t n = t->n_string_data;
    QX_TRY(check_entries(m, w, 6, (int64_t)n));
    const char **s = qx_arena_array(m->arena, n, sizeof *s);
    size_t *len = qx_arena_array(m->arena, n, sizeof *len);
    if (!s || !len) return QX_E_NOMEM;
    for (size_t i = 0; i < n; i++) {
        s[i] = t->string_data[i].len ? (const char *)t->string_data[i].data : "";
        len[i] = t->string_data[i].len;
    }
    w->src = (qx_source){.kind = QX_SRC_BYTES, .strings = s, .string_lens = len};
    return QX_OK;
}

static qx_status take_span(qx_model *m, const content *c, qx_weight *w)
{
    const qx_store *s = m->store;
    const qx_span *p = c->span;
    const bool typed = p->field == 5 || p->field == 7 || p->field == 11;
    if (!typed && c->field != 9) QX_TRY(check_entries(m, w, c->field, c->entries)); /* fixed width: the raw form already */
    w->src = (qx_source){.kind = typed ? QX_SRC_TYPED : QX_SRC_FILE, .file = s->model_file, .offset = p->offset, .length = p->length,
                         .typed_field = typed ? p->field : 0};
    if (s->mem) {
        w->src.bytes = s->mem + p->offset;
        if (!typed) w->src.kind = QX_SRC_BYTES, w->src.offset = 0;
    }
    m->store->inline_payloads++;
    if (!typed) return QX_OK;
    int64_t entries = 0;
    QX_TRY(qx_typed_count(m->ctx, w, &entries));
    QX_TRY(check_entries(m, w, p->field, entries));
    return qx_typed_check(m->ctx, w, entries);
}

static qx_status take_content(qx_model *m, const Onnx__TensorProto *t, qx_weight *w)
{
    const content c = find_content(m->store, t);
    QX_TRY(check_fields(m, w, &c));
    if (!c.fields) return w->src.kind = QX_SRC_BYTES, w->src.bytes = "", QX_OK; /* no elements */
    if (c.span) return take_span(m, &c, w);
    if (c.field == 6) return take_strings(m, t, w);
    if (c.field != 9) return decode_small(m, t, &c, w);
    w->src = (qx_source){.kind = QX_SRC_BYTES, .bytes = t->raw_data.data, .length = (int64_t)t->raw_data.len};
    return QX_OK;
}

/* ---- external data ---- */

typedef struct ext_keys { const char *location, *offset, *length, *checksum; } ext_keys;

static qx_status parse_decimal(qx_model *m, const qx_weight *w, const char *key, const char *text, int64_t *out)
{
    int64_t v = 0;
    bool ok = *text != 0;
    for (const char *p = text; ok && *p; p++) ok = *p >= '0' && *p <= '9' && qx_mul_i64(v, 10, &v) && qx_add_i64(v, *p - '0', &v);
    if (!ok)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': external data %s '%s' is not a decimal number up to %lld", w->name, key, text,
                (long long)INT64_MAX);
    *out = v;
    return QX_OK;
}

static qx_status take_key(qx_model *m, const qx_weight *w, const char *key, const char *value, ext_keys *k)
{
    const struct { const char *name; const char **at; } known[] = {
        {"location", &k->location}, {"offset", &k->offset}, {"length", &k->length}, {"checksum", &k->checksum},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(key, known[i].name)) continue;
        if (*known[i].at) QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': external data gives '%s' twice", w->name, key);
        *known[i].at = value;
        return QX_OK;
    }
    if (!strcmp(key, "basepath") || !strncmp(key, "prepacked", 9)) return QX_OK;
    return qx_store_warn(m, "tensor '%.128s': unknown external data key '%.64s' is ignored", w->name, key);
}

static qx_status read_keys(qx_model *m, const Onnx__TensorProto *t, const qx_weight *w, ext_keys *k)
{
    for (size_t i = 0; i < t->n_external_data; i++) {
        const Onnx__StringStringEntryProto *e = t->external_data[i];
        if (!e->key || !e->value)
            QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': entry %zu of external_data has no %s", w->name, i, e->key ? "value" : "key");
        for (size_t j = 0; j < i; j++)
            if (!strcmp(t->external_data[j]->key, e->key))
                QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': external data gives '%s' twice", w->name, e->key);
        QX_TRY(take_key(m, w, e->key, e->value, k));
    }
    if (!k->location) QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': data_location is EXTERNAL but there is no location", w->name);
    return QX_OK;
}

static qx_status check_checksum(qx_model *m, const qx_weight *w, const char *sum, qx_ext_file *f)
{
    if (strlen(sum) != 40 || strspn(sum, "0123456789abcdefABCDEF") != 40)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': checksum '%s' is not 40 hexadecimal digits", w->name, sum);
    if (m->store->opt.skip_checksum) return QX_OK;
    QX_TRY(qx_store_sha1(m->ctx, f));
    if (strcasecmp(sum, f->sha1))
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': checksum %s, but external data '%s' has SHA1 %s", w->name, sum, f->location, f->sha1);
    return QX_OK;
}

static qx_status check_range(qx_model *m, const qx_weight *w, const ext_keys *k, qx_ext_file *f, int64_t *offset)
{
    const int64_t size = f->missing ? INT64_MAX : qx_file_size(f->file);
    int64_t length = (int64_t)w->bytes, end;
    *offset = 0;
    if (k->offset) QX_TRY(parse_decimal(m, w, "offset", k->offset, offset));
    if (k->length) QX_TRY(parse_decimal(m, w, "length", k->length, &length));
    if (!qx_add_i64(*offset, length, &end))
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': external data offset %lld + length %lld overflow", w->name, (long long)*offset,
                (long long)length);
    if (*offset > size)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': external data offset %lld is behind the end of '%s', which has %lld bytes", w->name,
                (long long)*offset, f->location, (long long)size);
    if (end > size)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': external data %lld..%lld is behind the end of '%s', which has %lld bytes", w->name,
                (long long)*offset, (long long)end, f->location, (long long)size);
    if (length != (int64_t)w->bytes)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': external data length %lld, but %lld elements of %s take %zu bytes", w->name,
                (long long)length, (long long)w->numel,
                qx_dtype_get(w->dtype)->name, w->bytes);
    return QX_OK;
}

static qx_status take_external(qx_model *m, const Onnx__TensorProto *t, qx_weight *w)
{
    ext_keys k = {0};
    qx_ext_file *f = NULL;
    int64_t offset = 0;
    const content c = find_content(m->store, t);
    if (c.fields || t->has_raw_data)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': data_location is EXTERNAL, but %s is there too", w->name,
                field_name(c.fields ? c.field : 9));
    if (w->dtype == QX_DT_STRING) QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': STRING elements cannot be external", w->name);
    QX_TRY(read_keys(m, t, w, &k));
    QX_TRY(qx_store_external(m, w->name, k.location, &f));
    QX_TRY(check_range(m, w, &k, f, &offset));
    if (k.checksum && !f->missing) QX_TRY(check_checksum(m, w, k.checksum, f));
    QX_TRY(qx_store_add_range(m, f, w->name, offset, (int64_t)w->bytes));
    m->store->external_tensors++;
    w->src = (qx_source){.kind = f->missing ? QX_SRC_NONE : QX_SRC_FILE, .file = f->file, .offset = offset, .length = (int64_t)w->bytes};
    return QX_OK;
}

/* ---- content that is legal to read but wrong to write ---- */

static qx_status check_padding(qx_model *m, const qx_weight *w)
{
    const int bits = qx_dtype_bits(w->dtype), used = (int)(w->numel * bits % 8);
    uint8_t last;
    if (!used || !w->bytes || w->src.kind == QX_SRC_TYPED || w->src.kind == QX_SRC_NONE) return QX_OK;
    if (w->src.kind == QX_SRC_BYTES) last = ((const uint8_t *)w->src.bytes)[w->bytes - 1];
    else QX_TRY(qx_file_read(w->src.file, w->src.offset + (int64_t)w->bytes - 1, 1, &last));
    if (last >> used == 0) return QX_OK;
    return qx_store_warn(m, "tensor '%.128s': padding bits of its last byte 0x%02x are not zero", w->name, last);
}

/* Bools are masks and flags: small. What is over a megabyte is not worth reading for a warning. */
static qx_status check_bools(qx_model *m, const qx_weight *w)
{
    void *p;
    size_t i = 0;
    if (w->bytes > 1 << 20 || w->src.kind == QX_SRC_NONE) return QX_OK;
    QX_TRY(qx_alloc_raw(m->ctx, w->bytes, &p));
    qx_status st = qx_weight_read(m->ctx, w, p);
    while (st == QX_OK && i < w->bytes && ((const uint8_t *)p)[i] <= 1) i++;
    if (st == QX_OK && i < w->bytes)
        st = qx_store_warn(m, "tensor '%.128s': BOOL element %zu is %u, neither 0 nor 1", w->name, i, ((const uint8_t *)p)[i]);
    qx_free(m->ctx, p);
    return st;
}

qx_status qx_weight_from_proto(qx_model *m, Onnx__TensorProto *t, qx_weight **out)
{
    qx_weight *w = qx_arena_alloc(m->arena, sizeof *w);
    if (!w || !(w->name = qx_intern_kept(m->names, t->name ? t->name : ""))) return QX_E_NOMEM;
    w->wire = t;
    QX_TRY(read_type(m, t, w));
    if (t->has_data_location && t->data_location != 0 && t->data_location != 1)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': data_location %d is neither DEFAULT (0) nor EXTERNAL (1)", w->name, t->data_location);
    if (t->has_data_location && t->data_location == 1) {
        QX_TRY(take_external(m, t, w));
    } else {
        if (t->n_external_data)
            QX_TRY(qx_store_warn(m, "tensor '%.128s' has external_data but data_location is not EXTERNAL; ignored", w->name));
        QX_TRY(take_content(m, t, w));
    }
    if (qx_dtype_bits(w->dtype) && qx_dtype_bits(w->dtype) < 8) QX_TRY(check_padding(m, w));
    if (w->dtype == QX_DT_BOOL) QX_TRY(check_bools(m, w));
    *out = w;
    return QX_OK;
}
