/* observer.h - the accumulators behind calib/stats/stats.h: one qx_observer a value, made of parts that are fed with float arrays.
 *
 * Nothing in a result depends on how the data was cut into calls, nor on the order of the calls: maxima, counts and histograms are
 * exact, sums are error-free pairs, kept rows are those with the smallest content hash. Only Gram matrices depend on order, in the last
 * bits of float32, because their blocks of rows are summed in float32; their blocks are fixed along the stream of rows, so cutting
 * does not matter there either. */
#ifndef QX_CALIB_OBSERVER_H
#define QX_CALIB_OBSERVER_H

#include "base/buf.h"
#include "calib/stats/stats.h"
#include "kernels/gram.h"
#include "kernels/observe.h"
#include "runtime/exec.h"

enum { QX_HIST_BINS = 4096, QX_GRAM_ROWS = 256, QX_ROWS_DEFAULT = 512, QX_TOPS = 16 };

/* |x| in bins of width 2^exp; the largest |x| lies in [2048, 4096) of them (or exp is at its floor). */
typedef struct qx_hist { bool set; int exp; uint64_t *bins; } qx_hist; /* [QX_HIST_BINS], without exact zeros */
qx_status qx_hist_add(qx_ctx *ctx, qx_hist *h, const float *x, int64_t n, float absmax, int64_t zeros);
qx_status qx_hist_join(qx_ctx *ctx, qx_hist *into, const qx_hist *from);
/* Widens until absmax fits. */
qx_status qx_hist_cover(qx_ctx *ctx, qx_hist *h, float absmax);
/* What a device counted in bins of width 2^exp, zeros among them. */
qx_status qx_hist_add_seen(qx_ctx *ctx, qx_hist *h, const uint32_t *bins, int exp, int64_t zeros);
void qx_hist_free(qx_ctx *ctx, qx_hist *h);

void qx_range_join(qx_scan *into, const qx_scan *from);
qx_status qx_range_of(qx_ctx *ctx, const float *x, int64_t n, qx_scan *out); /* all threads */

typedef struct qx_channels { int64_t n; qx_columns acc; double rows; } qx_channels; /* rows: elements that each channel has seen */
/* all: of the whole tensor, out of the same look; what is not finite is not added. */
qx_status qx_channels_add(qx_ctx *ctx, qx_channels *c, const float *x, int rank, const int64_t *dims, int axis, const char *name,
                          qx_scan *all);
/* For a tensor on a device: what has to be asked of it, and what was seen of c->n channels. */
qx_status qx_channels_ask(qx_ctx *ctx, qx_channels *c, const qx_tensor *t, int axis, const char *name, qx_look *look);
void qx_channels_add_seen(qx_channels *c, const qx_columns *seen);
qx_status qx_channels_join(qx_ctx *ctx, qx_channels *into, const qx_channels *from, const char *name);
void qx_channels_free(qx_ctx *ctx, qx_channels *c);

/* Rows with the smallest key, equal rows kept once: the hash of their content (a uniform sample), or, by size, what makes the
 * rows with the largest |x| the first ones (the tokens with enormous values that a sample of rows misses). */
typedef struct qx_row_ref { uint64_t hash; int64_t slot; } qx_row_ref;
/* heap: largest hash first; data[room][len] by slot, which grows to cap while rows come */
typedef struct qx_reservoir { int64_t cap, room, n, len; qx_row_ref *heap; float *data; bool by_size; } qx_reservoir;
qx_status qx_reservoir_add(qx_ctx *ctx, qx_reservoir *r, const float *x, int64_t rows, int64_t stride, int64_t len, int64_t cap);
qx_status qx_reservoir_sort(qx_ctx *ctx, qx_reservoir *r); /* data[n] by rising hash: the order in which rows are shown and saved */
void qx_reservoir_free(qx_ctx *ctx, qx_reservoir *r);

