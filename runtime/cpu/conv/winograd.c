/* winograd.c - shares tiles and outputs of a convolution out to threads. A piece is some tiles (one chunk) by some outputs (a
 * group of panels): its pixels are transformed into scratch, multiplied at each of the 36 points, and transformed back, with bias
 * and activation while they are there. */
#include "runtime/cpu/conv/winograd.h"

#include <string.h>

#include "kernels/gemm.h"
#include "kernels/winograd.h"

/* tiles a piece; rows of the product's tile; floats of scratch that stay near; pieces a thread */
enum { CHUNK = 98, LEAST_CHUNK = 42, ROWS = 14, NEAR = 1 << 18, PIECES = 4 };
#define MOST_WEIGHTS 4e7 /* bytes, transformed */

bool qx_wino_weights_fit(int64_t out, int64_t in)
{
    return in >= 32 && out >= 32 && (double)QX_WINO_POINTS * (double)in * (double)out * sizeof(float) <= MOST_WEIGHTS;
}

bool qx_wino_pixels_pay(int64_t pixels) { return pixels >= 256; }

bool qx_wino_pays(const qx_conv_shape *s)
{
    bool small = s->spatial == 2 && s->group == 1 && qx_wino_weights_fit(s->out_ch, s->in_ch) && qx_wino_pixels_pay(s->out[0] * s->out[1]);
    for (int i = 0; small && i < 2; i++) small = s->kernel[i] == 3 && s->stride[i] == 1 && s->dilation[i] == 1;
    return small;
}

static int64_t panels_of(int64_t out) { return (out + QX_GEMM_NR - 1) / QX_GEMM_NR; }

typedef struct pack_job { const float *w; float *u; int64_t in, out; } pack_job;

static qx_status pack_piece(void *user, int64_t i)
{
    const pack_job *j = user;
    qx_wino_panel(j->w, j->in, j->out, i * QX_GEMM_NR, j->u + i * QX_GEMM_NR * j->in, panels_of(j->out) * QX_GEMM_NR * j->in);
    return QX_OK;
}

qx_status qx_wino_pack(qx_call *c, const qx_conv_shape *s, const float *w, float **u)
{
    QX_TRY(qx_alloc_raw(c->ctx, (size_t)(QX_WINO_POINTS * panels_of(s->out_ch) * QX_GEMM_NR * s->in_ch) * sizeof **u, (void **)u));
    pack_job j = {w, *u, s->in_ch, s->out_ch};
    return qx_parallel(c->ctx, panels_of(s->out_ch), pack_piece, &j);
}

/* chunk tiles of `tiles`, group panels of `panels`; ld, step: floats from tile to tile and from point to point of transformed
 * pixels, and of results. */
typedef struct job {
    const qx_conv_shape *s;
    const qx_conv_op *op;
    qx_wino_picture x, y, add; /* of the batch's first picture */
    const float *u;
    int64_t x_all, y_all; /* floats from picture to picture */
    int64_t down, across, tiles, chunk, panels, group, groups, ld_in, ld_out, step_in, step_out, per_thread;
    float *scratch;
} job;

static qx_wino_picture picture_of(const float *data, int64_t channels, const int64_t *dims, int layout)
{
    const int64_t block = layout > 0 ? layout : layout < 0 ? channels : 1;
    return (qx_wino_picture){(float *)(uintptr_t)data, dims[0], dims[1], channels, block, dims[0] * dims[1] * block, dims[1] * block,
                             block};
}

/* Tile t: its first pixel, and the picture it is of. */
typedef struct place { int64_t n, y, x; } place;
static place place_of(const job *j, int64_t t)
{
    return (place){t / (j->down * j->across), t / j->across % j->down * QX_WINO_TILE, t % j->across * QX_WINO_TILE};
}

static void transform(const job *j, int64_t first, int64_t count, float *v)
{
    for (int64_t t = 0; t < count; t++) {
        const place at = place_of(j, first + t);
        qx_wino_picture p = j->x;
        p.data += at.n * j->x_all;
        for (int64_t c = 0; c < p.channels; c += QX_WINO_LANES)
            qx_wino_in(&p, c, at.y - j->s->begin[0], at.x - j->s->begin[1], v + t * j->ld_in + c, j->step_in);
    }
}

static void multiply(const job *j, int64_t first_panel, int64_t panels, int64_t count, const float *v, float *m)
{
    const int64_t k = j->s->in_ch, size = QX_GEMM_NR * k;
    for (int64_t p = 0; p < QX_WINO_POINTS; p++) {
        const qx_sgemm g = {.m = count, .k = k, .n = panels * QX_GEMM_NR, .x = v + p * j->step_in, .ldx = j->ld_in, .cx = 1,
                            .panels = j->u + (p * j->panels + first_panel) * size, .step = size,
                            .y = m + p * j->step_out, .ldy = j->ld_out, .alpha = 1.0f};
        qx_sgemm_run(&g);
    }
}

