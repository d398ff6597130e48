/* test_gemm.c - float products and attention in blocks against double arithmetic: sizes around every tile, strides, NaN and Inf,
 * masks, windows, sinks. */
#include "kernels.h"

#include "kernels/attention.h"
#include "kernels/dot.h"
#include "kernels/dtype.h"
#include "kernels/gemm.h"
#include "kernels/int8.h"
#include "kernels/matmul.h"

typedef struct dims { int64_t m, n, k; } dims;
static const dims sizes[] = {{1, 1, 1}, {1, 32, 7}, {3, 33, 64}, {6, 31, 65}, {13, 70, 300}, {64, 32, 17}, {65, 5, 520}, {2, 64, 0}};
enum { ROOM = 70 * 600 };

static void fill_normal(float *x, int64_t n, uint32_t *s)
{
    for (int64_t i = 0; i < n; i++) x[i] = rng_normal(s);
}

static void expect(const char *what, float got, double want, double scale, int64_t i)
{
    const bool good = isnan(want) ? isnan(got) : isinf(want) ? (double)got == want
        : fabs((double)got - want) <= 1e-5 * (1 + fabs(want) + scale);
    if (!good) fail_msg("%s: element %lld is %.9g, expected %.9g", what, (long long)i, (double)got, want);
}

static void products(void **state)
{
    static float a[ROOM], b[ROOM], c[ROOM], before[ROOM], packed[ROOM + 64];
    uint32_t s = 7;
    (void)state;
    for (int t = 0; t < COUNT(sizes); t++)
        for (int mode = 0; mode < 16; mode++) {
            const dims *z = &sizes[t];
            const bool ta = mode & 1, tb = mode & 2, add = mode & 4, wild = (mode & 8) && z->k > 2;
            fill_normal(a, z->m * z->k, &s);
            fill_normal(b, z->k * z->n, &s);
            fill_normal(before, z->m * z->n, &s);
            if (wild) a[ta ? z->m * (z->k - 1) : z->k - 1] = INFINITY; /* row 0 */
            if (wild) b[tb ? 1 : z->n] = NAN;                           /* row 1 of column 0 */
            memcpy(c, before, sizeof c);
            const int64_t ra = ta ? 1 : z->k, ca = ta ? z->m : 1, rb = tb ? 1 : z->n, cb = tb ? z->k : 1;
            const qx_matmul p = {z->m, z->n, z->k, a, ra, ca, b, rb, cb, c, z->n, 0.5f, add ? 2.0f : 0.0f};
            for (int64_t i = 0; i < qx_matmul_pieces(&p); i++) qx_matmul_piece(&p, i);
            for (int64_t i = 0; i < z->m; i++)
                for (int64_t j = 0; j < z->n; j++) {
                    double want = 0;
                    for (int64_t k = 0; k < z->k; k++) want += (double)a[i * ra + k * ca] * (double)b[k * rb + j * cb];
                    want = 0.5 * want + (add ? 2 * (double)before[i * z->n + j] : 0);
                    expect("matmul", c[i * z->n + j], want, sqrt((double)z->k), i * z->n + j);
                }
            if (z->k == 0) continue;
            memcpy(c, before, sizeof c);
            for (int64_t q = 0; q * QX_GEMM_NR < z->n; q++) qx_gemm_pack_panel(b, z->k, z->n, rb, cb, q, packed + q * QX_GEMM_NR * z->k);
            const qx_sgemm g = {.m = z->m, .k = z->k, .n = z->n, .x = a, .ldx = ra, .cx = ca, .panels = packed,
                                .step = QX_GEMM_NR * z->k, .y = c, .ldy = z->n, .alpha = 1, .add = add};
            qx_sgemm_run(&g);
            for (int64_t i = 0; i < z->m * z->n; i++) {
                double want = add ? (double)before[i] : 0;
                for (int64_t k = 0; k < z->k; k++) want += (double)a[i / z->n * ra + k * ca] * (double)b[k * rb + i % z->n * cb];
                expect("panel", c[i], want, sqrt((double)z->k), i);
            }
        }
}

