/* rows_of.h - tables of codes (a DequantizeLinear of constants) of which single rows, the parts along axis 0, are dequantized. */
#ifndef QX_RUNTIME_CPU_CODES_ROWS_OF_H
#define QX_RUNTIME_CPU_CODES_ROWS_OF_H

#include "runtime/cpu/codes/qdq.h"
#include "runtime/fuse/fuse.h"

typedef struct qx_code_table { const qx_tensor *codes; qx_qparams p; qx_dtype type; int64_t row; /* elements */ } qx_code_table;
/* Inputs first, first + 1 and first + 2 of the step are codes, scales and zero points (may be missing). */
qx_status qx_code_table_open(qx_call *c, const qx_rows_dq_params *f, uint32_t first, qx_code_table *out);
/* Rows idx[n], each within the table, behind one another in y, in the table's type. */
qx_status qx_code_table_read(qx_call *c, const qx_code_table *t, const int64_t *idx, int64_t n, void *y);

#endif
