/* divergence.h - Kullback-Leibler divergence between two rows of logits, in nats. */
#ifndef QX_KERNELS_DIVERGENCE_H
#define QX_KERNELS_DIVERGENCE_H

#include <stdint.h>

/* log of the sum of exp(x[i]), n >= 1; exponentials in float, their sum in double. */
double qx_log_sum_exp(const float *x, int64_t n);
/* KL(softmax(p) || softmax(q)); p_norm and q_norm are qx_log_sum_exp of the rows. Terms below exp(-80) count as 0. */
double qx_divergence(const float *p, double p_norm, const float *q, double q_norm, int64_t n);

#endif
