/* metrics.h - how far two pictures or two latents are apart, and what is wrong with a picture at first sight. No network is needed. */
#ifndef SX_METRICS_H
#define SX_METRICS_H

#include "image.h"

typedef struct sx_compared {
    double psnr;      /* dB, 10 log10(1/MSE) over RGB/255; inf when equal */
    double ssim;      /* gaussian 11x11 sigma 1.5, K .01 .03, full size, per channel then mean; NaN below 11 pixels a side */
    double ms_ssim;   /* up to 5 scales (ms_scales of them fit), 2x2 mean pool; with fewer than 5, weights are made to sum to 1 */
    int ms_scales;
    double gmsd;      /* gradient magnitude deviation of Y, 0 = same */
    int max_abs;      /* 0..255 */
} sx_compared;
int sx_compare(sx_err *e, const sx_image *ref, const sx_image *test, sx_compared *out);

typedef struct sx_look {
    double mean[3], std[3];
    /* 0..1 */ double luma_low, luma_high;
    /* 1st and 99th percentile */ double laplacian; /* variance of the Laplacian of Y */
} sx_look;
void sx_look_at(const sx_image *m, sx_look *out);
/* "ok", or what is wrong: "nan", "black", "flat", "washed-out", "noisy", "blurred". ref may be NULL. bad: values that were not finite. */
const char *sx_verdict(const sx_look *test, const sx_look *ref, int64_t bad);

typedef struct sx_drift { double mse, sqnr_db, cosine; } sx_drift; /* sqnr inf when equal */
sx_drift sx_latent_drift(const float *ref, const float *test, size_t n);
int64_t sx_count_bad(const float *x, size_t n); /* NaN and infinite values */

#endif
