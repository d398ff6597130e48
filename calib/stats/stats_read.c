/* stats_read.c - reads a file of statistics (stats_file.h). Everything is checked: counts against the file's size before anything is
 * allocated, kinds against what is there. */
#include "calib/stats/stats_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/file.h"
#include "base/json.h"

enum { MAX_VALUES = 1 << 20 };

typedef struct reader {
    qx_stats *s;
    qx_file *file;
    const char *path;
    int64_t base, bytes;
    qx_mark *mark; /* of an unfinished sweep; NULL: it must be finished */
} reader;

static qx_status bad(const reader *r, const char *name, const char *what)
{
    return qx_fail(r->s->ctx, QX_E_FORMAT, "%s: value '%s': %s", r->path, name, what);
}

static int64_t whole(const qx_json *j, const char *key, int64_t max)
{
    double d = qx_json_number(qx_json_get(j, key), 0);
    return d >= 0 && d <= (double)max && d == floor(d) ? (int64_t)d : -1;
}

static qx_dd read_dd(const qx_json *j, const char *key)
{
    const qx_json *a = qx_json_get(j, key);
    return (qx_dd){qx_json_number(qx_json_at(a, 0), 0), qx_json_number(qx_json_at(a, 1), 0)};
}

static qx_status read_range(const reader *r, const qx_json *j, qx_observer *o)
{
    qx_scan *g = &o->range;
    o->samples = whole(j, "samples", INT64_MAX / 2);
    g->n = whole(j, "count", INT64_MAX / 2);
    g->zeros = whole(j, "zeros", INT64_MAX / 2);
    g->min = (float)qx_json_number(qx_json_get(j, "min"), NAN);
    g->max = (float)qx_json_number(qx_json_get(j, "max"), NAN);
    g->absmax = (float)qx_json_number(qx_json_get(j, "absmax"), NAN);
    g->sum = read_dd(j, "sum");
    g->sumsq = read_dd(j, "sum_squares");
    bool fine = o->samples >= 0 && g->n >= 0 && g->zeros >= 0 && g->zeros <= g->n && isfinite(g->min) && isfinite(g->max) &&
        isfinite(g->absmax) && g->absmax >= 0 && g->min <= g->max;
    return fine ? QX_OK : bad(r, o->name, "its range is not one");
}

static qx_status read_window(const reader *r, const qx_json *j, qx_observer *o)
{
    qx_conv_window *w = &o->window;
    int64_t *lists[5] = {w->kernel, w->stride, w->dilation, w->pad_begin, w->pad_end};
    if (qx_json_count(j) != 17) return bad(r, o->name, "a window has 17 numbers");
    for (int64_t i = 0; i < 17; i++) {
        double d = qx_json_number(qx_json_at(j, i), -1);
        if (d < -4096 || d > 1 << 20 || d != floor(d)) return bad(r, o->name, "a window number is out of range");
        if (i == 0) w->rank = (int)d;
        else if (i == 1) w->group = (int64_t)d;
        else lists[(i - 2) / 3][(i - 2) % 3] = (int64_t)d;
    }
    if (w->rank < 0 || w->rank > 3) return bad(r, o->name, "a window has 1 to 3 dims, or none for columns");
    o->has_window = true;
    return QX_OK;
}

