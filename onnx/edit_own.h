/* edit_own.h - what the files of the edit API share, and nobody else: whoever changes the graph by these alone leaves it inconsistent. */
#ifndef QX_ONNX_EDIT_OWN_H
#define QX_ONNX_EDIT_OWN_H

#include "onnx/edit.h"
#include "onnx/make.h"

/* The writer builds anew what was touched: the graph with all nodes around it; the node too. */
void qx_touch_graph(qx_graph *g);
void qx_touch_node(qx_node *n);
/* v leaves the graph; its name stays taken. NULL: nothing. */
void qx_value_forget(qx_value *v);
qx_status qx_name_intern(qx_model *m, const char *text, const char **out);

#endif
