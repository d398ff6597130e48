/* proto_bytes.h - for tests: protobuf messages written by hand, so that files can be made that no writer would make.
 *
 *     pb g = {0}; pb_str(&g, 2, "name"); pb m = {0}; pb_int(&m, 1, 8); pb_msg(&m, 7, &g); */
#ifndef PROTO_BYTES_H
#define PROTO_BYTES_H

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct pb { uint8_t *data; size_t len, cap; } pb;

static inline void pb_raw(pb *b, const void *p, size_t n)
{
    if (b->len + n > b->cap) {
        b->cap = 2 * (b->len + n) + 64;
        b->data = realloc(b->data, b->cap);
        assert(b->data);
    }
    if (n) memcpy(b->data + b->len, p, n);
    b->len += n;
}

static inline void pb_varint(pb *b, uint64_t v)
{
    uint8_t out[10];
    size_t n = 0;
    do {
        out[n] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        v >>= 7;
    } while (out[n++] & 0x80);
    pb_raw(b, out, n);
}

static inline void pb_tag(pb *b, int field, int wire) { pb_varint(b, (uint64_t)field << 3 | (uint64_t)wire); }
static inline void pb_int(pb *b, int field, int64_t v) { pb_tag(b, field, 0), pb_varint(b, (uint64_t)v); }
static inline void pb_float(pb *b, int field, float v) { pb_tag(b, field, 5), pb_raw(b, &v, 4); }
static inline void pb_bytes(pb *b, int field, const void *p, size_t n) { pb_tag(b, field, 2), pb_varint(b, n), pb_raw(b, p, n); }
static inline void pb_str(pb *b, int field, const char *s) { pb_bytes(b, field, s, strlen(s)); }
/* Takes over `inner`: it is freed. */
static inline void pb_msg(pb *b, int field, pb *inner)
{
    pb_bytes(b, field, inner->data, inner->len);
    free(inner->data);
    *inner = (pb){0};
}

#endif
