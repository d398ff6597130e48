/* winograd.h - 3x3 convolution of stride 1 by Winograd's F(4x4, 3x3) (Lavin and Gray, Fast Algorithms for Convolutional Neural
 * Networks, 2015): tiles of 6 x 6 pixels, each giving 4 x 4, and the weights are transformed so that 36 products [tiles, in] x
 * [in, out] do what takes 144 directly. The points are 0, +-5/8, +-3/2 and infinity: about 1e-6 of the result's norm, twice the
 * error of direct sums. Each output depends on its own tile only, so its bits do not depend on how tiles and channels are shared
 * out. An infinite or NaN pixel makes NaN of the whole tile. */
#ifndef QX_KERNELS_WINOGRAD_H
#define QX_KERNELS_WINOGRAD_H

#include <stdint.h>

enum { QX_WINO_TILE = 4, QX_WINO_POINTS = 36, QX_WINO_LANES = 16, QX_WINO_PIXELS = QX_WINO_TILE * QX_WINO_TILE };

/* A picture: pixel (y, x) of channel c is at data[c / block * plane + y * row + x * pixel + c % block]. Plain pictures have
 * blocks of one channel. */
typedef struct qx_wino_picture { float *data; int64_t height, width, channels, block, plane, row, pixel; } qx_wino_picture;

/* The weights [out, in, 3, 3] of 32 outputs from `first` on: to[point * stride + i * 32 + j] for input i and output first + j, 0
 * for outputs that do not exist. */
void qx_wino_panel(const float *w, int64_t in, int64_t out, int64_t first, float *to, int64_t stride);

/* QX_WINO_LANES channels from `first` on of the 6 x 6 pixels from (y, x) on, 0 outside of the picture and for channels that do
 * not exist: point p to to[p * stride]. */
void qx_wino_in(const qx_wino_picture *p, int64_t first, int64_t y, int64_t x, float *to, int64_t stride);
/* from[point * stride], QX_WINO_LANES channels each, back to pixels[QX_WINO_PIXELS][QX_WINO_LANES]. */
void qx_wino_out(const float *from, int64_t stride, float *pixels);
/* Adds those pixels of another picture, of the same layout as the result, that the tile has. */
void qx_wino_add(float *pixels, const qx_wino_picture *p, int64_t first, int64_t y, int64_t x);
/* Those of the pixels and channels that the picture has to their places; the tile's first is (y, x). */
void qx_wino_store(const float *pixels, const qx_wino_picture *p, int64_t first, int64_t y, int64_t x);

#endif
