/* job_emit.c - from the codes and scales of a tile to the stored form of each part: flat, MatMulNBits blobs, scattered into a
 * [K,N] weight, or collected from a [K,N] walk into panels of channels. */
#include <string.h>

#include "onnx/weight/job_run.h"

static qx_status put(const qx_run *r, qx_part part, int64_t offset, const void *bytes, size_t n)
{
    return r->j->part[part] ? r->sink->put(r->sink->user, r->j->part[part], offset, bytes, n) : QX_OK;
}

/* ---- scales and zero points, contiguous ---- */

static qx_status put_scales(qx_run *r, int64_t at, int64_t count, const float *scale)
{
    const qx_dtype dtype = r->j->spec.scale;
    const size_t size = (size_t)qx_dtype_bits(dtype) / 8;
    void *raw;
    QX_TRY(qx_alloc_raw_array(r->ctx, (size_t)count, size, &raw));
    qx_status st = qx_from_f32(dtype, scale, count, raw) ? QX_OK
        : qx_fail(r->ctx, QX_E_TYPE, "weight '%s': scales of %s", r->j->in->name, qx_dtype_get(dtype)->name);
    if (st == QX_OK) st = put(r, QX_PART_SCALE, at * (int64_t)size, raw, (size_t)count * size);
    qx_free(r->ctx, raw);
    return st;
}

static void pack_zeros(int bits, const int32_t *zero, int64_t count, uint8_t *bytes, uint8_t *packed)
{
    for (int64_t i = 0; i < count && bits == 16; i++) memcpy(packed + 2 * i, &(int16_t){(int16_t)zero[i]}, 2);
    if (bits == 16) return;
    for (int64_t i = 0; i < count; i++) bytes[i] = (uint8_t)(zero[i] & ((1 << bits) - 1));
    if (bits == 8) memcpy(packed, bytes, (size_t)count);
    else qx_pack(bits, bytes, count, packed);
}

static qx_status put_zeros(qx_run *r, int64_t at, int64_t count, const int32_t *zero)
{
    const int bits = qx_job_code_bits(r->j);
    uint8_t *tmp;
    QX_TRY(qx_alloc_array(r->ctx, (size_t)count, 3, (void **)&tmp));
    pack_zeros(bits, zero, count, tmp + 2 * count, tmp);
    const qx_status st = put(r, QX_PART_ZERO, at * bits / 8, tmp, (size_t)((count * bits + 7) / 8));
    qx_free(r->ctx, tmp);
    return st;
}

/* Scales of one tensor or of whole columns belong to every tile alike; the first one stores them. */
static bool stores_scales(const qx_run *r, const qx_tile *t)
{
    return t->first == 0 || !(r->j->spec.block == -1 || (r->columns && r->j->spec.block == 0));
}

static int64_t scale_at(const qx_run *r, const qx_tile *t)
{
    if (t->first == 0) return 0;
    return r->columns ? t->first / r->j->spec.block * r->cols : t->first * r->blocks;
}

static qx_status emit_scales(qx_run *r, qx_tile *t)
{
    const qx_grid g = qx_tile_grid(r, t);
    if (!stores_scales(r, t)) return QX_OK;
    const int64_t cells = qx_grid_cells(&g), at = scale_at(r, t);
    QX_TRY(put_scales(r, at, cells, t->scale));
    return t->zero ? put_zeros(r, at, cells, t->zero) : QX_OK;
}

/* ---- flat codes ---- */

static qx_status emit_flat(qx_run *r, qx_tile *t)
{
    const int64_t bits = qx_job_code_bits(r->j), count = t->rows * r->cols;
    QX_TRY(put(r, QX_PART_CODES, t->first * r->cols * bits / 8, t->codes, (size_t)((count * bits + 7) / 8)));
    return emit_scales(r, t);
}

/* ---- MatMulNBits ---- */

