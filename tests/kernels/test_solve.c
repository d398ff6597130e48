/* test_solve.c - the solvers against float64 NumPy solutions (golden_solve.h), and their promises as properties on larger random
 * problems. */
#include "kernels.h"

#include "golden_solve.h"
#include "kernels/solve/solve.h"

static void close_to(const float *a, const float *b, int64_t n, double tol)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= tol * (1 + fabs((double)b[i]))))
            fail_msg("[%d] %g is not %g", (int)i, (double)a[i], (double)b[i]);
}

static float *floats(int64_t n) { return malloc(sizeof(float) * (size_t)(n + 1)); }

/* H = X'X of correlated rows, W normal. */
static void problem(int64_t n, int64_t k, int64_t tokens, uint32_t seed, float *w, float *h)
{
    uint32_t s = seed * 977 + 5;
    float *x = floats(tokens * k);
    for (int64_t i = 0; i < n * k; i++) w[i] = .1f * rng_normal(&s);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t j = 0; j < k; j++) x[t * k + j] = rng_normal(&s) * (j % 17 == 3 ? 6.0f : 1.0f) + (j ? .6f * x[t * k + j - 1] : 0);
    qx_matmul_f32(NULL, &(qx_matmul){k, k, tokens, x, 1, k, x, k, 1, h, k, 1, 0});
    free(x);
}

static double total_error(const float *w0, const float *w, const float *h, int64_t n, int64_t k)
{
    float *d = floats(n * k), *scratch = floats(n * k);
    double sum = 0, *err = malloc(sizeof *err * (size_t)n);
    for (int64_t i = 0; i < n * k; i++) d[i] = w0[i] - w[i];
    qx_quad_errors(d, h, n, k, err, scratch, NULL, NULL);
    for (int64_t i = 0; i < n; i++) sum += err[i];
    free(d), free(scratch), free(err);
    return sum;
}

static void matmul_matches_loops(void **state)
{
    (void)state;
    static const struct { int64_t m, n, k; } sizes[] = {{1, 1, 1}, {8, 32, 256}, {9, 33, 257}, {70, 5, 3}, {3, 100, 600}, {130, 64, 20},
                                                        {5, 7, 0}};
    uint32_t s = 3;
    for (int c = 0; c < COUNT(sizes) * 8; c++) {
        const int64_t m = sizes[c / 8].m, n = sizes[c / 8].n, k = sizes[c / 8].k;
        const bool ta = c & 1, tb = c & 2;
        const float beta = c & 4 ? .5f : 0;
        float *a = floats(m * k), *b = floats(k * n), *out = floats(m * n), *cut = floats(m * n), *want = floats(m * n);
        for (int64_t i = 0; i < m * k; i++) a[i] = rng_normal(&s);
        for (int64_t i = 0; i < k * n; i++) b[i] = rng_normal(&s);
        for (int64_t i = 0; i < m * n; i++) out[i] = cut[i] = beta != 0.0f ? rng_normal(&s) : NAN; /* beta 0 must not read C */
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                double t = 0;
                for (int64_t p = 0; p < k; p++) t += (double)a[ta ? p * m + i : i * k + p] * (double)b[tb ? j * k + p : p * n + j];
                want[i * n + j] = (float)(-2 * t + (beta != 0.0f ? (double)beta * (double)out[i * n + j] : 0));
            }
        const qx_matmul mm = {m, n, k, a, ta ? 1 : k, ta ? m : 1, b, tb ? 1 : n, tb ? k : 1, out, n, -2, beta};
        qx_matmul pm = mm;
        pm.c = cut;
        qx_matmul_f32(NULL, &mm);
        for (int64_t i = qx_matmul_pieces(&pm); i-- > 0;) qx_matmul_piece(&pm, i);
        close_to(out, want, m * n, 2e-4);
        assert_memory_equal(out, cut, sizeof(float) * (size_t)(m * n));
        free(a), free(b), free(out), free(cut), free(want);
    }
}

static void factor_matches_numpy(void **state)
{
    (void)state;
    float u[GOLD_K * GOLD_K], scratch[128 * GOLD_K];
    double damping = 0;
    assert_true(qx_factor_inverse(&(qx_factor){.h = gold_h, .k = GOLD_K, .damp = .01}, u, scratch, &damping));
    close_to(u, gold_u, GOLD_K * GOLD_K, 2e-4);
    assert_true(damping > 0);
    int32_t perm[GOLD_K];
    qx_order_by_diagonal(gold_h, GOLD_K, perm);
    assert_memory_equal(perm, gold_perm, sizeof perm);
}

