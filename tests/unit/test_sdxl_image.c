/* PNG, drawing and metrics of the picture sample; the metric values come from an independent NumPy computation on the same
 * formula pictures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "samples/qonnx-sdxl/metrics.h"

enum { W = 192, H = 180 };

static void fill(sx_image *m, bool noisy)
{
    sx_err e;
    assert_int_equal(sx_image_new(&e, W, H, 0, m), SX_OK);
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            for (int c = 0; c < 3; c++) {
                int v = c < 2 ? (x * 3 + y * 5 + c * 40) % 256 : (x / 16 + y / 16) % 2 * 180 + 30;
                int d = noisy ? (x * 7919 + y * 104729 + x * y * 31) % 23 - 11 : 0;
                v += d;
                m->rgb[(y * W + x) * 3 + c] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
            }
}

static void compared(void **state)
{
    (void)state;
    sx_image a, b;
    sx_compared r;
    sx_err e;
    fill(&a, false);
    fill(&b, true);
    assert_int_equal(sx_compare(&e, &a, &b, &r), SX_OK);
    assert_true(fabs(r.psnr - 31.61512406876696) < 1e-9);
    assert_true(fabs(r.ssim - 0.8716868409166699) < 1e-9);
    assert_true(fabs(r.ms_ssim - 0.9913536235176044) < 1e-9);
    assert_true(fabs(r.gmsd - 0.013929607601699166) < 1e-9);
    assert_int_equal(r.ms_scales, 5);
    assert_int_equal(r.max_abs, 11);
    assert_int_equal(sx_compare(&e, &a, &a, &r), SX_OK);
    assert_true(isinf(r.psnr) && fabs(r.ssim - 1) < 1e-12 && fabs(r.ms_ssim - 1) < 1e-12 && r.gmsd < 1e-7 && r.max_abs == 0);
    b.h--;
    assert_int_equal(sx_compare(&e, &a, &b, &r), SX_FAILED);
    assert_non_null(strstr(e.text, "180"));
    sx_image_free(&a);
    sx_image_free(&b);
}

static void drift(void **state)
{
    (void)state;
    const float r[4] = {1, -2, 3, -4}, t[4] = {1, -2, 3, -3}, bad[3] = {1, NAN, -INFINITY};
    sx_drift d = sx_latent_drift(r, t, 4);
    assert_true(fabs(d.mse - 0.25) < 1e-12 && fabs(d.sqnr_db - 10 * log10(30.0)) < 1e-9);
    assert_true(fabs(d.cosine - 26 / sqrt(30.0 * 23.0)) < 1e-12);
    assert_true(isinf(sx_latent_drift(r, r, 4).sqnr_db));
    assert_int_equal(sx_count_bad(bad, 3), 2);
}

static void verdicts(void **state)
{
    (void)state;
    sx_image a, black, pale, noisy;
    sx_look la, l;
    sx_err e;
    fill(&a, false);
    sx_look_at(&a, &la);
    assert_string_equal(sx_verdict(&la, NULL, 0), "ok");
    assert_string_equal(sx_verdict(&la, &la, 3), "nan");
    assert_int_equal(sx_image_new(&e, W, H, 0, &black), SX_OK);
    sx_look_at(&black, &l);
    assert_string_equal(sx_verdict(&l, &la, 0), "black");
    assert_int_equal(sx_image_copy(&e, &a, &pale), SX_OK);
    assert_int_equal(sx_image_copy(&e, &a, &noisy), SX_OK);
    for (int i = 0; i < W * H * 3; i++) {
        pale.rgb[i] = (uint8_t)(110 + a.rgb[i] / 5);
        noisy.rgb[i] = (uint8_t)(a.rgb[i] / 2 + (unsigned)(i * 2654435761u >> 24) / 2);
    }
    sx_look_at(&pale, &l);
    assert_string_equal(sx_verdict(&l, &la, 0), "washed-out");
    sx_look smooth = la;
    smooth.laplacian = 0.002;
    sx_look_at(&noisy, &l);
    assert_string_equal(sx_verdict(&l, &smooth, 0), "noisy");
    assert_string_equal(sx_verdict(&smooth, &l, 0), "blurred");
    sx_image_free(&a);
    sx_image_free(&black);
    sx_image_free(&pale);
    sx_image_free(&noisy);
}

static void png_round_trip(void **state)
{
    (void)state;
    char path[] = "/tmp/sdxl_png_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    sx_image a, b;
    sx_err e;
    fill(&a, true);
    const sx_png_text text[] = {{"parameters", "a red circle, Steps: 4"}, {"note", "caf\xc3\xa9"}};
    assert_int_equal(sx_png_write(&e, path, &a, text, 2), SX_OK);
    assert_int_equal(sx_png_read(&e, path, &b), SX_OK);
    assert_true(a.w == b.w && a.h == b.h && memcmp(a.rgb, b.rgb, (size_t)W * H * 3) == 0);
    char *file;
    size_t len;
    assert_int_equal(sx_read_file(&e, path, 1 << 24, &file, &len), SX_OK);
    assert_non_null(memmem(file, len, "tEXtparameters", 14));
    assert_non_null(memmem(file, len, "iTXtnote", 8));
    assert_int_equal(sx_write_file(&e, path, file, len / 2), SX_OK); /* cut in the middle */
    sx_image_free(&b);
    assert_int_equal(sx_png_read(&e, path, &b), SX_FAILED);
    assert_non_null(strstr(e.text, path));
    sx_free(file);
    sx_image_free(&a);
    unlink(path);
}

