/* shapes.c - see shapes.h. gpu_shapes KIND DIR [tiny|full] [NUMBERS...] writes one model:
 *   unet DIR SIZE                      SDXL's UNet: two samples (guidance) of 128 x 128 latents
 *   llama DIR SIZE LAYERS TOKENS PAST  decoder layers of Llama 8B with grouped heads and caches
 *   products DIR SIZE ROWS N           products of [ROWS, N] by [N, N], what the libraries' best rate is measured with
 * gpu_shapes check PLUGIN_DIR goes through all of them at full size with the host form of the plugin, without computing anything. */
#include "tests/gpu/shapes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/data/samples.h"
#include "runtime/exec.h"

void check(const builder *b, qx_status st)
{
    if (st == QX_OK) return;
    fprintf(stderr, "gpu_shapes: %s\n", qx_ctx_error(b->ctx));
    exit(1);
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Four 16-bit uniforms of one draw make a number that is close to normal. */
static float next_normal(uint64_t *state)
{
    const uint64_t r = next_random(state);
    const float sum = (float)(r & 0xffff) + (float)(r >> 16 & 0xffff) + (float)(r >> 32 & 0xffff) + (float)(r >> 48);
    return (sum / 65536.0f - 2.0f) * 1.7320508f;
}

/* The numbers are made in a table of 1 Mi that is then repeated: windows start anywhere in it. */
void build_start(builder *b, const char *text, int64_t biggest)
{
    enum { TABLE = 1 << 20 };
    uint64_t state = 1;
    check(b, qx_model_parse_text(b->ctx, text, &b->m));
    b->g = b->m->graph;
    b->n_numbers = biggest + TABLE;
    b->numbers = malloc((size_t)b->n_numbers * sizeof *b->numbers);
    if (!b->numbers) check(b, qx_fail(b->ctx, QX_E_NOMEM, "no memory for %lld numbers", (long long)b->n_numbers));
    for (int64_t i = 0; i < TABLE; i++) {
        const float v = 0.02f * next_normal(&state);
        qx_from_f32(QX_DT_FLOAT16, &v, 1, &b->numbers[i]);
    }
    for (int64_t i = TABLE; i < b->n_numbers; i++) b->numbers[i] = b->numbers[i - TABLE];
}

qx_value *input(const builder *b, const char *name) { return qx_graph_find(b->g, name); }

qx_value *op(builder *b, const char *type, qx_value *x, qx_value *y, qx_value *z, qx_value *u)
{
    qx_value *in[4] = {x, y, z, u};
    char name[64];
    const char *out[1] = {name};
    qx_node *n = NULL;
    uint32_t n_in = 4;
    while (n_in > 1 && !in[n_in - 1]) n_in--;
    snprintf(name, sizeof name, "%.40s_%d", type, b->serial++);
    const bool ms = strcmp(type, "GroupQueryAttention") == 0 || strcmp(type, "SkipSimplifiedLayerNormalization") == 0;
    const qx_node_spec spec = {.op_type = type, .domain = ms ? "com.microsoft" : "", .name = name, .in = in, .n_in = n_in,
                               .out_names = out, .n_out = 1};
    check(b, qx_node_add(b->g, &spec, NULL, &n));
    return n->out[0];
}

static qx_value *attr(qx_value *v, qx_status st)
{
    const builder b = {.ctx = v->graph->model->ctx};
    check(&b, st);
    return v;
}

qx_value *with_int(qx_value *v, const char *name, int64_t i) { return attr(v, qx_attr_set_int(v->def, name, i)); }
qx_value *with_float(qx_value *v, const char *name, float f) { return attr(v, qx_attr_set_float(v->def, name, f)); }
qx_value *with_ints(qx_value *v, const char *name, int n, const int64_t *i) { return attr(v, qx_attr_set_ints(v->def, name, i, n)); }

static qx_value *add_init(builder *b, qx_weight *w)
{
    char name[32];
    qx_value *v = NULL;
    snprintf(name, sizeof name, "w_%d", b->serial++);
    check(b, qx_init_add(b->g, name, w, &v));
    return v;
}

/* The content is not copied: it is a window of the numbers. */
qx_value *weight(builder *b, int rank, const int64_t *dims)
{
    qx_weight *w = NULL;
    uint64_t state = (uint64_t)b->serial;
    check(b, qx_weight_from_bytes(b->m, QX_DT_FLOAT16, 1, (const int64_t[]){0}, "", &w));
    w->rank = rank;
    w->dims = qx_arena_memdup(b->m->arena, dims, (size_t)rank * sizeof *dims);
    w->numel = 1;
    for (int i = 0; i < rank; i++) w->numel *= dims[i];
    w->bytes = (size_t)w->numel * sizeof *b->numbers;
    const int64_t room = b->n_numbers - w->numel;
    if (room < 0)
        check(b, qx_fail(b->ctx, QX_E_FAIL, "a weight of %lld elements, %lld were announced", (long long)w->numel,
                         (long long)b->n_numbers));
    w->src = (qx_source){.kind = QX_SRC_BYTES, .bytes = b->numbers + next_random(&state) % ((uint64_t)room + 1),
                         .length = (int64_t)w->bytes};
    b->parameters += w->numel;
    return add_init(b, w);
}

qx_value *filled(builder *b, int rank, const int64_t *dims, float v)
{
    qx_weight *w = NULL;
    uint16_t code, *all = NULL;
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= dims[i];
    qx_from_f32(QX_DT_FLOAT16, &v, 1, &code);
    check(b, qx_alloc_array(b->ctx, (size_t)n, sizeof *all, (void **)&all));
    for (int64_t i = 0; i < n; i++) all[i] = code;
    check(b, qx_weight_from_bytes(b->m, QX_DT_FLOAT16, rank, dims, all, &w));
    qx_free(b->ctx, all);
    return add_init(b, w);
}

qx_value *ints(builder *b, int n, const int64_t *v)
{
    const int64_t dims[1] = {n};
    qx_weight *w = NULL;
    check(b, qx_weight_from_bytes(b->m, QX_DT_INT64, 1, dims, v, &w));
    return add_init(b, w);
}

qx_value *reshape(builder *b, qx_value *x, int rank, const int64_t *dims) { return op(b, "Reshape", x, ints(b, rank, dims), NULL, NULL); }
qx_value *transpose(builder *b, qx_value *x, int rank, const int64_t *perm)
{
    return with_ints(op(b, "Transpose", x, NULL, NULL, NULL), "perm", rank, perm);
}

qx_value *linear(builder *b, qx_value *x, int64_t rows, int64_t in, int64_t out, bool bias)
{
    qx_value *y = op(b, "MatMul", x, weight(b, INTS(in, out)), NULL, NULL);
    b->flops += 2.0 * (double)rows * (double)in * (double)out;
    return bias ? op(b, "Add", weight(b, INTS(out)), y, NULL, NULL) : y;
}

qx_value *silu(builder *b, qx_value *x) { return op(b, "Mul", x, op(b, "Sigmoid", x, NULL, NULL, NULL), NULL, NULL); }

void build_output(builder *b, const char *name, qx_value *y)
{
    qx_value *placeholder = input(b, name);
    qx_node *n = placeholder->def;
    check(b, qx_output_rewire(placeholder, y));
    check(b, qx_node_erase(n));
}

static void sample_of(const builder *b, const qx_value *v, const fixed_input *fixed, int n_fixed, uint64_t *state, qx_tensor *t)
{
    int64_t dims[QX_MAX_RANK], whole = 0;
    for (int i = 0; i < v->type.rank; i++) dims[i] = v->type.dims[i].n;
    for (int i = 0; i < n_fixed; i++)
        if (strcmp(fixed[i].name, v->name) == 0) whole = fixed[i].value;
    check(b, qx_tensor_new(b->ctx, t, v->type.dtype, v->type.rank, dims));
    for (int64_t i = 0; i < t->numel; i++) {
        const float f = next_normal(state);
        if (v->type.dtype == QX_DT_INT64) ((int64_t *)t->data)[i] = whole;
        else if (v->type.dtype == QX_DT_INT32) ((int32_t *)t->data)[i] = (int32_t)whole;
        else qx_from_f32(v->type.dtype, &f, 1, (char *)t->data + (size_t)i * (t->bytes / (size_t)t->numel));
    }
}

enum { MOST = 256 }; /* inputs, and outputs */

static void run_through(const builder *b, const char *const *names, const qx_tensor *t, int n)
{
    const qx_exec_options o = {.device = QX_DEVICE_CUDA, .device_index = 1, .plugin_dir = b->plugin};
    const int n_out = (int)b->g->n_outputs;
    qx_exec *x = NULL;
    qx_feed feeds[MOST];
    qx_tensor out[MOST];
    if (n_out > MOST) check(b, qx_fail(b->ctx, QX_E_FAIL, "%d outputs", n_out));
    for (int i = 0; i < n; i++) feeds[i] = (qx_feed){names[i], &t[i]};
    check(b, qx_exec_new(b->ctx, b->m, &o, &x));
    for (int again = 0; again < 2; again++) { /* blocks one by one, then the arena */
        check(b, qx_exec_run(x, feeds, n, NULL, n_out, out));
        for (int i = 0; i < n_out; i++) qx_tensor_free(b->ctx, &out[i]);
    }
    qx_exec_free(x);
}

static void write_files(const builder *b, const char *dir, const char *const *names, const qx_tensor *t, int n)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/model.onnx", dir);
    const qx_write_options w = {.external_data = true, .force = true};
    qx_write_result r;
    check(b, qx_model_write(b->m, path, &w, &r));
    snprintf(path, sizeof path, "%s/sample.npz", dir);
    check(b, qx_npz_write(b->ctx, path, names, t, n));
}

