/* kernels.h - what the device can compute: one launch function each, with its arguments as a plain struct. Pointers are device
 * memory (on the host: any memory). All are asynchronous in `queue` (a cudaStream_t) and return 0 or a cudaError_t. Sizes are
 * checked by the callers (runtime/cuda).
 *
 * Element types are TensorProto.DataType codes. "Real" arrays may be f32, f16, bf16, and are computed in f32 and rounded once.
 * Dims are collapsed by the caller: rank at most QK_RANK, strides in elements. */
#ifndef QX_KERNELS_CUDA_KERNELS_H
#define QX_KERNELS_CUDA_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void *qk_queue;
enum { QK_RANK = 8 };

/* y[i] = f(x[i]); op: qx_unary (kernels/pointwise.h). dtype real, or an integer type for ABS, NEG, SIGN, RELU. */
/* wide: set by qk_unary */
typedef struct qk_unary_args { const void *x; void *y; int64_t n; int32_t op, dtype; float p[2]; int32_t wide; } qk_unary_args;
int qk_unary(qk_queue q, const qk_unary_args *a);
/* Not (bool), BitwiseNot: y = x ^ flip by bytes. IsNaN, IsInf: kind 0 nan, bit 0 of kind 1..3: +Inf, bit 1: -Inf. */
typedef struct qk_flip_args { const void *x; void *y; int64_t n; int32_t flip; } qk_flip_args;
int qk_flip(qk_queue q, const qk_flip_args *a);
typedef struct qk_isnan_args { const void *x; void *y; int64_t n; int32_t dtype, kind; } qk_isnan_args;
int qk_isnan(qk_queue q, const qk_isnan_args *a);
/* y = clamp(x): NaN stays. lo, hi as float, or integers when the type is one. */
typedef struct qk_clip_args { const void *x; void *y; int64_t n; int32_t dtype; float lo, hi; int64_t ilo, ihi; } qk_clip_args;
int qk_clip(qk_queue q, const qk_clip_args *a);

/* y[i] = a[..] op b[..]; op: qx_binary. Strides 0 where an operand is broadcast. Comparisons write one byte an element. */
typedef struct qk_binary_args {
    const void *a, *b; void *y;
    int64_t n;
    int32_t rank, op, dtype, wide; /* wide: set by qk_binary */
    int64_t dims[QK_RANK], sa[QK_RANK], sb[QK_RANK];
} qk_binary_args;
int qk_binary(qk_queue q, const qk_binary_args *a);

/* Pointwise operations one behind the other on reals of one type: v = in[0], then v = f(v) (fn: qx_unary), or v = v op in[input]
 * (swapped: in[input] op v; fn: qx_binary), rounded to the type each time; y = v. in[0] and y are dense, the others broadcast by
 * strides. */
enum { QK_CHAIN = 8 };
typedef struct qk_chain_op { int32_t fn, binary, swapped, input; float p[2]; } qk_chain_op;
typedef struct qk_chain_args {
    const void *in[QK_CHAIN + 1]; void *y;
    int64_t n;
    int32_t rank, dtype, n_in, n_ops;
    int64_t dims[QK_RANK], strides[QK_CHAIN + 1][QK_RANK];
    qk_chain_op ops[QK_CHAIN];
} qk_chain_args;
int qk_chain(qk_queue q, const qk_chain_args *a);

/* y = c ? a : b on elements of `size` bytes. */
typedef struct qk_where_args {
    const void *c, *a, *b; void *y;
    int64_t n;
    int32_t rank, size;
    int64_t dims[QK_RANK], sc[QK_RANK], sa[QK_RANK], sb[QK_RANK];
} qk_where_args;
int qk_where(qk_queue q, const qk_where_args *a);

/* Cast as in runtime/cpu/pointwise/cast.c, all numeric types but f64 <-> 64-bit integers beyond 2^53 (not taken). */
/* wide: set by qk_cast */
typedef struct qk_cast_args { const void *x; void *y; int64_t n; int32_t from, to, saturate, wide; } qk_cast_args;
int qk_cast(qk_queue q, const qk_cast_args *a);

