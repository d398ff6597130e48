/* compare.h - same seeds, two sets of parts: numbers, pictures and a gate. */
#ifndef SX_COMPARE_H
#define SX_COMPARE_H

#include "run.h"

typedef struct sx_pair {
    sx_compared c;
    sx_look ref_look, test_look;
    const char *verdict, *ref_verdict;
    sx_drift *drift; int steps;         /* [steps] */
    sx_drift last;
    double lpips, clip_ref, clip;       /* by the user's networks (score.h); NaN: not asked for */
} sx_pair;
typedef struct sx_comparison {
    const sx_batch *ref, *test;
    sx_pair *pairs; int n;
    double mean_psnr, worst_psnr, mean_ssim, mean_ms_ssim, mean_gmsd;   /* identical pictures count as 100 dB */
    double mean_lpips, mean_clip_ref, mean_clip;                          /* NaN: not asked for */
    int wrong;                                                            /* pictures whose verdict is not ok */
    double *mean_sqnr, *worst_sqnr; int steps;                            /* latent, by step, dB */
} sx_comparison;

int sx_compare_batches(sx_err *e, const sx_batch *ref, const sx_batch *test, sx_comparison *out);
void sx_comparison_free(sx_comparison *c);
double sx_per_step(const sx_batch *b); /* seconds; NaN without steps */
/* report.html (one file), report.json, sheet.png, drift.png and the pictures and differences into dir. */
int sx_report_write(sx_err *e, const sx_comparison *c, double min_psnr, const char *dir);
/* The JSON of the comparison, also for standard output. */
void sx_report_json(const sx_comparison *c, double min_psnr, sx_text *out);

#endif
