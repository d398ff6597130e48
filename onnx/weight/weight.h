/* weight.h - a tensor as a description: where its bytes lie, or which job makes them. Nothing here holds a model in memory.
 *
 * A weight with no job is its source: a range of a file, or bytes in the model's arena. A weight with a job is one output
 * ("part") of a small computation on another weight: rows of the canonical float matrix [n, k] of a linear operator
 * (n output channels, k the contraction) go through a chain of steps, tile by tile, and end in a format. All parts of one job
 * (codes, scales, zero points) are made in one go. The writer runs jobs while it writes; the executor runs them into memory. */
#ifndef QX_ONNX_WEIGHT_H
#define QX_ONNX_WEIGHT_H

#include "base/file.h"
#include "onnx/graph.h"

typedef enum qx_source_kind { QX_SRC_NONE, QX_SRC_BYTES, QX_SRC_FILE, QX_SRC_TYPED } qx_source_kind;
/* QX_SRC_TYPED: file range that holds a protobuf typed field (int32_data, float_data, ...) and must be decoded when read. */
typedef struct qx_source {
    qx_source_kind kind;
    const void *bytes;   /* BYTES: raw little-endian content */
    qx_file *file;       /* FILE, TYPED */
    int64_t offset, length;
    int typed_field;     /* TYPED: TensorProto field number 4, 5, 7, 10, 11 */
    const char *const *strings; const size_t *string_lens; /* STRING tensors, [numel] */
} qx_source;

typedef struct qx_job qx_job;

struct qx_weight {
    const char *name;
    qx_dtype dtype;
    int rank;
    int64_t *dims;       /* [rank] */
    int64_t numel;
    size_t bytes;        /* of the content, packed; 0 for strings */
    qx_source src;
    qx_job *job; int part; /* job != NULL: src is unused; part is a qx_part */
    void *wire;          /* Onnx__TensorProto* when read from a file (name, doc, metadata, unknown fields), else NULL */
};

/* How a stored tensor is seen as the matrix W[n, k] of a linear operator: element (row r, column c) with c = o * inner + i lies at
 * flat index (o * n + r) * inner + i, where k = outer * inner.
 * MatMul [K,N]: outer K, inner 1. [N,K], Gemm transB, Conv [O,I,kh,kw]: outer 1, inner K. ConvTranspose [C,M,kh,kw]: outer C, inner kh*kw.
 * Several such matrices behind each other (experts [E,K,N]): n = E*N rows of which `span` = N lie together; 0 is n, one matrix. */
typedef struct qx_view { int64_t n, outer, inner, span; } qx_view;
static inline int64_t qx_view_k(const qx_view *v) { return v->outer * v->inner; }
static inline int64_t qx_view_span(const qx_view *v) { return v->span ? v->span : v->n; }
static inline bool qx_view_same(const qx_view *a, const qx_view *b)
{
    return a->n == b->n && a->outer == b->outer && a->inner == b->inner && (a->outer == 1 || qx_view_span(a) == qx_view_span(b));
}
/* Row r of `per_row` things a row, each of `span` rows together: where thing o of row r lies. */
static inline int64_t qx_view_index(const qx_view *v, int64_t per_row, int64_t r, int64_t o)
{
    const int64_t s = qx_view_span(v);
    return (r / s * per_row + o) * s + r % s;
}
/* Rows from r on, at most `rows`, that lie in one matrix. */
static inline int64_t qx_view_run(const qx_view *v, int64_t r, int64_t rows)
{
    const int64_t left = qx_view_span(v) - r % qx_view_span(v);
    return rows < left ? rows : left;
}

/* A step changes rows of W: x[rows][k] in place. `first` is the index of the first row. Rows are independent of each other, so that
 * tiles may be any number of rows on any thread. scratch_bytes(k) per call is handed in as `scratch`. */
