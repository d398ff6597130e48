/* group.h - linears that take one factor together: they read the same values. q, k and v read one tensor; the experts of a layer,
 * their router and a shared expert read rows of one tensor, each by its own way: reshaped, repeated for every expert, picked by
 * token. */
#ifndef QX_PASSES_GROUP_H
#define QX_PASSES_GROUP_H

#include "passes/place/plan.h"

typedef struct qx_group {
    qx_plan_item **items; int64_t n; /* in graph order */
    qx_value *x;                     /* the nearest value that all items read rows of; channels on its last axis */
    int64_t k;
    bool all_consumers;              /* nothing else reads x, nor what lies between x and the items */
} qx_group;

/* Groups of the plan that have constant matrix weights of their own (no convolutions); in the model's arena. Readers of different
 * values are one group where nothing else reads them; otherwise each value's are. */
qx_status qx_groups_find(struct qx_pipeline *pipe, qx_group **out, int64_t *n);
/* Whether the operator can be in one. */
bool qx_group_takes(const qx_plan_item *it);
/* A group of one operator, for judging it alone. */
qx_group qx_group_alone(qx_plan_item **it);
/* Asks for these kinds of statistics of x, and for channels of what the items read where that is another value. */
qx_status qx_group_want(const qx_group *g, qx_stats *stats, uint32_t kinds);
/* Every reader of v, through operators that only rearrange or cast, is a linear of the group that uses it as its weight. */
bool qx_group_owns_weights(const qx_group *g);
/* The value whose rows v holds, moved, repeated or picked but never changed, when v's last axis has k channels; NULL: v is made
 * otherwise. */
qx_value *qx_row_source(const qx_value *v, int64_t k);
/* Whether this use of x, or of a value between x and the items, serves the group alone. */
bool qx_group_has_use(const qx_group *g, const qx_use *u);
/* Shape and Size see no values: a factor means nothing to them. */
bool qx_use_reads_values(const qx_use *u);
/* Whether an operator reads x quantized, by calibration or when the model runs. */
bool qx_item_rounds_x(const qx_plan_item *it);
/* The first operator of the group that does (some may stay float); NULL: none does. */
const qx_plan_item *qx_group_quantized(const qx_group *g);
/* The last dim of a value; -1: not known. */
int64_t qx_last_dim(const qx_value *v);

#endif
