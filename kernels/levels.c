/* levels.c - what rounding makes of a histogram: the sum that a search of thresholds asks for some hundred times of each activation. */
#include "kernels/loops/multi.h"
#include "kernels/observe.h"
#include "kernels/scalar.h"

enum { LANES = 8 };

/* To even; for 0 <= q < 2^51. */
QX_INLINE double even(double q) { return (q + 0x1.8p52) - 0x1.8p52; }

#define LEVELS_LOOP(name, rounded)                                                                                                         \
    QX_INLINE void name##_body(const double *restrict x, const double *restrict count, int64_t n, double scale, double top,           \
                               double *restrict lane)                                                                                 \
    {                                                                                                                                 \
        for (int64_t i = 0; i < n; i += LANES)                                                                                        \
            for (int k = 0; k < LANES; k++) {                                                                                         \
                const double q = x[i + k] / scale, v = (rounded) * scale, d = (v < top ? v : top) - x[i + k];                         \
                lane[k] += count[i + k] * (d * d);                                                                                    \
            }                                                                                                                         \
    }                                                                                                                                 \
    QX_MULTI(static, name, (const double *x, const double *count, int64_t n, double scale, double top, double *lane),                 \
             (x, count, n, scale, top, lane))
LEVELS_LOOP(whole, even(q))
LEVELS_LOOP(e4m3, (double)qx_mini_round((float)q, 3, 7, 448.0f))
LEVELS_LOOP(e5m2, (double)qx_mini_round((float)q, 2, 15, 57344.0f))
LEVELS_LOOP(e2m1, (double)qx_mini_round((float)q, 1, 1, 6.0f))

double qx_levels_error(const double *x, const double *count, int64_t n, double scale, double top, qx_dtype format)
{
    double lane[LANES] = {0};
    if (format == QX_DT_FLOAT8E4M3FN) e4m3(x, count, n, scale, top, lane);
    else if (format == QX_DT_FLOAT8E5M2) e5m2(x, count, n, scale, top, lane);
    else if (format == QX_DT_FLOAT4E2M1) e2m1(x, count, n, scale, top, lane);
    else whole(x, count, n, scale, top, lane);
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}
