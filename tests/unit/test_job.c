/* test_job.c - the recipe engine against plain loops written from the formulas: every view, layout, block, format and source type. */
#include "unit.h"

#include <math.h>

#include "kernels/quant.h"
#include "onnx/file/io.h"
#include "pb.h"

typedef struct fixture { qx_ctx *ctx; qx_model *m; float *flat; qx_weight *w; qx_view view; int64_t k; } fixture;

static uint32_t rnd(uint32_t *s) { return *s = *s * 1664525u + 1013904223u; }

/* Stored tensor of n x k elements with a spread of channel sizes. */
static void make(fixture *f, qx_dtype dtype, int rank, const int64_t *dims, qx_view view, int threads)
{
    int64_t numel = 1;
    uint32_t seed = 7;
    f->ctx = qx_ctx_new(&(qx_ctx_options){.threads = threads});
    assert_int_equal(qx_model_new(f->ctx, NULL, &f->m), QX_OK);
    for (int i = 0; i < rank; i++) numel *= dims[i];
    f->flat = calloc((size_t)numel, sizeof *f->flat);
    for (int64_t i = 0; i < numel; i++) f->flat[i] = ((float)(rnd(&seed) >> 8) / 8388608.0f - 1.0f) * (float)(1 + i % 5);
    uint8_t *raw = calloc((size_t)numel, 4);
    assert_true(qx_from_f32(dtype, f->flat, numel, raw));
    assert_true(qx_to_f32(dtype, raw, numel, f->flat));
    assert_int_equal(qx_weight_from_bytes(f->m, dtype, rank, dims, raw, &f->w), QX_OK);
    free(raw);
    f->view = view;
    f->k = view.outer * view.inner;
}

static void drop(fixture *f)
{
    qx_model_free(f->m);
    qx_ctx_free(f->ctx);
    free(f->flat);
}

static int64_t flat_index(const qx_view *v, int64_t r, int64_t c)
{
    const int64_t span = v->span ? v->span : v->n;
    return r / span * span * v->outer * v->inner + (c / v->inner * span + r % span) * v->inner + c % v->inner;
}

/* The canonical matrix after the steps of these tests: columns by 1 + c/8, rows by 2. */
static float element(const fixture *f, bool steps, int64_t r, int64_t c)
{
    float x = f->flat[flat_index(&f->view, r, c)];
    if (steps) x *= 1.0f + (float)c / 8.0f, x *= 2.0f;
    return x;
}

static const qx_step *two_steps(fixture *f)
{
    float *cols = calloc((size_t)f->k, sizeof *cols), *rows = calloc((size_t)f->view.n, sizeof *rows);
    for (int64_t i = 0; i < f->k; i++) cols[i] = 1.0f + (float)i / 8.0f;
    for (int64_t i = 0; i < f->view.n; i++) rows[i] = 2.0f;
    const qx_step *s = qx_step_new(f->m, &qx_step_scale_cols, NULL, qx_arena_memdup(f->m->arena, cols, (size_t)f->k * sizeof *cols));
    s = qx_step_new(f->m, &qx_step_scale_rows, s, qx_arena_memdup(f->m->arena, rows, (size_t)f->view.n * sizeof *rows));
    free(cols), free(rows);
    return s;
}

/* canonical order; float formats: code is the byte */
typedef struct expected { float *x, *scale; int *zero, *code; int64_t blocks; } expected; /* x: the matrix that is coded */

static void cell_range(const fixture *f, const qx_qspec *q, const float *x, int64_t r, int64_t b, float *lo, float *hi)
{
    const int64_t step = q->block > 0 ? q->block : f->k, r0 = q->block == -1 ? 0 : r, r1 = q->block == -1 ? f->view.n : r + 1;
    *lo = *hi = 0;
    for (int64_t i = r0; i < r1; i++)
        for (int64_t c = b * step; c < f->k && c < (b + 1) * step; c++) {
            *lo = fminf(*lo, x[i * f->k + c]);
            *hi = fmaxf(*hi, x[i * f->k + c]);
        }
}

