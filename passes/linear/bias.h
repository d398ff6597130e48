/* bias.h - changing the constant bias of a linear operator. */
#ifndef QX_PASSES_BIAS_H
#define QX_PASSES_BIAS_H

#include "passes/linear/linear.h"

/* The bias becomes bias * factor + add; factor and add [n], either may be NULL. Without a bias one is made (convolutions and
 * Gemm; not MatMul). Other readers of the old constant keep it. l->bias follows. */
qx_status qx_bias_change(qx_model *m, qx_linear *l, const float *factor, const float *add);
/* Whether qx_bias_change can: a constant vector of n, or none where the operator has an input for it. */
bool qx_bias_can_change(const qx_linear *l);

/* The same for W or R of a LSTM, GRU or RNN, add [n]: their biases stand side by side in the node's input B, which is made where there is
 * none. A GRU whose candidate resets its state before the product has no bias for it that a mean of states could tell: it is left out. */
qx_status qx_bias_recurrent_add(qx_model *m, const qx_linear *l, const float *add);
bool qx_bias_recurrent_can_add(const qx_linear *l);

#endif
