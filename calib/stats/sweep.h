/* sweep.h - what the files of the sweep share: watching values (watch.c), which Gram matrices fit (gram_budget.c), running the samples
 * (sweep.c), telling of it before (sweep_need.c). */
#ifndef QX_CALIB_SWEEP_H
#define QX_CALIB_SWEEP_H

#include "calib/stats/store.h"

/* Whether anything is asked for and not there; watches the values that it is asked of, one watch a value. */
bool qx_watch_wanted(const qx_stats *s);
qx_status qx_watch_pending(qx_stats *s, qx_exec *exec);
/* Observers of all watched values begin anew, but for these kinds; and end. */
void qx_watch_start(qx_stats *s, uint32_t without);
qx_status qx_watch_finish(qx_stats *s);

/* Bytes of the Gram matrix that is asked of a value (0: none, or its columns are not known before it is seen), and of all. */
size_t qx_gram_need(const qx_entry *e);
size_t qx_grams_need(const qx_stats *s);
/* What collecting takes beside the matrices: of the largest. */
size_t qx_grams_extra(const qx_stats *s);
/* Memory that Gram matrices may take: what is left of the cap once a sample has run, or three quarters of the machine's memory. */
size_t qx_gram_budget(const qx_stats *s, const qx_exec *exec);
/* Gram matrices that no sweep could hold are not collected; who asked for them does without. What is left for the others: */
size_t qx_grams_drop(qx_stats *s, const qx_exec *exec);
/* The next Gram matrices that fit, in bytes, and switched on: `on` is QX_STAT_GRAM, or 0 to be told alone. */
size_t qx_grams_choose(const qx_stats *s, size_t budget, uint32_t on);
/* Bytes of the Gram matrices that are switched on; *any: something is. */
size_t qx_grams_on(const qx_stats *s, bool *any);

/* Weights of one stretch when the model's do not fit the cap; 0: they fit. */
qx_status qx_sweep_stretch(const qx_stats *s, qx_exec *exec, int64_t *weights, int64_t *largest, int64_t *budget);

#endif
