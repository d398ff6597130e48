/* rnn_codes.h - weights of a recurrence as 8-bit codes, and products with what is rounded to codes while the model runs. */
#ifndef QX_RUNTIME_CPU_RNN_CODES_H
#define QX_RUNTIME_CPU_RNN_CODES_H

#include "runtime/cpu/codes/codes.h"

/* [dirs][k][n] as stored, packed; a scale and a zero point a direction, or a column of one. */
typedef struct qx_rnn_codes { const qx_code_panels *w; const float *scale; const int32_t *zero; bool per_column; } qx_rnn_codes;

/* Inputs i (codes), i_scale and i_scale + 1 (zero points). `kept` belongs to the node's state: a constant weight is packed there once. */
qx_status qx_rnn_codes_read(qx_call *c, uint32_t i, uint32_t i_scale, const int64_t dims[3], qx_code_panels *kept, qx_rnn_codes *out);

/* What is rounded: UINT8 codes by the range of some rows with 0 in it, as DynamicQuantizeLinear. */
typedef struct qx_rnn_grid { float lo, hi, scale; int32_t zero; } qx_rnn_grid;
void qx_rnn_grid_see(qx_rnn_grid *g, const float *x, int64_t n); /* from zeros on */
void qx_rnn_grid_make(qx_rnn_grid *g);
/* y[rows][n] = x[rows][k] W + bias of direction d; room: rows * k bytes. */
void qx_rnn_codes_times(const qx_rnn_codes *w, int64_t d, const qx_rnn_grid *g, int64_t rows, const float *x, const float *bias,
                        uint8_t *room, float *y);

#endif
