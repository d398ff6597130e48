/* text_lex.c - words, numbers, strings and types of the text form. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "onnx/text/text.h"

qx_status qx_text_fail(qx_text *t, const char *fmt, ...)
{
    char text[400], rest[24];
    int line = 1;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    for (const char *p = t->start; p < t->p; p++) line += *p == '\n';
    snprintf(rest, sizeof rest, "%.20s", t->p);
    rest[strcspn(rest, "\n")] = '\0';
    return qx_fail(t->m->ctx, QX_E_FORMAT, "line %d, before '%s': %s", line, rest, text);
}

void qx_text_skip(qx_text *t)
{
    for (;;) {
        while (isspace((unsigned char)*t->p)) t->p++;
        if (*t->p != '#' && strncmp(t->p, "//", 2) != 0) return;
        t->p += strcspn(t->p, "\n");
    }
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

bool qx_text_peek(qx_text *t, char c)
{
    qx_text_skip(t);
    return *t->p == c;
}

bool qx_text_eat(qx_text *t, const char *word)
{
    qx_text_skip(t);
    size_t n = strlen(word);
    if (strncmp(t->p, word, n) != 0 || (is_word(word[n - 1]) && is_word(t->p[n]))) return false;
    t->p += n;
    return true;
}

qx_status qx_text_expect(qx_text *t, const char *word)
{
    return qx_text_eat(t, word) ? QX_OK : qx_text_fail(t, "expected '%s'", word);
}

void *qx_text_new(qx_text *t, size_t size)
{
    return qx_arena_alloc(t->m->arena, size);
}

qx_status qx_text_push(qx_text *t, void *list, size_t *count, void *item)
{
    void *items;
    size_t n = *count;
    memcpy(&items, list, sizeof items);
    if ((n & (n - 1)) == 0) {
        void *more = qx_arena_array(t->m->arena, n ? 2 * n : 1, sizeof(void *));
        if (!more) return QX_TEXT_NOMEM(t);
        if (n) memcpy(more, items, n * sizeof(void *));
        items = more;
        memcpy(list, &items, sizeof items);
    }
    memcpy((char *)items + n * sizeof(void *), &item, sizeof item);
    *count = n + 1;
    return QX_OK;
}

qx_status qx_text_string(qx_text *t, char **out, size_t *len)
{
    QX_TRY(qx_text_expect(t, "\""));
    size_t n = 0, cap = strcspn(t->p, "\"") + 1;
    for (const char *p = t->p; *p && *p != '"'; p++, cap = (size_t)(p - t->p) + 1) p += *p == '\\' && p[1];
    char *s = qx_text_new(t, cap + 1);
    if (!s) return QX_TEXT_NOMEM(t);
    for (; *t->p && *t->p != '"'; t->p++) {
        char c = *t->p;
        if (c == '\\' && t->p[1]) {
            c = *++t->p;
            c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
        }
        s[n++] = c;
    }
    *out = s;
    *len = n;
    return qx_text_expect(t, "\"");
}

qx_status qx_text_name(qx_text *t, bool dots, char **out)
{
    size_t n = 0;
    *out = NULL;
    if (qx_text_peek(t, '"')) return qx_text_string(t, out, &n);
    if (isdigit((unsigned char)*t->p)) return QX_OK;
    while (is_word(t->p[n]) || (dots && n && t->p[n] == '.')) n++;
    if (n == 0) return QX_OK;
    *out = qx_arena_strndup(t->m->arena, t->p, n);
    t->p += n;
    return *out ? QX_OK : QX_TEXT_NOMEM(t);
}

qx_status qx_text_number(qx_text *t, bool *is_float, int64_t *i, double *f)
{
    char *end;
    qx_text_skip(t);
    const char *digits = t->p + (*t->p == '-' || *t->p == '+');
    if (!isdigit((unsigned char)*digits) && *digits != '.' && strncasecmp(digits, "inf", 3) != 0 && strncasecmp(digits, "nan", 3) != 0)
        return qx_text_fail(t, "expected a number");
    *f = strtod(t->p, &end);
    size_t n = (size_t)(end - t->p), plain = (size_t)(digits - t->p) + strspn(digits, "0123456789");
    *is_float = n > plain;
    *i = strtoll(t->p, NULL, 10);
    t->p = end;
    return QX_OK;
}

/* ---- types ------------------------------------------------------------------------------------------------------------- */