static void finish(const job *j, int64_t first, int64_t count, int64_t first_out, int64_t end_out, const float *m)
{
    float pixels[QX_WINO_PIXELS * QX_WINO_LANES];
    for (int64_t t = 0; t < count; t++) {
        const place at = place_of(j, first + t);
        qx_wino_picture p = j->y, add = j->add;
        p.data += at.n * j->y_all;
        if (add.data) add.data += at.n * j->y_all;
        for (int64_t o = first_out; o < end_out; o += QX_WINO_LANES) {
            const int64_t lanes = p.channels - o < QX_WINO_LANES ? p.channels - o : QX_WINO_LANES;
            qx_wino_out(m + t * j->ld_out + o - first_out, j->step_out, pixels);
            for (int i = 0; j->op->bias && i < QX_WINO_PIXELS; i++)
                for (int64_t l = 0; l < lanes; l++) pixels[i * QX_WINO_LANES + l] += j->op->bias[o + l];
            if (add.data) qx_wino_add(pixels, &add, o, at.y, at.x);
            qx_activation_piece(j->op->act, pixels, QX_WINO_PIXELS * QX_WINO_LANES);
            qx_wino_store(pixels, &p, o, at.y, at.x);
        }
    }
}

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    const int64_t first = i / j->groups * j->chunk, count = j->tiles - first < j->chunk ? j->tiles - first : j->chunk;
    const int64_t panel = i % j->groups * j->group, panels = j->panels - panel < j->group ? j->panels - panel : j->group;
    const int64_t out = panel * QX_GEMM_NR, end = (panel + panels) * QX_GEMM_NR < j->s->out_ch ? (panel + panels) * QX_GEMM_NR
        : j->s->out_ch;
    float *v = j->scratch + qx_thread_index() * j->per_thread, *m = v + QX_WINO_POINTS * j->step_in;
    transform(j, first, count, v);
    multiply(j, panel, panels, count, v, m);
    finish(j, first, count, out, end, m);
    return QX_OK;
}

/* Chunks of even size, in whole tiles of the product, so large that reading the weights does not decide; outputs are split where
 * there are too few chunks for the threads. No bit of the result depends on it. */
static void share_out(job *j, int threads)
{
    const int64_t each = QX_WINO_POINTS * (j->ld_in + j->panels * QX_GEMM_NR);
    int64_t most = NEAR / each < LEAST_CHUNK ? LEAST_CHUNK : NEAR / each > CHUNK ? CHUNK : NEAR / each;
    int64_t chunks = (j->tiles + most - 1) / most;
    j->chunk = ((j->tiles + chunks - 1) / chunks + ROWS - 1) / ROWS * ROWS;
    chunks = (j->tiles + j->chunk - 1) / j->chunk;
    const int64_t want = threads > 1 ? (PIECES * threads + chunks - 1) / chunks : 1;
    j->group = (j->panels + want - 1) / want;
    j->groups = (j->panels + j->group - 1) / j->group;
    j->ld_out = j->group * QX_GEMM_NR;
    j->step_in = j->chunk * j->ld_in + QX_WINO_LANES; /* a line more: points a page apart would share one set of the cache */
    j->step_out = j->chunk * j->ld_out + QX_WINO_LANES;
    j->per_thread = QX_WINO_POINTS * (j->step_in + j->step_out);
}

qx_status qx_wino_run(qx_call *c, const float *u, const qx_conv_shape *s, const qx_conv_op *op)
{
    job j = {.s = s, .op = op, .x = picture_of(op->x, s->in_ch, s->in, s->x_block), .y = picture_of(op->y, s->out_ch, s->out, s->y_block),
             .add = picture_of(op->add, s->out_ch, s->out, s->y_block), .u = u,
             .x_all = s->in_ch * s->in[0] * s->in[1], .y_all = s->out_ch * s->out[0] * s->out[1],
             .down = (s->out[0] + QX_WINO_TILE - 1) / QX_WINO_TILE, .across = (s->out[1] + QX_WINO_TILE - 1) / QX_WINO_TILE,
             .panels = panels_of(s->out_ch),
             .ld_in = (s->in_ch + QX_WINO_LANES - 1) / QX_WINO_LANES * QX_WINO_LANES};
    j.tiles = s->batch * j.down * j.across;
    share_out(&j, qx_ctx_threads(c->ctx));
    QX_TRY(QX_CALL_SCRATCH(c, j.per_thread * qx_ctx_threads(c->ctx), &j.scratch));
    double flops = 2.0 * (double)(s->batch * s->out[0] * s->out[1]) * 9.0 * (double)s->in_ch * (double)s->out_ch;
    qx_call_note_kernel(c, "winograd", flops);
    return qx_parallel(c->ctx, (j.tiles + j.chunk - 1) / j.chunk * j.groups, piece, &j);
}
