/* act.h - the activations that stand behind a product or in a gated unit. */
#ifndef QX_KERNELS_CUDA_ACT_H
#define QX_KERNELS_CUDA_ACT_H

#include "kernels/cuda/elem.h"
#include "kernels/loops/fmath.h"

/* qx_act of runtime/cpu/matmul/gemm.h */
enum { ACT_NONE, ACT_RELU, ACT_GELU, ACT_GELU_TANH, ACT_SILU, ACT_SIGMOID, ACT_TANH };
QX_HD float act_of(int act, float v)
{
    switch (act) {
    case ACT_RELU: return v < 0 ? 0 : v;
    case ACT_GELU: return fm_gelu(v);
    case ACT_GELU_TANH: return fm_gelu_tanh(v);
    case ACT_SILU: return v * fm_sigmoid(v);
    case ACT_SIGMOID: return fm_sigmoid(v);
    case ACT_TANH: return fm_tanh(v);
    default: return v;
    }
}

#endif
