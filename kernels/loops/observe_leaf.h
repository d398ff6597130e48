/* observe_leaf.h - the table of observation loops that one instruction set gives, and the vector types they are written with. */
#ifndef QX_KERNELS_LOOPS_OBSERVE_LEAF_H
#define QX_KERNELS_LOOPS_OBSERVE_LEAF_H

#include "kernels/loops/isa.h"
#include "kernels/observe.h"

#include <string.h>

typedef struct qx_observe_leaf {
    qx_scan (*scan)(const float *x, int64_t n, bool sizes);
    void (*hist)(const float *x, int64_t n, float inv_width, uint64_t *bins);
    int64_t (*columns)(const float *x, int64_t rows, int64_t stride, int64_t cols, const qx_columns *acc);
} qx_observe_leaf;
const qx_observe_leaf *qx_observe_ref(void);
const qx_observe_leaf *qx_observe_cpu(qx_isa isa);

typedef float v8f __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef double v8d __attribute__((vector_size(64)));
typedef int64_t v8l __attribute__((vector_size(64)));
#define splat8f(c) ((v8f){c, c, c, c, c, c, c, c})
#define splat8i(c) ((v8i){c, c, c, c, c, c, c, c})
#define ABS8(d) ((v8d)((v8l)(d) & INT64_MAX))
#define PICKI(mask, a, b) (((mask) & (a)) | (~(mask) & (b)))
#define PICK(mask, a, b) ((v8f)PICKI((mask), (v8i)(a), (v8i)(b)))
/* hi + lo += v without error (two-sum). MINUS(a, b), of observe_loops.h, is a - b. */
#define ADD2(hi, lo, v)                                          \
    do {                                                         \
        const v8d v_ = (v), s_ = (hi) + v_, t_ = MINUS(s_, hi);  \
        (lo) += ((hi) - MINUS(s_, t_)) + MINUS(v_, t_);          \
        (hi) = s_;                                               \
    } while (0)

#endif
