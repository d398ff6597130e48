/* lib.h - what the vendor's libraries do: products by cuBLASLt, convolutions and attention by cuDNN. Each asks the library
 * whether it has an engine for exactly this problem when the step is compiled; *taken false: it has none (or this is the host
 * build, lib_none.c), cu_refused() has its answer, and the caller's own kernel does it. */
#ifndef QX_RUNTIME_CUDA_LIB_H
#define QX_RUNTIME_CUDA_LIB_H

#include "runtime/cuda/node.h"

qx_status cu_lib_open(qx_dev *d);
void cu_lib_close(qx_dev *d);

/* y[b] = alpha x[b] w[b] + bias (+ add, as y: has_add), all row-major: x [m, k], w [k, n] (or [n, k]: w_nk), y [m, n]; batch
 * strides in elements, 0: shared. type: of x and w; INT8: y is INT32 and w_nk. E4M3, E5M2: w_nk, and device pointers to the
 * scales (f32) of x and w. bias [n] of the type of y (f16 for 8-bit floats), or NULL. */
/* How 8-bit floats are scaled: one scale each; a scale a row of x and a row of w; one for each 128 elements along k of both, [k /
 * 128][row]. */
enum { CU_SCALE_ONE, CU_SCALE_ROWS, CU_SCALE_BLOCKS, CU_SCALE_BLOCK = 128 };
typedef struct cu_product {
    int type, ytype;
    int64_t m, n, k, batch, bx, bw, by;
    bool w_nk, x_km, has_bias, has_add; /* x_km: x is stored [k, m] */
    float alpha;
    int scale_mode;                /* 8-bit floats: CU_SCALE_ONE, ... */
} cu_product;
typedef struct cu_product_plan cu_product_plan;
qx_status cu_product_new(qx_dev *d, const cu_product *p, cu_product_plan **out, size_t *workspace, bool *taken);
typedef struct cu_product_data { const void *x, *w, *bias, *add; void *y; const float *sx, *sw; void *ws; } cu_product_data;
/* *done false: every algorithm that was offered refuses to start: as if it had never been taken. */
qx_status cu_product_run(qx_dev *d, cu_product_plan *p, const cu_product_data *a, bool *done);
void cu_product_free(qx_dev *d, void *plan);

/* y = conv(x, w) * scale + bias, in NCHW memory, or with the channels innermost (`last`: x, w, y). type: f32, f16, bf16 (no
 * scale); E4M3 with scale [out_ch] in f32; INT8 with INT32 sums and nothing behind them, or with a scale like that. bias [out_ch]
 * of ytype, of INT8 in f32. */
typedef struct cu_conv {
    int32_t type, ytype, spatial, last, has_scale, has_bias;
    int64_t batch, in_ch, out_ch, group, in[3], out[3], kernel[3], stride[3], dilation[3], begin[3], end[3];
} cu_conv;
typedef struct cu_engine cu_engine; /* of cuDNN; steps with the same problem share one */
void cu_engine_free(qx_dev *d, void *engine);
qx_status cu_conv_new(qx_dev *d, const cu_conv *c, cu_engine **out, size_t *workspace, bool *taken);
typedef struct cu_conv_data { const void *x, *w, *bias; const float *scale; void *y, *ws; } cu_conv_data;
qx_status cu_conv_run(qx_dev *d, const cu_engine *e, const cu_conv_data *a);

/* conv_lib.c: a step that is a convolution by the library, of NCHW values. type INT8: x may be unsigned codes (flip: made signed
 * by their top bit; zero is that of the signed codes). scale on the device, for codes: of sums, one or [out_ch]. *taken false:
 * the library has no engine, the step is not made. */
/* x, w, bias: input numbers, bias 0: none */
typedef struct cu_lib_conv { cu_conv c; uint32_t x, w, bias; const float *scale; bool one, flip; int32_t zero; } cu_lib_conv;
qx_status cu_conv_by_library(cu_build *b, cu_lib_conv *q, bool *taken);

/* o = softmax(scale q k') v; f16 or bf16, no mask; strides as in qk_attn_view. */
typedef struct cu_sdpa {
    int32_t type;
    float scale;
    int64_t batch, heads, kv_heads, rows, keys, d, dv;
    int64_t q[4], k[4], v[4], o[4];
} cu_sdpa;
qx_status cu_sdpa_new(qx_dev *d, const cu_sdpa *s, cu_engine **out, size_t *workspace, bool *taken);
/* as for products */
qx_status cu_sdpa_run(qx_dev *d, const cu_engine *e, const void *q, const void *k, const void *v, void *o, void *ws, bool *done);

/* attention.c: our own kernel: how many blocks share the keys of a row, and the memory for their parts. */
enum { CU_MOST_HEAD = 256 };
size_t cu_own_attention(cu_build *b, qk_attn_args *a);

/* matmul.c: m, n, k, strides and batches of the product of inputs 0 and 1, of any types; what stands behind it is left at nothing. */
qx_status cu_product_dims(const cu_build *b, bool ta, bool tb, qk_gemm_args *g);

/* lowp.c: products of codes, and what the convolution of codes shares with them: inputs wanted on the host, scales of x and w as
 * one, zero point of x. */
qx_status cu_codes_place(const cu_build *b);
qx_status cu_codes_scales(cu_build *b, int64_t n, const float **out, bool *one, float *sx);
int cu_codes_zero(const cu_build *b);
qx_status cu_codes_product(cu_build *b, bool fp8);
/* blocks.c: E4M3 with a weight that is scaled by blocks along k. */
qx_status cu_blocks_product(cu_build *b);

/* sparse.c: the 2:4 form of constant input `input`, W[n, k] (nk) or [k, n], when it was asked for (QX_DEV_SPARSE), is one and a
 * kernel takes it: the step keeps it, and weight, dims and dtype are set in *out. Else *out stays as it is (values NULL). */
qx_status cu_sparse_weight(cu_build *b, uint32_t input, int64_t n, int64_t k, bool nk, qk_sparse_args *out);

/* observe.c: the observers of the interface. */
qx_dev_status cu_observe_look(qx_dev *d, const qx_dev_tensor *t, const qx_dev_look *what);
qx_dev_status cu_observe_gather(qx_dev *d, qx_dev_seen *out, int64_t n);
qx_dev_status cu_observe_gram_add(qx_dev *d, const qx_dev_tensor *t, int64_t rows, int64_t k, qx_dev_gram **g);
qx_dev_status cu_observe_gram_take(qx_dev *d, qx_dev_gram *g, double *gram);
void cu_observe_close(qx_dev *d);

#endif