static void factor_of_large(void **state) /* several blocks: U' U (H + damping) = 1 */
{
    (void)state;
    const int64_t k = 300;
    float *w = floats(k), *h = floats(k * k), *u = floats(k * k), *scratch = floats(128 * k), *p = floats(k * k), *q = floats(k * k);
    double damping;
    problem(1, k, 900, 2, w, h);
    assert_true(qx_factor_inverse(&(qx_factor){.h = h, .k = k, .damp = .01}, u, scratch, &damping));
    for (int64_t i = 0; i < k; i++) h[i * k + i] += (float)damping;
    qx_matmul_f32(NULL, &(qx_matmul){k, k, k, u, k, 1, h, k, 1, p, k, 1, 0});
    qx_matmul_f32(NULL, &(qx_matmul){k, k, k, u, 1, k, p, k, 1, q, k, 1, 0});
    for (int64_t i = 0; i < k * k; i++) {
        assert_true(fabsf(q[i] - (i / k == i % k ? 1.0f : 0.0f)) < 2e-3f);
        if (i % k < i / k) assert_true(u[i] == 0);
    }
    free(w), free(h), free(u), free(scratch), free(p), free(q);
}

/* Squared distance of H / rows to the covariance it was drawn from: 1 on the diagonal, r between neighbours of a pair. */
static double off_truth(const float *h, int64_t k, double rows, float r)
{
    double sum = 0;
    for (int64_t i = 0; i < k * k; i++) {
        const float want = i / k == i % k ? 1 : i / k / 2 == i % k / 2 ? r : 0;
        const double d = (double)h[i] / rows - (double)want;
        sum += d * d;
    }
    return sum;
}

static void gram_shrinks_towards_the_truth(void **state)
{
    (void)state;
    enum { K = 40, ROWS = 20 };
    float x[ROWS * K], h[K * K], kept[K * K];
    uint32_t seed = 9;
    for (int64_t i = 0; i < ROWS * K; i++) {
        x[i] = rng_normal(&seed);
        if (i % 2) x[i] = .8f * x[i - 1] + .6f * x[i];
    }
    qx_matmul_f32(NULL, &(qx_matmul){K, K, ROWS, x, 1, K, x, K, 1, h, K, 1, 0});
    memcpy(kept, h, sizeof h);
    assert_true(qx_shrink_gram(h, K, ROWS, 0) == 0);
    assert_memory_equal(h, kept, sizeof h);
    const double before = off_truth(h, K, ROWS, .8f), share = qx_shrink_gram(h, K, ROWS, 1);
    assert_true(share > .2 && share < .9);
    assert_true(off_truth(h, K, ROWS, .8f) < .7 * before);
    for (int64_t i = 0; i < K; i++) assert_true(h[i * K + i] == kept[i * K + i]);
    float pair[9] = {4, 1, 0, 1, 1, 0, 0, 0, 0}; /* two inputs; the third is always 0 */
    assert_true(fabs(qx_shrink_gram(pair, 3, 2, 1) - .5) < 1e-12 && pair[1] == .5f && pair[3] == .5f && pair[0] == 4 && pair[4] == 1);
    assert_true(fabs(qx_shrink_gram(pair, 3, 2, 3) - .75) < 1e-12 && pair[1] == .125f);
    assert_true(qx_shrink_gram((float[4]){0}, 2, 5, 1) == 0);
}

static void factor_refuses(void **state)
{
    (void)state;
    float h[9] = {1, 0, 0, 0, -1, 0, 0, 0, 1}, u[9], scratch[128 * 3];
    double damping;
    assert_false(qx_factor_inverse(&(qx_factor){.h = h, .k = 3, .damp = .01}, u, scratch, &damping));
    h[4] = NAN;
    assert_false(qx_factor_inverse(&(qx_factor){.h = h, .k = 3, .damp = .01}, u, scratch, &damping));
    const float flat[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}; /* singular: works with damping, also when none was asked for */
    assert_true(qx_factor_inverse(&(qx_factor){.h = flat, .k = 3, .damp = 0}, u, scratch, &damping) && damping > 0);
    const float zero[4] = {0, 0, 0, 0};
    assert_true(qx_factor_inverse(&(qx_factor){.h = zero, .k = 2, .damp = .01}, u, scratch, &damping) && u[0] == 1 && u[3] == 1 &&
                u[1] == 0);
    const float off[9] = {1, 5, 0, 5, 1, 0, 0, 0, 1}; /* indefinite */
    assert_false(qx_factor_inverse(&(qx_factor){.h = off, .k = 3, .damp = .01, .retries = 1}, u, scratch, &damping));
}

