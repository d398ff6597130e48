/* solve.h - weight solvers that need only W[rows, k] and H = X'X [k, k]: factorisation, GPTQ, SparseGPT, 2:4 masks, refinement, low rank,
 * Hadamard. Given the factor, rows are independent of each other: a caller hands out tiles of rows (16 to 128 at a time) to any threads and
 * gets the same bits. Nothing allocates: scratch is the caller's (aligned for double), its size in bytes comes from a function.
 *
 * Everything minimises  tr(dW H dW')  for dW = W - W_new, the squared error of the layer's output over the calibration rows. */
#ifndef QX_KERNELS_SOLVE_SOLVE_H
#define QX_KERNELS_SOLVE_SOLVE_H

#include "kernels/matmul.h"
#include "kernels/quant.h"
#include "kernels/search.h"

/* ---- linear algebra ---- */

/* In place lower Cholesky A = L L' of the lower triangle of a[n, n] (row stride n); the upper triangle is not read and holds garbage
 * afterwards. Returns -1, or the column whose pivot was not positive (a is then half done). mm NULL: qx_matmul_f32. */
int64_t qx_cholesky(float *a, int64_t n, qx_matmul_fn *mm, void *user);
/* In place inverse of a lower triangular matrix (upper triangle not read; zeroed). scratch: 128 * n floats. */
void qx_lower_inverse(float *l, int64_t n, float *scratch, qx_matmul_fn *mm, void *user);

typedef struct qx_factor {
    const float *h; int64_t k;    /* [k, k] symmetric */
    const int32_t *perm;          /* order of the columns: position i is column perm[i]; NULL: as they are */
    double damp;                  /* fraction of the mean diagonal that is added to it: 0.01 */
    int retries;                  /* after a failed pivot: damping times 10, at most so often (3 when 0) */
    qx_matmul_fn *mm; void *user; /* may run on many threads; NULL: qx_matmul_f32 */
} qx_factor;
/* u[k, k] = upper triangular U with inv(H_perm + damping) = U' U (zero below the diagonal). Made without forming the inverse: the
 * Cholesky factor of H with both orders reversed is inv(U) reversed. Columns with H(i,i) = 0 (an input that is always 0) get a
 * diagonal of 1 and touch nothing. *damping is the absolute value that was added. false: H is not positive even with the last damping,
 * or not finite: the caller falls back to rounding and says so. Scratch: 128 * k floats. */
bool qx_factor_inverse(const qx_factor *f, float *u, float *scratch, double *damping);
/* Takes back what chance and the choice of samples put into H = sum of x x' over `rows` rows of k inputs that are not always 0:
 * every h(i,j), i != j, is multiplied by 1 - share with share = strength k / (strength k + rows). A solver lives on the directions
 * that are small in H, and of these rows / k rows a direction show little: inv(H) of independent rows is too large by 1 / (1 - k / rows)
 * (Marchenko and Pastur), and rows of one text are not independent, nor is the next text about the same. Without it a solver moves
 * errors into directions that merely happened not to occur. Returns the share; 0 with strength 0, and then H is as it was. */
double qx_shrink_gram(float *h, int64_t k, double rows, double strength);
/* Order by falling diagonal of H, equal ones by index: "act order". perm[k]. */
void qx_order_by_diagonal(const float *h, int64_t k, int32_t *perm);

/* err[r] = dw_r H dw_r', r < rows; dw[rows][k]. Sums in double. scratch: rows * k floats. */
void qx_quad_errors(const float *dw, const float *h, int64_t rows, int64_t k, double *err, float *scratch, qx_matmul_fn *mm, void *user);

/* ---- GPTQ, SparseGPT ---- */

typedef struct qx_gptq {
    int64_t k;
    const float *u;            /* [k][k] from qx_factor_inverse, in the order of perm */
    const int32_t *perm;       /* the same as there, or NULL */
    qx_format format;          /* codes FLOAT: no rounding (pruning alone) */
    int64_t block;             /* columns (in their own order, not perm's) under one scale; 0: whole rows */
    bool zero_point;
    /* Scales: given in `scale` (and `zero`), or chosen when the solve reaches a block, on the compensated weights; then perm must
     * be NULL. */
    const qx_search *search;   /* chosen by search (its block and zero_point are ignored, its weight is [k]) */
    const qx_nvfp4 *nvfp4;     /* chosen by the NVFP4 rule, block 16; scale becomes value * global */
    bool keep_zeros;           /* weights that are 0 stay exactly 0 (mask of an earlier pruning) */
    const uint8_t *mask;       /* [rows][k] of this tile, 0: that weight becomes exactly 0; NULL: none */
    /* in each 4 columns the two with the smallest w^2 / U(j,j)^2 become 0 (of equals the later); a last group of fewer than 4
     * is kept. perm NULL */
    bool prune_2_4;
} qx_gptq;
/* Bytes of scratch for a tile of `rows` rows. */
size_t qx_gptq_scratch(const qx_gptq *g, int64_t rows);
/* w[rows][k] is replaced by its dequantized solution: for each column in order q = Q(w), e = (w - q) / U(j,j), and all later
 * columns get w -= e U(j, later). Rounding is that of qx_quantize, so quantizing the result with the same scales gives the codes.
 * scale, zero [rows][blocks]: read when given, written when chosen (zero may be NULL without zero_point). scale_code
 * [rows][k/16]: NVFP4's E4M3 codes (NULL unless nvfp4). loss[rows] (may be NULL): sum of e^2 = dw (H + damping) dw'. false:
 * format not supported or fields that contradict each other. */
