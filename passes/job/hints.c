/* hints.c - see hints.h. A hint names an option that was not given and is known to help models of this kind (docs/accuracy.md,
 * docs/sdxl.md). */
#include "passes/job/hints.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "passes/job/summary.h"
#include "passes/place/rules.h"

static qx_status add(qx_report *r, const char *text)
{
    if (!text) return QX_E_NOMEM;
    if (r->n_hints < QX_MOST_HINTS) r->hints[r->n_hints++] = text;
    return QX_OK;
}

/* A pass written "name?", for which samples are optional, and nobody gave any. */
static bool left_one_out(const qx_pipeline *p, const qx_quantize_options *opt)
{
    if (opt->samples.n_paths || opt->samples.text || opt->samples.random || opt->load_stats) return false;
    return !p->have_data && strchr(opt->passes, '?');
}

static qx_status about_samples(qx_report *r, qx_genre k, const qx_pipeline *pipe, const qx_quantize_options *opt, const qx_samples *samples)
{
    enum { FEW = 8 };
    const char *more = k == QX_GENRE_TEXT ? "--text FILE" : "--calib FILE.npz|DIR";
    if (left_one_out(pipe, opt) && samples)
        return add(r, "rounded without samples; with --calib, those beside the model let GPTQ make up for much of the loss");
    if (left_one_out(pipe, opt))
        return add(r, qx_arena_printf(r->arena, "rounded without samples; with them (%s%s) GPTQ makes up for much of the loss", more,
                                      k == QX_GENRE_TEXT ? ", or made-up tokens: --random 16" : ""));
    if (!pipe->have_data || !samples || opt->load_stats) return QX_OK; /* beside statistics samples only verify */
    if (qx_samples_synthetic(samples))
        return add(r, qx_arena_printf(r->arena, "calibrated on made-up samples; real ones give other ranges (%s)", more));
    const long long n = (long long)qx_samples_count(samples);
    return n >= FEW ? QX_OK : add(r, qx_arena_printf(r->arena,
                                                     "calibrated on %lld sample%s; 32 show more of what the model will meet (%s)", n,
                                                     n == 1 ? "" : "s", more));
}

/* The plain formats treat a diffusion model as any network; its presets follow the published recipes. */
static qx_status about_preset(qx_report *r, qx_genre k, const char *passes)
{
    const bool fp8 = strcmp(passes, qx_preset_find("fp8")->text) == 0, int8 = strcmp(passes, qx_preset_find("int8")->text) == 0;
    if (!(fp8 || int8) || (k != QX_GENRE_UNET && k != QX_GENRE_DIFFUSION_TRANSFORMER)) return QX_OK;
    return add(r, qx_arena_printf(r->arena, "a diffusion %s: --preset %s-%s places formats as its published recipes do",
                                  k == QX_GENRE_UNET ? "UNet" : "transformer", k == QX_GENRE_UNET ? "sdxl" : "dit",
                                  fp8 ? "fp8" : "int8"));
}

static bool has_zero_point(const qx_plan_item *it) { return it->act == QX_DT_UINT8 || it->act == QX_DT_INT8; } /* as UINT8, for generic */
static bool has_signed_scales(const qx_plan_item *it) { return it->weight && it->weight->spec.allow_negative_scale; }

/* What is more accurate, what ONNX Runtime and OpenVINO compute, and what TensorRT refuses: one line for both. */
static qx_status about_tensorrt(qx_report *r, const qx_pipeline *p)
{
    long long zeros = 0, signs = 0;
    for (int64_t i = 0; p->plan && i < p->plan->linears.count; i++) {
        const qx_plan_item *it = &p->plan->items[i];
        zeros += it->pass && has_zero_point(it);
        signs += it->pass && has_signed_scales(it);
    }
    if (p->opt->target != QX_TARGET_GENERIC || zeros + signs == 0) return QX_OK;
    char z[64] = "", w[64] = "";
    if (zeros) snprintf(z, sizeof z, "zero points of %lld activation%s", zeros, zeros == 1 ? "" : "s");
    if (signs) snprintf(w, sizeof w, "negative scales of %lld weight%s", signs, signs == 1 ? "" : "s");
    return add(r, qx_arena_printf(r->arena, "for TensorRT: --target tensorrt, without %s%s%s", z, zeros && signs ? " and " : "", w));
}

