/* quant.c - walks a matrix under its grid of scales and hands spans to the innermost loops.
 *
 * The matrix is taken in flat chunks that fit the L1 cache: convert to float, cut the chunk at rows, let one leaf call do each piece,
 * pack or convert the result. So every combination of source type, layout and format costs one pass over memory, and packing runs
 * across rows as ONNX stores it. Must never allocate. */
#include "kernels/quant.h"

#include <string.h>

#include "kernels/loops/quant_leaf.h"

enum { CHUNK = 2048 }; /* elements; a multiple of 8, so that chunks of packed codes start at whole bytes */

static const qx_leaf *best(void) { return qx_leaf_cpu(qx_isa_best()); }

/* ---- formats ---- */

typedef struct kind_row { qx_kind kind, unsaturated; bool is_int; float lo, hi; int bits; } kind_row;
static const kind_row kinds[QX_DT_COUNT_] = {
    [QX_DT_INT8] = {QX_KIND_BYTE, QX_KIND_BYTE, true, -128, 127, 8},
    [QX_DT_UINT8] = {QX_KIND_BYTE, QX_KIND_BYTE, true, 0, 255, 8},
    [QX_DT_INT16] = {QX_KIND_WORD, QX_KIND_WORD, true, -32768, 32767, 16},
    [QX_DT_UINT16] = {QX_KIND_WORD, QX_KIND_WORD, true, 0, 65535, 16},
    [QX_DT_INT4] = {QX_KIND_BYTE, QX_KIND_BYTE, true, -8, 7, 4},
    [QX_DT_UINT4] = {QX_KIND_BYTE, QX_KIND_BYTE, true, 0, 15, 4},
    [QX_DT_INT2] = {QX_KIND_BYTE, QX_KIND_BYTE, true, -2, 1, 2},
    [QX_DT_UINT2] = {QX_KIND_BYTE, QX_KIND_BYTE, true, 0, 3, 2},
    [QX_DT_FLOAT8E4M3FN] = {QX_KIND_E4M3, QX_KIND_E4M3_NS, false, -448, 448, 8},
    [QX_DT_FLOAT8E5M2] = {QX_KIND_E5M2, QX_KIND_E5M2_NS, false, -57344, 57344, 8},
    [QX_DT_FLOAT8E4M3FNUZ] = {QX_KIND_E4M3FNUZ, QX_KIND_E4M3FNUZ_NS, false, -240, 240, 8},
    [QX_DT_FLOAT8E5M2FNUZ] = {QX_KIND_E5M2FNUZ, QX_KIND_E5M2FNUZ_NS, false, -57344, 57344, 8},
    [QX_DT_FLOAT4E2M1] = {QX_KIND_E2M1, QX_KIND_E2M1, false, -6, 6, 4},
};

bool qx_format_range(const qx_format *f, float *lo, float *hi)
{
    if ((int)f->codes < 0 || f->codes >= QX_DT_COUNT_ || kinds[f->codes].bits == 0) return false;
    *lo = kinds[f->codes].lo, *hi = kinds[f->codes].hi;
    if (f->narrow && kinds[f->codes].is_int && *lo < 0) *lo = -*hi;
    return true;
}

/* ---- the walk ---- */

typedef struct span { int64_t row, col, n, at; } span; /* n elements of one row; `at`: offset in the chunk */

/* Rows that share all their scales are one long row. */
static qx_grid flattened(qx_grid g)
{
    if (g.block_c >= g.cols && g.block_r >= g.rows) g = (qx_grid){1, g.rows * g.cols, 1, g.rows * g.cols};
    if (g.block_c > g.cols) g.block_c = g.cols;
    if (g.block_c < 1) g.block_c = 1;
    if (g.block_r < 1) g.block_r = 1;
    return g;
}

/* The piece of row(s) at flat index first + *done inside a chunk of n elements; false at the end. */
static bool next_span(const qx_grid *g, int64_t first, int64_t n, int64_t *done, span *s)
{
    if (*done >= n) return false;
    const int64_t e = first + *done;
    s->row = e / g->cols, s->col = e % g->cols, s->at = *done;
    s->n = g->cols - s->col < n - *done ? g->cols - s->col : n - *done;
    *done += s->n;
    return true;
}

/* Cuts a span at cells: first partial cell, whole cells, last partial cell. c0 is the cell's index in the grid. */
typedef struct cut { int64_t head, whole, tail, cell; } cut;
static cut cut_cells(const qx_grid *g, const span *s)
{
    const int64_t in = s->col % g->block_c, cell = s->row / g->block_r * qx_grid_cell_cols(g) + s->col / g->block_c;
    cut c = {0, 0, 0, cell};
    if (in) c.head = g->block_c - in < s->n ? g->block_c - in : s->n;
    c.whole = (s->n - c.head) / g->block_c;
    c.tail = s->n - c.head - c.whole * g->block_c;
    return c;
}

