/* checked.h - arithmetic on sizes that come from files. Each returns false on overflow and leaves *out alone. */
#ifndef QX_BASE_CHECKED_H
#define QX_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool qx_add_i64(int64_t a, int64_t b, int64_t *out) { return !__builtin_add_overflow(a, b, out); }
static inline bool qx_sub_i64(int64_t a, int64_t b, int64_t *out) { return !__builtin_sub_overflow(a, b, out); }
static inline bool qx_mul_i64(int64_t a, int64_t b, int64_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool qx_add_size(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }
static inline bool qx_mul_size(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
/* Towards zero; what lies beyond +-2^62 is held there, so that its neighbours are numbers too, and NaN is 0. */
static inline int64_t qx_f64_to_i64(double v)
{
    const int64_t most = INT64_C(1) << 62;
    return v != v ? 0 : v >= (double)most ? most : v <= -(double)most ? -most : (int64_t)v;
}
/* Product of n dims; false on a negative dim or overflow. n = 0 gives 1. */
bool qx_dims_product(const int64_t *dims, int n, int64_t *out);

#endif
