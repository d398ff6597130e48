/* gemm.c - see gemm.h. A tile of rows by a panel stays in registers while k runs: 14 x 32 with AVX-512 (28 of 32 registers are
 * sums), 6 x 16 twice with AVX2, plain C elsewhere. Rows are cut into tiles of even height, so that no count of rows is a bad
 * one. What is far away is fetched meanwhile: the part of y that the next tile goes on with, whose rows lie in other pages, and
 * the next panel. Fused multiply-add needs intrinsics: the build forbids the compiler to fuse by itself. */
#include "kernels/gemm.h"

#include <string.h>

#include "kernels/quant.h"


#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { NR = QX_GEMM_NR, MOST = 14 /* rows of the highest tile */,
       STEP = 8 /* rows of a panel for one row of y and one of the next panel that are fetched */, AHEAD = 512 /* floats */,
       LOOSE_COLS = 8 * NR, LOOSE_K = 256 /* a tile of such rows stays in the first cache as it lies */, LOOSE_ROWS = 4 * QX_GEMM_ROWS };

/* ---- One tile ---- */

/* Rows of y, y = start + x W: element i of row r of x is a[r * lda + i * ca], or of packed rows a[i * rows + r]. */
typedef struct tile {
    int64_t k;
    const float *a; int64_t lda, ca;
    const float *b; int64_t step;         /* the panel, and how far the next is from it (few rows take two at once) */
    const float *start; int64_t ld_start; /* 0: all rows begin with the same numbers */
    float *y; int64_t ldy;
    const float *next_y, *next_b;         /* fetched meanwhile */
    int64_t also;                         /* not 0: and what lies so far behind next_b */
} tile;

typedef void tile_fn(const tile *t, int rows);

/* Up to 16 lines put side by side: dst[i * ld + r] = x[r * ldx + i * cx]. Rows of x into a tile, columns of W into half a panel. */
typedef struct lines { const float *x; int64_t ldx, cx; int count; int64_t k; } lines;
typedef void copy_fn(const lines *l, float *dst, int64_t ld);

/* The tiles of one instruction set: of at most `most` rows, packed or as they lie, by a panel or its left half at least; of a few
 * rows, by `few_panels` panels. copy: lines with ldx 1. */
typedef struct leaf { int most, few_panels; tile_fn *packed[2], *loose[2], *few; copy_fn *copy; } leaf;

static void copy_plain(const lines *l, float *dst, int64_t ld)
{
    for (int64_t i = 0; i < l->k; i++)
        for (int r = 0; r < l->count; r++) dst[i * ld + r] = l->x[r * l->ldx + i * l->cx];
}

static void put_lines(const leaf *f, const lines *l, float *dst, int64_t ld)
{
    if (l->cx == 1) (void)qx_transpose(sizeof *dst, l->count, l->k, l->x, l->ldx, dst, ld);
    else (l->ldx == 1 ? f->copy : copy_plain)(l, dst, ld);
}

static void tile_strided(const tile *t, int rows)
{
    for (int r = 0; r < rows; r++) {
        const float *a = t->a + r * t->lda, *b = t->b, *start = t->start + r * t->ld_start;
        float sum[NR];
        for (int j = 0; j < NR; j++) sum[j] = start[j];
        for (int64_t i = 0; i < t->k; i++, b += NR)
            for (int j = 0; j < NR; j++) sum[j] += a[i * t->ca] * b[j];
        memcpy(t->y + r * t->ldy, sum, sizeof sum);
    }
}

static void tile_plain(const tile *t, int rows)
{
    tile packed = *t;
    packed.lda = 1;
    packed.ca = rows;
    tile_strided(&packed, rows);
}

#if defined(__x86_64__)
/* Rows that are packed, rows as they lie, and a few rows by panels that come from memory, whose latency one core's own fetching
 * does not cover (13 GB/s; 16 with it). */
typedef enum kind { PACKED, LOOSE, FAR } kind;

