/* test_kv_cache.c - caches in 8 and 4 bits: the interface carries codes, a text that is fed token by token gives what the whole text
 * gives, also when the executor carries the caches from run to run, and
 * both are near the float model. One graph as onnxruntime-genai exports it, one as optimum does
 * (tests/data/cache/make.py). */
#include "unit.h"

#include <math.h>

#include "passes/coded.h"
#include "passes/pipeline.h"

#define DATA TEST_SOURCE_DIR "/tests/data/cache/"
enum { TOKENS = 60, PROMPT = 9, VOCAB = 48, HEAD = 16 };

typedef struct feeds { qx_tensor ids, mask, past[4]; int64_t id[TOKENS], one[TOKENS]; } feeds;
static const char *const past_names[4] = {"past_key_values.0.key", "past_key_values.0.value", "past_key_values.1.key",
                                          "past_key_values.1.value"};
static const char *const out_names[5] = {"logits", "present.0.key", "present.0.value", "present.1.key", "present.1.value"};

static void out_path(char *path, size_t cap) { snprintf(path, cap, "/tmp/qonnx_test_kv_%ld.onnx", (long)getpid()); }

static void quantize(qx_ctx *ctx, const char *graph, const char *passes, const char *out, double least_db)
{
    qx_report *r;
    char in[256];
    const char *calib = DATA "ids.npz";
    snprintf(in, sizeof in, DATA "%s.onnx", graph);
    qx_quantize_options o = {.input = in, .output = out, .passes = passes, .force = true};
    o.samples = (qx_samples_options){.paths = &calib, .n_paths = 1};
    OK(qx_report_new(ctx, &r));
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s %s: %s", graph, passes, qx_ctx_error(ctx));
    assert_string_equal(r->outputs[0].name, "logits");
    print_message("%-7s %-28s %.1f dB\n", graph, passes, r->outputs[0].sqnr_db);
    assert_true(r->outputs[0].sqnr_db > least_db);
    for (int64_t i = 1; i < r->n_outputs; i++) assert_true(r->outputs[i].sqnr_db > 15); /* codes count as what they stand for */
    qx_report_free(r);
}

static void no_past(qx_ctx *ctx, feeds *f, const qx_model *m)
{
    for (int i = 0; i < 4; i++) {
        const qx_value *v = qx_graph_find(m->graph, past_names[i]);
        OK(qx_tensor_new(ctx, &f->past[i], v->type.dtype, 4, (int64_t[]){1, 1, 0, v->type.dtype == QX_DT_UINT8 ? HEAD / 2 : HEAD}));
    }
}

