/* text_tensor.c - tensor content in the text form: written out, or made up by a rule (fill, iota, random). */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "onnx/text/text.h"

enum { MOST_ELEMENTS = 1 << 24 }; /* a text that makes up more than this is a mistake */

/* splitmix64: the same numbers everywhere. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* Sum of four uniform numbers, variance 1: bell-shaped without a logarithm whose last bit differs between libraries. */
static double bell(uint64_t *state)
{
    double sum = 0;
    for (int i = 0; i < 4; i++) sum += (double)(next_random(state) >> 11) / 9007199254740992.0 - 0.5;
    return sum * 1.7320508075688772;
}

/* Element i of a buffer of `dtype`. Packed types put the first element into the low bits. */
static bool put_element(int dtype, uint8_t *data, int64_t i, double f, int64_t v)
{
    int bits = qx_dtype_bits(dtype);
    char cls = qx_dtype_get(dtype)->cls;
    if (cls == 'F' && dtype != QX_DT_DOUBLE) {
        float x = (float)f;
        uint8_t raw[8] = {0};
        if (!qx_ref_from_f32(dtype, &x, 1, raw)) return false;
        if (bits >= 8) memcpy(data + (size_t)i * (size_t)(bits / 8), raw, (size_t)bits / 8);
        else data[i * bits / 8] |= (uint8_t)((raw[0] & ((1 << bits) - 1)) << (i * bits % 8));
        return true;
    }
    if (dtype == QX_DT_DOUBLE) memcpy(data + i * 8, &f, 8);
    else if (bits >= 8 && (cls == 'I' || cls == 'U' || cls == 'B')) memcpy(data + (size_t)i * (size_t)(bits / 8), &v,
        (size_t)bits / 8); /* little-endian */
    else if (bits) data[i * bits / 8] |= (uint8_t)((v & ((1 << bits) - 1)) << (i * bits % 8));
    else return false;
    return true;
}

static qx_status make_up(qx_text *t, int dtype, int64_t n, uint8_t *data, bool *done)
{
    bool is_float, floats = qx_dtype_is_float(dtype);
    int64_t v = 0;
    double f = 0;
    bool fill = qx_text_eat(t, "fill"), iota = !fill && qx_text_eat(t, "iota"), random = !fill && !iota && qx_text_eat(t, "random");
    *done = fill || iota || random;
    if (fill || random) {
        QX_TRY(qx_text_expect(t, "("));
        QX_TRY(qx_text_number(t, &is_float, &v, &f));
        QX_TRY(qx_text_expect(t, ")"));
    }
    uint64_t state = (uint64_t)v;
    for (int64_t i = 0; *done && i < n; i++) {
        if (iota) v = i, f = (double)i;
        if (random && floats) f = bell(&state);
        if (random && !floats) v = (int64_t)(next_random(&state) % 7);
        if (!put_element(dtype, data, i, f, v))
            return qx_text_fail(t, "elements of %s cannot be written as text", qx_dtype_get(dtype)->name);
    }
    return QX_OK;
}

static qx_status read_strings(qx_text *t, Onnx__TensorProto *tensor, int64_t n)
{
    tensor->string_data = qx_arena_array(t->m->arena, (size_t)n + 1, sizeof *tensor->string_data);
    if (!tensor->string_data) return QX_TEXT_NOMEM(t);
    QX_TRY(qx_text_expect(t, "{"));
    for (int64_t i = 0; i < n; i++) {
        char *s;
        size_t len;
        if (i) QX_TRY(qx_text_expect(t, ","));
        QX_TRY(qx_text_string(t, &s, &len));
        tensor->string_data[i].data = (uint8_t *)s;
        tensor->string_data[i].len = len;
        tensor->n_string_data = (size_t)i + 1;
    }
    return qx_text_expect(t, "}");
}

static qx_status read_elements(qx_text *t, int dtype, int64_t n, uint8_t *data)
{
    QX_TRY(qx_text_expect(t, "{"));
    for (int64_t i = 0; i < n; i++) {
        bool is_float;
        int64_t v;
        double f;
        if (i) QX_TRY(qx_text_expect(t, ","));
        if (qx_text_eat(t, "true")) v = 1, f = 1;
        else if (qx_text_eat(t, "false")) v = 0, f = 0;
        else QX_TRY(qx_text_number(t, &is_float, &v, &f));
        if (!put_element(dtype, data, i, f, v))
            return qx_text_fail(t, "elements of %s cannot be written as text", qx_dtype_get(dtype)->name);
    }
    return qx_text_expect(t, "}");
}

static qx_status read_dims(qx_text *t, const Onnx__TensorShapeProto *s, Onnx__TensorProto *out)
{
    if (!s) return qx_text_fail(t, "a tensor's shape must be written out");
    out->n_dims = s->n_dim;
    out->dims = qx_arena_array(t->m->arena, s->n_dim + 1, sizeof *out->dims);
    if (!out->dims) return QX_TEXT_NOMEM(t);
    for (size_t i = 0; i < s->n_dim; i++) {
        if (s->dim[i]->value_case != ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE)
            return qx_text_fail(t, "dim %zu of a tensor is no number", i);
        out->dims[i] = s->dim[i]->dim_value;
    }
    return QX_OK;
}

qx_status qx_text_tensor(qx_text *t, const Onnx__TypeProto *type, char *name, Onnx__TensorProto **out)
{
    Onnx__TensorProto *tensor = qx_text_new(t, sizeof *tensor);
    int64_t n;
    size_t bytes;
    bool done;
    if (!tensor) return QX_TEXT_NOMEM(t);
    if (type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE) return qx_text_fail(t, "only tensors have content");
    onnx__tensor_proto__init(tensor);
    int dtype = type->tensor_type->elem_type;
    tensor->has_data_type = true;
    tensor->data_type = dtype;
    tensor->name = name;
    *out = tensor;
    QX_TRY(read_dims(t, type->tensor_type->shape, tensor));
    if (!qx_dims_product(tensor->dims, (int)tensor->n_dims, &n) || n > MOST_ELEMENTS)
        return qx_text_fail(t, "a tensor in a text has at most %d elements", MOST_ELEMENTS);
    if (dtype == QX_DT_STRING) return read_strings(t, tensor, n);
    if (!qx_dtype_bytes(dtype, n, &bytes)) return qx_text_fail(t, "elements of %s have no size", qx_dtype_get(dtype)->name);
    tensor->raw_data.data = qx_text_new(t, bytes + 8);
    if (!tensor->raw_data.data) return QX_TEXT_NOMEM(t);
    tensor->raw_data.len = bytes;
    tensor->has_raw_data = true;
    QX_TRY(make_up(t, dtype, n, tensor->raw_data.data, &done));
    return done ? QX_OK : read_elements(t, dtype, n, tensor->raw_data.data);
}
