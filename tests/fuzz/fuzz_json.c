/* fuzz_json.c - JSON: what is accepted must come out of the writer and read back with the same values. */
#include "fuzz.h"
#include "base/json.h"

static qx_status write_value(qx_jsonw *w, const char *key, const qx_json *v)
{
    switch (qx_json_type(v)) {
    case QX_JSON_NULL: return qx_jsonw_null(w, key);
    case QX_JSON_BOOL: return qx_jsonw_bool(w, key, qx_json_bool(v, false));
    case QX_JSON_NUMBER: return qx_jsonw_number(w, key, qx_json_number(v, 0));
    case QX_JSON_STRING: return qx_jsonw_string(w, key, qx_json_string(v, ""));
    case QX_JSON_ARRAY: QX_TRY(qx_jsonw_begin_array(w, key)); break;
    case QX_JSON_OBJECT: QX_TRY(qx_jsonw_begin_object(w, key)); break;
    }
    for (int64_t i = 0; i < qx_json_count(v); i++) QX_TRY(write_value(w, qx_json_key(qx_json_at(v, i)), qx_json_at(v, i)));
    return qx_json_type(v) == QX_JSON_ARRAY ? qx_jsonw_end_array(w) : qx_jsonw_end_object(w);
}

static bool same(const qx_json *a, const qx_json *b)
{
    if (qx_json_type(a) != qx_json_type(b) || qx_json_count(a) != qx_json_count(b)) return false;
    if (qx_json_number(a, 0) != qx_json_number(b, 0) || strcmp(qx_json_string(a, ""), qx_json_string(b, "")) != 0) return false;
    for (int64_t i = 0; i < qx_json_count(a); i++) {
        const qx_json *x = qx_json_at(a, i), *y = qx_json_at(b, i);
        if (!same(x, y)) return false;
        if (qx_json_key(x) && (strcmp(qx_json_key(x), qx_json_key(y)) != 0 || qx_json_get(a, qx_json_key(x)) != x)) return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qx_ctx *ctx = fuzz_ctx(size * 100);
    qx_json *doc, *again;
    qx_status st = qx_json_parse(ctx, (const char *)data, size, "fuzz", &doc);
    if (st == QX_OK) {
        qx_buf b = QX_BUF_INIT(ctx);
        qx_jsonw w;
        qx_jsonw_init(&w, &b, size & 1);
        if (write_value(&w, NULL, doc) == QX_OK) { /* 64 levels are read, 63 written */
            if (qx_json_parse(ctx, b.data, b.len, "own", &again) != QX_OK || !same(doc, again)) abort();
            qx_json_free(again);
        }
        qx_buf_free(&b);
        qx_json_free(doc);
    }
    fuzz_done(ctx, st);
    return 0;
}
