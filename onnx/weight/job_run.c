/* job_run.c - the recipe engine: runs a job tile by tile and hands each finished range of each part to a sink.
 *
 * A tile is some rows of a matrix that is walked top to bottom: the channels W[n, k], or, when everything about the job allows
 * it, the storage of a [K,N] weight as it is (columns), which needs no transposing; when the codes shall lie channel by channel
 * all the same, they are turned, a quarter or an eighth of the input, in panels of channels that are put when their last row is
 * done. Ranges that span the walk (a scale per tensor; a scale per column of a [K,N] weight) are found in a first sweep. Tiles do
 * not depend on the number of threads, and only maxima cross them, so the bytes do not either. */
#include <fcntl.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/search.h"
#include "onnx/weight/job.h"
#include "onnx/weight/job_run.h"

enum { TILE = 1 << 19, TILE_GATHER = 1 << 20, PANEL_ROWS = 128 }; /* elements; rows that fill a cache line of 4-bit codes */
enum { PANEL_BYTES = 16 << 20, STRIP_COLS = 128 };

/* ---- the walk ---- */

/* The step that decides the grid, which then is not run as a step. */
static const qx_step *grid_step(const qx_job *j) { return j->steps && j->steps->def->grid ? j->steps : NULL; }
static const qx_step *plain_steps(const qx_job *j) { return grid_step(j) ? j->steps->prev : j->steps; }

/* A search wants whole blocks in a tile. */
static bool can_walk_storage(const qx_job *j)
{
    const bool whole = j->spec.rule != QX_SCALE_SEARCH || j->spec.block != 0;
    if (grid_step(j) || j->in->job || j->view.inner != 1 || j->view.outer <= 1 || qx_view_span(&j->view) != j->view.n || !whole ||
        !qx_steps_have_cells(j->steps))
        return false;
    if (j->layout == QX_LAYOUT_SAME) return true;
    if (qx_job_is_float(j) || qx_job_code_bits(j) > 8 || qx_dtype_bits(j->in->dtype) < 8) return false;
    return (j->layout == QX_LAYOUT_NBITS || qx_view_k(&j->view) * qx_job_code_bits(j) % 8 == 0);
}

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
static int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }

/* Tiles of panels: few rows of many channels, read in long runs; together no more than PANEL_BYTES of codes wait for the last row. */
static void set_panels(qx_run *r, int64_t mult)
{
    const qx_job *j = r->j;
    const int64_t rows = TILE / r->cols > PANEL_ROWS ? TILE / r->cols : PANEL_ROWS, bits = qx_job_code_bits(j);
    r->row_bytes = (j->layout == QX_LAYOUT_NBITS ? r->blocks * j->spec.block : r->rows) * bits / 8;
    r->tile = round_up(at_most(rows, r->rows), mult);
    r->panel_cols = at_most(TILE / r->tile, PANEL_BYTES / r->row_bytes) & ~(int64_t)63;
    r->panel_cols = at_most(r->panel_cols < 64 ? 64 : r->panel_cols, r->cols);
}

static void set_walk(qx_run *r)
{
    const qx_job *j = r->j;
    const int64_t k = qx_view_k(&j->view);
    r->columns = can_walk_storage(j);
    r->panels = r->columns && j->layout != QX_LAYOUT_SAME;
    r->scatter = !r->columns && j->layout == QX_LAYOUT_SAME && j->view.outer > 1;
    r->rows = r->columns ? k : j->view.n;
    r->cols = r->columns ? j->view.n : k;
    r->blocks = qx_job_blocks(j);
    const int64_t step = r->columns && j->spec.block > 0 ? round_up(j->spec.block, 8) : 8; /* whole blocks, whole bytes */
    const int64_t mult = r->columns && j->spec.block > 0 && j->spec.block % 8 ? j->spec.block * 8 : step;
    const int64_t want = (j->view.outer > 1 && !r->columns ? TILE_GATHER : TILE) / r->cols;
    r->tile = round_up(want > 0 ? want : 1, mult);
    r->panel_cols = r->cols;
    if (r->panels) set_panels(r, mult);
    r->n_tiles = (r->rows + r->tile - 1) / r->tile;
}