static void pixels_and_floats(void **state)
{
    (void)state;
    const float x[6] = {-1, 1, 0, 2, -3, 1.0f / 255}; /* two pixels, three channels */
    sx_image m;
    sx_err e;
    int64_t bad;
    assert_int_equal(sx_image_from_floats(&e, x, 2, 1, &m, &bad), SX_OK);
    const uint8_t want[6] = {0, 128, 0, 255, 255, 128}; /* 127.5 rounds to even, 128 */
    assert_memory_equal(m.rgb, want, 6);
    float back[6];
    sx_image_to_floats(&m, back);
    assert_true(back[0] == -1 && back[1] == 1 && fabsf(back[2] - (2 * 128 / 255.0f - 1)) < 1e-6f);
    sx_image_free(&m);
    const float nan3[3] = {NAN, 0, INFINITY};
    assert_int_equal(sx_image_from_floats(&e, nan3, 1, 1, &m, &bad), SX_OK);
    assert_int_equal(bad, 2);
    assert_int_equal(m.rgb[0], 0);
    sx_image_free(&m);
}

static void sheets(void **state)
{
    (void)state;
    sx_image pics[5], out, diff;
    const char *labels[5] = {"one", "two with a label that is much longer than the picture is wide", "", "four", "five"};
    sx_err e;
    for (int i = 0; i < 5; i++) assert_int_equal(sx_image_new(&e, 40 + i, 30, 0xFF0000, &pics[i]), SX_OK);
    assert_int_equal(sx_contact_sheet(&e, pics, labels, 5, 0, 512, &out), SX_OK);
    assert_true(out.w == 3 * (44 + 6) + 6 && out.h > 2 * 30);
    assert_int_equal(out.rgb[(6 * out.w + 6) * 3], 0xFF); /* first cell begins behind the gap */
    assert_int_equal(out.rgb[(6 * out.w + 6) * 3 + 1], 0);
    sx_image_free(&out);
    const double y[4] = {1, 4, NAN, 2};
    const sx_series s = {"drift", y, 4, 0x0000FF};
    assert_int_equal(sx_plot(&e, "a plot", "step", &s, 1, &out), SX_OK);
    int blue = 0;
    for (int i = 0; i < out.w * out.h; i++) blue += out.rgb[i * 3 + 2] == 0xFF && out.rgb[i * 3] == 0;
    assert_true(blue > 100);
    assert_int_equal(sx_difference(&e, &pics[0], &pics[1], 8, &diff), SX_FAILED);
    assert_int_equal(sx_contact_sheet(&e, pics, NULL, 0, 0, 0, &diff), SX_FAILED);
    sx_image_free(&out);
    for (int i = 0; i < 5; i++) sx_image_free(&pics[i]);
}

static void resize(void **state)
{
    (void)state;
    sx_image a, half, same;
    sx_err e;
    assert_int_equal(sx_image_new(&e, 64, 32, 0x336699, &a), SX_OK);
    assert_int_equal(sx_image_resize(&e, &a, 31, 17, &half), SX_OK);
    assert_true(half.w == 31 && half.h == 17 && half.rgb[0] == 0x33 && half.rgb[100 * 3 + 2] == 0x99);
    assert_int_equal(sx_image_resize(&e, &a, 64, 32, &same), SX_OK);
    assert_memory_equal(a.rgb, same.rgb, 64 * 32 * 3);
    sx_image_free(&a);
    assert_int_equal(sx_image_new(&e, 0, 5, 0, &a), SX_FAILED);
    sx_image_free(&half);
    sx_image_free(&same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(compared), cmocka_unit_test(drift), cmocka_unit_test(verdicts),
                                       cmocka_unit_test(png_round_trip),
        cmocka_unit_test(pixels_and_floats), cmocka_unit_test(sheets), cmocka_unit_test(resize)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