/* The standard has no operator of a mixture: weights in front of com.microsoft's MoE are dequantized at each run. */
static qx_status about_mixture(qx_report *r, const qx_pipeline *p)
{
    bool any = false;
    for (int64_t i = 0; p->plan && i < p->plan->linears.count; i++) any = any || (p->plan->items[i].pass && p->plan->items[i].lin->mixture);
    if (p->opt->target != QX_TARGET_GENERIC || !any) return QX_OK;
    return add(r, "for speed in ONNX Runtime: --target ort (the mixture's weights are read as codes there, and whole at each run here)");
}

/* No operator of codes takes or makes float16 there: each convolution and product is computed in float between casts (a mask of clouds
 * 0.35 times as fast as float, 1.42 with float32 around the codes). */
static qx_status about_half(qx_report *r, const qx_pipeline *p)
{
    bool any = false;
    for (int64_t i = 0; p->plan && i < p->plan->linears.count; i++) {
        const qx_plan_item *it = &p->plan->items[i];
        any = any || (it->pass && (it->act == QX_DT_INT8 || it->act == QX_DT_UINT8) && it->lin->x->type.dtype == QX_DT_FLOAT16);
    }
    if (!qx_target_has(p->opt->target, QX_TARGET_FUSES_CODES) || !any) return QX_OK;
    return add(r, "ONNX Runtime's CPU has no INT8 operator of float16: --float fp32 runs 4 times as fast there");
}

/* A plan has no measurements: what --tables auto may still change is said. */
static qx_status about_tables(qx_report *r, const qx_pipeline *p, const qx_quantize_options *opt)
{
    bool measures = false;
    long long n = 0;
    for (int i = 0; i < p->n_passes; i++) measures |= strcmp(p->passes[i]->def->name, "smoothquant") == 0;
    if (!opt->dry_run || !measures || !p->have_data || !p->tables_measured) return QX_OK;
    for (int64_t i = 0; p->plan && i < p->plan->linears.count; i++) {
        const qx_plan_item *it = &p->plan->items[i];
        n += it->pass && it->table && it->lin->embedding && it->weight->spec.codes == QX_DT_INT8;
    }
    if (!n) return QX_OK;
    return add(r, qx_arena_printf(r->arena, "%lld embedding%s float16 in the job itself where INT8 costs a decibel (--tables int8: "
                                            "never)", n, n == 1 ? " becomes" : "s become"));
}

/* What it gained on two language models in blocks of 32 and 128 stands in docs/passes/gptq.md. */
static qx_status about_sequence(qx_report *r, qx_genre k, const qx_pipeline *p, const qx_samples *samples)
{
    bool solved = false, few_bits = false;
    if (k != QX_GENRE_TEXT || !samples || qx_samples_synthetic(samples) || p->opt->load_stats || p->opt->sequential) return QX_OK;
    for (int i = 0; i < p->n_passes; i++)
        solved = solved || (strcmp(p->passes[i]->def->name, "gptq") == 0 && !qx_opt_bool(p->passes[i], "sequential"));
    for (int64_t i = 0; p->plan && i < p->plan->linears.count; i++) {
        const qx_plan_weight *w = p->plan->items[i].pass ? p->plan->items[i].weight : NULL;
        few_bits = few_bits || (w && (qx_dtype_is_small_int(w->spec.codes) || w->spec.codes == QX_DT_FLOAT4E2M1));
    }
    if (!solved || !few_bits) return QX_OK;
    return add(r, "--sequential makes layers up for those rounded before it: 4 to 12 % less KL on two models, in three times the time");
}

