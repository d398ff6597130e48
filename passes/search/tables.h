/* tables.h - embeddings that cost more in 8 bits than everything else does. */
#ifndef QX_PASSES_TABLES_H
#define QX_PASSES_TABLES_H

#include "passes/search/probe.h"

/* Tables that may have 16 bits: --tables auto chose INT8 for them, and nodes only gather their rows. */
int64_t qx_tables_count(const struct qx_pipeline *pipe);
/* From decide(): `changes` are what all else does, n of them, with room for as many more as there are linear operators. Tables whose
 * rounding adds more than a decibel to the noise of the rest are stored in float16, those that do most first. A run of the model
 * without them, one with them, and one for each. */
qx_status qx_tables_choose(qx_pass *p, qx_probe *probe, qx_probe_change *changes, int64_t n);

#endif
