/* pointwise.h - element by element loops: unary functions, and binary operations on runs in which each operand either advances or
 * stays (the inner loop of a broadcast). x, a or b may be the same memory as y.
 * Integers wrap around; division and modulo by zero give 0 (the standard leaves it open) and MIN / -1 gives MIN. */
#ifndef QX_KERNELS_POINTWISE_H
#define QX_KERNELS_POINTWISE_H

#include <stdint.h>

#include "kernels/dtype.h"

typedef enum qx_unary {
#define QX_UNARY(name, f32, f64) QX_U_##name,
#include "kernels/unary.def"
#undef QX_UNARY
    QX_U_COUNT_
} qx_unary;

/* p: the function's parameters, as unary.def names them. */
typedef void qx_unary_fn(const void *x, void *y, int64_t n, const float *p);
/* NULL when the function does not exist for the type. FLOAT and DOUBLE have all; integers ABS, NEG, SIGN and RELU. */
qx_unary_fn *qx_unary_find(qx_unary op, qx_dtype dtype);

typedef enum qx_binary {
    QX_B_ADD, QX_B_SUB, QX_B_MUL, QX_B_DIV, QX_B_POW, QX_B_MIN, QX_B_MAX, QX_B_MOD /* sign of the divisor */,
    QX_B_FMOD /* of the dividend */,
    QX_B_PRELU, QX_B_EQUAL, QX_B_LESS, QX_B_LESS_EQUAL, QX_B_GREATER, QX_B_GREATER_EQUAL, QX_B_AND, QX_B_OR, QX_B_XOR, QX_B_SHL, QX_B_SHR,
    QX_B_COUNT_
} qx_binary;

/* sa, sb: 0 or 1. Comparisons write one byte an element. MIN and MAX hand NaN on. AND, OR, XOR are bitwise (bool: 0 and 1). */
typedef void qx_binary_fn(const void *a, int64_t sa, const void *b, int64_t sb, void *y, int64_t n);
qx_binary_fn *qx_binary_find(qx_binary op, qx_dtype dtype);

/* y = c ? a : b on elements of `size` bytes (1, 2, 4, 8, 16); sc, sa, sb: 0 or 1. */
void qx_select(const uint8_t *c, int64_t sc, const void *a, int64_t sa, const void *b, int64_t sb, void *y, int64_t n, int size);

#endif