static const float *as_float(const qx_leaf *l, int dtype, const void *src, int64_t first, int64_t n, float *buf)
{
    if (dtype == QX_DT_FLOAT) return (const float *)src + first;
    const char *p = (const char *)src + first / 8 * qx_dtype_bits(dtype); /* first is a multiple of 8 */
    l->conv()[dtype].to_f32(p, n, buf);
    return buf;
}

static bool convertible(const qx_leaf *l, int dtype, bool to)
{
    if (dtype < 0 || dtype >= QX_DT_COUNT_) return false;
    return to ? l->conv()[dtype].to_f32 != NULL : l->conv()[dtype].from_f32 != NULL;
}

/* ---- ranges ---- */

static void count_bad(const float *x, int64_t n, int64_t at, qx_nonfinite *bad)
{
    for (int64_t i = 0; i < n && bad; i++) {
        if (x[i] - x[i] == 0.0f) continue;
        if (bad->first < 0) bad->first = at + i;
        *(x[i] != x[i] ? &bad->nan : &bad->inf) += 1;
    }
}

typedef struct range_job { const qx_leaf *leaf; float *lo, *hi; qx_nonfinite *bad; bool is_amax; } range_job;

static void one_range(const range_job *j, const float *x, int64_t n, int64_t cell, int64_t at)
{
    float *lo = j->lo ? j->lo + cell : NULL, *hi = j->hi + cell;
    if (j->is_amax) {
        const uint32_t top = j->leaf->amax_run(x, n);
        float f;
        memcpy(&f, &top, sizeof f);
        if (top < 0x7f800000u) {
            *hi = f > *hi ? f : *hi;
            return;
        }
    } else if (j->leaf->range_run(x, n, lo, hi) < 0x7f800000u) {
        return;
    }
    count_bad(x, n, at, j->bad);
    for (int64_t i = 0; i < n; i++) {
        if (x[i] - x[i] != 0.0f) continue;
        const float v = j->is_amax && x[i] < 0 ? -x[i] : x[i];
        if (lo && v < *lo) *lo = v;
        if (v > *hi) *hi = v;
    }
}

static void span_range(const range_job *j, const qx_grid *g, const span *s, const float *x, int64_t at)
{
    const cut c = cut_cells(g, s);
    if (g->block_c == 1) {
        const uint32_t top = j->is_amax ? j->leaf->amax_vec(x, s->n, j->hi + c.cell)
            : j->leaf->range_vec(x, s->n, j->lo + c.cell, j->hi + c.cell);
        if (top < 0x7f800000u) return;
        for (int64_t i = 0; i < s->n; i++) one_range(j, x + i, 1, c.cell + i, at + i);
        return;
    }
    int64_t cell = c.cell, i = 0;
    if (c.head) one_range(j, x, c.head, cell++, at), i = c.head;
    for (int64_t k = 0; k < c.whole; k++, i += g->block_c) one_range(j, x + i, g->block_c, cell++, at + i);
    if (c.tail) one_range(j, x + i, c.tail, cell, at + i);
}

static bool ranges(const range_job *j, const qx_grid *grid, int dtype, const void *src)
{
    if (!convertible(j->leaf, dtype, true)) return false;
    const qx_grid g = flattened(*grid);
    float buf[CHUNK];
    for (int64_t first = 0, total = g.rows * g.cols; first < total; first += CHUNK) {
        const int64_t n = total - first < CHUNK ? total - first : CHUNK;
        const float *x = as_float(j->leaf, dtype, src, first, n, buf);
        span s;
        for (int64_t done = 0; next_span(&g, first, n, &done, &s);) span_range(j, &g, &s, x + s.at, first + s.at);
    }
    return true;
}

bool qx_amax_using(const qx_leaf *l, const qx_grid *g, int dtype, const void *src, float *amax, qx_nonfinite *bad)
{
    return ranges(&(range_job){l, NULL, amax, bad, true}, g, dtype, src);
}
bool qx_min_max_using(const qx_leaf *l, const qx_grid *g, int dtype, const void *src, float *lo, float *hi, qx_nonfinite *bad)
{
    return ranges(&(range_job){l, lo, hi, bad, false}, g, dtype, src);
}
bool qx_amax(const qx_grid *g, int dtype, const void *src, float *amax, qx_nonfinite *bad)
{
    return qx_amax_using(best(), g, dtype, src, amax, bad);
}
bool qx_min_max(const qx_grid *g, int dtype, const void *src, float *lo, float *hi, qx_nonfinite *bad)
{
    return qx_min_max_using(best(), g, dtype, src, lo, hi, bad);
}

/* ---- codes ---- */

