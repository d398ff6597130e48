/* activation.c - see activation.h. */
#include "runtime/cpu/pointwise/activation.h"

#include <math.h>
#include <string.h>

static const struct row { const char *name; qx_unary fn; float p[2]; } rows[] = {
    {"Relu", QX_U_RELU, {0, 0}}, {"Sigmoid", QX_U_SIGMOID, {0, 0}}, {"Tanh", QX_U_TANH, {0, 0}}, {"Gelu", QX_U_GELU, {0, 0}},
    {"LeakyRelu", QX_U_LEAKY_RELU, {0.01f, 0}}, {"HardSigmoid", QX_U_HARDSIGMOID, {0.2f, 0.5f}}, {"Elu", QX_U_ELU, {1, 0}},
    {"Softplus", QX_U_SOFTPLUS, {0, 0}}, {"Softsign", QX_U_SOFTSIGN, {0, 0}}, {"ThresholdedRelu", QX_U_THRESHOLDED, {1, 0}},
    {"Swish", QX_U_SWISH, {1, 0}}, {"HardSwish", QX_U_HARDSWISH, {0, 0}},
};

qx_status qx_activation_read(const qx_call *c, qx_activation *a)
{
    int64_t n;
    const char *name = qx_call_str(c, "activation", "");
    const float *p = qx_call_floats(c, "activation_params", &n);
    *a = (qx_activation){.none = !*name, .clip = !strcmp(name, "Clip")};
    if (a->none) return QX_OK;
    const struct row *r = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].name, name)) r = &rows[i];
    if (!r && !a->clip) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "activation '%s'", name);
    if (r) a->fn = r->fn;
    const float fallback[2] = {r ? r->p[0] : -INFINITY, r ? r->p[1] : INFINITY};
    a->p[0] = n > 0 ? p[0] : qx_call_float(c, "activation_alpha", fallback[0]);
    a->p[1] = n > 1 ? p[1] : qx_call_float(c, "activation_beta", fallback[1]);
    return QX_OK;
}

void qx_activation_piece(const qx_activation *a, float *y, int64_t n)
{
    if (a->none) return;
    if (!a->clip) {
        qx_unary_find(a->fn, QX_DT_FLOAT)(y, y, n, a->p);
        return;
    }
    for (int64_t k = 0; k < n; k++) {
        const float v = y[k] < a->p[0] ? a->p[0] : y[k];
        y[k] = v > a->p[1] ? a->p[1] : v;
    }
}

enum { PIECE = 1 << 14 };
typedef struct job { const qx_activation *a; float *y; int64_t n; } job;

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    qx_activation_piece(j->a, j->y + i * PIECE, j->n - i * PIECE < PIECE ? j->n - i * PIECE : PIECE);
    return QX_OK;
}

qx_status qx_activation_run(qx_call *c, const qx_activation *a, float *y, int64_t n)
{
    job j = {a, y, n};
    return a->none ? QX_OK : qx_parallel(c->ctx, (n + PIECE - 1) / PIECE, piece, &j);
}
