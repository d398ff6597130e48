/* sheet.c - contact sheets, difference pictures and line plots, made of the drawing calls of image.c. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "image.h"

enum { GAP = 6, LINE = 12, MOST_CELL = 1024, MOST_LINES = 4 };
#define PAPER 0xF4F4F2u
#define INK 0x202020u
#define GRID 0xD8D8D4u

/* Letters of s on its first line: up to the last space that fits, or as many as fit. */
static size_t line_length(const char *s, size_t per_line)
{
    size_t n = strlen(s), k = per_line;
    if (n <= per_line) return n;
    while (k > 0 && s[k] != ' ') k--;
    return k ? k : per_line;
}

static int label_lines(const char *s, size_t per_line)
{
    int lines = 0;
    for (; *s; lines++) {
        s += line_length(s, per_line);
        s += strspn(s, " ");
    }
    return lines;
}

static void draw_label(sx_image *on, int x, int y, size_t per_line, int lines, const char *s)
{
    char part[256];
    for (; *s && lines > 0; y += LINE, lines--) {
        size_t k = line_length(s, per_line);
        snprintf(part, sizeof part, "%.*s", (int)k, s);
        sx_draw_text(on, x, y, 1, INK, part);
        s += k + strspn(s + k, " ");
    }
}

/* Largest side any cell may have, and the scale that brings the largest picture there. */
static double fit(const sx_image *pics, int n, int cell, int *cw, int *ch)
{
    int w = 1, h = 1;
    for (int i = 0; i < n; i++) {
        w = pics[i].w > w ? pics[i].w : w;
        h = pics[i].h > h ? pics[i].h : h;
    }
    double k = fmin(1, (double)cell / (w > h ? w : h));
    *cw = (int)fmax(1, floor(w * k));
    *ch = (int)fmax(1, floor(h * k));
    return k;
}

static int draw_cell(sx_err *e, sx_image *out, int x, int y, const sx_image *pic, double k)
{
    sx_image small;
    SX_TRY(sx_image_resize(e, pic, (int)fmax(1, floor(pic->w * k)), (int)fmax(1, floor(pic->h * k)), &small));
    sx_draw_image(out, x, y, &small);
    sx_image_free(&small);
    return SX_OK;
}

int sx_contact_sheet(sx_err *e, const sx_image *pics, const char *const *labels, int n, int columns, int cell, sx_image *out)
{
    if (n < 1) return sx_fail(e, SX_FAILED, "a sheet of no pictures");
    int cw, ch, lines = 0;
    if (columns < 1) columns = (int)ceil(sqrt(n));
    if (columns > n) columns = n;
    double k = fit(pics, n, cell > 0 && cell < MOST_CELL ? cell : MOST_CELL, &cw, &ch);
    while (columns > 1 && columns * (cw + GAP) + GAP > SX_MAX_SIDE) columns--;
    size_t per_line = cw / 6 > 0 ? (size_t)(cw / 6) : 1;
    int rows = (n + columns - 1) / columns;
    for (int i = 0; labels && i < n; i++) lines = labels[i] ? (int)fmax(lines, fmin(MOST_LINES, label_lines(labels[i], per_line))) : lines;
    int step = ch + GAP + lines * LINE;
    SX_TRY(sx_image_new(e, columns * (cw + GAP) + GAP, rows * step + GAP, PAPER, out));
    int rc = SX_OK;
    for (int i = 0; rc == SX_OK && i < n; i++) {
        int x = GAP + i % columns * (cw + GAP), y = GAP + i / columns * step;
        rc = draw_cell(e, out, x, y, &pics[i], k);
        if (labels && labels[i]) draw_label(out, x, y + ch + 3, per_line, lines, labels[i]);
    }
    if (rc != SX_OK) sx_image_free(out);
    return rc;
}

int sx_difference(sx_err *e, const sx_image *a, const sx_image *b, int gain, sx_image *out)
{
    if (a->w != b->w || a->h != b->h)
        return sx_fail(e, SX_FAILED, "pictures of %d x %d and %d x %d do not compare", a->w, a->h, b->w, b->h);
    SX_TRY(sx_image_new(e, a->w, a->h, 0, out));
    for (size_t i = 0; i < (size_t)a->w * (size_t)a->h * 3; i++) {
        int d = (a->rgb[i] > b->rgb[i] ? a->rgb[i] - b->rgb[i] : b->rgb[i] - a->rgb[i]) * gain;
        out->rgb[i] = (uint8_t)(d > 255 ? 255 : d);
    }
    return SX_OK;
}

