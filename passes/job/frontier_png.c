/* frontier_png.c - the picture of frontier.h as a file. A small canvas, and libpng at the end. */
#include "passes/job/frontier.h"

#include <png.h>
#include <stdio.h>
#include <string.h>

#include "base/dots/dots.h"
#include "base/file.h"

enum { WIDTH = 800, HEIGHT = 480, LEFT = 84, RIGHT = 40, TOP = 34, BOTTOM = 56 };
typedef struct colour { uint8_t r, g, b; } colour;
typedef struct canvas { uint8_t *rgb; qx_axes axes; } canvas;

static const colour black = {30, 30, 30}, grey = {224, 224, 224}, blue = {31, 97, 181}, red = {200, 40, 40}, orange = {222, 130, 20};

static void dot(const canvas *c, int x, int y, colour k)
{
    if (x < 0 || y < 0 || x >= WIDTH || y >= HEIGHT) return;
    uint8_t *p = c->rgb + (y * WIDTH + x) * 3;
    p[0] = k.r, p[1] = k.g, p[2] = k.b;
}

static void disc(const canvas *c, int x, int y, int r, colour k)
{
    for (int j = -r; j <= r; j++)
        for (int i = -r; i <= r; i++)
            if (i * i + j * j <= r * r) dot(c, x + i, y + j, k);
}

static void line(const canvas *c, int x0, int y0, int x1, int y1, colour k)
{
    const int dx = x1 - x0, dy = y1 - y0, n = (dx < 0 ? -dx : dx) > (dy < 0 ? -dy : dy) ? (dx < 0 ? -dx : dx) : (dy < 0 ? -dy : dy);
    for (int i = 0; i <= n; i++) dot(c, x0 + (n ? dx * i / n : 0), y0 + (n ? dy * i / n : 0), k);
}

static void write_text(const canvas *c, int x, int y, const char *s, colour k)
{
    for (; *s; s++, x += 6) {
        const unsigned char *columns = qx_dots(*s);
        for (int i = 0; i < 5; i++)
            for (int j = 0; j < 8; j++)
                if (columns[i] >> j & 1) dot(c, x + i, y + j, k);
    }
}

static int at_x(double x) { return LEFT + (int)(x * (WIDTH - LEFT - RIGHT)); }
static int at_y(double y) { return TOP + (int)(y * (HEIGHT - TOP - BOTTOM)); }

static void draw_axes(const canvas *c)
{
    const qx_axes *a = &c->axes;
    char text[32];
    for (int d = (int)a->y0; d <= (int)a->y1; d++) {
        const int y = at_y((a->y1 - d) / (a->y1 - a->y0));
        line(c, LEFT, y, WIDTH - RIGHT, y, grey);
        snprintf(text, sizeof text, "1e%d", d);
        write_text(c, LEFT - 40, y - 3, text, black);
    }
    for (int i = 0; i <= 6; i++) {
        const double b = a->x0 + (a->x1 - a->x0) * i / 6;
        const int x = at_x(i / 6.0);
        line(c, x, TOP, x, HEIGHT - BOTTOM, grey);
        snprintf(text, sizeof text, b >= 1e9 ? "%.2f GB" : "%.2f MB", b / (b >= 1e9 ? 1e9 : 1e6));
        write_text(c, x - 24, HEIGHT - BOTTOM + 10, text, black);
    }
    line(c, LEFT, TOP, LEFT, HEIGHT - BOTTOM, black);
    line(c, LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, black);
    write_text(c, LEFT, 12, a->kl ? "predicted KL to the float model, nats" : "predicted noise, relative to the output", black);
    write_text(c, WIDTH / 2 - 60, HEIGHT - 22, "size of the file", black);
}

static void draw_points(const canvas *c, const qx_report *r)
{
    int px = -1, py = -1;
    for (int64_t i = 0; i < r->n_points; i++) {
        const qx_report_point *p = &r->points[i];
        const int x = at_x(qx_frontier_x(&c->axes, p)), y = at_y(qx_frontier_y(&c->axes, p));
        if (p->label) continue;
        if (px >= 0) line(c, px, py, x, y, blue);
        disc(c, x, y, 2, blue);
        px = x, py = y;
    }
    for (int64_t i = 0; i < r->n_points; i++) {
        const qx_report_point *p = &r->points[i];
        const int x = at_x(qx_frontier_x(&c->axes, p)), y = at_y(qx_frontier_y(&c->axes, p));
        const char *label = p->chosen ? "chosen" : p->label;
        if (!label) continue;
        disc(c, x, y, 4, p->chosen ? red : orange);
        const bool right = x + 12 + 6 * (int)strlen(label) < WIDTH - RIGHT;
        write_text(c, right ? x + 9 : x - 9 - 6 * (int)strlen(label), p->chosen ? y + 8 : y - 12, label, p->chosen ? red : orange);
    }
}

static qx_status encode(qx_ctx *ctx, const canvas *c, void **png, size_t *size)
{
    png_image im = {.version = PNG_IMAGE_VERSION, .width = WIDTH, .height = HEIGHT, .format = PNG_FORMAT_RGB};
    png_alloc_size_t n = PNG_IMAGE_PNG_SIZE_MAX(im);
    QX_TRY(qx_alloc_raw(ctx, n, png));
    if (!png_image_write_to_memory(&im, *png, &n, 0, c->rgb, 0, NULL))
        QX_FAIL(ctx, QX_E_FAIL, "the picture cannot be made: %s", im.message);
    *size = n;
    return QX_OK;
}

static qx_status save(qx_ctx *ctx, const char *path, const void *bytes, size_t n)
{
    qx_outset *set;
    qx_out *out;
    QX_TRY(qx_outset_new(ctx, &set));
    qx_status st = qx_out_open(set, path, NULL, 0, &out);
    if (st == QX_OK) st = qx_out_write_at(out, 0, bytes, n);
    if (st == QX_OK) st = qx_outset_commit(set);
    qx_outset_free(set);
    return st;
}

qx_status qx_frontier_png(const qx_report *r, const char *path)
{
    canvas c = {0};
    void *png = NULL;
    size_t size;
    qx_status st;
    if (!r->n_points)
        QX_FAIL(r->ctx, QX_E_USAGE, "frontier '%s': no pass chose among formats; ask for --target-size or --target-sqnr", path);
    QX_TRY(qx_alloc_raw(r->ctx, (size_t)WIDTH * HEIGHT * 3, (void **)&c.rgb));
    memset(c.rgb, 255, (size_t)WIDTH * HEIGHT * 3);
    c.axes = qx_frontier_axes(r);
    draw_axes(&c);
    draw_points(&c, r);
    st = encode(r->ctx, &c, &png, &size);
    if (st == QX_OK) st = save(r->ctx, path, png, size);
    qx_free(r->ctx, png);
    qx_free(r->ctx, c.rgb);
    return st;
}
