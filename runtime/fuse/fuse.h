/* fuse.h - patterns of nodes that the plan runs as one step. The file is never changed: a fused step stands at the place of the
 * pattern's last node, reads values from further up, and the steps in between disappear when nothing else needs them. Values that
 * are watched, kept or graph outputs are never swallowed. */
#ifndef QX_RUNTIME_FUSE_H
#define QX_RUNTIME_FUSE_H

#include "runtime/cpu/matmul/gemm.h"
#include "runtime/plan.h"

typedef struct qx_fuser {
    qx_exec *x;
    qx_gplan *p;
    qx_rstep **def;   /* [n_values] step of this graph that makes the value; NULL: none */
    qx_rstep **act;   /* [n_values] fused activation chain that reads the value; NULL: none */
    struct qx_fuse_facts *facts; /* what shape inference knows; made when first asked for */
} qx_fuser;

/* The step's node, when it is this operator; NULL otherwise (also for steps that are fused already). */
const qx_node *qx_fuse_is(const qx_rstep *s, qx_op_id op);
/* The step that makes v, when it is a plain node; NULL otherwise. */
qx_rstep *qx_fuse_def(const qx_fuser *f, const qx_value *v);
/* A weight in codes as it is stored; zero: NULL where there is none. */
typedef struct qx_fuse_weight {
    const qx_value *codes, *scale, *zero;
    int64_t axis, block;                  /* of the stored codes */
    bool swapped;                         /* what is read is the matrix turned */
} qx_fuse_weight;
/* Whether a DequantizeLinear of constants lies behind v, its result or its codes (and scales) turned or as they are. */
bool qx_fuse_dequantized(const qx_fuser *f, const qx_value *v, qx_fuse_weight *out);
/* v may vanish: one use, not kept, watched or a graph output, made in this graph. */
bool qx_fuse_inner(const qx_fuser *f, const qx_value *v);
/* The only user of v in this graph, when qx_fuse_inner; NULL otherwise. */
qx_rstep *qx_fuse_user(const qx_fuser *f, const qx_value *v);
/* The fused activation that stands for every reader of v (a chain may read it more than once), when v itself may vanish; NULL otherwise. */
qx_rstep *qx_fuse_act_behind(const qx_fuser *f, const qx_value *v);
/* The other operand when v's only reader is this operator, and operand and result are tensors of v's own dims and type; NULL otherwise. */
const qx_value *qx_fuse_with_same(const qx_fuser *f, const qx_value *v, qx_op_id op, qx_rstep **reader);
/* Makes s a fused step: fn with params (in the plan's arena), these inputs (NULLs allowed), output v. */
qx_status qx_fuse_set(qx_fuser *f, qx_rstep *s, qx_cpu_fn *fn, const void *params, const qx_value *const *in, uint32_t n_in,
                      const qx_value *out);
/* What v is another name of: through up to 8 Identity, by which exporters share equal constants. */
const qx_value *qx_fuse_behind(const qx_value *v);
/* The constant (initializer or Constant) behind v; NULL when there is none. */
const qx_weight *qx_fuse_const(const qx_value *v);
/* A dequantizer's scale: what is stored in float16 where that is cast to the type of the result; adapters read it as float32. */
const qx_value *qx_fuse_scale(const qx_node *dq);
/* Whether a look at a constant went well. One that cannot be read is nothing to fuse, and the step that needs it tells why;
 * memory that ran out is remembered, and the plan fails by it. */
bool qx_fuse_ok(const qx_fuser *f, qx_status st);
/* The one element of a value as double: of a constant initializer or Constant, or worked out from dims that are known (exporters
 * write the middle of a row as Shape, Gather, Div). False when it is not one known, finite number. */
bool qx_fuse_scalar(const qx_fuser *f, const qx_value *v, double *out);

/* The activation that a node is, where a convolution may take it in. */
bool qx_fuse_activation(const qx_fuser *f, const qx_node *n, qx_activation *a);
/* The bounds of a Clip: attributes, constant inputs, or infinite where missing. False when one is not known. */
bool qx_fuse_clip(const qx_fuser *f, const qx_node *n, float *lo, float *hi);

