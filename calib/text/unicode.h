/* unicode.h - the little of Unicode that tokenizers need: UTF-8, canonical normal forms, lower case, marks. */
#ifndef QX_CALIB_UNICODE_H
#define QX_CALIB_UNICODE_H

#include "base/buf.h"

/* Length of the valid prefix of s[0, n): n when all of it is valid UTF-8 (no surrogates, nothing over U+10FFFF, shortest form). */
size_t qx_utf8_valid(const char *s, size_t n);
/* Decodes one code point of valid UTF-8; returns its length in bytes. */
size_t qx_utf8_get(const char *s, uint32_t *c);
/* Encodes into out[4]; returns the length. */
size_t qx_utf8_encode(uint32_t c, char *out);

/* Each appends the converted text to out. */
qx_status qx_unicode_nfc(qx_ctx *ctx, const char *s, size_t n, qx_buf *out);
qx_status qx_unicode_nfd(qx_ctx *ctx, const char *s, size_t n, qx_buf *out);
qx_status qx_unicode_lower(const char *s, size_t n, qx_buf *out); /* each code point by itself: no final-sigma rule */

bool qx_unicode_is_accent(uint32_t c);  /* Mn: non-spacing */
bool qx_unicode_is_mark(uint32_t c);    /* Mn Mc Me */
bool qx_unicode_is_control(uint32_t c); /* Cc Cf Cn Co except tab, newline, carriage return */
bool qx_unicode_is_space(uint32_t c);   /* White_Space */
bool qx_unicode_is_cjk(uint32_t c);     /* the ideograph blocks that BERT sets apart */

#endif
