/* graph.h - the in-memory graph: thin structs owned by the model's arena. Weights are never here, only where they lie and
 * what shall become of them (onnx/weight/weight.h). Read freely; change only through onnx/edit.h.
 *
 * Names are interned in the model: equal names are equal pointers. Inside one scope a value is one object: nodes of a subgraph
 * that use an outer value point at the outer graph's qx_value. Unknown fields, doc strings and metadata of whatever was not
 * edited survive, because each object keeps the protobuf message it came from (`wire`). */
#ifndef QX_ONNX_GRAPH_H
#define QX_ONNX_GRAPH_H

#include "base/map.h"
#include "kernels/dtype.h"
#include "onnx/ops.h"

typedef struct qx_model qx_model;
typedef struct qx_graph qx_graph;
typedef struct qx_node qx_node;
typedef struct qx_value qx_value;
typedef struct qx_attr qx_attr;
typedef struct qx_weight qx_weight; /* onnx/weight/weight.h */
typedef struct qx_function qx_function;

/* A dimension: n >= 0 known; n == -1 with sym: symbolic (an interned, canonical expression: "batch", "2*height",
 * "past+seq"), so equal pointers mean equal dims; n == -1 without sym: unknown. */
typedef struct qx_dim { int64_t n; const char *sym; } qx_dim;
/* Surely of one size: the same number, or the same symbol. */
static inline bool qx_dim_same(qx_dim a, qx_dim b) { return a.n == b.n && a.sym == b.sym && (a.n >= 0 || a.sym); }

typedef enum qx_kind { QX_KIND_NONE, QX_KIND_TENSOR, QX_KIND_SPARSE, QX_KIND_SEQUENCE, QX_KIND_OPTIONAL, QX_KIND_MAP } qx_kind;
typedef struct qx_type {
    qx_kind kind;
    qx_dtype dtype;             /* of a tensor; key type of a map */
    bool has_shape;
    int rank;
    qx_dim *dims;               /* [rank] */
    const struct qx_type *elem; /* of a sequence, optional or map */
} qx_type;

/* Both tensors, of known rank and equal dims, as far as one can know without running. */
bool qx_type_same_dims(const qx_type *a, const qx_type *b);

typedef struct qx_use { qx_node *node; uint32_t index; struct qx_use *next; } qx_use; /* node->in[index] is the value */

struct qx_value {
    uint32_t id;          /* dense over the model: index of side tables of size model->n_values */
    const char *name;     /* interned; "" never */
    qx_type type;         /* inferred or declared; kind NONE when unknown */
    qx_graph *graph;
    qx_node *def;         /* producer; NULL for graph inputs and initializers */
    uint32_t def_index;   /* def->out[def_index] is this */
    qx_weight *init;      /* initializer (also of a graph input with a default) */
    struct qx_sparse *sparse; /* sparse initializer: init is NULL then, so that nobody takes its values for a dense weight */
    qx_use *uses;         /* every use, those inside subgraphs too */
    uint32_t n_uses;
    bool is_input;        /* of its graph */
    bool is_output;       /* of its graph */
    void *wire;           /* Onnx__ValueInfoProto* it was declared with; NULL when none or changed */
};

typedef enum qx_attr_type {
    QX_ATTR_UNDEFINED = 0, QX_ATTR_FLOAT = 1, QX_ATTR_INT = 2, QX_ATTR_STRING = 3, QX_ATTR_TENSOR = 4, QX_ATTR_GRAPH = 5,
    QX_ATTR_FLOATS = 6, QX_ATTR_INTS = 7, QX_ATTR_STRINGS = 8, QX_ATTR_TENSORS = 9, QX_ATTR_GRAPHS = 10,
    QX_ATTR_SPARSE_TENSOR = 11, QX_ATTR_SPARSE_TENSORS = 12, QX_ATTR_TYPE_PROTO = 13, QX_ATTR_TYPE_PROTOS = 14
} qx_attr_type;

struct qx_attr {
    const char *name;
    qx_attr_type type;
    const char *ref_name;      /* ref_attr_name inside functions, else NULL */
    float f;
    int64_t i;
    const char *s; size_t s_len; /* bytes; NUL behind them */
    int64_t n;                 /* length of the list forms */
    const float *floats;
    const int64_t *ints;
    const char *const *strings; const size_t *string_lens;
    qx_weight *tensor;
    qx_graph *graph;
    qx_weight **tensors;
    qx_graph **graphs;
    struct qx_sparse *sparse;
    const qx_type *type_value; /* TYPE_PROTO; the lists of sparse tensors and of types stay in the wire message only */
    void *wire;                /* Onnx__AttributeProto*; NULL for one that an edit made */
};

typedef struct qx_sparse { qx_weight *values, *indices; int rank; const int64_t *dims; void *wire;
                           } qx_sparse; /* Onnx__SparseTensorProto* */

struct qx_node {
    uint32_t id;               /* dense over the model */
    const qx_op *op;           /* row of the operator table at the model's opset; op->id == QX_OP_UNKNOWN for others */
    const char *op_type, *domain, *name, *overload; /* interned; domain "" for ai.onnx; name may be "" */
    const char *scope;         /* module that a torch export wrote beside a name without one ("blocks.0.attn.to_q"); NULL: none */
    qx_value **in; uint32_t n_in;   /* NULL entries: omitted optional inputs */
    qx_value **out; uint32_t n_out; /* NULL entries: omitted optional outputs */
    qx_attr *attrs; uint32_t n_attrs; /* moves when an attribute is added */
    qx_function *callee;       /* local function that it calls, else NULL */
    qx_graph *graph;
    qx_node *prev, *next;      /* in topological order */
    void *wire;                /* Onnx__NodeProto*; NULL once edited or made by an edit: the writer then builds it anew */
    void *wire_origin;         /* the message it came from even when edited (doc string, metadata, unknown fields) */
};

