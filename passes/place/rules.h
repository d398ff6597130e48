/* rules.h - what stays float unless somebody asks: names (keep.def), sizes, levels. Facts only; the plan decides. */
#ifndef QX_PASSES_RULES_H
#define QX_PASSES_RULES_H

#include "passes/place/plan.h"

/* True when `path` ("block_sparse_moe.gate") is a run of whole components of name ("/model/layers.0/block_sparse_moe/gate/MatMul"). */
bool qx_path_has(const char *name, const char *path, bool only_first);
/* What a default rule calls this linear ("language model head"), or NULL. vision: rules of the vision branch apply too. */
const char *qx_rule_name(const qx_linear *l, bool vision);
/* True when only the rules of the vision branch would keep it. */
bool qx_rule_is_vision(const qx_linear *l);
/* Too sensitive for 4 bits by its name (a diffusion transformer's modulation): 8 instead. */
bool qx_rule_wants_eight(const qx_linear *l);
/* Embeddings, recurrences and language model heads are stored in INT8 where nobody names them. The reason when this one is not
 * ("small"), else NULL. all: bytes of the whole model. */
bool qx_rule_is_table(const qx_linear *l);
const char *qx_rule_float_table(const qx_linear *l, int64_t all);
/* The weight of a recurrence that a scale a row cannot say: of two directions, or for a runtime that refuses it. */
bool qx_rule_needs_blocks(const qx_linear *l, qx_target target);
/* Named like a language model head, or one by qx_rule_is_head. */
bool qx_rule_names_head(const qx_linear *l);
/* A projection onto a vocabulary that is (through pointwise operators) a graph output: a head without a telling name. */
bool qx_rule_is_head(const qx_linear *l);
/* The graph output that such a head makes (through pointwise operators); NULL: not a head. */
const qx_value *qx_rule_head_output(const qx_linear *l);

/* The dimension that counts samples: the first one of every graph input of two or more dimensions; n -1 without sym when they disagree. */
qx_dim qx_rule_batch(const qx_model *m);
/* x has one row for each sample (behind a pooling, a timestep): its products wait for the weight to be read, and 8 bits of x gain
 * no time. */
bool qx_rule_one_row(const qx_linear *l, const qx_dim *batch);
/* What else stays float by its name (patch embeddings, a vision branch) and whose weight can be stored in INT8 all the same. Not routers,
 * which choose. For ONNX Runtime not convolutions, whose weights it dequantizes at each run, nor products of one row (timesteps), whose
 * input it rounds (a consistency UNet in 8-bit weights 37 to 26 dB). */
bool qx_rule_may_store(const qx_linear *l, bool with_vision, qx_target target, const qx_dim *batch);

typedef enum qx_family { QX_FAMILY_INT8, QX_FAMILY_FP8, QX_FAMILY_WEIGHT_ONLY } qx_family;
/* Sizes that the format's kernels do not serve, with the numbers in detail (of at least 120 bytes). Unknown sizes keep nothing. */
qx_why qx_rule_size(const qx_linear *l, qx_family family, char *detail, size_t cap);
/* Levels of the diffusion recipes: 1 convolutions, 2 and "ff.net" linears, 2.5 and q/k/v, 3 and all linears but proj_out, 4 and
 * attention. 0: no levels. */
/* N of the "up_blocks.N" in its path, -1 without one: the last up block of a UNet works at the size of the output. */
int qx_rule_up_block(const qx_linear *l);
bool qx_rule_above_level(const qx_linear *l, double level);

#endif