typedef struct frame { int x, y, w, h; double lo, hi; int n; } frame;

static void find_range(frame *f, const sx_series *s, int n_series)
{
    f->lo = INFINITY;
    f->hi = -INFINITY;
    for (int k = 0; k < n_series; k++) {
        f->n = s[k].n > f->n ? s[k].n : f->n;
        for (int i = 0; i < s[k].n; i++) {
            if (!isfinite(s[k].y[i])) continue;
            f->lo = fmin(f->lo, s[k].y[i]);
            f->hi = fmax(f->hi, s[k].y[i]);
        }
    }
    if (f->lo > f->hi) f->lo = 0, f->hi = 1;
    if (f->hi - f->lo < 1e-9 * fmax(1, fabs(f->hi))) f->lo -= 0.5, f->hi += 0.5;
}

/* A round distance between about five grid lines: 1, 2 or 5 times a power of ten. */
static double tick(double span)
{
    double raw = span / 5, p = pow(10, floor(log10(raw))), m = raw / p;
    return p * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

static double px(const frame *f, int i) { return f->x + (f->n > 1 ? (double)i / (f->n - 1) : 0.5) * f->w; }
static double py(const frame *f, double v) { return f->y + f->h - (v - f->lo) / (f->hi - f->lo) * f->h; }

static void draw_grid(sx_image *on, const frame *f)
{
    char t[32];
    double step = tick(f->hi - f->lo);
    for (double v = ceil(f->lo / step) * step; v <= f->hi + 1e-9 * step; v += step) {
        int y = (int)lround(py(f, v));
        sx_draw_rect(on, f->x, y, f->w, 1, GRID);
        snprintf(t, sizeof t, "%.4g", fabs(v) < step * 1e-6 ? 0 : v);
        sx_draw_text(on, f->x - 8 - sx_text_width(t, 1), y - 3, 1, INK, t);
    }
    int every = (int)fmax(1, ceil(f->n / 12.0));
    for (int i = 0; i < f->n; i += every) {
        snprintf(t, sizeof t, "%d", i + 1);
        sx_draw_text(on, (int)px(f, i) - sx_text_width(t, 1) / 2, f->y + f->h + 6, 1, INK, t);
    }
}

static void draw_series(sx_image *on, const frame *f, const sx_series *s)
{
    for (int i = 0; i < s->n; i++) {
        if (!isfinite(s->y[i])) continue;
        double x = px(f, i), y = py(f, s->y[i]);
        sx_draw_rect(on, (int)x - 1, (int)y - 1, 4, 4, s->color);
        if (i > 0 && isfinite(s->y[i - 1])) sx_draw_line(on, px(f, i - 1), py(f, s->y[i - 1]), x, y, s->color);
    }
}

int sx_plot(sx_err *e, const char *title, const char *x_label, const sx_series *s, int n_series, sx_image *out)
{
    SX_TRY(sx_image_new(e, 720, 400, PAPER, out));
    frame f = {.x = 64, .y = 40, .w = 620, .h = 300};
    find_range(&f, s, n_series);
    sx_draw_text(out, f.x, 10, 2, INK, title);
    draw_grid(out, &f);
    sx_draw_rect(out, f.x, f.y, 1, f.h, INK);
    sx_draw_rect(out, f.x, f.y + f.h, f.w, 1, INK);
    for (int k = 0, x = f.x; k < n_series; k++) {
        draw_series(out, &f, &s[k]);
        sx_draw_rect(out, x, 380, 10, 4, s[k].color);
        sx_draw_text(out, x + 14, 378, 1, INK, s[k].name);
        x += 30 + sx_text_width(s[k].name, 1);
    }
    sx_draw_text(out, f.x + f.w - sx_text_width(x_label, 1), f.y + f.h + 22, 1, INK, x_label);
    return SX_OK;
}
