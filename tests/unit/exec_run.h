/* exec_run.h - for tests that run a model from text: feeds of made-up numbers, one executor, and how far two results lie apart. */
#ifndef EXEC_RUN_H
#define EXEC_RUN_H

#include <math.h>

#include "model_text.h"
#include "runtime/exec.h"

enum { MAX_FEEDS = 8, FREE_DIM = 3 /* what a symbolic dim is fed with */ };
typedef struct feeds { qx_tensor t[MAX_FEEDS]; qx_feed f[MAX_FEEDS]; int n; } feeds;

/* Numbers spread over (-1, 1), the same for the same seed. */
static inline void fill_random(qx_tensor *t, unsigned seed)
{
    float *v = t->data;
    for (int64_t i = 0; i < t->numel; i++) {
        seed = seed * 1664525u + 1013904223u;
        v[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

/* A float tensor for every input of the graph; the caller ends them with free_feeds. */
static inline void make_feeds(const fixture *f, feeds *in)
{
    in->n = (int)f->m->graph->n_inputs;
    assert_in_range(in->n, 0, MAX_FEEDS);
    for (int i = 0; i < in->n; i++) {
        const qx_value *v = f->m->graph->inputs[i];
        int64_t dims[QX_MAX_RANK];
        for (int d = 0; d < v->type.rank; d++) dims[d] = v->type.dims[d].n < 0 ? FREE_DIM : v->type.dims[d].n;
        ok(f, qx_tensor_new(f->ctx, &in->t[i], QX_DT_FLOAT, v->type.rank, dims));
        fill_random(&in->t[i], 77u + (unsigned)i);
        in->f[i] = (qx_feed){v->name, &in->t[i]};
    }
}

static inline void free_feeds(const fixture *f, feeds *in)
{
    for (int i = 0; i < in->n; i++) qx_tensor_free(f->ctx, &in->t[i]);
}

static inline qx_exec *make_exec(const fixture *f, const qx_exec_options *o)
{
    qx_exec *x = NULL;
    ok(f, qx_exec_new(f->ctx, f->m, o, &x));
    return x;
}

/* The graph's first output; the caller frees it. */
static inline void run(const fixture *f, qx_exec *x, const feeds *in, qx_tensor *out) { ok(f, qx_exec_run(x, in->f, in->n, NULL, 1, out)); }

/* Signal to noise of `b`, dB, taking `a` as right; float tensors of one size. INFINITY where they are equal. */
static inline double sqnr(const qx_tensor *a, const qx_tensor *b)
{
    double s = 0, n = 0;
    const float *x = a->data, *y = b->data;
    assert_int_equal(a->numel, b->numel);
    for (int64_t i = 0; i < a->numel; i++) {
        const double d = (double)x[i] - (double)y[i];
        s += (double)x[i] * (double)x[i];
        n += d * d;
    }
    assert_true(s > 0);
    return n > 0 ? 10 * log10(s / n) : (double)INFINITY;
}

/* The first output of a run on random feeds: n floats. */
static inline void run_on_random(const fixture *f, float *out, int64_t n)
{
    feeds in;
    qx_tensor y;
    make_feeds(f, &in);
    qx_exec *x = make_exec(f, NULL);
    run(f, x, &in, &y);
    assert_int_equal(y.numel, n);
    memcpy(out, y.data, y.bytes);
    qx_tensor_free(f->ctx, &y);
    qx_exec_free(x);
    free_feeds(f, &in);
}

#endif
