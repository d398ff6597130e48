/* test_igemm.c - the 8-bit product is exact: every sign mix, zero points, odd sizes and extreme values, on every tile of this machine. */
#include "kernels.h"

#include "kernels/loops/igemm_leaf.h"

typedef struct icase { int64_t m, n, k; } icase;
static const icase sizes[] = {{1, 1, 1}, {8, 32, 4}, {9, 33, 5}, {3, 70, 513}, {17, 31, 1030}, {1, 64, 100}, {5, 3, 0}, {3, 70, 1028}, {13, 40, 70}};

static int value(const uint8_t *p, bool is_signed) { return is_signed ? (int8_t)*p : *p; }

static void exact(void **state)
{
    (void)state;
    static uint8_t a[20 * 1100], b[1100 * 80], packed[1100 * 128];
    static int32_t c[20 * 80], sums[128], za[20], zb[80];
    static float y[20 * 80], sa[20], sb[80], bias[80];
    uint32_t s = 17;
    for (int t = 0; t < COUNT(sizes); t++)
        for (int mode = 0; mode < 32; mode++) {
            const icase *z = &sizes[t];
            const bool as = mode & 1, bs = mode & 2, rowz = mode & 4, extreme = mode & 8, turned = mode & 16;
            const int64_t lda = z->k + 2;
            for (size_t i = 0; i < sizeof a; i++) a[i] = extreme ? (uint8_t)(rng_next(&s) % 2 ? 0xff : 0x80) : (uint8_t)rng_next(&s);
            for (size_t i = 0; i < sizeof b; i++) b[i] = extreme ? (uint8_t)(rng_next(&s) % 2 ? 0x7f : 0x80) : (uint8_t)rng_next(&s);
            for (int i = 0; i < 20; i++) za[i] = as ? (int8_t)rng_next(&s) : (uint8_t)rng_next(&s), sa[i] = rng_uniform(&s);
            for (int i = 0; i < 80; i++)
                zb[i] = bs ? (int8_t)rng_next(&s) : (uint8_t)rng_next(&s), sb[i] = rng_uniform(&s), bias[i] = rng_normal(&s);
            const int64_t row = turned ? 1 : z->n, col = turned ? z->k : 1;
            assert_true(qx_igemm_packed_bytes(z->k, z->n) <= sizeof packed && qx_igemm_sums(z->n) <= 128);
            for (int64_t p = 0; p < qx_igemm_panels(z->n); p++) qx_igemm_pack_panel(b, bs, z->k, z->n, row, col, p, (int8_t *)packed, sums);
            qx_igemm g = {.m = z->m, .n = z->n, .k = z->k, .a = a, .lda = lda, .a_signed = as, .za = mode % 3 ? za : NULL,
                          .za_per_row = rowz,
                          .packed = (int8_t *)packed, .sums = sums, .b_signed = bs, .zb = mode % 5 ? zb : NULL, .zb_per_col = rowz,
                          .c = c, .ldc = z->n,
                          .y = y, .ldy = z->n, .scale_a = sa, .scale_a_per_row = rowz, .scale_b = sb, .scale_b_per_col = rowz,
                              .bias = rowz ? bias : NULL};
            for (int level = 0; level < 3; level++) {
                qx_igemm_tile *tile = qx_igemm_tile_at(level);
                if (!tile) continue;
                for (int form = 0; form < 2; form++) {
                    g.c = form ? NULL : c;
                    memset(c, 0x55, sizeof c);
                    for (int64_t p = 0; p < qx_igemm_panels(z->n); p++) {
                        qx_igemm_run_using(tile, &g, p, 0, z->m / 2);
                        qx_igemm_run_using(tile, &g, p, z->m / 2, z->m);
                    }
                    for (int64_t i = 0; i < z->m; i++)
                        for (int64_t j = 0; j < z->n; j++) {
                            int64_t want = 0;
                            const int64_t zi = g.za ? za[rowz ? i : 0] : 0, zj = g.zb ? zb[rowz ? j : 0] : 0;
                            for (int64_t k = 0; k < z->k; k++)
                                want += (value(a + i * lda + k, as) - zi) * (value(b + k * row + j * col, bs) - zj);
                            if (form == 0) assert_true(c[i * z->n + j] == want);
                            else
                                assert_true(y[i * z->n + j] == (float)want * (sa[rowz ? i : 0] * sb[rowz ? j : 0]) + (rowz ? bias[j]
                                    : 0.0f));
                        }
                }
            }
        }
}