static void solve(const qx_gptq *g, const float *w, int64_t rows, int64_t tile, const float *scale, float *out)
{
    memcpy(out, w, sizeof *w * (size_t)(rows * g->k));
    const int64_t nb = g->block > 0 ? qx_cells_of(g->k, g->block) : 1;
    for (int64_t r = 0; r < rows; r += tile) {
        const int64_t n = rows - r < tile ? rows - r : tile;
        void *scratch = malloc(qx_gptq_scratch(g, n));
        float *s = floats(n * nb);
        memcpy(s, scale + r * nb, sizeof *s * (size_t)(n * nb));
        qx_gptq part = *g;
        if (g->mask) part.mask = g->mask + r * g->k;
        assert_true(qx_gptq_rows(&part, out + r * g->k, n, s, NULL, NULL, NULL, scratch));
        free(scratch), free(s);
    }
}

static void gptq_matches_numpy(void **state)
{
    (void)state;
    float u[GOLD_K * GOLD_K], up[GOLD_K * GOLD_K], scratch[128 * GOLD_K], out[GOLD_N * GOLD_K], again[GOLD_N * GOLD_K];
    double damping;
    assert_true(qx_factor_inverse(&(qx_factor){.h = gold_h, .k = GOLD_K, .damp = .01}, u, scratch, &damping));
    assert_true(qx_factor_inverse(&(qx_factor){.h = gold_h, .k = GOLD_K, .damp = .01, .perm = gold_perm}, up, scratch, &damping));
    qx_gptq g = {.k = GOLD_K, .u = u, .format = {.codes = QX_DT_INT4}, .block = GOLD_BLOCK};
    solve(&g, gold_w, GOLD_N, GOLD_N, gold_scale4, out);
    close_to(out, gold_gptq4, GOLD_N * GOLD_K, 1e-5);
    solve(&g, gold_w, GOLD_N, 1, gold_scale4, again); /* rows do not depend on how they are cut into tiles */
    assert_memory_equal(out, again, sizeof out);
    g.u = up, g.perm = gold_perm;
    solve(&g, gold_w, GOLD_N, GOLD_N, gold_scale4, out);
    close_to(out, gold_gptq4_order, GOLD_N * GOLD_K, 1e-5);
    g = (qx_gptq){.k = GOLD_K, .u = u, .format = {.codes = QX_DT_FLOAT}, .prune_2_4 = true};
    solve(&g, gold_w, GOLD_N, GOLD_N, gold_scale8, out);
    close_to(out, gold_sparse, GOLD_N * GOLD_K, 1e-5);
    g.format = (qx_format){.codes = QX_DT_INT8, .narrow = true};
    solve(&g, gold_w, GOLD_N, 4, gold_scale8, out);
    close_to(out, gold_sparse8, GOLD_N * GOLD_K, 1e-5);
}

static void quad_error_matches_numpy(void **state)
{
    (void)state;
    float y[GOLD_N * GOLD_K], d[GOLD_N * GOLD_K], scratch[GOLD_N * GOLD_K];
    double err[GOLD_N];
    memcpy(y, gold_w, sizeof y);
    qx_fake_quantize(&(qx_quant){.grid = {GOLD_N, GOLD_K, 1, GOLD_BLOCK}, .format = {.codes = QX_DT_INT4}, .scale = gold_scale4}, y);
    for (int i = 0; i < GOLD_N * GOLD_K; i++) d[i] = gold_w[i] - y[i];
    qx_quad_errors(d, gold_h, GOLD_N, GOLD_K, err, scratch, NULL, NULL);
    for (int i = 0; i < GOLD_N; i++) assert_true(fabs(err[i] - (double)gold_rtn_error[i]) < 1e-4 * (double)gold_rtn_error[i]);
}

typedef struct gcase { const char *name; qx_dtype codes, scale; bool zero, nvfp4; int64_t k, block; } gcase;
static const gcase gcases[] = {{"int4 32", QX_DT_INT4, QX_DT_FLOAT16, false, false, 256, 32},
                               {"int4 rows", QX_DT_INT4, QX_DT_FLOAT, false, false, 200, 0},
    {"int4 ragged", QX_DT_INT4, QX_DT_FLOAT16, false, false, 150, 32}, {"uint4 zp", QX_DT_UINT4, QX_DT_FLOAT16, true, false, 256, 64},
    {"int8", QX_DT_INT8, QX_DT_FLOAT, false, false, 131, 0}, {"fp8", QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT, false, false, 130, 0},
    {"e5m2", QX_DT_FLOAT8E5M2, QX_DT_FLOAT, false, false, 64, 0}, {"nvfp4", QX_DT_FLOAT4E2M1, QX_DT_FLOAT8E4M3FN, false, true, 160, 16},
    {"mxfp4", QX_DT_FLOAT4E2M1, QX_DT_FLOAT8E8M0, false, false, 160, 32}, {"int2", QX_DT_INT2, QX_DT_FLOAT, false, false, 96, 10}};

