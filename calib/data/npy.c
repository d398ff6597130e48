/* npy.c - reads and writes the header of a .npy array.
 *
 * The header is a Python dict literal with exactly three keys. It comes from strangers, so it is parsed by a small strict
 * scanner: no evaluation, no pickles, no structured types; the shape's product is checked before anyone allocates.
 * bfloat16 has no name in NumPy; arrays of ml_dtypes carry it as two opaque bytes ('V2'), which is how it is read and written here. */
#include "calib/data/npy.h"

#include "base/checked.h"

#include <stdio.h>
#include <string.h>

typedef struct descr_row { const char *code; qx_dtype dtype; } descr_row; /* kind and size, without the byte order */
static const descr_row descrs[] = {
    {"f4", QX_DT_FLOAT}, {"f2", QX_DT_FLOAT16}, {"f8", QX_DT_DOUBLE}, {"b1", QX_DT_BOOL}, {"i1", QX_DT_INT8}, {"u1", QX_DT_UINT8},
    {"i2", QX_DT_INT16}, {"u2", QX_DT_UINT16}, {"i4", QX_DT_INT32}, {"u4", QX_DT_UINT32}, {"i8", QX_DT_INT64}, {"u8", QX_DT_UINT64},
    {"V2", QX_DT_BFLOAT16}, {"c8", QX_DT_COMPLEX64}, {"c16", QX_DT_COMPLEX128},
};

typedef struct scan { qx_ctx *ctx; const char *what, *p, *end; } scan;

static void skip_blanks(scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n')) s->p++;
}

static bool take(scan *s, char c)
{
    skip_blanks(s);
    if (s->p == s->end || *s->p != c) return false;
    s->p++;
    return true;
}

static qx_status bad(scan *s, const char *expected)
{
    QX_FAIL(s->ctx, QX_E_FORMAT, "%s: npy header: expected %s %d bytes before its end", s->what, expected, (int)(s->end - s->p));
}

static qx_status take_string(scan *s, char *out, size_t cap)
{
    skip_blanks(s);
    char quote = s->p < s->end ? *s->p : 0;
    if (quote != '\'' && quote != '"') return bad(s, "a quoted name");
    size_t n = 0;
    for (s->p++; s->p < s->end && *s->p != quote; s->p++) {
        if (n + 1 >= cap || *s->p == '\\') return bad(s, "a short plain name");
        out[n++] = *s->p;
    }
    if (s->p == s->end) return bad(s, "a closing quote");
    s->p++;
    out[n] = 0;
    return QX_OK;
}

static qx_status take_bool(scan *s, bool *out)
{
    skip_blanks(s);
    static const struct { const char *text; bool value; } words[] = {{"True", true}, {"False", false}};
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(words[i].text);
        if ((size_t)(s->end - s->p) >= n && memcmp(s->p, words[i].text, n) == 0) {
            s->p += n;
            *out = words[i].value;
            return QX_OK;
        }
    }
    return bad(s, "True or False");
}

static qx_status take_dim(scan *s, int64_t *out)
{
    skip_blanks(s);
    const char *start = s->p;
    int64_t v = 0;
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++)
        if (!qx_mul_i64(v, 10, &v) || !qx_add_i64(v, *s->p - '0', &v))
            QX_FAIL(s->ctx, QX_E_FORMAT, "%s: npy header: a dim over 2^63", s->what);
    if (s->p == start) return bad(s, "a dim that is not negative");
    if (s->p < s->end && *s->p == 'L') s->p++; /* Python 2 */
    *out = v;
    return QX_OK;
}

static qx_status take_shape(scan *s, int64_t *dims, int *rank)
{
    if (!take(s, '(')) return bad(s, "'(' of the shape");
    for (*rank = 0; !take(s, ')'); (*rank)++) {
        if (*rank == QX_MAX_RANK) QX_FAIL(s->ctx, QX_E_UNSUPPORTED, "%s: npy array of more than %d dims", s->what, QX_MAX_RANK);
        QX_TRY(take_dim(s, &dims[*rank]));
        if (take(s, ',')) continue;
        if (*rank == 0) return bad(s, "',' behind the only dim");
        skip_blanks(s);
        if (s->p == s->end || *s->p != ')') return bad(s, "',' or ')' in the shape");
    }
    return QX_OK;
}

