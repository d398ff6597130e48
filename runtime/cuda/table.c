/* table.c - from a node's name and version to its adapter: the rows of onnx/ops.def with their cuda column, and the fused steps
 * of the executor's plan. */
#include <string.h>

#include "runtime/cuda/node.h"

typedef struct op_row { const char *prefix, *name; int since; qx_op_id id; const cu_adapter *adapter; } op_row;
static const op_row rows[] = {
#define QX_OP(prefix, name, since, min_in, max_in, min_out, max_out, traits, infer, cpu, cuda) {#prefix, #name, since, QX_OP_##prefix##name, &qx_cuda_##cuda},
#include "onnx/ops.def"
#undef QX_OP
};

extern const cu_adapter cu_act, cu_linear, cu_fused_group_norm, cu_fused_attention, cu_int8_linear, cu_codes_linear, cu_row_norm,
    cu_rotate, cu_glu, cu_fp8_linear, cu_chain, cu_row_codes;
typedef struct fused_row { const char *name; const cu_adapter *adapter; } fused_row;
static const fused_row fused[] = {
    {"Act", &cu_act}, {"Linear", &cu_linear}, {"GroupNorm", &cu_fused_group_norm}, {"Attention", &cu_fused_attention},
    {"Int8Linear", &cu_int8_linear},
    {"CodesLinear", &cu_codes_linear}, {"RowNorm", &cu_row_norm}, {"Rotate", &cu_rotate}, {"Glu", &cu_glu}, {"Same", &qx_cuda_view},
    {"Fp8Linear", &cu_fp8_linear}, {"Chain", &cu_chain}, {"RowCodes", &cu_row_codes},
};

static qx_status none(const cu_build *b) { CU_NO(b, "no CUDA kernel"); }
static qx_status none_compile(cu_build *b) { CU_NO(b, "no CUDA kernel"); }
const cu_adapter qx_cuda_none = {none, none_compile};

const cu_adapter *cu_find(const qx_dev_node *n, qx_op_id *op)
{
    *op = QX_OP_UNKNOWN;
    if (strcmp(n->domain, "qonnx") == 0) {
        for (size_t i = 0; i < sizeof fused / sizeof *fused; i++)
            if (strcmp(fused[i].name, n->op) == 0) return fused[i].adapter;
        return NULL;
    }
    const char *prefix = strcmp(n->domain, "com.microsoft") == 0 ? "ms_" : *n->domain ? NULL : "";
    for (size_t i = 0; prefix && i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].since != n->version || strcmp(rows[i].name, n->op) != 0 || strcmp(rows[i].prefix, prefix) != 0) continue;
        *op = rows[i].id;
        return rows[i].adapter == &qx_cuda_none ? NULL : rows[i].adapter;
    }
    return NULL;
}