/* Where rows are asked for, whatever the storage order: no tiles. */
static void walk_rows(qx_run *r)
{
    r->columns = r->panels = false;
    r->rows = r->j->view.n;
    r->cols = qx_view_k(&r->j->view);
}

/* Runs f over all tiles, panel by panel; begin and end (may be NULL) around each panel. */
static qx_status each_tile(qx_run *r, qx_status (*begin)(qx_run *), qx_status (*f)(void *, int64_t), qx_status (*end)(qx_run *))
{
    const int64_t all = r->cols;
    qx_status st = QX_OK;
    for (r->col0 = 0; r->col0 < all && st == QX_OK; r->col0 += r->panel_cols) {
        r->cols = at_most(r->panel_cols, all - r->col0);
        if (begin) st = begin(r);
        if (st == QX_OK) st = qx_parallel(r->ctx, r->n_tiles, f, r);
        if (st == QX_OK && end) st = end(r);
    }
    r->col0 = 0;
    r->cols = all;
    return st;
}

static qx_tile tile_number(const qx_run *r, int64_t i)
{
    return (qx_tile){.first = i * r->tile, .rows = at_most(r->rows - i * r->tile, r->tile), .col0 = r->col0, .cols = r->cols};
}

qx_grid qx_tile_grid(const qx_run *r, const qx_tile *t)
{
    const int64_t b = r->j->spec.block;
    if (b == -1) return (qx_grid){t->rows, t->cols, t->rows, t->cols};
    if (r->columns) return (qx_grid){t->rows, t->cols, b > 0 ? b : t->rows, 1};
    return (qx_grid){t->rows, t->cols, 1, b > 0 ? b : t->cols};
}

/* ---- loading ---- */

static bool is_direct(const qx_run *r)
{
    const qx_weight *w = r->j->in;
    const bool order = r->columns || r->j->view.outer == 1;
    return order && !r->panels && !r->j->steps && !w->job && r->j->spec.rule != QX_SCALE_SEARCH && qx_dtype_is_real(w->dtype);
}

static qx_status load_direct(qx_run *r, qx_tile *t)
{
    const qx_weight *w = r->j->in;
    const size_t size = (size_t)qx_dtype_bits(w->dtype) / 8, at = (size_t)(t->first * t->cols) * size,
        n = (size_t)(t->rows * t->cols) * size;
    t->dtype = w->dtype;
    if (w->src.kind == QX_SRC_BYTES) return t->src = (const uint8_t *)w->src.bytes + at, QX_OK;
    QX_TRY(qx_alloc_raw(r->ctx, n, &t->raw));
    t->src = t->raw;
    return qx_source_read(r->ctx, w, at, n, t->raw);
}

static qx_status load_columns(qx_run *r, qx_tile *t)
{
    const int64_t n = r->j->view.n;
    const qx_cells c = {t->col0, t->cols, t->first, t->rows, 1, t->cols};
    const bool whole = t->cols == n;
    QX_TRY(qx_alloc_raw(r->ctx, qx_source_raw_bytes(r->j->in, (whole ? t->rows : 1) * t->cols), &t->raw));
    if (whole) QX_TRY(qx_source_f32(r->ctx, r->j->in, t->first * n, t->rows * n, t->raw, t->x));
    for (int64_t i = 0; !whole && i < t->rows; i++)
        QX_TRY(qx_source_f32(r->ctx, r->j->in, (t->first + i) * n + t->col0, t->cols, t->raw, t->x + i * t->cols));
    return qx_steps_run_cells(r->ctx, r->j->steps, &c, t->x);
}

qx_status qx_tile_load(qx_run *r, qx_tile *t)
{
    if (is_direct(r)) return load_direct(r, t);
    QX_TRY(qx_alloc_raw(r->ctx, (size_t)(t->rows * t->cols) * sizeof(float), (void **)&t->x));
    t->src = t->x;
    t->dtype = QX_DT_FLOAT;
    if (r->columns) return load_columns(r, t);
    return qx_rows_read(r->ctx, r->j->in, &r->j->view, plain_steps(r->j), t->first, t->rows, t->x);
}

