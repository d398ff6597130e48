/* nbits_ints_loops.h - codes of rounded rows by codes of weights with VNNI (which multiplies unsigned by signed bytes and adds four
 * products to an int32 without saturating); included after nbits_loops.h with LANES_ISA 512. Gives `ints`. Sums of weights' codes as
 * unsigned numbers begin with -half times the sum of x, and are exact; sums of blocks are added up as floats, in order. */
#define VNNI_LANE QX_TARGET_VNNI static inline __attribute__((always_inline))

/* ---- Few rows ---- */

/* How scales lie over the words of a line: the number of bits that lead from a word to its scale, 4: one for all. */
LANE int spread_of_words(int64_t block_bytes) { return block_bytes >= LINE ? 4 : block_bytes == 32 ? 3 : 2; }

/* `all` rows lie side by side in p->x; bits, all and cols are constants where this is called, so that sums stay in registers. */
VNNI_LANE void few_columns(const qx_nbits_dot *p, const int bits, const int all, int64_t first, const int cols, float *y, int64_t ldy)
{
    const int64_t block_bytes = p->block * bits / 8, bytes = p->blocks * block_bytes;
    const int spread = spread_of_words(block_bytes), room = QX_NBITS_LINE(bits);
    const uint8_t *from = p->codes + first * p->row_bytes;
    const float *x = p->x, *scale = p->scale + first * p->ld_scale;
    const __m512i low = _mm512_set1_epi8(15), flip = _mm512_set1_epi8((char)p->flip);
    v16 acc[QX_NBITS_ROWS][4] = {0};
    for (int64_t at = 0; at < bytes; at += LINE, x += room * all) {
        const int64_t b = at / block_bytes;
        EACH(i, cols) {
            __builtin_prefetch(from + AHEAD + at * cols + i * LINE, 0, 3);
            const __m512i c = _mm512_xor_si512(v_codes(from + i * p->row_bytes + at, (bytes - at) / 4).v, flip);
            const __m512i high = _mm512_and_si512(_mm512_srli_epi16(c, 4), low), lows = bits == 4 ? _mm512_and_si512(c, low) : c;
            const v16 s = spread == 4 ? v_set(scale[i * p->ld_scale + b]) : v_repeat(scale + i * p->ld_scale + b, p->blocks - b, spread);
            EACH(r, all) {
                const float *line = x + r * room, *lanes = line + room - 32;
                __m512i d = _mm512_dpbusd_epi32(_mm512_loadu_si512(lanes), lows, _mm512_loadu_si512(line));
                if (bits == 4) d = _mm512_dpbusd_epi32(d, high, _mm512_loadu_si512(line + 16));
                acc[r][i] = v_fma((v16){_mm512_cvtepi32_ps(d)}, v_mul(s, v_load(lanes + 16)), acc[r][i]);
            }
        }
        __builtin_prefetch(scale + AHEAD / LINE * cols + b * cols, 0, 3);
    }
    EACH(r, all) EACH(i, cols)
        y[r * ldy + first + i] += v_sum(p->zero ? v_sub(acc[r][i], corrections(p, r, first + i, (float)(1 << (bits - 1)))) : acc[r][i]);
}

VNNI_LANE void few_rows(const qx_nbits_dot *p, const int bits, const int rows, const int at_once, int64_t cols, float *y, int64_t ldy)
{
    int64_t c = 0;
    for (; c + at_once <= cols; c += at_once) few_columns(p, bits, rows, c, at_once, y, ldy);
    for (; c < cols; c++) few_columns(p, bits, rows, c, 1, y, ldy);
}

#define FEW(bits)                                                                                                  \
    QX_TARGET_VNNI static void few##bits(const qx_nbits_dot *p, int64_t rows, int64_t cols, float *y, int64_t ldy) \
    {                                                                                                              \
        switch (rows) {                                                                                            \
        case 1: few_rows(p, bits, 1, 4, cols, y, ldy); break;                                                      \
        case 2: few_rows(p, bits, 2, 4, cols, y, ldy); break;                                                      \
        case 3: few_rows(p, bits, 3, 4, cols, y, ldy); break;                                                      \
        default: few_rows(p, bits, 4, 4, cols, y, ldy); break;                                                     \
        }                                                                                                          \
    }
FEW(4)
FEW(8)

