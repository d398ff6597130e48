/* stats.c - the store of statistics: what is asked for, what is there, and two stores made one. Thresholds are read off it in
 * stats_threshold.c; stats_scale.c keeps it true when smoothing scales or shifts channels. */
#include "calib/stats/store.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

qx_status qx_stats_new(qx_ctx *ctx, uint64_t model_hash, qx_stats **out)
{
    qx_stats *s;
    *out = NULL;
    QX_TRY(QX_NEW(ctx, &s));
    s->ctx = ctx;
    s->model_hash = model_hash;
    qx_status st = qx_arena_new(ctx, &s->arena);
    if (st == QX_OK) st = qx_map_new(ctx, &s->by_name);
    if (st == QX_OK) st = qx_map_new(ctx, &s->aliases);
    if (st == QX_OK) st = qx_map_new(ctx, &s->notes);
    if (st != QX_OK) qx_stats_free(s);
    else *out = s;
    return st;
}

qx_entry *qx_stats_entry_at(const qx_stats *s, int64_t i)
{
    void *e = NULL;
    qx_map_key_at(s->by_name, (size_t)i, &e);
    return e;
}

qx_status qx_stats_keep_file(qx_stats *s, qx_file *file)
{
    const qx_status st = qx_arena_grow(s->arena, (void **)&s->files, s->n_files, &s->cap_files, sizeof file);
    if (st == QX_OK) s->files[s->n_files++] = file;
    else qx_file_close(file);
    return st;
}

void qx_stats_free(qx_stats *s)
{
    if (!s) return;
    if (s->exec) qx_exec_watch(s->exec, NULL, 0, NULL, NULL);
    for (int64_t i = 0; s->by_name && i < qx_stats_count(s); i++) qx_observer_reset(s->ctx, &qx_stats_entry_at(s, i)->o);
    for (int64_t i = 0; i < s->n_files; i++) qx_file_close(s->files[i]);
    qx_map_free(s->by_name);
    qx_map_free(s->aliases);
    qx_map_free(s->notes);
    qx_free(s->ctx, s->watched);
    qx_arena_free(s->arena);
    qx_free(s->ctx, s);
}

int64_t qx_stats_count(const qx_stats *s) { return (int64_t)qx_map_count(s->by_name); }
const qx_value_stats *qx_stats_at(const qx_stats *s, int64_t i) { return &qx_stats_entry_at(s, i)->o.view; }
uint32_t qx_stats_kinds(const qx_stats *s, int64_t i) { return qx_stats_entry_at(s, i)->o.have; }
int64_t qx_stats_lacking(const qx_stats *s, const char **first)
{
    int64_t n = 0;
    for (int64_t i = 0; i < qx_stats_count(s); i++) {
        const qx_observer *o = &qx_stats_entry_at(s, i)->o;
        if (!(o->want & ~o->have)) continue;
        if (!n++ && first) *first = o->name;
    }
    return n;
}

int64_t qx_stats_notes(const qx_stats *s) { return (int64_t)qx_map_count(s->notes); }

qx_status qx_stats_note(qx_stats *s, const char *key, double a, double b)
{
    qx_measured *n = qx_arena_alloc(s->arena, sizeof *n);
    if (!n) return QX_E_NOMEM;
    *n = (qx_measured){a, b};
    return qx_map_put(s->notes, key, n);
}

bool qx_stats_noted(const qx_stats *s, const char *key, double *a, double *b)
{
    const qx_measured *n = qx_map_get(s->notes, key);
    if (n) *a = n->a, *b = n->b;
    return n != NULL;
}

uint64_t qx_stats_model(const qx_stats *s) { return s->model_hash; }
const char *qx_stats_described(const qx_stats *s) { return s->described ? s->described : ""; }

qx_status qx_stats_entry(qx_stats *s, const char *name, qx_entry **out)
{
    *out = qx_map_get(s->by_name, name);
    if (*out) return QX_OK;
    qx_entry *e = qx_arena_alloc(s->arena, sizeof *e);
    if (!e || !(e->o.name = qx_arena_strdup(s->arena, name))) return QX_E_NOMEM;
    e->o.view.name = e->o.name;
    e->o.axis = -1;
    e->o.rows_cap = QX_ROWS_DEFAULT;
    *out = e;
    return qx_map_put(s->by_name, name, e);
}

