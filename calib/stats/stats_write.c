/* stats_write.c - writes a file of statistics (stats_file.h): whole or not at all. */
#include "calib/stats/stats_file.h"

#include <stdio.h>

#include "base/file.h"
#include "base/json.h"

typedef struct writer {
    qx_stats *s;
    qx_jsonw w;
    qx_buf text;
    bool with_gram;
    const qx_mark *mark; /* of an unfinished sweep; NULL: all is there */
    int64_t end;
} writer;

/* The kinds that are written of an observer. */
static uint32_t written(const writer *f, const qx_observer *o)
{
    if (f->mark) return o->doing | o->have;
    return f->with_gram ? o->have : o->have & ~(uint32_t)QX_STAT_GRAM;
}

static qx_status write_layers(qx_jsonw *w, const qx_sweep_mark *m)
{
    char hash[24], plan[24];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)m->hash);
    snprintf(plan, sizeof plan, "%016llx", (unsigned long long)m->plan);
    QX_TRY(qx_jsonw_begin_object(w, "layers"));
    QX_TRY(qx_jsonw_int(w, "steps", m->steps));
    QX_TRY(qx_jsonw_int(w, "slot", m->slot));
    QX_TRY(qx_jsonw_int(w, "bytes", m->bytes));
    QX_TRY(qx_jsonw_string(w, "hash", hash));
    QX_TRY(qx_jsonw_string(w, "plan", plan));
    return qx_jsonw_end_object(w);
}

static qx_status write_dd(qx_jsonw *w, const char *key, qx_dd v)
{
    QX_TRY(qx_jsonw_begin_array(w, key));
    QX_TRY(qx_jsonw_number(w, NULL, v.hi));
    QX_TRY(qx_jsonw_number(w, NULL, v.lo));
    return qx_jsonw_end_array(w);
}

static qx_status write_range(qx_jsonw *w, const qx_observer *o)
{
    const qx_scan *r = &o->range;
    QX_TRY(qx_jsonw_int(w, "samples", o->samples));
    QX_TRY(qx_jsonw_int(w, "count", r->n));
    QX_TRY(qx_jsonw_int(w, "zeros", r->zeros));
    QX_TRY(qx_jsonw_number(w, "min", (double)r->min));
    QX_TRY(qx_jsonw_number(w, "max", (double)r->max));
    QX_TRY(qx_jsonw_number(w, "absmax", (double)r->absmax));
    QX_TRY(write_dd(w, "sum", r->sum));
    return write_dd(w, "sum_squares", r->sumsq);
}

static qx_status write_window(qx_jsonw *w, const qx_conv_window *c)
{
    const int64_t *lists[5] = {c->kernel, c->stride, c->dilation, c->pad_begin, c->pad_end};
    QX_TRY(qx_jsonw_begin_array(w, "window"));
    QX_TRY(qx_jsonw_int(w, NULL, c->rank));
    QX_TRY(qx_jsonw_int(w, NULL, c->group));
    for (int i = 0; i < 5; i++)
        for (int d = 0; d < 3; d++) QX_TRY(qx_jsonw_int(w, NULL, lists[i][d]));
    return qx_jsonw_end_array(w);
}

/* What the sweep that goes on adds to, and what later ones have to bring. */
static qx_status write_open_kinds(qx_jsonw *w, const qx_observer *o)
{
    QX_TRY(qx_jsonw_int(w, "open", o->doing));
    return qx_jsonw_int(w, "wanted", o->want);
}

static qx_status write_thinning(qx_jsonw *w, const char *key, const qx_thinning *t)
{
    QX_TRY(qx_jsonw_begin_object(w, key));
    QX_TRY(qx_jsonw_int(w, "enough", t->enough));
    QX_TRY(qx_jsonw_int(w, "every", t->every));
    QX_TRY(qx_jsonw_int(w, "seen", t->seen));
    return qx_jsonw_end_object(w);
}