static int code_of(const qx_qspec *q, float x, float scale, int zero)
{
    uint8_t byte;
    if (q->codes == QX_DT_FLOAT8E4M3FN) return qx_f32_to_e4m3(x / scale, 1);
    if (q->codes == QX_DT_FLOAT4E2M1) return qx_f32_to_e2m1(x / scale);
    const int bits = qx_dtype_bits(q->codes), sign = qx_dtype_get(q->codes)->cls == 'I';
    const float lo = sign ? -(float)(1 << (bits - 1)) + (q->narrow ? 1 : 0) : 0,
        hi = sign ? (float)(1 << (bits - 1)) - 1 : (float)(1 << bits) - 1;
    const float v = rintf(x / scale) + (float)zero;
    byte = (uint8_t)(int)fminf(fmaxf(v, lo), hi);
    return byte & ((1 << bits) - 1);
}

static float amax_scale(const qx_qspec *q, float amax)
{
    const float top = q->codes == QX_DT_FLOAT8E4M3FN ? 448 : q->codes == QX_DT_FLOAT4E2M1 ? 6 : q->codes == QX_DT_INT4 ? 7 : 127;
    float s = amax / top;
    if (q->scale == QX_DT_FLOAT16) s = qx_f16_to_f32(qx_f32_to_f16(s));
    if (q->scale == QX_DT_FLOAT8E8M0) s = qx_e8m0_to_f32(qx_f32_to_e8m0_ceil(s));
    return amax > 0 ? s : 1;
}

static expected expect(const fixture *f, const qx_qspec *q, bool steps)
{
    expected e = {.blocks = q->block > 0 ? (f->k + q->block - 1) / q->block : 1};
    const int64_t n = f->view.n;
    e.x = calloc((size_t)(n * f->k), sizeof *e.x);
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < f->k; c++) e.x[r * f->k + c] = element(f, steps, r, c);
    e.scale = calloc((size_t)(n * e.blocks), sizeof *e.scale);
    e.zero = calloc((size_t)(n * e.blocks), sizeof *e.zero);
    e.code = calloc((size_t)(n * f->k), sizeof *e.code);
    float lo = 0, hi = 0;
    for (int64_t r = 0; r < n; r++)
        for (int64_t b = 0; b < e.blocks; b++) {
            if (r == 0 || q->block != -1) cell_range(f, q, e.x, r, b, &lo, &hi);
            float s = amax_scale(q, fmaxf(-lo, hi));
            if (q->zero_point) {
                const float top = (float)((1 << qx_dtype_bits(q->codes)) - 1);
                s = (hi - lo) / top;
                if (q->scale == QX_DT_FLOAT16) s = qx_f16_to_f32(qx_f32_to_f16(s));
                e.zero[r * e.blocks + b] = (int)fminf(fmaxf(rintf(0 - lo / s), 0), top);
            }
            e.scale[r * e.blocks + b] = s;
        }
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < f->k; c++) {
            const int64_t at = r * e.blocks + (q->block > 0 ? c / q->block : 0);
            e.code[r * f->k + c] = code_of(q, e.x[r * f->k + c], e.scale[at], e.zero[at]);
        }
    return e;
}

static int get_bits(const uint8_t *p, int64_t i, int bits) { return p[i * bits / 8] >> (i * bits % 8) & ((1 << bits) - 1); }

static uint8_t *read_part(const fixture *f, const qx_job *j, qx_part part)
{
    assert_non_null(j->part[part]);
    uint8_t *p = calloc(j->part[part]->bytes + 1, 1);
    if (qx_weight_read(f->ctx, j->part[part], p) != QX_OK) fail_msg("%s", qx_ctx_error(f->ctx));
    return p;
}