static qx_status read_counts(const reader *r, const qx_json *j, qx_observer *o)
{
    int64_t n = r->bytes; /* no count can exceed the bytes that are there */
    o->channels.n = whole(j, "channels", n);
    o->channels.rows = qx_json_number(qx_json_get(j, "channel_rows"), 0);
    o->rows.n = whole(j, "rows", n);
    o->rows.len = whole(j, "row_length", n);
    o->rows_cap = whole(j, "row_limit", 1 << 24);
    /* files of earlier versions have none */
    o->tops = (qx_reservoir){.n = whole(j, "top_rows", QX_TOPS), .len = o->rows.len, .by_size = true};
    o->steps.n = whole(j, "timesteps", n);
    o->gram.k = whole(j, "gram_k", n);
    o->gram.groups = whole(j, "gram_groups", n);
    o->gram.rows = whole(j, "gram_rows", INT64_MAX / 2);
    o->axis = qx_json_number(qx_json_get(j, "axis"), -1) == -1 ? -1 : (int)whole(j, "axis", QX_MAX_RANK);
    const int64_t kinds = whole(j, "kinds", 63), open = r->mark ? whole(j, "open", 63) : 0,
        wanted = r->mark ? whole(j, "wanted", 63) : kinds;
    o->have = kinds < 0 ? 0 : (uint32_t)kinds; /* of none, nothing is complete */
    o->doing = open < 0 ? 0 : (uint32_t)open & o->have;
    o->want = wanted < 0 ? 0 : (uint32_t)wanted;
    int64_t rows, gram;
    bool fine = o->channels.n >= 0 && o->rows.n >= 0 && o->rows.len >= 0 && o->tops.n >= 0 && o->rows_cap >= o->rows.n &&
        o->steps.n >= 0 && o->gram.k >= 0 && o->gram.groups >= 0 &&
                o->gram.rows >= 0 && (o->gram.groups > 0 || !o->gram.k) && qx_mul_i64(o->rows.n, o->rows.len, &rows) &&
                qx_mul_i64(o->gram.k, o->gram.k, &gram) &&
                qx_mul_i64(gram, o->gram.groups, &gram) && rows <= n && gram <= n;
    if (!fine) {
        o->channels.n = o->rows.n = o->tops.n = o->steps.n = o->gram.k = 0; /* nothing was allocated */
        return bad(r, o->name, "its counts do not fit the file");
    }
    return QX_OK;
}

static qx_status read_array(const reader *r, const qx_json *offsets, const char *name, const char *key, int64_t n, size_t width, void **out)
{
    int64_t at = whole(offsets, key, r->bytes), bytes;
    if (!qx_json_get(offsets, key) || at < 0 || at % QX_STATS_ALIGN || !qx_mul_i64(n, (int64_t)width, &bytes) || bytes > r->bytes - at)
        return bad(r, name, key);
    QX_TRY(qx_alloc_array(r->s->ctx, (size_t)n, width, out));
    return qx_file_read(r->file, r->base + at, (size_t)bytes, *out);
}

/* A reservoir of v->n rows with room for cap. */
static qx_status read_rows(const reader *r, const qx_json *offsets, const char *name, const char *data, const char *hash,
                           qx_reservoir *v, int64_t cap)
{
    int64_t n = v->n;
    v->cap = cap;
    v->room = n;
    QX_TRY(read_array(r, offsets, name, data, n * v->len, sizeof(float), (void **)&v->data));
    QX_TRY(read_array(r, offsets, name, hash, n, sizeof(qx_row_ref), (void **)&v->heap));
    for (int64_t i = 0; i < n; i++)
        if (v->heap[i].slot != i) return bad(r, name, "rows are not in order");
    return QX_OK;
}

static bool read_thinning(const qx_json *j, const char *key, qx_thinning *t)
{
    const qx_json *at = qx_json_get(j, key);
    *t = (qx_thinning){.enough = whole(at, "enough", INT64_MAX / 2), .every = whole(at, "every", 1 << 30),
                       .seen = whole(at, "seen", INT64_MAX / 2)};
    return t->enough >= 0 && t->every >= 0 && t->seen >= 0;
}

/* A Gram matrix that rows are still added to. */
static qx_status read_open_gram(const reader *r, const qx_json *j, const qx_json *at, qx_observer *o)
{
    qx_gram *g = &o->gram;
    const int64_t waiting = whole(j, "gram_waiting", QX_GRAM_ROWS - 1), len = g->k * g->groups;
    if (!read_thinning(j, "gram_thinning", &o->thin_gram)) return bad(r, o->name, "gram_thinning");
    if (!read_thinning(j, "rows_thinning", &o->thin_rows)) return bad(r, o->name, "rows_thinning");
    if (!g->k) return QX_OK;
    if (waiting < 0 || g->k > 1 << 20) return bad(r, o->name, "gram_waiting");
    QX_TRY(read_array(r, at, o->name, "gram_tiles", qx_gram_tile_count(g->k, g->groups), sizeof(double), (void **)&g->tiles));
    if (!waiting) return QX_OK;
    QX_TRY(read_array(r, at, o->name, "gram_pending", waiting * len, sizeof(float), (void **)&g->pending));
    g->n_pending = waiting;
    return qx_regrow(r->s->ctx, (void **)&g->pending, (size_t)(waiting * len) * sizeof(float),
                     (size_t)(QX_GRAM_ROWS * len) * sizeof(float));
}