void qx_tile_free(qx_run *r, qx_tile *t)
{
    void *blocks[] = {t->raw, t->x, t->given, t->lo, t->hi, t->scale, t->zero, t->codes, t->out};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) qx_free(r->ctx, blocks[i]);
}

void qx_run_note_bad(qx_run *r, const qx_nonfinite *bad)
{
    if (!bad->nan && !bad->inf) return;
    qx_lock_take(r->lock);
    r->bad.nan += bad->nan;
    r->bad.inf += bad->inf;
    qx_lock_give(r->lock);
}

/* ---- ranges that span the whole walk ---- */

static bool wants_range(const qx_run *r)
{
    const qx_job *j = r->j;
    if (qx_job_is_float(j)) return false;
    if (qx_spec_two_level(&j->spec)) return true;
    if (grid_step(j)) return false;
    if (j->spec.rule == QX_SCALE_GIVEN && !(j->spec.zero_point && !j->spec.given_zero)) return false;
    return j->spec.block == -1 || (r->columns && j->spec.block == 0);
}

/* Two-level formats want the range of the tensor, whatever their blocks. */
static int64_t range_cells(const qx_run *r) { return qx_spec_two_level(&r->j->spec) || r->j->spec.block == -1 ? 1 : r->cols; }

static qx_status range_tile(void *user, int64_t i)
{
    qx_run *r = user;
    qx_tile t = tile_number(r, i);
    const bool one = r->n_range == 1;
    const int64_t n = one ? 1 : t.cols, at = one ? 0 : t.col0;
    const qx_grid g = {t.rows, t.cols, t.rows, one ? t.cols : 1};
    qx_nonfinite bad = QX_NONFINITE_NONE;
    qx_status st;
    QX_TRY_GOTO(st, QX_NEW_ARRAY(r->ctx, n, &t.lo));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(r->ctx, n, &t.hi));
    QX_TRY_GOTO(st, qx_tile_load(r, &t));
    if (!qx_min_max(&g, t.dtype, t.src, t.lo, t.hi, &bad))
        QX_TRY_GOTO(st, qx_fail(r->ctx, QX_E_TYPE, "weight '%s': no range of %s", r->j->in->name, qx_dtype_get(t.dtype)->name));
    qx_run_note_bad(r, &bad);
    qx_lock_take(r->lock);
    for (int64_t c = 0; c < n; c++) {
        if (t.lo[c] < r->lo[at + c]) r->lo[at + c] = t.lo[c];
        if (t.hi[c] > r->hi[at + c]) r->hi[at + c] = t.hi[c];
    }
    qx_lock_give(r->lock);
done:
    qx_tile_free(r, &t);
    return st;
}

/* The range of a whole tensor is kept with the job: rows are asked for tile by tile elsewhere. */
static bool known_range(qx_run *r)
{
    struct qx_job_range *known = r->j->range;
    if (r->n_range != 1 || atomic_load(&known->state) != 2) return false;
    r->lo[0] = known->lo;
    r->hi[0] = known->hi;
    r->tensor_scale = known->scale;
    r->tensor_zero = known->zero;
    return true;
}

static void keep_range(qx_run *r)
{
    struct qx_job_range *known = r->j->range;
    int fresh = 0;
    if (r->n_range != 1 || !atomic_compare_exchange_strong(&known->state, &fresh, 1)) return;
    known->lo = r->lo[0];
    known->hi = r->hi[0];
    known->scale = r->tensor_scale;
    known->zero = r->tensor_zero;
    atomic_store(&known->state, 2);
}

/* From the first on: a later one may read rows through those before it. */
static qx_status begin_steps(qx_ctx *ctx, const qx_job *j, const qx_step *s)
{
    if (!s) return QX_OK;
    QX_TRY(begin_steps(ctx, j, s->prev));
    return s->def->begin ? s->def->begin(ctx, s, &j->spec, qx_view_k(&j->view)) : QX_OK;
}

