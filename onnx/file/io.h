/* io.h - model files in and out. */
#ifndef QX_ONNX_IO_H
#define QX_ONNX_IO_H

#include "base/buf.h"
#include "onnx/weight/weight.h"

typedef struct qx_read_options {
    bool strict;                    /* warnings of the malformed-input table become errors */
    bool allow_symlinks;
    const char *external_data_root; /* another directory that external data may lie in; NULL: beside the model only */
    bool skip_check;                /* structure is parsed but qx_check and qx_infer_shapes are not run (inspect of broken files) */
    bool skip_checksum;
    bool fix_order;                 /* nodes that are listed before what they need are put in order, with a warning, instead of refused */
    /* external files that are not there are only a warning: sizes are known, contents are not (inspect, dry run) */
    bool missing_data_ok;
} qx_read_options;

/* Reads structure only: wire scan over an mmap, payloads elided, protobuf-c for the rest, IR, checker, shape inference. opt may be NULL. */
qx_status qx_model_read(qx_ctx *ctx, const char *path, const qx_read_options *opt, qx_model **out);
/* From memory (not copied: must outlive the model). External data is refused unless base_dir is given. */
qx_status qx_model_read_bytes(qx_ctx *ctx, const void *bytes, size_t n, const char *base_dir, const qx_read_options *opt, qx_model **out);
/* Empty model: arena, name table and store are there, everything else is zero. path may be NULL. */
qx_status qx_model_new(qx_ctx *ctx, const char *path, qx_model **out);
void qx_model_free(qx_model *m);
/* What the tensors of its external data files take, each place once; 0 for a model in one file. */
int64_t qx_model_external_bytes(const qx_model *m);

typedef struct qx_write_options {
    bool external_data;        /* always write OUT.onnx.data; otherwise only when initializers exceed inline_limit */
    int64_t inline_limit;      /* bytes; 0: 1 GiB */
    bool force;                /* replace an output that exists */
} qx_write_options;
typedef struct qx_write_result {
    int64_t model_bytes, data_bytes;
    const char *data_path; /* in the model's arena, or NULL */
} qx_write_result;

/* Complete and atomic: at every instant the old output or the new one loads (base/outset.c). Untouched models are copied byte for byte. */
qx_status qx_model_write(qx_model *m, const char *path, const qx_write_options *opt, qx_write_result *res);
/* What a tensor of so many bytes takes: in an external data file it starts at a multiple of 4 KiB when it is not small. */
int64_t qx_write_tensor_bytes(int64_t bytes, bool external);
/* What qx_model_write would write, from types alone. */
qx_status qx_model_write_size(qx_model *m, const qx_write_options *opt, qx_write_result *res);

/* One tensor file of the standard's test data (TensorProto in a .pb). */
qx_status qx_tensor_pb_read(qx_ctx *ctx, qx_arena *arena, const char *path, qx_weight **out);

/* The same from memory: a serialized TensorProto; content is copied into the arena. */
qx_status qx_tensor_pb_parse(qx_ctx *ctx, qx_arena *arena, const void *bytes, size_t n, qx_weight **out);

/* ONNX text form (onnx.parser's syntax), for golden tests: print a whole model; initializers over 16 elements print as a hash. */
qx_status qx_model_print(const qx_model *m, qx_buf *out);
qx_status qx_model_parse_text(qx_ctx *ctx, const char *text, qx_model **out);
/* Only builds the graph: neither checked nor inferred. */
qx_status qx_model_parse_text_raw(qx_ctx *ctx, const char *text, qx_model **out);

/* Structure rules (names, SSA, order, attributes, types, quantization parameters); messages name the thing, the place and the numbers. */
qx_status qx_check(qx_model *m, bool strict);
/* Types and shapes of every value, with symbols; values with known small content are propagated. dims: "name=value" fixes. */
typedef struct qx_dim_fix { const char *name; int64_t value; } qx_dim_fix;
qx_status qx_infer_shapes(qx_model *m, const qx_dim_fix *fixes, int n_fixes);

#endif