static bool is_recurrence(const char *op) { return strcmp(op, "LSTM") == 0 || strcmp(op, "GRU") == 0 || strcmp(op, "RNN") == 0; }

static bool rounds_activations(const qx_pipeline *p)
{
    bool any = false;
    for (int i = 0; i < p->n_passes; i++) any |= (p->passes[i]->def->flags & QX_PASS_ROUNDS_X) != 0;
    return any;
}

/* The next five decibels above what the worst output has, for --target-sqnr to reach. */
static int next_goal(const qx_report *r)
{
    enum { STEP = 5, LEAST = 20 };
    double worst = INFINITY;
    for (int64_t i = 0; i < r->n_outputs; i++)
        if (!r->outputs[i].note && r->outputs[i].sqnr_db < worst) worst = r->outputs[i].sqnr_db;
    return worst < LEAST || isinf(worst) ? LEAST : STEP * ((int)(worst / STEP) + 1);
}

/* Layers are sorted, the furthest first. A recurrence is no choice of a mix, and its weights no activations. */
static qx_status about_quality(qx_report *r, const qx_pipeline *pipe)
{
    if (r->grade != QX_GRADE_FAR && r->grade != QX_GRADE_DIFFERS) return QX_OK;
    if (r->n_layers && is_recurrence(r->layers[0].op))
        return add(r, qx_arena_printf(r->arena, "furthest is '%s', which adds up at every step what its weights get "
                                                "wrong: --set \"op:%s=float\" keeps them", r->layers[0].name, r->layers[0].op));
    if (rounds_activations(pipe))
        return add(r, qx_arena_printf(r->arena, "more bits where they matter: --target-sqnr %d finds where; --passes int8-weights "
                                                "leaves activations float, --set \"PATTERN=int8-weights\" those of the layers that are "
                                                "furthest", next_goal(r)));
    return add(r, qx_arena_printf(r->arena, "more bits where they matter: --target-sqnr %d finds where, or --set \"PATTERN=int8-weights\" "
                                            "(or =float) for the layers that are furthest", next_goal(r)));
}

static const char *quoted(const char *path) { return strpbrk(path, " '()&;$*?") ? "\"" : ""; } /* as a shell takes it */

/* Of a result that is good: what a language model predicts on text that calibration did not see, of others the speed. Of one that
 * is not, hints say what to do. */
static qx_status about_next(qx_report *r, const qx_quantize_options *opt)
{
    const char *i = quoted(r->input), *o = quoted(r->output);
    if (opt->dry_run || r->grade == QX_GRADE_BROKEN || r->grade == QX_GRADE_FAR || r->grade == QX_GRADE_DIFFERS) return QX_OK;
    if (opt->no_verify) r->next = qx_arena_printf(r->arena, "qonnx compare %s%s%s %s%s%s", i, r->input, i, o, r->output, o);
    else if (!r->all_ran) return QX_OK;
    else if (opt->samples.text)
        r->next = qx_arena_printf(r->arena, "qonnx eval %s%s%s --ref %s%s%s --text OTHER.txt", o, r->output, o, i, r->input, i);
    else r->next = qx_arena_printf(r->arena, "qonnx bench %s%s%s %s%s%s", i, r->input, i, o, r->output, o);
    return r->next ? QX_OK : QX_E_NOMEM;
}

qx_status qx_hints_add(qx_report *report, const qx_model *m, const qx_pipeline *pipe, const qx_quantize_options *opt,
                       const qx_samples *samples)
{
    const qx_genre k = qx_model_genre(m);
    QX_TRY(about_next(report, opt));
    QX_TRY(about_quality(report, pipe));
    QX_TRY(about_samples(report, k, pipe, opt, samples));
    QX_TRY(about_preset(report, k, opt->passes));
    QX_TRY(about_tables(report, pipe, opt));
    QX_TRY(about_mixture(report, pipe));
    QX_TRY(about_half(report, pipe));
    QX_TRY(about_sequence(report, k, pipe, samples));
    return about_tensorrt(report, pipe);
}
