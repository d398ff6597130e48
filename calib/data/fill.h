/* fill.h - model inputs that nobody gives as data: masks, positions, empty past, and seeded random values, told apart by name. */
#ifndef QX_CALIB_FILL_H
#define QX_CALIB_FILL_H

#include "calib/data/samples.h"

typedef enum qx_role { QX_ROLE_OTHER, QX_ROLE_IDS, QX_ROLE_MASK, QX_ROLE_POSITION, QX_ROLE_TOKEN_TYPE, QX_ROLE_PAST, QX_ROLE_TIMESTEP,
                       QX_ROLE_CACHE_FLAG } qx_role;
qx_role qx_role_of(const qx_value *input);
/* What symbolic dims stand for; `fixes` come first. */
/* guess: any open dim has a size */
typedef struct qx_dims_given { int64_t batch, seq, past; const qx_dim_fix *fixes; int n_fixes; bool guess; } qx_dims_given;
/* Dims of an input; without guess a symbol whose name tells nothing is QX_E_USAGE and says which --dim to give. */
qx_status qx_input_dims(qx_ctx *ctx, const qx_value *input, const qx_dims_given *g, int64_t *dims);
/* Whether nothing reads this input: it needs no content. */
bool qx_input_idle(const qx_value *input);
/* Rows of the smallest table that an input of ids indexes, in subgraphs too; 0 when there is none. */
int64_t qx_embedding_rows(const qx_value *input);
/* Allocates and fills by role: masks 1, positions past.., past 0 (usually empty), ids 0, everything else 0. */
qx_status qx_fill_input(qx_ctx *ctx, const qx_value *input, const qx_dims_given *g, qx_tensor *out);
/* Puts whole numbers or floats into any numeric tensor. */
qx_status qx_set_element(qx_ctx *ctx, qx_tensor *t, int64_t i, double v, const char *name);

#endif
