/* emit.h - the node forms that are written, by target: one pair per tensor (pairs.c), one dequantizer per weight (form.c finds which,
 * emit.c writes it). Decides nothing about quality. */
#ifndef QX_PASSES_EMIT_H
#define QX_PASSES_EMIT_H

#include "passes/place/opset.h"
#include "passes/place/plan.h"

/* Starts with an empty set of pairs for the model of the plan. */
qx_status qx_emit_new(struct qx_pipeline *pipe);
/* QuantizeLinear + DequantizeLinear behind v (target ort and FP8: Div, Cast, Cast, Mul), or the pair that is there already.
 * scale is in the type of v; zero only for UINT8. */
qx_status qx_emit_pair(struct qx_pipeline *pipe, qx_value *v, qx_dtype codes, float scale, int32_t zero, qx_value **out);
/* The same for scales that are found when the model runs, in the blocks of a weight's format (blocks.h). */
qx_status qx_emit_blocks(struct qx_pipeline *pipe, qx_value *v, const qx_qspec *spec, float second, qx_value **out);
/* The weight of an item in its format: makes the job and the dequantizer once, rewires all uses. For 4-bit weights and target ort
 * the item's node becomes MatMulNBits; for generic its weight stands so that ONNX Runtime makes one of it. */
qx_status qx_emit_weight(struct qx_pipeline *pipe, qx_plan_item *it);
/* When every pass has run: biases of items whose input is quantized, where the target would spoil them as they are (ort_bias.c). */
qx_status qx_emit_biases(struct qx_pipeline *pipe);
/* ... and behind that: products of codes as ONNX Runtime multiplies them as integers (ort_products.c). */
qx_status qx_ort_products(struct qx_pipeline *pipe);
/* ... and operators between pairs as ONNX Runtime runs them fastest (ort_forms.c). All three for targets that fuse codes alone. */
qx_status qx_ort_forms(struct qx_pipeline *pipe);
/* The weight with its float steps as float of its own type: no format took it. */
qx_status qx_emit_float(struct qx_pipeline *pipe, qx_plan_weight *w);
/* Whether the form exists for this item: rank and operator fit the block and the target; else the reason. */
qx_why qx_emit_fits(const struct qx_pipeline *pipe, const qx_plan_item *it, const qx_qspec *spec, const char **detail);
/* Elements that shall share a scale: the block of the spec or, for a target that takes whole blocks only, the largest power of
 * two below it that divides k (16 at least); 0: there is none. */
int64_t qx_emit_block(const struct qx_pipeline *pipe, const qx_plan_item *it, const qx_qspec *spec);
/* Bytes of codes, scales and zero points that qx_emit_weight would write for this item in this format, padding of an external
 * data file included. */
qx_status qx_emit_bytes(struct qx_pipeline *pipe, const qx_plan_item *it, const qx_qspec *spec, bool external, int64_t *bytes);
/* Whether --max-opset and --max-ir allow it. */
bool qx_emit_may(const struct qx_pipeline *pipe, qx_need need);
/* qx_opset_raise within --max-opset and --max-ir. */
qx_status qx_emit_raise(struct qx_pipeline *pipe, qx_need need, const char *because);
/* INT8 weights with float activations, for ort: blocks instead of one scale a row where MatMulNBits can then hold them. At plan time. */
void qx_emit_prefer_blocks(const struct qx_pipeline *pipe, qx_plan_item *it);
/* What a pair of these codes behind v needs. */
qx_need qx_emit_pair_need(const struct qx_pipeline *pipe, const qx_value *v, qx_dtype codes);
/* What the weight's form needs, that of an embedding which shares it included. */
qx_need qx_emit_weight_need(const struct qx_pipeline *pipe, const qx_plan_item *it);
/* What the forms of this weight format need. */
qx_need qx_emit_need(const qx_qspec *spec);

#endif
