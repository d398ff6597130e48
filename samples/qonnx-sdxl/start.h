/* start.h - where a picture begins: in noise, in a picture under noise, or in a picture of which a mask is drawn anew. */
#ifndef SX_START_H
#define SX_START_H

#include "run.h"

/* Fills s->latent, and s->keep where a mask takes part; sched begins late when a picture shall show through. Opens the UNet,
 * which says whether it takes masks. Noise is drawn in diffusers' order: the picture's own variance, the first latent, the masked
 * picture's variance. */
int sx_start(sx_err *e, sx_batch *b, sx_shot *s, sx_sched *sched);

#endif