void build_finish(builder *b, const char *dir, const fixed_input *fixed, int n_fixed)
{
    const char *names[MOST];
    qx_tensor t[MOST];
    uint64_t state = 7;
    const int n = (int)b->g->n_inputs;
    if (n > MOST) check(b, qx_fail(b->ctx, QX_E_FAIL, "%d inputs", n));
    check(b, qx_infer_shapes(b->m, NULL, 0));
    for (int i = 0; i < n; i++) {
        names[i] = b->g->inputs[i]->name;
        sample_of(b, b->g->inputs[i], fixed, n_fixed, &state, &t[i]);
    }
    if (b->plugin) run_through(b, names, t, n);
    else write_files(b, dir, names, t, n);
    for (int i = 0; i < n; i++) qx_tensor_free(b->ctx, &t[i]);
    printf("{\"parameters\": %lld, \"flops\": %.0f}\n", (long long)b->parameters, b->flops);
    qx_model_free(b->m);
    free(b->numbers);
}

/* Little goes in and out, so that neither is what takes the time: a constant x plus one number, PRODUCTS products by one square
 * weight, one element of the result. */
void build_products(builder *b, const char *dir, int64_t rows, int64_t n)
{
    enum { PRODUCTS = 4 };
    char text[160];
    snprintf(text, sizeof text, "<ir_version: 8, opset_import: [\"\" : 17]> products (float16[1,1] x) => (float16[1,1] y) { y = "
                                "Identity(x) }");
    build_start(b, text, n * (n > rows ? n : rows));
    qx_value *h = op(b, "Add", weight(b, INTS(rows, n)), input(b, "x"), NULL, NULL), *w = weight(b, INTS(n, n));
    for (int i = 0; i < PRODUCTS; i++) h = op(b, "MatMul", h, w, NULL, NULL);
    b->flops = PRODUCTS * 2.0 * (double)rows * (double)n * (double)n;
    build_output(b, "y", op(b, "Slice", h, ints(b, INTS(0, 0)), ints(b, INTS(1, 1)), ints(b, INTS(0, 1))));
    build_finish(b, dir, NULL, 0);
}

