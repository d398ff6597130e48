/* writer.c - model files out: offsets first, then every piece at its place by whatever thread comes along, then one commit.
 *
 * The size of everything follows from types, so the model file and the data file are laid out before a byte is computed: same bytes for any
 * number of threads, and a job's parts go straight to where they belong. A model that nobody edited is copied byte for byte.
 * A rename is the commit point; until then only temporaries exist. Where a model and its data replace older ones, a second model file is
 * written that differs in the name of the data file alone: base/outset.c says what for. */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/thread.h"
#include "onnx/edit.h"
#include "onnx/file/pb_build.h"

#define GIB ((int64_t)1 << 30)
enum { COPY_STEP = 64 << 20, BIG_JOB = 8 << 20 }; /* bytes a task; elements from which a job is spread over threads itself */

typedef struct dest { const qx_job *job; int part; qx_out *out; int64_t at, order; } dest;
typedef struct task {
    const dest *dests; int64_t n_dests;                /* a job and all places of its parts */
    const qx_weight *weight; qx_file *file; const void *bytes; int64_t from, n; /* or a range of a file, of memory, or a weight to decode */
    qx_out *out; int64_t at;
    int64_t order;
} task;

typedef struct writer {
    qx_ctx *ctx;
    qx_model *m;
    qx_arena *arena;
    qx_out_plan plan;
    qx_image image;
    qx_out *model, *data;
    dest *dests; int64_t n_dests, cap_dests;
    task *tasks; int64_t n_tasks, cap_tasks, n_small; /* the small ones first */
    atomic_int_least64_t done;
    int64_t total;
} writer;

/* ---- layout ---- */

static qx_status add_init_bytes(void *user, qx_graph *g)
{
    int64_t *total = user;
    for (uint32_t i = 0; i < g->n_inits; i++) {
        const qx_value *v = g->inits[i];
        *total += v->init ? qx_pb_payload_bytes(v->init) : v->sparse
            ? qx_pb_payload_bytes(v->sparse->values) + qx_pb_payload_bytes(v->sparse->indices) : 0;
    }
    return QX_OK;
}

static int64_t source_size(const qx_store *s) { return s->model_file ? qx_file_size(s->model_file) : s->mem_size; }

/* Nothing changed, nothing lies outside, and it is a file that others can read. */
static bool is_plain_copy(const qx_model *m, const qx_write_options *opt)
{
    const qx_store *s = m->store;
    return !m->dirty && m->wire && !s->external_tensors && !(opt && opt->external_data) && source_size(s) <= INT32_MAX;
}

static qx_status wants_external(qx_model *m, const qx_write_options *opt, bool *out)
{
    int64_t total = 0;
    const int64_t limit = opt && opt->inline_limit > 0 ? opt->inline_limit : GIB;
    QX_TRY(qx_model_each_graph(m, add_init_bytes, &total));
    *out = (opt && opt->external_data) || total > limit || (!m->dirty && m->store->external_tensors);
    return QX_OK;
}

static qx_status lay_out_as(writer *w, bool external, qx_image *image)
{
    qx_map *placed = NULL;
    QX_TRY(qx_map_new(w->ctx, &placed));
    w->plan = (qx_out_plan){.m = w->m, .arena = w->arena, .external = external, .location = w->plan.location, .placed = placed};
    qx_status st = qx_pb_model(&w->plan);
    qx_map_free(placed);
    w->plan.placed = NULL;
    if (st == QX_OK) st = qx_pb_measure(&w->plan, image);
    return st;
}

