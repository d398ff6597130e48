/* store.h - the files behind a model's weights, and where external data may lie. Internal to onnx/. */
#ifndef QX_ONNX_STORE_H
#define QX_ONNX_STORE_H

#include "onnx/file/io.h"
#include "onnx/sha1.h"
#include "onnx/file/wire.h"

typedef struct qx_ext_range { int64_t offset, length; const char *tensor; } qx_ext_range;

/* One external data file, opened once; all reads go through this descriptor. */
typedef struct qx_ext_file {
    const char *location;
    qx_file *file;          /* NULL: missing, and the caller said that this is fine */
    bool missing;
    uint64_t dev, ino;
    bool hashed;            /* sha1 below is that of the whole file */
    char sha1[41];
    qx_ext_range *ranges; int64_t n_ranges, cap_ranges; /* in the model's arena */
} qx_ext_file;

struct qx_store {
    qx_ctx *ctx;
    qx_file *model_file;    /* NULL for a model from memory */
    const uint8_t *mem; int64_t mem_size;
    qx_span *spans; int64_t n_spans;
    const char *base_dir;   /* as given, links not resolved; NULL: external data is refused */
    const char *roots[3];   /* real paths that external data may lie under; NULL where there is none */
    uint64_t dev, ino;      /* of the model file */
    qx_read_options opt;
    qx_ext_file **files; int64_t n_files, cap_files;
    int64_t external_tensors, inline_payloads;
};

/* Opens a regular file for reading without ever blocking; refuses directories, fifos, devices and /proc by kind. */
qx_status qx_store_open_regular(qx_ctx *ctx, const char *path, const char *what, qx_file **out);
/* The model file: opened, its kind recognised (Git LFS pointer, gzip, zip, HTML, text are refused by name). */
qx_status qx_store_open_model(qx_model *m, const char *path, const qx_read_options *opt);
/* A model in memory; base_dir may be NULL. */
qx_status qx_store_set_memory(qx_model *m, const void *bytes, size_t n, const char *base_dir, const qx_read_options *opt);
/* The file that `location` names, under the containment policy; opened at most once a model. */
qx_status qx_store_external(qx_model *m, const char *tensor, const char *location, qx_ext_file **out);
/* Remembers a range of an external file, for the overlap check. */
qx_status qx_store_add_range(qx_model *m, qx_ext_file *f, const char *tensor, int64_t offset, int64_t length);
/* Warns (strict: fails) where ranges overlap without being the same. Call once, after all weights are known. */
qx_status qx_store_check_overlaps(qx_model *m);
/* SHA1 of the whole file in hex, computed once. */
qx_status qx_store_sha1(qx_ctx *ctx, qx_ext_file *f);
/* A finding of the malformed-input table that is only a warning: under strict it is an error. */
qx_status qx_store_warn(qx_model *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void qx_store_free(qx_store *s);

/* Varint payloads that stayed in the file (QX_SRC_TYPED; typed.c): number of entries; every entry within its type's range; content
 * [first, first + n) bytes of the raw form. */
qx_status qx_typed_count(qx_ctx *ctx, const qx_weight *w, int64_t *entries);
qx_status qx_typed_check(qx_ctx *ctx, const qx_weight *w, int64_t entries);
qx_status qx_typed_read(qx_ctx *ctx, const qx_weight *w, size_t first, size_t n, void *out);
/* Value i of `entries` in a typed field, checked, as n raw little-endian bytes that belong at `at`. */
typedef struct qx_typed_bytes { size_t at, n; uint8_t bytes[8]; } qx_typed_bytes;
qx_status qx_typed_entry(qx_ctx *ctx, const qx_weight *w, int64_t entries, int64_t i, int64_t v, qx_typed_bytes *out);

#endif
