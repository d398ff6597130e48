/* divergence.c - see divergence.h. */
#include "calib/divergence.h"

#include <math.h>

double qx_log_sum_exp(const float *x, int64_t n)
{
    float most = x[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
    for (int64_t i = 0; i < n; i++) sum += (double)expf(x[i] - most);
    return log(sum) + (double)most;
}

double qx_divergence(const float *p, double p_norm, const float *q, double q_norm, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double lp = (double)p[i] - p_norm;
        if (lp > -80) sum += (double)expf((float)lp) * (lp - ((double)q[i] - q_norm));
    }
    return sum;
}