static qx_status read_arrays(const reader *r, const qx_json *j, qx_observer *o)
{
    const qx_json *at = qx_json_get(j, "offsets");
    qx_columns *a = &o->channels.acc;
    int64_t c = o->channels.n;
    if ((o->have & QX_STAT_HISTOGRAM) && o->range.n) { /* else: no sample reached it */
        double e = qx_json_number(qx_json_get(j, "bin_exponent"), 1e9);
        if (e < -200 || e > 200) return bad(r, o->name, "bin_exponent");
        QX_TRY(read_array(r, at, o->name, "histogram", QX_HIST_BINS, sizeof(uint64_t), (void **)&o->hist.bins));
        o->hist.exp = (int)e;
        o->hist.set = true;
    }
    if (c) {
        QX_TRY(read_array(r, at, o->name, "channel_min", c, sizeof(float), (void **)&a->min));
        QX_TRY(read_array(r, at, o->name, "channel_max", c, sizeof(float), (void **)&a->max));
        QX_TRY(read_array(r, at, o->name, "channel_sum", c, sizeof(qx_dd), (void **)&a->sum));
        QX_TRY(read_array(r, at, o->name, "channel_abs", c, sizeof(qx_dd), (void **)&a->abs));
        QX_TRY(read_array(r, at, o->name, "channel_sq", c, sizeof(qx_dd), (void **)&a->sq));
    }
    if (o->rows.n) QX_TRY(read_rows(r, at, o->name, "row_data", "row_hash", &o->rows, o->rows_cap));
    if (o->tops.n) QX_TRY(read_rows(r, at, o->name, "top_data", "top_hash", &o->tops, QX_TOPS));
    if (o->steps.n) {
        o->steps.cap = o->steps.n;
        QX_TRY(read_array(r, at, o->name, "steps", o->steps.n, sizeof(qx_step_row), (void **)&o->steps.rows));
        for (int64_t i = 0; i < o->steps.n; i++)
            if (o->steps.rows[i].batches < 1 || (i && !(o->steps.rows[i].key < o->steps.rows[i - 1].key)))
                return bad(r, o->name, "steps are not in order");
    }
    if (o->doing & QX_STAT_GRAM) return read_open_gram(r, j, at, o);
    if (o->have & QX_STAT_GRAM)
        return read_array(r, at, o->name, "gram", o->gram.groups * o->gram.k * o->gram.k, sizeof(float), (void **)&o->gram.full);
    o->gram.k = o->gram.groups = o->gram.rows = 0;
    return QX_OK;
}

/* Kinds that the file promises must come with their arrays. */
static bool complete(const qx_observer *o)
{
    bool empty = o->range.n == 0;
    return (o->have & QX_STAT_RANGE) && (empty || !(o->have & QX_STAT_CHANNELS) || o->channels.n) &&
        (empty || !(o->have & QX_STAT_ROWS) || o->rows.n) &&
           (empty || !(o->have & QX_STAT_STEPS) || o->steps.n) && (empty || !(o->have & QX_STAT_GRAM) || o->gram.k);
}

static qx_status read_value(const reader *r, const qx_json *j)
{
    const char *name = qx_json_string(qx_json_get(j, "name"), "");
    qx_observer o = {.name = name};
    const qx_json *window = qx_json_get(j, "window");
    qx_status st = read_range(r, j, &o);
    if (st == QX_OK) st = read_counts(r, j, &o);
    if (st == QX_OK && window) st = read_window(r, window, &o);
    if (st == QX_OK) st = read_arrays(r, j, &o);
    if (st == QX_OK && !complete(&o)) st = bad(r, name, "the file promises kinds of statistics that it does not have");
    const char *wrong = st == QX_OK ? qx_stats_insane(&o) : NULL;
    if (wrong) st = bad(r, name, wrong);
    qx_entry *e = NULL;
    if (st == QX_OK) st = qx_stats_entry(r->s, name, &e);
    if (st != QX_OK) {
        qx_observer_reset(r->s->ctx, &o);
        return st;
    }
    if (!r->mark) o.want = e->o.want;
    o.name = e->o.name;
    o.have &= ~o.doing;
    qx_observer_reset(r->s->ctx, &e->o);
    e->o = o;
    if (o.doing) return QX_OK; /* finished with its sweep */
    if (r->mark) QX_TRY(qx_gram_spill(r->s->ctx, &e->o.gram)); /* several do not fit in memory, or they would not be here */
    return qx_observer_finish(r->s->ctx, &e->o);
}