typedef struct qx_gram {
    int64_t k, groups, rows;
    double *tiles;           /* while collecting: [groups][tile pairs i <= j][16][16] */
    float *pending; int64_t n_pending; /* rows that do not fill a block yet: [QX_GRAM_ROWS][groups * k] */
    float *full;             /* when finished: [groups][k][k] */
    struct qx_file *disk;    /* full is a read-only mapping of it; NULL: memory */
    void *on_device;         /* a sum that has not been taken; NULL: none */
} qx_gram;
size_t qx_gram_bytes(int64_t k, int64_t groups); /* what collecting takes */
int64_t qx_gram_tile_count(int64_t k, int64_t groups); /* doubles in tiles */
size_t qx_gram_extra(int64_t k, int64_t groups); /* and in passing, for one matrix at a time */
qx_status qx_gram_add(qx_ctx *ctx, qx_gram *g, const float *x, int64_t rows, int64_t stride, int64_t k, int64_t groups);
/* rows of the last axis, summed there; QX_E_NOMEM: no room for the first */
qx_status qx_gram_add_on_device(qx_ctx *ctx, qx_exec *exec, qx_gram *g, const qx_tensor *t);
/* what is summed there comes here; not wanted: is thrown away */
qx_status qx_gram_take(qx_ctx *ctx, qx_exec *exec, qx_gram *g, bool wanted);
qx_status qx_gram_finish(qx_ctx *ctx, qx_gram *g); /* tiles -> full */
qx_status qx_gram_join(qx_ctx *ctx, qx_gram *into, const qx_gram *from, const char *name); /* both finished */
qx_status qx_gram_spill(qx_ctx *ctx, qx_gram *g); /* full -> an unnamed file on disk, mapped */
qx_status qx_gram_own(qx_ctx *ctx, qx_gram *g);   /* and back into memory, to be changed (and then spilled again) */
void qx_gram_free(qx_ctx *ctx, qx_gram *g);

typedef struct qx_step_row { double key; qx_dd sum; float max; int64_t batches; } qx_step_row;
typedef struct qx_steps { qx_step_row *rows; int64_t n, cap; } qx_steps; /* by falling key: the order of denoising */
qx_status qx_steps_add(qx_ctx *ctx, qx_steps *s, const qx_step_row *row);
void qx_steps_free(qx_ctx *ctx, qx_steps *s);

/* Rows that a linear operator sees: the last axis, or im2col of a window. fn gets [rows][len] with a row stride. thinning (may be NULL:
 * all rows): one of every so many along the stream, so that `enough` rows a column come out of as many runs as the first one. */
typedef struct qx_thinning {
    int64_t enough, runs;    /* asked for: 0: all; how many runs are expected: 0: unknown, all */
    int64_t every, seen;     /* one row of so many, 0: not known before the first tensor; rows of the stream so far */
} qx_thinning;
typedef qx_status qx_rows_fn(void *user, const float *x, int64_t rows, int64_t stride, int64_t len);
typedef struct qx_seen_by { const float *x; int rank; const int64_t *dims; const qx_conv_window *w; const char *name; } qx_seen_by;
qx_status qx_rows_each(qx_ctx *ctx, const qx_seen_by *t, qx_thinning *thinning, qx_rows_fn *fn, void *user);
/* Length of such a row; 0 when the shape does not fit the window. */
int64_t qx_rows_length(int rank, const int64_t *dims, const qx_conv_window *w);

typedef struct qx_observer {
    const char *name;
    uint32_t want, have;     /* kinds asked for; kinds that are complete */
    uint32_t doing;          /* kinds of the sweep in progress */
    int axis; bool has_window; qx_conv_window window; int64_t rows_cap;
    int64_t samples;
    qx_scan range;
    qx_hist hist;
    qx_channels channels;
    qx_reservoir rows, tops; /* QX_STAT_ROWS: both */
    qx_gram gram;
    qx_thinning thin_rows, thin_gram; /* of what rows and tops are chosen from, and of what gram sums */
    qx_steps steps;
    qx_value_stats view;     /* what qx_stats_get shows; arrays in `shown` */
    void *shown;
} qx_observer;
/* Feeds one tensor. dtype as the executor has it; x is converted when it is not float32. */
qx_status qx_observer_add(qx_ctx *ctx, qx_observer *o, const qx_tensor *t, double step);
/* The same for a tensor on a device, of sample `sample`: it has been added when the run is over, and what is not finite is an
 * error then. *taken false: something wanted needs the tensor itself (rows, a Gram matrix of patches): nothing was added, fetch
 * it. */
qx_status qx_observer_add_on_device(qx_ctx *ctx, qx_exec *exec, qx_observer *o, const qx_tensor *t, double step, int64_t sample,
                                    bool *taken);
qx_status qx_observer_finish(qx_ctx *ctx, qx_observer *o); /* makes the view */
qx_status qx_observer_join(qx_ctx *ctx, qx_observer *into, const qx_observer *from);
/* Throws away what `kinds` hold, to be collected anew. */
void qx_observer_reset(qx_ctx *ctx, qx_observer *o);

/* Thresholds off a histogram (calib/stats/threshold.c). */
float qx_hist_percentile(const qx_hist *h, const qx_scan *range, double percentile, bool skip_zeros);
float qx_hist_entropy(const qx_hist *h, const qx_scan *range);
/* UINT8: with a zero point, whatever levels says */
float qx_hist_mse(const qx_hist *h, const qx_scan *range, float levels, qx_dtype format);

#endif