static void end_steps(qx_ctx *ctx, const qx_job *j)
{
    for (const qx_step *s = j->steps; s; s = s->prev)
        if (s->def->end) s->def->end(ctx, s);
}

/* Inputs that cannot be read from the middle are read whole, once: varints, and what another job makes in another order. */
static bool wants_content(const qx_job *j)
{
    return j->in->job ? !qx_rows_follow(j->in, &j->view) : j->in->src.kind == QX_SRC_TYPED;
}

static qx_status bring_content(qx_run *r, const qx_job *j)
{
    QX_TRY(qx_alloc_raw(r->ctx, j->in->bytes, &r->content));
    QX_TRY(qx_weight_read(r->ctx, j->in, r->content));
    r->input = *j->in;
    r->input.job = NULL;
    r->input.src = (qx_source){.kind = QX_SRC_BYTES, .bytes = r->content, .length = (int64_t)j->in->bytes};
    r->own = *j;
    r->own.in = &r->input;
    r->j = &r->own;
    return QX_OK;
}

qx_status qx_run_prepare(qx_run *r, qx_ctx *ctx, const qx_job *j, bool all)
{
    *r = (qx_run){.ctx = ctx, .j = j};
    if (all && wants_content(j)) QX_TRY(bring_content(r, j));
    set_walk(r);
    if (!all && j->spec.block >= 0 && !qx_spec_two_level(&j->spec)) walk_rows(r); /* a row's scale is in its row */
    QX_TRY(qx_lock_new(ctx, &r->lock));
    QX_TRY(begin_steps(ctx, j, j->steps));
    if (!wants_range(r)) return QX_OK;
    r->n_range = range_cells(r);
    QX_TRY(QX_NEW_ARRAY(ctx, r->n_range, &r->lo));
    QX_TRY(QX_NEW_ARRAY(ctx, r->n_range, &r->hi));
    if (!known_range(r)) {
        QX_TRY(each_tile(r, NULL, range_tile, NULL));
        if (j->spec.rule == QX_SCALE_SEARCH && !qx_spec_two_level(&j->spec)) QX_TRY(qx_run_search_tensor(r));
        keep_range(r);
    }
    if (!qx_spec_two_level(&j->spec)) return QX_OK;
    r->scale2 = j->spec.second > 0 ? j->spec.second : qx_nvfp4_global(fmaxf(fmaxf(-r->lo[0], r->hi[0]), j->spec.amax));
    return QX_OK;
}

void qx_run_free(qx_run *r)
{
    if (r->lock) qx_lock_free(r->lock);
    qx_free(r->ctx, r->lo);
    qx_free(r->ctx, r->hi);
    qx_free(r->ctx, r->errors);
    qx_free(r->ctx, r->all_codes);
    qx_free(r->ctx, r->all_scale);
    qx_free(r->ctx, r->all_zero);
    qx_free(r->ctx, r->content);
}

/* ---- scales of one tile ---- */

static qx_status tile_ranges(qx_run *r, qx_tile *t, const qx_grid *g, int64_t cells)
{
    const bool whole = r->n_range && !qx_spec_two_level(&r->j->spec);
    qx_nonfinite bad = QX_NONFINITE_NONE;
    QX_TRY(QX_NEW_ARRAY(r->ctx, cells, &t->lo));
    QX_TRY(QX_NEW_ARRAY(r->ctx, cells, &t->hi));
    if (whole) {
        const int64_t at = r->n_range == 1 ? 0 : t->col0;
        memcpy(t->lo, r->lo + at, (size_t)cells * sizeof *t->lo);
        memcpy(t->hi, r->hi + at, (size_t)cells * sizeof *t->hi);
        return QX_OK;
    }
    const bool ok = r->j->spec.zero_point ? qx_min_max(g, t->dtype, t->src, t->lo, t->hi, &bad) : qx_amax(g, t->dtype, t->src, t->hi, &bad);
    if (!ok) QX_FAIL(r->ctx, QX_E_TYPE, "weight '%s': no range of %s", r->j->in->name, qx_dtype_get(t->dtype)->name);
    if (!r->n_range) qx_run_note_bad(r, &bad);
    return QX_OK;
}