static void check_codes(const fixture *f, const qx_job *j, const expected *e)
{
    uint8_t *p = read_part(f, j, QX_PART_CODES);
    const int bits = qx_dtype_bits(j->spec.codes), up = j->layout == QX_LAYOUT_NBITS &&
        qx_dtype_get(j->spec.codes)->cls == 'I' ? 1 << (bits - 1) : 0;
    const int64_t row = j->layout == QX_LAYOUT_NBITS ? e->blocks * j->spec.block : f->k;
    for (int64_t r = 0; r < f->view.n; r++)
        for (int64_t c = 0; c < row; c++) {
            const int64_t at = j->layout == QX_LAYOUT_SAME ? flat_index(&f->view, r, c) : r * row + c;
            const int zero = e->zero[r * e->blocks + e->blocks - 1];
            const int want = ((c < f->k ? e->code[r * f->k + c] : zero) + up) & ((1 << bits) - 1);
            if (get_bits(p, at, bits) != want)
                fail_msg("row %ld column %ld: code %d, want %d", (long)r, (long)c, get_bits(p, at, bits), want);
        }
    free(p);
}

static void check_scales(const fixture *f, const qx_job *j, const expected *e)
{
    uint8_t *p = read_part(f, j, QX_PART_SCALE), *z = j->spec.zero_point ? read_part(f, j, QX_PART_ZERO) : NULL;
    const int64_t n = f->view.n, count = j->part[QX_PART_SCALE]->numel;
    const int bits = qx_dtype_bits(j->spec.codes);
    float *s = calloc((size_t)count, sizeof *s);
    assert_true(qx_to_f32(j->spec.scale, p, count, s));
    assert_int_equal(count, j->spec.block == -1 ? 1 : n * e->blocks);
    for (int64_t r = 0; r < (j->spec.block == -1 ? 1 : n); r++)
        for (int64_t b = 0; b < e->blocks; b++) {
            const bool across = j->layout == QX_LAYOUT_SAME && f->view.outer > 1;
            const int64_t span = f->view.span ? f->view.span : n,
                at = across ? r / span * span * e->blocks + b * span + r % span : r * e->blocks + b;
            assert_float_equal(s[at], e->scale[r * e->blocks + b], 0);
            if (z && j->layout == QX_LAYOUT_NBITS) {
                const int64_t zrow = (e->blocks * bits + 7) / 8;
                assert_int_equal(get_bits(z + r * zrow, b, bits), e->zero[r * e->blocks + b]);
            } else if (z) {
                assert_int_equal(get_bits(z, at, bits), e->zero[r * e->blocks + b]);
            }
        }
    free(s), free(p), free(z);
}

static void check_dequantized(const fixture *f, const qx_job *j, const expected *e)
{
    const int64_t first = f->view.n > 3 ? 3 : 0, rows = f->view.n - first < 2 ? 1 : 2;
    float *x = calloc((size_t)(rows * f->k), sizeof *x);
    if (qx_job_rows_dequantized(f->ctx, j, first, rows, x) != QX_OK) fail_msg("%s", qx_ctx_error(f->ctx));
    for (int64_t i = 0; i < rows * f->k; i++) {
        const int64_t r = first + i / f->k, c = i % f->k, at = r * e->blocks + (j->spec.block > 0 ? c / j->spec.block : 0);
        const int bits = qx_dtype_bits(j->spec.codes);
        const int code = e->code[r * f->k + c];
        float v;
        if (j->spec.codes == QX_DT_FLOAT8E4M3FN) v = qx_e4m3_to_f32((uint8_t)code);
        else if (j->spec.codes == QX_DT_FLOAT4E2M1) v = qx_e2m1_to_f32((uint8_t)code);
        else v = (float)((qx_dtype_get(j->spec.codes)->cls == 'I' && code >> (bits - 1) ? code - (1 << bits) : code) - e->zero[at]);
        assert_float_equal(x[i], v * e->scale[at], 0);
    }
    free(x);
}

/* Of small weights whose rows start at bytes every row is measured. */
static void check_error(const fixture *f, const qx_job *j, const expected *e)
{
    const int bits = qx_dtype_bits(j->spec.codes);
    const bool whole = f->k * bits % 8 == 0 && f->view.n * bits % 8 == 0 && f->view.n * f->k <= 1 << 16;
    double signal = 0, noise = 0;
    float *x = calloc((size_t)(f->view.n * f->k), sizeof *x);
    if (qx_job_rows_dequantized(f->ctx, j, 0, f->view.n, x) != QX_OK) fail_msg("%s", qx_ctx_error(f->ctx));
    for (int64_t i = 0; i < f->view.n * f->k; i++) {
        const double v = (double)e->x[i];
        signal += v * v;
        noise += (v - (double)x[i]) * (v - (double)x[i]);
    }
    const double want = 10 * log10(signal / noise), got = qx_job_sqnr(j);
    if (!(fabs(got - want) < (whole ? 1e-3 : 4)) && !(isinf(want) && isinf(got))) fail_msg("%g dB, want %g dB", got, want);
    free(x);
}

