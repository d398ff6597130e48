/* compare.c - metrics of a pair of batches drawn with the same seeds. */
#include "compare.h"

#include <math.h>
#include <string.h>

enum { SAME_DB = 100 }; /* what an identical pair adds to a mean */

static double capped(double db) { return db < SAME_DB ? db : SAME_DB; }

static int pair_drift(sx_err *e, const sx_shot *r, const sx_shot *t, size_t n, sx_pair *p)
{
    p->steps = r->steps < t->steps ? r->steps : t->steps;
    SX_TRY(SX_NEW(e, p->steps, &p->drift));
    for (int i = 0; i < p->steps; i++) p->drift[i] = sx_latent_drift(r->trace + (size_t)i * n, t->trace + (size_t)i * n, n);
    p->last = p->steps ? p->drift[p->steps - 1] : (sx_drift){NAN, NAN, NAN};
    return SX_OK;
}

static int compare_shots(sx_err *e, const sx_shot *r, const sx_shot *t, size_t n, sx_pair *p)
{
    p->lpips = p->clip_ref = p->clip = NAN;
    SX_TRY(pair_drift(e, r, t, n, p));
    bool have_ref = r->picture.rgb != NULL, have = t->picture.rgb != NULL;
    if (have_ref) sx_look_at(&r->picture, &p->ref_look);
    if (have) sx_look_at(&t->picture, &p->test_look);
    p->ref_verdict = have_ref ? sx_verdict(&p->ref_look, NULL, r->bad) : "nan";
    p->verdict = have ? sx_verdict(&p->test_look, have_ref ? &p->ref_look : NULL, t->bad) : "nan";
    if (have && have_ref) return sx_compare(e, &r->picture, &t->picture, &p->c);
    p->c = (sx_compared){.psnr = 0, .ssim = 0, .ms_ssim = 0, .gmsd = NAN, .max_abs = 255};
    return SX_OK;
}

static void average(sx_comparison *c)
{
    c->worst_psnr = INFINITY;
    for (int i = 0; i < c->n; i++) {
        const sx_pair *p = &c->pairs[i];
        c->mean_psnr += capped(p->c.psnr) / c->n;
        c->worst_psnr = fmin(c->worst_psnr, p->c.psnr);
        c->mean_ssim += p->c.ssim / c->n;
        c->mean_ms_ssim += p->c.ms_ssim / c->n;
        c->mean_gmsd += p->c.gmsd / c->n;
        c->wrong += strcmp(p->verdict, "ok") != 0;
        c->steps = p->steps > c->steps ? p->steps : c->steps;
    }
}

static int average_drift(sx_err *e, sx_comparison *c)
{
    SX_TRY(SX_NEW(e, c->steps, &c->mean_sqnr));
    SX_TRY(SX_NEW(e, c->steps, &c->worst_sqnr));
    for (int s = 0; s < c->steps; s++) {
        int n = 0;
        c->worst_sqnr[s] = INFINITY;
        for (int i = 0; i < c->n; i++) {
            if (s >= c->pairs[i].steps) continue;
            c->mean_sqnr[s] += capped(c->pairs[i].drift[s].sqnr_db);
            c->worst_sqnr[s] = fmin(c->worst_sqnr[s], capped(c->pairs[i].drift[s].sqnr_db));
            n++;
        }
        c->mean_sqnr[s] = n ? c->mean_sqnr[s] / n : NAN;
    }
    return SX_OK;
}

double sx_per_step(const sx_batch *b) { return b->step_count ? b->step_total / (double)b->step_count : NAN; }

int sx_compare_batches(sx_err *e, const sx_batch *ref, const sx_batch *test, sx_comparison *c)
{
    *c = (sx_comparison){.ref = ref, .test = test, .n = test->n, .mean_lpips = NAN, .mean_clip_ref = NAN, .mean_clip = NAN};
    if (ref->n != test->n) return sx_fail(e, SX_FAILED, "%d reference pictures and %d others do not compare", ref->n, test->n);
    size_t n = sx_latent_count(&test->pipe, test->plan.width, test->plan.height);
    if (n != sx_latent_count(&ref->pipe, ref->plan.width, ref->plan.height))
        return sx_fail(e, SX_FAILED, "the pipelines' latents differ in size");
    int rc = SX_NEW(e, c->n, &c->pairs);
    for (int i = 0; rc == SX_OK && i < c->n; i++) rc = compare_shots(e, &ref->shots[i], &test->shots[i], n, &c->pairs[i]);
    if (rc == SX_OK) {
        average(c);
        rc = average_drift(e, c);
    }
    if (rc != SX_OK) sx_comparison_free(c);
    return rc;
}

void sx_comparison_free(sx_comparison *c)
{
    for (int i = 0; c->pairs && i < c->n; i++) sx_free(c->pairs[i].drift);
    sx_free(c->pairs);
    sx_free(c->mean_sqnr);
    sx_free(c->worst_sqnr);
    *c = (sx_comparison){0};
}