struct qx_graph {
    qx_model *model;
    const char *name;
    qx_graph *parent;          /* scope that encloses a subgraph, else NULL */
    qx_node *owner;            /* node whose attribute holds it, else NULL */
    qx_function *function;     /* set for the body of a local function */
    qx_value **inputs; uint32_t n_inputs;
    qx_value **outputs; uint32_t n_outputs;
    qx_value **inits; uint32_t n_inits;    /* values with init or sparse, in file order; new ones behind */
    qx_node *first, *last; uint32_t n_nodes;
    qx_map *values;            /* name -> qx_value*, this scope only */
    qx_graph *made_before;     /* chain of all graphs ever made (qx_model.last_made), for releasing their maps */
    void *wire;                /* Onnx__GraphProto* */
};

struct qx_function { uint32_t index; /* in model->functions */ const char *name, *domain, *overload; qx_graph *body;
                     const char *const *attr_names; uint32_t n_attr_names;
                     qx_attr *attr_defaults; uint32_t n_attr_defaults; /* attributes with a default value */
                     const struct qx_opset *opsets; uint32_t n_opsets; void *wire; };
typedef struct qx_opset { const char *domain; int64_t version; } qx_opset; /* domain "" for ai.onnx */
typedef struct qx_meta { const char *key, *value; } qx_meta;

struct qx_model {
    qx_ctx *ctx;
    qx_arena *arena;
    qx_strings *names;
    qx_map *taken;             /* names of all values and nodes, for qx_unique_name */
    const char *path;          /* as given; NULL for a model from bytes */
    int64_t ir_version;
    qx_opset *opsets; uint32_t n_opsets;
    const char *producer_name, *producer_version, *domain, *doc; int64_t model_version;
    qx_meta *meta; uint32_t n_meta;
    qx_graph *graph;
    qx_function **functions; uint32_t n_functions;
    qx_map *function_ids;      /* see qx_model_function */
    qx_graph *last_made;
    uint32_t n_values, n_node_ids; /* ids ever given out; side tables are this long */
    bool dirty;                /* an edit happened: false means the writer may copy the file */
    struct qx_store *store;    /* open files behind the weights (onnx/weight/weight.h) */
    uint64_t graph_hash;       /* XXH3 of the structure as read: names, ops, edges, weight places; keys statistics */
    void *wire;                /* Onnx__ModelProto* */
};

/* Opset that the model (or the function that g belongs to) imports for a domain; 0 when it does not. */
int64_t qx_graph_opset(const qx_graph *g, const char *domain);
qx_value *qx_graph_find(const qx_graph *g, const char *name);       /* this scope, then outer scopes; NULL when absent */
const qx_attr *qx_node_attr(const qx_node *n, const char *name);     /* NULL when absent */
int64_t qx_attr_int(const qx_node *n, const char *name, int64_t fallback);
float qx_attr_float(const qx_node *n, const char *name, float fallback);
const char *qx_attr_string(const qx_node *n, const char *name, const char *fallback);
/* *count is 0 and NULL returned when absent. */
const int64_t *qx_attr_ints(const qx_node *n, const char *name, int64_t *count);
static inline qx_value *qx_node_in(const qx_node *n, uint32_t i) { return i < n->n_in ? n->in[i] : NULL; }
static inline bool qx_value_is_real(const qx_value *v) { return v->type.kind == QX_KIND_TENSOR && qx_dtype_is_real(v->type.dtype); }
static inline qx_value *qx_node_out(const qx_node *n, uint32_t i) { return i < n->n_out ? n->out[i] : NULL; }
/* Number of elements when every dim is known, else -1. */
int64_t qx_type_numel(const qx_type *t);
/* The tensor behind a value that is an initializer or the output of Constant (any of its value attributes that is a tensor,
 * float(s) or int(s)); NULL otherwise. Does not follow Identity. */
qx_weight *qx_value_const(const qx_value *v);

/* The local function that (domain, name, overload) names, or NULL. */
qx_function *qx_model_function(const qx_model *m, const char *domain, const char *name, const char *overload);
/* "node 'n' (Conv)", or "node (Conv) that makes 'y'" when it has no name: how messages call a node. Into buf; returns buf. */
const char *qx_node_label(const qx_node *n, char *buf, size_t cap);
enum { QX_MAX_NESTING = 40, QX_MAX_DIMS = 64 }; /* subgraphs inside subgraphs; dims of a type */

/* Every node of the model, subgraphs and function bodies included, parents before their bodies. fn returning non-OK stops. */
typedef qx_status qx_node_fn(void *user, qx_node *n);
qx_status qx_model_each_node(qx_model *m, qx_node_fn *fn, void *user);
typedef qx_status qx_graph_fn(void *user, qx_graph *g);
qx_status qx_model_each_graph(qx_model *m, qx_graph_fn *fn, void *user);

/* Nodes of one graph, safe against erasing n. */
#define QX_FOR_NODES(g, n) for (qx_node *n = (g)->first, *n##_next; n && ((n##_next = n->next), 1); n = n##_next)

#endif