static void one(qx_dtype src, int rank, const int64_t *dims, qx_view view, qx_qspec q, qx_layout layout, bool steps)
{
    fixture f;
    qx_job *j;
    expected e = {0};
    for (int threads = 1; threads <= 3; threads += 2) {
        make(&f, src, rank, dims, view, threads);
        if (qx_job_new(f.m, f.w, &f.view, steps ? two_steps(&f) : NULL, &q, layout, &j) != QX_OK) fail_msg("%s", qx_ctx_error(f.ctx));
        if (threads == 1) e = expect(&f, &q, steps);
        assert_true(isnan(qx_job_sqnr(j)));
        check_codes(&f, j, &e);
        check_error(&f, j, &e);
        check_scales(&f, j, &e);
        check_dequantized(&f, j, &e);
        drop(&f);
    }
    free(e.x), free(e.scale), free(e.zero), free(e.code);
}

static const struct geometry { int rank; int64_t dims[4]; qx_view view; } geometries[] = {
    {2, {37, 70}, {37, 1, 70, 0}},             /* [N,K] */
    {2, {70, 37}, {37, 70, 1, 0}},             /* [K,N], odd n */
    {2, {700, 1300}, {1300, 700, 1, 0}},     /* [K,N], several tiles */
    {2, {1300, 700}, {1300, 1, 700, 0}},
    {4, {20, 6, 3, 3}, {20, 1, 54, 0}},        /* Conv */
    {4, {6, 20, 3, 3}, {20, 6, 9, 0}},      /* ConvTranspose */
    {3, {5, 70, 12}, {60, 70, 1, 12}},      /* experts [E,K,N] */
    {3, {5, 70, 7}, {35, 70, 1, 7}},        /* of an odd number of channels */
    {3, {5, 12, 70}, {60, 1, 70, 0}},       /* experts [E,N,K] */
    {3, {3, 520, 700}, {2100, 520, 1, 700}}, /* several tiles, which straddle experts */
};

static void formats_per_row(void **state)
{
    (void)state;
    static const struct { qx_dtype codes, scale; bool narrow; } fmt[] = {
        {QX_DT_INT8, QX_DT_FLOAT, true}, {QX_DT_INT4, QX_DT_FLOAT16, false}, {QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT, false}};
    for (size_t g = 0; g < sizeof geometries / sizeof *geometries; g++)
        for (size_t i = 0; i < 3; i++)
            for (int64_t block = -1; block <= 0; block++)
                for (int steps = 0; steps < (geometries[g].view.n > 1000 ||
                                             geometries[g].view.outer * geometries[g].view.inner > 1000 ? 1 : 2); steps++) {
                    const qx_qspec q = {.codes = fmt[i].codes, .scale = fmt[i].scale, .narrow = fmt[i].narrow, .block = block};
                    const struct geometry *p = &geometries[g];
                    one(steps ? QX_DT_FLOAT : QX_DT_FLOAT16, p->rank, p->dims, p->view, q, QX_LAYOUT_SAME, steps);
                    one(QX_DT_BFLOAT16, p->rank, p->dims, p->view, q, QX_LAYOUT_NK, steps);
                }
}