/* The error after refining `out` in place: as reported, and with every weight on the grid of its scale. */
static double refine_checked(const qx_refine *r, const float *w, float *out, int64_t rows)
{
    const int64_t n = rows * r->k;
    const qx_quant q = {.grid = {rows, r->k, 1, r->block ? r->block : r->k}, .format = r->format, .scale = r->scale, .zero = r->zero};
    void *scratch = malloc(qx_refine_scratch(r, rows));
    float *again = floats(n);
    double *err = malloc(sizeof *err * (size_t)rows), sum = 0;
    assert_true(qx_refine_rows(r, w, out, rows, err, scratch));
    for (int64_t i = 0; i < rows; i++) sum += err[i];
    const double found = total_error(w, out, r->h, rows, r->k);
    assert_true(fabs(sum - found) < 1e-3 * found);
    memcpy(again, out, sizeof *out * (size_t)n);
    assert_true(qx_fake_quantize(&q, again));
    close_to(again, out, n, 1e-6);
    free(scratch), free(again), free(err);
    return found;
}

/* With scales chosen on the way: less error than rounding with the same search; the result lies on the grid of its scales;
 * refining never hurts. */
static void gptq_beats_rounding(void **state)
{
    (void)state;
    enum { ROWS = 20 };
    int gained = 0;
    for (int i = 0; i < COUNT(gcases); i++) {
        const gcase *c = &gcases[i];
        const int64_t k = c->k, block = c->block ? c->block : k, nb = qx_cells_of(k, block);
        float *w = floats(ROWS * k), *h = floats(k * k), *u = floats(k * k), *fs = floats(128 * k), *scale = floats(ROWS * nb),
            *out = floats(ROWS * k), *rtn = floats(ROWS * k);
        int32_t zero[ROWS * 64];
        uint8_t code[ROWS * 64];
        double damping, loss[ROWS], sum = 0;
        problem(ROWS, k, 3 * k, (uint32_t)i, w, h);
        assert_true(qx_factor_inverse(&(qx_factor){.h = h, .k = k, .damp = .01}, u, fs, &damping));
        const qx_format f = {.codes = c->codes, .scale = c->scale, .negative = true};
        const qx_search s = {.format = f, .block = c->block, .zero_point = c->zero};
        const qx_nvfp4 nv = {.global = qx_nvfp4_global(.5f)};
        memcpy(rtn, w, sizeof *w * (size_t)(ROWS * k));
        if (c->nvfp4) qx_nvfp4_search(&nv, w, ROWS, k, code, scale, NULL);
        else assert_true(qx_search_rows(&s, w, ROWS, k, scale, zero, NULL));
        qx_quant q = {.grid = {ROWS, k, 1, block}, .format = f, .scale = scale, .zero = c->zero ? zero : NULL};
        assert_true(qx_fake_quantize(&q, rtn));
        const qx_gptq g = {.k = k, .u = u, .format = f, .block = c->block, .zero_point = c->zero, .search = c->nvfp4 ? NULL : &s,
                           .nvfp4 = c->nvfp4 ? &nv : NULL};
        void *scratch = malloc(qx_gptq_scratch(&g, ROWS));
        memcpy(out, w, sizeof *w * (size_t)(ROWS * k));
        assert_true(qx_gptq_rows(&g, out, ROWS, scale, zero, code, loss, scratch));
        const double before = total_error(w, rtn, h, ROWS, k), after = total_error(w, out, h, ROWS, k);
        if (!(after < before)) fail_msg("%s: %g is not below %g", c->name, after, before);
        for (int r = 0; r < ROWS; r++) sum += loss[r];
        double norm = 0;
        for (int64_t j = 0; j < ROWS * k; j++) norm += pow((double)w[j] - (double)out[j], 2);
        assert_true(fabs(sum - (after + damping * norm)) < 2e-2 * sum);
        memcpy(rtn, out, sizeof *w * (size_t)(ROWS * k));
        assert_true(qx_fake_quantize(&q, rtn));
        close_to(rtn, out, ROWS * k, 0); /* already on the grid */
        qx_refine rf = {.k = k, .h = h, .format = f, .block = c->block, .scale = scale, .global = c->nvfp4 ? nv.global : 0, .zero = q.zero};
        const double refined = refine_checked(&rf, w, out, ROWS);
        assert_true(refined <= after * (1 + 1e-5));
        rf.rescale = true;
        const double rescaled = refine_checked(&rf, w, out, ROWS);
        assert_true(rescaled <= refined * (1 + 1e-5));
        gained += refined > 1.01 * rescaled;
        free(w), free(h), free(u), free(fs), free(scale), free(out), free(rtn), free(scratch);
    }
    assert_true(gained >= 4); /* moving scales is worth one percent and more in most formats */
}

