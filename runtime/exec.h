/* exec.h - runs a model. The plan (order, liveness, fusion, packed weights, arena) is made once per set of input shapes and kept.
 *
 * Float graphs and quantized ones alike: Q/DQ around MatMul/Gemm/Conv is run as real integer arithmetic where the CPU has it
 * and the result is exact; `simulate` forces float arithmetic. Results are the same bytes for any number of threads. */
#ifndef QX_RUNTIME_EXEC_H
#define QX_RUNTIME_EXEC_H

#include "base/spool.h"
#include "kernels/observe.h"
#include "onnx/file/io.h"
#include "runtime/tensor.h"

typedef struct qx_exec qx_exec;
typedef enum qx_device { QX_DEVICE_AUTO, QX_DEVICE_CPU, QX_DEVICE_CUDA } qx_device;
typedef struct qx_exec_options {
    bool simulate;        /* Q/DQ in float arithmetic */
    bool bf16;            /* products and convolutions of bfloat16 numbers with float sums; refused where the CPU has none */
    bool sparse;          /* products by weights whose zeros are 2:4 run on units for sparse products, on a device that has them */
    bool no_fuse;         /* every node by itself (debugging, reference) */
    bool trace_nan;       /* stop at the first node that makes a NaN or Inf out of finite inputs, naming it */
    bool only_watched;    /* as after qx_exec_want_outputs(x, false): operators that nothing watched hangs on may lack a kernel */
    /* weights are read, converted and packed for each use and not kept; chosen by itself where they would take too much (see
     * qx_exec_new) */
    bool stream_weights;
    int64_t max_loop;     /* trip limit of Loop; 0: 1,000,000 */
    qx_device device; int device_index;
    bool allow_fallback;  /* CUDA: nodes without a kernel run on the CPU */
    bool tell_device;     /* device auto was asked for: log why it is the CPU, also when no plugin is installed */
    size_t max_device_memory; /* bytes; weights beyond are uploaded for each use. 0: all that is there */
    const char *plugin_dir; /* folders (':' between) where qonnx-cuda.so is looked for first; NULL: the usual places */
} qx_exec_options;

/* The model is borrowed and must not be edited while the executor lives. An operator without a kernel is QX_E_UNSUPPORTED by node name.
 * Weights whose float32 form would take more than half of the context's max_memory, or without one a quarter of the machine's memory, are
 * streamed (on the CPU; said in the log): SDXL's UNet in float16 is 5 GB in the file and 10 GB in float32. */
qx_status qx_exec_new(qx_ctx *ctx, qx_model *m, const qx_exec_options *opt, qx_exec **out);
void qx_exec_free(qx_exec *x);
/* "cpu", "cuda:0 NVIDIA H200"; what `auto` chose and why is logged. */
const char *qx_exec_device_name(const qx_exec *x);
/* "auto", "cpu", "cuda" or "cuda:N" into the three device fields; anything else is QX_E_USAGE. */
qx_status qx_exec_set_device(qx_ctx *ctx, const char *text, qx_exec_options *o);

/* How far an executor gets where it lacks kernels: the outputs that it can compute, and for the others the last values before the
 * operators without one (their inputs). Names are the model's; free with qx_ends_free. A run with only_watched that asks for
 * these names works. */
typedef struct qx_ends {
    const char **names; int n;
    uint8_t *can;          /* [n_values] by value id: it can be computed */
    bool all;              /* every operator has a kernel: names are the graph's outputs in order */
} qx_ends;
qx_status qx_exec_ends(qx_ctx *ctx, const qx_model *m, qx_ends *out);
void qx_ends_free(qx_ctx *ctx, qx_ends *e);

typedef struct qx_feed { const char *name; const qx_tensor *tensor; } qx_feed;
/* Inputs by name; those with a default may be missing, and those that nothing reads. Wrong name, type, rank or dim: an error with
 * expected and given. out_names NULL: all graph outputs in order. outs[i] is allocated here; the caller frees it with
 * qx_tensor_free. */
qx_status qx_exec_run(qx_exec *x, const qx_feed *feeds, int n_feeds, const char *const *out_names, int n_outs, qx_tensor *outs);

