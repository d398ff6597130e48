/* plan.h - what the executor knows about a model before it runs: the steps of every graph in order, which values die where, which have
 * the same content in every run (constants) or in every run with the same input shapes, and what adapters keep. Internal to runtime/. */
#ifndef QX_RUNTIME_PLAN_H
#define QX_RUNTIME_PLAN_H

#include "runtime/cpu/op.h"
#include "runtime/exec.h"

enum { QX_NO_VALUE = UINT32_MAX };

/* Memory of a value; views share it. */
typedef struct qx_block {
    int64_t refs;
    size_t bytes;
    void *data;
    bool arena, constant;    /* data lies in the executor's arena; it is a weight, no activation */
    int64_t record;          /* index in the recording of allocations, -1: not recorded */
    struct qx_block *next_free;
} qx_block;

/* The current content of a value; indexed by value id. block NULL: borrowed (a feed) or owned as a whole (items, strings). */
typedef struct qx_slot {
    qx_tensor t;
    qx_block *block;
    struct qx_dblock *dev;   /* the same content on the device (runtime/device/device.h); NULL: not there */
    bool set, borrowed, owned;
} qx_slot;

/* How a value's content depends on the run. */
typedef enum qx_class { QX_CLASS_DATA, QX_CLASS_SHAPE, QX_CLASS_CONST } qx_class;

typedef struct qx_rstep {
    qx_cpu_fn *fn;
    const qx_node *node;
    const void *fused;        /* parameters when fn is a fused kernel */
    uint32_t *in, n_in;       /* value ids; QX_NO_VALUE: omitted */
    uint32_t *out, n_out;
    const qx_value **in_value, **out_value; /* the same as pointers */
    uint32_t *cache_at;       /* [n_out] place in the shape plan's values, or QX_NO_VALUE */
    uint32_t *release, n_release; /* values whose last use is this step (unused outputs too) */
    qx_class klass;
    bool done;                /* CONST step that has run: skipped from now on */
    bool ref_attrs;           /* attributes depend on the function's caller */
    bool watched;             /* one of its outputs is */
    bool streams;             /* an input is streamed: what the adapter packed is dropped after the step */
    bool on_device, view;     /* runs on the device; view: output 0 is input 0 under other dims */
    uint32_t host_in;         /* on the device: bit i: input i is an argument that the host must know */
    /* bit i: input i is read there, and its content, which changes from run to run, decides dims of the outputs */
    uint32_t shape_in;
    bool wide, wide_in;       /* wide.c: computes in floats what is declared as halves; or reads such values as halves */
    bool native;              /* the adapter reads and writes blocked layouts itself */
    bool blocked_in, blocked_out; /* not native, and an input or output has a blocked layout: converted around the call */
    uint64_t dropped;         /* bit i: constant input i is not needed any more */
    uint64_t stored;          /* bit i: input i is an initializer that the adapter reads from the model itself; bound as dims only */
    void *state;
    void (*drop)(qx_ctx *ctx, void *state);
    const char *kernel, *note; /* of the last timed run: what did the work, why a library did not */
    double seconds, flops, bytes;
    int64_t calls;
} qx_rstep;

typedef struct qx_gplan {
    const qx_graph *graph;
    qx_rstep *steps;
    uint32_t n_steps;
    uint32_t *cache, n_cache;  /* SHAPE values of this graph that later steps or outputs read */
} qx_gplan;

typedef struct qx_vinfo {
    qx_class content;          /* of the value */
    bool shape_fixed;          /* its dims are the same in every run with the same input shapes */
    bool keep;                 /* graph output, or asked for by name: not released, made outside the arena */
    bool watched;
    bool needed;               /* a graph input that the plan reads */
    /* layout in memory (runtime/layout.c): so many channels side by side; -C: all of them, channels last; 0: plain */
    int32_t block;
    bool wide;                 /* declared as 16 bits, in memory floats rounded to that (runtime/wide.c) */
    bool streamed;             /* made of weights alone, but read anew for each use (stream_weights) */
    int32_t consumers;         /* steps that still need a constant's content */
} qx_vinfo;

/* One allocation of a run. Times count allocations and frees. */
typedef struct qx_alloc_rec { size_t bytes; int64_t born, died; size_t offset; } qx_alloc_rec;

/* What is known after a run with these input shapes. */
typedef struct qx_shape_plan {
    int64_t *key; int64_t key_len;
    uint64_t used;             /* for replacing the oldest */
    qx_alloc_rec *recs; int64_t n_recs, cap_recs;
    size_t arena_bytes;
    bool ready;                /* offsets are known: runs replay them */
    bool cached;               /* SHAPE values lie in `values` */
    qx_slot *values;           /* [gplan.n_cache] of the main graph */
    struct qx_dev_plan *dev;   /* NULL: no device, or not run yet */
} qx_shape_plan;

enum { QX_SHAPE_PLANS = 8 };

typedef struct qx_scratch_chunk { struct qx_scratch_chunk *prev; size_t cap, used; void *data; } qx_scratch_chunk;

