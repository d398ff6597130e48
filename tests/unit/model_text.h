/* model_text.h - for tests: a context, and models from text. */
#ifndef MODEL_TEXT_H
#define MODEL_TEXT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "onnx/edit.h"
#include "onnx/infer/infer.h"
#include "onnx/file/io.h"

#define HEAD(opset) "<ir_version: 10, opset_import: [\"\" : " #opset ", \"com.microsoft\" : 1]>\n"

typedef struct fixture { qx_ctx *ctx; qx_model *m; } fixture;

static inline fixture load(const char *text)
{
    fixture f = {.ctx = qx_ctx_new(NULL)};
    assert_non_null(f.ctx);
    if (qx_model_parse_text(f.ctx, text, &f.m) != QX_OK) fail_msg("%s", qx_ctx_error(f.ctx));
    return f;
}

static inline void unload(fixture *f)
{
    qx_model_free(f->m);
    assert_int_equal(qx_mem_in_use(f->ctx), 0);
    qx_ctx_free(f->ctx);
}

static inline qx_value *value(const fixture *f, const char *name)
{
    qx_value *v = qx_graph_find(f->m->graph, name);
    if (!v) fail_msg("no value '%s'", name);
    return v;
}

static inline qx_node *producer(const fixture *f, const char *name)
{
    return value(f, name)->def;
}

static inline void ok(const fixture *f, qx_status st)
{
    if (st != QX_OK) fail_msg("%s", qx_ctx_error(f->ctx));
}

static inline void assert_type(const fixture *f, const char *name, const char *expected)
{
    char buf[256];
    qx_type_describe(&value(f, name)->type, buf, sizeof buf);
    if (strcmp(buf, expected) != 0) fail_msg("'%s' is %s instead of %s", name, buf, expected);
}

/* Loading must fail with a message that has `part` in it. */
static inline void refuse(const char *text, const char *part)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_model *m = NULL;
    qx_status st = qx_model_parse_text(ctx, text, &m);
    if (st == QX_OK) fail_msg("accepted, but should say '%s'", part);
    if (!strstr(qx_ctx_error(ctx), part)) fail_msg("says '%s' instead of '%s'", qx_ctx_error(ctx), part);
    qx_ctx_free(ctx);
}

#endif