/* Places where a run may begin again: just before the steps that make these values. qx_exec_mark: the next run puts by what is
 * alive there, in files. qx_exec_begin: the next run, with the feeds of the one that was marked, begins at the last such place
 * before any of `values` is made, or at the start (a graph input is among them; a device; streamed weights; other watches
 * since). Watches before it are not told. */
typedef struct qx_marks qx_marks;
qx_status qx_marks_new(qx_ctx *ctx, const qx_value *const *values, int n, qx_marks **out);
void qx_marks_free(qx_marks *m);
void qx_exec_mark(qx_exec *x, qx_marks *m);
void qx_exec_begin(qx_exec *x, const qx_marks *m, const qx_value *const *values, int n);

/* Lets qx_exec_run return a value of the main graph that is not an output (by its name in out_names). Before the first run. */
qx_status qx_exec_expose(qx_exec *x, qx_value *v);

/* What `output` becomes is what `input` has in the next run, unless that is given one, with which it begins anew: it stays in the executor
 * and is not given out. A cache that only a GroupQueryAttention reads is appended to in place; it gets rows to spare, so the input's
 * dims are not those of the text so far. */
qx_status qx_exec_carry(qx_exec *x, const char *output, const char *input);

/* Watches: fn is called with the content of each watched value right after its producer ran (inputs and initializers: at the
 * start of the run or of their body; values inside Loop bodies: each time). A watched value is always materialised, so fusion
 * stops there. Set before the first run; n = 0 removes. The tensor is only valid during the call. Calls come from one thread, in
 * execution order. fn may change the elements (through data, on the host) of a result that a node has just made, and says so by
 * qx_exec_changed: later readers see them. Inputs and constants are not its own. */
typedef qx_status qx_watch_fn(void *user, int watch, const qx_value *v, const qx_tensor *t);
void qx_exec_changed(qx_exec *x);
qx_status qx_exec_watch(qx_exec *x, qx_value *const *values, int n, qx_watch_fn *fn, void *user);

/* false: runs compute what is watched or exposed and nothing else (calibration); the model's outputs are not there then. Returns
 * what held before. */
bool qx_exec_want_outputs(qx_exec *x, bool wanted);

/* For observers that can look at a tensor where it lies: with `on`, a watched value that is on a device is handed over as it is
 * (on_device, data is device memory). The functions below look at it there; qx_exec_fetch brings it to the host. Switched off by
 * qx_exec_watch. */
void qx_exec_watch_in_place(qx_exec *x, bool on);
qx_status qx_exec_fetch(qx_exec *x, const qx_value *v, const qx_tensor **t);

/* Looks at t without waiting: range, and what else is asked for (channels 0: nothing of them; else t is [outer, channels,
 * inner]). fn gets the result when the run ends, at the latest, once and in the order of the looks; with NULL when the run
 * failed. Nothing of it stays after the call. Not called when this fails. */
typedef struct qx_look { bool histogram; int64_t outer, channels, inner; } qx_look;
typedef struct qx_seen {
    qx_scan scan;
    int exp; const uint32_t *bins;    /* [4096], of width 2^exp, zeros among them; NULL: not asked for */
    int64_t channels; qx_columns columns; /* to be read only */
} qx_seen;
typedef qx_status qx_look_fn(void *user, const qx_seen *seen);
qx_status qx_exec_look(qx_exec *x, const qx_tensor *t, const qx_look *what, qx_look_fn *fn, void *user);
/* *sum += X'X of t as rows of its last axis k, on the device; made when *sum is NULL: QX_E_NOMEM when there is no room for it.
 * take: gram[k, k] in f64, at and above the diagonal (NULL: thrown away), and frees it. */
qx_status qx_exec_gram_add(qx_exec *x, const qx_tensor *t, void **sum);
qx_status qx_exec_gram_take(qx_exec *x, void *sum, double *gram);

/* For models whose weights do not fit in memory: runs all samples together, a stretch of steps (weights of at most weight_budget
 * bytes) after the other, so that each weight is read once. Watches are told as in single runs, but stretch by stretch; nothing
 * is returned. get gives the feeds of a sample, which must live until the next call; it is called once a stretch for each sample. */
typedef qx_status qx_sweep_feeds(void *user, int64_t sample, const qx_feed **feeds, int *n);
/* Where such a sweep has come to between two stretches: all samples are behind `steps` steps of this plan (a hash), and what
 * later steps need lies in file `slot`. 0 steps: nowhere. */
