/* map.h - string interning and a string-keyed hash map (xxhash, seeded per context: hostile names cannot make it slow).
 * Iteration is in insertion order, so nothing depends on hash order. */
#ifndef QX_BASE_MAP_H
#define QX_BASE_MAP_H

#include "base/mem.h"

typedef struct qx_map qx_map;
qx_status qx_map_new(qx_ctx *ctx, qx_map **out);
void qx_map_free(qx_map *m);
/* The key is copied. Replaces the value of a key that is there. */
qx_status qx_map_put(qx_map *m, const char *key, void *value);
/* The same without a copy: the key (an interned name) must live as long as the map. */
qx_status qx_map_put_interned(qx_map *m, const char *key, void *value);
/* NULL when absent (or when NULL was put). */
void *qx_map_get(const qx_map *m, const char *key);
bool qx_map_has(const qx_map *m, const char *key);
void qx_map_remove(qx_map *m, const char *key);
size_t qx_map_count(const qx_map *m);
/* i in [0, count): the i-th live entry in order of insertion. The first call after a removal closes the gaps (so: not from two threads). */
const char *qx_map_key_at(const qx_map *m, size_t i, void **value);

/* Equal strings give equal pointers for the life of the table. NULL when out of memory. */
typedef struct qx_strings qx_strings;
qx_status qx_strings_new(qx_ctx *ctx, qx_strings **out);
void qx_strings_free(qx_strings *s);
const char *qx_intern(qx_strings *s, const char *text);
/* The same without a copy: the text must live as long as the table. */
const char *qx_intern_kept(qx_strings *s, const char *text);
const char *qx_intern_n(qx_strings *s, const char *text, size_t n);

/* XXH3 of a byte range; *_128 writes 32 lower-case hex digits and a NUL. */
uint64_t qx_hash64(const void *p, size_t n);
void qx_hash128_hex(const void *p, size_t n, char out[33]);

#endif