/* Index into [n][blocks] (or of fewer lines) of cell i of a tile. */
static int64_t given_index(const qx_run *r, const qx_tile *t, int64_t i)
{
    const int64_t b = r->j->spec.block, rows = r->j->spec.given_rows > 1 ? r->j->spec.given_rows : 1;
    if (b == -1) return 0;
    if (!r->columns) return (t->first + i / r->blocks) / rows * r->blocks + i % r->blocks;
    const int64_t column = t->col0 + i % t->cols, block = b > 0 ? t->first / b + i / t->cols : 0;
    return column / rows * r->blocks + block;
}

static int32_t zero_for(const qx_format *f, float lo, float scale)
{
    float code_lo, code_hi;
    (void)qx_format_range(f, &code_lo, &code_hi);
    const float z = rintf(code_lo - lo / scale);
    return (int32_t)(z < code_lo ? code_lo : z > code_hi ? code_hi : z);
}

static void given_scales(qx_run *r, qx_tile *t, const qx_format *f, int64_t cells)
{
    const qx_qspec *q = &r->j->spec;
    for (int64_t i = 0; i < cells; i++) {
        const int64_t at = given_index(r, t, i);
        t->scale[i] = qx_scale_stored(f, q->given[at], &t->adjusted);
        if (q->zero_point) t->zero[i] = q->given_zero ? q->given_zero[at] : zero_for(f, t->lo[i], t->scale[i]);
    }
}

static void amax_scales(qx_run *r, qx_tile *t, const qx_format *f, int64_t cells)
{
    if (r->j->spec.zero_point) {
        qx_scale_from_range(f, t->lo, t->hi, cells, t->scale, t->zero, &t->adjusted);
        return;
    }
    for (int64_t i = 0; i < cells; i++)
        if (-t->lo[i] > t->hi[i]) t->hi[i] = -t->lo[i]; /* where only a range was taken */
    if (!qx_spec_two_level(&r->j->spec)) {
        qx_scale_from_amax(f, t->hi, cells, t->scale, &t->adjusted);
        return;
    }
    for (int64_t i = 0; i < cells; i++) t->scale[i] = t->hi[i] > 0 ? qx_scale_stored(f, t->hi[i] / 6.0f / r->scale2, &t->adjusted) : 1.0f;
}

static qx_status step_scales(qx_run *r, qx_tile *t, const qx_step *s)
{
    const qx_status st = s->def->grid(r->ctx, s, &r->j->spec, &(qx_gridded){t->first, t->rows, t->cols, t->x, t->scale, t->zero});
    return st == QX_OK ? st : qx_note(r->ctx, st, "weight '%s', step '%s'", r->j->in->name, s->def->name);
}

static qx_status tile_scales(qx_run *r, qx_tile *t, const qx_grid *g)
{
    const qx_format f = qx_job_format(r->j);
    const qx_qspec *q = &r->j->spec;
    const int64_t cells = qx_grid_cells(g);
    QX_TRY(QX_NEW_ARRAY(r->ctx, cells, &t->scale));
    if (q->zero_point) QX_TRY(QX_NEW_ARRAY(r->ctx, cells, &t->zero));
    if (grid_step(r->j)) return step_scales(r, t, grid_step(r->j));
    if (q->rule == QX_SCALE_SEARCH) return qx_tile_search(r, t, g);
    const bool ranged = q->rule != QX_SCALE_GIVEN || (q->zero_point && !q->given_zero);
    if (ranged) QX_TRY(tile_ranges(r, t, g, cells));
    if (q->rule == QX_SCALE_GIVEN) given_scales(r, t, &f, cells);
    else amax_scales(r, t, &f, cells);
    return QX_OK;
}

/* ---- codes of one tile ---- */