static int nonzeros(const float *w) { return (w[0] != 0) + (w[1] != 0) + (w[2] != 0) + (w[3] != 0); }

static void sparse_masks_hold(void **state)
{
    (void)state;
    enum { ROWS = 18, K = 256 };
    static float w[ROWS * K], h[K * K], u[K * K], fs[128 * K], sparse[ROWS * K], both[ROWS * K], plain[ROWS * K], scale[ROWS * K];
    static uint8_t mask[ROWS * K];
    double damping;
    problem(ROWS, K, 700, 5, w, h);
    assert_true(qx_factor_inverse(&(qx_factor){.h = h, .k = K, .damp = .01}, u, fs, &damping));
    qx_gptq g = {.k = K, .u = u, .format = {.codes = QX_DT_FLOAT}, .prune_2_4 = true};
    solve(&g, w, ROWS, 7, scale, sparse);
    qx_mask_2_4(w, ROWS, K, NULL, mask);
    for (int i = 0; i < ROWS * K; i++) plain[i] = mask[i] ? w[i] : 0;
    for (int i = 0; i < ROWS * K; i += 4) assert_int_equal(nonzeros(sparse + i), 2), assert_int_equal(nonzeros(plain + i), 2);
    assert_true(total_error(w, sparse, h, ROWS, K) < total_error(w, plain, h, ROWS, K));
    /* a second pass keeps the zeros and adds none; so does quantizing */
    g.keep_zeros = true;
    solve(&g, sparse, ROWS, ROWS, scale, both);
    close_to(both, sparse, ROWS * K, 1e-3);
    for (int i = 0; i < ROWS * K; i++) assert_int_equal(both[i] == 0, sparse[i] == 0);
    static const qx_dtype forms[] = {QX_DT_INT4, QX_DT_INT8, QX_DT_FLOAT8E4M3FN};
    for (int f = 0; f < COUNT(forms); f++) {
        const qx_format form = {.codes = forms[f], .scale = QX_DT_FLOAT};
        assert_true(qx_search_rows(&(qx_search){.format = form, .block = 64}, sparse, ROWS, K, scale, NULL, NULL));
        g = (qx_gptq){.k = K, .u = u, .format = form, .block = 64, .keep_zeros = true};
        solve(&g, sparse, ROWS, 16, scale, both);
        for (int i = 0; i < ROWS * K; i++)
            if (sparse[i] == 0) assert_true(both[i] == 0);
        for (int i = 0; i < ROWS * K; i++) mask[i] = sparse[i] != 0;
        g.keep_zeros = false, g.mask = mask;
        solve(&g, sparse, ROWS, 16, scale, plain);
        assert_memory_equal(plain, both, sizeof both);
        for (int i = 0; i < ROWS * K; i++) mask[i] = mask[i] && 1; /* refinement with the mask leaves zeros alone */
        const qx_refine rf = {.k = K, .h = h, .format = form, .block = 64, .scale = scale, .mask = mask};
        void *rs = malloc(qx_refine_scratch(&rf, ROWS));
        assert_true(qx_refine_rows(&rf, w, both, ROWS, NULL, rs));
        for (int i = 0; i < ROWS * K; i++)
            if (!mask[i]) assert_true(both[i] == 0);
        free(rs);
    }
    const qx_gptq bad[] = {{.k = K, .u = u, .format = {.codes = QX_DT_INT4}, .prune_2_4 = true, .perm = gold_perm},
                           {.k = K, .u = u, .format = {.codes = QX_DT_STRING}},
                           {.k = K, .u = u, .format = {.codes = QX_DT_INT4}, .zero_point = true}};
    for (int i = 0; i < COUNT(bad); i++) assert_false(qx_gptq_rows(&bad[i], both, ROWS, scale, NULL, NULL, NULL, fs));
}

/* Solves the two kept weights of each group together by brute force: the least error over all 6^groups masks, each with its
 * least-squares values. */
