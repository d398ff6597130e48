/* pb_tensor.c - messages of tensors: what was not touched is written back verbatim, everything else is described by a payload
 * whose bytes the writer fills in later. The location of external data is ours; nothing of the input's external entries survives. */
#include <stdio.h>
#include <string.h>

#include "onnx/file/pb_build.h"

#define NEW(p, type, init) new_message((p), sizeof(type), &(type)init)

static void *new_message(qx_out_plan *p, size_t size, const void *init) { return qx_arena_memdup(p->arena, init, size); }

bool qx_pb_was_external(const qx_weight *w)
{
    const Onnx__TensorProto *t = w ? w->wire : NULL;
    return t && !w->job && t->has_data_location && t->data_location == 1;
}

int64_t qx_pb_payload_bytes(const qx_weight *w) { return w->dtype == QX_DT_STRING ? 0 : (int64_t)w->bytes; }

static qx_status push(qx_out_plan *p, qx_payloads *list, const qx_weight *w, int64_t offset)
{
    QX_TRY(qx_arena_grow(p->arena, (void **)&list->v, list->n, &list->cap, sizeof *list->v));
    list->v[list->n++] = (qx_payload){w, (int64_t)w->bytes, offset};
    return QX_OK;
}

/* The message without content: name, type, dims, and what the old message had besides. Foreign fields keep their spans. */
static Onnx__TensorProto *shell(qx_out_plan *p, const qx_weight *w, const char *name)
{
    const Onnx__TensorProto *old = w->wire, fresh = ONNX__TENSOR_PROTO__INIT;
    Onnx__TensorProto *t = qx_arena_memdup(p->arena, old ? old : &fresh, sizeof *t);
    if (!t) return NULL;
    t->name = (char *)name;
    t->has_data_type = 1;
    t->data_type = w->dtype;
    t->n_dims = (size_t)w->rank;
    t->dims = w->dims;
    t->n_float_data = t->n_int32_data = t->n_int64_data = t->n_double_data = t->n_uint64_data = t->n_string_data = 0;
    t->has_raw_data = t->has_data_location = 0;
    t->n_external_data = 0;
    t->n_qx_span = 0;
    t->qx_span = qx_arena_array(p->arena, (old ? old->n_qx_span : 0) + 1, sizeof *t->qx_span);
    if (!t->qx_span) return NULL;
    for (size_t i = 0; old && i < old->n_qx_span; i++)
        if (p->m->store->spans[old->qx_span[i]].field == 0) t->qx_span[t->n_qx_span++] = old->qx_span[i];
    return t;
}

static qx_status set_strings(qx_out_plan *p, const qx_weight *w, Onnx__TensorProto *t)
{
    t->n_string_data = (size_t)w->numel;
    t->string_data = qx_arena_array(p->arena, (size_t)w->numel + 1, sizeof *t->string_data);
    if (!t->string_data) return QX_E_NOMEM;
    for (int64_t i = 0; i < w->numel; i++) t->string_data[i] = (ProtobufCBinaryData){w->src.string_lens[i], (uint8_t *)w->src.strings[i]};
    return QX_OK;
}

static qx_status set_inline(qx_out_plan *p, const qx_weight *w, Onnx__TensorProto *t)
{
    if (w->dtype == QX_DT_STRING) return set_strings(p, w, t);
    if (!w->bytes) return QX_OK;
    t->qx_span[t->n_qx_span++] = (uint64_t)(p->m->store->n_spans + p->inline_.n);
    return push(p, &p->inline_, w, 0);
}

/* Equal keys: equal content for sure. Pointers only tell objects apart; nothing in the output depends on their values. */
static const char *content_key(qx_out_plan *p, const qx_weight *w)
{
    const qx_source *s = &w->src;
    if (w->job) return qx_arena_printf(p->arena, "j%p.%d", (const void *)w->job, w->part);
    if (s->kind == QX_SRC_BYTES) return qx_arena_printf(p->arena, "b%p.%zu", s->bytes, w->bytes);
    return qx_arena_printf(p->arena, "f%p.%lld.%lld.%d", (const void *)s->file, (long long)s->offset, (long long)s->length,
                           w->dtype * (s->kind == QX_SRC_TYPED));
}

static qx_status place(qx_out_plan *p, const qx_weight *w, int64_t *offset)
{
    const char *key = content_key(p, w);
    if (!key) return QX_E_NOMEM;
    const intptr_t known = (intptr_t)qx_map_get(p->placed, key);
    if (known) return *offset = p->data.v[known - 1].offset, QX_OK;
    *offset = (p->data_bytes + QX_DATA_ALIGN - 1) / QX_DATA_ALIGN * QX_DATA_ALIGN;
    p->data_bytes = *offset + (int64_t)w->bytes;
    QX_TRY(push(p, &p->data, w, *offset));
    return qx_map_put(p->placed, key, (void *)(intptr_t)p->data.n);
}

static qx_status set_external(qx_out_plan *p, const qx_weight *w, Onnx__TensorProto *t)
{
    int64_t offset;
    QX_TRY(place(p, w, &offset));
    const char *entry[3][2] = {{"location", p->location}, {"offset", qx_arena_printf(p->arena, "%lld", (long long)offset)},
                               {"length", qx_arena_printf(p->arena, "%zu", w->bytes)}};
    t->external_data = qx_arena_array(p->arena, 3, sizeof *t->external_data);
    if (!t->external_data) return QX_E_NOMEM;
    for (int i = 0; i < 3; i++) {
        Onnx__StringStringEntryProto *e = NEW(p, Onnx__StringStringEntryProto, ONNX__STRING_STRING_ENTRY_PROTO__INIT);
        if (!e || !entry[i][1]) return QX_E_NOMEM;
        e->key = (char *)entry[i][0];
        e->value = (char *)entry[i][1];
        t->external_data[t->n_external_data++] = e;
    }
    t->has_data_location = 1;
    t->data_location = 1;
    return QX_OK;
}

qx_status qx_pb_tensor(qx_out_plan *p, const qx_weight *w, const char *name, bool is_init, Onnx__TensorProto **out)
{
    Onnx__TensorProto *old = w->wire;
    const bool movable = is_init || qx_pb_was_external(w);
    const bool external = p->external && movable && w->dtype != QX_DT_STRING && (int64_t)w->bytes >= QX_EXTERNAL_OVER;
    if (!external && old && !w->job && !qx_pb_was_external(w)) { /* verbatim */
        if (!strcmp(old->name ? old->name : "", name)) return *out = old, QX_OK;
        *out = qx_arena_memdup(p->arena, old, sizeof *old);
        if (!*out) return QX_E_NOMEM;
        (*out)->name = (char *)name;
        return QX_OK;
    }
    *out = shell(p, w, name);
    if (!*out) return QX_E_NOMEM;
    return external ? set_external(p, w, *out) : set_inline(p, w, *out);
}

qx_status qx_pb_sparse(qx_out_plan *p, const qx_sparse *s, const char *name, Onnx__SparseTensorProto **out)
{
    const Onnx__TensorProto *indices = s->indices->wire;
    *out = qx_arena_memdup(p->arena, s->wire, sizeof **out);
    if (!*out) return QX_E_NOMEM;
    QX_TRY(qx_pb_tensor(p, s->values, name, false, &(*out)->values));
    return qx_pb_tensor(p, s->indices, indices && indices->name ? indices->name : "", false, &(*out)->indices);
}