typedef struct qx_frame { const qx_node *call; const qx_function *fn; const struct qx_frame *up; } qx_frame;

typedef struct qx_kept qx_kept;
typedef struct qx_carry qx_carry;
struct qx_exec {
    qx_ctx *ctx;
    qx_model *model;
    qx_exec_options opt;
    qx_arena *mem;              /* of the plan: dropped as a whole when watches change */
    bool planned;
    qx_slot *slots;             /* [n_values] */
    qx_vinfo *info;             /* [n_values] */
    uint32_t n_values;
    qx_gplan **gplans; uint32_t n_gplans; int64_t cap_gplans;
    qx_gplan *main;
    qx_map *functions;          /* "domain\nname\noverload" -> qx_function */
    qx_shape_plan plans[QX_SHAPE_PLANS];
    qx_shape_plan *cur;
    uint64_t run_count;
    int depth;                  /* > 0 inside a subgraph */
    bool replay, record;
    int64_t alloc_i, clock;
    void *arena; size_t arena_cap;
    qx_block *free_blocks;
    qx_scratch_chunk *scratch;
    void *spare; size_t spare_bytes; /* memory of a constant that is packed by now, for the next one */
    size_t scratch_want;        /* most that one call has taken */
    size_t live, peak;
    qx_kept *kept; int64_t n_kept, cap_kept; /* keep.c: packed weights of earlier plans */
    struct qx_packed *packed;   /* cpu/gemm.c: those of a constant, which several steps may share */
    uint64_t plan_number;       /* of the plans so far */
    qx_marks *marking; const struct mark *begin; /* marks.c: of the next run; NULL: none */
    qx_carry *carries; int64_t n_carries, cap_carries; /* carry.c */
    uint32_t *keep_ids; int n_keep;     /* values asked for by name that are not outputs */
    bool no_outputs;            /* only what is watched or exposed is computed */
    qx_value **watch; int n_watch; qx_watch_fn *watch_fn; void *watch_user; bool watch_in_place, watch_changed;
    bool profile;
    qx_node_time *times;
    struct qx_gpu *device;   /* runtime/device/device.h; NULL: everything runs on the CPU */
    void *dnnl;                 /* runtime/dnnl/: engine and stream; NULL until first needed */
};

/* plan.c */
qx_status qx_plan_build(qx_exec *x);
void qx_plan_free(qx_exec *x);
qx_status qx_plan_graph(qx_exec *x, const qx_graph *g, qx_gplan **out); /* of a subgraph or function body; made at most once */
/* Sets need[id] for every value that the step reads, also through its subgraphs. */
qx_status qx_plan_mark_inputs(qx_exec *x, const qx_rstep *s, uint8_t *need);
const qx_function *qx_plan_function(const qx_model *m, const qx_node *n);

enum { QX_STREAM_ELEMENTS = 1 << 16 }; /* smaller weights are kept even when weights are streamed */
/* layers.c: bytes of a step's weights once packed; transformed: as Winograd has those of 3x3 convolutions. */
int64_t qx_step_weights(const qx_rstep *s, bool transformed);

/* keep.c: the plan ends, and another of the same model will follow: packed weights are put by, taken by the steps of the new one,
 * and freed. */
void qx_plan_renew(qx_exec *x);
void qx_take_packed(qx_exec *x);
void qx_drop_packed(qx_exec *x);

/* classes.c: content and shape classes of every value of one graph, given those of what it captures. */
void qx_classify(qx_exec *x, qx_gplan *p, bool is_main);

/* spill.c: everything that later steps need and that feeds and constants do not bring back, behind what the file holds; and from there. */
qx_status qx_spill_save(qx_exec *x, qx_spool *s);
qx_status qx_spill_load(qx_exec *x, qx_spool *s);
/* marks.c: the steps of the main graph, from where the run is to begin, with a stop at each mark. */
qx_status qx_run_marked(qx_exec *x);

/* layout.c: which pictures are kept in the layout that convolutions like; after qx_classify. */
qx_status qx_plan_layout(qx_exec *x, qx_gplan *p);
/* What a step that knows plain tensors only needs: blocked inputs in in[] become plain scratch, plain outputs become blocked. */
qx_status qx_layout_inputs(qx_call *c, const qx_tensor **in);
qx_status qx_layout_outputs(qx_call *c);
/* A plain copy of a blocked tensor, in scratch. */
qx_status qx_layout_plain(qx_call *c, const qx_tensor *t, int block, qx_tensor *out);

/* memory.c */
/* Where a block lives: in the run (in the arena, once recorded), as long as its value, with the caller, who frees it before
 * the next run makes it again, or with the model: a constant, which is not counted among the activations. */