static void blocks(void **state)
{
    (void)state;
    static const struct { qx_dtype codes, scale; bool zero; } fmt[] = {
        {QX_DT_INT4, QX_DT_FLOAT, false}, {QX_DT_UINT4, QX_DT_FLOAT16, true}, {QX_DT_INT8, QX_DT_FLOAT, false},
            {QX_DT_UINT8, QX_DT_FLOAT, true}, {QX_DT_FLOAT4E2M1, QX_DT_FLOAT8E8M0, false}};
    for (size_t g = 0; g < sizeof geometries / sizeof *geometries; g++)
        for (size_t i = 0; geometries[g].rank < 4 && i < sizeof fmt / sizeof *fmt; i++)
            for (int l = 0; l < 3; l++) {
                const qx_qspec q = {.codes = fmt[i].codes, .scale = fmt[i].scale, .zero_point = fmt[i].zero, .block = 32};
                const struct geometry *p = &geometries[g];
                if (l == 2 && qx_dtype_is_float(q.codes)) continue;
                one(QX_DT_FLOAT, p->rank, p->dims, p->view, q, (qx_layout)l, p->view.n < 100);
            }
}

/* A [K,N] weight and its transpose are the same matrix: whatever the walk (storage in panels of channels, channels), the parts
 * that lie channel by channel have the same bytes. Wide enough for several panels, narrow ones at the end, and blocks that k does
 * not fill. */
static void walks_agree(void **state)
{
    (void)state;
    static const struct { qx_dtype codes, scale; bool zero; int64_t block; } fmt[] = {
        {QX_DT_INT4, QX_DT_FLOAT16, false, 32}, {QX_DT_INT4, QX_DT_FLOAT16, false, 128}, {QX_DT_UINT4, QX_DT_FLOAT16, true, 32},
        {QX_DT_FLOAT4E2M1, QX_DT_FLOAT8E4M3FN, false, 16},
        {QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT8E8M0, false, 32}, {QX_DT_INT8, QX_DT_FLOAT, false, 0}};
    static const int64_t sizes[][2] = {{4173, 144}, {130, 1000}};
    for (size_t g = 0; g < 2; g++)
        for (size_t i = 0; i < sizeof fmt / sizeof *fmt; i++)
            for (int k = 0; k < 2 * 2; k++) {
                const bool nbits = k & 1, weighted = k & 2;
                const int64_t n = sizes[g][0], kk = sizes[g][1];
                qx_qspec q = {.codes = fmt[i].codes, .scale = fmt[i].scale, .zero_point = fmt[i].zero, .block = fmt[i].block,
                              .rule = fmt[i].block ? QX_SCALE_SEARCH : QX_SCALE_AMAX, .allow_negative_scale = true};
                fixture a;
                qx_job *ja, *jb;
                qx_weight *turned;
                if (nbits && (qx_dtype_is_float(q.codes) || !q.block)) continue;
                if (weighted && (g == 0 || !q.block)) continue;
                make(&a, QX_DT_FLOAT16, 2, (int64_t[]){kk, n}, (qx_view){n, kk, 1, 0}, 2);
                float *t = calloc((size_t)(n * kk), sizeof *t), *w = calloc((size_t)kk, sizeof *w);
                for (int64_t r = 0; r < n; r++)
                    for (int64_t c = 0; c < kk; c++) t[r * kk + c] = a.flat[c * n + r];
                for (int64_t c = 0; c < kk; c++) w[c] = 1.0f + (float)(c % 5);
                if (weighted) q.importance = w;
                assert_int_equal(qx_weight_from_bytes(a.m, QX_DT_FLOAT, 2, (int64_t[]){n, kk}, t, &turned), QX_OK);
                const qx_layout layout = nbits ? QX_LAYOUT_NBITS : QX_LAYOUT_NK;
                assert_int_equal(qx_job_new(a.m, a.w, &a.view, NULL, &q, layout, &ja), QX_OK);
                assert_int_equal(qx_job_new(a.m, turned, &(qx_view){n, 1, kk, 0}, NULL, &q, layout, &jb), QX_OK);
                for (int part = 0; part < QX_PART_COUNT_; part++) {
                    assert_int_equal(ja->part[part] != NULL, jb->part[part] != NULL);
                    if (!ja->part[part]) continue;
                    uint8_t *got = read_part(&a, ja, (qx_part)part), *want = read_part(&a, jb, (qx_part)part);
                    assert_int_equal(ja->part[part]->bytes, jb->part[part]->bytes);
                    if (memcmp(got, want, ja->part[part]->bytes))
                        fail_msg("format %zu of %ld x %ld, part %d differs", i, (long)n, (long)kk, part);
                    free(got), free(want);
                }
                free(t), free(w);
                drop(&a);
            }
}

