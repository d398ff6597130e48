/* json.c - JSON documents: checked by json_scan.c, parsed by cJSON, then laid out as arrays, so that an element by number
 * and a member by name cost the same in a vocabulary of 200,000 words as in a record of three. */
#include "base/json.h"
#include "base/checked.h"
#include "base/ctx.h"
#include "base/json_scan.h"

#include <cjson/cJSON.h>
#include <string.h>
#include <xxhash.h>

#define DEFAULT_CAP ((size_t)64 << 20)
#define CJSON_VALUE_BYTES 80u /* of one cJSON value with malloc's own */
#define LINEAR_MAX 8          /* objects of more members have an index */

typedef struct key_index { uint64_t seed; uint32_t mask; uint32_t slots[]; } key_index; /* 0 free, else number of the item + 1 */

struct qx_json {
    qx_json_kind kind;
    const char *key;
    union {
        bool truth;
        double number;
        const char *string;
        struct { qx_json *items; key_index *index; } kids; /* index: only in objects of more than LINEAR_MAX members */
    } u;
    int64_t count;
};

typedef struct document {
    qx_json root; /* first: the root is the handle */
    qx_ctx *ctx;
    qx_arena *arena;
    const char *what;
} document;

static uint32_t *slot_of(const qx_json *obj, const char *key)
{
    key_index *x = obj->u.kids.index;
    uint32_t i = (uint32_t)XXH3_64bits_withSeed(key, strlen(key), x->seed) & x->mask;
    for (;; i = (i + 1) & x->mask) {
        uint32_t *slot = &x->slots[i];
        if (!*slot || strcmp(obj->u.kids.items[*slot - 1].key, key) == 0) return slot;
    }
}

static qx_status duplicate(const document *d, const char *key)
{
    return qx_fail(d->ctx, QX_E_FORMAT, "'%s': the key \"%s\" stands twice in one object", d->what, key);
}

static qx_status check_small(const document *d, const qx_json *obj)
{
    for (int64_t i = 0; i < obj->count; i++)
        for (int64_t j = 0; j < i; j++)
            if (strcmp(obj->u.kids.items[i].key, obj->u.kids.items[j].key) == 0) return duplicate(d, obj->u.kids.items[i].key);
    return QX_OK;
}

static qx_status index_large(document *d, qx_json *obj)
{
    uint32_t n = 16;
    while ((int64_t)n < 2 * obj->count) n *= 2;
    key_index *x = qx_arena_alloc(d->arena, sizeof *x + n * sizeof(uint32_t));
    if (!x) return QX_E_NOMEM;
    x->seed = d->ctx->seed;
    x->mask = n - 1;
    obj->u.kids.index = x;
    for (int64_t i = 0; i < obj->count; i++) {
        uint32_t *slot = slot_of(obj, obj->u.kids.items[i].key);
        if (*slot) return duplicate(d, obj->u.kids.items[i].key);
        *slot = (uint32_t)i + 1;
    }
    return QX_OK;
}

static qx_json_kind kind_of(const cJSON *c)
{
    return cJSON_IsObject(c) ? QX_JSON_OBJECT : cJSON_IsArray(c) ? QX_JSON_ARRAY : cJSON_IsString(c) ? QX_JSON_STRING
         : cJSON_IsNumber(c) ? QX_JSON_NUMBER : cJSON_IsBool(c) ? QX_JSON_BOOL : QX_JSON_NULL;
}

static int64_t children(const cJSON *c)
{
    int64_t n = 0;
    for (const cJSON *k = c->child; k; k = k->next) n++;
    return n;
}

static qx_status lay_out(document *d, const cJSON *c, qx_json *out); /* as deep as the scan allowed: 64 */

static qx_status lay_out_kids(document *d, const cJSON *c, qx_json *out)
{
    out->count = children(c);
    out->u.kids.items = qx_arena_array(d->arena, (size_t)out->count, sizeof(qx_json));
    if (!out->u.kids.items) return QX_E_NOMEM;
    qx_json *item = out->u.kids.items;
    for (const cJSON *k = c->child; k; k = k->next, item++) {
        if (k->string && !(item->key = qx_arena_strdup(d->arena, k->string))) return QX_E_NOMEM;
        QX_TRY(lay_out(d, k, item));
    }
    if (out->kind != QX_JSON_OBJECT) return QX_OK;
    return out->count <= LINEAR_MAX ? check_small(d, out) : index_large(d, out);
}