typedef struct code_job { const qx_leaf *leaf; const qx_quant_leaf *loops; const qx_quant *q; float lo, hi; int bytes; } code_job;

static bool code_job_init(code_job *j, const qx_leaf *l, const qx_quant *q)
{
    if (!qx_format_range(&q->format, &(j->lo), &(j->hi))) return false;
    const kind_row *k = &kinds[q->format.codes];
    j->leaf = l, j->q = q;
    j->loops = &l->quant[q->no_saturate ? k->unsaturated : k->kind];
    j->bytes = k->bits == 16 ? 2 : 1;
    return true;
}

/* One scale (and zero point) for each of n elements of a span: the grid's own where every column has one, else expanded. */
typedef struct each { float scale[CHUNK]; int32_t zero[CHUNK]; } each;

static void expand_cells(const qx_leaf *l, const cut *c, int64_t block, const void *cells, void *out)
{
    const uint32_t *v = (const uint32_t *)cells + c->cell;
    uint32_t *o = out;
    if (c->head) l->expand(v++, 1, c->head, o), o += c->head;
    l->expand(v, c->whole, block, o);
    if (c->tail) l->expand(v + c->whole, 1, c->tail, o + c->whole * block);
}

/* True when the whole span lies in one cell. */
static bool one_cell(const cut *c) { return (c->head != 0) + c->whole + (c->tail != 0) == 1; }

static void per_element(const code_job *j, const qx_grid *g, const cut *c, each *e, const float **s, const int32_t **z)
{
    *s = j->q->scale + c->cell, *z = j->q->zero ? j->q->zero + c->cell : NULL;
    if (g->block_c == 1) return;
    expand_cells(j->leaf, c, g->block_c, j->q->scale, e->scale);
    if (*z) expand_cells(j->leaf, c, g->block_c, j->q->zero, e->zero), *z = e->zero;
    *s = e->scale;
}

static void quantize_span(const code_job *j, const qx_grid *g, const span *s, const float *x, void *d, each *e)
{
    const cut c = cut_cells(g, s);
    const float *sc;
    const int32_t *z;
    if (one_cell(&c)) {
        j->loops->run(x, s->n, j->q->scale[c.cell], j->q->zero ? j->q->zero[c.cell] : 0, j->lo, j->hi, d);
        return;
    }
    per_element(j, g, &c, e, &sc, &z);
    j->loops->vec(x, s->n, sc, z, j->lo, j->hi, d);
}

static void affine_span(const code_job *j, const qx_grid *g, const span *s, float *x, each *e)
{
    const cut c = cut_cells(g, s);
    const float *sc;
    const int32_t *z;
    if (one_cell(&c)) {
        j->leaf->affine_run(x, s->n, j->q->scale[c.cell], j->q->zero ? j->q->zero[c.cell] : 0);
        return;
    }
    per_element(j, g, &c, e, &sc, &z);
    j->leaf->affine_vec(x, s->n, sc, z);
}

static void pack_tile(const qx_leaf *l, int bits, const uint8_t *codes, int64_t n, uint8_t *dst)
{
    const int per = 8 / bits;
    const int64_t full = n / per;
    if (bits == 4) {
        l->pack4(codes, full, dst);
    } else {
        for (int64_t i = 0; i < full; i++)
            dst[i] = (uint8_t)((codes[4 * i] & 3) | (codes[4 * i + 1] & 3) << 2 | (codes[4 * i + 2] & 3) << 4 |
                (codes[4 * i + 3] & 3) << 6);
    }
    unsigned rest = 0;
    for (int64_t e = full * per; e < n; e++) rest |= (codes[e] & ((1u << bits) - 1u)) << ((e - full * per) * bits);
    if (full * per < n) dst[full] = (uint8_t)rest;
}

bool qx_quantize_using(const qx_leaf *l, const qx_quant *q, int src_dtype, const void *src, void *dst)
{
    code_job j;
    if (!convertible(l, src_dtype, true) || !code_job_init(&j, l, q)) return false;
    const qx_grid g = flattened(q->grid);
    const int bits = kinds[q->format.codes].bits;
    const bool packed = bits < 8 && !q->unpacked;
    float buf[CHUNK];
    each e;
    uint8_t codes[CHUNK];
    for (int64_t first = 0, total = g.rows * g.cols; first < total; first += CHUNK) {
        const int64_t n = total - first < CHUNK ? total - first : CHUNK;
        const float *x = as_float(l, src_dtype, src, first, n, buf);
        char *out = packed ? (char *)codes : (char *)dst + first * j.bytes;
        span s;
        for (int64_t done = 0; next_span(&g, first, n, &done, &s);) quantize_span(&j, &g, &s, x + s.at, out + s.at * j.bytes, &e);
        if (packed) pack_tile(l, bits, codes, n, (uint8_t *)dst + first / 8 * bits);
        else if (bits < 8) for (int64_t i = 0; i < n; i++) out[i] = (char)((unsigned char)out[i] & ((1u << bits) - 1u));
    }
    return true;
}

