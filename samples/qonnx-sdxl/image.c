/* image.c - pixels: from and to network tensors, resizing, drawing. */
#include "image.h"

#include <math.h>
#include <string.h>

#include "dots.h"

int sx_image_new(sx_err *e, int w, int h, uint32_t fill, sx_image *out)
{
    *out = (sx_image){0};
    if (w < 1 || h < 1 || w > SX_MAX_SIDE || h > SX_MAX_SIDE)
        return sx_fail(e, SX_FAILED, "picture of %d x %d pixels, expected 1 to %d a side", w, h, SX_MAX_SIDE);
    SX_TRY(sx_alloc(e, (size_t)w * (size_t)h, 3, (void **)&out->rgb));
    out->w = w;
    out->h = h;
    if (fill) sx_draw_rect(out, 0, 0, w, h, fill);
    return SX_OK;
}

void sx_image_free(sx_image *m)
{
    sx_free(m->rgb);
    *m = (sx_image){0};
}

int sx_image_copy(sx_err *e, const sx_image *in, sx_image *out)
{
    SX_TRY(sx_image_new(e, in->w, in->h, 0, out));
    memcpy(out->rgb, in->rgb, (size_t)in->w * (size_t)in->h * 3);
    return SX_OK;
}

int sx_image_from_floats(sx_err *e, const float *x, int w, int h, sx_image *out, int64_t *bad)
{
    SX_TRY(sx_image_new(e, w, h, 0, out));
    size_t n = (size_t)w * (size_t)h;
    int64_t count = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < 3; c++) {
            float v = x[c * n + i] * 0.5f + 0.5f;
            if (!isfinite(v)) count++;
            out->rgb[i * 3 + c] = v > 0 ? (uint8_t)nearbyintf(fminf(v, 1) * 255) : 0; /* also false for NaN */
        }
    }
    if (bad) *bad = count;
    return SX_OK;
}

void sx_image_to_floats(const sx_image *m, float *x)
{
    size_t n = (size_t)m->w * (size_t)m->h;
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < 3; c++) x[c * n + i] = 2 * ((float)m->rgb[i * 3 + c] / 255.0f) - 1;
}

/* One output sample of a row or column: weights of the inputs it covers. */
static void resample_line(const float *in, int n_in, size_t stride_in, float *out, int n_out, size_t stride_out)
{
    double ratio = (double)n_in / n_out;
    for (int i = 0; i < n_out; i++) {
        double sum = 0, weight = 0, center = (i + 0.5) * ratio, reach = fmax(ratio, 1);
        for (int k = (int)floor(center - reach); k <= (int)ceil(center + reach); k++) {
            double t = 1 - fabs(k + 0.5 - center) / reach;
            if (t <= 0 || k < 0 || k >= n_in) continue;
            sum += t * in[(size_t)k * stride_in];
            weight += t;
        }
        out[(size_t)i * stride_out] = (float)(sum / weight);
    }
}

int sx_image_resize(sx_err *e, const sx_image *in, int w, int h, sx_image *out)
{
    if (w == in->w && h == in->h) return sx_image_copy(e, in, out);
    SX_TRY(sx_image_new(e, w, h, 0, out));
    float *a = NULL, *b = NULL, *c = NULL;
    int rc;
    SX_TRY_GOTO(rc, SX_NEW(e, (size_t)in->w * (size_t)in->h, &a));
    SX_TRY_GOTO(rc, SX_NEW(e, (size_t)w * (size_t)in->h, &b));
    SX_TRY_GOTO(rc, SX_NEW(e, (size_t)w * (size_t)h, &c));
    for (int ch = 0; ch < 3; ch++) {
        for (size_t i = 0; i < (size_t)in->w * (size_t)in->h; i++) a[i] = in->rgb[i * 3 + (size_t)ch];
        for (int y = 0; y < in->h; y++) resample_line(a + (size_t)y * (size_t)in->w, in->w, 1, b + (size_t)y * (size_t)w, w, 1);
        for (int x = 0; x < w; x++) resample_line(b + x, in->h, (size_t)w, c + x, h, (size_t)w);
        for (size_t i = 0; i < (size_t)w * (size_t)h; i++) out->rgb[i * 3 + (size_t)ch] = (uint8_t)nearbyintf(fminf(fmaxf(c[i], 0), 255));
    }
done:
    sx_free(a);
    sx_free(b);
    sx_free(c);
    if (rc != SX_OK) sx_image_free(out);
    return rc;
}

static void put_pixel(sx_image *on, int x, int y, uint32_t color)
{
    if (x < 0 || y < 0 || x >= on->w || y >= on->h) return;
    uint8_t *p = on->rgb + ((size_t)y * (size_t)on->w + (size_t)x) * 3;
    p[0] = (uint8_t)(color >> 16);
    p[1] = (uint8_t)(color >> 8);
    p[2] = (uint8_t)color;
}

void sx_draw_rect(sx_image *on, int x, int y, int w, int h, uint32_t color)
{
    for (int j = y; j < y + h; j++)
        for (int i = x; i < x + w; i++) put_pixel(on, i, j, color);
}

void sx_draw_image(sx_image *on, int x, int y, const sx_image *m)
{
    for (int j = 0; j < m->h; j++) {
        for (int i = 0; i < m->w; i++) {
            const uint8_t *p = m->rgb + ((size_t)j * (size_t)m->w + (size_t)i) * 3;
            put_pixel(on, x + i, y + j, (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]);
        }
    }
}

void sx_draw_line(sx_image *on, double x0, double y0, double x1, double y1, uint32_t color)
{
    double dx = x1 - x0, dy = y1 - y0;
    int n = (int)fmin(ceil(fmax(fabs(dx), fabs(dy))), 4 * SX_MAX_SIDE);
    for (int i = 0; i <= n; i++) {
        double t = n ? (double)i / n : 0;
        int x = (int)lround(x0 + t * dx), y = (int)lround(y0 + t * dy);
        put_pixel(on, x, y, color);
        put_pixel(on, x, y + 1, color); /* two pixels thick */
    }
}

/* Characters of UTF-8 text: bytes that do not continue a sequence. */
static bool starts_character(char c) { return ((unsigned char)c & 0xC0) != 0x80; }

int sx_text_width(const char *text, int scale)
{
    int n = 0;
    for (; *text; text++) n += starts_character(*text);
    return n * 6 * scale;
}

static void draw_glyph(sx_image *on, int x, int y, int scale, uint32_t color, const uint8_t *g)
{
    for (int col = 0; col < 5; col++)
        for (int row = 0; row < 8; row++)
            if (g[col] >> row & 1) sx_draw_rect(on, x + col * scale, y + row * scale, scale, scale, color);
}

void sx_draw_text(sx_image *on, int x, int y, int scale, uint32_t color, const char *text)
{
    for (; *text; text++) {
        if (!starts_character(*text)) continue;
        draw_glyph(on, x, y, scale, color, qx_dots(*text));
        x += 6 * scale;
    }
}
