/* edit.h - the only way to change a graph. Every call keeps uses, definitions, order and names consistent; qx_verify checks
 * all of it. An edit marks what it touched (wire = NULL) so that the writer rebuilds only that. */
#ifndef QX_ONNX_EDIT_H
#define QX_ONNX_EDIT_H

#include "onnx/graph.h"

/* A name that no value or node of the model has: `base`, else base_1, base_2... Interned. NULL when out of memory, or when base is. */
const char *qx_unique_name(qx_model *m, const char *base);

/* New node, placed before `before` (NULL: at the end of g). in[] may hold NULLs. Outputs are new values named out_names[i]
 * (made unique). The operator is looked up at the graph's opset of `domain`; QX_E_UNSUPPORTED when the table does not know it there. */
typedef struct qx_node_spec {
    const char *op_type, *domain, *name;
    qx_value *const *in; uint32_t n_in;
    const char *const *out_names; uint32_t n_out;
} qx_node_spec;
qx_status qx_node_add(qx_graph *g, const qx_node_spec *spec, qx_node *before, qx_node **out);
/* Only when nothing uses its outputs and none is a graph output. */
qx_status qx_node_erase(qx_node *n);
qx_status qx_node_set_in(qx_node *n, uint32_t index, qx_value *v);  /* v may be NULL; grows the list when index == n_in */
qx_status qx_node_truncate_in(qx_node *n, uint32_t n_in);           /* drops inputs from n_in on */
qx_status qx_node_truncate_out(qx_node *n, uint32_t n_out);         /* drops outputs from n_out on, which nothing may use */
/* Takes a carried state out of a Loop: its first value, the body's input, which nothing may read, and output, and the node's output,
 * which nothing may use. Inputs of the node behind it move up. */
qx_status qx_loop_drop_state(qx_node *loop, uint32_t state);
qx_status qx_node_move(qx_node *n, qx_node *before);                  /* same graph; the caller keeps the order legal */
/* Changes the operator in place (for example when the opset is raised); inputs, outputs and attributes stay. */
qx_status qx_node_set_op(qx_node *n, const char *domain, const char *op_type);

qx_status qx_attr_set_int(qx_node *n, const char *name, int64_t v);
qx_status qx_attr_set_float(qx_node *n, const char *name, float v);
qx_status qx_attr_set_string(qx_node *n, const char *name, const char *v);
qx_status qx_attr_set_ints(qx_node *n, const char *name, const int64_t *v, int64_t count);
qx_status qx_attr_set_tensor(qx_node *n, const char *name, qx_weight *t);
qx_status qx_attr_remove(qx_node *n, const char *name); /* absent: OK */

/* New initializer value from a weight (its name is made unique and the weight renamed to it). */
qx_status qx_init_add(qx_graph *g, const char *name, qx_weight *w, qx_value **out);
qx_status qx_init_replace(qx_value *v, qx_weight *w); /* same value, other content, type follows */
/* A graph input with a default becomes a plain initializer: callers cannot override it any more. Needs IR version 4. */
qx_status qx_input_fix(qx_value *v);
qx_status qx_init_erase(qx_value *v);                 /* only without uses */
/* Moves every use of `from` to `to`; uses in `except` (a node, may be NULL) stay. Graph outputs are not uses: a graph output
 * keeps its value (see qx_output_rewire). */
qx_status qx_value_replace_uses(qx_value *from, qx_value *to, const qx_node *except);
/* Makes `to` the producer-side value of a graph output named like `from`: swaps names so that the interface keeps its name. */
qx_status qx_output_rewire(qx_value *from, qx_value *to);
/* For a value that takes another's place and shall be known by its name. Neither is a graph input or output. */
qx_status qx_value_swap_names(qx_value *a, qx_value *b);
qx_status qx_value_set_type(qx_value *v, const qx_type *t);
qx_status qx_value_new(qx_graph *g, const char *name, qx_value **out); /* for passes that build subgraph inputs */

qx_status qx_model_set_opset(qx_model *m, const char *domain, int64_t version); /* stamps only; conversion is passes/place/opset.c */
/* The same for a local function, which imports its own operator sets. */
qx_status qx_function_set_opset(qx_function *f, const char *domain, int64_t version);
qx_status qx_model_set_ir(qx_model *m, int64_t ir);
qx_status qx_model_set_meta(qx_model *m, const char *key, const char *value);   /* value NULL removes */

/* Puts the body of the local function that `call` calls in its place: attributes are resolved, values get names of their own
 * ("CALL/NAME"), outputs keep theirs. Operator sets that the function imports and the caller does not are added; QX_E_UNSUPPORTED when an
 * operator of the body has another definition at the caller's opset (qx_opset_raise brings both to one). */
qx_status qx_function_inline(qx_node *call);
/* Every call of the model, calls inside bodies too, and drops the functions. At most QX_INLINE_NODES nodes may come out. */
qx_status qx_functions_inline(qx_model *m);
enum { QX_INLINE_NODES = 1000000 };

/* Drops what exporters wrote beside nodes for people who debug an export (stack traces, classes, doc strings; file/debug_info.c). Modules
 * that patterns name nodes by stay, and so does what is unknown. *bytes: of the file. */
qx_status qx_debug_info_drop(qx_model *m, int64_t *bytes);

/* Removes nodes and initializers that no output needs (random and control operators included when dead); *removed may be NULL. */
qx_status qx_dead_code(qx_model *m, int64_t *removed);
/* Puts the nodes of every graph behind what they need, otherwise in the order they have; *moved: how many had to move. With a
 * cycle its graph stays as it is. */
qx_status qx_sort_nodes(qx_model *m, int64_t *moved);
/* Uses, definitions, order, names, counts and types agree, or QX_E_FAIL with the first thing that does not: our own bug. */
qx_status qx_verify(qx_model *m);

#endif
