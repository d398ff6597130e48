/* match.h - patterns of nodes as text, matched backwards from a value.
 *
 *     Op(p, q)    made by this operator of the standard from its first inputs (more may follow); Add and Mul match in either order
 *     Op[a=1](p)  ... whose attribute a is near 1; a=1? may be missing too
 *     x           any value; the same letter again: the same value
 *     d:p         p, and the value gets a letter
 *     =0.5  $e    a constant number near 0.5; any constant number, kept under a letter
 *     {p|q}       p, or else q
 *
 * Every value inside the pattern, the outermost excepted, must be read by nothing else: it vanishes. What a value is made of, whoever
 * asks says (qx_match_graph): passes see the graph as it is, the executor its steps, some of which stand for several nodes by then.
 * Depth is that of the pattern. */
#ifndef QX_ONNX_MATCH_H
#define QX_ONNX_MATCH_H

#include "onnx/graph.h"

enum { QX_MATCH_INNER = 32 };
typedef struct qx_inner { const qx_value *v; int reads; } qx_inner;
typedef struct qx_match {
    const qx_value *v[26];   /* by letter; NULL: not met */
    int reads[26];           /* times that the letter was met */
    double num[26];
    qx_inner inner[QX_MATCH_INNER]; int n_inner;
} qx_match;
#define QX_LETTER(c) ((c) - 'a')

/* What makes a value. */
typedef struct qx_made {
    const char *op;               /* "Mul"; a name that no operator has for what stands for several nodes */
    const qx_node *node;          /* for its attributes; NULL: it has none */
    const qx_value *const *in; uint32_t n_in;
    uint32_t reads;               /* how often it reads its first input: 1, but for several nodes in one */
} qx_made;
typedef struct qx_match_graph {
    const void *user;
    bool (*made)(const void *user, const qx_value *v, qx_made *out);    /* false: by nothing that a pattern could name */
    bool (*number)(const void *user, const qx_value *v, double *out);   /* whether v is one known number */
    bool (*vanishes)(const void *user, const qx_value *v);              /* whether v may, when all its readers do */
} qx_match_graph;

/* Whether v matches; m is written only then. */
bool qx_match_value(const qx_match_graph *g, const qx_value *v, const char *pattern, qx_match *m);

/* Activations as exporters write them, of x. */
#define QX_FORM_SILU "Mul(x, Sigmoid(x))"
#define QX_FORM_HALF(E) "{Mul(=0.5, Mul(x, " E "))|Mul(Mul(=0.5, x), " E ")|Mul(x, Mul(=0.5, " E "))}"
#define QX_FORM_GELU QX_FORM_HALF("Add(=1, Erf({Div(x, =1.41421356)|Mul(x, =0.70710678)}))")
#define QX_FORM_RELU6(p) "{Clip(" p ", =0, =6)|Clip[min=0, max=6](" p ")}"
#define QX_FORM_SIXTH(E) "{Div(" E ", =6)|Mul(" E ", =0.16666667)}"
#define QX_FORM_SHIFTED QX_FORM_RELU6("Add(=3, x)")
#define QX_FORM_HARD_SWISH "{Mul(x, " QX_FORM_SIXTH(QX_FORM_SHIFTED) ")|" QX_FORM_SIXTH("Mul(x, " QX_FORM_SHIFTED ")") "}"

#endif
