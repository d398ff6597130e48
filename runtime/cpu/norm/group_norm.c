/* group_norm.c - see group_norm.h. Plain pictures: a group is one run of memory. Blocked ones: moments of every channel over
 * pieces of pixels, joined in a fixed order, then one pass that scales. Pieces do not depend on the number of threads. */
#include "runtime/cpu/norm/group_norm.h"

#include <math.h>

#include "kernels/rows.h"
#include "kernels/loops/vmath_leaf.h"

enum { PIECE = 4096 }; /* pixels of a piece */

/* ---- Plain ---- */

static qx_status plain_piece(void *user, int64_t i)
{
    const qx_group_norm *g = user;
    int64_t per = g->channels / g->groups, first = i % g->groups * per;
    const float *x = g->x + i * per * g->pixels;
    float *y = g->y + i * per * g->pixels, mean, inv;
    qx_moments(x, per * g->pixels, g->eps, &mean, &inv);
    for (int64_t k = 0; k < per; k++) {
        qx_affine p;
        for (int l = 0; l < 16; l++) p.mean[l] = mean, p.a[l] = inv * g->gamma[first + k], p.b[l] = g->beta[first + k];
        qx_vmath_cpu(qx_isa_best())->affine(x + k * g->pixels, g->pixels, &p, g->silu, y + k * g->pixels);
    }
    return QX_OK;
}

/* ---- Blocked ---- */

typedef struct job {
    const qx_group_norm *g;
    int64_t cuts;                /* pieces of one block of channels */
    double *mean, *m2;           /* [batch * channels / block][cuts][block], joined into the first piece */
    float *mu, *a;               /* [batch * channels] */
} job;

static int64_t piece_pixels(const job *j, int64_t cut)
{
    int64_t left = j->g->pixels - cut * PIECE;
    return left < PIECE ? left : PIECE;
}

static qx_status moments_piece(void *user, int64_t i)
{
    const job *j = user;
    const int64_t b = j->g->block, cut = i % j->cuts;
    qx_lane_moments(j->g->x + (i / j->cuts * j->g->pixels + cut * PIECE) * b, piece_pixels(j, cut), (int)b, j->mean + i * b, j->m2 + i * b);
    return QX_OK;
}

/* Where channel ch (of all batches) has its moments. */
static int64_t place(const job *j, int64_t ch) { return ch / j->g->block * j->cuts * j->g->block + ch % j->g->block; }

static void join_cuts(const job *j, int64_t ch)
{
    const int64_t at = place(j, ch), b = j->g->block;
    for (int64_t cut = 1; cut < j->cuts; cut++)
        qx_join_moments(&j->mean[at], &j->m2[at], cut * PIECE, j->mean[at + cut * b], j->m2[at + cut * b], piece_pixels(j, cut));
}

/* One group of one picture: its channels' moments become mean and factor of each channel. */
static void join_group(const job *j, int64_t i)
{
    const qx_group_norm *g = j->g;
    const int64_t per = g->channels / g->groups, first = i * per;
    double mean = 0, m2 = 0;
    for (int64_t k = 0; k < per; k++) {
        const int64_t at = place(j, first + k);
        join_cuts(j, first + k);
        if (k) qx_join_moments(&mean, &m2, k * g->pixels, j->mean[at], j->m2[at], g->pixels);
        else mean = j->mean[at], m2 = j->m2[at];
    }
    const double inv = 1.0 / sqrt(m2 / (double)(per * g->pixels) + (double)g->eps);
    for (int64_t k = 0; k < per; k++) {
        j->mu[first + k] = (float)mean;
        j->a[first + k] = (float)inv * g->gamma[(first + k) % g->channels];
    }
}

static qx_status scale_piece(void *user, int64_t i)
{
    const job *j = user;
    const qx_group_norm *g = j->g;
    const int64_t b = g->block, cut = i % j->cuts, ch = i / j->cuts * b, at = (i / j->cuts * g->pixels + cut * PIECE) * b;
    qx_affine p;
    for (int64_t l = 0; l < 16; l++) p.mean[l] = j->mu[ch + l % b], p.a[l] = j->a[ch + l % b], p.b[l] = g->beta[ch % g->channels + l % b];
    qx_vmath_cpu(qx_isa_best())->affine(g->x + at, piece_pixels(j, cut) * b, &p, g->silu, g->y + at);
    return QX_OK;
}

static qx_status blocked(qx_call *c, const qx_group_norm *g)
{
    const int64_t blocks = g->batch * g->channels / g->block;
    job j = {.g = g, .cuts = (g->pixels + PIECE - 1) / PIECE};
    QX_TRY(QX_CALL_SCRATCH(c, 2 * blocks * j.cuts * g->block, &j.mean));
    QX_TRY(QX_CALL_SCRATCH(c, 2 * g->batch * g->channels, &j.mu));
    j.m2 = j.mean + blocks * j.cuts * g->block;
    j.a = j.mu + g->batch * g->channels;
    QX_TRY(qx_parallel(c->ctx, blocks * j.cuts, moments_piece, &j));
    for (int64_t i = 0; i < g->batch * g->groups; i++) join_group(&j, i);
    return qx_parallel(c->ctx, blocks * j.cuts, scale_piece, &j);
}

qx_status qx_group_norm_run(qx_call *c, const qx_group_norm *g)
{
    if (g->batch * g->channels * g->pixels == 0) return QX_OK;
    return g->block ? blocked(c, g) : qx_parallel(c->ctx, g->batch * g->groups, plain_piece, (void *)(uintptr_t)g);
}