static qx_status decode_descr(scan *s, const char *text, qx_npy *h, qx_dtype *dtype)
{
    if (strchr(text, 'O'))
        QX_FAIL(s->ctx, QX_E_UNSUPPORTED, "%s: npy array of Python objects ('%s'): pickles are never read; save plain numbers", s->what,
                text);
    char order = text[0];
    if (order && strchr("<>|=", order)) text++;
    for (size_t i = 0; i < sizeof descrs / sizeof *descrs; i++) {
        if (strcmp(text, descrs[i].code)) continue;
        h->swap = order == '>';
        *dtype = descrs[i].dtype;
        return QX_OK;
    }
    QX_FAIL(s->ctx, QX_E_UNSUPPORTED, "%s: npy element type '%s' is not a plain number type", s->what, text);
}

qx_status qx_npy_head_length(qx_ctx *ctx, const char *what, const uint8_t *p, size_t n, size_t *length)
{
    if (n < 10 || memcmp(p, "\x93NUMPY", 6)) QX_FAIL(ctx, QX_E_FORMAT, "%s: not a .npy array (magic bytes differ)", what);
    if (p[6] < 1 || p[6] > 3 || p[7] != 0)
        QX_FAIL(ctx, QX_E_FORMAT, "%s: npy version %d.%d is unknown (1.0, 2.0, 3.0 are)", what, p[6], p[7]);
    size_t head = p[6] == 1 ? 10 : 12;
    if (n < head) QX_FAIL(ctx, QX_E_FORMAT, "%s: npy header is cut off after %zu bytes", what, n);
    size_t len = p[6] == 1 ? (size_t)(p[8] | p[9] << 8) : (size_t)p[8] | (size_t)p[9] << 8 | (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (head + len > QX_NPY_HEAD_MAX)
        QX_FAIL(ctx, QX_E_FORMAT, "%s: npy header of %zu bytes; at most %d are read", what, len, QX_NPY_HEAD_MAX - 12);
    *length = head + len;
    return QX_OK;
}

enum { KEY_DESCR = 1, KEY_ORDER = 2, KEY_SHAPE = 4 };

static qx_status take_item(scan *s, qx_npy *h, qx_dtype *dtype, int64_t *dims, int *rank, int *seen)
{
    char key[16], descr[32];
    QX_TRY(take_string(s, key, sizeof key));
    if (!take(s, ':')) return bad(s, "':' behind a key");
    int bit = !strcmp(key, "descr") ? KEY_DESCR : !strcmp(key, "fortran_order") ? KEY_ORDER : !strcmp(key, "shape") ? KEY_SHAPE : 0;
    if (!bit || (*seen & bit)) return bad(s, "descr, fortran_order and shape, once each,");
    *seen |= bit;
    if (bit == KEY_ORDER) return take_bool(s, &h->fortran);
    if (bit == KEY_SHAPE) return take_shape(s, dims, rank);
    skip_blanks(s);
    if (s->p < s->end && *s->p == '[')
        QX_FAIL(s->ctx, QX_E_UNSUPPORTED, "%s: npy array of structured type; save one array a field", s->what);
    QX_TRY(take_string(s, descr, sizeof descr));
    return decode_descr(s, descr, h, dtype);
}

qx_status qx_npy_parse(qx_ctx *ctx, const char *what, const uint8_t *p, size_t n, qx_npy *out)
{
    size_t length;
    QX_TRY(qx_npy_head_length(ctx, what, p, n, &length));
    if (n < length) QX_FAIL(ctx, QX_E_FORMAT, "%s: npy header says %zu bytes, %zu are there", what, length, n);
    *out = (qx_npy){.data_offset = (int64_t)length};
    size_t start = p[6] == 1 ? 10 : 12;
    scan s = {ctx, what, (const char *)p + start, (const char *)p + length};
    qx_dtype dtype = QX_DT_UNDEFINED;
    int64_t dims[QX_MAX_RANK] = {0};
    int rank = 0, seen = 0;
    if (!take(&s, '{')) return bad(&s, "'{'");
    while (!take(&s, '}')) {
        QX_TRY(take_item(&s, out, &dtype, dims, &rank, &seen));
        if (take(&s, ',')) continue;
        if (take(&s, '}')) break;
        return bad(&s, "',' or '}'");
    }
    skip_blanks(&s);
    if (s.p != s.end) return bad(&s, "nothing more");
    if (seen != (KEY_DESCR | KEY_ORDER | KEY_SHAPE)) QX_FAIL(ctx, QX_E_FORMAT, "%s: npy header lacks descr, fortran_order or shape", what);
    qx_status st = qx_tensor_shape(ctx, &out->shape, dtype, rank, dims);
    return st == QX_OK ? st : qx_note(ctx, st, "%s", what);
}

static void swap_bytes(uint8_t *p, int64_t n, size_t width)
{
    for (int64_t i = 0; i < n; i++, p += width)
        for (size_t a = 0, b = width - 1; a < b; a++, b--) {
            uint8_t t = p[a];
            p[a] = p[b];
            p[b] = t;
        }
}

/* Walks the row-major order with an odometer over dims; the column-major place of each element is kept up step by step. */
static void to_row_major(const qx_tensor *t, size_t width, const uint8_t *src, uint8_t *dst)
{
    int64_t at[QX_MAX_RANK] = {0}, stride[QX_MAX_RANK], place = 0;
    int64_t s = 1;
    for (int d = 0; d < t->rank; d++) stride[d] = s, s *= t->dims[d];
    for (int64_t i = 0; i < t->numel; i++) {
        memcpy(dst + (size_t)i * width, src + (size_t)place * width, width);
        for (int d = t->rank - 1; d >= 0; d--) {
            place += stride[d];
            if (++at[d] < t->dims[d]) break;
            place -= stride[d] * t->dims[d];
            at[d] = 0;
        }
    }
}

qx_status qx_npy_fix(qx_ctx *ctx, const qx_npy *h, void *data)
{
    const qx_tensor *t = &h->shape;
    size_t width = (size_t)qx_dtype_bits(t->dtype) / 8;
    bool complex = qx_dtype_get(t->dtype)->cls == 'C';
    if (h->swap) swap_bytes(data, complex ? t->numel * 2 : t->numel, complex ? width / 2 : width);
    if (!h->fortran || t->rank < 2) return QX_OK;
    void *copy;
    QX_TRY(qx_alloc_raw(ctx, t->bytes, &copy));
    memcpy(copy, data, t->bytes);
    to_row_major(t, width, copy, data);
    qx_free(ctx, copy);
    return QX_OK;
}

static const char *descr_of(qx_dtype dtype)
{
    if (qx_dtype_bits(dtype) == 8 && qx_dtype_is_float(dtype)) return "V1"; /* float8: opaque bytes, as ml_dtypes does */
    for (size_t i = 0; i < sizeof descrs / sizeof *descrs; i++)
        if (descrs[i].dtype == dtype) return descrs[i].code;
    return NULL;
}

qx_status qx_npy_head(qx_ctx *ctx, const char *what, const qx_tensor *t, char *buf, size_t cap, size_t *length)
{
    const char *descr = descr_of(t->dtype);
    if (!descr) QX_FAIL(ctx, QX_E_TYPE, "%s: a .npy file cannot hold %s", what, qx_dtype_get(t->dtype)->text);
    char shape[192] = "";
    size_t n = 0;
    for (int d = 0; d < t->rank; d++)
        n += (size_t)snprintf(shape + n, sizeof shape - n, d ? ", %lld" : "%lld", (long long)t->dims[d]);
    if (t->rank == 1) snprintf(shape + n, sizeof shape - n, ",");
    char order = descr[1] == '1' && !descr[2] ? '|' : '<';
    int text = snprintf(buf + 10, cap - 10, "{'descr': '%c%s', 'fortran_order': False, 'shape': (%s), }", order, descr, shape);
    size_t total = (10 + (size_t)text + 1 + 63) / 64 * 64; /* data is 64-byte aligned in the array file, as NumPy does */
    if (text < 0 || total > cap) QX_FAIL(ctx, QX_E_FAIL, "%s: npy header of %d bytes", what, text);
    memset(buf + 10 + text, ' ', total - 10 - (size_t)text - 1);
    buf[total - 1] = '\n';
    memcpy(buf, "\x93NUMPY\x01\x00", 8);
    buf[8] = (char)((total - 10) & 255);
    buf[9] = (char)((total - 10) >> 8);
    *length = total;
    return QX_OK;
}