static uint64_t hex_of(const qx_json *j, const char *key)
{
    unsigned long long v = 0;
    return sscanf(qx_json_string(qx_json_get(j, key), ""), "%16llx", &v) == 1 ? v : 0;
}

static qx_status read_mark(const reader *r, const qx_json *doc, int64_t samples)
{
    const qx_json *l = qx_json_get(doc, "layers");
    *r->mark = (qx_mark){.samples = samples};
    if (!l) return QX_OK;
    r->mark->layers = (qx_sweep_mark){whole(l, "steps", UINT32_MAX), whole(l, "slot", 9), whole(l, "bytes", INT64_MAX / 2),
                                      hex_of(l, "hash"), hex_of(l, "plan")};
    if (r->mark->layers.steps < 1 || r->mark->layers.slot < 0 || r->mark->layers.bytes < 0)
        QX_FAIL(r->s->ctx, QX_E_FORMAT, "%s: 'layers' of a checkpoint", r->path);
    return QX_OK;
}

/* null: what has no such number. */
static qx_status read_notes(const reader *r, const qx_json *list)
{
    for (int64_t i = 0; i < qx_json_count(list); i++) {
        const qx_json *n = qx_json_at(list, i);
        const char *key = qx_json_string(qx_json_at(n, 0), "");
        if (qx_json_count(n) != 3 || strlen(key) != QX_STATS_HASH_CHARS)
            QX_FAIL(r->s->ctx, QX_E_FORMAT, "%s: 'measured' %lld is not of a key and two numbers", r->path, (long long)i);
        QX_TRY(qx_stats_note(r->s, key, qx_json_number(qx_json_at(n, 1), NAN), qx_json_number(qx_json_at(n, 2), NAN)));
    }
    return QX_OK;
}

static qx_status read_values(const reader *r, const qx_json *doc)
{
    const qx_json *values = qx_json_get(doc, "values");
    const char *model = qx_json_string(qx_json_get(doc, "model"), "");
    char mine[24];
    snprintf(mine, sizeof mine, "%016llx", (unsigned long long)r->s->model_hash);
    if (r->s->model_hash && strcmp(model, mine))
        QX_FAIL(r->s->ctx, QX_E_USAGE, "%s: statistics of another model, or with other passes that change it before calibration "
                                       "(its hash is %s, this model's is %s): calibrate again", r->path, model, mine);
    if (!r->s->model_hash && sscanf(model, "%16llx", (unsigned long long *)&r->s->model_hash) != 1)
        QX_FAIL(r->s->ctx, QX_E_FORMAT, "%s: no model hash", r->path);
    const int64_t unfinished = qx_json_get(doc, "unfinished") ? whole(doc, "unfinished", INT64_MAX / 2) : -1;
    if (!r->mark && unfinished >= 0)
        QX_FAIL(r->s->ctx, QX_E_USAGE, "%s: the checkpoint of a sweep that was interrupted after %lld samples: --resume goes on with it",
                r->path, (long long)unfinished);
    if (r->mark && unfinished < 0)
        QX_FAIL(r->s->ctx, QX_E_USAGE, "%s: finished statistics, not a checkpoint: --load-stats takes them", r->path);
    if (r->mark) QX_TRY(read_mark(r, doc, unfinished));
    if (qx_json_count(values) > MAX_VALUES) QX_FAIL(r->s->ctx, QX_E_FORMAT, "%s: %lld values", r->path, (long long)qx_json_count(values));
    r->s->described = qx_arena_strdup(r->s->arena, qx_json_string(qx_json_get(doc, "samples"), ""));
    for (int64_t i = 0; i < qx_json_count(values); i++) QX_TRY(read_value(r, qx_json_at(values, i)));
    return read_notes(r, qx_json_get(doc, "measured"));
}

