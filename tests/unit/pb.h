/* pb.h - protobuf bytes by hand, right or wrong, for tests of the reader: nothing here shares code with what it tests. */
#ifndef QX_TESTS_PB_H
#define QX_TESTS_PB_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct pb { uint8_t *p; size_t n, cap; } pb;

static inline void pb_raw(pb *b, const void *bytes, size_t n)
{
    if (b->n + n > b->cap) {
        b->cap = (b->n + n) * 2 + 64;
        b->p = realloc(b->p, b->cap);
    }
    if (n) memcpy(b->p + b->n, bytes, n);
    b->n += n;
}

static inline void pb_byte(pb *b, int v) { pb_raw(b, &(uint8_t){(uint8_t)v}, 1); }

static inline void pb_varint(pb *b, uint64_t v)
{
    for (; v > 0x7f; v >>= 7) pb_byte(b, (int)(v & 0x7f) | 0x80);
    pb_byte(b, (int)v);
}

static inline void pb_tag(pb *b, uint32_t field, int wire) { pb_varint(b, (uint64_t)field << 3 | (unsigned)wire); }
static inline void pb_int(pb *b, uint32_t field, int64_t v) { pb_tag(b, field, 0); pb_varint(b, (uint64_t)v); }

static inline void pb_blob(pb *b, uint32_t field, const void *bytes, size_t n)
{
    pb_tag(b, field, 2);
    pb_varint(b, n);
    pb_raw(b, bytes, n);
}

static inline void pb_str(pb *b, uint32_t field, const char *s) { pb_blob(b, field, s, strlen(s)); }

/* Puts `inner` as a field of b and empties it. */
static inline void pb_msg(pb *b, uint32_t field, pb *inner)
{
    pb_blob(b, field, inner->p, inner->n);
    free(inner->p);
    *inner = (pb){0};
}

static inline void pb_free(pb *b)
{
    free(b->p);
    *b = (pb){0};
}

/* A tensor's head: name, type, dims. */
static inline pb pb_tensor(const char *name, int dtype, int rank, const int64_t *dims)
{
    pb t = {0};
    for (int i = 0; i < rank; i++) pb_int(&t, 1, dims[i]);
    if (dtype) pb_int(&t, 2, dtype);
    if (name) pb_str(&t, 8, name);
    return t;
}

static inline void pb_entry(pb *t, uint32_t field, const char *key, const char *value)
{
    pb e = {0};
    if (key) pb_str(&e, 1, key);
    if (value) pb_str(&e, 2, value);
    pb_msg(t, field, &e);
}

/* y = Identity(x) over a tensor type; x and y are f32 without a shape. */
static inline void pb_value_info(pb *g, uint32_t field, const char *name)
{
    pb v = {0}, type = {0}, tensor = {0};
    pb_int(&tensor, 1, 1);
    pb_msg(&type, 1, &tensor);
    pb_str(&v, 1, name);
    pb_msg(&v, 2, &type);
    pb_msg(g, field, &v);
}

static inline pb pb_graph(void)
{
    pb g = {0}, n = {0};
    pb_str(&n, 1, "x");
    pb_str(&n, 2, "y");
    pb_str(&n, 4, "Identity");
    pb_msg(&g, 1, &n);
    pb_str(&g, 2, "g");
    pb_value_info(&g, 11, "x");
    pb_value_info(&g, 12, "y");
    return g;
}

/* The model around a graph (consumed): IR 8, opset 17. */
static inline pb pb_model(pb *graph)
{
    pb m = {0}, o = {0};
    pb_int(&m, 1, 8);
    pb_msg(&m, 7, graph);
    pb_str(&o, 1, "");
    pb_int(&o, 2, 17);
    pb_msg(&m, 8, &o);
    return m;
}

/* A model with one initializer (consumed). */
static inline pb pb_model_with(pb *tensor)
{
    pb g = pb_graph();
    pb_msg(&g, 5, tensor);
    return pb_model(&g);
}

#endif