typedef struct qx_step qx_step;
struct qx_qspec;
typedef struct qx_gridded { int64_t first, rows, k; float *x, *scale; int32_t *zero; } qx_gridded; /* rows of W, and their grid */
typedef struct qx_cells { int64_t row0, rows, col0, cols, row_stride, col_stride; } qx_cells;
typedef struct qx_stepdef {
    const char *name;
    qx_status (*rows)(qx_ctx *ctx, const qx_step *s, int64_t first, int64_t rows, int64_t k, float *x, void *scratch);
    size_t (*scratch_bytes)(const qx_step *s, int64_t k); /* NULL: none */
    /* Optional: the same on a part of W that is not whole rows. Element (row, col) of W[n, k] lies at x[(row - row0) * row_stride +
     * (col - col0) * col_stride]. A chain whose steps all have it runs on [K,N] weights in storage order, without transposing. */
    qx_status (*cells)(qx_ctx *ctx, const qx_step *s, const qx_cells *c, float *x);
    /* A last step that decides the grid as well (GPTQ, SparseGPT, refine: scale and rounding are chosen together; it gets no
     * scratch). Replaces `rows`: leaves x on the grid of scale[rows][blocks] (as stored: already rounded to spec->scale) and
     * zero[rows][blocks] (NULL when the spec has no zero point), so that quantizing x with them gives exactly the codes meant.
     * The spec's rule is not used then. NULL: the rule decides. */
    qx_status (*grid)(qx_ctx *ctx, const qx_step *s, const struct qx_qspec *spec, const qx_gridded *t);
    /* of a step with `grid`: what it does, by the same argument, to a weight that stays float after all; NULL: nothing */
    const struct qx_stepdef *in_float;
    /* Around the tiles of one run of a job, outside any parallel region: begin makes what all tiles share (a factorisation; asked
     * again, it keeps what is there), end drops it. NULL: nothing is shared. */
    qx_status (*begin)(qx_ctx *ctx, const qx_step *s, const struct qx_qspec *spec, int64_t k);
    void (*end)(qx_ctx *ctx, const qx_step *s);
} qx_stepdef;
struct qx_step {
    const qx_stepdef *def;
    const qx_step *prev;  /* runs before this one; NULL at the start */
    const void *arg;      /* in the model's arena: float scale[k], float scale[n], masks, factors ... as the step documents */
};

typedef enum qx_part { QX_PART_CODES, QX_PART_SCALE, QX_PART_ZERO, QX_PART_SCALE2, QX_PART_COUNT_ } qx_part;

/* How scales are chosen (facts and formulas: docs/passes). */
typedef enum qx_scale_rule {
    QX_SCALE_AMAX,       /* amax / qmax */
    QX_SCALE_SEARCH,     /* least squared error over amax/qmax, signed/-8 (int4), shrink grid */
    QX_SCALE_GIVEN,      /* scale[n * blocks] in the spec */
} qx_scale_rule;

/* The format at the end of a job. codes dtype FLOAT/FLOAT16/BFLOAT16 means: just store the rows as that type (no scales). */
typedef struct qx_qspec {
    qx_dtype codes;       /* INT8 UINT8 INT4 UINT4 FLOAT8E4M3FN FLOAT8E5M2 FLOAT4E2M1 ... */
    qx_dtype scale;       /* FLOAT FLOAT16 BFLOAT16 FLOAT8E8M0 FLOAT8E4M3FN (nvfp4: SCALE2 is the f32 scalar) */
    int64_t block;        /* elements of k per scale; 0: one scale per row; -1: one scale for the tensor */
    bool zero_point;      /* asymmetric: a zero point per scale (UINT4, UINT8) */
    bool narrow;          /* symmetric INT8: codes in [-127, 127] */
    bool allow_negative_scale;
    qx_scale_rule rule;
    const float *given;   /* QX_SCALE_GIVEN: [n][blocks] */
    int64_t given_rows;   /* above 1: so many rows have one line of `given` between them, which is [ceil(n / given_rows)][blocks] */
    const float *importance; /* [k] weight of the squared error in SEARCH (E[x^2]); NULL: 1 */
    /* two levels of scales: the second level reaches this far even if the weight does not; 0: as far as the weight does */
    float amax;
    float second;         /* two levels of scales: the second one, where it is decided already; 0: by amax */
    const int32_t *given_zero; /* QX_SCALE_GIVEN with zero_point: [n][blocks]; NULL: from each block's range under the given scale */
} qx_qspec;
/* NVFP4: block scales in E4M3 under one f32 scale. */
static inline bool qx_spec_two_level(const qx_qspec *s) { return s->codes == QX_DT_FLOAT4E2M1 && s->scale == QX_DT_FLOAT8E4M3FN; }

/* Order in which the parts are stored. SAME: codes in the source's own layout and dims (scale dims: [n], or the source's dims
 * with the contraction axis divided by the block). NK: codes as [n, k], scales [n, blocks]. NBITS: com.microsoft MatMulNBits:
 * codes UINT8 [n, blocks, block * bits / 8] without sign (symmetric codes are moved up by 8 or 128), the last block filled up
 * with the zero code; scales [n, blocks]; zero points UINT8, 4-bit ones two a byte: [n, ceil(blocks * bits / 8)]. Scale of block
 * 0 is [n], of block -1 a scalar. */