static void codes_to_f32(const code_job *j, const void *codes, int64_t first, int64_t n, float *x)
{
    const int dtype = j->q->format.codes, bits = qx_dtype_bits(dtype);
    if (bits >= 8 || !j->q->unpacked) {
        j->leaf->conv()[dtype].to_f32((const char *)codes + first / 8 * bits, n, x);
        return;
    }
    uint8_t packed[CHUNK / 2];
    pack_tile(j->leaf, bits, (const uint8_t *)codes + first, n, packed);
    j->leaf->conv()[dtype].to_f32(packed, n, x);
}

bool qx_dequantize_using(const qx_leaf *l, const qx_quant *q, const void *codes, int dst_dtype, void *dst)
{
    const code_job j = {.leaf = l, .q = q};
    if (!convertible(l, q->format.codes, true) || !convertible(l, dst_dtype, false)) return false;
    const qx_grid g = flattened(q->grid);
    const int dst_bits = qx_dtype_bits(dst_dtype);
    float buf[CHUNK];
    each e;
    for (int64_t first = 0, total = g.rows * g.cols; first < total; first += CHUNK) {
        const int64_t n = total - first < CHUNK ? total - first : CHUNK;
        float *x = dst_dtype == QX_DT_FLOAT ? (float *)dst + first : buf;
        codes_to_f32(&j, codes, first, n, x);
        span s;
        for (int64_t done = 0; next_span(&g, first, n, &done, &s);) affine_span(&j, &g, &s, x + s.at, &e);
        if (x == buf) l->conv()[dst_dtype].from_f32(buf, n, (char *)dst + first / 8 * dst_bits);
    }
    return true;
}

bool qx_fake_quantize_using(const qx_leaf *l, const qx_quant *q, float *x)
{
    code_job j;
    if (!code_job_init(&j, l, q)) return false;
    const qx_grid g = flattened(q->grid);
    qx_quant back = *q;
    back.unpacked = true; /* codes pass through a buffer of whole bytes or words */
    j.q = &back;
    uint16_t codes[CHUNK];
    each e;
    for (int64_t first = 0, total = g.rows * g.cols; first < total; first += CHUNK) {
        const int64_t n = total - first < CHUNK ? total - first : CHUNK;
        span s;
        for (int64_t done = 0; next_span(&g, first, n, &done, &s);)
            quantize_span(&j, &g, &s, x + first + s.at, (char *)codes + s.at * j.bytes, &e);
        codes_to_f32(&j, codes, 0, n, x + first);
        for (int64_t done = 0; next_span(&g, first, n, &done, &s);) affine_span(&j, &g, &s, x + first + s.at, &e);
    }
    return true;
}

bool qx_quantize(const qx_quant *q, int src_dtype, const void *src, void *dst) { return qx_quantize_using(best(), q, src_dtype, src, dst); }
bool qx_dequantize(const qx_quant *q, const void *codes, int dst_dtype, void *dst)
{
    return qx_dequantize_using(best(), q, codes, dst_dtype, dst);
}
bool qx_fake_quantize(const qx_quant *q, float *x) { return qx_fake_quantize_using(best(), q, x); }

void qx_pack(int bits, const uint8_t *codes, int64_t n, uint8_t *dst) { pack_tile(best(), bits, codes, n, dst); }

/* per: constant where it is called, so that the loops are unrolled. */
static inline void unpack_by(int per, unsigned flip, const uint8_t *restrict src, int64_t n, uint8_t *restrict codes)
{
    const int bits = 8 / per;
    const unsigned mask = (1u << bits) - 1u;
    const int64_t whole = n / per;
    for (int64_t i = 0; i < whole; i++)
        for (int j = 0; j < per; j++) codes[i * per + j] = (uint8_t)((((unsigned)src[i] >> (j * bits) & mask) ^ flip) - flip);
    for (int64_t i = whole * per; i < n; i++) codes[i] = (uint8_t)((((unsigned)src[whole] >> (i % per * bits) & mask) ^ flip) - flip);
}

void qx_unpack(int bits, bool sign, const uint8_t *src, int64_t n, uint8_t *codes)
{
    const unsigned flip = sign ? 1u << (bits - 1) : 0u; /* (c ^ flip) - flip extends the sign */
    if (bits == 8) memcpy(codes, src, (size_t)n);
    else if (bits == 4) unpack_by(2, flip, src, n, codes);
    else if (bits == 2) unpack_by(4, flip, src, n, codes);
    else unpack_by(8, flip, src, n, codes);
}
