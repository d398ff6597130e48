/* rotate_find.h - where a rotation can go into the weights of a Llama-like graph without changing what it computes.
 *
 * R1 turns the residual stream (x becomes x Q): the embedding and everything that adds to the stream write x Q, everything that
 * reads it through an RMS norm (which commutes with Q once its gamma has moved into its readers) takes Q' in. R2 turns each
 * head's values between the value and the output projection. Only structure is looked at; what stands in the way is named.
 * Nothing is changed here. */
#ifndef QX_PASSES_ROTATE_FIND_H
#define QX_PASSES_ROTATE_FIND_H

#include "passes/linear/linear.h"

typedef struct qx_spin_param { qx_node *node; uint32_t index; } qx_spin_param;
typedef struct qx_spin_linear {
    const qx_linear *lin;
    qx_spin_param gamma;          /* readers: of the norm before it; node NULL: none */
    int64_t head;                 /* R2: size of a head; 0: the whole stream */
} qx_spin_linear;

typedef struct qx_spins {
    int64_t width;                /* of the stream */
    qx_node *embedding;           /* its Gather */
    qx_spin_linear *readers, *writers; int64_t n_readers, n_writers;   /* R1 */
    qx_spin_param *gammas; int64_t n_gammas;
    qx_spin_linear *outputs, *values; int64_t n_heads;                 /* R2: pairs */
} qx_spins;

/* R1. QX_E_UNSUPPORTED names the node that stands in the way. In the model's arena. */
qx_status qx_spins_stream(qx_model *m, const qx_linears *ls, qx_spins *out);
/* R2: every attention whose values come straight from a linear operator; others are left out. */
qx_status qx_spins_heads(qx_model *m, const qx_linears *ls, qx_spins *out);

#endif
