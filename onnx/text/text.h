/* text.h - models as text, in the syntax of onnx.parser, for tests and for people: reading goes through protobuf messages and
 * qx_build_model, so that a text takes the same road as a file.
 *
 * Beyond that syntax: names and dims that are no identifiers stand in quotes; tensor content may be made up: `= random(SEED)` (floats
 * spread like a normal distribution, integers over a small range), `= fill(VALUE)`, `= iota`. */
#ifndef QX_ONNX_TEXT_H
#define QX_ONNX_TEXT_H

#include "base/buf.h"
#include "onnx/file/wire.h"

/* Where a text is being read; the message of a failure has the line. */
typedef struct qx_text {
    qx_model *m;
    const char *start, *p;
    int depth;
} qx_text;

qx_status qx_text_fail(qx_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void qx_text_skip(qx_text *t);                  /* blanks and comments (// and #) */
bool qx_text_eat(qx_text *t, const char *word); /* punctuation, or a whole word */
bool qx_text_peek(qx_text *t, char c);
qx_status qx_text_expect(qx_text *t, const char *word);
/* An identifier (letters, digits, '_', '.'; not digits first) or a quoted name; *out NULL when there is none. Arena copy. */
qx_status qx_text_name(qx_text *t, bool dots, char **out);
qx_status qx_text_string(qx_text *t, char **out, size_t *len);
/* Integer or real. */
qx_status qx_text_number(qx_text *t, bool *is_float, int64_t *i, double *f);
/* Appends to an arena array that doubles at powers of two. */
qx_status qx_text_push(qx_text *t, void *list, size_t *count, void *item);
void *qx_text_new(qx_text *t, size_t size);
#define QX_TEXT_NOMEM(t) qx_fail((t)->m->ctx, QX_E_NOMEM, "out of memory for the text")

qx_status qx_text_type(qx_text *t, Onnx__TypeProto **out); /* NULL when there is no type here */
/* After a type: {1, 2, 3}, fill(...), random(...), iota. */
qx_status qx_text_tensor(qx_text *t, const Onnx__TypeProto *type, char *name, Onnx__TensorProto **out);
qx_status qx_text_model(qx_text *t, Onnx__ModelProto **out);

#endif