typedef enum qx_layout { QX_LAYOUT_SAME, QX_LAYOUT_NK, QX_LAYOUT_NBITS } qx_layout;

struct qx_job {
    const qx_weight *in;  /* source (may itself come from a job) */
    qx_view view;
    const qx_step *steps; /* last step, or NULL */
    qx_qspec spec;
    qx_layout layout;
    qx_weight *part[QX_PART_COUNT_]; /* NULL where the format has no such part, or nobody wants it */
    struct qx_job_range *range; /* of the whole tensor, once it is known; the engine's business */
    struct qx_job_error *error; /* once it has run; see qx_job_sqnr */
};

/* The store: files open behind a model's weights; closed with the model. */
typedef struct qx_store qx_store;

/* Small weight from bytes (copied into the arena). dims may be NULL for rank 0. */
qx_status qx_weight_from_bytes(qx_model *m, qx_dtype dtype, int rank, const int64_t *dims, const void *bytes, qx_weight **out);
qx_status qx_weight_scalar_f32(qx_model *m, qx_dtype dtype, float v, qx_weight **out); /* dtype FLOAT, FLOAT16 or BFLOAT16 */
/* A job on `in`; dims and dtypes of its parts are worked out and checked here. The spec and arrays it points to are not copied. */
qx_status qx_job_new(qx_model *m, const qx_weight *in, const qx_view *view, const qx_step *steps, const qx_qspec *spec, qx_layout layout,
                     qx_job **out);
/* New last step on top of prev. arg must live in the model's arena. */
const qx_step *qx_step_new(qx_model *m, const qx_stepdef *def, const qx_step *prev, const void *arg);

/* "f32[64,3,7,7]", into buf. */
const char *qx_weight_describe(const qx_weight *w, char *buf, size_t cap);
/* Whole content into out[w->bytes], packed as ONNX's raw_data; runs the job when there is one. Thread safe. */
qx_status qx_weight_read(qx_ctx *ctx, const qx_weight *w, void *out);
/* The dense content of a checked sparse tensor, row by row, 0 where nothing is stored. Elements of whole bytes only. */
qx_status qx_sparse_read(qx_ctx *ctx, const qx_sparse *s, void *out);
/* Elements [first, first + count) of a weight WITHOUT a job as float, in storage order. */
qx_status qx_weight_read_f32(qx_ctx *ctx, const qx_weight *w, int64_t first, int64_t count, float *out);
/* Rows [first, first + rows) of the canonical matrix after all steps, before the format: x[rows][k]. Works for any weight and view. */
qx_status qx_rows_read(qx_ctx *ctx, const qx_weight *w, const qx_view *view, const qx_step *steps, int64_t first, int64_t rows, float *x);
/* The same after quantize + dequantize: what the consumer will compute with. */
qx_status qx_job_rows_dequantized(qx_ctx *ctx, const qx_job *job, int64_t first, int64_t rows, float *x);
/* The same, of rows that were read already: x holds them behind the steps in front of a solver's (all steps where there is none). */
qx_status qx_job_dequantize(qx_ctx *ctx, const qx_job *job, int64_t first, int64_t rows, float *x);
/* Makes what all rows share (a solver's factor, the range of a tensor), and lets go of it: rows that several threads ask for must
 * find it made. */
qx_status qx_job_share(qx_ctx *ctx, const qx_job *job);
void qx_job_unshare(qx_ctx *ctx, const qx_job *job);
/* XXH3 of the content (tied weights found by content); reads the whole tensor once. */
qx_status qx_weight_hash(qx_ctx *ctx, const qx_weight *w, uint64_t *out);

/* Where the bytes of a job go: one call per finished range, thread safe. */
typedef struct qx_sink {
    void *user;
    qx_status (*put)(void *user, const qx_weight *part, int64_t offset, const void *bytes, size_t n);
} qx_sink;
qx_status qx_job_run(qx_ctx *ctx, const qx_job *job, const qx_sink *sink);

/* Decibels between the rows that reached the format and their rounding error, as measured while the job ran (on one row in eight of a large
 * weight). NaN: it has not run, or has no codes; infinite: exact. */
double qx_job_sqnr(const qx_job *job);

/* Steps that every pass may use. Args: float[k] or float[n] arrays. */
extern const qx_stepdef qx_step_scale_cols; /* x[r][c] *= arg[c] */
extern const qx_stepdef qx_step_scale_rows; /* x[r][c] *= arg[r] */

#endif
