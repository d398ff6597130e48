/* fft.h - discrete Fourier transforms of any length, in double: by the prime factors of the length, a factor p as sums of p terms, so
 * that a length with small factors takes n log n operations and a prime one n squared. */
#ifndef QX_KERNELS_FFT_H
#define QX_KERNELS_FFT_H

#include <stdint.h>

enum { QX_FFT_FACTORS = 64 };
typedef struct qx_complex { double re, im; } qx_complex;
typedef struct qx_fft { int64_t n, factor[QX_FFT_FACTORS], largest; int factors; const qx_complex *w; } qx_fft;

/* n >= 1. w: room for n numbers, kept as long as the plan. */
void qx_fft_plan(int64_t n, qx_complex *w, qx_fft *out);
/* out[k] = sum over t < n of in[t] exp(-2 pi i k t / n). in and out do not overlap; room: for f->largest numbers. */
void qx_fft_run(const qx_fft *f, const qx_complex *in, qx_complex *out, qx_complex *room);

#endif