/* One row: codes moved into 0 .. 2^bits - 1, filled up to whole blocks with each block's zero code. */
static void nbits_row(const qx_run *r, const uint8_t *codes, const int32_t *zero, int up, uint8_t *row)
{
    const int bits = qx_job_code_bits(r->j);
    const int64_t k = r->cols, padded = r->blocks * r->j->spec.block;
    const uint8_t mask = (uint8_t)((1 << bits) - 1), fill = (uint8_t)((zero ? zero[r->blocks - 1] : 0) + up) & mask;
    for (int64_t c = 0; c < k; c++) row[c] = (uint8_t)(codes[c] + up) & mask;
    memset(row + k, fill, (size_t)(padded - k));
}

/* Zero points of a row: each row starts at a byte. */
static void nbits_zeros(const qx_run *r, const int32_t *zero, int up, uint8_t *bytes, uint8_t *out)
{
    const int bits = qx_job_code_bits(r->j);
    for (int64_t b = 0; b < r->blocks; b++) bytes[b] = (uint8_t)((zero[b] + up) & ((1 << bits) - 1));
    if (bits == 8) memcpy(out, bytes, (size_t)r->blocks);
    else qx_pack(bits, bytes, r->blocks, out);
}

static qx_status emit_nbits(qx_run *r, qx_tile *t)
{
    const qx_job *j = r->j;
    const int bits = qx_job_code_bits(j), up = qx_dtype_get(j->spec.codes)->cls == 'I' ? 1 << (bits - 1) : 0;
    const int64_t padded = r->blocks * j->spec.block, row_bytes = padded * bits / 8, zero_bytes = (r->blocks * bits + 7) / 8;
    uint8_t *row = NULL;
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_array(r->ctx, (size_t)t->rows, (size_t)row_bytes, (void **)&t->out));
    QX_TRY_GOTO(st, qx_alloc_raw(r->ctx, (size_t)padded, (void **)&row));
    for (int64_t i = 0; i < t->rows; i++) {
        nbits_row(r, t->codes + i * r->cols, t->zero ? t->zero + i * r->blocks : NULL, up, row);
        if (bits == 8) memcpy(t->out + i * row_bytes, row, (size_t)padded);
        else qx_pack(bits, row, padded, t->out + i * row_bytes);
    }
    QX_TRY_GOTO(st, put(r, QX_PART_CODES, t->first * row_bytes, t->out, (size_t)(t->rows * row_bytes)));
    QX_TRY_GOTO(st, put_scales(r, t->first * r->blocks, t->rows * r->blocks, t->scale));
    for (int64_t i = 0; t->zero && i < t->rows; i++) nbits_zeros(r, t->zero + i * r->blocks, up, row, t->out + i * zero_bytes);
    if (t->zero) st = put(r, QX_PART_ZERO, t->first * zero_bytes, t->out, (size_t)(t->rows * zero_bytes));
done:
    qx_free(r->ctx, row);
    return st;
}

/* ---- scattered: channels walked, [K,N]-wise storage ---- */

/* Whole bytes begin wherever a row of the storage begins. */
static bool aligned(const qx_run *r, int bits) { return qx_view_span(&r->j->view) * r->j->view.inner * bits % 8 == 0; }

/* codes [rows][outer][inner] of `size` bytes to seg [rows][inner] at one outer index. */
static void pick_segment(const qx_run *r, const uint8_t *codes, int64_t rows, int64_t o, size_t size, uint8_t *seg)
{
    const size_t run = (size_t)r->j->view.inner * size;
    for (int64_t i = 0; i < rows; i++)
        memcpy(seg + (size_t)i * run, codes + ((size_t)(i * r->cols) + (size_t)(o * r->j->view.inner)) * size, run);
}

