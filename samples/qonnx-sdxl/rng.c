/* rng.c - torch's two generators of normal numbers. The CPU one fills uniform 24-bit floats and turns blocks of 16 into normals
 * (Box-Muller, cosine in the first eight, sine in the last eight); below 16 values it works in doubles, pair by pair. */
#include "rng.h"

#include <math.h>

#define TWO_PI 6.283185307179586476925286766559

static void mt_seed(sx_rng *r, uint32_t seed)
{
    r->mt[0] = seed;
    for (uint32_t i = 1; i < 624; i++) r->mt[i] = 1812433253u * (r->mt[i - 1] ^ (r->mt[i - 1] >> 30)) + i;
    r->mt_at = 624;
}

static void mt_refill(sx_rng *r)
{
    for (int i = 0; i < 624; i++) {
        uint32_t y = (r->mt[i] & 0x80000000u) | (r->mt[(i + 1) % 624] & 0x7fffffffu);
        r->mt[i] = r->mt[(i + 397) % 624] ^ (y >> 1) ^ ((y & 1) ? 0x9908b0dfu : 0);
    }
    r->mt_at = 0;
}

static uint32_t mt_next(sx_rng *r)
{
    if (r->mt_at >= 624) mt_refill(r);
    uint32_t y = r->mt[r->mt_at++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

static float uniform24(sx_rng *r) { return (float)(mt_next(r) & 0xffffffu) * (1.0f / 16777216.0f); }

static double uniform53(sx_rng *r)
{
    uint64_t hi = mt_next(r), lo = mt_next(r);
    return (double)(((hi << 32) | lo) & ((1ull << 53) - 1)) * (1.0 / 9007199254740992.0);
}

static void block16(float *d)
{
    for (int j = 0; j < 8; j++) {
        float u1 = 1.0f - d[j], u2 = d[j + 8];
        float radius = sqrtf(-2.0f * logf(u1)), theta = (float)TWO_PI * u2;
        d[j] = radius * cosf(theta);
        d[j + 8] = radius * sinf(theta);
    }
}

static void cpu_many(sx_rng *r, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = uniform24(r);
    for (size_t i = 0; i + 16 <= n; i += 16) block16(out + i);
    if (n % 16 == 0) return;
    float *last = out + n - 16;
    for (int i = 0; i < 16; i++) last[i] = uniform24(r);
    block16(last);
}

static float cpu_one(sx_rng *r)
{
    if (r->have_cached) {
        r->have_cached = false;
        return (float)r->cached;
    }
    double u1 = uniform53(r), u2 = uniform53(r);
    double radius = sqrt(-2.0 * log1p(-u2)), theta = TWO_PI * u1;
    r->cached = radius * sin(theta);
    r->have_cached = true;
    return (float)(radius * cos(theta));
}

static void philox(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)c[0] * 0xD2511F53u, p1 = (uint64_t)c[2] * 0xCD9E8D57u;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
        c[0] = n0;
        c[1] = (uint32_t)p1;
        c[2] = n2;
        c[3] = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

static void cuda_many(sx_rng *r, float *out, size_t n)
{
    const double two32 = 1.0 / 4294967296.0, half = two32 / 2;
    for (size_t i = 0; i < n; i++) {
        uint32_t c[4] = {r->calls, 0, (uint32_t)i, (uint32_t)(i >> 32)};
        philox(c, (uint32_t)r->seed, (uint32_t)(r->seed >> 32));
        double u = c[0] * two32 + half, v = TWO_PI * (c[1] * two32 + half);
        out[i] = (float)(sqrt(-2.0 * log(u)) * sin(v));
    }
    r->calls++;
}

void sx_rng_init(sx_rng *r, sx_rng_kind kind, uint64_t seed)
{
    *r = (sx_rng){.kind = kind, .seed = seed};
    mt_seed(r, (uint32_t)seed);
}

void sx_rng_normal(sx_rng *r, float *out, size_t n)
{
    if (r->kind == SX_RNG_CUDA) {
        cuda_many(r, out, n);
        return;
    }
    if (n >= 16) {
        cpu_many(r, out, n);
        return;
    }
    for (size_t i = 0; i < n; i++) out[i] = cpu_one(r);
}
