/* rnn_codes.c - see rnn_codes.h. Sums are exact, so that what comes out is what ONNX Runtime's DynamicQuantizeLSTM has. */
#include "runtime/cpu/rnn_codes.h"

#include "kernels/quant.h"
#include "runtime/cpu/codes/qdq.h"

/* One number a direction, or one a column of each. */
static qx_status check_numbers(qx_call *c, uint32_t i, int64_t dirs, int64_t n, int64_t *count)
{
    const qx_tensor *t;
    QX_TRY(qx_call_need(c, i, &t));
    *count = t->numel;
    if (t->numel != dirs && t->numel != dirs * n)
        QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has %lld numbers, %lld or %lld are needed", i, (long long)t->numel, (long long)dirs,
                     (long long)(dirs * n));
    return QX_OK;
}

qx_status qx_rnn_codes_read(qx_call *c, uint32_t i, uint32_t i_scale, const int64_t dims[3], qx_code_panels *kept, qx_rnn_codes *out)
{
    const int64_t dirs = dims[0], k = dims[1], n = dims[2];
    const bool keep = qx_call_in_const(c, i);
    const qx_tensor *w;
    int64_t scales, zeros;
    char buf[128];
    QX_TRY(qx_code_input(c, i, &w));
    if (w->rank != 3 || w->dims[0] != dirs || w->dims[1] != k || w->dims[2] != n)
        QX_CALL_FAIL(c, QX_E_SHAPE, "input %u is %s", i, qx_tensor_describe(w, buf, sizeof buf));
    QX_TRY(check_numbers(c, i_scale, dirs, n, &scales));
    QX_TRY(check_numbers(c, i_scale + 1, dirs, n, &zeros));
    if (scales != zeros) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld scales and %lld zero points", (long long)scales, (long long)zeros);
    out->per_column = scales != dirs;
    QX_TRY(qx_call_in_f32(c, i_scale, &out->scale));
    QX_TRY(qx_q_zeros(c, qx_call_in(c, i_scale + 1), &out->zero));
    qx_code_panels *p = kept;
    if (!keep) QX_TRY(QX_CALL_SCRATCH(c, 1, &p));
    out->w = p;
    if (keep && p->packed) return QX_OK;
    *p = (qx_code_panels){.k = k, .n = n, .count = dirs, .is_signed = w->dtype == QX_DT_INT8};
    const qx_code_source src = {w->data, k * n, n, 1};
    QX_TRY(qx_code_pack(c, &src, keep, p));
    if (keep) qx_call_drop_const(c, i);
    return QX_OK;
}

void qx_rnn_grid_see(qx_rnn_grid *g, const float *x, int64_t n)
{
    float lo = 0, hi = 0;
    qx_dynamic_range(x, n, &lo, &hi);
    if (lo < g->lo) g->lo = lo;
    if (hi > g->hi) g->hi = hi;
}

void qx_rnn_grid_make(qx_rnn_grid *g) { qx_dynamic_scale(g->lo, g->hi, &g->scale, &g->zero); }

void qx_rnn_codes_times(const qx_rnn_codes *w, int64_t d, const qx_rnn_grid *g, int64_t rows, const float *x, const float *bias,
                        uint8_t *room, float *y)
{
    const int64_t k = w->w->k, n = w->w->n, at = w->per_column ? d * n : d;
    const qx_quant q = {.grid = {rows, k, rows, k}, .format = {.codes = QX_DT_UINT8}, .scale = &g->scale, .zero = &g->zero};
    const qx_code_out out = {.kind = QX_CODE_FLOAT, .bias = bias};
    (void)qx_quantize(&q, QX_DT_FLOAT, x, room);
    for (int64_t first = 0; first < rows; first += QX_CODE_ROWS)
        for (int64_t panel = 0; panel < qx_igemm_panels(n); panel++)
            qx_code_tile_run(&(qx_code_tile){.w = w->w, .matrix = d, .panel = panel,
                                             .rows = rows - first < QX_CODE_ROWS ? rows - first : QX_CODE_ROWS,
                                             .a = room + first * k, .lda = k, .za = &g->zero, .zb = w->zero + at,
                                             .zb_per_col = w->per_column, .sa = &g->scale, .sb = w->scale + at,
                                             .sb_per_col = w->per_column, .out = &out, .y = y + first * n + panel * QX_IGEMM_PANEL,
                                             .row = n, .col = 1});
}