const char *qx_stats_key(const qx_value *v, qx_stats_name *k)
{
    if (!v->graph->owner) return v->name;
    snprintf(k->text, sizeof k->text, "%.240s in %.40s #%u", v->name, v->graph->name ? v->graph->name : "", v->id);
    return k->text;
}

/* ---- asking ---- */

bool qx_window_same(const qx_conv_window *a, const qx_conv_window *b)
{
    if (!a || !b) return a == b;
    if (a->rank != b->rank || a->group != b->group) return false;
    for (int d = 0; d < a->rank; d++)
        if (a->kernel[d] != b->kernel[d] || a->stride[d] != b->stride[d] || a->dilation[d] != b->dilation[d] ||
            a->pad_begin[d] != b->pad_begin[d] || a->pad_end[d] != b->pad_end[d])
            return false;
    return true;
}

static bool same_window(const qx_observer *o, const qx_conv_window *w) { return qx_window_same(o->has_window ? &o->window : NULL, w); }

qx_entry *qx_stats_find(const qx_stats *s, const qx_value *v)
{
    qx_stats_name k;
    const char *name = qx_stats_key(v, &k);
    qx_entry *e = qx_map_get(s->by_name, name), *alias = e && e->o.range.n ? NULL : qx_map_get(s->aliases, name);
    return alias ? alias : e;
}

/* Columns have their own channels too, so nothing of them lies with the value's other statistics. */
static bool is_columns(const qx_conv_window *w) { return w && !w->rank; }

/* Name of the second, third... way in which rows are cut from a value: convolutions with other windows on the same input. */
static const char *window_name(qx_arena *a, const char *name, const qx_conv_window *w)
{
    if (is_columns(w)) return qx_arena_printf(a, "%s [columns]", name);
    char text[256] = "rows";
    size_t n = 4;
    for (int d = 0; w && d < w->rank && d < 3; d++)
        n += (size_t)snprintf(text + n, sizeof text - n, " %lld/%lld/%lld/%lld/%lld", (long long)w->kernel[d], (long long)w->stride[d],
                              (long long)w->dilation[d], (long long)w->pad_begin[d], (long long)w->pad_end[d]);
    if (w && w->group > 1) snprintf(text + n, sizeof text - n, " g%lld", (long long)w->group);
    return qx_arena_printf(a, "%s [%s]", name, text);
}

static const uint32_t row_kinds = QX_STAT_ROWS | QX_STAT_GRAM;

static qx_entry *find_rows(const qx_stats *s, const qx_value *v, const qx_conv_window *w)
{
    qx_entry *e = qx_stats_find(s, v);
    if (!e || (!is_columns(w) && (!((e->o.want | e->o.have) & row_kinds) || same_window(&e->o, w)))) return e;
    qx_arena *scratch;
    if (qx_arena_new(s->ctx, &scratch) != QX_OK) return NULL;
    const char *other = window_name(scratch, e->o.name, w);
    e = other ? qx_map_get(s->by_name, other) : NULL;
    qx_arena_free(scratch);
    return e;
}

static qx_status entry_for(qx_stats *s, const qx_stat_request *r, qx_entry **out)
{
    qx_stats_name k;
    QX_TRY(qx_stats_entry(s, qx_stats_key(r->value, &k), out));
    qx_observer *o = &(*out)->o;
    const bool columns = is_columns(r->window);
    if (columns) o->want |= QX_STAT_RANGE, (*out)->value = r->value;
    if (!columns && !(r->kinds & row_kinds)) return QX_OK;
    if (columns || ((o->want | o->have) & row_kinds)) {
        if (!columns && same_window(o, r->window)) return QX_OK;
        const char *other = window_name(s->arena, o->name, r->window);
        if (!other) return QX_E_NOMEM;
        QX_TRY(qx_stats_entry(s, other, out));
        o = &(*out)->o;
    }
    o->has_window = r->window != NULL;
    if (r->window) o->window = *r->window;
    return QX_OK;
}

/* An axis counted from the front is the same as from the back when the rank is known. */
static int last_based(const qx_value *v, int axis)
{
    return axis >= 0 && v->type.kind == QX_KIND_TENSOR && v->type.has_shape && axis < v->type.rank && axis == v->type.rank - 1 ? -1 : axis;
}

/* Of two numbers of rows that are enough; 0 stands for all. */
static int64_t more_rows(int64_t a, int64_t b) { return !a || !b ? 0 : a > b ? a : b; }

