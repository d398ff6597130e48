/* watch.c - which values are observed while the model runs, and with what. */
#include "calib/stats/sweep.h"

/* Where the tensor lies, when all that is wanted can be had there; on the host otherwise. */
static qx_status add(qx_stats *s, qx_observer *o, const qx_value *v, const qx_tensor **t)
{
    bool taken = false;
    if ((*t)->on_device) {
        QX_TRY(qx_observer_add_on_device(s->ctx, s->watching, o, *t, s->step, s->runs, &taken));
        if (taken) return QX_OK;
        QX_TRY(qx_exec_fetch(s->watching, v, t));
    }
    return qx_observer_add(s->ctx, o, *t, s->step);
}

static qx_status observed(void *user, int watch, const qx_value *v, const qx_tensor *t)
{
    qx_stats *s = user;
    for (qx_entry *e = s->watched[watch]; e; e = e->next) {
        if (!e->o.doing) continue;
        qx_status st = add(s, &e->o, v, &t);
        if (st == QX_OK) continue;
        return qx_note(s->ctx, st, "sample %lld, node '%s' (%s)", (long long)s->runs, v->def && *v->def->name ? v->def->name : "(input)",
                       v->def ? v->def->op_type : "input");
    }
    return QX_OK;
}

/* One watch a value; entries of the same value (other windows) are chained. */
qx_status qx_watch_pending(qx_stats *s, qx_exec *exec)
{
    int64_t n = qx_stats_count(s);
    qx_value **values;
    qx_free(s->ctx, s->watched);
    s->watched = NULL;
    s->n_watched = 0;
    QX_TRY(QX_NEW_ARRAY(s->ctx, n + 1, &s->watched));
    QX_TRY(QX_NEW_ARRAY(s->ctx, n + 1, &values));
    for (int64_t i = 0; i < n; i++) {
        qx_entry *e = qx_stats_entry_at(s, i);
        if (!e->value || !(e->o.want & ~e->o.have)) continue;
        int at = 0;
        while (at < s->n_watched && values[at] != e->value) at++;
        if (at == s->n_watched) values[s->n_watched++] = (qx_value *)(uintptr_t)e->value;
        e->next = s->watched[at];
        s->watched[at] = e;
    }
    qx_status st = qx_exec_watch(exec, values, s->n_watched, observed, s);
    s->watching = exec;
    if (st == QX_OK) qx_exec_watch_in_place(exec, true);
    qx_free(s->ctx, values);
    return st;
}

bool qx_watch_wanted(const qx_stats *s)
{
    for (int64_t i = 0; i < qx_stats_count(s); i++) {
        const qx_entry *e = qx_stats_entry_at(s, i);
        if (e->value && (e->o.want & ~e->o.have)) return true;
    }
    return false;
}

/* What is incomplete is collected from the start: a range of some samples and a histogram of others would not belong together. */
void qx_watch_start(qx_stats *s, uint32_t without)
{
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next) {
            e->o.want |= e->o.have;
            qx_observer_reset(s->ctx, &e->o);
            e->o.thin_rows.runs = e->o.thin_gram.runs = s->expected;
            e->o.doing = e->o.want & ~without;
        }
}

qx_status qx_stats_take_grams(qx_stats *s, bool wanted)
{
    qx_status st = QX_OK;
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next) {
            const qx_status one = qx_gram_take(s->ctx, s->watching, &e->o.gram, wanted && st == QX_OK);
            if (st == QX_OK) st = one;
        }
    return st;
}

qx_status qx_watch_finish(qx_stats *s)
{
    QX_TRY(qx_stats_take_grams(s, true));
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next)
            if (e->o.doing) QX_TRY(qx_observer_finish(s->ctx, &e->o));
    return QX_OK;
}

/* ---- for a caller that runs the model itself ---- */

qx_status qx_stats_attach(qx_stats *s, qx_exec *exec)
{
    QX_TRY(qx_watch_pending(s, exec));
    qx_watch_start(s, 0);
    s->exec = exec;
    s->runs = 0;
    return QX_OK;
}

void qx_stats_expect(qx_stats *s, int64_t runs)
{
    s->expected = runs;
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next) e->o.thin_rows.runs = e->o.thin_gram.runs = runs;
}

void qx_stats_set_step(qx_stats *s, double timestep) { s->step = timestep; }

qx_status qx_stats_finish(qx_stats *s)
{
    if (!s->exec) return QX_OK;
    qx_status st = qx_exec_watch(s->exec, NULL, 0, NULL, NULL);
    s->exec = NULL;
    return st == QX_OK ? qx_watch_finish(s) : st;
}
