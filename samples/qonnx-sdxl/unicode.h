/* unicode.h - what the CLIP tokenizer needs of Unicode: UTF-8, canonical composition, lower case, classes of characters. */
#ifndef SX_UNICODE_H
#define SX_UNICODE_H

#include "util.h"

/* UTF-8 to code points; each byte that does not belong to a valid sequence becomes U+FFFD. cp: at least len values; returns how many. */
size_t sx_utf8_decode(const char *s, size_t len, uint32_t *cp);
/* Writes one code point; returns 1 to 4 bytes. */
int sx_utf8_encode(uint32_t cp, char out[4]);
/* Canonical composition of n code points into a new array (sx_free). */
int sx_nfc(sx_err *e, const uint32_t *in, size_t n, uint32_t **out, size_t *n_out);
/* Lower case of one code point: one value, or two for U+0130. */
int sx_lower(uint32_t cp, uint32_t out[2]);
bool sx_is_letter(uint32_t cp);
bool sx_is_number(uint32_t cp);
bool sx_is_space(uint32_t cp);

#endif