/* Every output has the bits of one row by one panel: however many rows and columns there are, whatever k is cut into, and when
 * panels are made on the fly. Nothing beside the rows and columns is written. */
enum { CUT_M = 263, CUT_K = 2 * QX_GEMM_K + 37, CUT_N = 75, CUT_LD = CUT_N + 3, CUT_PANELS = 3 };
static float cut_w[CUT_PANELS * QX_GEMM_NR * CUT_K];

static void made(const void *user, int64_t k0, int64_t kc, int64_t j0, int64_t nc, float *dst)
{
    const qx_sgemm *g = user;
    assert_true(kc <= QX_GEMM_K && k0 % 32 == 0 && j0 % QX_GEMM_NR == 0 && nc <= g->n - j0);
    memcpy(dst, cut_w + (j0 * g->k + k0 * QX_GEMM_NR), (size_t)(kc * QX_GEMM_NR) * sizeof *dst);
}

static void cuts_using(qx_isa isa)
{
    static float x[CUT_M * CUT_K], w[CUT_K * CUT_N], bias[CUT_N], want[CUT_M * CUT_LD], got[CUT_M * CUT_LD];
    static const int64_t ms[] = {1, 5, 6, 7, 14, 15, 29, 113, 257, 263}, ns[] = {1, 32, 33, 75}, ks[] = {1, 8, 9, 385, 512, CUT_K};
    uint32_t s = 23;
    fill_normal(x, CUT_M * CUT_K, &s), fill_normal(w, CUT_K * CUT_N, &s), fill_normal(bias, CUT_N, &s);
    for (int t = 0; t < COUNT(ms) * COUNT(ns) * COUNT(ks); t++) {
        const int64_t m = ms[t % COUNT(ms)], n = ns[t / COUNT(ms) % COUNT(ns)], k = ks[t / COUNT(ms) / COUNT(ns)];
        for (int64_t p = 0; p * QX_GEMM_NR < n; p++) qx_gemm_pack_panel(w, k, n, CUT_N, 1, p, cut_w + p * QX_GEMM_NR * k);
        for (int mode = 0; mode < 8; mode++) {
            qx_sgemm g = {.m = m, .k = k, .n = n, .x = x, .ldx = mode & 4 ? 1 : k, .cx = mode & 4 ? CUT_M : 1, .panels = cut_w,
                          .step = QX_GEMM_NR * k, .bias = mode & 1 ? bias : NULL, .y = got, .ldy = CUT_LD, .alpha = 1, .add = mode & 2};
            for (int64_t i = 0; i < CUT_M * CUT_LD; i++) want[i] = got[i] = (float)(i % 7);
            for (int64_t r = 0; r < m; r++)
                for (int64_t p = 0; p * QX_GEMM_NR < n; p++) {
                    qx_sgemm one = g;
                    one.m = 1, one.n = n - p * QX_GEMM_NR < QX_GEMM_NR ? n - p * QX_GEMM_NR : QX_GEMM_NR;
                    one.x += r * g.ldx, one.panels += p * g.step, one.y = want + r * CUT_LD + p * QX_GEMM_NR;
                    if (one.bias) one.bias += p * QX_GEMM_NR;
                    qx_sgemm_using(isa, &one);
                }
            qx_sgemm_using(isa, &g);
            assert_memory_equal(got, want, sizeof want);
            for (int64_t r = 0; r < m; r += 5)
                for (int64_t j = 0; j < n; j += 3) {
                    double sum = g.add ? (double)((r * CUT_LD + j) % 7) : g.bias ? (double)bias[j] : 0.0;
                    for (int64_t i = 0; i < k; i++) sum += (double)x[r * g.ldx + i * g.cx] * (double)w[i * CUT_N + j];
                    expect("cut", got[r * CUT_LD + j], sum, sqrt((double)k), r * CUT_LD + j);
                }
            for (int64_t i = 0; i < CUT_M * CUT_LD; i++) got[i] = (float)(i % 7);
            g.make = made, g.user = &g;
            qx_sgemm_using(isa, &g);
            assert_memory_equal(got, want, sizeof want);
        }
    }
}