/* How far the sum is that rows are still added to. */
static qx_status write_open_gram(qx_jsonw *w, const qx_observer *o)
{
    QX_TRY(qx_jsonw_int(w, "gram_waiting", o->gram.n_pending));
    QX_TRY(write_thinning(w, "gram_thinning", &o->thin_gram));
    return write_thinning(w, "rows_thinning", &o->thin_rows);
}

static qx_status write_value(writer *f, qx_observer *o)
{
    const uint32_t have = written(f, o);
    QX_TRY(qx_jsonw_begin_object(&f->w, NULL));
    QX_TRY(qx_jsonw_string(&f->w, "name", o->name));
    QX_TRY(qx_jsonw_int(&f->w, "kinds", have));
    if (f->mark) QX_TRY(write_open_kinds(&f->w, o));
    QX_TRY(write_range(&f->w, o));
    QX_TRY(qx_jsonw_int(&f->w, "axis", o->axis));
    if (o->has_window) QX_TRY(write_window(&f->w, &o->window));
    if (o->hist.bins) QX_TRY(qx_jsonw_int(&f->w, "bin_exponent", o->hist.exp));
    QX_TRY(qx_jsonw_int(&f->w, "channels", o->channels.n));
    QX_TRY(qx_jsonw_number(&f->w, "channel_rows", o->channels.rows));
    QX_TRY(qx_jsonw_int(&f->w, "rows", o->rows.n));
    QX_TRY(qx_jsonw_int(&f->w, "row_length", o->rows.len));
    QX_TRY(qx_jsonw_int(&f->w, "row_limit", o->rows_cap));
    QX_TRY(qx_jsonw_int(&f->w, "top_rows", o->tops.n));
    QX_TRY(qx_jsonw_int(&f->w, "timesteps", o->steps.n));
    if (have & QX_STAT_GRAM) {
        QX_TRY(qx_jsonw_int(&f->w, "gram_k", o->gram.k));
        QX_TRY(qx_jsonw_int(&f->w, "gram_groups", o->gram.groups));
        QX_TRY(qx_jsonw_int(&f->w, "gram_rows", o->gram.rows));
        if (f->mark && (o->doing & QX_STAT_GRAM)) QX_TRY(write_open_gram(&f->w, o));
    }
    qx_stats_part p[QX_STATS_PARTS];
    int n = qx_stats_parts(o, p, f->with_gram);
    QX_TRY(qx_jsonw_begin_object(&f->w, "offsets"));
    for (int i = 0; i < n; i++) {
        QX_TRY(qx_jsonw_int(&f->w, p[i].key, f->end));
        f->end = (f->end + p[i].n * (int64_t)p[i].width + QX_STATS_ALIGN - 1) / QX_STATS_ALIGN * QX_STATS_ALIGN;
    }
    QX_TRY(qx_jsonw_end_object(&f->w));
    return qx_jsonw_end_object(&f->w);
}

static qx_status write_note(qx_jsonw *w, const char *key, const qx_measured *n)
{
    QX_TRY(qx_jsonw_begin_array(w, NULL));
    QX_TRY(qx_jsonw_string(w, NULL, key));
    QX_TRY(qx_jsonw_number(w, NULL, n->a));
    QX_TRY(qx_jsonw_number(w, NULL, n->b));
    return qx_jsonw_end_array(w);
}

static qx_status write_notes(qx_jsonw *w, const qx_stats *s)
{
    if (!qx_stats_notes(s)) return QX_OK;
    QX_TRY(qx_jsonw_begin_array(w, "measured"));
    for (int64_t i = 0; i < qx_stats_notes(s); i++) {
        void *n;
        const char *key = qx_map_key_at(s->notes, (size_t)i, &n);
        QX_TRY(write_note(w, key, n));
    }
    return qx_jsonw_end_array(w);
}

