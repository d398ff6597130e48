/* map.c - open addressing over an array of entries in order of insertion. Removing marks the entry; the array closes the
 * gaps at the next growth or the next qx_map_key_at. */
#include "base/map.h"
#include "base/ctx.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

typedef struct entry { const char *key; void *value; uint64_t hash; } entry; /* key NULL: removed */

typedef struct table {
    entry *entries;
    uint32_t *slots; /* 0: free, else entry number + 1 */
    size_t n, cap, live, n_slots;
} table;

struct qx_map {
    qx_ctx *ctx;
    qx_arena *keys;
    table *t; /* apart, because closing gaps does not change what the map says */
};

uint64_t qx_hash64(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}

static uint64_t hash_seeded(const qx_ctx *ctx, const void *p, size_t n)
{
    return XXH3_64bits_withSeed(p, n, ctx->seed);
}

void qx_hash128_hex(const void *p, size_t n, char out[33])
{
    XXH128_hash_t h = XXH3_128bits(p, n);
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

qx_status qx_map_new(qx_ctx *ctx, qx_map **out)
{
    qx_map *m;
    *out = NULL;
    QX_TRY(QX_NEW(ctx, &m));
    m->ctx = ctx;
    qx_status st = qx_arena_new(ctx, &m->keys);
    if (st == QX_OK) st = QX_NEW(ctx, &m->t);
    if (st != QX_OK) qx_map_free(m);
    else *out = m;
    return st;
}

void qx_map_free(qx_map *m)
{
    if (!m) return;
    qx_arena_free(m->keys);
    if (m->t) {
        qx_free(m->ctx, m->t->entries);
        qx_free(m->ctx, m->t->slots);
    }
    qx_free(m->ctx, m->t);
    qx_free(m->ctx, m);
}

/* The slot that holds the key, or the free one where it belongs. Removed entries keep their slot, so the walk passes them. */
static uint32_t *find(const table *t, const char *key, size_t len, uint64_t hash)
{
    for (size_t i = hash & (t->n_slots - 1);; i = (i + 1) & (t->n_slots - 1)) {
        uint32_t *slot = &t->slots[i];
        if (!*slot) return slot;
        const entry *e = &t->entries[*slot - 1];
        if (e->key && e->hash == hash && strncmp(e->key, key, len) == 0 && !e->key[len]) return slot;
    }
}

static void fill_slots(table *t)
{
    memset(t->slots, 0, t->n_slots * sizeof *t->slots);
    for (size_t i = 0; i < t->n; i++) {
        size_t s = t->entries[i].hash & (t->n_slots - 1);
        while (t->slots[s]) s = (s + 1) & (t->n_slots - 1);
        t->slots[s] = (uint32_t)i + 1;
    }
}

static void close_gaps(table *t)
{
    size_t to = 0;
    for (size_t i = 0; i < t->n; i++)
        if (t->entries[i].key) t->entries[to++] = t->entries[i];
    t->n = to;
    fill_slots(t);
}

/* Makes room for one more; at most half of the slots are taken. */
static qx_status make_room(qx_map *m)
{
    if (m->t->n < m->t->cap) return QX_OK;
    if (m->t->live < m->t->n - m->t->n / 4) {
        close_gaps(m->t);
        return QX_OK;
    }
    size_t cap = m->t->cap ? m->t->cap * 2 : 16;
    if (cap > UINT32_MAX / 2) QX_FAIL(m->ctx, QX_E_NOMEM, "a map of %zu names is full", m->t->live);
    uint32_t *slots;
    QX_TRY(QX_NEW_ARRAY(m->ctx, 2 * cap, &slots));
    qx_status st = qx_regrow(m->ctx, (void **)&m->t->entries, m->t->cap * sizeof(entry), cap * sizeof(entry));
    if (st != QX_OK) {
        qx_free(m->ctx, slots);
        return st;
    }
    qx_free(m->ctx, m->t->slots);
    m->t->slots = slots;
    m->t->n_slots = 2 * cap;
    m->t->cap = cap;
    close_gaps(m->t);
    return QX_OK;
}

static const char *copy_key(qx_map *m, const char *key, size_t len)
{
    char *copy = qx_arena_alloc(m->keys, len + 1);
    if (copy) memcpy(copy, key, len);
    return copy;
}

static qx_status insert(qx_map *m, const char *key, size_t len, bool lives, void *value, const char **stored)
{
    uint64_t hash = hash_seeded(m->ctx, key, len);
    uint32_t *slot = m->t->n_slots ? find(m->t, key, len, hash) : NULL;
    if (slot && *slot) {
        if (stored) *stored = m->t->entries[*slot - 1].key;
        else m->t->entries[*slot - 1].value = value;
        return QX_OK;
    }
    QX_TRY(make_room(m));
    const char *copy = lives ? key : copy_key(m, key, len);
    if (!copy) return QX_E_NOMEM;
    m->t->entries[m->t->n] = (entry){copy, value, hash};
    *find(m->t, key, len, hash) = (uint32_t)++m->t->n;
    m->t->live++;
    if (stored) *stored = copy;
    return QX_OK;
}

qx_status qx_map_put(qx_map *m, const char *key, void *value)
{
    return insert(m, key, strlen(key), false, value, NULL);
}

qx_status qx_map_put_interned(qx_map *m, const char *key, void *value)
{
    return insert(m, key, strlen(key), true, value, NULL);
}

static entry *lookup(const qx_map *m, const char *key)
{
    if (!m->t->n_slots) return NULL;
    size_t len = strlen(key);
    uint32_t *slot = find(m->t, key, len, hash_seeded(m->ctx, key, len));
    return *slot ? &m->t->entries[*slot - 1] : NULL;
}

void *qx_map_get(const qx_map *m, const char *key)
{
    const entry *e = lookup(m, key);
    return e ? e->value : NULL;
}

bool qx_map_has(const qx_map *m, const char *key)
{
    return lookup(m, key) != NULL;
}

void qx_map_remove(qx_map *m, const char *key)
{
    entry *e = lookup(m, key);
    if (!e) return;
    e->key = NULL;
    m->t->live--;
}

size_t qx_map_count(const qx_map *m)
{
    return m->t->live;
}

const char *qx_map_key_at(const qx_map *m, size_t i, void **value)
{
    if (m->t->live < m->t->n) close_gaps(m->t);
    if (i >= m->t->n) return NULL;
    if (value) *value = m->t->entries[i].value;
    return m->t->entries[i].key;
}

struct qx_strings { qx_map map; };

qx_status qx_strings_new(qx_ctx *ctx, qx_strings **out)
{
    return qx_map_new(ctx, (qx_map **)out);
}

void qx_strings_free(qx_strings *s)
{
    qx_map_free((qx_map *)s);
}

static const char *intern(qx_strings *s, const char *text, size_t n, bool lives)
{
    const char *stored;
    return insert(&s->map, text, n, lives, NULL, &stored) == QX_OK ? stored : NULL;
}

const char *qx_intern(qx_strings *s, const char *text)
{
    return intern(s, text, strlen(text), false);
}

const char *qx_intern_kept(qx_strings *s, const char *text)
{
    return intern(s, text, strlen(text), true);
}

const char *qx_intern_n(qx_strings *s, const char *text, size_t n)
{
    return intern(s, text, strnlen(text, n), false);
}
