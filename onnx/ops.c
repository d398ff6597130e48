/* ops.c - the operator table, expanded from ops.def, and its lookup.
 *
 * Rows of a domain are sorted by name and version, so that finding one is a halving search over constant data: no table is
 * built at start, nothing is writable. tests/unit/test_ops.c holds the order. */
#include "onnx/ops.h"

#include <stdbool.h>
#include <string.h>

#include "onnx/infer/infer_op.h"

#define QX_VARIADIC INT32_MAX

#define qx_infer_none NULL
#define DOMAIN_ ""
#define DOMAIN_preview_ "ai.onnx.preview"
#define DOMAIN_ms_ "com.microsoft"
#define DOMAIN_trt_ "trt"
#define QX_OP(prefix, name, since, min_in, max_in, min_out, max_out, traits, infer, cpu, cuda) \
    {QX_OP_##prefix##name, DOMAIN_##prefix, #name, since, min_in, max_in, min_out, max_out, traits, qx_infer_##infer},
static const qx_op table[] = {
#include "onnx/ops.def"
};
#undef QX_OP
#undef DOMAIN_
#undef DOMAIN_preview_
#undef DOMAIN_ms_
#undef DOMAIN_trt_

enum { TABLE_COUNT = (int)(sizeof table / sizeof *table) };

const qx_op qx_op_unknown = {QX_OP_UNKNOWN, "", "?", 1, 0, QX_VARIADIC, 0, QX_VARIADIC, 0, NULL};

static int compare(const qx_op *row, const char *domain, const char *name)
{
    int c = strcmp(row->domain, domain);
    return c ? c : strcmp(row->name, name);
}

/* Index of the first row that is not before (domain, name). */
static int lower_bound(const char *domain, const char *name)
{
    int low = 0, high = TABLE_COUNT;
    while (low < high) {
        int mid = (low + high) / 2;
        if (compare(&table[mid], domain, name) < 0) low = mid + 1;
        else high = mid;
    }
    return low;
}

static const char *plain_domain(const char *domain)
{
    return strcmp(domain, "ai.onnx") == 0 ? "" : domain;
}

/* TensorRT's parser goes by the names of operators alone: files have its own in three domains, and Model Optimizer's have the standard's
 * pairs of FP8 in the domain trt. */
static const char *table_domain(const char *domain, const char *name, int64_t *opset)
{
    domain = plain_domain(domain);
    const bool theirs = strcmp(domain, "trt") == 0 || strcmp(domain, "trt.plugins") == 0, named = strncmp(name, "TRT_", 4) == 0;
    if (named && !*domain) return "trt";
    if (!theirs || named) return theirs ? "trt" : domain;
    *opset = QX_OPSET_MAX;
    return strcmp(name, "DequantizeLinear") == 0 || strcmp(name, "QuantizeLinear") == 0 ? "" : domain;
}

const qx_op *qx_op_find(const char *domain, const char *name, int64_t opset)
{
    domain = table_domain(domain, name, &opset);
    const qx_op *best = NULL;
    for (int i = lower_bound(domain, name); i < TABLE_COUNT && compare(&table[i], domain, name) == 0; i++) {
        if (table[i].since <= opset) best = &table[i];
    }
    return best;
}

int qx_op_domain_is_known(const char *domain)
{
    return plain_domain(domain)[0] == '\0';
}

const qx_op *qx_op_table(int *count)
{
    *count = TABLE_COUNT;
    return table;
}
