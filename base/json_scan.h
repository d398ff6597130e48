/* json_scan.h - the strict check that a text passes before cJSON sees it; only for json.c. */
#ifndef QX_BASE_JSON_SCAN_H
#define QX_BASE_JSON_SCAN_H

#include "base/status.h"

#define QX_JSON_DEPTH 64
#define QX_JSON_VALUES ((size_t)8 << 20) /* values of one document: 80 bytes each in cJSON */

/* RFC 8259 without its freedoms: valid UTF-8, paired surrogates, no \u0000, finite numbers, nesting and count within the
 * caps, nothing behind the value. *values is the number of values. */
qx_status qx_json_scan(qx_ctx *ctx, const char *text, size_t len, const char *what, size_t *values);
/* Bytes of the valid UTF-8 sequence at s (of n bytes); 0 when there is none. Also used by the writer. */
size_t qx_json_utf8(const unsigned char *s, size_t n);

#endif
