/* resume.c - the checkpoint of a sweep: a statistics file of the samples seen so far, with the inner state of what is not
 * finished (runs of Gram blocks) and what earlier sweeps of several have finished, from which it goes on to the same bits.
 * Written between two samples, or between two stretches of a sweep layer by layer, whose activations lie beside it; not more
 * often than its own writing takes a twentieth of the time. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "calib/stats/store.h"

enum { SHARE = 20 };

qx_status qx_stats_resumable(qx_stats *s, const char *path, double seconds)
{
    qx_checkpoint *c = &s->checkpoint;
    *c = (qx_checkpoint){.path = path ? qx_arena_strdup(s->arena, path) : NULL,
                         .activations = path ? qx_arena_printf(s->arena, "%s.activations", path) : NULL, .seconds = seconds};
    return path && (!c->path || !c->activations) ? QX_E_NOMEM : QX_OK;
}

static bool same_window(const qx_observer *a, const qx_observer *b)
{
    return qx_window_same(a->has_window ? &a->window : NULL, b->has_window ? &b->window : NULL);
}

static bool same_request(const qx_observer *a, const qx_observer *b)
{
    return a->want == b->want && a->axis == b->axis && a->rows_cap == b->rows_cap && a->thin_rows.enough == b->thin_rows.enough &&
        a->thin_gram.enough == b->thin_gram.enough && same_window(a, b);
}

/* The observer of the checkpoint that was asked for what `o` is; NULL when there is none. */
static qx_observer *counterpart(const qx_stats *from, const qx_observer *o)
{
    for (int64_t i = 0; i < qx_stats_count(from); i++) {
        qx_observer *c = &qx_stats_entry_at(from, i)->o;
        if (strcmp(c->name, o->name) == 0) return same_request(c, o) ? c : NULL;
    }
    return NULL;
}

static void take_over(qx_stats *s, qx_observer *into, qx_observer *from)
{
    const qx_observer keep = *into;
    qx_observer_reset(s->ctx, into);
    *into = *from;
    into->name = keep.name;
    into->thin_rows.runs = keep.thin_rows.runs;
    into->thin_gram.runs = keep.thin_gram.runs;
    memset(from, 0, sizeof *from);
    from->name = "";
}

/* All of it or nothing: what the checkpoint has of every observer of this sweep. */
static bool take_all(qx_stats *s, qx_stats *from, bool really)
{
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next) {
            qx_observer *c = e->o.doing ? counterpart(from, &e->o) : NULL;
            if (e->o.doing && !c) return false;
            if (c && really) take_over(s, &e->o, c);
        }
    return true;
}

static void say_going_on(const qx_stats *s, const qx_mark *m, int64_t n)
{
    if (m->layers.steps)
        qx_log(s->ctx, QX_LOG_INFO, "%s: going on behind step %lld of the model, where all samples are", s->checkpoint.path,
               (long long)m->layers.steps);
    else qx_log(s->ctx, QX_LOG_INFO, "%s: going on behind sample %lld of %lld", s->checkpoint.path, (long long)m->samples, (long long)n);
}

qx_status qx_checkpoint_begin(qx_stats *s, const char *samples, int64_t n, qx_mark *mark)
{
    qx_checkpoint *c = &s->checkpoint;
    qx_stats *from = NULL;
    qx_mark m = {0};
    *mark = m;
    c->last = qx_clock_seconds();
    if (!c->path || access(c->path, F_OK) != 0) return QX_OK;
    QX_TRY(qx_stats_new(s->ctx, s->model_hash, &from));
    qx_status st = qx_stats_load_part(from, c->path, &m);
    if (st == QX_OK && (m.samples > n || !from->described || strcmp(from->described, samples) != 0))
        st = qx_fail(s->ctx, QX_E_USAGE, "%s: a checkpoint of %lld samples of '%s'; these are '%s': remove it, or give the same samples",
                     c->path, (long long)m.samples, from->described ? from->described : "", samples);
    if (st == QX_OK && !take_all(s, from, false))
        st = qx_fail(s->ctx, QX_E_USAGE,
                     "%s: a checkpoint of other statistics than these passes ask for: remove it, or give the same passes", c->path);
    if (st == QX_OK) {
        (void)take_all(s, from, true);
        *mark = m;
        say_going_on(s, mark, n);
    }
    qx_stats_free(from);
    return st;
}

bool qx_checkpoint_due(const qx_stats *s)
{
    const qx_checkpoint *c = &s->checkpoint;
    const double since = qx_clock_seconds() - c->last;
    return c->path && since >= c->seconds && (c->seconds <= 0 || since >= SHARE * c->took);
}

qx_status qx_checkpoint_write(qx_stats *s, const qx_mark *mark)
{
    qx_checkpoint *c = &s->checkpoint;
    const double now = qx_clock_seconds();
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next) {
            QX_TRY(qx_reservoir_sort(s->ctx, &e->o.rows));
            QX_TRY(qx_reservoir_sort(s->ctx, &e->o.tops));
        }
    QX_TRY(qx_stats_take_grams(s, true));
    QX_TRY(qx_stats_save_part(s, c->path, mark));
    c->last = qx_clock_seconds();
    c->took = c->last - now;
    return QX_OK;
}

void qx_checkpoint_end(qx_stats *s)
{
    if (!s->checkpoint.path) return;
    (void)unlink(s->checkpoint.path); /* there may be none */
    qx_sweep_forget(s->checkpoint.activations);
}
