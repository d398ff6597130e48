/* solve_kept.c - see solve_kept.h. */
#include "passes/search/solve_kept.h"

#include <string.h>

#include "base/spool.h"
#include "calib/stats/store.h"
#include "kernels/dot.h"

/* What a solved weight was made of, read back instead of solved again. */
typedef struct kept {
    const qx_plan_weight *w;
    qx_weight codes, scale, zero; /* [n, k], [n, blocks], in a file */
    float global;                 /* of two levels */
    bool plain;                   /* codes are floats */
} kept;

static qx_status shift_rows(qx_ctx *ctx, const qx_step *s, int64_t first, int64_t rows, int64_t k, float *x, void *scratch)
{
    const qx_solve_shift *shift = s->arg;
    const float share = (float)shift->share;
    float *y = scratch;
    (void)ctx;
    (void)first;
    for (int64_t r = 0; r < rows; r++) {
        qx_gemm_nt(1, k, k, x + r * k, k, shift->matrix, k, y, k);
        for (int64_t j = 0; j < k; j++) x[r * k + j] += share * y[j];
    }
    return QX_OK;
}

static size_t shift_scratch(const qx_step *s, int64_t k)
{
    (void)s;
    return (size_t)k * sizeof(float);
}

static qx_status nothing(qx_ctx *ctx, const qx_step *s, const qx_qspec *spec, int64_t k)
{
    (void)ctx, (void)s, (void)spec, (void)k;
    return QX_OK;
}

const qx_stepdef qx_step_shift = {.name = "shift", .rows = shift_rows, .scratch_bytes = shift_scratch, .begin = nothing};

static qx_status kept_values(qx_ctx *ctx, const kept *v, const qx_qspec *spec, const qx_gridded *t)
{
    const int64_t blocks = v->scale.numel / v->w->view.n, block = spec->block > 0 ? spec->block : t->k;
    float *z = NULL;
    QX_TRY(qx_weight_read_f32(ctx, &v->codes, t->first * t->k, t->rows * t->k, t->x));
    QX_TRY(qx_weight_read_f32(ctx, &v->scale, t->first * blocks, t->rows * blocks, t->scale));
    QX_TRY(qx_alloc_array(ctx, (size_t)(t->rows * blocks), sizeof *z, (void **)&z));
    qx_status st = v->zero.numel ? qx_weight_read_f32(ctx, &v->zero, t->first * blocks, t->rows * blocks, z) : QX_OK;
    for (int64_t i = 0; i < t->rows * blocks && t->zero; i++) t->zero[i] = (int32_t)z[i];
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t j = 0; j < t->k; j++) {
            const int64_t at = r * blocks + j / block;
            t->x[r * t->k + j] = (t->x[r * t->k + j] - z[at]) * (t->scale[at] * v->global);
        }
    qx_free(ctx, z);
    return st;
}

static qx_status kept_grid(qx_ctx *ctx, const qx_step *s, const qx_qspec *spec, const qx_gridded *t)
{
    return kept_values(ctx, s->arg, spec, t);
}

/* As floats. */
static qx_status kept_rows(qx_ctx *ctx, const qx_step *s, int64_t first, int64_t rows, int64_t k, float *x, void *scratch)
{
    const kept *v = s->arg;
    qx_gridded t = {first, rows, k, x, NULL, NULL};
    (void)scratch;
    if (v->plain) return qx_weight_read_f32(ctx, &v->codes, first * k, rows * k, x);
    QX_TRY(qx_alloc_array(ctx, (size_t)(rows * (v->scale.numel / v->w->view.n)), sizeof *t.scale, (void **)&t.scale));
    const qx_status st = kept_values(ctx, v, &v->w->spec, &t);
    qx_free(ctx, t.scale);
    return st;
}

static const qx_stepdef def_kept_rows = {.name = "solved", .rows = kept_rows, .begin = nothing};
static const qx_stepdef def_kept = {.name = "solved", .grid = kept_grid, .in_float = &def_kept_rows, .begin = nothing};

typedef struct parts { const qx_job *job; uint8_t *bytes; int64_t at[QX_PART_COUNT_]; } parts;

static qx_status put_part(void *user, const qx_weight *part, int64_t offset, const void *bytes, size_t n)
{
    const parts *p = user;
    memcpy(p->bytes + p->at[part->part] + offset, bytes, n);
    return QX_OK;
}

static qx_weight in_file(const qx_weight *part, qx_file *file, int64_t at)
{
    qx_weight w = *part;
    w.job = NULL;
    w.src = (qx_source){.kind = QX_SRC_FILE, .file = file, .offset = at, .length = (int64_t)part->bytes};
    return w;
}

/* Runs the job of what v is made of, and appends its parts to the spool. */
static qx_status run_into(qx_ctx *ctx, parts *p, kept *v, qx_spool *spool)
{
    const qx_job *job = p->job;
    int64_t bytes = 0;
    for (int i = 0; i < QX_PART_COUNT_; i++) {
        p->at[i] = bytes;
        bytes += job->part[i] ? (int64_t)job->part[i]->bytes : 0;
    }
    QX_TRY(qx_alloc_raw(ctx, (size_t)bytes, (void **)&p->bytes));
    QX_TRY(qx_job_run(ctx, job, &(qx_sink){p, put_part}));
    if (job->part[QX_PART_SCALE2]) memcpy(&v->global, p->bytes + p->at[QX_PART_SCALE2], sizeof v->global);
    for (int i = 0; i < QX_PART_COUNT_; i++) p->at[i] += qx_spool_at(spool);
    return qx_spool_put(spool, p->bytes, (size_t)bytes);
}