enum { TINY = 8 };
static double least_error(const float *w, const float *h, const bool *keep)
{
    double a[TINY][TINY + 1], d[TINY];
    int at[TINY], n = 0;
    for (int i = 0; i < TINY; i++)
        if (keep[i]) at[n++] = i;
    for (int i = 0; i < n; i++) { /* H_KK v = H_K: w */
        a[i][n] = 0;
        for (int j = 0; j < n; j++) a[i][j] = (double)h[at[i] * TINY + at[j]];
        for (int j = 0; j < TINY; j++) a[i][n] += (double)h[at[i] * TINY + j] * (double)w[j];
    }
    for (int i = 0; i < n; i++)
        for (int r = 0; r < n; r++) {
            const double f = a[r][i] / a[i][i];
            for (int j = i; j <= n && r != i; j++) a[r][j] -= f * a[i][j];
        }
    for (int i = 0; i < TINY; i++) d[i] = (double)w[i];
    for (int i = 0; i < n; i++) d[at[i]] -= a[i][n] / a[i][i];
    double e = 0;
    for (int i = 0; i < TINY; i++)
        for (int j = 0; j < TINY; j++) e += d[i] * (double)h[i * TINY + j] * d[j];
    return e;
}

static double best_of_all_masks(const float *w, const float *h)
{
    static const uint8_t pairs[6] = {3, 5, 9, 6, 10, 12};
    double best = 1e300;
    for (int a = 0; a < 36; a++) {
        bool keep[TINY];
        for (int i = 0; i < TINY; i++) keep[i] = pairs[i < 4 ? a / 6 : a % 6] >> (i % 4) & 1;
        best = fmin(best, least_error(w, h, keep));
    }
    return best;
}

/* Swaps: never worse than SparseGPT, close to the best of all masks, stationary in the values that stay. */
static void swaps_choose_pairs(void **state)
{
    (void)state;
    enum { ROWS = 40 };
    static float w[ROWS * TINY], h[TINY * TINY], u[TINY * TINY], fs[128 * TINY], before[ROWS * TINY], after[ROWS * TINY];
    double damping, err[ROWS], was = 0, is = 0, best = 0;
    problem(ROWS, TINY, 60, 11, w, h);
    assert_true(qx_factor_inverse(&(qx_factor){.h = h, .k = TINY, .damp = .01}, u, fs, &damping));
    solve(&(qx_gptq){.k = TINY, .u = u, .format = {.codes = QX_DT_FLOAT}, .prune_2_4 = true}, w, ROWS, ROWS, fs, before);
    memcpy(after, before, sizeof after);
    qx_refine rf = {.k = TINY, .h = h, .format = {.codes = QX_DT_FLOAT}, .prune_2_4 = true, .sweeps = 1000};
    void *scratch = malloc(qx_refine_scratch(&rf, ROWS));
    assert_true(qx_refine_rows(&rf, w, after, ROWS, err, scratch));
    for (int r = 0; r < ROWS; r++) {
        const double e0 = total_error(w + r * TINY, before + r * TINY, h, 1, TINY),
            e1 = total_error(w + r * TINY, after + r * TINY, h, 1, TINY);
        bool keep[TINY];
        for (int i = 0; i < TINY; i++) keep[i] = after[r * TINY + i] != 0;
        assert_true(e1 <= e0 * (1 + 1e-4));
        assert_true(fabs(e1 - err[r]) <= 1e-4 * e1);
        assert_true(fabs(e1 - least_error(w + r * TINY, h, keep)) <= 2e-3 * e1);
        for (int g = 0; g < TINY; g += 4) assert_int_equal(nonzeros(after + r * TINY + g), 2);
        was += e0, is += e1, best += best_of_all_masks(w + r * TINY, h);
    }
    assert_true(best <= is * (1 + 1e-5));
    if (!(is - best < 0.35 * (was - best))) fail_msg("swaps leave %g, SparseGPT %g, the best masks %g", is, was, best);
    rf.mask = (const uint8_t *)"";
    assert_false(qx_refine_rows(&rf, w, after, ROWS, NULL, scratch));
    rf = (qx_refine){.k = TINY, .h = h, .format = {.codes = QX_DT_INT8}, .prune_2_4 = true};
    assert_false(qx_refine_rows(&rf, w, after, ROWS, NULL, scratch));
    free(scratch);
}