typedef enum qx_block_home { QX_BLOCK_RUN, QX_BLOCK_KEPT, QX_BLOCK_GIVEN, QX_BLOCK_CONST } qx_block_home;
qx_status qx_block_new(qx_exec *x, size_t bytes, qx_block_home home, qx_block **out);
void qx_block_release(qx_exec *x, qx_block *b);
/* The same for constants, most of which live only until they are packed: memory goes from one to the next. */
qx_status qx_const_block(qx_exec *x, size_t bytes, qx_block **out);
void qx_const_retire(qx_exec *x, qx_block *b);
void qx_spare_drop(qx_exec *x);
void qx_slot_clear(qx_exec *x, qx_slot *s);
/* Offsets for recorded allocations (multiples of `align`): no two that live at once overlap. False when out of memory: no offsets then. */
bool qx_records_pack(qx_ctx *ctx, qx_alloc_rec *recs, int64_t n, size_t align, size_t *total);
qx_status qx_scratch_get(qx_exec *x, size_t bytes, void **out);
typedef struct qx_scratch_mark { qx_scratch_chunk *chunk; size_t used; } qx_scratch_mark;
qx_scratch_mark qx_scratch_here(const qx_exec *x);
void qx_scratch_back(qx_exec *x, qx_scratch_mark m);
void qx_scratch_drop(qx_exec *x, bool all); /* all of it, or what is more than the least; not while an adapter runs */

/* Whether an output of graph g is wanted for its own sake. */
static inline bool qx_outputs_wanted(const qx_exec *x, const qx_graph *g) { return !x->no_outputs || g != x->model->graph; }
/* Whether a body of n makes a watched value: then n runs, whoever needs its outputs. */
bool qx_holds_watched(const qx_exec *x, const qx_node *n);

/* exec.c: one run is qx_bind_feeds, the plan of these shapes, qx_tell_interface, the steps, qx_give_output of each, qx_end_run. */
qx_status qx_ensure_plan(qx_exec *x);
void qx_end_run(qx_exec *x);              /* empties every slot that does not outlive the run */

/* bind.c: the caller's side. */
qx_status qx_bind_feeds(qx_exec *x, const qx_feed *feeds, int n);
/* The values of these names; NULL: the model's outputs, all n of them. */
qx_status qx_find_outputs(qx_exec *x, const char *const *names, int n, const qx_value **vals);
/* Values asked for that are not kept yet: they join the kept ones and the plan is made anew. */
qx_status qx_keep_values(qx_exec *x, const qx_value *const *vals, int n);
qx_status qx_give_output(qx_exec *x, const qx_value *v, qx_tensor *out); /* moved where nobody else holds it, else copied */

/* carry.c: what earlier runs left for inputs that are not given; what this one leaves; whether v is left to the next run. */
void qx_carries_bind(qx_exec *x);
qx_status qx_carries_keep(qx_exec *x);
bool qx_is_carried(const qx_exec *x, const qx_value *v);
void qx_carries_drop(qx_exec *x);

/* shape_plan.c: the plan of the feeds' shapes becomes x->cur (a known one, or the oldest replaced), its memory is made ready, its
 * kept values are put into their slots. */
qx_status qx_shape_plan_pick(qx_exec *x);
qx_status qx_shape_plan_start(qx_exec *x);
void qx_shape_plan_restore(qx_exec *x);
void qx_shape_plan_reset(qx_exec *x, qx_shape_plan *p);

/* step.c: one node. */
qx_status qx_run_step(qx_exec *x, qx_rstep *s, const qx_frame *frame);
qx_status qx_run_graph(qx_exec *x, qx_gplan *p, const qx_frame *frame);
qx_status qx_run_steps(qx_exec *x, qx_gplan *p, uint32_t from, uint32_t to, const qx_frame *frame);
/* watches of inputs and initializers of the model or of a body that is about to run */
qx_status qx_tell_interface(qx_exec *x, const qx_graph *g);
void qx_drop_state(qx_exec *x, qx_rstep *s);
/* Makes sure that a constant is in its slot; nothing for other values. */
qx_status qx_const_load(qx_exec *x, const qx_value *v);
qx_cpu_fn qx_cpu_function_call; /* a node that calls a local function of the model (call_graph.c) */

enum { QX_CALL_PIECE = 1 << 16 }; /* elements that one thread converts at a time; even, so that packed types split at bytes */

/* call_out.c: what an adapter asked for during one call and the executor finishes after it. */
typedef struct qx_pending { float *from; uint32_t out; int64_t n; } qx_pending;
enum { QX_MAX_PENDING = 16 };
typedef struct qx_call_rt {
    qx_call c;
    qx_slot **out;             /* [n_out] */
    qx_block_home *home;
    qx_pending pending[QX_MAX_PENDING]; int n_pending;
} qx_call_rt;
qx_status qx_call_finish(qx_call_rt *rt);

/* wide.c: which values of 16 bits are kept as floats; after qx_classify, before qx_plan_layout. */
qx_status qx_plan_wide(qx_exec *x, qx_gplan *p);
/* Inputs and outputs of a step that is wide, or reads a wide value, in the form that it, and the plan, has for them. */
qx_status qx_wide_inputs(qx_call *c, const qx_tensor **in);
qx_status qx_wide_outputs(qx_call_rt *rt);

#endif
