/* checked.c - sizes from files. */
#include "base/checked.h"

bool qx_dims_product(const int64_t *dims, int n, int64_t *out)
{
    int64_t product = 1;
    bool zero = false;
    for (int i = 0; i < n; i++) {
        if (dims[i] < 0) return false;
        if (dims[i] == 0) zero = true;
        else if (!qx_mul_i64(product, dims[i], &product)) return false; /* also beside a zero: [2^62, 4, 0] is nonsense */
    }
    *out = zero ? 0 : product;
    return true;
}