/* dst[d0 + sum i ds] = src[s0 + sum i ss]: Transpose, Slice, Split, Concat, Expand, and Pad's inside. size 1, 2, 4, 8 bytes. */
typedef struct qk_copy_args {
    const void *src; void *dst;
    int64_t n, s0, d0;
    int32_t rank, size;
    int64_t dims[QK_RANK], ss[QK_RANK], ds[QK_RANK];
} qk_copy_args;
int qk_copy(qk_queue q, const qk_copy_args *a);
/* [batch][rows][cols] -> [batch][cols][rows] through shared memory. width > 0: column c goes to place first + c / width * step +
 * c % width of out_cols: a picture inside of a larger one. flip: bytes are changed by it (size 1). */
typedef struct qk_turn_args {
    const void *src;
    void *dst;
    int64_t batch, rows, cols;
    int32_t size, flip;
    int64_t width, step, first, out_cols;
} qk_turn_args;
int qk_turn(qk_queue q, const qk_turn_args *a);
/* n elements of `size` bytes set to the low bytes of value. */
typedef struct qk_fill_args { void *dst; int64_t n; uint64_t value; int32_t size; } qk_fill_args;
int qk_fill(qk_queue q, const qk_fill_args *a);

/* Pad modes edge (1), reflect (2), wrap (3): source index per axis from the output index minus begin. */
typedef struct qk_pad_args {
    const void *src;
    void *dst;
    int64_t n;
    int32_t rank, size, mode;
    int64_t dims[QK_RANK], in[QK_RANK], begin[QK_RANK], ss[QK_RANK];
} qk_pad_args;
int qk_pad(qk_queue q, const qk_pad_args *a);

/* y[o, i, :] = x[o, idx[i], :] with rows of `inner` elements; negative indices count from the end. An index out of range sets
 * *bad to 1 and gives zeros. */
/* wide: int64 indices */
typedef struct qk_gather_args { const void *x, *idx; void *y; int32_t *bad; int64_t outer, d, count, inner; int32_t size, wide;
                                } qk_gather_args;
int qk_gather(qk_queue q, const qk_gather_args *a);
/* y[i] = x[.., idx[i], ..] along one axis; x strides ss, stride 0 for the axis itself, whose stride is `along`. */
typedef struct qk_gather_elements_args {
    const void *x, *idx; void *y; int32_t *bad;
    int64_t n, d, along;
    int32_t rank, size, wide;
    int64_t dims[QK_RANK], ss[QK_RANK];
} qk_gather_elements_args;
int qk_gather_elements(qk_queue q, const qk_gather_elements_args *a);
/* GatherND / ScatterND: rows of `inner` elements at idx[batch][tuple]; scatter writes data rows into y (which holds the input already). */
typedef struct qk_nd_args {
    const void *x, *idx; void *y; int32_t *bad;
    int64_t batch, per_batch, inner, x_batch; /* tuples of a batch; elements of a batch in the indexed tensor */
    int32_t depth, size, scatter;
    int64_t d[QK_RANK], stride[QK_RANK];
} qk_nd_args;
int qk_nd(qk_queue q, const qk_nd_args *a);

/* Softmax of rows with column stride `inner`: element k of row (o, i) lies at (o d + k) inner + i. log: LogSoftmax. */
typedef struct qk_softmax_args { const void *x; void *y; int64_t outer, d, inner; int32_t dtype, log; } qk_softmax_args;
int qk_softmax(qk_queue q, const qk_softmax_args *a);
/* Rows of d: y = (x - mean) / sqrt(var + eps) * gamma + beta; rms: y = x / sqrt(mean(x^2) + eps) * gamma. skip: added to x first,
 * with bias[d]; the sum goes to `sum` when not NULL. Parameters have type `ptype`. */
typedef struct qk_norm_args {
    const void *x, *skip, *bias, *gamma, *beta; void *y, *sum; float *mean, *inv;
    int64_t rows, d;
    int32_t dtype, ptype, rms;
    float eps;
} qk_norm_args;
int qk_norm(qk_queue q, const qk_norm_args *a);
/* One block a group: n elements from g n on, channels of `inner` elements; gamma, beta by channel (g channels/groups + k); silu
 * behind. NHWC = 0. */
