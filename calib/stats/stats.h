/* stats.h - what calibration knows about the values of a model, and the file that keeps it.
 *
 * A pass asks for kinds of statistics per value (qx_stats_want) before the sweep; one sweep over the samples serves all passes.
 * Every observer has fixed memory and a result that depends neither on the order nor on the batching of the samples: maxima,
 * counts and histograms are exact, sums are error-free pairs of f64, kept rows are chosen by content. (Gram matrices do not
 * depend on batching; on the order only by about 1e-6 of their diagonal, unless they need not be of all rows.) Stores merge
 * (qx_stats_merge) and are keyed by value name and the model's graph hash. */
#ifndef QX_CALIB_STATS_H
#define QX_CALIB_STATS_H

#include "calib/data/samples.h"

enum {
    QX_STAT_RANGE = 1u << 0,     /* min, max, absmax, count, sum, sum of squares (always there for a wanted value) */
    QX_STAT_HISTOGRAM = 1u << 1, /* |x| in 2048 to 4096 linear bins whose width doubles exactly; zeros apart */
    QX_STAT_CHANNELS = 1u << 2,  /* per channel of `axis`: absmax, min, max, mean |x|, mean x^2, mean x */
    /* a sample of the distinct rows (last axis, or im2col rows of a conv): those of smallest content hash, in that order; and
     * the few with the largest |x| */
    QX_STAT_ROWS = 1u << 3,
    QX_STAT_GRAM = 1u << 4,      /* H = X'X [k,k] of the rows that a linear operator sees, and the number of rows */
    QX_STAT_STEPS = 1u << 5,     /* absmax per timestep (diffusion): keyed by the timestep input's value */
};

