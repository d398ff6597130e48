/* sha1.c - SHA-1 (FIPS 180-4), because the ONNX format names it for the `checksum` of external data. Not for security. */
#include "onnx/sha1.h"

#include <string.h>

static uint32_t rol(uint32_t v, int n) { return v << n | v >> (32 - n); }

void qx_sha1_init(qx_sha1 *s)
{
    *s = (qx_sha1){.h = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u, 0xc3d2e1f0u}};
}

static void block(qx_sha1 *s, const uint8_t *p)
{
    static const uint32_t k[4] = {0x5a827999u, 0x6ed9eba1u, 0x8f1bbcdcu, 0xca62c1d6u};
    uint32_t w[80];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = s->h[0], b = s->h[1], c = s->h[2], d = s->h[3], e = s->h[4];
    for (int i = 0; i < 80; i++) {
        const uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
        const uint32_t t = rol(a, 5) + f + e + k[i / 20] + w[i];
        e = d, d = c, c = rol(b, 30), b = a, a = t;
    }
    s->h[0] += a, s->h[1] += b, s->h[2] += c, s->h[3] += d, s->h[4] += e;
}

void qx_sha1_update(qx_sha1 *s, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    size_t used = s->n % 64;
    s->n += n;
    if (used) {
        const size_t take = n < 64 - used ? n : 64 - used;
        memcpy(s->block + used, p, take);
        p += take, n -= take, used += take;
        if (used < 64) return;
        block(s, s->block);
    }
    for (; n >= 64; p += 64, n -= 64) block(s, p);
    memcpy(s->block, p, n);
}

void qx_sha1_hex(qx_sha1 *s, char out[41])
{
    const uint64_t bits = s->n * 8;
    const uint8_t one = 0x80, zero = 0;
    uint8_t len[8];
    for (int i = 0; i < 8; i++) len[i] = (uint8_t)(bits >> (56 - 8 * i));
    qx_sha1_update(s, &one, 1);
    while (s->n % 64 != 56) qx_sha1_update(s, &zero, 1);
    qx_sha1_update(s, len, 8);
    for (int i = 0; i < 40; i++) out[i] = "0123456789abcdef"[s->h[i / 8] >> (28 - 4 * (i % 8)) & 15];
    out[40] = 0;
}