static void cuts(void **state)
{
    (void)state;
    for (int isa = QX_ISA_BASE; isa <= (int)qx_isa_best(); isa++) cuts_using((qx_isa)isa);
}

static void integer_rows(void **state)
{
    static int16_t x[600];
    static int8_t w[600 * 70];
    int32_t acc[70];
    uint32_t s = 17;
    (void)state;
    for (int t = 0; t < COUNT(sizes); t++)
        for (int mode = 0; mode < 4; mode++) {
            const int64_t k = sizes[t].k, n = sizes[t].n, row = mode & 1 ? 1 : n, col = mode & 1 ? k : 1;
            for (int64_t i = 0; i < k; i++)
                x[i] = mode & 2 ? (int16_t)(rng_next(&s) % 2 ? 255 : -255) : (int16_t)(rng_next(&s) % 511) - 255;
            for (int64_t i = 0; i < k * n; i++) w[i] = mode & 2 ? (int8_t)(rng_next(&s) % 2 ? 127 : -128) : (int8_t)rng_next(&s);
            qx_int8_row(x, w, k, n, row, col, acc);
            for (int64_t j = 0; j < n; j++) {
                int64_t want = 0;
                for (int64_t i = 0; i < k; i++) want += (int64_t)x[i] * w[i * row + j * col];
                assert_true(acc[j] == want);
            }
        }
}

/* ---- Attention ---- */

typedef struct acase { int64_t rows, keys, d, dv; } acase;
static const acase shapes[] = {{1, 1, 1, 1}, {1, 300, 64, 64}, {5, 257, 33, 31}, {8, 7, 16, 5}, {49, 255, 8, 64}, {97, 256, 40, 33},
                               {130, 600, 16, 16}};
enum { MASK = 1, KEEP = 2, CAUSAL = 4, SINK = 8, CAP = 16, TURNED = 32, NAN_EMPTY = 64, MODES = 128 };

/* Row i of the attention that h describes, in double; false when it sees no key. */
static bool row_of(const qx_attn_head *h, int64_t i, double *s, double *y)
{
    double top = h->has_sink ? (double)h->sink : -INFINITY, sum = 0;
    bool seen = h->has_sink;
    for (int64_t j = 0; j < h->keys; j++) {
        double dot = 0;
        for (int64_t c = 0; c < h->d; c++) dot += (double)h->q[i * h->ldq + c] * (double)((const float *)h->k)[j * h->ldk + c * h->kc];
        s[j] = dot * (double)h->scale;
        if (h->softcap > 0) s[j] = (double)h->softcap * tanh(s[j] / (double)h->softcap);
        if (h->mask) s[j] += (double)h->mask[i * h->ld_mask + j];
        if (h->keep && !h->keep[i * h->ld_keep + j]) s[j] = -INFINITY;
        if ((h->first != INT64_MIN && j < i + h->first) || (h->last != INT64_MAX && j > i + h->last)) s[j] = -INFINITY;
        top = s[j] > top ? s[j] : top;
        seen = seen || s[j] > -INFINITY;
    }
    for (int64_t c = 0; c < h->dv; c++) y[c] = 0;
    if (!seen) return false;
    if (h->has_sink) sum = exp((double)h->sink - top);
    for (int64_t j = 0; j < h->keys; j++) sum += s[j] = exp(s[j] - top);
    for (int64_t j = 0; j < h->keys; j++)
        for (int64_t c = 0; c < h->dv; c++) y[c] += s[j] / sum * (double)((const float *)h->v)[j * h->ldv + c];
    return true;
}