/* Storage order and channel order must agree: a rule that forces channels gives the same bytes where the rules coincide. */
static void given_scales_match_amax(void **state)
{
    (void)state;
    for (size_t g = 0; g < 2; g++) {
        fixture f;
        qx_job *a, *b;
        const struct geometry *p = &geometries[g];
        make(&f, QX_DT_FLOAT, p->rank, p->dims, p->view, 2);
        qx_qspec q = {.codes = QX_DT_INT4, .scale = QX_DT_FLOAT, .block = 16};
        expected e = expect(&f, &q, false);
        assert_int_equal(qx_job_new(f.m, f.w, &f.view, NULL, &q, QX_LAYOUT_SAME, &a), QX_OK);
        q.rule = QX_SCALE_GIVEN;
        q.given = e.scale;
        assert_int_equal(qx_job_new(f.m, f.w, &f.view, NULL, &q, QX_LAYOUT_SAME, &b), QX_OK);
        for (int part = QX_PART_CODES; part <= QX_PART_SCALE; part++) {
            uint8_t *pa = read_part(&f, a, (qx_part)part), *qb = read_part(&f, b, (qx_part)part);
            assert_memory_equal(pa, qb, a->part[part]->bytes);
            free(pa), free(qb);
        }
        free(e.x), free(e.scale), free(e.zero), free(e.code);
        drop(&f);
    }
}

static void casts_chain(void **state)
{
    (void)state;
    for (size_t g = 0; g < sizeof geometries / sizeof *geometries; g++) {
        fixture f;
        qx_job *half, *codes, *direct;
        const struct geometry *p = &geometries[g];
        make(&f, QX_DT_FLOAT, p->rank, p->dims, p->view, 2);
        qx_qspec cast = {.codes = QX_DT_FLOAT16}, q = {.codes = QX_DT_INT8, .scale = QX_DT_FLOAT};
        assert_int_equal(qx_job_new(f.m, f.w, &f.view, NULL, &cast, QX_LAYOUT_SAME, &half), QX_OK);
        uint16_t *h = (uint16_t *)read_part(&f, half, QX_PART_CODES);
        for (int64_t i = 0; i < f.w->numel; i++) assert_int_equal(h[i], qx_f32_to_f16(f.flat[i]));
        qx_weight *stored;
        assert_int_equal(qx_weight_from_bytes(f.m, QX_DT_FLOAT16, p->rank, p->dims, h, &stored), QX_OK);
        assert_int_equal(qx_job_new(f.m, half->part[QX_PART_CODES], &f.view, NULL, &q, QX_LAYOUT_SAME, &codes), QX_OK);
        assert_int_equal(qx_job_new(f.m, stored, &f.view, NULL, &q, QX_LAYOUT_SAME, &direct), QX_OK);
        uint8_t *a = read_part(&f, codes, QX_PART_CODES), *b = read_part(&f, direct, QX_PART_CODES);
        assert_memory_equal(a, b, codes->part[QX_PART_CODES]->bytes);
        free(a), free(b), free(h);
        drop(&f);
    }
}

/* Inputs that cannot be read from the middle: codes of another job, in another order; and varints in the model file. */
static void awkward_inputs(void **state)
{
    (void)state;
    fixture f;
    qx_job *codes, *floats;
    const int64_t dims[2] = {70, 37};
    make(&f, QX_DT_FLOAT, 2, dims, (qx_view){37, 70, 1, 0}, 2);
    const qx_qspec q = {.codes = QX_DT_INT8, .scale = QX_DT_FLOAT}, cast = {.codes = QX_DT_FLOAT};
    assert_int_equal(qx_job_new(f.m, f.w, &f.view, NULL, &q, QX_LAYOUT_SAME, &codes), QX_OK);
    assert_int_equal(qx_job_new(f.m, codes->part[QX_PART_CODES], &f.view, NULL, &cast, QX_LAYOUT_NK, &floats), QX_OK);
    int8_t *c = (int8_t *)read_part(&f, codes, QX_PART_CODES);
    float *x = (float *)read_part(&f, floats, QX_PART_CODES), row[70];
    for (int64_t r = 0; r < 37; r++)
        for (int64_t k = 0; k < 70; k++) assert_float_equal(x[r * 70 + k], c[k * 37 + r], 0);
    assert_int_equal(qx_rows_read(f.ctx, codes->part[QX_PART_CODES], &f.view, NULL, 5, 1, row), QX_OK);
    assert_memory_equal(row, x + 5 * 70, sizeof row);
    free(c), free(x);
    drop(&f);
}