/* Every number of rows and width, extreme codes; the panel ends where the array ends. */
static void few_rows(void **state)
{
    enum { QUADS = 37 };
    static uint8_t a[QX_IGEMM_FEW * QUADS * 4];
    static int8_t panel[QUADS * QX_IGEMM_WIDEST * 4];
    int32_t acc[QX_IGEMM_FEW * QX_IGEMM_WIDEST], sums[QX_IGEMM_WIDEST];
    uint32_t s = 5;
    (void)state;
    if (!qx_igemm_has_few(64)) skip();
    assert_false(qx_igemm_has_few(48));
    for (int64_t width = 32; width <= 64; width += 32)
        for (int64_t rows = 1; rows <= QX_IGEMM_FEW; rows++)
            for (int extreme = 0; extreme < 2; extreme++) {
                for (int i = 0; i < COUNT(a); i++) a[i] = extreme ? 255 : (uint8_t)rng_next(&s);
                for (int i = 0; i < COUNT(panel); i++) panel[i] = extreme ? (int8_t)(i % 3 ? -128 : 127) : (int8_t)rng_next(&s);
                qx_igemm_few(rows, a, QUADS * 4, panel, QUADS, width, acc);
                qx_igemm_panel_sums(panel, QUADS, width, sums);
                for (int64_t j = 0; j < width; j++) {
                    int32_t sum = 0;
                    for (int64_t i = 0; i < QUADS * 4; i++) sum += panel[(i / 4 * width + j) * 4 + i % 4];
                    assert_int_equal(sums[j], sum);
                    for (int64_t r = 0; r < rows; r++) {
                        int32_t want = 0;
                        for (int64_t i = 0; i < QUADS * 4; i++) want += a[r * QUADS * 4 + i] * panel[(i / 4 * width + j) * 4 + i % 4];
                        assert_int_equal(acc[r * width + j], want);
                    }
                }
            }
}

/* Every element in its place and zeros around them, for rows or columns that lie side by side and for neither. */
static void packed_panels(void **state)
{
    (void)state;
    static const int64_t at[][4] = {{37, 64, 64, 1}, {37, 50, 53, 1}, {37, 64, 1, 40}, {40, 50, 1, 40}, {39, 31, 1, 39}, {12, 9, 3, 36}, {2, 5, 5, 1}};
    enum { WIDTH = 64, QUADS = 16 };
    static uint8_t room[4096 + 1];
    int8_t panel[WIDTH * QUADS * 4];
    uint32_t s = 3;
    for (int i = 0; i < COUNT(room); i++) room[i] = (uint8_t)rng_next(&s);
    for (int mode = 0; mode < 4 * COUNT(at); mode++) {
        const int64_t *a = at[mode / 4];
        const qx_igemm_part b = {room + mode % 2, mode & 2, a[0], a[1], a[2], a[3]};
        memset(panel, 0x55, sizeof panel);
        qx_igemm_pack(&b, WIDTH, QUADS, panel);
        for (int64_t i = 0; i < 4 * QUADS; i++)
            for (int64_t j = 0; j < WIDTH; j++) {
                const int code = i < b.k && j < b.cols ? room[mode % 2 + i * b.row + j * b.col] : b.is_signed ? 0 : 128;
                assert_int_equal(panel[(i / 4 * WIDTH + j) * 4 + i % 4], b.is_signed ? (int8_t)code : code - 128);
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(exact), cmocka_unit_test(packed_panels), cmocka_unit_test(few_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
