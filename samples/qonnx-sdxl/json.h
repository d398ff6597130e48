/* json.h - reading the small configuration files of a pipeline folder: get a value by key, with a default. Only json.c sees cJSON. */
#ifndef SX_JSON_H
#define SX_JSON_H

#include "util.h"

typedef struct cJSON sx_json; /* opaque; owned by the document that sx_json_read returned */
int sx_json_read(sx_err *e, const char *path, sx_json **doc);
/* name is for the message. */
int sx_json_parse(sx_err *e, const char *name, const char *text, size_t len, sx_json **doc);
void sx_json_free(sx_json *doc);
const sx_json *sx_json_get(const sx_json *v, const char *key); /* NULL: absent or v is not an object */
double sx_json_number(const sx_json *v, const char *key, double fallback);
bool sx_json_bool(const sx_json *v, const char *key, bool fallback);
const char *sx_json_text(const sx_json *v, const char *key, const char *fallback);
bool sx_json_has(const sx_json *v, const char *key); /* there and not null */
/* Number of elements or members; the first and the next of them. */
int sx_json_count(const sx_json *v);
const sx_json *sx_json_first(const sx_json *v);
const sx_json *sx_json_next(const sx_json *v);
const char *sx_json_key(const sx_json *member);
bool sx_json_is_array(const sx_json *v);
bool sx_json_is_bool(const sx_json *v);
bool sx_json_truth(const sx_json *v); /* true, not merely there */
bool sx_json_is_object(const sx_json *v);
const char *sx_json_string(const sx_json *v); /* NULL when not a string */
double sx_json_value(const sx_json *v, double fallback);
/* A whole number of the file `config`; absent (or null) leaves *out as it is. */
int sx_json_whole(sx_err *e, const sx_json *v, const char *config, const char *key, int least, int most, int *out);

#endif
