/* half_loops.h - f16 through F16C, which gives the same bits as the scalar definition (NaN quiet, payload kept). */
TARGET static void FN(f16_to)(const void *src, int64_t n, float *dst)
{
    const uint16_t *s = src;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(s + i))));
    for (; i < n; i++) dst[i] = qx_sc_f16_to_f32(s[i]);
}

TARGET static void FN(f16_round)(float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT)));
    for (; i < n; i++) x[i] = qx_sc_f16_to_f32(qx_sc_f32_to_f16(x[i]));
}

TARGET static void FN(f16_from)(const float *src, int64_t n, void *dst)
{
    uint16_t *d = dst;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(d + i), _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++) d[i] = qx_sc_f32_to_f16(src[i]);
}