static qx_status keep(struct qx_pipeline *pipe, const qx_plan_weight *w, kept *v, parts *p, qx_spool *spool)
{
    qx_qspec spec = w->spec;
    qx_job *job;
    *p = (parts){0};
    v->w = w;
    v->global = 1;
    v->plain = !spec.codes;
    if (v->plain) spec = (qx_qspec){.codes = w->tensor->dtype};
    QX_TRY(qx_job_new(pipe->model, w->tensor, &w->view, w->steps, &spec, QX_LAYOUT_NK, &job));
    p->job = job;
    const qx_status st = run_into(pipe->ctx, p, v, spool);
    qx_free(pipe->ctx, p->bytes);
    return st;
}

static void find_parts(kept *v, const parts *p, qx_file *file)
{
    qx_weight *const *part = p->job->part;
    v->codes = in_file(part[QX_PART_CODES], file, p->at[QX_PART_CODES]);
    if (part[QX_PART_SCALE]) v->scale = in_file(part[QX_PART_SCALE], file, p->at[QX_PART_SCALE]);
    if (part[QX_PART_ZERO]) v->zero = in_file(part[QX_PART_ZERO], file, p->at[QX_PART_ZERO]);
}

static qx_status open_spool(qx_ctx *ctx, qx_spool **out) { return qx_spool_open(ctx, "weights that are solved", NULL, false, out); }

static qx_status read_back(struct qx_pipeline *pipe, qx_plan_weight *w, const kept *v)
{
    w->steps = qx_step_new(pipe->model, v->plain ? &def_kept_rows : &def_kept, qx_steps_before_solver(w), v);
    return w->steps ? QX_OK : QX_E_NOMEM;
}

qx_status qx_solve_settle(struct qx_pipeline *pipe, qx_plan_weight *w, qx_file **file, qx_weight **seen)
{
    qx_model *m = pipe->model;
    kept *v = qx_arena_alloc(m->arena, sizeof *v);
    const qx_step *step;
    const qx_qspec plain = {.codes = w->tensor->dtype};
    parts p;
    qx_spool *spool;
    qx_job *job;
    if (!v) return QX_E_NOMEM;
    QX_TRY(open_spool(pipe->ctx, &spool));
    const qx_status st = keep(pipe, w, v, &p, spool);
    if (st != QX_OK) return qx_spool_close(spool), st;
    QX_TRY(qx_spool_to_file(spool, file));
    find_parts(v, &p, *file);
    if (!(step = qx_step_new(m, &def_kept_rows, NULL, v))) return QX_E_NOMEM;
    QX_TRY(qx_job_new(m, w->tensor, &w->view, step, &plain, QX_LAYOUT_SAME, &job));
    *seen = job->part[QX_PART_CODES];
    (*seen)->name = w->value->name;
    return read_back(pipe, w, v);
}

static bool is_solved(const qx_plan_weight *w)
{
    const qx_stepdef *last = w->steps ? w->steps->def : NULL;
    return w->job && w->spec.codes && last && last->grid && last != &def_kept;
}

typedef struct ahead { qx_plan_weight *w; kept *v; parts p; } ahead;

static qx_status solve_all(struct qx_pipeline *pipe, ahead *list, int64_t n, qx_spool *spool)
{
    for (int64_t i = 0; i < n; i++) {
        qx_progress(pipe->ctx, "weights solved", i, n);
        QX_TRY(qx_check_cancel(pipe->ctx));
        if (!(list[i].v = qx_arena_alloc(pipe->model->arena, sizeof *list[i].v))) return QX_E_NOMEM;
        QX_TRY(keep(pipe, list[i].w, list[i].v, &list[i].p, spool));
    }
    qx_progress(pipe->ctx, "weights solved", n, n);
    return QX_OK;
}

/* One file for all of them. */
static qx_status solve_listed(struct qx_pipeline *pipe, qx_stats *stats, ahead *list, int64_t n)
{
    qx_spool *spool;
    qx_file *file;
    if (open_spool(pipe->ctx, &spool) != QX_OK) return qx_ctx_clear_error(pipe->ctx), QX_OK;
    const qx_status st = solve_all(pipe, list, n, spool);
    if (st != QX_OK) return qx_spool_close(spool), st;
    QX_TRY(qx_spool_to_file(spool, &file));
    QX_TRY(qx_stats_keep_file(stats, file));
    for (int64_t i = 0; i < n; i++) {
        find_parts(list[i].v, &list[i].p, file);
        QX_TRY(read_back(pipe, list[i].w, list[i].v));
        list[i].w->job->steps = list[i].w->steps;
    }
    return QX_OK;
}

qx_status qx_solve_ahead(struct qx_pipeline *pipe, qx_stats *stats, bool (*wanted)(const qx_plan_item *))
{
    qx_plan *plan = pipe->plan;
    bool *listed = NULL;
    ahead *list = NULL;
    int64_t n = 0;
    qx_status st;
    QX_TRY_GOTO(st, QX_NEW_ARRAY(pipe->ctx, plan->n_weights + 1, &listed));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(pipe->ctx, plan->n_weights + 1, &list));
    for (int64_t i = 0; i < plan->linears.count; i++) {
        qx_plan_weight *w = plan->items[i].weight;
        if (!w || listed[w - plan->weights] || !is_solved(w) || !wanted(&plan->items[i])) continue;
        listed[w - plan->weights] = true;
        list[n++].w = w;
    }
    if (n) st = solve_listed(pipe, stats, list, n);
done:
    qx_free(pipe->ctx, listed);
    qx_free(pipe->ctx, list);
    return st;
}
