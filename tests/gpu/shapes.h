/* shapes.h - a builder of models with the shapes of well-known networks and made-up weights, for timing where no checkpoint is at
 * hand. All weights are windows of one array of random numbers, so that making a model costs little more than writing it. A
 * builder that failed stops the program: this is a tool of the tests. */
#ifndef TESTS_GPU_SHAPES_H
#define TESTS_GPU_SHAPES_H

#include "onnx/edit.h"
#include "onnx/file/io.h"

typedef struct builder {
    qx_ctx *ctx;
    qx_model *m;
    qx_graph *g;
    uint16_t *numbers; int64_t n_numbers; /* f16, normal with a deviation of 0.02 */
    double flops;                          /* of products, convolutions and attention: two an addition with multiplication */
    int64_t parameters;
    int serial;
    const char *plugin;                    /* folder of the host form: models run through instead of being written */
} builder;

/* From a model text that has the inputs and, for each output, an Identity that stands in for what comes. biggest: elements of the
 * largest weight. */
void build_start(builder *b, const char *text, int64_t biggest);
/* y becomes the graph output `name`. */
void build_output(builder *b, const char *name, qx_value *y);
/* Writes DIR/model.onnx and DIR/sample.npz (float inputs: random, integer inputs: as given by name), prints what it is as JSON.
 * With a plugin: nothing is written, the model runs twice on that device of the host form which computes nothing and refuses what
 * a card would refuse (runtime/cuda/machine_host.c). */
typedef struct fixed_input { const char *name; int64_t value; } fixed_input;
void build_finish(builder *b, const char *dir, const fixed_input *fixed, int n_fixed);

void check(const builder *b, qx_status st);
qx_value *input(const builder *b, const char *name);
/* A node with one output and up to four inputs (NULL: none behind). */
qx_value *op(builder *b, const char *type, qx_value *x, qx_value *y, qx_value *z, qx_value *u);
qx_value *with_int(qx_value *v, const char *attr, int64_t i);
qx_value *with_float(qx_value *v, const char *attr, float f);
qx_value *with_ints(qx_value *v, const char *attr, int n, const int64_t *i);
#define INTS(...) (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__}

qx_value *weight(builder *b, int rank, const int64_t *dims);       /* random, f16 */
qx_value *filled(builder *b, int rank, const int64_t *dims, float v); /* one number, f16 */
qx_value *ints(builder *b, int n, const int64_t *v);                /* INT64 */
qx_value *reshape(builder *b, qx_value *x, int rank, const int64_t *dims);
qx_value *transpose(builder *b, qx_value *x, int rank, const int64_t *perm);
/* x [rows, in] of any rank by a weight [in, out]. */
qx_value *linear(builder *b, qx_value *x, int64_t rows, int64_t in, int64_t out, bool bias);
qx_value *silu(builder *b, qx_value *x);

/* The networks. size "full", or "tiny": the same nodes with small dims. */
void build_unet(builder *b, const char *dir, bool tiny);
void build_llama(builder *b, const char *dir, bool tiny, int64_t layers, int64_t tokens, int64_t past);
void build_codes(builder *b, const char *dir);
void build_products(builder *b, const char *dir, int64_t rows, int64_t n);

#endif