/* Rows [first, first + rows) of one matrix. */
static qx_status put_segments(qx_run *r, int64_t first, int64_t rows, const uint8_t *codes, int bits, qx_part part)
{
    const qx_view *v = &r->j->view;
    const int64_t seg = rows * v->inner;
    const size_t size = bits < 8 ? 1 : (size_t)bits / 8;
    uint8_t *tmp;
    qx_status st = QX_OK;
    QX_TRY(qx_alloc_raw(r->ctx, (size_t)seg * (size + 1), (void **)&tmp));
    uint8_t *packed = tmp + (size_t)seg * size;
    for (int64_t o = 0; o < v->outer && st == QX_OK; o++) {
        pick_segment(r, codes, rows, o, size, tmp);
        if (bits < 8) qx_pack(bits, tmp, seg, packed);
        st = put(r, part, qx_view_index(v, v->outer, first, o) * v->inner * bits / 8, bits < 8 ? packed : tmp,
                 (size_t)((seg * bits + 7) / 8));
    }
    qx_free(r->ctx, tmp);
    return st;
}

static qx_status put_tile(qx_run *r, const qx_tile *t, const uint8_t *codes, int bits, qx_part part)
{
    const size_t row = (size_t)r->cols * (bits < 8 ? 1 : (size_t)bits / 8);
    for (int64_t i = 0, n; i < t->rows; i += n) {
        n = qx_view_run(&r->j->view, t->first + i, t->rows - i);
        QX_TRY(put_segments(r, t->first + i, n, codes + (size_t)i * row, bits, part));
    }
    return QX_OK;
}

/* [rows][blocks] of a tile into [blocks][n], for each matrix. */
static void keep_scales(qx_run *r, const qx_tile *t)
{
    if (r->j->spec.block == -1) {
        r->all_scale[0] = t->scale[0];
        if (t->zero) r->all_zero[0] = t->zero[0];
        return;
    }
    for (int64_t i = 0; i < t->rows; i++)
        for (int64_t b = 0; b < r->blocks; b++) {
            const int64_t at = qx_view_index(&r->j->view, r->blocks, t->first + i, b);
            r->all_scale[at] = t->scale[i * r->blocks + b];
            if (t->zero) r->all_zero[at] = t->zero[i * r->blocks + b];
        }
}

static qx_status emit_scatter(qx_run *r, qx_tile *t)
{
    const qx_view *v = &r->j->view;
    const int bits = qx_job_code_bits(r->j);
    if (r->j->spec.block != -1 || t->first == 0) keep_scales(r, t);
    if (!r->all_codes) return put_tile(r, t, t->codes, bits, QX_PART_CODES);
    for (int64_t i = 0, n; i < t->rows; i += n) {
        n = qx_view_run(v, t->first + i, t->rows - i);
        for (int64_t o = 0; o < v->outer; o++)
            pick_segment(r, t->codes + i * r->cols, n, o, 1, r->all_codes + qx_view_index(v, v->outer, t->first + i, o) * v->inner);
    }
    return QX_OK;
}

static qx_status put_all_codes(qx_run *r)
{
    const int bits = qx_job_code_bits(r->j);
    const int64_t n = r->rows * r->cols;
    uint8_t *packed;
    QX_TRY(qx_alloc_raw(r->ctx, (size_t)((n * bits + 7) / 8), (void **)&packed));
    qx_pack(bits, r->all_codes, n, packed);
    const qx_status st = put(r, QX_PART_CODES, 0, packed, (size_t)((n * bits + 7) / 8));
    qx_free(r->ctx, packed);
    return st;
}

/* ---- panels: [K,N] walked as it is stored, the parts channel by channel ---- */

/* MatMulNBits fills a last block up with its zero code. */
static int64_t fill_rows(const qx_run *r) { return r->j->layout == QX_LAYOUT_NBITS ? r->blocks * r->j->spec.block - r->rows : 0; }
static int nbits_up(const qx_job *j)
{
    return j->layout == QX_LAYOUT_NBITS && qx_dtype_get(j->spec.codes)->cls == 'I' ? 1 << (qx_job_code_bits(j) - 1) : 0;
}