static qx_status write_table(writer *f)
{
    char hash[24];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)f->s->model_hash);
    QX_TRY(qx_buf_printf(&f->text, "%s%d\n", QX_STATS_MAGIC, QX_STATS_VERSION));
    qx_jsonw_init(&f->w, &f->text, true);
    QX_TRY(qx_jsonw_begin_object(&f->w, NULL));
    QX_TRY(qx_jsonw_string(&f->w, "model", hash));
    QX_TRY(qx_jsonw_string(&f->w, "samples", f->s->described ? f->s->described : ""));
    if (f->mark) QX_TRY(qx_jsonw_int(&f->w, "unfinished", f->mark->samples));
    if (f->mark && f->mark->layers.steps) QX_TRY(write_layers(&f->w, &f->mark->layers));
    QX_TRY(qx_jsonw_begin_array(&f->w, "values"));
    for (int64_t i = 0; i < qx_stats_count(f->s); i++) {
        qx_observer *o = &qx_stats_entry_at(f->s, i)->o;
        if (written(f, o)) QX_TRY(write_value(f, o));
    }
    QX_TRY(qx_jsonw_end_array(&f->w));
    QX_TRY(write_notes(&f->w, f->s));
    QX_TRY(qx_jsonw_int(&f->w, "array_bytes", f->end));
    QX_TRY(qx_jsonw_end_object(&f->w));
    return f->text.data[f->text.len - 1] == '\n' ? QX_OK : qx_buf_put(&f->text, "\n", 1);
}

static qx_status write_arrays(writer *f, qx_out *out, int64_t base)
{
    int64_t at = base;
    static const char zeros[QX_STATS_ALIGN];
    for (int64_t i = 0; i < qx_stats_count(f->s); i++) {
        qx_stats_part p[QX_STATS_PARTS];
        qx_observer *o = &qx_stats_entry_at(f->s, i)->o;
        int n = written(f, o) ? qx_stats_parts(o, p, f->with_gram) : 0;
        for (int k = 0; k < n; k++) {
            int64_t bytes = p[k].n * (int64_t)p[k].width, pad = (bytes + QX_STATS_ALIGN - 1) / QX_STATS_ALIGN * QX_STATS_ALIGN - bytes;
            QX_TRY(qx_out_write_at(out, at, *p[k].at, (size_t)bytes));
            if (pad) QX_TRY(qx_out_write_at(out, at + bytes, zeros, (size_t)pad));
            at += bytes + pad;
        }
        qx_file_rest(o->gram.disk);
    }
    return QX_OK;
}

static qx_status write_file(writer *f, qx_outset *set, const char *path)
{
    qx_out *out;
    char hex[33];
    QX_TRY(write_table(f));
    QX_TRY(qx_out_open(set, path, NULL, 0, &out));
    QX_TRY(qx_out_write_at(out, 0, f->text.data, f->text.len));
    int64_t base = (int64_t)f->text.len;
    QX_TRY(write_arrays(f, out, base));
    QX_TRY(qx_stats_file_hash(f->s->ctx, qx_out_fd(out), path, base + f->end, hex));
    QX_TRY(qx_out_write_at(out, base + f->end, hex, QX_STATS_HASH_CHARS));
    return qx_outset_commit(set);
}

static qx_status save(writer *f, const char *path)
{
    qx_outset *set;
    f->text = (qx_buf)QX_BUF_INIT(f->s->ctx);
    QX_TRY(qx_outset_new(f->s->ctx, &set));
    qx_status st = write_file(f, set, path);
    qx_outset_free(set);
    qx_buf_free(&f->text);
    return st;
}

qx_status qx_stats_save(qx_stats *s, const char *path, bool with_gram)
{
    writer f = {.s = s, .with_gram = with_gram};
    return save(&f, path);
}

qx_status qx_stats_save_part(qx_stats *s, const char *path, const qx_mark *mark)
{
    writer f = {.s = s, .with_gram = true, .mark = mark};
    return save(&f, path);
}
