/* unicode.h - what tokenizers need of Unicode: UTF-8, normal forms, lower case, classes of code points. The data is utf8proc's. */
#ifndef QX_CALIB_UNICODE_H
#define QX_CALIB_UNICODE_H

#include "base/buf.h"

/* Length of the valid prefix of s[0, n): n when all of it is valid UTF-8 (no surrogates, nothing over U+10FFFF, shortest form). */
size_t qx_utf8_valid(const char *s, size_t n);
/* Decodes one code point of valid UTF-8; returns its length in bytes. */
size_t qx_utf8_get(const char *s, uint32_t *c);
/* Encodes into out[4]; returns the length. */
size_t qx_utf8_encode(uint32_t c, char *out);

/* Each appends the converted text to out; s is valid UTF-8. */
typedef enum qx_normal_form { QX_NFC, QX_NFD, QX_NFKC, QX_NFKD } qx_normal_form;
qx_status qx_unicode_normal(qx_ctx *ctx, qx_normal_form form, const char *s, size_t n, qx_buf *out);
qx_status qx_unicode_lower(const char *s, size_t n, qx_buf *out); /* each code point by itself: no final-sigma rule */

bool qx_unicode_is_accent(uint32_t c);  /* Mn: non-spacing */
bool qx_unicode_is_mark(uint32_t c);    /* Mn Mc Me */
bool qx_unicode_is_control(uint32_t c); /* Cc Cf Cn Co except tab, newline, carriage return */
bool qx_unicode_is_space(uint32_t c);   /* White_Space */
bool qx_unicode_is_cjk(uint32_t c);     /* the ideograph blocks that BERT sets apart */

/* Does a grapheme (what a reader takes for one character) end between a and b, which follow each other? *state is 0 before a text. */
bool qx_unicode_grapheme_ends(uint32_t a, uint32_t b, int *state);

#endif