/* Patterns: each looks at one step and rewrites it when it is the pattern's last node. */
typedef qx_status qx_fuse_fn(qx_fuser *f, qx_rstep *s);
qx_fuse_fn qx_fuse_int8;   /* fuse_int8.c: Q/DQ around MatMul, Gemm, Conv */
qx_fuse_fn qx_fuse_wq;     /* fuse_wq.c: constant low-precision weight, float activation */
qx_fuse_fn qx_fuse_attention; /* fuse_attention.c */
qx_fuse_fn qx_fuse_group_norm; /* fuse_group_norm.c */
qx_fuse_fn qx_fuse_linear; /* fuse_linear.c */
qx_fuse_fn qx_fuse_conv;   /* fuse_conv.c; the step is qx_cpu_conv with qx_conv_params */
qx_fuse_fn qx_fuse_batch_norm; /* the same; qx_cpu_batch_norm, of which only the activation counts */
qx_fuse_fn qx_fuse_rows;       /* fuse_rows.c: Gather of rows of a large or quantized constant */
qx_fuse_fn qx_fuse_between;    /* fuse_between.c: sums and activations whose result becomes codes */
qx_fuse_fn qx_fuse_experts;    /* fuse_experts.c: product with matrices that Gather picks from a constant table */
qx_fuse_fn qx_fuse_chain;      /* fuse_chain.c: pointwise nodes one behind the other, on devices */
qx_status qx_fuse_patterns(qx_fuser *f); /* fuse_patterns.def, over all steps */

qx_status qx_fuse(qx_exec *x, qx_gplan *p);
/* The operator that a step computes: of a fused one, which stands at the last node of its pattern, the one that is most of its work. */
const char *qx_fuse_operator(const qx_rstep *s);

/* Fused kernels. */
/* Operations on a running value that begins as input 0: fields of ops are a qx_unary or qx_binary, whether it is the latter,
 * whether the running value is its right operand, and the number of the input that is the other one; p: two parameters each. */
qx_cpu_fn qx_cpu_chain;
enum { QX_CHAIN_OPS = 8, QX_CHAIN_FN = 0, QX_CHAIN_BINARY, QX_CHAIN_SWAPPED, QX_CHAIN_INPUT, QX_CHAIN_FIELDS };
typedef struct qx_chain_params { int n; int64_t ops[QX_CHAIN_OPS * QX_CHAIN_FIELDS]; float p[QX_CHAIN_OPS * 2]; } qx_chain_params;
qx_cpu_fn qx_cpu_int8_linear;
typedef enum qx_int8_kind { QX_INT8_MATMUL, QX_INT8_GEMM, QX_INT8_CONV } qx_int8_kind;
/* w_nk: weight codes are [n, k]. On devices only: fp8: E4M3 instead of integers; blocked: the weight has a scale for each
 * QX_FP8_BLOCK codes along k, laid out as they are. */
enum { QX_FP8_BLOCK = 128 };
/* act, codes: of a convolution, what follows it: an activation, and QuantizeLinear to this type (UNDEFINED: none). */
typedef struct qx_int8_params { qx_int8_kind kind; bool w_nk, fp8, blocked; qx_activation act; qx_dtype codes; } qx_int8_params;
enum { QX_INT8_X, QX_INT8_X_SCALE, QX_INT8_X_ZERO, QX_INT8_W, QX_INT8_W_SCALE, QX_INT8_BIAS, QX_INT8_INPUTS };
enum { QX_INT8_ROW_SCALE = QX_INT8_INPUTS, QX_INT8_ROW_INPUTS }; /* one input more, instead of X_SCALE: a scale for each row of x */
enum { QX_INT8_Y_SCALE = QX_INT8_INPUTS, QX_INT8_Y_ZERO, QX_INT8_Y_INPUTS }; /* or, where the result is codes, theirs */
qx_cpu_fn qx_cpu_wq_linear;
typedef struct qx_wq_params { int64_t block; bool nk; } qx_wq_params; /* block 0: one scale a column, or one; nk: codes are [n, k] */
enum { QX_WQ_X, QX_WQ_CODES, QX_WQ_SCALE, QX_WQ_ZERO, QX_WQ_BIAS, QX_WQ_INPUTS };

qx_cpu_fn qx_cpu_attn; /* inputs q, k, v, mask (may be missing) */
typedef enum qx_k_layout { QX_K_BHSD, QX_K_BHDS, QX_K_BSHD } qx_k_layout;
qx_cpu_fn qx_cpu_act;    /* input x */
typedef struct qx_act_params { qx_act act; uint32_t reads; /* nodes of the chain that read x */ } qx_act_params;
qx_cpu_fn qx_cpu_between; /* codes of act(a + b); scales missing: that operand is floats; b may be missing */
enum { QX_BETWEEN_A, QX_BETWEEN_A_SCALE, QX_BETWEEN_A_ZERO, QX_BETWEEN_B, QX_BETWEEN_B_SCALE, QX_BETWEEN_B_ZERO, QX_BETWEEN_Y_SCALE,
       QX_BETWEEN_Y_ZERO, QX_BETWEEN_INPUTS };
