/* options.h - the command line of qonnx-sdxl as data: one table drives parsing, bounds and help. */
#ifndef SX_OPTIONS_H
#define SX_OPTIONS_H

#include <stdio.h>

#include "folder.h"
#include "image.h"

typedef struct sx_list { const char **v; int n; } sx_list;
typedef struct sx_options {
    const char *dir;
    sx_list prompts, set, exclude;
    const char *prompts_file, *negative, *out, *sheet, *steps_preview;
    int64_t steps, count, seed, width, height, clip_skip, threads;
    double guidance, eta, strength, min_psnr, refiner_start, refiner_strength;
    const char *size, *scheduler, *spacing, *prediction, *rng, *noise, *init, *mask, *refiner, *refiner_mode;
    sx_override over;
    bool ref, json, quiet, verbose, force, simulate, help, version, show_prompts;
    const char *ref_dir, *report, *calibrate, *stats, *quantize, *level, *rest, *passes, *device, *compute, *max_memory, *lpips, *clip,
        *clip_text;
} sx_options;

/* Numbers that were not given are NAN or -1. */
int sx_options_parse(sx_err *e, int argc, char **argv, sx_options *o);
void sx_options_free(sx_options *o);
void sx_options_help(FILE *to);

#endif
