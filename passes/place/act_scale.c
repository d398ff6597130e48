/* act_scale.c - scales of activations by what calibration saw of them, as they are written. */
#include "passes/place/scheme.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/quant.h"

/* A scale that is written is finite and normal. In float16 models small scales are raised to the smallest normal number (2^-14). */
static qx_why round_scale(qx_dtype type, float raw, float *scale, char detail[120])
{
    snprintf(detail, 120, "would have a scale of %g", (double)raw);
    if (!isfinite(raw) || raw < FLT_MIN) return QX_WHY_SCALE_NOT_NORMAL;
    if (type == QX_DT_FLOAT16 && raw < 0x1p-14f) raw = 0x1p-14f;
    if (type == QX_DT_FLOAT16 && raw > 65504.0f) return QX_WHY_SCALE_NOT_NORMAL;
    qx_format f = {.codes = QX_DT_INT8, .scale = type};
    *scale = qx_scale_stored(&f, raw, NULL);
    return QX_WHY_NONE;
}

static qx_status raw_scale(const qx_scheme *s, const qx_stats *stats, const qx_value *v, float *raw, float *low)
{
    float reach = s->given, hi;
    *low = 0;
    if (!(reach > 0)) QX_TRY(qx_stats_threshold(stats, v, &s->range, &reach));
    *raw = reach / s->levels;
    if (!s->act_zero) return QX_OK;
    QX_TRY(qx_stats_min_max(stats, v, reach, low, &hi));
    if (s->flat > 0) *low = fmaxf(*low, -s->flat);
    *raw = (hi - *low) / 255;
    return QX_OK;
}

qx_why qx_scheme_act_scale(qx_pass *p, const qx_scheme *s, const qx_stats *stats, const qx_value *v, qx_act_codes *c,
                           char detail[120])
{
    float raw = 1, low = 0;
    detail[0] = 0;
    c->zero = 0;
    c->scale = 1;
    if (p->pipe->no_stats) return QX_WHY_NONE;
    const qx_value_stats *vs = qx_stats_get(stats, v);
    if (!vs || vs->count == 0) return QX_WHY_NOT_OBSERVED;
    if (vs->absmax == 0) snprintf(detail, 120, "is zero on every sample");
    else snprintf(detail, 120, "has a largest value of %g", (double)vs->absmax);
    if (!isfinite(vs->absmax) || vs->absmax == 0) return QX_WHY_SCALE_NOT_NORMAL;
    if (vs->min <= -1e30f || vs->max >= 1e30f) return QX_WHY_MASK;
    qx_status st = raw_scale(s, stats, v, &raw, &low);
    if (st != QX_OK) {
        p->pipe->failed = st;
        return QX_WHY_NOT_OBSERVED;
    }
    qx_why why = round_scale(v->type.dtype, raw, &c->scale, detail);
    if (why != QX_WHY_NONE || !s->act_zero) return why;
    float z = rintf(-low / c->scale);
    c->zero = z < 0 ? 0 : z > 255 ? 255 : (int32_t)z;
    return QX_WHY_NONE;
}

float qx_scheme_reach(qx_dtype act, float scale)
{
    const qx_format f = {.codes = act, .narrow = act == QX_DT_INT8};
    float lo = 0, hi = 1;
    (void)qx_format_range(&f, &lo, &hi);
    return scale * (act == QX_DT_UINT8 ? hi / 2 : hi);
}

/* Behind Relu, GELU or SiLU a zero point makes the steps nearly half as large. Where x is merely uneven by the samples seen, the
 * shorter side is left its room; and of few values only those are sure that hardly have a shorter side (four pictures' pooled 64
 * features: the held-out ones were cut off, 9.7 dB instead of 24.6). */
static void take_zero_point(qx_pass *p, qx_scheme *s, const qx_stats *stats, const qx_value *v, qx_act_codes *c)
{
    enum { FEW = 4096 };
    const qx_value_stats *seen = stats ? qx_stats_get(stats, v) : NULL;
    const float worth = seen && seen->count < FEW ? 0.6f : 0.85f;
    char detail[120];
    qx_act_codes with = {.act = QX_DT_UINT8};
    s->act_zero = true;
    s->range.format = QX_DT_UINT8;
    if (p->pipe->no_stats || qx_scheme_act_scale(p, s, stats, v, &with, detail) != QX_WHY_NONE || with.scale >= worth * c->scale) return;
    *c = with;
}

qx_why qx_scheme_input_codes(const qx_plan_item *it, const qx_stats *stats, qx_act_codes *out, char detail[120])
{
    qx_pass *p = it->pass;
    qx_scheme mine = *(const qx_scheme *)p->state;
    const bool zero_auto = mine.act_zero_auto;
    if (mine.range_auto) mine.given = it->act_range;
    out->act = it->act;
    const qx_why why = qx_scheme_act_scale(p, &mine, stats, it->x_stat, out, detail);
    if (why == QX_WHY_NONE && zero_auto) take_zero_point(p, &mine, stats, it->x_stat, out);
    return why;
}
