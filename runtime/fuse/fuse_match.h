/* fuse_match.h - patterns of onnx/match.h on the steps of a plan. "Act" is a fused activation. */
#ifndef QX_RUNTIME_FUSE_MATCH_H
#define QX_RUNTIME_FUSE_MATCH_H

#include "onnx/match.h"
#include "runtime/fuse/fuse.h"

/* Whether the value that s makes matches. */
bool qx_fuse_match(const qx_fuser *f, const qx_rstep *s, const char *pattern, qx_match *m);

#endif
