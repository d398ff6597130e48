/* rng.h - normal random numbers that equal torch's, bit for bit in the integers and to float rounding in the transform:
 * the CPU generator (mt19937) and the CUDA generator (Philox 4x32-10). One stream serves the first latent and the step noise. */
#ifndef SX_RNG_H
#define SX_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum sx_rng_kind { SX_RNG_CPU, SX_RNG_CUDA } sx_rng_kind;
typedef struct sx_rng {
    sx_rng_kind kind;
    uint32_t mt[624];
    int mt_at;
    bool have_cached;
    double cached;   /* second value of the pair that a draw of fewer than 16 makes */
    uint64_t seed;
    uint32_t calls;  /* Philox: number of draws so far */
} sx_rng;

void sx_rng_init(sx_rng *r, sx_rng_kind kind, uint64_t seed);
/* torch.randn(n): n values of mean 0 and deviation 1, as one call. */
void sx_rng_normal(sx_rng *r, float *out, size_t n);

#endif
