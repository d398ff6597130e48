/* sched_config.h - scheduler_config.json as diffusers writes it. */
#ifndef SX_SCHED_CONFIG_H
#define SX_SCHED_CONFIG_H

#include "json.h"
#include "sched.h"

/* Fills *c; what the file leaves out is what diffusers' class takes then. A class or a setting that is not offered goes as text
 * into *problem (the caller frees), because --scheduler may replace it; a value out of bounds is an error. */
int sx_sched_read(sx_err *e, const sx_json *j, sx_sched_config *c, char **problem);

#endif