bool qx_gptq_rows(const qx_gptq *g, float *w, int64_t rows, float *scale, int32_t *zero, uint8_t *scale_code, double *loss, void *scratch);

/* 2:4 by score |w| * norm[column] (norm NULL: magnitude; Wanda: sqrt of the mean square of the input): mask[rows][k], 1 keeps, two per
 * group of 4 columns; of equal scores the earlier is kept. A last group of fewer than 4 is kept. NaN counts as 0. */
void qx_mask_2_4(const float *w, int64_t rows, int64_t k, const float *norm, uint8_t *mask);

/* An order of columns for 2:4: perm[i] is the column that goes to place i, chosen so that of score[rows][k] (>= 0) little is lost
 * when the two smallest of each four of a row are pruned. k is a multiple of 4. Each sweep pairs all fours at random (by seed)
 * and divides each pair anew. Returns the share of the loss that stays, at most 1. */
double qx_permute_2_4(const float *score, int64_t rows, int64_t k, int sweeps, uint64_t seed, int32_t *perm, void *scratch);
size_t qx_permute_2_4_scratch(int64_t k, int64_t rows);

/* ---- refinement ---- */

typedef struct qx_refine {
    int64_t k;
    const float *h;            /* [k][k] */
    qx_format format;          /* codes FLOAT: no grid, each weight goes to its optimum */
    int64_t block;             /* 0: whole rows */
    float *scale;              /* [rows][blocks]; FLOAT: not looked at */
    float global;              /* of two levels: scale is this times what is stored; 0: 1 */
    const int32_t *zero;       /* NULL: 0 */
    const uint8_t *mask;       /* [rows][k], 0: stays 0; NULL: none */
    bool prune_2_4;            /* FLOAT only, no mask: which two of each four columns are kept is chosen anew, together with their values */
    int sweeps;                /* over the columns, at most; 0: 4 */
    bool rescale;              /* between two sweeps scales move to where, for the codes as they are, the error is least */
    qx_matmul_fn *mm; void *user; /* NULL: qx_matmul_f32 */
} qx_refine;
size_t qx_refine_scratch(const qx_refine *r, int64_t rows);
/* Coordinate descent: each weight in turn (prune_2_4: each four of a row together, over the six pairs that may be kept) moves to
 * what minimises (w0 - w) H (w0 - w)' with the others fixed, rounded to the grid; scales too, when asked. w0 is the float target,
 * w the solution so far (its values lie on the grid), both [rows][k]; w is improved in place, and scale with it. err[rows] (may
 * be NULL): the error afterwards, never larger than before. false: format not supported or fields that contradict each other. */
bool qx_refine_rows(const qx_refine *r, const float *w0, float *w, int64_t rows, double *err, void *scratch);

/* ---- low rank ---- */

/* Eigenvalues (falling) and vectors (columns of v) of a symmetric a[n, n] by cyclic Jacobi, in double; a is destroyed. */
void qx_jacobi_eigen(double *a, int64_t n, double *value, double *v);
/* iterations 0: 8 */
typedef struct qx_lowrank { int64_t n, k, rank; int iterations; uint64_t seed; qx_matmul_fn *mm; void *user; } qx_lowrank;
size_t qx_lowrank_scratch(const qx_lowrank *l);
/* w[n][k] ~ b[n][rank] a[rank][k], the best such product in the least-squares sense up to the convergence of subspace iteration (8 vectors
 * more than rank are iterated). b carries the singular values; rows of a are orthonormal. rank <= min(n, k). */
void qx_lowrank_solve(const qx_lowrank *l, const float *w, float *b, float *a, void *scratch);

/* ---- Hadamard ---- */

/* How a length n is rotated: n = groups * kron * pow2, each group of kron * pow2 by H_kron (x) H_pow2 / sqrt(kron * pow2). */
typedef struct qx_hadamard { int64_t n, kron, pow2; } qx_hadamard;
/* One rotation over all of n when n = 2^p, or kron * 2^p with a Hadamard matrix of size kron <= 256 that Paley's constructions
 * give; else (or when block > 0) blocks: of `block` elements, or of the largest power of two that divides n. false: block is no
 * power of two or does not divide n. */
bool qx_hadamard_plan(int64_t n, int64_t block, qx_hadamard *out);
/* x[rows][n] -> x H in place, with H = H' for pow2 and symmetric Paley matrices; `transpose` gives x H' (the inverse). */
void qx_hadamard_rows(const qx_hadamard *h, float *x, int64_t rows, bool transpose);

#endif
