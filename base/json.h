/* json.h - JSON in and out; the only user of cJSON. Reading caps size (64 MiB unless told) and depth (64), and refuses duplicate
 * keys, NaN, 1e999 and trailing bytes. Writing streams into a qx_buf; doubles print with the fewest digits that read back the
 * same (at most 17), int64 exactly. */
#ifndef QX_BASE_JSON_H
#define QX_BASE_JSON_H

#include "base/buf.h"

typedef struct qx_json qx_json; /* one value of a parsed document; owned by the document */
qx_status qx_json_parse(qx_ctx *ctx, const char *text, size_t len, const char *what, qx_json **doc);
qx_status qx_json_parse_file(qx_ctx *ctx, const char *path, size_t cap, qx_json **doc);
void qx_json_free(qx_json *doc);

typedef enum qx_json_kind { QX_JSON_NULL, QX_JSON_BOOL, QX_JSON_NUMBER, QX_JSON_STRING, QX_JSON_ARRAY, QX_JSON_OBJECT } qx_json_kind;
qx_json_kind qx_json_type(const qx_json *v);
const qx_json *qx_json_get(const qx_json *obj, const char *key); /* NULL when absent or not an object */
const qx_json *qx_json_at(const qx_json *arr, int64_t i);        /* O(1) amortised when called in order */
int64_t qx_json_count(const qx_json *v);                          /* members or elements; 0 for scalars */
const char *qx_json_key(const qx_json *member);                   /* of a value that qx_json_at took from an object */
const char *qx_json_string(const qx_json *v, const char *fallback);
double qx_json_number(const qx_json *v, double fallback);
bool qx_json_bool(const qx_json *v, bool fallback);

/* Writer: commas and indentation are its business. Key is NULL inside arrays. */
typedef struct qx_jsonw { qx_buf *buf; int depth; bool pretty; uint64_t has_item; } qx_jsonw;
void qx_jsonw_init(qx_jsonw *w, qx_buf *buf, bool pretty);
qx_status qx_jsonw_begin_object(qx_jsonw *w, const char *key);
qx_status qx_jsonw_end_object(qx_jsonw *w);
qx_status qx_jsonw_begin_array(qx_jsonw *w, const char *key);
qx_status qx_jsonw_end_array(qx_jsonw *w);
qx_status qx_jsonw_string(qx_jsonw *w, const char *key, const char *value); /* escapes control bytes and invalid UTF-8 */
qx_status qx_jsonw_int(qx_jsonw *w, const char *key, int64_t value);
qx_status qx_jsonw_number(qx_jsonw *w, const char *key, double value);       /* not finite: null */
qx_status qx_jsonw_bool(qx_jsonw *w, const char *key, bool value);
qx_status qx_jsonw_null(qx_jsonw *w, const char *key);

#endif