static qx_status check_version(reader *r, int64_t size)
{
    enum { LINE = 32 };
    char text[LINE + 1] = {0};
    int version = 0;
    QX_TRY(qx_file_read(r->file, 0, size < LINE ? (size_t)size : LINE, text));
    if (strncmp(text, QX_STATS_MAGIC, sizeof QX_STATS_MAGIC - 1))
        QX_FAIL(r->s->ctx, QX_E_FORMAT, "%s: not a statistics file (it does not start with \"%s\")", r->path, QX_STATS_MAGIC);
    if (sscanf(text + sizeof QX_STATS_MAGIC - 1, "%d", &version) != 1 || version != QX_STATS_VERSION)
        QX_FAIL(r->s->ctx, QX_E_USAGE, "%s: version %d of the statistics file, this program reads %d: calibrate again", r->path, version,
                QX_STATS_VERSION);
    return QX_OK;
}

static qx_status check_hash(reader *r, int64_t size)
{
    char want[33] = {0}, got[33];
    if (size < QX_STATS_HASH_CHARS) QX_FAIL(r->s->ctx, QX_E_FORMAT, "%s: %lld bytes are no statistics file", r->path, (long long)size);
    QX_TRY(qx_file_read(r->file, size - QX_STATS_HASH_CHARS, QX_STATS_HASH_CHARS, want));
    QX_TRY(qx_stats_file_hash(r->s->ctx, qx_file_fd(r->file), r->path, size - QX_STATS_HASH_CHARS, got));
    if (strcmp(want, got))
        QX_FAIL(r->s->ctx, QX_E_FORMAT, "%s: the file is damaged or cut off: its bytes hash to %s, which is not what its end says",
                r->path, got);
    return QX_OK;
}

/* All up to the end of the JSON: the first "\n}\n" at the left margin, which the pretty form has only there. Read, not mapped: a
 * file that somebody cuts off meanwhile is an error then, and no signal. */
static qx_status read_table(reader *r, int64_t size, qx_buf *text)
{
    enum { PIECE = 1 << 20, END = 3 };
    const char *end = NULL;
    while (!end && (int64_t)text->len < size) {
        const size_t had = text->len, n = size - (int64_t)had < PIECE ? (size_t)(size - (int64_t)had) : PIECE,
            from = had < END ? 0 : had - END;
        void *piece;
        QX_TRY(qx_buf_extend(text, n, &piece));
        QX_TRY(qx_file_read(r->file, (int64_t)had, n, piece));
        end = memmem(text->data + from, text->len - from, "\n}\n", END);
    }
    if (!end) QX_FAIL(r->s->ctx, QX_E_FORMAT, "%s: no table of values", r->path);
    r->base = end + END - text->data;
    r->bytes = size - QX_STATS_HASH_CHARS - r->base;
    if (r->bytes < 0) QX_FAIL(r->s->ctx, QX_E_FORMAT, "%s: cut off", r->path);
    return QX_OK;
}

static qx_status read_file(reader *r)
{
    qx_buf text = QX_BUF_INIT(r->s->ctx);
    qx_json *doc = NULL;
    const int64_t size = qx_file_size(r->file);
    QX_TRY(check_version(r, size));
    QX_TRY(check_hash(r, size));
    qx_status st = read_table(r, size, &text);
    if (st == QX_OK) {
        const char *start = (char *)memchr(text.data, '\n', text.len) + 1; /* there is one: the table ends in it */
        st = qx_json_parse(r->s->ctx, start, (size_t)(text.data + r->base - 1 - start), r->path, &doc);
    }
    qx_buf_free(&text);
    if (st == QX_OK) st = read_values(r, doc);
    qx_json_free(doc);
    return st;
}

static qx_status load(reader *r)
{
    QX_TRY(qx_file_open(r->s->ctx, r->path, &r->file));
    qx_status st = read_file(r);
    qx_file_close(r->file);
    return st;
}

qx_status qx_stats_load(qx_stats *s, const char *path) { return load(&(reader){.s = s, .path = path}); }

qx_status qx_stats_load_part(qx_stats *s, const char *path, qx_mark *mark) { return load(&(reader){.s = s, .path = path, .mark = mark}); }
