/* kv_codes.c - see kv_codes.h. */
#include "runtime/cpu/attention/kv_codes.h"

#include <string.h>

#include "kernels/dtype.h"
#include "kernels/pointwise.h"
#include "kernels/scalar.h"

qx_status qx_kv_codes_read(qx_call *c, qx_dtype type, uint32_t scale_in, const char *quant_attr, int64_t heads, int64_t d, qx_kv_codes *out)
{
    const qx_tensor *scale;
    const char *mode = qx_call_str(c, quant_attr, "NONE");
    const int64_t bits = qx_call_int(c, "kv_cache_bit_width", 8);
    const bool four = type == QX_DT_UINT8 && bits == 4;
    if (!strcmp(mode, "NONE")) {
        if (!qx_dtype_is_real((int)type))
            QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "a cache of %s without %s", qx_dtype_get((int)type)->text, quant_attr);
        *out = (qx_kv_codes){.type = type, .d = d, .row_elements = d, .row_bytes = d * qx_dtype_get((int)type)->bits / 8};
        return QX_OK;
    }
    QX_TRY(qx_call_need(c, scale_in, &scale));
    if (!four && (bits != 8 || (type != QX_DT_INT8 && type != QX_DT_FLOAT8E4M3FN)))
        QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "a cache of %s with %lld bits a value", qx_dtype_get((int)type)->text, (long long)bits);
    if (four && d % 2) QX_CALL_FAIL(c, QX_E_SHAPE, "4-bit caches need an even head size, it is %lld", (long long)d);
    *out = (qx_kv_codes){.type = type, .d = d, .row_bytes = four ? d / 2 : d, .row_elements = four ? d / 2 : d,
                         .per_channel = !strcmp(mode, "PER_CHANNEL")};
    const int64_t want = out->per_channel ? heads * d : 1;
    if ((!out->per_channel && strcmp(mode, "PER_TENSOR") != 0) || scale->numel != want)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%s is '%s' with %lld scales; %lld are needed", quant_attr, mode, (long long)scale->numel,
                     (long long)want);
    return qx_call_in_f32(c, scale_in, &out->scale);
}

qx_attn_codes qx_kv_codes_of(const qx_kv_codes *k)
{
    const bool four = k->type == QX_DT_UINT8;
    return (qx_attn_codes){four ? QX_DT_UINT4 : (int)k->type, four ? 8.0f : 0.0f, k->scale, k->per_channel};
}

void qx_kv_encode(const qx_kv_codes *k, int64_t head, const float *x, uint8_t *codes)
{
    if (!k->scale) {
        (void)qx_from_f32((int)k->type, x, k->d, codes);
        return;
    }
    for (int64_t i = 0; i < k->d; i++) {
        const float v = x[i] / k->scale[k->per_channel ? head * k->d + i : 0];
        if (k->type == QX_DT_FLOAT8E4M3FN) codes[i] = qx_sc_f32_to_e4m3(v, 1);
        else if (k->type == QX_DT_INT8) codes[i] = (uint8_t)(int8_t)qx_rne_clamp(v, -128.0f, 127.0f);
        else if (i % 2 == 0) codes[i / 2] = (uint8_t)((int)qx_rne_clamp(v, -8.0f, 7.0f) + 8);
        else codes[i / 2] |= (uint8_t)(((int)qx_rne_clamp(v, -8.0f, 7.0f) + 8) << 4);
    }
}

void qx_kv_decode(const qx_kv_codes *k, int64_t head, int64_t rows, const uint8_t *codes, float *x)
{
    qx_binary_fn *mul = qx_binary_find(QX_B_MUL, QX_DT_FLOAT);
    const bool four = k->type == QX_DT_UINT8;
    const int64_t n = rows * k->d;
    (void)qx_to_f32(four ? QX_DT_UINT4 : k->type, codes, n, x);
    if (four) qx_binary_find(QX_B_SUB, QX_DT_FLOAT)(x, 1, &(float){8.0f}, 0, x, n);
    if (!k->scale) return;
    if (!k->per_channel) mul(x, 1, k->scale, 0, x, n);
    for (int64_t r = 0; k->per_channel && r < rows; r++) mul(x + r * k->d, 1, k->scale + head * k->d, 1, x + r * k->d, k->d);
}