static qx_status tile_quant(qx_run *r, qx_tile *t, qx_quant *q, const float **effective)
{
    const qx_grid g = qx_tile_grid(r, t);
    const int64_t cells = qx_grid_cells(&g);
    QX_TRY(tile_scales(r, t, &g));
    *effective = t->scale;
    if (qx_spec_two_level(&r->j->spec)) { /* codes are made against what the consumer will multiply with */
        if (!t->lo) QX_TRY(QX_NEW_ARRAY(r->ctx, cells, &t->lo));
        for (int64_t i = 0; i < cells; i++) t->lo[i] = t->scale[i] * r->scale2;
        *effective = t->lo;
    }
    *q = (qx_quant){.grid = g, .format = qx_job_format(r->j), .scale = *effective, .zero = t->zero};
    return QX_OK;
}

static qx_status keep_given(qx_run *r, qx_tile *t)
{
    const size_t n = (size_t)(t->rows * t->cols) * sizeof *t->given;
    QX_TRY(qx_alloc_raw(r->ctx, n, (void **)&t->given));
    memcpy(t->given, t->x, n);
    return QX_OK;
}

/* Codes of what is loaded, to where they belong. */
static qx_status code_loaded(qx_run *r, qx_tile *t)
{
    const int64_t count = t->rows * t->cols;
    const char *name = r->j->in->name;
    qx_quant q;
    const float *effective;
    if (qx_job_is_float(r->j)) return qx_run_emit_floats(r, t);
    if (grid_step(r->j)) QX_TRY(keep_given(r, t));
    QX_TRY(tile_quant(r, t, &q, &effective));
    q.unpacked = r->scatter || r->panels || r->j->layout == QX_LAYOUT_NBITS;
    QX_TRY(qx_alloc_raw(r->ctx, (size_t)(count + qx_tile_code_room(r, t)) * (qx_job_code_bits(r->j) > 8 ? 2 : 1) + 8, (void **)&t->codes));
    if (!qx_quantize(&q, t->dtype, t->src, t->codes))
        QX_FAIL(r->ctx, QX_E_TYPE, "weight '%s': cannot quantize %s to %s", name, qx_dtype_get(t->dtype)->name,
                qx_dtype_get(r->j->spec.codes)->name);
    QX_TRY(qx_tile_measure(r, t, &q));
    return qx_run_emit(r, t);
}

static qx_status code_tile(void *user, int64_t i)
{
    qx_run *r = user;
    qx_tile t = tile_number(r, i);
    qx_status st = qx_tile_load(r, &t);
    if (st == QX_OK) st = code_loaded(r, &t);
    qx_tile_free(r, &t);
    return st;
}

/* A tile of a panel is coded some columns at a time, so that what is between reading and codes stays in the cache. `all` has the
 * bytes as stored. */
static qx_status code_strip(qx_run *r, const qx_tile *all, int64_t at, int64_t cols)
{
    qx_tile t = {.first = all->first, .rows = all->rows, .col0 = all->col0 + at, .cols = cols, .dtype = QX_DT_FLOAT};
    const qx_cells c = {t.col0, cols, t.first, t.rows, 1, cols};
    const int64_t size = qx_dtype_bits(r->j->in->dtype) / 8;
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_raw_array(r->ctx, (size_t)t.rows, (size_t)cols * sizeof *t.x, (void **)&t.x));
    t.src = t.x;
    for (int64_t i = 0; i < t.rows; i++)
        (void)qx_to_f32(r->j->in->dtype, (const uint8_t *)all->src + (i * all->cols + at) * size, cols, t.x + i * cols);
    QX_TRY_GOTO(st, qx_steps_run_cells(r->ctx, r->j->steps, &c, t.x));
    st = code_loaded(r, &t);
done:
    qx_tile_free(r, &t);
    return st;
}