/* Dead inputs, inputs that are the same, a last group of fewer than four, rows in tiles of any number. */
static void swaps_take_what_comes(void **state)
{
    (void)state;
    enum { ROWS = 21, K = 70 };
    static float w[ROWS * K], h[K * K], whole[ROWS * K], parts[ROWS * K];
    static uint8_t mask[ROWS * K];
    problem(ROWS, K, 30, 3, w, h); /* fewer rows than columns: H has no inverse */
    for (int i = 0; i < K; i++) h[5 * K + i] = h[i * K + 5] = 0, h[9 * K + i] = h[8 * K + i];
    for (int i = 0; i < K; i++) h[i * K + 9] = h[i * K + 8];
    qx_mask_2_4(w, ROWS, K, NULL, mask);
    for (int i = 0; i < ROWS * K; i++) whole[i] = parts[i] = mask[i] ? w[i] : 0;
    const qx_refine rf = {.k = K, .h = h, .format = {.codes = QX_DT_FLOAT}, .prune_2_4 = true, .sweeps = 20};
    void *scratch = malloc(qx_refine_scratch(&rf, ROWS));
    const double before = total_error(w, whole, h, ROWS, K);
    assert_true(qx_refine_rows(&rf, w, whole, ROWS, NULL, scratch));
    assert_true(total_error(w, whole, h, ROWS, K) < before);
    for (int r = 0; r < ROWS; r += 4)
        assert_true(qx_refine_rows(&rf, w + r * K, parts + r * K, ROWS - r < 4 ? ROWS - r : 4, NULL, scratch));
    assert_memory_equal(whole, parts, sizeof whole);
    for (int r = 0; r < ROWS; r++)
        for (int g = 0; g + 4 <= K; g += 4) assert_true(nonzeros(whole + r * K + g) <= 2);
    for (int i = 0; i < ROWS * K; i++) assert_true(isfinite(whole[i]));
    free(scratch);
}

static void masks_break_ties_early(void **state)
{
    (void)state;
    const float w[10] = {1, -1, 1, -1, 0, 3, NAN, -2, 9, 9}, norm[10] = {1, 1, 5, 5, 1, 1, 1, 1, 0, 0};
    uint8_t m[10];
    qx_mask_2_4(w, 1, 10, NULL, m);
    assert_memory_equal(m, ((const uint8_t[]){1, 1, 0, 0, 0, 1, 0, 1, 1, 1}), 10);
    qx_mask_2_4(w, 1, 10, norm, m);
    assert_memory_equal(m, ((const uint8_t[]){0, 0, 1, 1, 0, 1, 0, 1, 1, 1}), 10);
}

/* What pruning the two smallest of each four loses, columns in the order of perm. */
static double four_loss(const float *score, int rows, int k, const int32_t *perm)
{
    double sum = 0;
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < k; g += 4) {
            double v[4];
            for (int i = 0; i < 4; i++) v[i] = (double)score[r * k + perm[g + i]];
            for (int i = 1; i < 4; i++)
                for (int j = i; j > 0 && v[j] < v[j - 1]; j--) { const double t = v[j]; v[j] = v[j - 1], v[j - 1] = t; }
            sum += v[0] + v[1];
        }
    return sum;
}

/* Eight columns have 35 divisions, all tried here; of many, fours of large columns beside fours of small ones come out mixed, and
 * the share told is the true one. */
static void columns_in_a_better_order(void **state)
{
    enum { R = 37, N = 64 };
    float score[R * N];
    int32_t perm[N], identity[N], other[8];
    uint8_t found[N] = {0};
    (void)state;
    for (int i = 0; i < N; i++) identity[i] = i;
    for (int i = 0; i < R * N; i++) score[i] = (float)((uint32_t)i * 2654435761u >> 8 & 1023) * (i % N / 4 % 2 ? 100.0f : 1.0f);
    void *scratch = malloc(qx_permute_2_4_scratch(N, R));
    const double left = qx_permute_2_4(score, R, N, 40, 1, perm, scratch), before = four_loss(score, R, N, identity),
        after = four_loss(score, R, N, perm);
    for (int i = 0; i < N; i++) found[perm[i]]++;
    for (int i = 0; i < N; i++) assert_int_equal(found[i], 1);
    assert_true(fabs(left - after / before) < 1e-5 && left < 0.1);
    double best = four_loss(score, R, 8, identity);
    for (int mask = 0; mask < 256; mask++) {
        if (__builtin_popcount((unsigned)mask) != 4) continue;
        for (int i = 0, a = 0, b = 4; i < 8; i++) other[mask >> i & 1 ? a++ : b++] = i;
        best = fmin(best, four_loss(score, R, 8, other));
    }
    qx_permute_2_4(score, R, 8, 1, 1, perm, scratch);
    assert_true(fabs(four_loss(score, R, 8, perm) - best) < 1e-6 * best);
    free(scratch);
}

