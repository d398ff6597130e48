/* dtype.c - the table of element types and single-value conversions. The formats themselves are defined in scalar.h. */
#include "kernels/dtype.h"

#include <strings.h>

#include "kernels/scalar.h"

static const qx_dtype_info infos[QX_DT_COUNT_] = {
    [0] = {"UNDEFINED", "?", 0, 0},
#define QX_DTYPE(name, code, bits, cls, text) [code] = {#name, text, bits, #cls[0]},
#include "kernels/dtypes.def"
#undef QX_DTYPE
};

/* Spellings that people and other tools use, beside the two names of each row. */
static const struct { const char *text; qx_dtype dtype; } aliases[] = {
    {"float32", QX_DT_FLOAT}, {"fp32", QX_DT_FLOAT}, {"half", QX_DT_FLOAT16}, {"fp16", QX_DT_FLOAT16},
    {"float64", QX_DT_DOUBLE}, {"fp64", QX_DT_DOUBLE}, {"fp8", QX_DT_FLOAT8E4M3FN}, {"e4m3", QX_DT_FLOAT8E4M3FN},
    {"e4m3fn", QX_DT_FLOAT8E4M3FN}, {"fp8e4m3", QX_DT_FLOAT8E4M3FN}, {"float8_e4m3fn", QX_DT_FLOAT8E4M3FN},
    {"e5m2", QX_DT_FLOAT8E5M2}, {"fp8e5m2", QX_DT_FLOAT8E5M2}, {"float8_e5m2", QX_DT_FLOAT8E5M2},
    {"e4m3fnuz", QX_DT_FLOAT8E4M3FNUZ}, {"e5m2fnuz", QX_DT_FLOAT8E5M2FNUZ}, {"e8m0", QX_DT_FLOAT8E8M0},
    {"fp4", QX_DT_FLOAT4E2M1}, {"e2m1", QX_DT_FLOAT4E2M1}, {"float4_e2m1fn", QX_DT_FLOAT4E2M1},
};

const qx_dtype_info *qx_dtype_get(int code)
{
    return code < 0 || code >= QX_DT_COUNT_ || !infos[code].name ? &infos[0] : &infos[code];
}

qx_dtype qx_dtype_parse(const char *text)
{
    if (!text) return QX_DT_UNDEFINED;
    for (int i = 1; i < QX_DT_COUNT_; i++)
        if (infos[i].name && (!strcasecmp(text, infos[i].name) || !strcasecmp(text, infos[i].text))) return (qx_dtype)i;
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (!strcasecmp(text, aliases[i].text)) return aliases[i].dtype;
    return QX_DT_UNDEFINED;
}

bool qx_dtype_bytes(int code, int64_t n, size_t *out)
{
    const int64_t bits = qx_dtype_bits(code);
    int64_t bytes = 0;
    if (bits == 0 || n < 0) return false;
    if (bits < 8) {
        const int64_t per = 8 / bits;
        bytes = n / per + (n % per != 0);
    } else if (__builtin_mul_overflow(n, bits / 8, &bytes)) {
        return false;
    }
    *out = (size_t)bytes;
    return true;
}

float qx_f16_to_f32(uint16_t h) { return qx_sc_f16_to_f32(h); }
uint16_t qx_f32_to_f16(float f) { return qx_sc_f32_to_f16(f); }
float qx_bf16_to_f32(uint16_t h) { return qx_sc_bf16_to_f32(h); }
uint16_t qx_f32_to_bf16(float f) { return qx_sc_f32_to_bf16(f); }
float qx_e4m3_to_f32(uint8_t c) { return qx_sc_e4m3_to_f32(c); }
uint8_t qx_f32_to_e4m3(float f, int saturate) { return qx_sc_f32_to_e4m3(f, saturate); }
float qx_e5m2_to_f32(uint8_t c) { return qx_sc_e5m2_to_f32(c); }
uint8_t qx_f32_to_e5m2(float f, int saturate) { return qx_sc_f32_to_e5m2(f, saturate); }
float qx_e2m1_to_f32(uint8_t c) { return qx_sc_e2m1_to_f32(c); }
uint8_t qx_f32_to_e2m1(float f) { return qx_sc_f32_to_e2m1(f); }
float qx_e8m0_to_f32(uint8_t c) { return qx_sc_e8m0_to_f32(c); }
uint8_t qx_f32_to_e8m0_ceil(float f) { return qx_sc_f32_to_e8m0_ceil(f); }
