/* kernels.h - what the kernel tests share: cmocka, a seeded generator, adversarial floats. */
#ifndef TESTS_KERNELS_H
#define TESTS_KERNELS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static inline uint32_t rng_next(uint32_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 17;
    *s ^= *s << 5;
    return *s;
}
static inline float rng_uniform(uint32_t *s) { return (float)(rng_next(s) >> 8) * 0x1p-24f; }
static inline float rng_normal(uint32_t *s)
{
    float t = 0;
    for (int i = 0; i < 12; i++) t += rng_uniform(s);
    return t - 6.0f;
}

/* Values that break quantizers: signed zeros, ties, saturation, subnormals, the ends of the range; Inf and NaN when asked. */
static inline float adversarial(uint32_t *s, int nonfinite)
{
    static const float hard[] = {0, -0.0f, .5f, -.5f, 1.5f, -1.5f, 2.5f, 3.5f, 7.5f, -7.5f, -8.5f, 127.5f, -128.5f, 255.5f, 448, 465,
                                 1e30f, -1e30f,
                                 0x1p-149f, -0x1p-149f, 0x1p-126f, 0x1p-10f, 0x1.8p-10f, 3.4e38f, 1e-30f, .25f, .75f, 1.75f, 3.5f, 5};
    const uint32_t r = rng_next(s);
    if (nonfinite && r % 31 == 0) return r % 2 ? NAN : (r % 4 ? INFINITY : -INFINITY);
    if (r % 3 == 0) return hard[(r >> 8) % (uint32_t)COUNT(hard)];
    return rng_normal(s) * (r % 7 ? 1.0f : 30.0f);
}

#endif