typedef struct qx_stats qx_stats;
/* rank 0: no convolution but the right side of W X: each column of the last two axes is a row. */
typedef struct qx_conv_window {
    int64_t kernel[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
    int rank;
    int64_t group;
} qx_conv_window;
bool qx_window_same(const qx_conv_window *a, const qx_conv_window *b); /* either may be NULL */

typedef struct qx_stat_request {
    const qx_value *value;
    uint32_t kinds;
    int axis;                      /* of CHANNELS; -1: last (linear inputs); 1 for convolution inputs */
    const qx_conv_window *window;  /* ROWS and GRAM of a convolution input: im2col with these; NULL: rows are the last axis */
    int64_t rows;                  /* of ROWS: at most this many kept; 0: 512 */
    int64_t enough;                /* of ROWS and GRAM: so many rows for each column are enough to choose from and to sum, of a
                                    * longer stream one row of every few is looked at (qx_stats_expect); 0: all. Asked twice,
                                    * the larger counts; devices sum all */
} qx_stat_request;

/* percentile etc. are read off the same histogram afterwards, so a method can be changed without a new sweep. */
typedef enum qx_range_method { QX_RANGE_MAX, QX_RANGE_PERCENTILE, QX_RANGE_ENTROPY, QX_RANGE_MSE, QX_RANGE_STEPS_MIN_MEAN,
                               QX_RANGE_STEPS_MEAN_MAX } qx_range_method;

/* arrays [n]; importance: mean_sq, the nearer to its average the fewer rows were seen */
typedef struct qx_channel_stats { int64_t n; const float *absmax, *min, *max, *mean_abs, *mean_sq, *mean, *importance; } qx_channel_stats;
typedef struct qx_value_stats {
    const char *name;
    int64_t count, zeros, samples;
    float min, max, absmax;
    double sum, sumsq;
    bool has_nonfinite;
    qx_channel_stats channels;                        /* n 0: none */
    const float *rows; int64_t n_rows, row_len;       /* [n_rows][row_len] */
    /* [n_tops][row_len] the (at most 16) rows with the largest |x|; some may be among rows too */
    const float *tops; int64_t n_tops;
    const float *gram; int64_t gram_k; int64_t gram_rows; /* [gram_groups][k][k] full symmetric, sum (not mean) of x x' over so many rows */
    /* that gram is mapped from: qx_file_rest once it has been read; NULL: it is in memory */
    struct qx_file *gram_file;
    int64_t gram_groups;                                  /* of a grouped convolution, each with its own k; else 1 */
    /* step_absmax: mean over batches of absmax */
    const double *step_keys; const float *step_absmax; const int64_t *step_batches; int64_t n_steps;
    const float *step_max;                             /* max over batches */
} qx_value_stats;

qx_status qx_stats_new(qx_ctx *ctx, uint64_t model_hash, qx_stats **out);
void qx_stats_free(qx_stats *s);
/* Adds to what will be collected; asking twice merges the kinds. */
qx_status qx_stats_want(qx_stats *s, const qx_stat_request *r);
/* Runs the samples once (when anything is wanted that is not there yet). NaN/Inf in a watched value is QX_E_NUMERIC with tensor, node,
 * sample and first index. Gram matrices that do not fit the context's max_memory are collected in several sweeps, said in the log. */
qx_status qx_stats_collect(qx_stats *s, qx_exec *exec, qx_samples *samples);
/* What qx_stats_collect will take, in bytes, told without running: sweep: the run of one sample and all that is collected; kept:
 * what stays, without Gram matrices; grams: those, in memory at once; largest_gram: one of them. feeds: of one sample. run: of a
 * sample; observed: bytes of a sample that are looked at; gram_flops: of all of `samples` (as far as each wants rows). sweeps: over
 * the samples, Gram matrices in parts; layered: each reads the weights once, for all samples. */
typedef struct qx_stats_need {
    int64_t sweep, kept, grams, largest_gram, unknown, sweeps;
    bool layered;
    qx_exec_need run;
    double observed, gram_flops;
} qx_stats_need; /* unknown: as in qx_exec_need */
qx_status qx_stats_forecast(qx_stats *s, qx_exec *exec, const qx_feed *feeds, int n, int64_t samples, qx_stats_need *out);
/* Behind qx_stats_forecast: rows that the samples will bring, as an operator with this window sees v (NULL: the last axis); where
 * nothing tells, enough for everything. */
double qx_stats_rows_to_come(const qx_stats *s, const qx_value *v, const qx_conv_window *window);
/* Whether one of these kinds is asked for of v (as an operator with this window sees it, NULL: the last axis). */
bool qx_stats_wanted(const qx_stats *s, const qx_value *v, const qx_conv_window *window, uint32_t kinds);
/* Moves the Gram matrices that are there, those of at least so many bytes, to unnamed files on disk, where they can be read as
 * before: while others need the memory. */
qx_status qx_stats_park(qx_stats *s, size_t least);
/* qx_stats_collect keeps a checkpoint in `path`, at most every `seconds`, and goes on from one that is there to the same bits; it
 * is gone in the end. A checkpoint of other samples, statistics or models is QX_E_USAGE. In a sweep layer by layer it is written
 * between two stretches, and the activations that go on lie in PATH.activations.0 to .2. path NULL: none. */
qx_status qx_stats_resumable(qx_stats *s, const char *path, double seconds);
/* For a caller that runs the model itself (a diffusion pipeline): attach once, then every run of exec is observed. timestep: value
 * of the current step for QX_STAT_STEPS. */
qx_status qx_stats_attach(qx_stats *s, qx_exec *exec);
/* How many runs there will be, to be told before the first: how long the streams of rows are that Gram matrices need only some
 * of. Not told: all rows. */
void qx_stats_expect(qx_stats *s, int64_t runs);
void qx_stats_set_step(qx_stats *s, double timestep);
qx_status qx_stats_finish(qx_stats *s);

/* NULL when the value was not observed. */
const qx_value_stats *qx_stats_get(const qx_stats *s, const qx_value *v);
/* Rows and Gram matrix as an operator with this window sees them (NULL: the last axis). The same as above unless several operators cut
 * rows from one value in different ways: then each has its own. NULL when it was not collected. */
const qx_value_stats *qx_stats_get_rows(const qx_stats *s, const qx_value *v, const qx_conv_window *window);
/* Threshold (absmax to scale by) by a method; levels: positive levels of the format (127, 448, ...); fp8 formats pass is_fp8 for MSE. */
/* skip_zeros: percentile of what is not 0 */
typedef struct qx_range_options { qx_range_method method; double percentile; double step_fraction; float levels; qx_dtype format;
                                  bool skip_zeros; } qx_range_options;
qx_status qx_stats_threshold(const qx_stats *s, const qx_value *v, const qx_range_options *o, float *out);
/* The signed range that was seen, cut to [-reach, reach], for formats with a zero point; always contains 0. */
qx_status qx_stats_min_max(const qx_stats *s, const qx_value *v, float reach, float *min, float *max);

/* The value's channels were multiplied by factor[n] (smoothing): range, channels, rows and Gram follow exactly; the histogram is made anew
 * from channel bounds and rows. An alias serves `to` with the statistics of `from`, until `to` is scaled: then it has its own. */
qx_status qx_stats_scale_channels(qx_stats *s, const qx_value *v, const float *factor, int64_t n);
/* The value's channels had delta[n] added (bias absorption): ranges, channels and rows follow, the histogram is made anew.
 * QX_E_UNSUPPORTED with a Gram matrix of im2col rows, whose sums are not known. */
qx_status qx_stats_shift_channels(qx_stats *s, const qx_value *v, const float *delta, int64_t n);
/* `to` has the statistics of `from` unless samples reached it itself. */
qx_status qx_stats_alias(qx_stats *s, const qx_value *from, const qx_value *to);

qx_status qx_stats_save(qx_stats *s, const char *path, bool with_gram);
qx_status qx_stats_load(qx_stats *s, const char *path);  /* another model's hash or version: QX_E_USAGE with both */
qx_status qx_stats_merge(qx_stats *into, const qx_stats *from);
/* What runs of the model have measured, so that a job with another goal need not run them again: two numbers, and of what (a key
 * that whoever measured makes). They go into the file; merging forgets them, because they are of other samples then. */
qx_status qx_stats_note(qx_stats *s, const char *key, double a, double b);
bool qx_stats_noted(const qx_stats *s, const char *key, double *a, double *b);
int64_t qx_stats_notes(const qx_stats *s);
uint64_t qx_stats_hash(const qx_stats *s);               /* of the content: goes into the output's metadata */
int64_t qx_stats_count(const qx_stats *s);
/* Values that lack a kind of statistics that was asked for; first (may be NULL): name of one. 0 after a sweep. */
int64_t qx_stats_lacking(const qx_stats *s, const char **first);
const qx_value_stats *qx_stats_at(const qx_stats *s, int64_t i);
/* Of value i: the kinds that are there, and a threshold. Of the store: the model's hash, and which samples it was made of ("" unknown). */
uint32_t qx_stats_kinds(const qx_stats *s, int64_t i);
qx_status qx_stats_threshold_at(const qx_stats *s, int64_t i, const qx_range_options *o, float *out);
uint64_t qx_stats_model(const qx_stats *s);
const char *qx_stats_described(const qx_stats *s);

#endif
