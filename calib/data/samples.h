/* samples.h - where calibration data comes from: .npz, .npy, folders of them, raw binary, text through a tokenizer, or a seeded
 * generator. One sample at a time is in memory. */
#ifndef QX_CALIB_SAMPLES_H
#define QX_CALIB_SAMPLES_H

#include "base/buf.h"
#include "onnx/graph.h"
#include "runtime/exec.h"

typedef struct qx_samples qx_samples;
typedef struct qx_samples_options {
    const char *const *paths; int n_paths;   /* --calib: .npz | directory of .npz/.npy | name=file.raw:f32[2,3] */
    const char *text, *tokenizer;            /* --text FILE --tokenizer FILE.json */
    int64_t seq_len;                         /* tokens per chunk; 0: 256 */
    int64_t limit;                           /* --samples: at most this many; 0: all */
    int64_t random; uint64_t seed;           /* --random N --seed S */
    bool hold_out;                           /* keep the last eighth (at least one when there are two) for verification */
    const qx_dim_fix *dims; int n_dims;      /* --dim */
} qx_samples_options;

/* Opens and checks against the model's inputs: names, types, ranks and fixed dims, both lists in the message. */
qx_status qx_samples_open(qx_ctx *ctx, qx_model *m, const qx_samples_options *opt, qx_samples **out);
/* Made-up samples whose length nobody gave: tried on the model, and halved (down to 8) until one runs; *seq_len is what became of
 * it. When none does: its error, with the sizes that were tried. Other samples are left as they are. */
qx_status qx_samples_fit(qx_samples *s, const qx_exec_options *options, int64_t *seq_len);
void qx_samples_close(qx_samples *s);
int64_t qx_samples_count(const qx_samples *s);            /* calibration samples */
int64_t qx_samples_held_out(const qx_samples *s);          /* verification samples, [count, count + held_out) */
/* Feeds of sample i; the tensors belong to the reader and live until the next call. */
qx_status qx_samples_get(qx_samples *s, int64_t i, const qx_feed **feeds, int *n_feeds);
/* Whether windows of text end in their middle from now on, where the model takes any length; other samples stay whole. For
 * measurements that are only compared with each other. */
void qx_samples_half(qx_samples *s, bool half);
/* "calib.npz: 32 samples", "random, seed 7: 4 samples (not real data)": goes into report and metadata. */
const char *qx_samples_describe(const qx_samples *s);
bool qx_samples_synthetic(const qx_samples *s);

/* npz and npy on their own (also for `qonnx run -i`). */
typedef struct qx_npz qx_npz;
qx_status qx_npz_open(qx_ctx *ctx, const char *path, qx_npz **out);
void qx_npz_close(qx_npz *z);
int qx_npz_count(const qx_npz *z);
const char *qx_npz_name(const qx_npz *z, int i);
/* Shape and type without reading the data (data NULL). */
qx_status qx_npz_describe(qx_npz *z, int i, qx_tensor *t);
qx_status qx_npz_read(qx_npz *z, int i, qx_tensor *out);  /* out is the caller's: qx_tensor_free */
qx_status qx_npz_write(qx_ctx *ctx, const char *path, const char *const *names, const qx_tensor *tensors, int n); /* stored, atomic */

/* Tokenizer of a tokenizer.json (BPE, WordPiece and Unigram). Text is UTF-8. ids: int64, freed with
 * qx_free; nothing is put before or behind the text (see prefix). Decoding leaves special tokens out. One thread at a time. */
typedef struct qx_tokenizer qx_tokenizer;
qx_status qx_tokenizer_open(qx_ctx *ctx, const char *path, qx_tokenizer **out);
qx_status qx_tokenizer_parse(qx_ctx *ctx, const char *json, size_t len, qx_tokenizer **out);
void qx_tokenizer_free(qx_tokenizer *t);
/* Ids that the file's post-processor puts before a text (begin-of-text); n may be 0. */
const int64_t *qx_tokenizer_prefix(const qx_tokenizer *t, int64_t *n);
qx_status qx_tokenizer_encode(qx_tokenizer *t, const char *text, size_t len, int64_t **ids, int64_t *n);
qx_status qx_tokenizer_decode(qx_tokenizer *t, const int64_t *ids, int64_t n, qx_buf *out);
int64_t qx_tokenizer_vocab(const qx_tokenizer *t);

#endif
