/* fuse_match.h - patterns of nodes as text, matched backwards from a value.
 *
 *     Op(p, q) made by this operator from its first inputs (more may follow); Add and Mul match in either order. "Act" is a fused
 *     activation
 *     x           any value; the same letter again: the same value
 *     d:p         p, and the value gets a letter
 *     =0.5  $e    a constant number near 0.5; any constant number, kept under a letter
 *     {p|q}       p, or else q
 *
 * Every value inside the pattern, the outermost excepted, must be read by nothing else: it vanishes. */
#ifndef QX_RUNTIME_FUSE_MATCH_H
#define QX_RUNTIME_FUSE_MATCH_H

#include "runtime/fuse/fuse.h"

enum { QX_MATCH_INNER = 32 };
typedef struct qx_inner { const qx_value *v; int reads; } qx_inner;
typedef struct qx_match {
    const qx_value *v[26];   /* by letter; NULL: not met */
    int reads[26];           /* times that the letter was met */
    double num[26];
    qx_inner inner[QX_MATCH_INNER]; int n_inner;
} qx_match;
#define QX_LETTER(c) ((c) - 'a')

/* Whether the value that s makes matches. */
bool qx_fuse_match(const qx_fuser *f, const qx_rstep *s, const char *pattern, qx_match *m);

#endif
