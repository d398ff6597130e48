/* image.h - 8-bit RGB pictures: PNG in and out, drawing, contact sheets, difference pictures, line plots. */
#ifndef SX_IMAGE_H
#define SX_IMAGE_H

#include "util.h"

typedef struct sx_image { int w, h; uint8_t *rgb; /* [h][w][3] */ } sx_image;
enum { SX_MAX_SIDE = 16384 };

int sx_image_new(sx_err *e, int w, int h, uint32_t fill, sx_image *out); /* fill 0xRRGGBB */
void sx_image_free(sx_image *m);
/* Network output [3][h][w] in -1..1 to pixels: clamp(x/2 + 0.5) * 255, round half to even. Not-a-number becomes 0; their count
 * goes to *bad. */
int sx_image_from_floats(sx_err *e, const float *x, int w, int h, sx_image *out, int64_t *bad);
/* Pixels to [3][h][w] in -1..1. */
void sx_image_to_floats(const sx_image *m, float *x);
/* Area average when shrinking, bilinear when growing. */
int sx_image_resize(sx_err *e, const sx_image *in, int w, int h, sx_image *out);
int sx_image_copy(sx_err *e, const sx_image *in, sx_image *out);

typedef struct sx_png_text { const char *key, *value; } sx_png_text;
/* The whole file in memory, then one rename. Text beyond ASCII is written as iTXt. */
int sx_png_encode(sx_err *e, const sx_image *m, const sx_png_text *text, int n_text, sx_text *out);
int sx_png_write(sx_err *e, const char *path, const sx_image *m, const sx_png_text *text, int n_text);
/* Any PNG as RGB; alpha is dropped over white. */
int sx_png_read(sx_err *e, const char *path, sx_image *out);

/* Drawing; everything is clipped. Text is 5x7 dots, `scale` pixels a dot; letters outside ASCII show as '?'. */
void sx_draw_image(sx_image *on, int x, int y, const sx_image *m);
void sx_draw_text(sx_image *on, int x, int y, int scale, uint32_t color, const char *text);
void sx_draw_rect(sx_image *on, int x, int y, int w, int h, uint32_t color);
void sx_draw_line(sx_image *on, double x0, double y0, double x1, double y1, uint32_t color);
int sx_text_width(const char *text, int scale);

/* Grid of pictures with a line of text under each; cells are as large as the largest picture, at most `cell` pixels. columns 0:
 * about square. */
int sx_contact_sheet(sx_err *e, const sx_image *pics, const char *const *labels, int n, int columns, int cell, sx_image *out);
/* |a - b| * gain, clamped. Sizes must agree. */
int sx_difference(sx_err *e, const sx_image *a, const sx_image *b, int gain, sx_image *out);

typedef struct sx_series { const char *name; const double *y; int n; uint32_t color; } sx_series;
/* Line plot over x = 1..n (values that are not finite leave a gap). */
int sx_plot(sx_err *e, const char *title, const char *x_label, const sx_series *s, int n_series, sx_image *out);

#endif
