/* store.h - inside of qx_stats, for stats.c (store), sweep.c (collecting) and stats_file.c (the file). */
#ifndef QX_CALIB_STORE_H
#define QX_CALIB_STORE_H

#include "calib/observer.h"

typedef struct qx_entry {
    qx_observer o;
    const qx_value *value;    /* in the model at hand; NULL: only from a file so far */
    struct qx_entry *next;    /* another window on the same value, in a sweep */
} qx_entry;

struct qx_stats {
    qx_ctx *ctx;
    qx_arena *arena;
    uint64_t model_hash;
    qx_map *by_name;          /* qx_entry*, in order of asking: key is the observer's name */
    qx_map *aliases;          /* name -> qx_entry* */
    qx_exec *exec;            /* attached */
    qx_exec *watching;        /* whose values are being observed */
    double step;
    int64_t runs;             /* of this sweep: for messages */
    qx_entry **watched;       /* [n_watched] chains, by watch index */
    int n_watched;
    const char *described;    /* of the samples: goes into the file; NULL: unknown */
};

qx_status qx_stats_entry(qx_stats *s, const char *name, qx_entry **out); /* found or made */
qx_entry *qx_stats_entry_at(const qx_stats *s, int64_t i);

#endif