static qx_status lay_out(document *d, const cJSON *c, qx_json *out)
{
    out->kind = kind_of(c);
    switch (out->kind) {
    case QX_JSON_OBJECT:
    case QX_JSON_ARRAY: return lay_out_kids(d, c, out);
    case QX_JSON_NUMBER: out->u.number = c->valuedouble; break;
    case QX_JSON_BOOL: out->u.truth = cJSON_IsTrue(c); break;
    case QX_JSON_STRING:
        out->u.string = qx_arena_strdup(d->arena, c->valuestring);
        return out->u.string ? QX_OK : QX_E_NOMEM;
    case QX_JSON_NULL: break;
    }
    return QX_OK;
}

static qx_status document_new(qx_ctx *ctx, const char *what, document **out)
{
    QX_TRY(QX_NEW(ctx, out));
    (*out)->ctx = ctx;
    (*out)->what = what;
    return qx_arena_new(ctx, &(*out)->arena);
}

static qx_status build(qx_ctx *ctx, const char *text, size_t len, const char *what, document **d)
{
    cJSON *tree = cJSON_ParseWithLength(text, len);
    if (!tree) QX_FAIL(ctx, QX_E_NOMEM, "'%s': out of memory for a JSON text of %zu bytes", what, len);
    qx_status st = document_new(ctx, what, d);
    if (st == QX_OK) st = lay_out(*d, tree, &(*d)->root);
    cJSON_Delete(tree);
    return st;
}

qx_status qx_json_parse(qx_ctx *ctx, const char *text, size_t len, const char *what, qx_json **doc)
{
    size_t values, reserved;
    document *d = NULL;
    *doc = NULL;
    if (len > DEFAULT_CAP * 4) QX_FAIL(ctx, QX_E_FORMAT, "'%s' has %zu bytes; at most %zu are allowed here", what, len, DEFAULT_CAP * 4);
    QX_TRY(qx_json_scan(ctx, text, len, what, &values));
    reserved = values * CJSON_VALUE_BYTES + len;
    QX_TRY(qx_mem_reserve(ctx, reserved));
    qx_status st = build(ctx, text, len, what, &d);
    qx_mem_release(ctx, reserved);
    if (st == QX_OK) *doc = &d->root;
    else if (d) qx_json_free(&d->root);
    return st;
}

qx_status qx_json_parse_file(qx_ctx *ctx, const char *path, size_t cap, qx_json **doc)
{
    char *text;
    size_t len;
    *doc = NULL;
    QX_TRY(qx_file_slurp(ctx, path, cap ? cap : DEFAULT_CAP, &text, &len));
    qx_status st = qx_json_parse(ctx, text, len, path, doc);
    qx_free(ctx, text);
    return st;
}

void qx_json_free(qx_json *doc)
{
    if (!doc) return;
    document *d = (document *)doc;
    qx_arena_free(d->arena);
    qx_free(d->ctx, d);
}

qx_json_kind qx_json_type(const qx_json *v)
{
    return v ? v->kind : QX_JSON_NULL;
}

const qx_json *qx_json_get(const qx_json *obj, const char *key)
{
    if (!obj || obj->kind != QX_JSON_OBJECT) return NULL;
    if (obj->u.kids.index) {
        uint32_t *slot = slot_of(obj, key);
        return *slot ? &obj->u.kids.items[*slot - 1] : NULL;
    }
    for (int64_t i = 0; i < obj->count; i++)
        if (strcmp(obj->u.kids.items[i].key, key) == 0) return &obj->u.kids.items[i];
    return NULL;
}

const qx_json *qx_json_at(const qx_json *arr, int64_t i)
{
    return arr && i >= 0 && i < arr->count ? &arr->u.kids.items[i] : NULL;
}

int64_t qx_json_count(const qx_json *v)
{
    return v ? v->count : 0;
}

const char *qx_json_key(const qx_json *member)
{
    return member ? member->key : NULL;
}

const char *qx_json_string(const qx_json *v, const char *fallback)
{
    return v && v->kind == QX_JSON_STRING ? v->u.string : fallback;
}

double qx_json_number(const qx_json *v, double fallback)
{
    return v && v->kind == QX_JSON_NUMBER ? v->u.number : fallback;
}

bool qx_json_bool(const qx_json *v, bool fallback)
{
    return v && v->kind == QX_JSON_BOOL ? v->u.truth : fallback;
}