static void one_attention(const acase *a, int mode, uint32_t *seed)
{
    static float q[130 * 70], k[600 * 70], v[600 * 70], y[130 * 70], mask[130 * 600], scratch[1 << 18];
    static uint8_t keep[130 * 600];
    double s[600], want[70];
    fill_normal(q, COUNT(q), seed);
    fill_normal(k, COUNT(k), seed);
    fill_normal(v, COUNT(v), seed);
    fill_normal(mask, COUNT(mask), seed);
    for (int i = 0; i < COUNT(keep); i++) keep[i] = rng_next(seed) % 4 != 0;
    for (int64_t j = 0; j < a->keys; j++) keep[(a->rows / 2) * a->keys + j] = 0; /* a row that sees nothing */
    if (mode & MASK) mask[3 % (a->rows * a->keys)] = -INFINITY;
    qx_attn_head h = {.rows = a->rows, .keys = a->keys, .d = a->d, .dv = a->dv, .q = q, .ldq = a->d + 2, .k = k,
                      .ldk = mode & TURNED ? 1 : a->d + 3, .kc = mode & TURNED ? a->keys : 1,
                      .v = v, .ldv = a->dv + 1, .y = y, .ldy = a->dv + 4, .scale = 0.3f, .softcap = mode & CAP ? 0.8f : 0.0f,
                      .mask = mode & MASK ? mask : NULL, .ld_mask = a->keys,
                      .keep = mode & KEEP ? keep : NULL, .ld_keep = a->keys, .first = mode & CAUSAL ? -5 : INT64_MIN,
                      .last = mode & CAUSAL ? 2 : INT64_MAX,
                      .has_sink = mode & SINK, .sink = 0.7f, .nan_when_empty = mode & NAN_EMPTY};
    assert_true(qx_attn_scratch(a->rows, a->d, a->dv) <= COUNT(scratch));
    qx_attn_rows(&h, scratch);
    for (int64_t i = 0; i < a->rows; i++) {
        const bool seen = row_of(&h, i, s, want);
        for (int64_t c = 0; c < a->dv; c++)
            expect("attention", y[i * h.ldy + c], !seen && h.nan_when_empty ? NAN : want[c], 1, i * 1000 + c);
    }
}

static void attention(void **state)
{
    uint32_t seed = 99;
    (void)state;
    for (int t = 0; t < COUNT(shapes); t++)
        for (int mode = 0; mode < MODES; mode += t > 3 ? 7 : 1) one_attention(&shapes[t], mode, &seed);
}

/* ---- Codes, and a few rows of several heads ---- */

enum { CODE_KEYS = 300, CODE_D = 40, CODE_HEADS = 3 };
typedef struct code_case { int type; float zero; } code_case;
static const code_case code_cases[] = {{QX_DT_INT8, 0}, {QX_DT_UINT4, 8}, {QX_DT_FLOAT8E4M3FN, 0}, {QX_DT_FLOAT16, 0}, {QX_DT_FLOAT, 0}};

/* Random codes of n numbers, and the floats that they stand for. */
static void random_codes(const code_case *t, const float *scale, bool per_column, uint8_t *codes, float *x, int64_t n, uint32_t *seed)
{
    for (int64_t i = 0; i < n; i++) x[i] = 3.0f * rng_normal(seed) + t->zero;
    assert_true(qx_from_f32(t->type, x, n, codes) && qx_to_f32(t->type, codes, n, x));
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - t->zero) * scale[per_column ? i % CODE_D : 0];
}

/* All rows of h, whose keys are the floats k and v, against double. */
static void check_rows(qx_attn_head h, const float *k, const float *v)
{
    double s[CODE_KEYS], want[CODE_D];
    h.k = k, h.v = v;
    for (int64_t i = 0; i < h.rows; i++) {
        const bool seen = row_of(&h, i, s, want);
        for (int64_t c = 0; c < h.dv; c++) expect("codes", h.y[i * h.ldy + c], seen ? want[c] : 0, 1, i * 1000 + c);
    }
}

