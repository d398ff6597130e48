/* source.h - inside of qx_samples: one source of samples after the other (a file, a text, a generator), each filling tensors by
 * input index. */
#ifndef QX_CALIB_SOURCE_H
#define QX_CALIB_SOURCE_H

#include "calib/data/fill.h"
#include "calib/data/npz.h"
#include "base/buf.h"
#include "base/text.h"

typedef struct qx_source_of qx_source_of;
typedef struct qx_sourcedef {
    /* Sample i as owned tensors, one an input of the model; an input that is left out (it has a default) stays empty (data NULL). */
    qx_status (*get)(qx_source_of *s, int64_t i, qx_tensor *out);
    void (*free)(qx_source_of *s);
} qx_sourcedef;
struct qx_source_of {
    const qx_sourcedef *def;
    qx_samples *owner;
    const char *label;
    int64_t count;
    void *state;
};

struct qx_samples {
    qx_ctx *ctx;
    qx_arena *arena;
    qx_model *model;
    qx_value **inputs; uint32_t n_inputs; /* as opened: a rewrite makes constants of inputs that have a default */
    qx_dims_given dims;
    bool half;                    /* windows of text end in their middle */
    qx_source_of *sources; int n_sources; int64_t cap_sources;
    int64_t all, count, held;     /* there are; for calibration; for verification, behind those */
    qx_tensor *tensors;           /* [n_inputs] of the sample that was handed out last */
    qx_feed *feeds; int n_feeds;
    int64_t *embedding;           /* [n_inputs] rows that ids may index; 0: no limit known */
    const char *description;
    bool synthetic, looked;       /* looked: at the first sample, for data that cannot be meant */
    bool extra_told;              /* that a file has arrays which are no inputs: once is enough for a folder of files */
};

qx_status qx_source_add(qx_samples *s, const qx_sourcedef *def, const char *label, int64_t count, void *state);
/* Token ids of a whole text file; freed with qx_free. */
qx_status qx_text_ids(qx_ctx *ctx, const char *path, const char *tokenizer, int64_t **ids, int64_t *n);
/* Each opens one kind of source and adds it. */
qx_status qx_source_folder(qx_samples *s, const char *dir);
qx_status qx_source_npz(qx_samples *s, qx_npz *z);  /* takes z over, also on failure */
qx_status qx_source_text(qx_samples *s, const char *text, const char *tokenizer, int64_t seq_len);
qx_status qx_source_random(qx_samples *s, int64_t n, uint64_t seed);
/* "input_ids i64[batch,seq], ..." of the model, for messages; in the arena. */
const char *qx_inputs_text(qx_samples *s);

#endif
