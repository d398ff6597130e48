/* Scores by the user's networks: small graphs whose answers are known stand in for LPIPS and CLIP. */
#include "unit.h"

#include <math.h>

#include "onnx/infer/infer.h"
#include "onnx/file/io.h"
#include "samples/qonnx-sdxl/score.h"

#define HEAD "<ir_version: 8, opset_import: [\"\" : 17]>\n"
/* mean((a - b)^2) over pixels in -1..1 */
#define DISTANCE HEAD "g (float[1,3,h,w] in0, float[1,3,h,w] in1) => (float[] d) { s = Sub (in0, in1) q = Mul (s, s) d = ReduceMean <keepdims = 0> (q) }"
/* picture: mean colour; text: (1, 0, 0), whatever it says */
#define PICTURE "p = GlobalAveragePool (pixel_values) image_embeds = Reshape (p, shape)"
#define TEXT "i = Cast <to = 1> (input_ids) m = ReduceMin <axes = [1]> (i) z = Mul (m, zero) text_embeds = Add (z, one)"
#define CONSTANTS "float[1] zero = {0}, float[1,3] one = {1, 0, 0}, int64[2] shape = {1, 3}"
#define JOINT HEAD "g (float[1,3,8,8] pixel_values, int64[1,n] input_ids, int64[1,n] attention_mask) => (float[1,3] image_embeds, float[1,3] text_embeds) <" CONSTANTS "> { " PICTURE " " TEXT " }"
#define PICTURE_SIDE HEAD "g (float[1,3,8,8] pixel_values) => (float[1,3] image_embeds) <" CONSTANTS "> { " PICTURE " }"
#define TEXT_SIDE HEAD "g (int32[1,n] input_ids) => (float[1,3] text_embeds) <" CONSTANTS "> { " TEXT " }"

static const char *path_of(const char *name)
{
    static char path[4][128];
    static int at;
    char *p = path[at++ % 4];
    snprintf(p, sizeof *path, "/tmp/qonnx_test_score_%ld_%s.onnx", (long)getpid(), name);
    return p;
}

static const char *write_model(qx_ctx *ctx, const char *name, const char *text)
{
    qx_model *m;
    const char *path = path_of(name);
    if (qx_model_parse_text(ctx, text, &m) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
    if (qx_model_write(m, path, &(qx_write_options){.force = true}, NULL) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
    qx_model_free(m);
    return path;
}

typedef struct scene { sx_shot ref, test; sx_batch a, b; sx_pair pair; sx_comparison c; sx_folder f; } scene;

/* One pair: red against a slightly darker red, 10 x 16 pixels. */
static void make_scene(scene *s)
{
    sx_err e;
    *s = (scene){.pair = {.lpips = NAN, .clip_ref = NAN, .clip = NAN}};
    assert_int_equal(sx_image_new(&e, 10, 16, 0xFF3300, &s->ref.picture), SX_OK);
    assert_int_equal(sx_image_new(&e, 10, 16, 0xCC3300, &s->test.picture), SX_OK);
    s->ref.prompt = s->test.prompt = "a red circle";
    s->a.shots = &s->ref;
    s->b.shots = &s->test;
    s->f.tokenizer = TEST_SOURCE_DIR "/samples/models/micro-sdxl/tokenizer";
    s->c = (sx_comparison){.ref = &s->a, .test = &s->b, .pairs = &s->pair, .n = 1, .mean_lpips = NAN, .mean_clip_ref = NAN,
                           .mean_clip = NAN};
}

static int score(scene *s, sx_err *e, sx_options o)
{
    qonnx_ctx *q = qonnx_open();
    const int rc = sx_score_pairs(e, &o, q, &s->f, &s->c);
    qonnx_close(q);
    sx_image_free(&s->ref.picture);
    sx_image_free(&s->test.picture);
    return rc;
}

/* 100 cos of CLIP's normalised colour with (1, 0, 0). */
static double expected_clip(double r, double g, double b)
{
    const double x = (r - 0.48145466) / 0.26862954, y = (g - 0.4578275) / 0.26130258, z = (b - 0.40821073) / 0.27577711;
    return 100 * x / sqrt(x * x + y * y + z * z);
}

static void distance(void **state)
{
    scene s;
    sx_err e = {0};
    make_scene(&s);
    if (score(&s, &e, (sx_options){.lpips = write_model(*state, "lpips", DISTANCE)}) != SX_OK) fail_msg("%s", e.text);
    const double d = 2 * (0xFF - 0xCC) / 255.0;
    assert_true(fabs(s.pair.lpips - d * d / 3) < 1e-6 && fabs(s.c.mean_lpips - d * d / 3) < 1e-6);
    assert_true(isnan(s.c.mean_clip));
}

static void agreement(void **state)
{
    for (int joint = 0; joint < 2; joint++) {
        scene s;
        sx_err e = {0};
        make_scene(&s);
        const sx_options o = {.clip = write_model(*state, "clip", joint ? JOINT : PICTURE_SIDE),
                              .clip_text = joint ? NULL : write_model(*state, "text", TEXT_SIDE)};
        if (score(&s, &e, o) != SX_OK) fail_msg("%s", e.text);
        assert_true(fabs(s.pair.clip_ref - expected_clip(1, 0.2, 0)) < 1e-3);
        assert_true(fabs(s.pair.clip - expected_clip(0.8, 0.2, 0)) < 1e-3);
        assert_true(s.c.mean_clip_ref > s.c.mean_clip && isnan(s.c.mean_lpips));
    }
}

static void expect(scene *s, sx_options o, int code, const char *part)
{
    sx_err e = {0};
    make_scene(s);
    const int rc = score(s, &e, o);
    if (rc != code) fail_msg("%d: %s", rc, e.text);
    if (!strstr(e.text, part)) fail_msg("'%s' lacks '%s'", e.text, part);
}

static void refused(void **state)
{
    scene s;
    const char *text = write_model(*state, "text", TEXT_SIDE), *picture = write_model(*state, "clip", PICTURE_SIDE),
        *lpips = write_model(*state, "lpips", DISTANCE);
    expect(&s, (sx_options){.lpips = picture}, SX_UNSUPPORTED,
           "expected two pictures [1,3,H,W] and one output; the graph takes: pixel_values f32[1,3,8,8]");
    expect(&s, (sx_options){.clip_text = text}, SX_USAGE, "--clip-text needs --clip");
    expect(&s, (sx_options){.clip = lpips}, SX_UNSUPPORTED, "in0");
    expect(&s, (sx_options){.clip = picture}, SX_UNSUPPORTED, "text_embeds");
    expect(&s, (sx_options){.lpips = "/nonexistent.onnx"}, SX_FAILED, "/nonexistent.onnx");
}

static int remove_files(void **state)
{
    (void)state;
    unlink(path_of("lpips"));
    unlink(path_of("clip"));
    unlink(path_of("text"));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(distance), TEST(agreement), TEST(refused)};
    return cmocka_run_group_tests(tests, NULL, remove_files);
}
