/* sha1.h - SHA-1, the checksum of external data in the ONNX format. Not for security. */
#ifndef QX_ONNX_SHA1_H
#define QX_ONNX_SHA1_H

#include <stddef.h>
#include <stdint.h>

typedef struct qx_sha1 { uint32_t h[5]; uint64_t n; uint8_t block[64]; } qx_sha1;
void qx_sha1_init(qx_sha1 *s);
void qx_sha1_update(qx_sha1 *s, const void *p, size_t n);
void qx_sha1_hex(qx_sha1 *s, char out[41]); /* 40 lower-case digits and a NUL; the state is used up */

#endif