typedef struct qk_group_norm_args {
    const void *x, *gamma, *beta;
    void *y;
    int64_t groups_total, groups, channels, inner;
    int32_t dtype, ptype, silu;
    float eps;
} qk_group_norm_args;
int qk_group_norm(qk_queue q, const qk_group_norm_args *a);
/* Reduce over `mid` axes: x viewed as [outer][d][inner]. op: qx_reduce (kernels/rows.h). dtype real or an integer type (SUM MAX
 * MIN PROD). */
typedef struct qk_reduce_args { const void *x; void *y; int64_t outer, d, inner; int32_t dtype, op; } qk_reduce_args;
int qk_reduce(qk_queue q, const qk_reduce_args *a);
/* Index of the largest or smallest of d; first or last of equals; int64 out. */
typedef struct qk_arg_args { const void *x; int64_t *y; int64_t outer, d, inner; int32_t dtype, min, last; } qk_arg_args;
int qk_arg(qk_queue q, const qk_arg_args *a);
/* Running sum along d. */
typedef struct qk_cumsum_args { const void *x; void *y; int64_t outer, d, inner; int32_t dtype, exclusive, reverse; } qk_cumsum_args;
int qk_cumsum(qk_queue q, const qk_cumsum_args *a);

/* RoPE: x [batch, heads, seq, d] by strides; tables cos, sin [.., half] with a stride by position; positions may be NULL (row s
 * of batch b is then at position b * pos_batch + s). rot: rotated width (even); the rest is copied. */
typedef struct qk_rope_args {
    const void *x, *cos, *sin; const int64_t *pos; void *y;
    int64_t batch, heads, seq, d, rot, max_pos;
    int64_t sb, sh, ss;          /* strides of x and y */
    int64_t pos_batch, pos_seq;  /* position of (b, s): pos[b * pos_batch + s * pos_seq] + (pos_add ? s : 0) */
    int64_t table_batch;         /* without pos: cos row of (b, s) is b * table_batch + s */
    int32_t dtype, ttype, interleaved, pos_add;
    int32_t *bad;
} qk_rope_args;
int qk_rope(qk_queue q, const qk_rope_args *a);

/* y = x cos + (-x_high, x_low) sin: x, cos, sin as [batch, heads, seq, d] by strides (0: shared), y dense. */
typedef struct qk_rotate_args {
    const void *x, *cos, *sin;
    void *y;
    int64_t heads, seq, d, n;
    int64_t sx[3], sc[3], ss[3];
    int32_t dtype, ttype;
} qk_rotate_args;
int qk_rotate(qk_queue q, const qk_rotate_args *a);
/* Rows of 2 d: y[r][i] = act(one half) * the other; upper: the second half is activated. */
/* wide: set by qk_glu */
typedef struct qk_glu_args { const void *x; void *y; int64_t rows, d; int32_t dtype, act, upper, wide; } qk_glu_args;
int qk_glu(qk_queue q, const qk_glu_args *a);

/* Resize of [n, c, in...] over the last 1 to 3 axes. For output index o of axis k two source indices and the weight of the
 * second, made by the host. */
typedef struct qk_resize_args {
    const void *x; void *y;
    int64_t planes, in[3], out[3];
    const int32_t *i0[3], *i1[3]; const float *w[3]; /* [out[k]]; w NULL: nearest */
    int32_t dtype, size;
} qk_resize_args;
int qk_resize(qk_queue q, const qk_resize_args *a);

/* Quantize: codes[i] = to_code(x / s + z), z of integers `missing` where there is no array of zero points. Scale index of element
 * (o, k, i) of [outer][d][inner]: per tensor 0; per axis k; blocked (o blocks + k / block) inner + i. */
