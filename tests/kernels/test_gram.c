/* test_gram.c - Gram tiles: every instruction set gives the bits of the reference, which is near X'X in float64. */
#include "kernels.h"
#include "kernels/loops/gram_leaf.h"

#include <math.h>

enum { T = QX_GRAM_TILE, ROWS = 77, K = 16 * 27 + 5, PANELS = 28, TILES = PANELS * (PANELS + 1) / 2 };

static float x[ROWS * K], panels[PANELS * ROWS * T];
static double sums[2][TILES * QX_GRAM_CELLS];

/* Columns of very different sizes, one row a thousand times as large as the others. */
static void fill(void)
{
    uint32_t state = 12345;
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < K; c++) {
            state = state * 1664525u + 1013904223u;
            x[r * K + c] = ldexpf((float)(int32_t)state / 2147483648.0f, c % 13 - 6) * (r == 40 ? 1000.0f : 1.0f);
        }
}

static qx_gram_block start(int64_t rows, double *tiles)
{
    for (int64_t i = 0; i < PANELS; i++) qx_gram_pack(x + i * T, rows, K, K - i * T, panels + i * rows * T);
    for (int i = 0; i < TILES * QX_GRAM_CELLS; i++) tiles[i] = 0.25; /* sums are added to */
    return (qx_gram_block){panels, tiles, rows, PANELS};
}

/* In units of sqrt(H_ii H_jj). */
static double largest_error(const double *tiles, int64_t rows)
{
    double worst = 0;
    for (int64_t i = 0; i < K; i += 3)
        for (int64_t j = i; j < K; j++) {
            double want = 0, a = 1e-300, b = 1e-300;
            for (int64_t r = 0; r < rows; r++)
                want += (double)x[r * K + i] * (double)x[r * K + j], a += (double)x[r * K + i] * (double)x[r * K + i],
                    b += (double)x[r * K + j] * (double)x[r * K + j];
            worst = fmax(worst, fabs(tiles[qx_gram_at(PANELS, i / T,
                                                      j / T) * QX_GRAM_CELLS + i % T * T + j % T] - 0.25 - want) / sqrt(a * b));
        }
    return worst;
}

static void all_loops(void **state)
{
    (void)state;
    fill();
    assert_int_equal(qx_gram_panels(K), PANELS);
    assert_int_equal(qx_gram_tiles(K), TILES);
    for (int64_t rows = 1; rows <= ROWS; rows += 19) {
        qx_gram_block b = start(rows, sums[0]);
        for (int64_t i = qx_gram_pieces(PANELS); i-- > 0;) qx_gram_piece(&b, i);
        assert_true(largest_error(sums[0], rows) < 1e-6);
        for (int isa = 0; isa <= (int)qx_isa_best(); isa++) {
            b = start(rows, sums[1]);
            qx_gram_cpu((qx_isa)isa)(&b, 0, PANELS, 0, PANELS);
            assert_memory_equal(sums[0], sums[1], sizeof sums[0]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_loops)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
