/* check.h - the parts of the checker. Each looks at one kind of rule and reports the first violation with the thing, where it is and
 * the numbers that disagree. Shapes and the attributes that decide them (strides, axes, permutations) are judged by inference. */
#ifndef QX_ONNX_CHECK_H
#define QX_ONNX_CHECK_H

#include "onnx/file/io.h"
#include "onnx/file/wire.h"

typedef struct qx_checker {
    qx_model *m;
    qx_ctx *ctx;
    bool strict;
    uint32_t *place;   /* by node id: position in a walk that visits a node before its bodies, from 1 */
    uint32_t next_place;
    int64_t scale_budget; /* bytes of scales that are still looked at */
} qx_checker;

qx_status qx_check_model(qx_checker *c);     /* versions, opsets, metadata */
qx_status qx_check_functions(qx_checker *c); /* recursion, depth, identity */
qx_status qx_check_graph(void *checker, qx_graph *g);  /* interface, initializers, order, scopes */
qx_status qx_check_node(void *checker, qx_node *n);    /* operator, counts */
qx_status qx_check_attrs(qx_checker *c, const qx_node *n);
qx_status qx_check_quant(qx_checker *c, const qx_node *n);
qx_status qx_check_sparse(qx_checker *c, const char *name, const qx_sparse *s);
/* A warning, or in strict mode the error. */
qx_status qx_check_warn(qx_checker *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define QX_SHOWN(s) qx_printable((s), (char[200]){0}, 200)
#define QX_LABEL(n) qx_node_label((n), (char[256]){0}, 256)
#define QX_REFUSE(c, ...) return qx_fail((c)->ctx, QX_E_FORMAT, __VA_ARGS__)

#endif
