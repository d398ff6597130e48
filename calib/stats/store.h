/* store.h - inside of qx_stats, for stats.c and its like (the store), sweep.h (collecting) and stats_file.c (the file). */
#ifndef QX_CALIB_STORE_H
#define QX_CALIB_STORE_H

#include "calib/stats/observer.h"

typedef struct qx_entry {
    qx_observer o;
    const qx_value *value;    /* in the model at hand; NULL: only from a file so far */
    struct qx_entry *next;    /* another window on the same value, in a sweep */
    double rows_to_come;      /* as told before the sweep; 0: not known */
} qx_entry;

typedef struct qx_measured { double a, b; } qx_measured; /* NaN: not measured */

/* Of a sweep that may be interrupted: see calib/stats/resume.c. path NULL: none; activations: where those between two layers lie. */
typedef struct qx_checkpoint { const char *path, *activations; double seconds, last, took; } qx_checkpoint;
/* How far a sweep is: so many samples, and the others up to where layers says. */
typedef struct qx_mark { int64_t samples; qx_sweep_mark layers; } qx_mark;

struct qx_stats {
    qx_ctx *ctx;
    qx_arena *arena;
    uint64_t model_hash;
    qx_map *by_name;          /* qx_entry*, in order of asking: key is the observer's name */
    qx_map *aliases;          /* name -> qx_entry* */
    qx_map *notes;            /* key -> qx_measured* */
    qx_exec *exec;            /* attached */
    qx_exec *watching;        /* whose values are being observed */
    double step;
    int64_t runs, expected;   /* of this sweep: so far, for messages; in all, 0: unknown */
    qx_entry **watched;       /* [n_watched] chains, by watch index */
    int n_watched;
    qx_checkpoint checkpoint;
    struct qx_file **files; int64_t n_files, cap_files; /* kept open as long as the store */
    const char *described;    /* of the samples: goes into the file; NULL: unknown */
};

/* Closed with the store, or at once when this fails: what is computed from statistics and waits on disk. */
qx_status qx_stats_keep_file(qx_stats *s, struct qx_file *file);
qx_status qx_stats_entry(qx_stats *s, const char *name, qx_entry **out); /* found or made */
qx_entry *qx_stats_entry_at(const qx_stats *s, int64_t i);
qx_entry *qx_stats_find(const qx_stats *s, const qx_value *v); /* by its name or an alias; NULL: not there */

/* What the store calls a value. Those of the main graph go by their name; the branches of an If may give one name to two values
 * (merged decoders do), so inside subgraphs the number counts. */
typedef struct qx_stats_name { char text[320]; } qx_stats_name;
const char *qx_stats_key(const qx_value *v, qx_stats_name *k);

/* watch.c: what a device has summed up of all watched values comes to the host; not wanted: is thrown away. */
qx_status qx_stats_take_grams(qx_stats *s, bool wanted);

/* stats_write.c, stats_read.c: the state of a sweep that is so far. */
qx_status qx_stats_save_part(qx_stats *s, const char *path, const qx_mark *mark);
qx_status qx_stats_load_part(qx_stats *s, const char *path, qx_mark *mark); /* into an empty store; its observers are `doing` then */

/* stats_sane.c: what of it no data can have made, for a message; NULL: nothing. Not looked at: Gram matrices, which may overflow. */
const char *qx_stats_insane(const qx_observer *o);

/* resume.c: takes over a checkpoint that is there (*mark: how far it is); writes one between two samples or layers, when one is
 * due; and when all is there. */
qx_status qx_checkpoint_begin(qx_stats *s, const char *samples, int64_t n, qx_mark *mark);
bool qx_checkpoint_due(const qx_stats *s);
qx_status qx_checkpoint_write(qx_stats *s, const qx_mark *mark); /* of 0: between two sweeps */
void qx_checkpoint_end(qx_stats *s);

#endif
