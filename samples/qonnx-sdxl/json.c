/* json.c - the sample's only user of cJSON. */
#include "json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

enum { MOST_BYTES = 64 << 20 };

int sx_json_parse(sx_err *e, const char *name, const char *text, size_t len, sx_json **doc)
{
    *doc = cJSON_ParseWithLength(text, len);
    const char *at = cJSON_GetErrorPtr();
    return *doc ? SX_OK : sx_fail(e, SX_FAILED, "'%s' is not JSON: stopped at byte %td of %zu", name, at ? at - text : (ptrdiff_t)0, len);
}

int sx_json_read(sx_err *e, const char *path, sx_json **doc)
{
    char *text;
    size_t len;
    *doc = NULL;
    SX_TRY(sx_read_file(e, path, MOST_BYTES, &text, &len));
    const int rc = sx_json_parse(e, path, text, len, doc);
    sx_free(text);
    return rc;
}

void sx_json_free(sx_json *doc) { cJSON_Delete(doc); }

const sx_json *sx_json_get(const sx_json *v, const char *key)
{
    return cJSON_IsObject(v) ? cJSON_GetObjectItemCaseSensitive(v, key) : NULL;
}

double sx_json_number(const sx_json *v, const char *key, double fallback) { return sx_json_value(sx_json_get(v, key), fallback); }

bool sx_json_bool(const sx_json *v, const char *key, bool fallback)
{
    const sx_json *m = sx_json_get(v, key);
    return cJSON_IsBool(m) ? cJSON_IsTrue(m) : fallback;
}

const char *sx_json_text(const sx_json *v, const char *key, const char *fallback)
{
    const sx_json *m = sx_json_get(v, key);
    return cJSON_IsString(m) ? m->valuestring : fallback;
}

bool sx_json_has(const sx_json *v, const char *key)
{
    const sx_json *m = sx_json_get(v, key);
    return m && !cJSON_IsNull(m);
}

int sx_json_count(const sx_json *v) { return cJSON_IsArray(v) || cJSON_IsObject(v) ? cJSON_GetArraySize(v) : 0; }
const sx_json *sx_json_first(const sx_json *v) { return v ? v->child : NULL; }
const sx_json *sx_json_next(const sx_json *v) { return v->next; }
const char *sx_json_key(const sx_json *member) { return member->string; }
bool sx_json_is_array(const sx_json *v) { return cJSON_IsArray(v); }
bool sx_json_is_bool(const sx_json *v) { return cJSON_IsBool(v); }
bool sx_json_truth(const sx_json *v) { return cJSON_IsTrue(v); }
bool sx_json_is_object(const sx_json *v) { return cJSON_IsObject(v); }
const char *sx_json_string(const sx_json *v) { return cJSON_IsString(v) ? v->valuestring : NULL; }
double sx_json_value(const sx_json *v, double fallback) { return cJSON_IsNumber(v) ? v->valuedouble : fallback; }

int sx_json_whole(sx_err *e, const sx_json *j, const char *config, const char *key, int least, int most, int *out)
{
    if (!sx_json_has(j, key)) return SX_OK;
    const double v = sx_json_number(j, key, NAN);
    if (isnan(v)) return sx_fail(e, SX_FAILED, "%s: %s is not a number", config, key);
    if (!(v >= least && v <= most) || v != floor(v))
        return sx_fail(e, SX_FAILED, "%s: %s is %g, expected a whole number from %d to %d", config, key, v, least, most);
    *out = (int)v;
    return SX_OK;
}
