/* lib_none.c - the host build has no vendor library: attention and products of reals are taken by the plugin's own kernels.
 * Products of codes and convolutions are done here in plain C, within the rules of the library, so that what the plugin puts
 * around them is run by the tests. */
#include "kernels/cuda/grid.h"
#include "runtime/cuda/lib.h"

/* Whether there is something to compute; operands where the library would not take them are an error in any case. */
static qx_status computes(const qx_dev *d, const void *x, const void *w, const void *y, bool *yes)
{
    *yes = !((const qk_host_queue *)d->q)->dry;
    if (((uintptr_t)x | (uintptr_t)w | (uintptr_t)y) % 16)
        QX_FAIL(d->ctx, QX_E_FAIL, "operands at %p, %p and %p are not aligned to 16 bytes", x, w, y);
    return QX_OK;
}

qx_status cu_lib_open(qx_dev *d)
{
    d->lib = NULL;
    return QX_OK;
}

void cu_lib_close(qx_dev *d) { d->lib = NULL; }

struct cu_product_plan { cu_product p; };

qx_status cu_product_new(qx_dev *d, const cu_product *p, cu_product_plan **out, size_t *workspace, bool *taken)
{
    /* f16: widened codes */
    const int rows = p->type == QX_DT_INT8 ? 4 : p->type == QX_DT_FLOAT8E4M3FN ? 16 : p->type == QX_DT_FLOAT16 &&
        p->ytype == QX_DT_FLOAT ? 8 : 0;
    *out = NULL;
    *workspace = 0;
    *taken = rows && p->k % rows == 0 && p->n % rows == 0 && (p->scale_mode != CU_SCALE_BLOCKS || p->m % 4 == 0);
    if (!*taken) return QX_OK;
    QX_TRY(QX_NEW(d->ctx, out));
    (*out)->p = *p;
    return QX_OK;
}

static float number(int type, const void *p, int64_t i)
{
    float v;
    if (type == QX_DT_INT8) return (float)((const int8_t *)p)[i];
    qx_to_f32(type, (const char *)p + i * (qx_dtype_bits(type) / 8), 1, &v);
    return v;
}

static double dot(const cu_product *p, const cu_product_data *a, int64_t m, int64_t n, int64_t from, int64_t to)
{
    double s = 0;
    for (int64_t k = from; k < to; k++) s += (double)number(p->type, a->x, m * p->k + k) * (double)number(p->type, a->w, n * p->k + k);
    return s;
}

/* With the scales that 8-bit floats have. */
static float scaled_dot(const cu_product *p, const cu_product_data *a, int64_t m, int64_t n)
{
    double s = 0;
    if (p->scale_mode != CU_SCALE_BLOCKS)
        return (float)dot(p, a, m, n, 0, p->k) * (a->sx ? a->sx[p->scale_mode ? m : 0] * a->sw[p->scale_mode ? n : 0] : 1.0f);
    for (int64_t i = 0; i * CU_SCALE_BLOCK < p->k; i++) {
        const int64_t to = (i + 1) * CU_SCALE_BLOCK;
        s += dot(p, a, m, n, i * CU_SCALE_BLOCK, to < p->k ? to : p->k) * (double)a->sx[i * p->m + m] * (double)a->sw[i * p->n + n];
    }
    return (float)s;
}

qx_status cu_product_run(qx_dev *d, cu_product_plan *plan, const cu_product_data *a, bool *done)
{
    const cu_product *p = &plan->p;
    bool yes;
    *done = true;
    QX_TRY(computes(d, a->x, a->w, a->y, &yes));
    for (int64_t i = 0; yes && i < p->m * p->n; i++) {
        const int64_t m = i / p->n, n = i % p->n;
        float v = scaled_dot(p, a, m, n), b = 0;
        const int64_t size = qx_dtype_bits(p->ytype) / 8;
        if (p->ytype == QX_DT_INT32) {
            ((int32_t *)a->y)[i] = (int32_t)dot(p, a, m, n, 0, p->k);
            continue;
        }
        if (p->has_bias) qx_to_f32(p->ytype, (const char *)a->bias + n * size, 1, &b);
        v += b;
        qx_from_f32(p->ytype, &v, 1, (char *)a->y + i * size);
    }
    return QX_OK;
}

