/* random.h - numbers that are a function of a seed and an index. */
#ifndef QX_RUNTIME_CPU_RANDOM_H
#define QX_RUNTIME_CPU_RANDOM_H

#include "runtime/cpu/op.h"

/* Uniform in [0, 1), 53 bits: number i of the stream `seed`. */
double qx_random_uniform(uint64_t seed, uint64_t i);
/* From the attribute (int or float), or from the node's name. */
uint64_t qx_random_seed(const qx_call *c, const char *attr);

#endif