static int element_type(const char *name)
{
    for (int code = 1; code < QX_DT_COUNT_; code++) {
        if (strcasecmp(qx_dtype_get(code)->name, name) == 0) return code;
    }
    return 0;
}

static qx_status read_dim(qx_text *t, Onnx__TensorShapeProto *shape)
{
    Onnx__TensorShapeProto__Dimension *d = qx_text_new(t, sizeof *d);
    if (!d) return QX_TEXT_NOMEM(t);
    onnx__tensor_shape_proto__dimension__init(d);
    QX_TRY(qx_text_push(t, &shape->dim, &shape->n_dim, d));
    if (qx_text_eat(t, "?")) return QX_OK;
    QX_TRY(qx_text_name(t, true, &d->dim_param));
    if (d->dim_param) {
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        return QX_OK;
    }
    bool is_float;
    double f;
    d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
    return qx_text_number(t, &is_float, &d->dim_value, &f);
}

/* float: a scalar; float[]: any shape; float[2, N]. */
static qx_status read_shape(qx_text *t, Onnx__TensorShapeProto **out)
{
    Onnx__TensorShapeProto *shape = qx_text_new(t, sizeof *shape);
    if (!shape) return QX_TEXT_NOMEM(t);
    onnx__tensor_shape_proto__init(shape);
    *out = shape;
    if (!qx_text_eat(t, "[")) return QX_OK;
    if (qx_text_eat(t, "]")) {
        *out = NULL;
        return QX_OK;
    }
    do QX_TRY(read_dim(t, shape));
    while (qx_text_eat(t, ","));
    return qx_text_expect(t, "]");
}

static qx_status read_tensor_type(qx_text *t, int code, Onnx__TypeProto *type)
{
    Onnx__TypeProto__Tensor *tensor = qx_text_new(t, sizeof *tensor);
    if (!tensor) return QX_TEXT_NOMEM(t);
    onnx__type_proto__tensor__init(tensor);
    tensor->has_elem_type = true;
    tensor->elem_type = code;
    type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type->tensor_type = tensor;
    return read_shape(t, &tensor->shape);
}

static qx_status read_wrapped(qx_text *t, bool sequence, Onnx__TypeProto *type)
{
    Onnx__TypeProto *elem;
    if (++t->depth > 16) return qx_text_fail(t, "types are nested deeper than 16");
    QX_TRY(qx_text_expect(t, "("));
    QX_TRY(qx_text_type(t, &elem));
    if (!elem) return qx_text_fail(t, "expected a type");
    t->depth--;
    if (sequence) {
        type->sequence_type = qx_text_new(t, sizeof *type->sequence_type);
        if (!type->sequence_type) return QX_TEXT_NOMEM(t);
        onnx__type_proto__sequence__init(type->sequence_type);
        type->sequence_type->elem_type = elem;
        type->value_case = ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE;
    } else {
        type->optional_type = qx_text_new(t, sizeof *type->optional_type);
        if (!type->optional_type) return QX_TEXT_NOMEM(t);
        onnx__type_proto__optional__init(type->optional_type);
        type->optional_type->elem_type = elem;
        type->value_case = ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE;
    }
    return qx_text_expect(t, ")");
}

qx_status qx_text_type(qx_text *t, Onnx__TypeProto **out)
{
    char *word;
    *out = NULL;
    if (qx_text_peek(t, '"')) return QX_OK;
    const char *before = t->p;
    QX_TRY(qx_text_name(t, false, &word));
    int code = word ? element_type(word) : 0;
    bool sequence = word && strcmp(word, "seq") == 0, optional = word && strcmp(word, "optional") == 0;
    bool follows = sequence || optional ? qx_text_peek(t, '(') : code != 0;
    if (!follows) {
        t->p = before;
        return QX_OK;
    }
    *out = qx_text_new(t, sizeof **out);
    if (!*out) return QX_TEXT_NOMEM(t);
    onnx__type_proto__init(*out);
    return code ? read_tensor_type(t, code, *out) : read_wrapped(t, sequence, *out);
}