typedef struct qx_between_params { qx_activation act; qx_dtype codes; } qx_between_params;
qx_cpu_fn qx_cpu_gn;     /* inputs x, gamma, beta (one number a channel) */
typedef struct qx_gn_params { int64_t groups; float eps; bool silu; } qx_gn_params;
/* Of qx_cpu_conv. With norm, what a BatchNormalization behind it is given comes last; all but x and w may be missing. y =
 * act(norm(conv) + add). */
enum { QX_CONV_X, QX_CONV_W, QX_CONV_BIAS, QX_CONV_ADD, QX_CONV_INPUTS, QX_CONV_SCALE = QX_CONV_INPUTS, QX_CONV_SHIFT, QX_CONV_MEAN,
       QX_CONV_VAR, QX_CONV_NORM_INPUTS };
typedef struct qx_conv_params { qx_activation act; bool norm; float eps; } qx_conv_params;
qx_cpu_fn qx_cpu_linear; /* y = act(x W + bias) * mul + add; constant W[k, n], bias[n]; mul, add as y; all but x and W may be missing */
enum { QX_LINEAR_X, QX_LINEAR_W, QX_LINEAR_BIAS, QX_LINEAR_MUL, QX_LINEAR_ADD, QX_LINEAR_INPUTS };
typedef struct qx_linear_params { qx_act act; bool nk; /* W is stored [n, k] */ } qx_linear_params;
qx_cpu_fn qx_cpu_row_norm; /* inputs x, gamma, beta (not when rms): normalisation of the last axis */
typedef struct qx_norm_params { bool rms; float eps; } qx_norm_params;
qx_cpu_fn qx_cpu_row_top;   /* input x: the largest |x| of each row */
qx_cpu_fn qx_cpu_row_codes; /* inputs x, one scale a row: UINT8 codes */
typedef struct qx_row_codes_params { int32_t zero; } qx_row_codes_params;
qx_cpu_fn qx_cpu_rows_of; /* input: indices; the rows are read from the file, the table is never in memory */
struct qx_weight;
typedef struct qx_rows_params { const struct qx_weight *table; } qx_rows_params;
qx_cpu_fn qx_cpu_rows_dq; /* rows of a DequantizeLinear, of which only those are dequantized */
typedef struct qx_rows_dq_params { int64_t axis, block; qx_dtype type; } qx_rows_dq_params;
enum { QX_ROWS_DQ_INDICES, QX_ROWS_DQ_CODES, QX_ROWS_DQ_SCALE, QX_ROWS_DQ_ZERO, QX_ROWS_DQ_INPUTS };
/* The DequantizeLinear of constants behind a table, when each row can be dequantized by itself: rows of whole bytes, no block
 * over rows. NULL: none. */
const qx_node *qx_fuse_code_table(const qx_fuser *f, const qx_value *table);
qx_rows_dq_params qx_fuse_code_params(const qx_node *dq);
/* MatMul of x by the matrices table[experts, a, b] that the indices name; SCALE and ZERO: the table is of codes */
qx_cpu_fn qx_cpu_experts;
enum { QX_EXPERTS_X, QX_EXPERTS_INDEX, QX_EXPERTS_TABLE, QX_EXPERTS_SCALE, QX_EXPERTS_ZERO, QX_EXPERTS_INPUTS };
typedef struct qx_experts_params {
    bool left, nd;
    /* the matrices are the left operands; indices as GatherND has them */ qx_rows_dq_params dq;
} qx_experts_params;
qx_cpu_fn qx_cpu_rope;   /* inputs x, cos, sin of whole heads: x cos + (-x_high, x_low) sin -> [batch, heads, seq, d] */
typedef struct qx_rope_params { bool bshd; /* x is [batch, seq, heads, d] */ } qx_rope_params;
qx_cpu_fn qx_cpu_glu;    /* input x[.., 2n]: act(one half) * the other -> [.., n] */
typedef struct qx_glu_params { qx_act act; bool upper; /* the second half is activated */ } qx_glu_params;
typedef struct qx_attn_params {
    float scale;
    qx_k_layout k_layout;
    bool q_bshd, v_bshd, out_bshd;
    float p_scale;
    qx_dtype p_codes;
    int32_t p_zero; /* p_scale > 0: probabilities become codes (on devices only) */
    float k_zero, v_zero; /* of keys and values that are codes: those that inputs QX_ATTN_K_SCALE and _V_SCALE are given for */
} qx_attn_params;
enum { QX_ATTN_Q, QX_ATTN_K, QX_ATTN_V, QX_ATTN_MASK, QX_ATTN_K_SCALE, QX_ATTN_V_SCALE, QX_ATTN_INPUTS };

#endif
