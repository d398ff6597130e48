/* text.h - name patterns and small text helpers. A pattern is a glob, or a /regex/ that must match the whole name (PCRE2,
 * with match and depth limits). Both also see a normalised name in which '/' is '.', so that "ff.net" finds "ff/net". */
#ifndef QX_BASE_TEXT_H
#define QX_BASE_TEXT_H

#include "base/mem.h"

typedef struct qx_pattern qx_pattern;
qx_status qx_pattern_new(qx_ctx *ctx, const char *text, qx_pattern **out); /* QX_E_USAGE when it does not compile */
bool qx_pattern_matches(qx_pattern *p, const char *name);                  /* counts its hits */
int64_t qx_pattern_hits(const qx_pattern *p);
const char *qx_pattern_text(const qx_pattern *p);
void qx_pattern_free(qx_pattern *p);

/* The word closest to a mistyped one, for messages: no more than 3 edits, and fewer than half of its letters. */
typedef struct qx_nearest { const char *word; size_t len; const char *best; size_t best_len; int edits; } qx_nearest;
qx_nearest qx_nearest_to(const char *word, size_t len);
void qx_nearest_offer(qx_nearest *n, const char *candidate, size_t len);
/* "; did you mean X?", with prefix before X, or ""; into out, which it returns. */
const char *qx_nearest_text(const qx_nearest *n, const char *prefix, char *out, size_t cap);

/* "8G", "512M", "64KiB", "1000" -> bytes; decimal digits, checked. */
qx_status qx_parse_size(qx_ctx *ctx, const char *text, int64_t *out);
qx_status qx_parse_i64(qx_ctx *ctx, const char *text, int64_t *out);
qx_status qx_parse_f64(qx_ctx *ctx, const char *text, double *out); /* finite only */
/* "5.13 GB", "812.0 kB"; into buf of at least 24 bytes; returns buf. */
const char *qx_format_bytes(int64_t bytes, char *buf, size_t cap);
/* Copies name with control bytes, escapes and invalid UTF-8 made visible, cut to cap-1 bytes with "..." when longer; returns out. */
const char *qx_printable(const char *name, char *out, size_t cap);

#endif
