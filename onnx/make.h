/* make.h - making and linking graph objects, for build.c and the edit API only: nothing here marks a model as edited. */
#ifndef QX_ONNX_MAKE_H
#define QX_ONNX_MAKE_H

#include "onnx/graph.h"

/* An empty graph in the model's arena; it is known to the model, so that qx_model_drop_graphs releases its map. */
qx_status qx_graph_make(qx_model *m, const char *name, qx_graph *parent, qx_node *owner, qx_graph **out);
/* New value in g's scope under an interned name; the name must be free in this scope. */
qx_status qx_value_make(qx_graph *g, const char *name, qx_value **out);
/* New node, not linked into its graph, with room for n_in and n_out values (all NULL). Names are interned. */
qx_status qx_node_make(qx_graph *g, const char *op_type, const char *domain, const char *name, uint32_t n_in, uint32_t n_out,
                       qx_node **out);
void qx_node_link(qx_graph *g, qx_node *n, qx_node *before); /* before NULL: at the end */
void qx_node_unlink(qx_node *n);
qx_status qx_use_add(qx_value *v, qx_node *n, uint32_t index); /* v may be NULL: nothing to do */
void qx_use_remove(qx_value *v, qx_node *n, uint32_t index);
/* Records that a value or node has this name (interned). */
qx_status qx_name_take(qx_model *m, const char *name);
/* Room for one more pointer behind `count` in an arena array that only ever grows through this call (it is doubled at powers of
 * two); NULL when out of memory. */
void *qx_list_grow(qx_model *m, void *items, uint32_t count);
/* The row for the operator at the graph's opset, or &qx_op_unknown. */
const qx_op *qx_op_resolve(const qx_graph *g, const char *domain, const char *op_type);
/* Makes qx_model_function find f; the first of several with one id stays. */
qx_status qx_model_index_function(qx_model *m, qx_function *f);
/* Type of a tensor with all dims known. */
qx_status qx_type_tensor(qx_model *m, qx_dtype dtype, int rank, const int64_t *dims, qx_type *out);

/* Appends: *items is the array, *count its length. */
#define QX_LIST_PUSH(m, items, count, item) \
    ((*(items) = qx_list_grow((m), *(items), *(count))) ? ((void)((*(items))[(*(count))++] = (item)), QX_OK) : QX_NOMEM(m))
#define QX_NOMEM(m) qx_fail((m)->ctx, QX_E_NOMEM, "out of memory for the graph")

#endif