int64_t qx_tile_code_room(const qx_run *r, const qx_tile *t) { return r->panels ? fill_rows(r) * t->cols : 0; }

static void fill_up(qx_run *r, qx_tile *t)
{
    const int64_t cells = qx_cells_of(t->rows, r->j->spec.block > 0 ? r->j->spec.block : t->rows);
    uint8_t *row = t->codes + t->rows * t->cols;
    for (int64_t i = 0; i < fill_rows(r); i++)
        for (int64_t c = 0; c < t->cols; c++) row[i * t->cols + c] = (uint8_t)(t->zero ? t->zero[(cells - 1) * t->cols + c] : 0);
}

/* [blocks of the tile][cols] into [cols][blocks]. */
static void keep_panel_scales(qx_run *r, const qx_tile *t)
{
    const int64_t block = r->j->spec.block, n = block > 0 ? qx_cells_of(t->rows, block) : 1;
    const int64_t at = (t->col0 - r->col0) * r->blocks + (block > 0 ? t->first / block : 0);
    if (!stores_scales(r, t)) return;
    if (block == -1) {
        if (t->col0 == 0) r->all_scale[0] = t->scale[0];
        if (t->col0 == 0 && t->zero) r->all_zero[0] = t->zero[0];
        return;
    }
    (void)qx_transpose(4, n, t->cols, t->scale, t->cols, r->all_scale + at, r->blocks);
    if (t->zero) (void)qx_transpose(4, n, t->cols, t->zero, t->cols, r->all_zero + at, r->blocks);
}

static qx_status emit_panel(qx_run *r, qx_tile *t)
{
    const int bits = qx_job_code_bits(r->j);
    const int64_t fill = t->first + t->rows == r->rows ? fill_rows(r) : 0;
    if (fill) fill_up(r, t);
    qx_pack_columns(bits, nbits_up(r->j), t->rows + fill, t->cols, t->codes,
                    r->all_codes + (t->col0 - r->col0) * r->row_bytes + t->first * bits / 8, r->row_bytes);
    keep_panel_scales(r, t);
    return QX_OK;
}

enum { PUT_BYTES = 1 << 20 };
static qx_status put_panel_piece(void *user, int64_t i)
{
    const qx_run *r = user;
    const int64_t all = r->cols * r->row_bytes, from = i * PUT_BYTES, n = all - from < PUT_BYTES ? all - from : PUT_BYTES;
    return put(r, QX_PART_CODES, r->col0 * r->row_bytes + from, r->all_codes + from, (size_t)n);
}

/* Zero points of MatMulNBits: every channel starts at a byte. */
static qx_status put_panel_zeros(qx_run *r)
{
    const int bits = qx_job_code_bits(r->j);
    const int64_t row = (r->blocks * bits + 7) / 8;
    if (r->j->layout != QX_LAYOUT_NBITS) return put_zeros(r, r->col0 * r->blocks, r->cols * r->blocks, r->all_zero);
    uint8_t *all, *bytes;
    qx_status st;
    QX_TRY(qx_alloc_array(r->ctx, (size_t)r->cols, (size_t)row, (void **)&all));
    QX_TRY_GOTO(st, qx_alloc_raw(r->ctx, (size_t)r->blocks, (void **)&bytes));
    for (int64_t c = 0; c < r->cols; c++) nbits_zeros(r, r->all_zero + c * r->blocks, nbits_up(r->j), bytes, all + c * row);
    st = put(r, QX_PART_ZERO, r->col0 * row, all, (size_t)(r->cols * row));
    qx_free(r->ctx, bytes);
done:
    qx_free(r->ctx, all);
    return st;
}

static int64_t panel_cells(const qx_run *r) { return r->j->spec.block == -1 ? 1 : r->cols * r->blocks; }

