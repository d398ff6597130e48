/* test_winograd.c - one tile through the transformations and the product, against direct sums in double: pictures in every
 * layout, tiles inside, at the edges and beyond them, channels that fill no whole group; what does not belong to the tile keeps
 * its bytes. */
#include "kernels.h"

#include "kernels/gemm.h"
#include "kernels/winograd.h"

enum { IN = 19, OUTPUTS = 33, H = 9, W = 7, MOST_IN = 32, MOST_OUT = 48, PANELS = 2, ROOM = 64 * H * W };

static qx_wino_picture picture(float *data, int64_t channels, int64_t block)
{
    return (qx_wino_picture){data, H, W, channels, block, H * W * block, W * block, block};
}

static float *at(const qx_wino_picture *p, int64_t c, int64_t y, int64_t x)
{
    return p->data + c / p->block * p->plane + y * p->row + x * p->pixel + c % p->block;
}

/* Tile (y, x) of the result of a convolution with a border of 1. */
static void tile(const qx_wino_picture *x, const float *u, qx_wino_picture *out, int64_t ty, int64_t tx)
{
    static float v[QX_WINO_POINTS * MOST_IN], m[QX_WINO_POINTS * PANELS * QX_GEMM_NR];
    float pixels[QX_WINO_PIXELS * QX_WINO_LANES];
    for (int64_t c = 0; c < IN; c += QX_WINO_LANES) qx_wino_in(x, c, ty - 1, tx - 1, v + c, MOST_IN);
    for (int p = 0; p < QX_WINO_POINTS; p++)
        for (int i = 0; i < PANELS; i++) {
            const qx_sgemm t = {.x = v + p * MOST_IN, .ldx = MOST_IN, .cx = 1, .panels = u + (p * PANELS + i) * QX_GEMM_NR * IN,
                                .y = m + (p * PANELS + i) * QX_GEMM_NR, .ldy = PANELS * QX_GEMM_NR, .m = 1, .k = IN, .n = QX_GEMM_NR,
                                .alpha = 1.0f};
            qx_sgemm_run(&t);
        }
    for (int64_t o = 0; o < OUTPUTS; o += QX_WINO_LANES) {
        qx_wino_out(m + o, PANELS * QX_GEMM_NR, pixels);
        qx_wino_store(pixels, out, o, ty, tx);
    }
}

static double direct(const qx_wino_picture *x, const float *w, int64_t o, int64_t y, int64_t z)
{
    double s = 0;
    for (int64_t c = 0; c < IN; c++)
        for (int k = 0; k < 9; k++) {
            const int64_t yy = y + k / 3 - 1, zz = z + k % 3 - 1;
            if (yy >= 0 && yy < H && zz >= 0 && zz < W) s += (double)w[(o * IN + c) * 9 + k] * (double)*at(x, c, yy, zz);
        }
    return s;
}

static void layouts(void **state)
{
    static const int64_t blocks[] = {1, 8, 16, 0 /* all channels */};
    static float w[OUTPUTS * IN * 9], u[QX_WINO_POINTS * PANELS * QX_GEMM_NR * IN], in[ROOM], out[ROOM];
    uint32_t seed = 3;
    (void)state;
    for (int i = 0; i < COUNT(w); i++) w[i] = rng_normal(&seed);
    for (int i = 0; i < PANELS; i++) qx_wino_panel(w, IN, OUTPUTS, i * QX_GEMM_NR, u + i * QX_GEMM_NR * IN, PANELS * QX_GEMM_NR * IN);
    for (int b = 0; b < COUNT(blocks); b++) {
        const qx_wino_picture x = picture(in, IN, blocks[b] ? blocks[b] : IN);
        qx_wino_picture y = picture(out, OUTPUTS, blocks[b] ? blocks[b] : OUTPUTS);
        for (int i = 0; i < ROOM; i++) in[i] = rng_normal(&seed); /* lanes beyond the channels hold numbers too: they must not count */
        for (int64_t ty = 0; ty < H; ty += QX_WINO_TILE)
            for (int64_t tx = 0; tx < W; tx += QX_WINO_TILE) {
                for (int i = 0; i < ROOM; i++) out[i] = NAN;
                tile(&x, u, &y, ty, tx);
                int64_t written = 0, inside = 0;
                for (int i = 0; i < ROOM; i++) written += !isnan(out[i]);
                for (int64_t i = ty; i < ty + QX_WINO_TILE && i < H; i++)
                    for (int64_t k = tx; k < tx + QX_WINO_TILE && k < W; k++)
                        for (int64_t o = 0; o < OUTPUTS; o++, inside++) {
                            const double want = direct(&x, w, o, i, k);
                            if (!(fabs((double)*at(&y, o, i, k) - want) <= 1e-4))
                                fail_msg("block %d: output %d at %d, %d is %g, expected %g", (int)blocks[b], (int)o, (int)i, (int)k,
                                         (double)*at(&y, o, i, k), want);
                        }
                assert_int_equal(written, inside);
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(layouts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
