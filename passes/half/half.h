/* half.h - what the passes fp16, bf16 and fp32 share: which nodes run in 16 bits (choose.c), the edits that make them (apply.c),
 * and other floats as float32 (widen.c). */
#ifndef QX_PASSES_HALF_H
#define QX_PASSES_HALF_H

#include "passes/linear/linear.h"
#include "passes/place/plan.h"

/* Why a node stays in float32; QX_FULL_NO: it does not; QX_FULL_OTHER: it has nothing to do with float32. */
typedef enum qx_full { QX_FULL_NO, QX_FULL_OTHER, QX_FULL_FORM, QX_FULL_CAST, QX_FULL_RANGE, QX_FULL_PLACE, QX_FULL_CONSTANT,
                       QX_FULL_CHAIN, QX_FULL_MERGED, QX_FULL_MEASURED, QX_FULL_EXCLUDED } qx_full;

#define QX_HALF_MASKED 1e8f   /* from here on a value stands for infinity: masks of -1e9, or of the lowest number */

typedef struct qx_half {
    qx_pass *p;
    qx_model *m;
    qx_dtype type;       /* FLOAT16 or BFLOAT16 */
    uint8_t *full;       /* [n_node_ids] a qx_full */
    bool *was_float;     /* [n_values] a float32 tensor in the input model */
    int64_t n_half;      /* nodes that change */
    uint32_t n_nodes, n_values; /* of the input model: what edits add lies behind */
} qx_half;

/* Bits of the inputs and outputs of n that can change to `type` at its graph's opset. False: the operator has no such form.
 * Outputs whose type follows no input (Cast, Shape) are none of them, and inputs of any type neither. */
bool qx_half_form(const qx_node *n, qx_dtype type, uint32_t *in, uint32_t *out);
/* Takes its float inputs in any type, and its results do not follow them (Cast, Shape). */
bool qx_half_reads_any(const qx_node *n);
/* Fills h->full. Values larger than `limit` on the first sample (where the job has samples) keep their makers and readers in
 * float32; 0: nothing is measured. */
qx_status qx_half_choose(qx_half *h, double limit);
/* Weights, Casts at the borders and types, by h->full. Graph inputs and outputs, and those of bodies, keep their types. */
qx_status qx_half_apply(qx_half *h);

/* w in another float type, behind `step` (NULL: none), converted while it is written. view: how a linear operator sees it; NULL:
 * rows of its last axis. */
qx_status qx_half_store(qx_model *m, const qx_weight *w, const qx_view *view, qx_dtype type, const qx_step *step, qx_weight **out);
/* Floats of bfloat16, float16 and float64 become float32, all but those of type `keep`. Inlines local functions, infers types. */
qx_status qx_widen(qx_pass *p, qx_model *m, qx_dtype keep);
/* A pass that has nothing to do: an error, but beside a format, which has, only said. */
qx_status qx_half_nothing(const qx_pass *p, const char *what);
/* No format is in the pipeline: the report is about this pass, and every node. */
bool qx_half_alone(const qx_pass *p);

#endif
