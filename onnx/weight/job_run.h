/* job_run.h - the state of a running job, shared by job_run.c (tiles, scales), job_emit.c (layouts) and job_search.c. Internal to onnx/. */
#ifndef QX_ONNX_JOB_RUN_H
#define QX_ONNX_JOB_RUN_H

#include <stdatomic.h>

#include "base/thread.h"
#include "onnx/weight/job.h"

typedef struct qx_tile_error { double signal, noise; } qx_tile_error; /* sums of squares */
struct qx_job_error { atomic_int state; qx_tile_error sum; }; /* state 2: valid */
struct qx_job_range { atomic_int state; float lo, hi, scale; int32_t zero; }; /* state 2: all are valid */

typedef struct qx_run {
    qx_ctx *ctx;
    const qx_job *j;           /* as given, or `own` */
    qx_job own; qx_weight input; void *content; /* a job whose input was brought into memory first */
    const qx_sink *sink;
    bool columns;              /* walks the storage of a [K,N] weight: rows are k, columns are channels */
    bool panels;               /* by columns, some channels at a time, whose codes are collected channel by channel before they are put */
    int64_t col0;              /* columns: the first channel of this panel */
    bool scatter;              /* walks channels, but the parts are stored [k, n]-wise */
    int64_t rows, cols, blocks; /* of the walk; scales a channel */
    int64_t tile, n_tiles;     /* rows a tile */
    float *lo, *hi; int64_t n_range; /* range of the tensor or of each column; 0: scales are found tile by tile */
    float scale2;              /* two-level formats */
    float tensor_scale; int32_t tensor_zero; /* search of one scale for the tensor */
    qx_tile_error *errors;     /* [n_tiles]; NULL: nobody will ask */
    qx_lock *lock;
    qx_nonfinite bad;
    int64_t panel_cols, row_bytes; /* panels: channels in each, bytes of one channel's codes */
    uint8_t *all_codes;        /* scatter to odd places: all codes, one a byte; panels: [cols][row_bytes] */
    float *all_scale; int32_t *all_zero; /* scatter: [blocks][n]; panels: [cols][blocks] */
} qx_run;

typedef struct qx_tile {
    int64_t first, rows, col0, cols; /* columns of the walk that it has: all of them but in panels */
    const void *src; int dtype; /* [rows, cols] as FLOAT, FLOAT16 or BFLOAT16 */
    void *raw; float *x;
    float *given;              /* x before a solver moved it; NULL: as it was */
    float *lo, *hi, *scale;    /* [cells] */
    int32_t *zero;
    uint8_t *codes, *out;
    int64_t adjusted;          /* scales that had to be moved to stay usable */
} qx_tile;

/* all: every tile will be run, so that it pays to bring an awkward input into memory. */
qx_status qx_run_prepare(qx_run *r, qx_ctx *ctx, const qx_job *j, bool all);
void qx_run_free(qx_run *r);
void qx_tile_free(qx_run *r, qx_tile *t);
qx_grid qx_tile_grid(const qx_run *r, const qx_tile *t);
qx_status qx_tile_load(qx_run *r, qx_tile *t);
void qx_run_note_bad(qx_run *r, const qx_nonfinite *bad);
/* Least-error scales (job_search.c): of a tile; of the whole tensor, before all tiles. */
qx_status qx_run_search_tensor(qx_run *r);
qx_status qx_tile_search(qx_run *r, qx_tile *t, const qx_grid *g);
/* Error of the codes (job_error.c): of one tile, before its codes are put; of the whole job, at its end. */
qx_status qx_tile_measure(qx_run *r, const qx_tile *t, const qx_quant *q);
void qx_run_keep_error(const qx_run *r);
/* Layouts (job_emit.c): before all tiles (of a panel), one tile, after all tiles. */
qx_status qx_run_emit_begin(qx_run *r);
int64_t qx_tile_code_room(const qx_run *r, const qx_tile *t); /* codes that a tile needs beyond its own */
qx_status qx_run_emit(qx_run *r, qx_tile *t);
qx_status qx_run_emit_floats(qx_run *r, qx_tile *t);
qx_status qx_run_emit_end(qx_run *r);

#endif