static void varint_input(void **state)
{
    (void)state;
    enum { R = 40, C = 60 };
    qx_ctx *ctx = qx_ctx_new(NULL);
    pb t = pb_tensor("w", QX_DT_FLOAT16, 2, (int64_t[]){R, C}), packed = {0};
    for (int i = 0; i < R * C; i++) pb_varint(&packed, qx_f32_to_f16((float)(i % 97) - 48.0f));
    pb_msg(&t, 5, &packed);
    pb bytes = pb_model_with(&t);
    fixture f = {.ctx = ctx, .view = {R, 1, C, 0}};
    qx_job *j;
    assert_int_equal(qx_model_read_bytes(ctx, bytes.p, bytes.n, NULL, &(qx_read_options){.skip_check = true}, &f.m), QX_OK);
    const qx_qspec cast = {.codes = QX_DT_FLOAT};
    assert_int_equal(f.m->graph->inits[0]->init->src.kind, QX_SRC_TYPED);
    assert_int_equal(qx_job_new(f.m, f.m->graph->inits[0]->init, &f.view, NULL, &cast, QX_LAYOUT_SAME, &j), QX_OK);
    float *x = (float *)read_part(&f, j, QX_PART_CODES);
    for (int i = 0; i < R * C; i++) assert_float_equal(x[i], (float)(i % 97) - 48.0f, 0);
    free(x);
    pb_free(&bytes);
    drop(&f);
}

/* The standard's worked example of NVFP4 (blocks of 16, tensor amax 1.6). */
static void nvfp4_vector(void **state)
{
    (void)state;
    static const uint8_t want[8] = {0xFF, 0xEE, 0xCD, 0xAB, 0x20, 0x43, 0x65, 0x76};
    const int64_t dims[2] = {2, 16};
    float x[32] = {0};
    fixture f = {.ctx = qx_ctx_new(NULL)};
    qx_job *j;
    for (int i = 0; i < 16; i++) x[i] = (float)(i - 8) / 100.0f;
    x[16] = 1.6f;
    assert_int_equal(qx_model_new(f.ctx, NULL, &f.m), QX_OK);
    assert_int_equal(qx_weight_from_bytes(f.m, QX_DT_FLOAT, 2, dims, x, &f.w), QX_OK);
    const qx_qspec q = {.codes = QX_DT_FLOAT4E2M1, .scale = QX_DT_FLOAT8E4M3FN, .block = 16};
    assert_int_equal(qx_job_new(f.m, f.w, &(qx_view){2, 1, 16, 0}, NULL, &q, QX_LAYOUT_SAME, &j), QX_OK);
    uint8_t *c = read_part(&f, j, QX_PART_CODES), *s = read_part(&f, j, QX_PART_SCALE), *s2 = read_part(&f, j, QX_PART_SCALE2);
    assert_memory_equal(c, want, 8);
    assert_int_equal(s[0], 0x5B);
    float global;
    memcpy(&global, s2, 4);
    assert_float_equal(global, 1.6f / (6.0f * 448.0f), 0);
    free(c), free(s), free(s2);
    drop(&f);
}