static qx_status lay_out(writer *w, const qx_write_options *opt)
{
    bool external;
    QX_TRY(wants_external(w->m, opt, &external));
    QX_TRY(lay_out_as(w, external, &w->image));
    if (w->image.size > INT32_MAX && !external) {
        qx_image_free(w->ctx, &w->image);
        QX_TRY(lay_out_as(w, true, &w->image));
    }
    if (w->image.size <= INT32_MAX) return QX_OK;
    QX_FAIL(w->ctx, QX_E_UNSUPPORTED, "the model without its weights would take %lld bytes, more than the %d that a model file may have",
            (long long)w->image.size, INT32_MAX);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static qx_status writer_open(writer *w, qx_model *m, const char *path)
{
    *w = (writer){.ctx = m->ctx, .m = m};
    QX_TRY(qx_arena_new(m->ctx, &w->arena));
    w->plan.location = qx_arena_printf(w->arena, "%s.data", base_name(path));
    return w->plan.location ? QX_OK : QX_E_NOMEM;
}

static void writer_close(writer *w)
{
    qx_image_free(w->ctx, &w->image);
    qx_free(w->ctx, w->tasks);
    qx_free(w->ctx, w->dests);
    if (w->arena) qx_arena_free(w->arena);
}

/* ---- tasks ---- */

static qx_status add_task(writer *w, const task *t)
{
    QX_TRY(qx_grow(w->ctx, (void **)&w->tasks, w->n_tasks, &w->cap_tasks, sizeof *t));
    w->tasks[w->n_tasks++] = *t;
    return QX_OK;
}

static qx_status add_dest(writer *w, const qx_weight *part, qx_out *out, int64_t at, int64_t order)
{
    QX_TRY(qx_grow(w->ctx, (void **)&w->dests, w->n_dests, &w->cap_dests, sizeof *w->dests));
    w->dests[w->n_dests++] = (dest){part->job, part->part, out, at, order};
    return QX_OK;
}

/* In pieces, so that threads share a long one. */
static qx_status add_copy(writer *w, const task *whole)
{
    for (int64_t i = 0; i < whole->n; i += COPY_STEP) {
        task t = *whole;
        t.from += i;
        t.at += i;
        t.n = whole->n - i < COPY_STEP ? whole->n - i : COPY_STEP;
        QX_TRY(add_task(w, &t));
    }
    return QX_OK;
}

static qx_status add_payload(writer *w, const qx_payload *p, qx_out *out, int64_t at, int64_t order)
{
    const qx_weight *c = p->weight;
    if (c->job) return add_dest(w, c, out, at, order);
    task t = {.n = p->bytes, .out = out, .at = at, .order = order};
    if (c->src.kind == QX_SRC_FILE) {
        t.file = c->src.file;
        t.from = c->src.offset;
        return add_copy(w, &t);
    }
    if (c->src.kind == QX_SRC_BYTES) {
        t.bytes = c->src.bytes;
        return add_copy(w, &t);
    }
    t.weight = c;
    return add_task(w, &t);
}

static qx_status add_piece(writer *w, const qx_piece *p, int64_t order)
{
    const qx_store *s = w->m->store;
    if (p->span >= s->n_spans) return add_payload(w, &w->plan.inline_.v[p->span - s->n_spans], w->model, p->at, order);
    return add_copy(w, &(task){.file = s->model_file, .bytes = s->mem, .from = s->spans[p->span].offset, .n = p->n, .out = w->model,
                               .at = p->at, .order = order});
}

static int by_job(const void *pa, const void *pb)
{
    const dest *a = pa, *b = pb;
    if (a->job != b->job) return (uintptr_t)a->job < (uintptr_t)b->job ? -1 : 1;
    return (a->order > b->order) - (a->order < b->order);
}

static qx_status add_jobs(writer *w)
{
    if (w->n_dests) qsort(w->dests, (size_t)w->n_dests, sizeof *w->dests, by_job);
    for (int64_t i = 0, k; i < w->n_dests; i = k) {
        for (k = i + 1; k < w->n_dests && w->dests[k].job == w->dests[i].job; k++) {}
        QX_TRY(add_task(w, &(task){.dests = w->dests + i, .n_dests = k - i, .n = (int64_t)w->dests[i].job->in->bytes,
                                   .order = w->dests[i].order}));
    }
    return QX_OK;
}

static bool is_big(const task *t) { return t->dests && t->dests[0].job->in->numel > BIG_JOB; }

static int by_size_then_order(const void *pa, const void *pb)
{
    const task *a = pa, *b = pb;
    if (is_big(a) != is_big(b)) return is_big(a) ? 1 : -1;
    if (a->order != b->order) return a->order < b->order ? -1 : 1;
    return (a->at > b->at) - (a->at < b->at);
}

static qx_status collect_tasks(writer *w)
{
    int64_t order = 0;
    for (int64_t i = 0; i < w->plan.data.n; i++) QX_TRY(add_payload(w, &w->plan.data.v[i], w->data, w->plan.data.v[i].offset, order++));
    for (int64_t i = 0; i < w->image.n_pieces; i++) QX_TRY(add_piece(w, &w->image.pieces[i], order++));
    QX_TRY(add_jobs(w));
    if (w->n_tasks) qsort(w->tasks, (size_t)w->n_tasks, sizeof *w->tasks, by_size_then_order);
    for (int64_t i = 0; i < w->n_tasks; i++) {
        w->total += w->tasks[i].n;
        w->n_small += !is_big(&w->tasks[i]);
    }
    return QX_OK;
}

/* ---- running ---- */

static qx_status put_part(void *user, const qx_weight *part, int64_t offset, const void *bytes, size_t n)
{
    const task *t = user;
    for (int64_t i = 0; i < t->n_dests; i++)
        if (t->dests[i].part == part->part) QX_TRY(qx_out_write_at(t->dests[i].out, t->dests[i].at + offset, bytes, n));
    return QX_OK;
}

static qx_status decode_to(writer *w, const task *t)
{
    void *all;
    QX_TRY(qx_alloc_raw(w->ctx, (size_t)t->n, &all));
    qx_status st = qx_weight_read(w->ctx, t->weight, all);
    if (st == QX_OK) st = qx_out_write_at(t->out, t->at, all, (size_t)t->n);
    qx_free(w->ctx, all);
    return st;
}

static qx_status run_task(void *user, int64_t i)
{
    writer *w = user;
    const task *t = &w->tasks[i];
    qx_status st;
    if (t->dests) st = qx_job_run(w->ctx, t->dests[0].job, &(qx_sink){(void *)t, put_part});
    else if (t->file) st = qx_out_copy_at(t->out, t->at, t->file, t->from, t->n);
    else if (t->bytes) st = qx_out_write_at(t->out, t->at, (const uint8_t *)t->bytes + t->from, (size_t)t->n);
    else st = decode_to(w, t);
    qx_progress(w->ctx, "write", atomic_fetch_add(&w->done, t->n) + t->n, w->total);
    return st;
}

static qx_status run_tasks(writer *w)
{
    QX_TRY(qx_parallel(w->ctx, w->n_small, run_task, w));
    for (int64_t i = w->n_small; i < w->n_tasks; i++) { /* these use all threads inside */
        QX_TRY(qx_check_cancel(w->ctx));
        QX_TRY(run_task(w, i));
    }
    return QX_OK;
}

/* ---- files ---- */

static qx_status check_absent(qx_ctx *ctx, const char *path, const qx_write_options *opt)
{
    struct stat st;
    if ((opt && opt->force) || lstat(path, &st) != 0) return QX_OK;
    if (S_ISDIR(st.st_mode)) return QX_OK; /* refused with a better message when it is opened */
    QX_FAIL(ctx, QX_E_USAGE, "'%s' exists already (replace it with --force)", path);
}

static qx_status open_out(writer *w, qx_outset *set, const char *path, const qx_write_options *opt, qx_out **out)
{
    const qx_store *s = w->m->store;
    qx_file **inputs = qx_arena_array(w->arena, (size_t)s->n_files + 1, sizeof *inputs);
    int n = 0;
    if (!inputs) return QX_E_NOMEM;
    for (int64_t i = 0; i < s->n_files; i++)
        if (s->files[i]->file) inputs[n++] = s->files[i]->file;
    if (s->model_file) inputs[n++] = s->model_file;
    QX_TRY(qx_out_open(set, path, inputs, n, out));
    return check_absent(w->ctx, path, opt);
}

/* The model file as it lies on disk must scan as a model before it gets its name. */
static qx_status check_written(writer *w)
{
    qx_file *f = NULL;
    QX_TRY(qx_file_open(w->ctx, qx_out_temp_path(w->model), &f));
    const qx_wire_src src = {f, NULL, qx_file_size(f), "the file just written"};
    const qx_status st = qx_skim(w->ctx, &src, &onnx__model_proto__descriptor, w->arena, NULL);
    qx_file_close(f);
    return st;
}

/* The payloads are the same in the same order, only moved by a longer or shorter name: they come from the model file just written. */
static qx_status copy_payloads(const writer *w, const qx_image *moved, qx_file *written, qx_out *out)
{
    assert(moved->n_pieces == w->image.n_pieces);
    for (int64_t i = 0; i < moved->n_pieces; i++)
        QX_TRY(qx_out_copy_at(out, moved->pieces[i].at, written, w->image.pieces[i].at, moved->pieces[i].n));
    return QX_OK;
}

static qx_status write_stand_in(writer *w, qx_outset *set)
{
    qx_out *out;
    qx_file *written = NULL;
    qx_image moved = {0};
    QX_TRY(qx_outset_stand_in(set, &out, &w->plan.location));
    if (!out) return QX_OK;
    qx_status st = lay_out_as(w, true, &moved);
    if (st == QX_OK) st = qx_file_open(w->ctx, qx_out_temp_path(w->model), &written);
    if (st == QX_OK) st = qx_pb_put(&w->plan, &moved, out);
    if (st == QX_OK) st = copy_payloads(w, &moved, written, out);
    qx_file_close(written);
    qx_image_free(w->ctx, &moved);
    return st;
}

static qx_status write_pieces(writer *w, qx_outset *set, const char *path, const qx_write_options *opt)
{
    if (w->plan.data.n) {
        const char *data_path = qx_arena_printf(w->arena, "%s.data", path);
        if (!data_path) return QX_E_NOMEM;
        QX_TRY(open_out(w, set, data_path, opt, &w->data));
        QX_TRY(qx_out_truncate(w->data, w->plan.data_bytes));
    }
    QX_TRY(open_out(w, set, path, opt, &w->model));
    QX_TRY(qx_out_truncate(w->model, w->image.size));
    QX_TRY(qx_pb_put(&w->plan, &w->image, w->model));
    QX_TRY(collect_tasks(w));
    QX_TRY(run_tasks(w));
    if (w->data) QX_TRY(write_stand_in(w, set));
    return check_written(w);
}

static qx_status copy_model(writer *w, qx_outset *set, const char *path, const qx_write_options *opt)
{
    const qx_store *s = w->m->store;
    QX_TRY(open_out(w, set, path, opt, &w->model));
    w->image.size = source_size(s);
    w->total = w->image.size;
    QX_TRY(add_copy(w, &(task){.file = s->model_file, .bytes = s->mem, .n = w->image.size, .out = w->model}));
    return qx_parallel(w->ctx, w->n_tasks, run_task, w);
}

static qx_status fill_result(const writer *w, const char *path, qx_write_result *res)
{
    if (!res) return QX_OK;
    *res = (qx_write_result){.model_bytes = w->image.size, .data_bytes = w->plan.data_bytes};
    if (!w->plan.data.n) return QX_OK;
    res->data_path = qx_arena_printf(w->m->arena, "%s.data", path);
    return res->data_path ? QX_OK : QX_E_NOMEM;
}

qx_status qx_model_write(qx_model *m, const char *path, const qx_write_options *opt, qx_write_result *res)
{
    writer w;
    qx_outset *set = NULL;
    qx_status st = writer_open(&w, m, path);
    if (st != QX_OK) goto done;
    QX_TRY_GOTO(st, qx_outset_new(m->ctx, &set));
    if (is_plain_copy(m, opt)) {
        QX_TRY_GOTO(st, copy_model(&w, set, path, opt));
    } else {
        QX_TRY_GOTO(st, qx_verify(m));
        QX_TRY_GOTO(st, lay_out(&w, opt));
        QX_TRY_GOTO(st, write_pieces(&w, set, path, opt));
    }
    QX_TRY_GOTO(st, qx_outset_commit(set));
    st = fill_result(&w, path, res);
done:
    if (set) qx_outset_free(set);
    writer_close(&w);
    return st;
}

qx_status qx_model_write_size(qx_model *m, const qx_write_options *opt, qx_write_result *res)
{
    writer w;
    const char *path = m->path ? m->path : "model.onnx";
    qx_status st = writer_open(&w, m, path);
    if (st == QX_OK && is_plain_copy(m, opt)) w.image.size = source_size(m->store);
    else if (st == QX_OK) st = lay_out(&w, opt);
    if (st == QX_OK) st = fill_result(&w, path, res);
    writer_close(&w);
    return st;
}

int64_t qx_write_tensor_bytes(int64_t bytes, bool external)
{
    if (!external || bytes <= QX_EXTERNAL_OVER || bytes > INT64_MAX - QX_DATA_ALIGN) return bytes;
    return (bytes + QX_DATA_ALIGN - 1) / QX_DATA_ALIGN * QX_DATA_ALIGN;
}