static int64_t number(int argc, char **argv, int i) { return i < argc ? strtoll(argv[i], NULL, 10) : 0; }

/* Everything that run.sh times, at full size, and products of codes. */
static void check_all(qx_ctx *ctx, const char *plugin)
{
    enum { KINDS = 5 };
    for (int kind = 0; kind < KINDS; kind++) {
        builder b = {.ctx = ctx, .plugin = plugin};
        if (kind == 0) build_unet(&b, NULL, false);
        if (kind == 1) build_llama(&b, NULL, false, 2, 2048, 0);
        if (kind == 2) build_llama(&b, NULL, false, 2, 1, 2048);
        if (kind == 3) build_products(&b, NULL, 8192, 8192);
        if (kind == 4) build_codes(&b, NULL);
    }
}

int main(int argc, char **argv)
{
    builder b = {.ctx = qx_ctx_new(NULL)};
    const char *kind = argc > 3 ? argv[1] : "", *dir = argc > 3 ? argv[2] : "";
    const bool tiny = argc > 3 && strcmp(argv[3], "tiny") == 0;
    const int64_t n[3] = {number(argc, argv, 4), number(argc, argv, 5), number(argc, argv, 6)};
    if (!b.ctx) return 1;
    if (argc == 3 && strcmp(argv[1], "check") == 0) check_all(b.ctx, argv[2]);
    else if (strcmp(kind, "unet") == 0 && argc == 4) build_unet(&b, dir, tiny);
    else if (strcmp(kind, "llama") == 0 && argc == 7 && n[0] > 0 && n[1] > 0 && n[2] >= 0) build_llama(&b, dir, tiny, n[0], n[1], n[2]);
    else if (strcmp(kind, "products") == 0 && argc == 6 && n[0] > 0 && n[1] > 0) build_products(&b, dir, n[0], n[1]);
    else {
        fprintf(stderr, "usage: gpu_shapes unet DIR tiny|full | llama DIR tiny|full LAYERS TOKENS PAST | products DIR full ROWS N "
                        "| check PLUGIN_DIR\n");
        return 2;
    }
    qx_ctx_free(b.ctx);
    return 0;
}
