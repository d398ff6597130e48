/* dots.h - a font of 5 x 8 dots, for labels in pictures. Includes nothing of ours: the samples use it beside qonnx.h. */
#ifndef QX_BASE_DOTS_H
#define QX_BASE_DOTS_H

/* The five columns of a character, lowest bit on top; those of '?' for what is not ASCII. */
const unsigned char *qx_dots(char c);

#endif