static qx_status begin_panel(qx_run *r)
{
    if (r->all_codes) return QX_OK; /* the first panel is the widest */
    QX_TRY(QX_NEW_ARRAY(r->ctx, panel_cells(r), &r->all_scale));
    if (r->j->spec.zero_point) QX_TRY(QX_NEW_ARRAY(r->ctx, panel_cells(r), &r->all_zero));
    return qx_alloc_raw_array(r->ctx, (size_t)r->cols, (size_t)r->row_bytes, (void **)&r->all_codes);
}

static qx_status end_panel(qx_run *r)
{
    QX_TRY(qx_parallel(r->ctx, qx_cells_of(r->cols * r->row_bytes, PUT_BYTES), put_panel_piece, r));
    if (r->j->spec.block == -1 && r->col0) return QX_OK;
    QX_TRY(put_scales(r, r->j->spec.block == -1 ? 0 : r->col0 * r->blocks, panel_cells(r), r->all_scale));
    return r->all_zero ? put_panel_zeros(r) : QX_OK;
}

/* ---- entry points ---- */

qx_status qx_run_emit_begin(qx_run *r)
{
    const qx_job *j = r->j;
    if (r->panels) return begin_panel(r);
    if (!r->scatter || qx_job_is_float(j)) return QX_OK;
    const int64_t cells = j->spec.block == -1 ? 1 : j->view.n * r->blocks;
    QX_TRY(QX_NEW_ARRAY(r->ctx, cells, &r->all_scale));
    if (j->spec.zero_point) QX_TRY(QX_NEW_ARRAY(r->ctx, cells, &r->all_zero));
    if (aligned(r, qx_job_code_bits(j))) return QX_OK;
    return qx_alloc_array(r->ctx, (size_t)r->rows, (size_t)r->cols, (void **)&r->all_codes);
}

qx_status qx_run_emit(qx_run *r, qx_tile *t)
{
    if (r->panels) return emit_panel(r, t);
    if (r->j->layout == QX_LAYOUT_NBITS) return emit_nbits(r, t);
    return r->scatter ? emit_scatter(r, t) : emit_flat(r, t);
}

qx_status qx_run_emit_floats(qx_run *r, qx_tile *t)
{
    const qx_dtype dtype = r->j->spec.codes;
    const int64_t count = t->rows * r->cols, size = qx_dtype_bits(dtype) / 8;
    const float *x = t->src;
    if (t->dtype != QX_DT_FLOAT) {
        QX_TRY(qx_alloc_array(r->ctx, (size_t)count, sizeof *t->x, (void **)&t->x));
        (void)qx_to_f32(t->dtype, t->src, count, t->x);
        x = t->x;
    }
    QX_TRY(qx_alloc_array(r->ctx, (size_t)count, (size_t)size, (void **)&t->out));
    (void)qx_from_f32(dtype, x, count, t->out);
    if (r->scatter) return put_tile(r, t, t->out, (int)size * 8, QX_PART_CODES);
    return put(r, QX_PART_CODES, t->first * r->cols * size, t->out, (size_t)(count * size));
}

static qx_status end_scatter(qx_run *r)
{
    const qx_job *j = r->j;
    if (r->all_codes) QX_TRY(put_all_codes(r));
    if (!r->all_scale) return QX_OK;
    const int64_t cells = j->spec.block == -1 ? 1 : j->view.n * r->blocks;
    QX_TRY(put_scales(r, 0, cells, r->all_scale));
    return r->all_zero ? put_zeros(r, 0, cells, r->all_zero) : QX_OK;
}

qx_status qx_run_emit_end(qx_run *r)
{
    QX_TRY(r->panels ? end_panel(r) : end_scatter(r));
    return qx_spec_two_level(&r->j->spec) && r->col0 == 0 ? put(r, QX_PART_SCALE2, 0, &r->scale2, sizeof r->scale2) : QX_OK;
}