qx_status qx_stats_want(qx_stats *s, const qx_stat_request *r)
{
    qx_entry *e;
    QX_TRY(entry_for(s, r, &e));
    qx_observer *o = &e->o;
    int axis = last_based(r->value, r->axis);
    if ((r->kinds & QX_STAT_CHANNELS) && ((o->want | o->have) & QX_STAT_CHANNELS) && o->axis != axis)
        QX_FAIL(s->ctx, QX_E_USAGE, "statistics of '%s': channels along axis %d asked for, axis %d before", o->name, axis, o->axis);
    if (r->kinds & QX_STAT_CHANNELS) o->axis = axis;
    int64_t rows = r->rows > 0 ? r->rows : QX_ROWS_DEFAULT;
    if ((r->kinds & QX_STAT_ROWS) && rows > o->rows_cap) {
        o->rows_cap = rows;
        o->have &= ~(uint32_t)QX_STAT_ROWS;
    }
    if (r->kinds & QX_STAT_ROWS) o->thin_rows.enough = o->want & QX_STAT_ROWS ? more_rows(o->thin_rows.enough, r->enough) : r->enough;
    if (r->kinds & QX_STAT_GRAM) o->thin_gram.enough = o->want & QX_STAT_GRAM ? more_rows(o->thin_gram.enough, r->enough) : r->enough;
    o->want |= r->kinds | QX_STAT_RANGE;
    e->value = r->value;
    return QX_OK;
}

/* ---- looking ---- */

const qx_value_stats *qx_stats_get(const qx_stats *s, const qx_value *v)
{
    const qx_entry *e = qx_stats_find(s, v);
    return e && e->o.have ? &e->o.view : NULL;
}

bool qx_stats_wanted(const qx_stats *s, const qx_value *v, const qx_conv_window *window, uint32_t kinds)
{
    const qx_entry *e = find_rows(s, v, window);
    return e && (e->o.want & kinds);
}

double qx_stats_rows_to_come(const qx_stats *s, const qx_value *v, const qx_conv_window *window)
{
    const qx_entry *e = find_rows(s, v, window);
    return e && e->rows_to_come > 0 ? e->rows_to_come : INFINITY;
}

const qx_value_stats *qx_stats_get_rows(const qx_stats *s, const qx_value *v, const qx_conv_window *window)
{
    const qx_entry *e = find_rows(s, v, window);
    return e && ((e->o.have & row_kinds) || is_columns(window)) && same_window(&e->o, window) ? &e->o.view : NULL;
}

qx_status qx_stats_alias(qx_stats *s, const qx_value *from, const qx_value *to)
{
    qx_entry *e = qx_stats_find(s, from);
    if (!e) QX_FAIL(s->ctx, QX_E_FAIL, "no statistics of '%s' for '%s' to share", from->name, to->name);
    qx_stats_name k;
    return qx_map_put(s->aliases, qx_stats_key(to, &k), e);
}

/* ---- joining ---- */

qx_status qx_stats_merge(qx_stats *into, const qx_stats *from)
{
    if (into->model_hash && from->model_hash && into->model_hash != from->model_hash)
        QX_FAIL(into->ctx, QX_E_USAGE, "statistics of model %016llx cannot be merged with those of model %016llx",
                (unsigned long long)from->model_hash, (unsigned long long)into->model_hash);
    if (!into->model_hash) into->model_hash = from->model_hash;
    if (from->described)
        into->described = into->described ? qx_arena_printf(into->arena, "%s + %s", into->described, from->described)
            : qx_arena_strdup(into->arena, from->described);
    while (qx_map_count(into->notes)) qx_map_remove(into->notes, qx_map_key_at(into->notes, 0, NULL));
    for (int64_t i = 0; i < qx_stats_count(from); i++) {
        const qx_observer *b = &qx_stats_entry_at(from, i)->o;
        qx_entry *e;
        QX_TRY(qx_stats_entry(into, b->name, &e));
        qx_observer *o = &e->o;
        if (!b->have) continue;
        if (!o->have) o->axis = b->axis, o->has_window = b->has_window, o->window = b->window, o->rows_cap = b->rows_cap;
        else if (o->have != b->have || o->axis != b->axis || ((o->have & row_kinds) && !same_window(o, b->has_window ? &b->window : NULL)))
            QX_FAIL(into->ctx, QX_E_USAGE, "statistics of '%s' are of different kinds (0x%x and 0x%x): collect both with the same passes",
                    o->name, o->have, b->have);
        QX_TRY(qx_observer_join(into->ctx, o, b));
    }
    return QX_OK;
}