/* rows, vectors (of a row) and `of` are constants where this is called, so that the loops over them unroll and s stays in registers. */
#define UNROLL _Pragma("GCC unroll 14") /* or s would lie in memory */
#define TILE(isa, TARGET, V, W, LOAD, SET1, FMA, STORE)                                                                     \
    TARGET static inline __attribute__((always_inline)) void tile_##isa(const tile *t, const int rows, const int vectors, const kind of) \
    {                                                                                                                  \
        const float *a = t->a, *b = t->b, *next_y = t->next_y, *next_b = t->next_b;                                    \
        const int64_t lda = of == PACKED ? 1 : t->lda, ca = of == PACKED ? rows : t->ca;                                           \
        const int64_t step = t->step, ldy = t->ldy, also = t->also;                                                    \
        const float *third[5]; /* every third row: the two behind it are reached by the addressing of one instruction */ \
        for (int r = 0; r < 5; r++) third[r] = a + 3 * r * lda;                                                        \
        V s[MOST][4];                                                                                                  \
        UNROLL                                                                                                         \
        for (int r = 0; r < rows; r++)                                                                                 \
            UNROLL                                                                                                     \
            for (int v = 0; v < vectors; v++) s[r][v] = LOAD(t->start + r * t->ld_start + v * W);                   \
        for (int64_t left = t->k; left > 0; left -= STEP) {                                                            \
            if (of != FAR) {                                                                                           \
                for (int v = 0; v < 2 * W; v += 16) {                                                                  \
                    __builtin_prefetch(next_y + v, 0, 3);                                                              \
                    __builtin_prefetch(next_b + v, 0, 2);                                                              \
                }                                                                                                      \
                for (int v = 0; also && v < 2 * W; v += 16) __builtin_prefetch(next_b + also + v, 0, 2);              \
                next_y += ldy, next_b += NR;                                                                           \
            }                                                                                                          \
            for (int64_t i = left < STEP ? left : STEP; i > 0; i--, a += ca, b += NR) {                                \
                V w[4];                                                                                                \
                UNROLL                                                                                                 \
                for (int v = 0; v < vectors; v++) w[v] = LOAD(b + v / 2 * step + v % 2 * W);                        \
                for (int v = 0; of == FAR && v < vectors * W; v += 16) __builtin_prefetch(b + v / 32 * step + v % 32 + AHEAD, 0, 2); \
                UNROLL                                                                                                 \
                for (int r = 0; r < rows; r++) {                                                                       \
                    const V x = SET1(of == PACKED ? a[r] : third[r / 3][r % 3 * lda]);                                 \
                    UNROLL                                                                                             \
                    for (int v = 0; v < vectors; v++) s[r][v] = FMA(x, w[v], s[r][v]);                              \
                }                                                                                                      \
                for (int r = 0; of != PACKED && r < 5; r++) third[r] += ca;                                            \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL                                                                                                         \
        for (int r = 0; r < rows; r++)                                                                                 \
            UNROLL                                                                                                     \
            for (int v = 0; v < vectors; v++) STORE(t->y + r * ldy + v * W, s[r][v]);                               \
    }
TILE(avx512, QX_TARGET_AVX512, __m512, 16, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps)
TILE(avx2, QX_TARGET_AVX2, __m256, 8, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps)

#define UP_TO_6(tile, vectors, of)                                                                                           \
    case 6: tile(t, 6, vectors, of); break;                                                                             \
    case 5: tile(t, 5, vectors, of); break;                                                                             \
    case 4: tile(t, 4, vectors, of); break;                                                                             \
    case 3: tile(t, 3, vectors, of); break;                                                                             \
    case 2: tile(t, 2, vectors, of); break;                                                                             \
    default: tile(t, 1, vectors, of); break;
#define UP_TO_14(tile, vectors, of)                                                                                          \
    case 14: tile(t, 14, vectors, of); break;                                                                           \
    case 13: tile(t, 13, vectors, of); break;                                                                           \
    case 12: tile(t, 12, vectors, of); break;                                                                           \
    case 11: tile(t, 11, vectors, of); break;                                                                           \
    case 10: tile(t, 10, vectors, of); break;                                                                           \
    case 9: tile(t, 9, vectors, of); break;                                                                             \
    case 8: tile(t, 8, vectors, of); break;                                                                             \
    case 7: tile(t, 7, vectors, of); break;                                                                             \
    UP_TO_6(tile, vectors, of)

QX_TARGET_AVX512 static void packed_avx512(const tile *t, int rows) { switch (rows) { UP_TO_14(tile_avx512, 2, PACKED) } }
QX_TARGET_AVX512 static void loose_avx512(const tile *t, int rows) { switch (rows) { UP_TO_14(tile_avx512, 2, LOOSE) } }
QX_TARGET_AVX512 static void packed_half_avx512(const tile *t, int rows) { switch (rows) { UP_TO_14(tile_avx512, 1, PACKED) } }
QX_TARGET_AVX512 static void loose_half_avx512(const tile *t, int rows) { switch (rows) { UP_TO_14(tile_avx512, 1, LOOSE) } }
QX_TARGET_AVX512 static void pair_avx512(const tile *t, int rows) { switch (rows) { UP_TO_6(tile_avx512, 4, FAR) } }
QX_TARGET_AVX512 static void single_avx512(const tile *t, int rows) { switch (rows) { UP_TO_6(tile_avx512, 2, FAR) } }
static void few_avx512(const tile *t, int rows) { (t->step ? pair_avx512 : single_avx512)(t, rows); }

QX_TARGET_AVX2 static void packed_16_avx2(const tile *t, int rows) { switch (rows) { UP_TO_6(tile_avx2, 2, PACKED) } }
QX_TARGET_AVX2 static void loose_16_avx2(const tile *t, int rows) { switch (rows) { UP_TO_6(tile_avx2, 2, LOOSE) } }
QX_TARGET_AVX2 static void few_16_avx2(const tile *t, int rows) { switch (rows) { UP_TO_6(tile_avx2, 2, FAR) } }

/* The two halves of a panel. */
static void halves(tile_fn *fn, const tile *t, int rows)
{
    tile right = *t;
    right.b += 16, right.start += 16, right.y += 16, right.next_y += 16, right.next_b += 16;
    fn(t, rows);
    fn(&right, rows);
}
static void packed_avx2(const tile *t, int rows) { halves(packed_16_avx2, t, rows); }
static void loose_avx2(const tile *t, int rows) { halves(loose_16_avx2, t, rows); }
static void few_avx2(const tile *t, int rows) { halves(few_16_avx2, t, rows); }

/* Lines that lie side by side. */
QX_TARGET_AVX512 static void copy_avx512(const lines *l, float *dst, int64_t ld)
{
    const __mmask16 keep = (__mmask16)((1u << l->count) - 1);
    for (int64_t i = 0; i < l->k; i++) _mm512_mask_storeu_ps(dst + i * ld, keep, _mm512_maskz_loadu_ps(keep, l->x + i * l->cx));
}
#endif

static const leaf *leaf_of(qx_isa isa)
{
    static const leaf plain = {4, 1, {tile_plain, tile_plain}, {tile_strided, tile_strided}, tile_strided, copy_plain};
#if defined(__x86_64__)
    static const leaf avx512 = {MOST, 2, {packed_avx512, packed_half_avx512}, {loose_avx512, loose_half_avx512}, few_avx512, copy_avx512},
        avx2 = {6, 1, {packed_avx2, packed_16_avx2}, {loose_avx2, loose_16_avx2}, few_avx2, copy_plain};
    if (isa == QX_ISA_AVX512) return &avx512;
    if (isa == QX_ISA_AVX2) return &avx2;
#endif
    (void)isa;
    return &plain;
}

static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- Panels ---- */

int64_t qx_gemm_packed_size(int64_t k, int64_t n) { return (n + NR - 1) / NR * NR * k; }

/* Rows of W lie in other pages: the next panel's part of them is fetched as well, to be there when its turn comes. */
static void copy_rows(const float *w, int64_t k, int64_t row, int64_t cols, float *dst)
{
    for (int64_t i = 0; i < k; i++, w += row, dst += NR) {
        __builtin_prefetch(w + NR, 0, 2);
        __builtin_prefetch(w + NR + 16, 0, 2);
        if (cols == NR) memcpy(dst, w, NR * sizeof *dst);
        else memcpy(dst, w, (size_t)cols * sizeof *dst);
    }
}

void qx_gemm_pack_panel(const float *w, int64_t k, int64_t n, int64_t row, int64_t col, int64_t p, float *dst)
{
    const int64_t first = p * NR, cols = at_most(NR, n - first);
    if (cols < NR) memset(dst, 0, (size_t)(k * NR) * sizeof *dst);
    if (col == 1) {
        copy_rows(w + first, k, row, cols, dst);
        return;
    }
    for (int64_t c = 0; c < cols; c += 16) {
        const lines l = {.x = w + (first + c) * col, .ldx = col, .cx = row, .count = (int)at_most(16, cols - c), .k = k};
        put_lines(leaf_of(qx_isa_best()), &l, dst + c, NR);
    }
}

/* ---- All tiles ---- */

/* Where the sums of row r and column c begin, in the first stretch of k: y, the bias or zero. */
static void set_start(const qx_sgemm *g, bool begun, int64_t r, int64_t c, tile *t)
{
    static const float zeros[2 * NR];
    const bool goes_on = begun || g->add;
    t->y = g->y + r * g->ldy + c;
    t->start = goes_on ? t->y : g->bias ? g->bias + c : zeros;
    t->ld_start = goes_on ? g->ldy : 0;
}

/* y[r * ldy + c] = x[r * ldx + c] */
static void move_rows(const leaf *l, const float *x, int64_t ldx, float *y, int64_t ldy, int rows, int64_t cols)
{
    for (int64_t c = 0; c < cols; c += 16)
        l->copy(&(lines){.x = x + c, .ldx = 1, .cx = ldx, .count = (int)at_most(16, cols - c), .k = rows}, y + c, ldy);
}

/* A tile of which only `cols` columns are there, by way of one that has all. */
static void narrow(const leaf *l, tile_fn *fn, const tile *t, int rows, int64_t cols)
{
    _Alignas(64) float room[MOST * NR] = {0};
    tile whole = *t;
    whole.step = 0;
    whole.start = whole.y = room;
    whole.ld_start = whole.ldy = NR;
    move_rows(l, t->start, t->ld_start, room, NR, rows, cols);
    fn(&whole, rows);
    move_rows(l, room, NR, t->y, t->ldy, rows, cols);
}

static void few_rows(const leaf *l, const qx_sgemm *g)
{
    tile t = {.k = g->k, .a = g->x, .lda = g->ldx, .ca = g->cx, .ldy = g->ldy, .next_y = g->y};
    for (int64_t c = 0, width; c < g->n; c += width) {
        width = l->few_panels * NR <= g->n - c ? l->few_panels * NR : NR;
        t.b = t.next_b = g->panels + c / NR * g->step;
        t.step = width > NR ? g->step : 0;
        for (int64_t r = 0; r < g->m; r += l->most) { /* once, but for machines whose tiles are low */
            const int rows = (int)at_most(l->most, g->m - r);
            set_start(g, false, r, c, &t);
            t.a = g->x + r * g->ldx;
            if (g->n - c < NR) narrow(l, l->few, &t, rows, g->n - c);
            else l->few(&t, rows);
        }
    }
}

/* Rows of x from first on, in tiles of `height` rows, the first `higher` of them one row higher. packed NULL: as they lie. */
typedef struct block { int64_t first, tiles, height, higher, k0, kc; const float *packed; } block;

static int height_of(const block *b, int64_t i) { return (int)(b->height + (i < b->higher)); }

/* The rows of the block against columns [c, c + NR), of which w has the rows from k0 on; next: where the next panel begins. */
static void panel_rows(const leaf *l, const qx_sgemm *g, const block *b, int64_t c, const float *w, const float *next)
{
    tile t = {.k = b->kc, .a = b->packed ? b->packed : g->x + b->first * g->ldx + b->k0 * g->cx, .lda = g->ldx, .ca = g->cx, .b = w,
              .ldy = g->ldy, .next_b = next};
    const int64_t cols = at_most(NR, g->n - c), fetched = (b->kc + STEP - 1) / STEP * NR;
    t.also = b->tiles < STEP ? b->tiles * fetched : 0; /* few tiles do not get through the next panel at one row a step */
    tile_fn *fn = (b->packed ? l->packed : l->loose)[cols <= NR / 2];
    for (int64_t i = 0, r = b->first; i < b->tiles; i++) {
        const int rows = height_of(b, i);
        set_start(g, b->k0 > 0, r, c, &t);
        r += rows;
        t.next_y = i + 1 < b->tiles ? g->y + r * g->ldy + c : g->y + b->first * g->ldy + c + cols;
        if (cols < NR) narrow(l, fn, &t, rows, cols);
        else fn(&t, rows);
        t.a += rows * (b->packed ? b->kc : g->ldx);
        t.next_b += fetched;
        if (t.next_b >= next + b->kc * NR) t.next_b = next;
    }
}

/* Few panels do not pay for packing, and of short rows neither do four times as many; unless rows lie so that they would share a
 * set of the first cache. */
static bool as_they_lie(const qx_sgemm *g)
{
    return g->n <= (g->k <= LOOSE_K ? 4 : 1) * LOOSE_COLS && g->cx == 1 && g->alpha == 1.0f && g->ldx % 512 != 0;
}

static void pack_block(const leaf *l, const qx_sgemm *g, const block *b, float *dst)
{
    lines some = {.x = g->x + b->first * g->ldx + b->k0 * g->cx, .ldx = g->ldx, .cx = g->cx, .k = b->kc};
    for (int64_t i = 0; i < b->tiles; i++) {
        some.count = height_of(b, i);
        put_lines(l, &some, dst, some.count);
        for (int64_t j = 0; j < some.count * b->kc && g->alpha != 1.0f; j++) dst[j] *= g->alpha;
        some.x += some.count * g->ldx;
        dst += some.count * b->kc;
    }
}

static void all_panels(const leaf *l, const qx_sgemm *g, const block *b)
{
    for (int64_t c = 0; c < g->n; c += NR) {
        const float *w = g->panels + c / NR * g->step + b->k0 * NR;
        panel_rows(l, g, b, c, w, c + NR < g->n ? w + g->step : w);
    }
}

static void made_panels(const leaf *l, const qx_sgemm *g, const block *b)
{
    _Alignas(64) float w[QX_GEMM_K * NR];
    for (int64_t c = 0; c < g->n; c += NR) {
        g->make(g->user, b->k0, b->kc, c, at_most(NR, g->n - c), w);
        panel_rows(l, g, b, c, w, w);
    }
}

/* Long rows by stored panels: half as many and twice as much of k at a time. y is then read and written half as often, which
 * costs the more the more of its rows share a set of the first cache (where they are a multiple of 4 KiB apart all of a tile). */
static void many_rows(const leaf *l, const qx_sgemm *g)
{
    _Alignas(64) float packed[QX_GEMM_ROWS * QX_GEMM_K];
    const bool loose = as_they_lie(g);
    const int64_t half = g->make || g->k <= QX_GEMM_K ? 1 : 2, high = (loose ? LOOSE_ROWS : QX_GEMM_ROWS) / half, most = QX_GEMM_K * half,
        blocks = (g->m + high - 1) / high, stretches = (g->k + most - 1) / most,
        stretch = (g->k + 32 * stretches - 1) / (32 * stretches) * 32;
    for (int64_t i = 0; i < blocks; i++) {
        const int64_t first = g->m * i / blocks, rows = g->m * (i + 1) / blocks - first, tiles = (rows + l->most - 1) / l->most;
        block b = {.first = first, .tiles = tiles, .height = rows / tiles, .higher = rows % tiles, .packed = loose ? NULL : packed};
        for (b.k0 = 0; b.k0 < g->k; b.k0 += stretch) {
            b.kc = at_most(stretch, g->k - b.k0);
            if (!loose) pack_block(l, g, &b, packed);
            (g->make ? made_panels : all_panels)(l, g, &b);
        }
    }
}

/* A sum of nothing. */
static void only_start(const qx_sgemm *g)
{
    for (int64_t r = 0; r < g->m && !g->add; r++)
        for (int64_t j = 0; j < g->n; j++) g->y[r * g->ldy + j] = g->bias ? g->bias[j] : 0.0f;
}

void qx_sgemm_using(qx_isa isa, const qx_sgemm *g)
{
    const leaf *l = leaf_of(isa);
    if (g->k == 0) only_start(g);
    else if (g->m <= QX_GEMM_FEW && !g->make && g->alpha == 1.0f) few_rows(l, g);
    else many_rows(l, g);
}

void qx_sgemm_run(const qx_sgemm *g) { qx_sgemm_using(qx_isa_best(), g); }