static void not_finite(void **state)
{
    (void)state;
    const int64_t dims[2] = {2, 4};
    const float x[8] = {1, NAN, INFINITY, -2, 0, 0, 0, 0};
    fixture f = {.ctx = qx_ctx_new(NULL)};
    qx_job *j;
    assert_int_equal(qx_model_new(f.ctx, NULL, &f.m), QX_OK);
    assert_int_equal(qx_weight_from_bytes(f.m, QX_DT_FLOAT, 2, dims, x, &f.w), QX_OK);
    const qx_qspec q = {.codes = QX_DT_INT8, .scale = QX_DT_FLOAT};
    assert_int_equal(qx_job_new(f.m, f.w, &(qx_view){2, 1, 4, 0}, NULL, &q, QX_LAYOUT_SAME, &j), QX_OK);
    uint8_t *s = read_part(&f, j, QX_PART_SCALE);
    float scale[2];
    memcpy(scale, s, 8);
    assert_float_equal(scale[0], 2.0f / 127.0f, 0); /* neither NaN nor Inf is in it */
    assert_float_equal(scale[1], 1.0f, 0);          /* a channel of zeros */
    assert_int_equal(qx_ctx_warnings(f.ctx), 1);
    free(s);
    drop(&f);
}

/* Scales that are searched are those of a weight that has zeros where this one is not finite. */
static void not_finite_searched(void **state)
{
    (void)state;
    enum { N = 2, K = 32 };
    const int64_t dims[2] = {N, K};
    const qx_qspec q = {.codes = QX_DT_INT4, .scale = QX_DT_FLOAT, .block = 16, .rule = QX_SCALE_SEARCH, .allow_negative_scale = true};
    uint8_t *scales[2];
    for (int clean = 0; clean < 2; clean++) {
        float x[N * K];
        fixture f = {.ctx = qx_ctx_new(NULL)};
        qx_job *j;
        for (int i = 0; i < N * K; i++) x[i] = sinf((float)(i * i));
        x[3] = clean ? 0 : NAN;
        x[20] = clean ? 0 : INFINITY;
        x[N * K - 1] = clean ? 0 : -INFINITY;
        assert_int_equal(qx_model_new(f.ctx, NULL, &f.m), QX_OK);
        assert_int_equal(qx_weight_from_bytes(f.m, QX_DT_FLOAT, 2, dims, x, &f.w), QX_OK);
        assert_int_equal(qx_job_new(f.m, f.w, &(qx_view){N, 1, K, 0}, NULL, &q, QX_LAYOUT_SAME, &j), QX_OK);
        scales[clean] = read_part(&f, j, QX_PART_SCALE);
        assert_int_equal(qx_ctx_warnings(f.ctx), clean ? 0 : 1);
        drop(&f);
    }
    assert_memory_equal(scales[0], scales[1], N * K / 16 * sizeof(float));
    free(scales[0]), free(scales[1]);
}

static void refusals(void **state)
{
    (void)state;
    fixture f;
    qx_job *j;
    const int64_t dims[2] = {6, 10};
    make(&f, QX_DT_FLOAT, 2, dims, (qx_view){6, 1, 10, 0}, 1);
    qx_qspec q = {.codes = QX_DT_INT8, .scale = QX_DT_FLOAT};
    assert_int_equal(qx_job_new(f.m, f.w, &(qx_view){6, 1, 11, 0}, NULL, &q, QX_LAYOUT_SAME, &j), QX_E_SHAPE);
    assert_non_null(strstr(qx_ctx_error(f.ctx), "60 elements"));
    q.codes = QX_DT_INT64;
    assert_int_equal(qx_job_new(f.m, f.w, &f.view, NULL, &q, QX_LAYOUT_SAME, &j), QX_E_TYPE);
    q = (qx_qspec){.codes = QX_DT_INT4, .scale = QX_DT_FLOAT, .block = 3};
    assert_int_equal(qx_job_new(f.m, f.w, &f.view, NULL, &q, QX_LAYOUT_NBITS, &j), QX_E_SHAPE);
    float x[10];
    assert_int_equal(qx_rows_read(f.ctx, f.w, &f.view, NULL, 6, 1, x), QX_E_SHAPE);
    drop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_per_row), cmocka_unit_test(blocks), cmocka_unit_test(walks_agree),
        cmocka_unit_test(given_scales_match_amax), cmocka_unit_test(casts_chain), cmocka_unit_test(awkward_inputs),
        cmocka_unit_test(varint_input),
        cmocka_unit_test(nvfp4_vector), cmocka_unit_test(not_finite), cmocka_unit_test(not_finite_searched), cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