static void coded(void **state)
{
    static float q[CODE_HEADS * 60 * CODE_D], k[CODE_KEYS * CODE_D], v[CODE_KEYS * CODE_D], y[CODE_HEADS * 60 * CODE_D], scratch[1 << 17],
        scale[CODE_D], mask[CODE_HEADS * 7 * CODE_KEYS], parts[3 * CODE_HEADS * 7 * (CODE_D + 2)];
    static uint8_t kc[CODE_KEYS * CODE_D * 4], vc[CODE_KEYS * CODE_D * 4];
    static const int64_t row_counts[] = {1, 2, 7, 60};
    uint32_t seed = 11;
    (void)state;
    fill_normal(q, COUNT(q), &seed);
    fill_normal(mask, COUNT(mask), &seed);
    for (int i = 0; i < CODE_D; i++) scale[i] = 0.1f + 0.01f * (float)i;
    for (int t = 0; t < 4 * COUNT(code_cases) * COUNT(row_counts); t++) {
        const code_case *what = &code_cases[t / 4 % COUNT(code_cases)];
        const bool columns = t & 1 && what->type != QX_DT_FLOAT, masked = t & 2, floats = what->type == QX_DT_FLOAT;
        const int64_t rows = row_counts[t / 4 / COUNT(code_cases)];
        const float one = 1.0f;
        const qx_attn_codes codes = {what->type, what->zero, floats ? NULL : columns ? scale : &scale[3], columns};
        random_codes(what, floats ? &one : codes.scale, columns, kc, k, COUNT(k), &seed);
        random_codes(what, floats ? &one : codes.scale, columns, vc, v, COUNT(v), &seed);
        qx_attn_head h = {.rows = rows, .keys = CODE_KEYS - 1, .d = CODE_D, .dv = CODE_D, .q = q, .ldq = CODE_HEADS * CODE_D, .k = kc,
                          .ldk = CODE_D, .kc = 1, .v = vc, .ldv = CODE_D, .k_codes = codes, .v_codes = codes, .y = y,
                          .ldy = CODE_HEADS * CODE_D, .scale = 0.05f, .first = masked ? -70 : INT64_MIN, .last = masked ? 280 : INT64_MAX};
        qx_attn_rows(&h, scratch);
        check_rows(h, k, v);
        if (rows > QX_ATTN_FEW) continue;
        if (masked) h.mask = mask, h.ld_mask = CODE_KEYS;
        const qx_attn_group g = {.heads = CODE_HEADS, .q = CODE_D, .y = CODE_D, .mask = rows * CODE_KEYS};
        for (int64_t p = 0; p < 3; p++) /* the last stretch has fewer keys, and the window leaves none of the first for late rows */
            qx_attn_few(&h, &g, p * 128, (p + 1) * 128, parts + p * qx_attn_part(CODE_HEADS * rows, CODE_D), scratch);
        qx_attn_join(&h, &g, 3, parts);
        for (int64_t head = 0; head < CODE_HEADS; head++) {
            qx_attn_head one_head = h;
            one_head.q += head * g.q, one_head.y += head * g.y, one_head.mask = h.mask ? h.mask + head * g.mask : NULL;
            check_rows(one_head, k, v);
        }
    }
}

/* Masks of hopeless entries: causal, padded in front, a row without any plain key (its keys count as far as they go), and entries
 * that stay in the sum. */
static void masked_away(void **state)
{
    enum { ROWS = 150, KEYS = 600, D = 40 };
    static float q[ROWS * D], k[KEYS * D], v[KEYS * D], y[ROWS * D], mask[ROWS * KEYS], scratch[1 << 17];
    static const float away[] = {-INFINITY, -3.4028235e38f, -1e31f, -1e4f};
    double s[KEYS], want[D];
    uint32_t seed = 5;
    (void)state;
    fill_normal(q, ROWS * D, &seed);
    fill_normal(k, KEYS * D, &seed);
    fill_normal(v, KEYS * D, &seed);
    assert_true(qx_attn_scratch(ROWS, D, D) <= COUNT(scratch));
    for (int t = 0; t < 4 * COUNT(away); t++) {
        const float gone = away[t / 4];
        for (int64_t i = 0; i < ROWS; i++)
            for (int64_t j = 0; j < KEYS; j++)
                mask[i * KEYS + j] = (t & 1 && j > i + 450) || (t & 2 && (j < 70 || j == 300)) || i == 77 ? gone : 0.25f * (float)(j % 5);
        qx_attn_head h = {.rows = ROWS, .keys = KEYS, .d = D, .dv = D, .q = q, .ldq = D, .k = k, .ldk = D, .kc = 1, .v = v, .ldv = D,
                          .y = y, .ldy = D, .scale = 0.3f,
                          .mask = mask, .ld_mask = KEYS, .first = INT64_MIN, .last = INT64_MAX, .nan_when_empty = true};
        qx_attn_rows(&h, scratch);
        for (int64_t i = 0; i < ROWS; i++) {
            const bool seen = row_of(&h, i, s, want);
            for (int64_t c = 0; c < D && (i != 77 || !seen); c++) expect("masked", y[i * D + c], seen ? want[c] : NAN, 1, i * 1000 + c);
            for (int64_t c = 0; c < D && i == 77 && seen; c++) assert_true(isfinite(y[i * D + c]));
        }
    }
}

