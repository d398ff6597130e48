/* op_types.c - the standard's element types of inputs, from op_types.def. */
#include "onnx/ops.h"

#include <stddef.h>

enum { MASKS = 16 };
static const struct row { uint16_t id, since; uint32_t masks[MASKS]; int n; } rows[] = {
#define COUNT(...) (int)(sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))
#define QX_OP_TYPES(name, since, ...) {QX_OP_##name, since, {__VA_ARGS__}, COUNT(__VA_ARGS__)},
#include "onnx/op_types.def"
#undef QX_OP_TYPES
#undef COUNT
};

uint32_t qx_op_input_types(const qx_op *op, uint32_t input)
{
    const struct row *best = NULL;
    for (const struct row *r = rows; r < rows + sizeof rows / sizeof *rows; r++)
        if (r->id == op->id && r->since <= op->since) best = r;
    return !best ? 0 : best->masks[input < (uint32_t)best->n ? input : (uint32_t)best->n - 1];
}
