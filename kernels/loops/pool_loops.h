/* pool_loops.h - the rows of a window are folded into one line first and its columns behind that, so that k x k takes 2 k steps
 * instead of k * k; sixteen numbers at a time with all taps in a register. Included after lanes.h; the includer calls pool_rows. */

/* taps runs of memory, each `apart` behind the last; more: joined with what is there; cols: the result by rows * cols. */
typedef struct fold { const float *x; int64_t taps, apart; bool more; float rows; const float *cols; } fold;

/* Of a picture, whose end is the end of what may be read; of a line whatever stands there. */
LANE v16 taken(const bool line, const float *p, int64_t step, int64_t n)
{
    if (step == 3) return v_third(p);
    if (step == 4) return v_fourth(p);
    return step == 2 ? v_even(p) : step > 2 ? v_every(p, step, n) : line ? v_load(p) : v_part(p, n);
}

/* A line of the rows of a picture, in whole vectors: the last one may write up to 15 numbers more. */
LANE void fold_down(const bool means, const fold *f, float *to, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        v16 m = f->more ? v_load(to + i) : taken(false, f->x + i, 1, n - i);
        for (int64_t k = f->more ? 0 : 1; k < f->taps; k++) {
            const v16 v = taken(false, f->x + i + k * f->apart, 1, n - i);
            m = means ? v_add(m, v) : v_larger(m, v);
        }
        v_store(to + i, m);
    }
}

/* n outputs from lines, of which every step-th number counts. */
LANE void fold_along(const bool means, const fold *f, const int64_t step, float *to, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        const float *p = f->x + i * step;
        v16 m = taken(true, p, step, n - i);
        for (int64_t k = 1; k < f->taps; k++) {
            const v16 v = taken(true, p + k * f->apart, step, n - i);
            m = means ? v_add(m, v) : v_larger(m, v);
        }
        if (means) m = v_div(m, v_mul(v_set(f->rows), v_part(f->cols + i, n - i)));
        v_store_part(to + i, m, n - i);
    }
}

/* In whole vectors, as above. */
LANE void fill(float *to, float v, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) v_store(to + i, v_set(v));
}

/* The windows of an output row as one line, with padding. begin: where the picture begins in it; n: its numbers there. */
typedef struct line { int64_t all, begin, n; float nothing; } line;

LANE void fold_rows(const bool means, const qx_windows *w, const qx_pool_band *b, const line *l, qx_taps a, qx_taps t, float *v)
{
    const int64_t row = w->in[2] * b->lanes;
    fill(v, l->nothing, l->begin);
    if (a.n == 0 || t.n == 0) fill(v + l->begin, l->nothing, l->n);
    for (int64_t k = 0; k < a.n && t.n; k++) {
        const fold f = {.x = b->x + ((a.lo + k * w->dilation[0]) * w->in[1] + t.lo) * row, .taps = t.n, .apart = w->dilation[1] * row,
                        .more = k > 0};
        fold_down(means, &f, v + l->begin, l->n);
    }
    fill(v + l->begin + l->n, l->nothing, l->all - l->begin - l->n);
}

LANE void fold_columns(const bool means, const qx_windows *w, const qx_pool_band *b, const float *v, float rows, float *y)
{
    const int64_t s = w->stride[2], out = w->out[2], lanes = b->lanes;
    fold f = {.x = v, .taps = w->kernel[2], .apart = w->dilation[2] * lanes, .rows = rows, .cols = b->cols};
    if (s == 1) fold_along(means, &f, 1, y, out * lanes);
    else if (lanes == 1 && s == 2) fold_along(means, &f, 2, y, out);
    else if (lanes == 1 && s == 3) fold_along(means, &f, 3, y, out);
    else if (lanes == 1 && s == 4) fold_along(means, &f, 4, y, out);
    else if (lanes == 1) fold_along(means, &f, s, y, out);
    else for (int64_t c = 0; c < out; c++, f.x += s * lanes) {
        fold_along(means, &f, 1, y + c * lanes, lanes);
        if (means) f.cols += lanes; /* else there are none */
    }
}

/* All lines first: what has just been written cannot be read at another offset without waiting. */
LANE void pool_band(const bool means, const qx_windows *w, const qx_pool_band *b)
{
    const int64_t pitch = qx_pool_pitch(w), lanes = b->lanes, left = w->begin[2] < pitch ? w->begin[2] : pitch;
    const line l = {pitch * lanes, left * lanes, (w->in[2] < pitch - left ? w->in[2] : pitch - left) * lanes, means ? 0.0f : -INFINITY};
    const qx_taps a = qx_taps_at(w, 0, b->depth);
    for (int64_t r = 0; r < b->n; r++) fold_rows(means, w, b, &l, a, qx_taps_at(w, 1, b->first + r), b->scratch + r * l.all);
    fill(b->scratch + b->n * l.all, 0.0f, QX_POOL_SLACK);
    for (int64_t r = 0; r < b->n; r++) {
        const qx_taps t = qx_taps_at(w, 1, b->first + r);
        const float rows = (float)(b->count_pad ? a.padded * t.padded : a.n * t.n);
        fold_columns(means, w, b, b->scratch + r * l.all, rows, b->y + r * w->out[2] * lanes);
    }
}

TARGET static void pool_rows(const qx_windows *w, const qx_pool_band *b)
{
    if (b->cols) pool_band(true, w, b);
    else pool_band(false, w, b);
}