typedef struct qx_sweep_mark { int64_t steps, slot, bytes; uint64_t hash, plan; } qx_sweep_mark;
/* Told between two stretches. Who wants to go on from there later fills in the hash of the first `bytes` bytes of the spool
 * (qx_spool_hash), puts the mark by and sets *kept: then the file stays until another mark is kept. */
typedef qx_status qx_sweep_between(void *user, qx_sweep_mark *mark, const qx_spool *activations, bool *kept);
/* Weights that are decided while the sweep runs, one after the other. A stretch ends in front of the first step that reads
 * gate.weight; `open` comes when every sample has been told gate.seen in all streams, and from then on the weight's initializer may
 * be another one. Streams are runs of all samples beside each other, the first one a stretch ahead of the next: `begin` is called
 * before each of their stretches, and may exchange initializers for others of the same type and dims. */
typedef struct qx_sweep_gate { const qx_value *seen, *weight; } qx_sweep_gate;
typedef struct qx_sweep_turns {
    const qx_sweep_gate *gates; int64_t n;
    int streams;                 /* 1 or 2 */
    qx_status (*open)(void *user, const int64_t *gates, int64_t n);
    qx_status (*begin)(void *user, int stream);
} qx_sweep_turns;
typedef struct qx_sweep_job {
    int64_t samples, weight_budget;
    const qx_sweep_turns *turns; /* NULL: none; not together with `between` */
    qx_sweep_feeds *get;
    qx_sweep_between *between;   /* NULL: nobody will go on */
    void *user;
    const char *keep;            /* what is alive between two stretches lies in KEEP.0 to KEEP.2; NULL: in files without names */
    qx_sweep_mark from;          /* a mark that was kept, of the same model and watches: QX_E_USAGE when its plan or file is another */
} qx_sweep_job;
qx_status qx_exec_sweep(qx_exec *x, const qx_sweep_job *job);
void qx_sweep_forget(const char *keep); /* removes the files that are there */
qx_status qx_exec_weight_bytes(qx_exec *x, int64_t *bytes, int64_t *largest); /* of the plan's steps, packed: together; of one */

/* Whether an executor on the CPU would read weights that count so many bytes for each use. Floats (and as_float: codes that are
 * dequantized once) count as float32, under a memory limit as Winograd has them, where a filter fits that: four times as much. */
bool qx_exec_would_stream(const qx_ctx *ctx, uint64_t counted);
int64_t qx_exec_counted_bytes(const qx_ctx *ctx, const struct qx_weight *w, bool as_float);
int64_t qx_exec_float_bytes(const struct qx_weight *w, bool transformed);

/* What a run with these feeds takes, in bytes, told from shapes without running. weights: as they lie packed, of all steps; where
 * they are streamed, twice the largest step's and the small ones. unknown: results whose size only a run can tell (each counts as
 * its step's largest input). outputs: what the run gives back. watched (may be NULL): [watches], of each watched result, 0: not
 * known. flops: of products (of a convolution in Winograd's form, as many as take its time), moved: bytes of all results. packed:
 * bytes of all weights as they are packed, which happens once, or (streamed) in each run. scratch: the most that one step takes for
 * pictures in another order than its own, or a watch for one that it sees. */
typedef struct qx_exec_need {
    int64_t weights, activations, outputs, unknown, scratch;
    double flops, moved, packed;
    bool streamed;
} qx_exec_need;
qx_status qx_exec_forecast(qx_exec *x, const qx_feed *feeds, int n, int64_t *watched, qx_exec_need *out);

/* op: what is computed; nodes that run as one step are named by the last of them, their op is what most of the work is.
 * note: why a library did not do it; NULL: nothing to say */
typedef struct qx_node_time { const char *name, *op; double seconds; double flops; double bytes; const char *kernel; int64_t calls;
                              const char *note; } qx_node_time;
/* Switches timing on; the table is by node in execution order and valid until the next run. */
void qx_exec_profile(qx_exec *x, bool on);
const qx_node_time *qx_exec_times(const qx_exec *x, int *count);
size_t qx_exec_peak_bytes(const qx_exec *x); /* activations of the last run; with a device: what lay there too, weights included */

#endif