void cu_product_free(qx_dev *d, void *plan) { qx_free(d->ctx, plan); }

/* Convolutions with the channels innermost, over two axes. */
struct cu_engine { cu_conv c; };

qx_status cu_conv_new(qx_dev *d, const cu_conv *c, cu_engine **out, size_t *workspace, bool *taken)
{
    *out = NULL;
    *workspace = 0;
    *taken = c->last && c->spatial == 2 && c->group == 1 && c->in_ch % (c->type == QX_DT_INT8 &&
                                                                        !c->has_scale ? 4 : c->type == QX_DT_FLOAT8E4M3FN ? 16 : 8) == 0;
    if (!*taken) return QX_OK;
    QX_TRY(QX_NEW(d->ctx, out));
    (*out)->c = *c;
    return QX_OK;
}

static double taps(const cu_conv *c, const cu_conv_data *a, int64_t b, int64_t oy, int64_t ox, int64_t n)
{
    double s = 0;
    for (int64_t k = 0; k < c->kernel[0] * c->kernel[1]; k++) {
        const int64_t y = oy * c->stride[0] + k / c->kernel[1] * c->dilation[0] - c->begin[0],
            x = ox * c->stride[1] + k % c->kernel[1] * c->dilation[1] - c->begin[1];
        if (y < 0 || y >= c->in[0] || x < 0 || x >= c->in[1]) continue;
        for (int64_t i = 0; i < c->in_ch; i++)
            s += (double)number(c->type, a->x, ((b * c->in[0] + y) * c->in[1] + x) * c->in_ch + i) * (double)number(c->type, a->w,
                (n * c->kernel[0] * c->kernel[1] + k) * c->in_ch + i);
    }
    return s;
}

qx_status cu_conv_run(qx_dev *d, const cu_engine *p, const cu_conv_data *a)
{
    const cu_conv *c = &p->c;
    bool yes;
    QX_TRY(computes(d, a->x, a->w, a->y, &yes));
    for (int64_t i = 0; yes && i < c->batch * c->out[0] * c->out[1] * c->out_ch; i++) {
        const int64_t n = i % c->out_ch, ox = i / c->out_ch % c->out[1], oy = i / c->out_ch / c->out[1] % c->out[0],
            b = i / c->out_ch / c->out[1] / c->out[0];
        const double s = taps(c, a, b, oy, ox, n);
        if (c->ytype == QX_DT_INT32) {
            ((int32_t *)a->y)[i] = (int32_t)s;
            continue;
        }
        float v = (float)s * (c->has_scale ? a->scale[n] : 1.0f);
        if (c->has_bias) v += number(c->type == QX_DT_INT8 ? QX_DT_FLOAT : c->ytype, a->bias, n);
        qx_from_f32(c->ytype, &v, 1, (char *)a->y + i * (qx_dtype_bits(c->ytype) / 8));
    }
    return QX_OK;
}

void cu_engine_free(qx_dev *d, void *engine) { qx_free(d->ctx, engine); }

qx_status cu_sdpa_new(qx_dev *d, const cu_sdpa *s, cu_engine **out, size_t *workspace, bool *taken)
{
    (void)d, (void)s;
    *out = NULL;
    *workspace = 0;
    *taken = false;
    return QX_OK;
}

qx_status cu_sdpa_run(qx_dev *d, const cu_engine *p, const void *q, const void *k, const void *v, void *o, void *ws, bool *done)
{
    (void)d, (void)p, (void)q, (void)k, (void)v, (void)o, (void)ws;
    *done = false;
    return QX_OK;
}