/* A panel is what one row by a matrix is, whatever the number of rows and however long: the same bits, also on older CPUs. */
static void rows_by_panel(void **state)
{
    enum { M = 14, K = 400, LDY = QX_PANEL + 3 };
    static float a[M * K], b[K * QX_PANEL], y[M * LDY], one[QX_PANEL];
    static const int64_t ks[] = {1, 2, 5, 191, 192, 193, 384, 400};
    uint32_t s = 9;
    (void)state;
    fill_normal(a, M * K, &s), fill_normal(b, K * QX_PANEL, &s);
    for (int64_t m = 1; m <= M; m++)
        for (size_t t = 0; t < sizeof ks / sizeof *ks; t++) {
            for (int64_t i = 0; i < M * LDY; i++) y[i] = 7;
            qx_rows_times(m, ks[t], a, K, b, y, LDY);
            for (int64_t i = 0; i < m; i++) {
                for (int64_t j = 0; j < QX_PANEL; j++) {
                    float sum = 0; /* no multiply-add here either: -ffp-contract=off */
                    for (int64_t p = 0; p < ks[t]; p++) sum += a[i * K + p] * b[p * QX_PANEL + j];
                    one[j] = sum;
                }
                assert_memory_equal(y + i * LDY, one, sizeof one);
                qx_row_times(QX_PANEL, ks[t], a + i * K, b, QX_PANEL, one);
                assert_memory_equal(y + i * LDY, one, sizeof one);
            }
            for (int64_t i = 0; i < M * LDY; i++)
                if (i >= m * LDY || i % LDY >= QX_PANEL) assert_true(y[i] == 7);
        }
}

/* Rows by rows, and one row by a matrix as it lies: every size around the 4 x 4 block, bits that do not depend on the neighbours. */
static void rows_by_rows(void **state)
{
    enum { MOST = 9, K = 83 };
    static float a[MOST * K], b[MOST * K], bt[K * MOST], c[MOST * MOST], one[MOST];
    uint32_t s = 5;
    (void)state;
    fill_normal(a, MOST * K, &s), fill_normal(b, MOST * K, &s);
    for (int64_t i = 0; i < MOST * K; i++) bt[i % K * MOST + i / K] = b[i];
    for (int64_t m = 1; m <= MOST; m++)
        for (int64_t n = 1; n <= MOST; n++)
            for (int64_t k = 1; k <= K; k += k < 5 ? 1 : 13) {
                qx_gemm_nt(m, n, k, a, K, b, K, c, MOST);
                for (int64_t i = 0; i < m * n; i++) {
                    double want = 0;
                    for (int64_t p = 0; p < k; p++) want += (double)a[i / n * K + p] * (double)b[i % n * K + p];
                    expect("rows by rows", c[i / n * MOST + i % n], want, 9, i);
                }
                qx_gemm_nt(1, n, k, a, K, b, K, one, MOST);
                assert_memory_equal(one, c, (size_t)n * sizeof *one);
                qx_row_times(n, k, a, bt, MOST, one);
                for (int64_t j = 0; j < n; j++) expect("row times matrix", one[j], (double)c[j], 9, j);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(cuts), cmocka_unit_test(rows_by_rows),
                                       cmocka_unit_test(rows_by_panel), cmocka_unit_test(integer_rows), cmocka_unit_test(attention),
                                       cmocka_unit_test(coded), cmocka_unit_test(masked_away)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
