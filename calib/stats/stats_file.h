/* stats_file.h - the file of statistics: a line of text that says what it is, a JSON table of all values with their ranges (readable
 * with any pager), then the arrays, then a hash of everything before.
 *
 *     qonnx-stats 1\n
 *     {json}\n                 one object: model, samples, values [{name, kinds, ..., offsets}], measured [[key, a, b]]
 *     arrays                   little endian; offsets count from the first byte behind the JSON's newline, in steps of 64
 *     32 hex digits            XXH3-128 of all bytes before
 *
 * Everything read is checked: counts against the file's size before anything is allocated, kinds against what is there. */
#ifndef QX_CALIB_STATS_FILE_H
#define QX_CALIB_STATS_FILE_H

#include "calib/stats/store.h"

#define QX_STATS_MAGIC "qonnx-stats "
enum { QX_STATS_VERSION = 1, QX_STATS_ALIGN = 64, QX_STATS_HASH_CHARS = 32, QX_STATS_PARTS = 14 };

/* An array of a value: n elements of width bytes, which *at points to. */
typedef struct qx_stats_part { const char *key; void **at; int64_t n; size_t width; } qx_stats_part;

/* The arrays that a value has, at most QX_STATS_PARTS; writing and hashing go by this table. Returns how many. */
int qx_stats_parts(qx_observer *o, qx_stats_part *p, bool with_gram);

/* Of the first n bytes: XXH3-128 of the hashes of 1 MiB pieces, so that no piece needs the whole file in memory. */
qx_status qx_stats_file_hash(qx_ctx *ctx, int fd, const char *path, int64_t n, char hex[33]);

#endif