typedef struct qk_quant_args {
    const void *x, *scale, *zero; void *y;
    int64_t outer, d, inner, block, blocks;
    int32_t kind;             /* 0 per tensor, 1 per axis, 2 blocked */
    int32_t dtype, codes, stype, saturate, missing, wide; /* wide: set by qk_quantize */
} qk_quant_args;
int qk_quantize(qk_queue q, const qk_quant_args *a);
int qk_dequantize(qk_queue q, const qk_quant_args *a); /* x: codes (also int32); y: dtype */
/* Range of n reals into out[2] = min(0, x), max(0, x), for DynamicQuantizeLinear; then y = codes, scale and zero point. */
/* part: [512] */
typedef struct qk_dynamic_args { const void *x; uint8_t *y; float *scale; uint8_t *zero; float *part; int64_t n; int32_t dtype;
                                 } qk_dynamic_args;
int qk_dynamic_quant(qk_queue q, const qk_dynamic_args *a);

/* y[b] = act(alpha x[b] w[b] + bias + beta add) * mul + plus: any strides, f32 sums in order of k. Batch strides by index: up to 4 axes. */
typedef struct qk_gemm_args {
    const void *x, *w, *bias, *add, *mul, *plus; void *y; /* add: Gemm's C by its strides; mul, plus: as y, dense */
    int64_t m, n, k, batch;
    int64_t xr, xc, wr, wc, yr, yc;        /* row and column strides */
    int32_t brank; int64_t bdims[4], bx[4], bw[4], by;
    int64_t add_r, add_c;
    int32_t dtype, wtype, ytype, btype, act;   /* types of x, w, y, bias/add; act: qx_act of runtime/cpu/matmul/gemm.h */
    float alpha, beta;
    const float *col_scale; int32_t col_one; /* a factor a column in f32, or one for all; NULL: none */
} qk_gemm_args;
int qk_gemm(qk_queue q, const qk_gemm_args *a);

/* y[m, n] = act(x[m, k] dequantized(w) + bias): codes of 2, 4 or 8 bits, packed flat. nk: codes are [n, k]. Scale and zero by
 * block along k. */
typedef struct qk_codes_args {
    const void *x, *codes, *scale, *zero, *bias; void *y;
    int64_t m, n, k, block, blocks;        /* block 0: one scale a column (per_col) or one */
    int64_t row_bytes;                     /* nk: bytes of a row of codes when rows are padded to whole blocks; 0: packed flat */
    int64_t s_n, s_k;                      /* scale index of (column, block): column s_n + block s_k; the same for zeros in elements */
    int64_t z_row_bits;                    /* packed zero points of MatMulNBits: bits of a row, 0: like the scales in elements of ctype */
    int32_t dtype, stype, btype, ctype, nk, act;
    int32_t bias_zero;                     /* value of a missing zero point */
} qk_codes_args;
int qk_codes_linear(qk_queue q, const qk_codes_args *a);
int qk_codes_expand(qk_queue q, const qk_codes_args *a); /* y[n, k] = the weight as numbers of dtype; m and bias are not looked at */
/* y[count, k] of dtype: the weight's rows at idx (nk; wide: int64), from the end when negative. One out of range sets *bad to 1
 * and gives zeros. */
typedef struct qk_codes_rows_args { qk_codes_args w; const void *idx; int32_t *bad; int64_t count; int32_t wide; } qk_codes_rows_args;
int qk_codes_rows(qk_queue q, const qk_codes_rows_args *a);
/* y[n, k] = codes [k, n], packed flat as they were; only y, codes, n, k and ctype are looked at */
int qk_codes_turn(qk_queue q, const qk_codes_args *a);

/* Integer product of codes with a scale: y[b][m, n] = (x[b] - zx)[m, k] (w[b] - zw)[.., n] * rows[m] sw[n] + bias[n]. w [n, k] or
 * [k, n] by strides; batches as in qk_gemm_args. sw NULL: y is the INT32 sums. Zero points that are known on the device only:
 * x_zero, w_zero, codes as those of x and w, that of row m (column n) at m % x_zeros (n % w_zeros); NULL: zx, and 0. rows NULL:
 * 1. */
