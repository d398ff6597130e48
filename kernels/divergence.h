/* divergence.h - how far one row is from another: Kullback-Leibler divergence of logits, in nats, and the energy of the difference. */
#ifndef QX_KERNELS_DIVERGENCE_H
#define QX_KERNELS_DIVERGENCE_H

#include <stdint.h>

/* log of the sum of exp(x[i]), n >= 1; exponentials in float, their sum in double. */
double qx_log_sum_exp(const float *x, int64_t n);
/* KL(softmax(p) || softmax(q)); p_norm and q_norm are qx_log_sum_exp of the rows. Terms below exp(-80) count as 0. */
double qx_divergence(const float *p, double p_norm, const float *q, double q_norm, int64_t n);
/* The sums of a^2 and of (a - b)^2, in double: the same bits on every instruction set. */
void qx_noise(const float *a, const float *b, int64_t n, double *signal, double *noise);

#endif
