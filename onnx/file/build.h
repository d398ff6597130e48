/* build.h - from protobuf messages to the graph: parts that build.c, the checker and the text form share. */
#ifndef QX_ONNX_BUILD_H
#define QX_ONNX_BUILD_H

#include "onnx/make.h"
#include "onnx/file/wire.h"

enum { QX_MAX_TYPE_NESTING = 16, QX_MAX_FUNCTIONS = 10000, QX_MAX_IMPORTS = 1000, QX_MAX_ATTRS = 1000 };

static inline const char *qx_text_or_empty(const char *s) { return s ? s : ""; }
/* A type; NULL and unknown kinds give kind NONE. */
qx_status qx_build_type(qx_model *m, const Onnx__TypeProto *t, qx_type *out);
qx_status qx_build_sparse(qx_model *m, Onnx__SparseTensorProto *s, qx_sparse **out);
/* Attributes of n without their graphs, which need the scope: build.c adds those. */
qx_status qx_build_attr(qx_model *m, Onnx__AttributeProto *a, qx_attr *out);

#endif