typedef struct qk_int8_args {
    const void *x, *w, *bias, *x_zero, *w_zero; const float *sw, *rows; void *y;
    int64_t m, n, k, batch, wr, wc, yr, yc, x_zeros, w_zeros;
    int32_t brank; int64_t bdims[4], bx[4], bw[4], by;
    int32_t x_unsigned, w_unsigned, zx, ytype, btype, sw_one;
} qk_int8_args;
int qk_int8_gemm(qk_queue q, const qk_int8_args *a);

/* y = (acc - zx sums[n]) * rows[m] * scale[n] + bias[n]: behind a library's product of codes. whole: acc is int32, else f32. sums
 * NULL: zx is 0. rows NULL: 1. x_zero: a code on the device that zx is added to (x_unsigned: UINT8). scale NULL: y is what stands
 * in brackets, in INT32; it may be acc. */
typedef struct qk_scale_args {
    const void *acc; const int32_t *sums; const float *scale, *rows; const void *bias, *x_zero; void *y;
    int64_t m, n;
    int32_t whole, zx, x_unsigned, one, ytype, btype, wide; /* wide: set by qk_scale_rows */
} qk_scale_args;
int qk_scale_rows(qk_queue q, const qk_scale_args *a);
/* sums[i] = sum of w[i][0 .. k) */
typedef struct qk_sums_args { const void *w; int32_t *sums; int64_t n, k; } qk_sums_args;
int qk_row_sums(qk_queue q, const qk_sums_args *a);

/* Attention: q [b, h, s, d], k [b, hk, t, d], v [b, hk, t, dv] by strides (0: shared batch); y by strides. h is a multiple of hk.
 * d, dv <= 256. mask (may be NULL) added, or (mtype bool) -Inf where 0. causal: key j <= row + offset. left: window, keys older
 * than left are out (-1: none). softcap 0: none. */
typedef struct qk_attn_view { const void *p; int64_t b, h, s, d; } qk_attn_view; /* strides of batch, head, row, column */
typedef struct qk_attn_args {
    qk_attn_view q, k, v, mask; void *y;
    int64_t yb, yh, ys;
    int64_t batch, heads, kv_heads, rows, keys, dk, dv;
    const void *sink; int32_t stype;  /* [heads] of stype: one more score that takes part in the sum only; NULL: none */
    const int32_t *lengths, *offsets; /* by batch: keys that count, and the causal offset; NULL: all keys, `offset` */
    int64_t offset, left;
    int32_t dtype, mtype, causal;
    float scale, softcap;
    /* > 0: probabilities become codes of p_codes (I8, U8, E4M3) with this scale and zero point; the keys are walked twice
     * then, first for the sums; no sink */
    float p_scale;
    int32_t p_codes, p_zero;
    /* f16, bf16: keys shared out over so many blocks; part: [splits][batch heads rows][dv + 2], not looked at for 1 */
    float *part; int32_t splits;
    int32_t whole;                    /* set by qk_attention */
} qk_attn_args;
int qk_attention_splits(const qk_attn_args *a); /* how many are worth it */
int qk_attention(qk_queue q, const qk_attn_args *a);

/* GroupQueryAttention's lengths by batch entry: keys in all (seq + 1), keys before the new ones (0 for a prompt: rows == total),
 * the latter once more in 64 bits. What does not fit caches of past_cap and cap rows sets *bad and counts as a prompt. */
typedef struct qk_lengths_args {
    const void *seq, *total;
    int32_t *lengths, *offsets;
    int64_t *starts;
    int32_t *bad;
    int64_t batch, rows, past_cap, cap;
    int32_t stype, ttype;
} qk_lengths_args;
int qk_cache_lengths(qk_queue q, const qk_lengths_args *a);
/* cache [batch, heads, cap, d] = past [batch, heads, past_cap, d] with the new rows from starts[b] on, zeros behind them.
 * New rows by strides of batch, row, head. codes I8, E4M3, U4 (two a byte, plus 8; d a multiple of 8): the caches hold codes of
 * scale [1] or [heads, d], and values (of dtype) gets what they stand for. codes 0: dtype. */