static qx_status code_panel_tile(void *user, int64_t i)
{
    qx_run *r = user;
    const qx_weight *w = r->j->in;
    qx_tile t = tile_number(r, i);
    const int64_t n = r->j->view.n, size = qx_dtype_bits(w->dtype) / 8, per_read = t.cols == n ? t.rows : 1;
    uint8_t *raw;
    qx_status st = QX_OK;
    QX_TRY(qx_alloc_raw_array(r->ctx, (size_t)t.rows, (size_t)(t.cols * size), &t.raw));
    t.src = raw = t.raw;
    for (int64_t k = 0; k < t.rows && st == QX_OK; k += per_read)
        st = qx_source_read(r->ctx, w, (size_t)(((t.first + k) * n + t.col0) * size), (size_t)(per_read * t.cols * size),
                            raw + k * t.cols * size);
    for (int64_t at = 0; at < t.cols && st == QX_OK; at += STRIP_COLS) st = code_strip(r, &t, at, at_most(t.cols - at, STRIP_COLS));
    qx_tile_free(r, &t);
    return st;
}

/* Strided reads make the kernel's read-ahead give up: the whole range is asked for at once. */
static void read_ahead(const qx_run *r)
{
    const qx_source *s = &r->j->in->src;
    if (!r->j->in->job && s->kind == QX_SRC_FILE && !r->columns && r->j->view.outer > 1)
        (void)posix_fadvise(qx_file_fd(s->file), s->offset, s->length, POSIX_FADV_WILLNEED);
}

qx_status qx_job_run(qx_ctx *ctx, const qx_job *j, const qx_sink *sink)
{
    qx_run r;
    qx_status st;
    QX_TRY_GOTO(st, qx_run_prepare(&r, ctx, j, true));
    read_ahead(&r);
    r.sink = sink;
    QX_TRY_GOTO(st, QX_NEW_ARRAY(ctx, r.n_tiles, &r.errors));
    QX_TRY_GOTO(st, each_tile(&r, qx_run_emit_begin, r.panels ? code_panel_tile : code_tile, qx_run_emit_end));
    qx_run_keep_error(&r);
    if (r.bad.nan || r.bad.inf)
        qx_warn(ctx, "weight '%s' holds %lld NaN and %lld Inf elements; they are kept out of its scales", j->in->name,
                (long long)r.bad.nan, (long long)r.bad.inf);
done:
    end_steps(ctx, j);
    qx_run_free(&r);
    return st;
}

/* ---- what a consumer will see ---- */

static qx_status dequantize(qx_run *r, int64_t first, int64_t rows, float *x)
{
    qx_tile t = {.first = first, .rows = rows, .cols = r->cols, .x = x, .src = x, .dtype = QX_DT_FLOAT};
    qx_quant q;
    const float *effective;
    qx_status st = tile_quant(r, &t, &q, &effective);
    if (st == QX_OK && !qx_fake_quantize(&q, x))
        st = qx_fail(r->ctx, QX_E_TYPE, "weight '%s': cannot dequantize %s", r->j->in->name, qx_dtype_get(r->j->spec.codes)->name);
    t.x = NULL;
    qx_tile_free(r, &t);
    return st;
}

qx_status qx_job_share(qx_ctx *ctx, const qx_job *j)
{
    qx_run r = {.ctx = ctx};
    const qx_status st = qx_job_is_float(j) ? QX_OK : qx_run_prepare(&r, ctx, j, false);
    qx_run_free(&r);
    return st;
}

void qx_job_unshare(qx_ctx *ctx, const qx_job *j) { end_steps(ctx, j); }

qx_status qx_job_dequantize(qx_ctx *ctx, const qx_job *j, int64_t first, int64_t rows, float *x)
{
    qx_run r = {.ctx = ctx};
    qx_status st;
    if (qx_job_is_float(j)) return qx_round_f32(ctx, j->spec.codes, x, rows * qx_view_k(&j->view));
    QX_TRY_GOTO(st, qx_run_prepare(&r, ctx, j, false));
    walk_rows(&r);
    st = dequantize(&r, first, rows, x);
done:
    qx_run_free(&r);
    return st;
}

qx_status qx_job_rows_dequantized(qx_ctx *ctx, const qx_job *j, int64_t first, int64_t rows, float *x)
{
    QX_TRY(qx_rows_read(ctx, j->in, &j->view, plain_steps(j), first, rows, x));
    return qx_job_dequantize(ctx, j, first, rows, x);
}
