/* npz_feeds.h - for tests: inputs from a sample file, and the first output of a model that runs on them. */
#ifndef NPZ_FEEDS_H
#define NPZ_FEEDS_H

#include <stdio.h>

#include "calib/data/samples.h"
#include "exec_run.h"

/* The caller ends them with free_feeds. */
static inline void load_feeds(qx_ctx *ctx, const char *path, feeds *fs)
{
    static char names[MAX_FEEDS][128];
    const fixture f = {.ctx = ctx};
    qx_npz *z;
    ok(&f, qx_npz_open(ctx, path, &z));
    fs->n = qx_npz_count(z);
    assert_true(fs->n <= MAX_FEEDS);
    for (int i = 0; i < fs->n; i++) {
        ok(&f, qx_npz_read(z, i, &fs->t[i]));
        snprintf(names[i], sizeof names[i], "%s", qx_npz_name(z, i));
        fs->f[i] = (qx_feed){names[i], &fs->t[i]};
    }
    qx_npz_close(z);
}

/* The caller frees *out. */
static inline void run_model(qx_ctx *ctx, qx_model *m, const feeds *fs, qx_tensor *out)
{
    const fixture f = {ctx, m};
    qx_exec *x = make_exec(&f, &(qx_exec_options){.no_fuse = true});
    const char *name = m->graph->outputs[0]->name;
    ok(&f, qx_exec_run(x, fs->f, fs->n, &name, 1, out));
    qx_exec_free(x);
}

#endif