typedef struct qk_cache_args {
    const void *past, *fresh, *scale; void *cache, *values; const int64_t *starts;
    int64_t batch, heads, rows, past_cap, cap, d, fb, fs, fh;
    int32_t dtype, codes, stype, per_channel, wide; /* wide: set by qk_cache_fill */
} qk_cache_args;
int qk_cache_fill(qk_queue q, const qk_cache_args *a);

/* Columns of a convolution: col[n][out pixels][c kh kw of a group], c slowest, or the input pixel patch in NCHW. */
typedef struct qk_im2col_args {
    const void *x, *zero_at; void *y; /* zero_at: a code of a byte on the device, in place of `zero`; NULL: none */
    int64_t batch, channels, first_channel, group_channels;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], begin[3];
    int32_t spatial, size, zero;  /* zero: code outside of the picture */
} qk_im2col_args;
int qk_im2col(qk_queue q, const qk_im2col_args *a);
/* y = act(x + bias[n]) * mul + plus: what stands behind a library's product. y may be x. */
typedef struct qk_bias_rows_args {
    const void *x, *bias, *mul, *plus;
    void *y;
    int64_t rows, n;
    int32_t dtype, btype, act;
} qk_bias_rows_args;
int qk_bias_act(qk_queue q, const qk_bias_rows_args *a);

/* Observers (results in device memory of the caller). Partial results of the blocks are folded by the host in order. */
typedef struct qk_scan_part { float min, max, absmax; int64_t zeros, nonfinite; double sum[2], abs[2], sq[2]; } qk_scan_part;
/* wide: set by qk_scan */
typedef struct qk_scan_args { const void *x; qk_scan_part *parts; int64_t n; int32_t dtype, n_parts, wide; } qk_scan_args;
int qk_scan(qk_queue q, const qk_scan_args *a);
/* bins[4096] += counts of |x| / 2^*exp, which is chosen by the parts of a scan before: the smallest with absmax < 4096 * 2^exp,
 * at least -120. What is not finite is not counted. */
typedef struct qk_hist_args {
    const void *x;
    const qk_scan_part *parts;
    uint32_t *bins;
    int32_t *exp;
    int64_t n;
    int32_t dtype, n_parts;
} qk_hist_args;
int qk_histogram(qk_queue q, const qk_hist_args *a);
typedef struct qk_columns_args {
    const void *x;
    float *min, *max;
    double *sum, *abs, *sq;
    int64_t outer, channels, inner;
    int32_t dtype;
} qk_columns_args;
int qk_columns(qk_queue q, const qk_columns_args *a);
/* gram[k, k] += X'X of rows [rows, k], at and above the diagonal (tiles that lie on it whole). dtype real. */
typedef struct qk_gram_args { const void *x; double *gram; int64_t rows, k; int32_t dtype, wide; } qk_gram_args; /* wide: set by qk_gram */
int qk_gram(qk_queue q, const qk_gram_args *a);

/* 2:4 sparse weights. compress: w[n, k] (f16, int8 or E4M3; N a multiple of 16, K of 32 (f16) or 64) with two non-zeros of four
 * becomes values[n, k/2] and metadata, in the order that qk_sparse_gemm reads. *bad: rows that are not 2:4. */
typedef struct qk_compress_args {
    const void *w;
    void *values;
    uint32_t *meta;
    int32_t *bad;
    int64_t n, k;
    int32_t dtype;
} qk_compress_args;
int qk_sparse_compress(qk_queue q, const qk_compress_args *a);
/* y[m, n] = x[m, k] w'[n, k] with f32 (f16, E4M3: sm_89 and later) or s32 (int8) sums, scaled by alpha. x, values aligned to 16
 * bytes; y: f16, f32, or s32 for int8. */
typedef struct qk_sparse_args {
    const void *x, *values, *bias;
    const uint32_t *meta;
    void *y;
    int64_t m, n, k;
    int32_t dtype, ytype;
    float alpha;
} qk_sparse_args;
int qk_sparse_gemm(qk_queue q, const qk_sparse_args *a);

#ifdef __cplusplus
}
#endif
#endif