/* ---- Many rows ---- */

QX_TARGET_VNNI static void pack(const uint8_t *codes, int64_t row_bytes, int64_t cols, int64_t bytes, int bits, uint8_t flip,
                                uint8_t *panel)
{
    const __m512i low = _mm512_set1_epi8(15), turn = _mm512_set1_epi8((char)flip);
    const int64_t quad = 2 * LINE; /* bytes of a group of four codes of the 32 columns */
    for (int64_t j = 0; j < cols; j += 16)
        for (int64_t at = 0; at < bytes; at += 16) {
            uint8_t *to = panel + 4 * j + at / 4 * quad * (8 / bits);
            q128 words[4];
            v_columns(codes + j * row_bytes + at, row_bytes, cols - j - 1, words);
            EACH(w, 4) {
                const __m512i c = _mm512_xor_si512(words[w].v, turn);
                if (bits == 8) {
                    _mm512_storeu_si512(to + w * quad, c);
                    continue;
                }
                _mm512_storeu_si512(to + 2 * w * quad, _mm512_and_si512(c, low));
                _mm512_storeu_si512(to + (2 * w + 1) * quad, _mm512_and_si512(_mm512_srli_epi16(c, 4), low));
            }
        }
}

VNNI_LANE void tile_rows(const qx_nbits_tile *t, const int rows)
{
    const uint8_t *panel = t->panel;
    const __mmask16 mask[2] = {t->cols >= 16 ? 0xffff : (__mmask16)((1u << t->cols) - 1u),
                               t->cols >= 32 ? 0xffff : t->cols <= 16 ? 0 : (__mmask16)((1u << (t->cols - 16)) - 1u)};
    __m512 y[QX_NBITS_TILE][2];
    EACH(r, rows) EACH(v, 2) y[r][v] = _mm512_maskz_loadu_ps(mask[v], t->y + r * t->ldy + 16 * v);
    for (int64_t b = 0; b < t->blocks; b++) {
        const int8_t *x = t->x + b * t->quads * 4;
        __m512i d[QX_NBITS_TILE][2];
        EACH(r, rows) EACH(v, 2) d[r][v] = _mm512_set1_epi32(t->begin[r * t->ld_block + b]);
        for (int64_t q = 0; q < t->quads; q++, panel += 2 * LINE) {
            const __m512i w0 = _mm512_loadu_si512(panel), w1 = _mm512_loadu_si512(panel + LINE);
            EACH(r, rows) {
                int32_t four;
                memcpy(&four, x + r * t->ldx + 4 * q, sizeof four);
                const __m512i x4 = _mm512_set1_epi32(four);
                d[r][0] = _mm512_dpbusd_epi32(d[r][0], w0, x4);
                d[r][1] = _mm512_dpbusd_epi32(d[r][1], w1, x4);
            }
        }
        EACH(v, 2) {
            const __m512 s = _mm512_loadu_ps(t->scale + b * 32 + 16 * v), z = t->zero ? _mm512_loadu_ps(t->zero + b * 32 + 16 * v)
                : _mm512_setzero_ps();
            EACH(r, rows) {
                const __m512 xs = _mm512_set1_ps(t->x_scale[r * t->ld_block + b]);
                __m512 sum = _mm512_cvtepi32_ps(d[r][v]);
                if (t->zero) sum = _mm512_fnmadd_ps(z, _mm512_set1_ps(t->x_sum[r * t->ld_block + b]), sum);
                y[r][v] = _mm512_fmadd_ps(sum, _mm512_mul_ps(s, xs), y[r][v]);
            }
        }
    }
    EACH(r, rows) EACH(v, 2) _mm512_mask_storeu_ps(t->y + r * t->ldy + 16 * v, mask[v], y[r][v]);
}

QX_TARGET_VNNI static void tile(const qx_nbits_tile *t, int64_t rows)
{
    switch (rows) {
    case 1: tile_rows(t, 1); break;
    case 2: tile_rows(t, 2); break;
    case 3: tile_rows(t, 3); break;
    case 4: tile_rows(t, 4); break;
    case 5: tile_rows(t, 5); break;
    case 6: tile_rows(t, 6); break;
    default: tile_rows(t, QX_NBITS_TILE); break;
    }
}

static const qx_nbits_ints ints = {few4, few8, pack, tile};
