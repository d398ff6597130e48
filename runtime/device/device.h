/* device.h - the executor's side of a device plugin: which steps run there, where their values lie, and what moves between host
 * and device. Internal to runtime/.
 *
 * A value has its content on the host (slot.t.data), on the device (slot.dev), or on both. slot.t.on_device says that only the
 * device has it. Steps of the main graph that depend on data run on the device; shapes and constants are worked out on the host,
 * where the kernels need them as arguments, and are uploaded once. Steps that the plugin has no kernel for run on the host when
 * fallback is allowed. */
#ifndef QX_RUNTIME_DEVICE_H
#define QX_RUNTIME_DEVICE_H

#include "runtime/backend.h"
#include "runtime/plan.h"

/* Memory of a value on the device. Like qx_block: views share it. */
typedef struct qx_dblock {
    int64_t refs;
    size_t bytes;
    void *data;
    bool arena;               /* data lies in the device arena */
    int64_t record;
    struct qx_dblock *next_free;
} qx_dblock;

/* A step compiled for the dims of its inputs. */
typedef struct qx_dev_code {
    qx_dev_step *step;        /* NULL: not compiled */
    size_t workspace;
    bool tried;
    qx_tensor *in, *out;      /* [n_in], [n_out]: shapes that it was compiled for */
} qx_dev_code;

/* What the device holds for one set of input shapes. */
typedef struct qx_dev_plan {
    qx_dev_code *codes;       /* [main->n_steps] */
    qx_dblock **kept;         /* [n_values] device copies of feeds and shape values: live as long as the plan */
    struct qx_infer *infer;   /* dims of all values, worked out once; NULL: not yet */
    qx_alloc_rec *recs; int64_t n_recs, cap_recs;
    size_t arena_bytes;
    bool ready;               /* offsets are known */
    bool steady;              /* the last run came from the arena and needed the host only before and after its device steps */
    qx_dev_graph *graph;      /* the run as one recording; NULL: none */
    struct qx_dev_end *ends; int64_t n_ends;
} qx_dev_plan;
typedef struct qx_dev_end { uint32_t id; qx_tensor t; void *data; } qx_dev_end; /* a kept value after a replay */

typedef struct qx_gpu {
    const qx_backend *b;
    qx_dev *dev;
    char name[192];
    int64_t n_steps;          /* that run on the device */
    int64_t n_host;           /* DATA steps that stay on the host (fallback) */
    size_t live, peak, resident, budget; /* bytes; resident: constants; budget 0: no limit */
    void *arena; size_t arena_cap;
    bool replay, record, no_graphs;
    bool unrecordable;        /* the run that failed was one that was recorded */
    bool changing;            /* a step has an argument on the host whose content may change from run to run: no recordings */
    bool reshaping;           /* a feed's content decides dims: looked at before a recording is replayed */
    int64_t alloc_i, clock, host_touches; /* of this run */
    struct qx_pending_look *looks; int64_t n_looks, cap_looks; /* whose results have not been gathered */
    qx_dblock *free_blocks;
} qx_gpu;

/* device.c: opening, memory, transfers */
/* Opens what the options ask for. AUTO without a usable device: x->device stays NULL and the reason is logged. */
qx_status qx_device_open(qx_exec *x);
void qx_device_free(qx_exec *x);
/* The backend's answer as a status, with its text in the context. */
qx_status qx_device_status(const qx_exec *x, qx_dev_status st, const char *doing);
qx_status qx_dblock_new(qx_exec *x, size_t bytes, bool keep, qx_dblock **out);
void qx_dblock_release(qx_exec *x, qx_dblock *b);
/* The value's content on the host / on the device; no copy when it is there already. */
qx_status qx_device_fetch(qx_exec *x, uint32_t id);
qx_status qx_device_send(qx_exec *x, const qx_value *v);
/* t (on_device, in slot of v) as an owned host tensor. */
qx_status qx_device_copy_out(qx_exec *x, const qx_slot *s, qx_tensor *out);

/* device_plan.c: which steps, and what they look like to the plugin */
qx_status qx_device_place(qx_exec *x);
typedef struct qx_node_view { qx_dev_node node; qx_dev_attr attrs[40]; } qx_node_view;
/* False when the node has an attribute that does not go through the interface (a subgraph, a tensor), or is a fused step of
 * unknown kind. */
bool qx_device_describe(const qx_rstep *s, qx_node_view *out);
/* Dims of the step's outputs and its compiled form. in: current inputs. */
qx_status qx_device_compile(qx_exec *x, qx_rstep *s, const qx_tensor *const *in, qx_dev_code **out);
/* Input i of the step as the plugin sees it. */
void qx_device_tensor(const qx_exec *x, const qx_rstep *s, uint32_t i, const qx_tensor *t, qx_dev_tensor *out);
/* Whether all steps still give the dims that they were compiled for, by the contents of this run's feeds. */
qx_status qx_device_dims_hold(qx_exec *x, bool *hold);
void qx_dev_plan_free(qx_exec *x, qx_dev_plan *p);

/* device_run.c */
qx_status qx_device_start(qx_exec *x);      /* of a run: arena, feeds */
qx_status qx_device_step(qx_exec *x, qx_rstep *s);
qx_status qx_device_run_main(qx_exec *x);
/* A run has failed. True: because it was recorded, which is not tried any more; the run may be repeated. The error is gone to the log. */
bool qx_device_run_again(qx_exec *x);

/* device_observe.c: hands out what the looks of this run saw; st not QX_OK: the run failed, nobody gets anything. Returns st, or
 * what went wrong here. */
qx_status qx_device_gather(qx_exec *x, qx_status st);

#endif