static void lowrank_reaches_svd(void **state)
{
    (void)state;
    double tail = 0, err = 0;
    float b[GOLD_N * 3], a[3 * GOLD_K];
    const qx_lowrank l = {.n = GOLD_N, .k = GOLD_K, .rank = 3};
    void *scratch = malloc(qx_lowrank_scratch(&l));
    qx_lowrank_solve(&l, gold_w, b, a, scratch);
    for (int i = 3; i < GOLD_N; i++) tail += pow((double)gold_singular[i], 2);
    for (int r = 0; r < GOLD_N; r++)
        for (int c = 0; c < GOLD_K; c++) {
            double v = (double)gold_w[r * GOLD_K + c];
            for (int i = 0; i < 3; i++) v -= (double)b[r * 3 + i] * (double)a[i * GOLD_K + c];
            err += v * v;
        }
    assert_true(fabs(err - tail) < 1e-5 * tail);
    for (int i = 0; i < 3; i++) {
        double len = 0, dot = 0, s = 0;
        for (int c = 0; c < GOLD_K; c++)
            len += pow((double)a[i * GOLD_K + c], 2), dot += (double)a[i * GOLD_K + c] * (double)a[(i + 1) % 3 * GOLD_K + c];
        for (int r = 0; r < GOLD_N; r++) s += pow((double)b[r * 3 + i], 2);
        assert_true(fabs(len - 1) < 1e-5 && fabs(dot) < 1e-5 && fabs(sqrt(s) - (double)gold_singular[i]) < 1e-5);
    }
    free(scratch);
    double m[9] = {2, 1, 0, 1, 2, 0, 0, 0, 5}, value[3], v[9];
    qx_jacobi_eigen(m, 3, value, v);
    assert_true(fabs(value[0] - 5) < 1e-12 && fabs(value[1] - 3) < 1e-12 && fabs(value[2] - 1) < 1e-12);
}

static void hadamard_is_orthogonal(void **state)
{
    (void)state;
    static const struct { int64_t n, block, kron, pow2; } plans[] =
        {{8, 0, 1, 8}, {16, 0, 1, 16}, {1, 0, 1, 1}, {1920, 128, 1, 128}, {1536, 0, 12, 128},
        {2048, 64, 1, 64}, {1280, 0, 20, 64}, {1920, 0, 60, 32}, {14336, 0, 28, 512}, {576, 0, 36, 16}, {3, 0, 1, 1}, {96, 32, 1, 32},
            {13824, 0, 108, 128}};
    uint32_t s = 1;
    for (int i = 0; i < COUNT(plans); i++) {
        qx_hadamard h;
        const int64_t n = plans[i].n;
        assert_true(qx_hadamard_plan(n, plans[i].block, &h));
        assert_int_equal(h.kron, plans[i].kron);
        assert_int_equal(h.pow2, plans[i].pow2);
        float *x = floats(2 * n), *y = floats(2 * n);
        double before = 0, after = 0, dot0 = 0, dot1 = 0;
        for (int64_t j = 0; j < 2 * n; j++) y[j] = x[j] = rng_normal(&s);
        qx_hadamard_rows(&h, y, 2, false);
        for (int64_t j = 0; j < n; j++) {
            before += (double)x[j] * (double)x[j], after += (double)y[j] * (double)y[j];
            dot0 += (double)x[j] * (double)x[n + j], dot1 += (double)y[j] * (double)y[n + j];
        }
        assert_true(fabs(before - after) < 1e-4 * before && fabs(dot0 - dot1) < 1e-4 * before);
        qx_hadamard_rows(&h, y, 2, true);
        close_to(y, x, 2 * n, 2e-5);
        if (h.kron > 1) { /* every entry of the matrix has the same magnitude */
            memset(x, 0, sizeof *x * (size_t)n);
            x[n / 3] = 1;
            qx_hadamard_rows(&h, x, 1, false);
            for (int64_t j = 0; j < n; j++) assert_true(fabs(fabs((double)x[j]) - 1 / sqrt((double)n)) < 1e-6);
        }
        free(x), free(y);
    }
    qx_hadamard h;
    assert_false(qx_hadamard_plan(96, 24, &h));
    assert_false(qx_hadamard_plan(96, 64, &h));
    assert_false(qx_hadamard_plan(0, 0, &h));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matmul_matches_loops), cmocka_unit_test(factor_matches_numpy), cmocka_unit_test(factor_of_large),
        cmocka_unit_test(factor_refuses), cmocka_unit_test(gram_shrinks_towards_the_truth),
        cmocka_unit_test(gptq_matches_numpy), cmocka_unit_test(quad_error_matches_numpy), cmocka_unit_test(gptq_beats_rounding),
        cmocka_unit_test(sparse_masks_hold), cmocka_unit_test(swaps_choose_pairs), cmocka_unit_test(swaps_take_what_comes),
        cmocka_unit_test(masks_break_ties_early), cmocka_unit_test(columns_in_a_better_order), cmocka_unit_test(lowrank_reaches_svd),
        cmocka_unit_test(hadamard_is_orthogonal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
