/* folder.h - what a pipeline folder holds: optimum's, diffusers' ONNX and TensorRT's layouts, with their configs. */
#ifndef SX_FOLDER_H
#define SX_FOLDER_H

#include "sched.h"
#include "util.h"

/* What to do with a network that this program does not feed; takes the name of a preset. */
#define SX_BY_ITSELF "quantize its model alone, qonnx quantize MODEL --preset %s --calib FOLDER, with an .npz of its inputs for each call"

typedef enum sx_part { SX_TEXT1, SX_TEXT2, SX_UNET, SX_VAE_DEC, SX_VAE_ENC, SX_PART_COUNT } sx_part;
extern const char *const sx_part_names[SX_PART_COUNT];

typedef struct sx_folder {
    char *dir;
    char *model[SX_PART_COUNT];  /* path of the .onnx; NULL: not there */
    char *tokenizer, *tokenizer_2;
    char *class_name;            /* of model_index.json; NULL */
    sx_sched_config sched;
    char *sched_problem;         /* why the scheduler config cannot be used (unknown class); NULL: fine */
    double vae_scaling, vae_shift;
    double *latent_mean, *latent_std; /* [channels], or NULL */
    bool scaling_assumed;        /* the config has none: SDXL's was taken */
    int channels;                /* latent */
    int vae_factor;              /* pixels per latent cell, 8 */
    int size;                    /* default picture side */
    int unet_factor;             /* latent cells per cell of the UNet's smallest level; 1: unknown */
    bool force_zeros;            /* an absent negative prompt is zeros, not "" */
    bool aesthetics;             /* refiner: time ids hold an aesthetic score */
    int text_layers[2];          /* num_hidden_layers; 0: unknown */
    int time_cond_dim;           /* LCM: time_cond_proj_dim; 0: none */
} sx_folder;

/* override: paths by part that replace the folder's, NULL entries keep; tokenizers likewise. */
typedef struct sx_override { const char *model[SX_PART_COUNT]; const char *tokenizer, *tokenizer_2; } sx_override;
/* The tokenizers alone: what a reference's or a refiner's folder takes from the command line too. */
sx_override sx_only_tokenizers(const sx_override *over);
/* A missing UNet, VAE decoder, text encoder or tokenizer is an error that lists what was expected and found. */
int sx_folder_open(sx_err *e, const char *dir, const sx_override *over, sx_folder *out);
void sx_folder_free(sx_folder *f);

#endif