/* Tokens [at, at + n); logits to out[n][VOCAB]; the past moves on. */
static void step(qx_ctx *ctx, qx_exec *x, feeds *f, int64_t at, int64_t n, float *out)
{
    qx_feed feed[6] = {{"input_ids", &f->ids}, {"attention_mask", &f->mask}};
    qx_tensor got[5] = {0};
    for (int i = 0; i < 4; i++) feed[2 + i] = (qx_feed){past_names[i], &f->past[i]};
    OK(qx_tensor_shape(ctx, &f->ids, QX_DT_INT64, 2, (int64_t[]){1, n}));
    OK(qx_tensor_shape(ctx, &f->mask, QX_DT_INT64, 2, (int64_t[]){1, at + n}));
    f->ids.data = f->id + at;
    f->mask.data = f->one;
    if (qx_exec_run(x, feed, 6, out_names, 5, got) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
    assert_int_equal(got[0].numel, n * VOCAB);
    memcpy(out, got[0].data, (size_t)got[0].numel * sizeof *out);
    qx_tensor_free(ctx, &got[0]);
    for (int i = 0; i < 4; i++) {
        qx_tensor_free(ctx, &f->past[i]);
        f->past[i] = got[i + 1];
        assert_int_equal(f->past[i].dims[2], at + n);
    }
}

/* All tokens at once, or a prompt and then one by one. Returns what the last run took, with its outputs. */
static size_t logits(qx_ctx *ctx, const char *path, bool single, qx_dtype cache, float *out)
{
    qx_model *m;
    qx_exec *x;
    feeds f = {0};
    OK(qx_model_read(ctx, path, NULL, &m));
    OK(qx_exec_new(ctx, m, NULL, &x));
    for (int i = 0; i < TOKENS; i++) f.id[i] = (i * 17 + 5) % VOCAB, f.one[i] = 1;
    no_past(ctx, &f, m);
    for (int i = 0; i < 4; i++) assert_int_equal(f.past[i].dtype, cache);
    step(ctx, x, &f, 0, single ? PROMPT : TOKENS, out);
    for (int64_t at = PROMPT; single && at < TOKENS; at++) step(ctx, x, &f, at, 1, out + at * VOCAB);
    for (int i = 0; i < 4; i++) qx_tensor_free(ctx, &f.past[i]);
    const size_t bytes = qx_exec_peak_bytes(x);
    qx_exec_free(x);
    qx_model_free(m);
    return bytes;
}

/* The same token by token with caches that the executor carries from run to run: the ids and their mask are all that is fed. Twice, of
 * which the second begins anew. Returns what the last run took. */
static size_t carried(qx_ctx *ctx, const char *path, float *out)
{
    qx_model *m;
    qx_exec *x;
    feeds f = {0};
    OK(qx_model_read(ctx, path, NULL, &m));
    OK(qx_exec_new(ctx, m, NULL, &x));
    for (int i = 0; i < TOKENS; i++) f.id[i] = (i * 17 + 5) % VOCAB, f.one[i] = 1;
    for (int i = 0; i < 4; i++) OK(qx_exec_carry(x, out_names[1 + i], past_names[i]));
    for (int again = 0; again < 2; again++) {
        no_past(ctx, &f, m);
        for (int64_t at = 0, n = PROMPT; at < TOKENS; at += n, n = 1) {
            qx_feed feed[6] = {{"input_ids", &f.ids}, {"attention_mask", &f.mask}};
            qx_tensor got;
            for (int i = 0; i < 4; i++) feed[2 + i] = (qx_feed){past_names[i], &f.past[i]};
            OK(qx_tensor_shape(ctx, &f.ids, QX_DT_INT64, 2, (int64_t[]){1, n}));
            OK(qx_tensor_shape(ctx, &f.mask, QX_DT_INT64, 2, (int64_t[]){1, at + n}));
            f.ids.data = f.id + at;
            f.mask.data = f.one;
            OK(qx_exec_run(x, feed, at ? 2 : 6, out_names, 1, &got));
            memcpy(out + at * VOCAB, got.data, (size_t)got.numel * sizeof *out);
            qx_tensor_free(ctx, &got);
        }
        for (int i = 0; i < 4; i++) qx_tensor_free(ctx, &f.past[i]);
    }
    const size_t bytes = qx_exec_peak_bytes(x);
    qx_exec_free(x);
    qx_model_free(m);
    return bytes;
}

static double decibels(const float *a, const float *b)
{
    double s = 0, d = 0;
    for (int i = 0; i < TOKENS * VOCAB; i++)
        s += (double)a[i] * (double)a[i], d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return d > 0 ? 10 * log10(s / d) : 300;
}

static void same_step_by_step(qx_ctx *ctx, const char *graph, const char *passes, qx_dtype cache, double least)
{
    static float whole[TOKENS * VOCAB], single[TOKENS * VOCAB], exact[TOKENS * VOCAB],
        kept[TOKENS * VOCAB];
    char out[128], in[256];
    out_path(out, sizeof out);
    snprintf(in, sizeof in, DATA "%s.onnx", graph);
    quantize(ctx, graph, passes, out, least);
    logits(ctx, out, false, cache, whole);
    const size_t fed = logits(ctx, out, true, cache, single), stays = carried(ctx, out, kept);
    const size_t caches = TOKENS * HEAD * 4 * (cache == QX_DT_UINT8 ? 1 : 2) / 2;
    assert_memory_equal(kept, single, sizeof kept);
    if (strcmp(graph, "gqa") == 0) assert_true(stays + caches <= fed + 64); /* appended to in place: no run makes them anew */
    logits(ctx, in, true, QX_DT_FLOAT, exact);
    assert_true(decibels(whole, single) > 60); /* codes that were kept are the codes that would be made */
    print_message("        other text, token by token: %.1f dB\n", decibels(exact, single));
    assert_true(decibels(exact, single) > least - 3); /* channel scales from a text this short do not hold for another */
    unlink(out);
}

static void concat_int8(void **state) { same_step_by_step(*state, "concat", "kv-cache", QX_DT_INT8, 35); }
static void concat_channels(void **state) { same_step_by_step(*state, "concat", "kv-cache(scales=channel,rope=off)", QX_DT_INT8, 18); }
static void concat_fp8(void **state) { same_step_by_step(*state, "concat", "kv-cache(fp8)", QX_DT_FLOAT8E4M3FN, 25); }
static void gqa_int8(void **state) { same_step_by_step(*state, "gqa", "kv-cache", QX_DT_INT8, 35); }
static void gqa_fp8(void **state) { same_step_by_step(*state, "gqa", "kv-cache(format=fp8)", QX_DT_FLOAT8E4M3FN, 25); }
static void gqa_channels(void **state) { same_step_by_step(*state, "gqa", "kv-cache(scales=channel,rope=off)", QX_DT_INT8, 18); }
static void gqa_int4(void **state) { same_step_by_step(*state, "gqa", "kv-cache(int4)", QX_DT_UINT8, 16); }
static void carry_refused(void **state)
{
    qx_model *m;
    qx_exec *x;
    qx_tensor got[5];
    OK(qx_model_read(*state, DATA "gqa.onnx", NULL, &m));
    OK(qx_exec_new(*state, m, NULL, &x));
    FAILS(qx_exec_carry(x, "present", past_names[0]), QX_E_USAGE);
    MESSAGE_HAS(*state, "no output 'present'");
    FAILS(qx_exec_carry(x, out_names[1], "past"), QX_E_USAGE);
    MESSAGE_HAS(*state, "no input 'past'");
    FAILS(qx_exec_carry(x, out_names[1], "input_ids"), QX_E_TYPE);
    MESSAGE_HAS(*state, "not tensors of one type");
    OK(qx_exec_carry(x, out_names[1], past_names[0]));
    FAILS(qx_exec_carry(x, out_names[2], past_names[0]), QX_E_USAGE);
    MESSAGE_HAS(*state, "carried already");
    FAILS(qx_exec_run(x, NULL, 0, NULL, 5, got), QX_E_USAGE);
    MESSAGE_HAS(*state, "output 'present.0.key' is carried to the next run");
    qx_exec_free(x);
    qx_model_free(m);
}

static void with_weights(void **state) { same_step_by_step(*state, "gqa", "rotate,kv-cache,int8-weights", QX_DT_INT8, 30); }

static float scale_of(const qx_model *m, const char *name)
{
    float s = 0;
    const qx_value *v = qx_graph_find(m->graph, name);
    assert_non_null(v);
    OK(qx_rows_read(m->ctx, qx_value_const(v), &(qx_view){1, 1, 1, 0}, NULL, 0, 1, &s));
    return s;
}

/* A later position may turn the whole norm of a pair (d, d + half) into one of its elements, so keys have room for it; values are
 * not turned. */
static void room_for_rotation(void **state)
{
    static const char *const passes[] = {"kv-cache(rope=off)", "kv-cache(rope=envelope)"};
    float key[2], value[2];
    char out[128];
    out_path(out, sizeof out);
    for (int i = 0; i < 2; i++) {
        qx_model *m;
        quantize(*state, "gqa", passes[i], out, 30);
        OK(qx_model_read(*state, out, NULL, &m));
        key[i] = scale_of(m, "past_key_values.0.key_scale");
        value[i] = scale_of(m, "past_key_values.0.value_scale");
        qx_model_free(m);
    }
    assert_true(key[1] > key[0] * 1.02f && key[1] <= key[0] * 1.4143f);
    assert_true(value[0] == value[1]);
    unlink(out);
}

static void refused(void **state)
{
    qx_report *r;
    char out[128];
    out_path(out, sizeof out);
    const char *calib = DATA "ids.npz";
    qx_quantize_options o = {.input = DATA "concat.onnx", .output = out, .passes = "kv-cache(int4)", .force = true};
    o.samples = (qx_samples_options){.paths = &calib, .n_paths = 1};
    OK(qx_report_new(*state, &r));
    FAILS(qx_quantize_file(*state, &o, r), QX_E_UNSUPPORTED);
    MESSAGE_HAS(*state, "'past_key_values.0.key' does not go into GroupQueryAttention");
    qx_ctx_clear_error(*state);
    o.input = TEST_SOURCE_DIR "/tests/data/mlp/model.onnx";
    o.passes = "kv-cache,int8-weights";
    o.samples = (qx_samples_options){.random = 2};
    FAILS(qx_quantize_file(*state, &o, r), QX_E_UNSUPPORTED);
    MESSAGE_HAS(*state, "no float cache");
    qx_report_free(r);
}

/* Codes of a cache that came as floats: by the scale that the graph reads it with. */
static void encoding(void **state)
{
    qx_model *m;
    qx_tensor from, to;
    char out[128];
    float scale;
    out_path(out, sizeof out);
    quantize(*state, "concat", "kv-cache", out, 30);
    OK(qx_model_read(*state, out, NULL, &m));
    const qx_value *past = qx_graph_find(m->graph, past_names[1]);
    qx_coded c;
    assert_true(qx_coded_input(past, &c));
    OK(qx_weight_read_f32(*state, c.scale, 0, 1, &scale));
    OK(qx_tensor_new(*state, &from, QX_DT_FLOAT, 4, (int64_t[]){1, 1, 1, HEAD}));
    for (int i = 0; i < HEAD; i++) ((float *)from.data)[i] = scale * ((float)(i * 20) - 150.4f);
    OK(qx_coded_encode(*state, &c, &from, &to));
    for (int i = 0; i < HEAD; i++) {
        const double x = (double)(((float *)from.data)[i] / scale);
        assert_int_equal(((int8_t *)to.data)[i], (int)fmin(fmax(rint(x), -128), 127));
    }
    assert_false(qx_coded_input(qx_graph_find(m->graph, "input_ids"), &c));
    qx_tensor_free(*state, &from);
    qx_tensor_free(*state, &to);
    qx_model_free(m);
    unlink(out);
}

/* Two codes a byte, a scale for each of 2 heads and 4 channels. */
static void encoding_of_four_bits(void **state)
{
    enum { BATCH = 2, HEADS = 2, ROWS = 3, D = 4, N = BATCH * HEADS * ROWS * D };
    static const char text[] = "<ir_version: 10, opset_import: [\"\" : 21, \"com.microsoft\" : 1]> g (float[2,1,16] q, float[2,1,8] k, float[2,1,8] v, "
        "uint8[2,2,3,2] pk, uint8[2,2,3,2] pv, int32[2] len, int32 all) => (y, ck, cv) "
        "<float[1,2,1,4] s = {0.5, 1, 2, 4, 0.25, 0.125, 8, 16}> { y, ck, cv = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, "
        "k_quant_type = \"PER_CHANNEL\", v_quant_type = \"PER_CHANNEL\", kv_cache_bit_width = 4> (q, k, v, pk, pv, len, all, , , , , , s, s) }";
    static const float scale[HEADS][D] = {{0.5f, 1, 2, 4}, {0.25f, 0.125f, 8, 16}};
    qx_model *m;
    qx_tensor from, to, back;
    qx_coded c;
    OK(qx_model_parse_text(*state, text, &m));
    assert_true(qx_coded_input(qx_graph_find(m->graph, "pk"), &c));
    assert_int_equal(c.codes, QX_DT_UINT4);
    OK(qx_tensor_new(*state, &from, QX_DT_FLOAT, 4, (int64_t[]){BATCH, HEADS, ROWS, D}));
    for (int i = 0; i < N; i++) ((float *)from.data)[i] = (float)((i * 7) % 23 - 11) * scale[i / (ROWS * D) % HEADS][i % D] * 0.9f;
    OK(qx_coded_encode(*state, &c, &from, &to));
    assert_int_equal(to.dims[3], D / 2);
    assert_int_equal(to.dtype, QX_DT_UINT8);
    OK(qx_coded_decode(*state, &c, &to, &back));
    for (int i = 0; i < N; i++) {
        const float s = scale[i / (ROWS * D) % HEADS][i % D], code = fminf(fmaxf(rintf(((float *)from.data)[i] / s), -8), 7);
        assert_int_equal(((uint8_t *)to.data)[i / 2] >> i % 2 * 4 & 15, (int)code + 8);
        assert_true(((float *)back.data)[i] == code * s);
    }
    qx_tensor_free(*state, &from);
    qx_tensor_free(*state, &to);
    qx_tensor_free(*state, &back);
    qx_model_free(m);
}

/* A model in float64 that became one in float32 is fed what the first one is fed. */
static void doubles_become_floats(void **state)
{
    qx_model *m;
    double x[4] = {0.5, -2, 1e-3, 7};
    const qx_tensor t = {.dtype = QX_DT_DOUBLE, .rank = 1, .dims = {4}, .numel = 4, .bytes = sizeof x, .data = x};
    const qx_feed in = {"x", &t};
    qx_feed out;
    qx_tensor made = {0};
    OK(qx_model_parse_text(*state, "<ir_version: 8, opset_import: [\"\": 17]> g (float[4] x) => (float[4] y) { y = Neg (x) }", &m));
    OK(qx_coded_feeds(*state, m, &in, 1, &out, &made));
    assert_int_equal(out.tensor->dtype, QX_DT_FLOAT);
    for (int i = 0; i < 4; i++) assert_true(((const float *)out.tensor->data)[i] == (float)x[i]);
    qx_tensor_free(*state, &made);
    qx_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(concat_int8), TEST(concat_channels), TEST(concat_fp8), TEST(gqa_int8), TEST(gqa_fp8), TEST(gqa_int4), TEST(gqa_channels),
                                       TEST(with_weights), TEST(carry_refused), TEST(room_for_rotation), TEST(refused), TEST(encoding), TEST(encoding_of_four_bits),
                                       TEST(doubles_become_floats)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
