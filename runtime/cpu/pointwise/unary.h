/* unary.h - one pointwise function over input 0 of a call, in place when legal; any type that the function exists for. */
#ifndef QX_RUNTIME_CPU_POINTWISE_UNARY_H
#define QX_RUNTIME_CPU_POINTWISE_UNARY_H

#include "kernels/pointwise.h"
#include "runtime/cpu/op.h"

qx_status qx_unary_run(qx_call *c, qx_unary op, const float p[2]);

#endif
