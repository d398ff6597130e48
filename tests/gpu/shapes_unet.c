/* shapes_unet.c - the UNet of SDXL base 1.0, node by node as torch exports it (group norm as instance norm of a reshaped picture,
 * gated GELU with Erf): 2.57 billion parameters. Source: diffusers, UNet2DConditionModel with the config.json of
 * stabilityai/stable-diffusion-xl-base-1.0. */
#include <stdio.h>

#include "tests/gpu/shapes.h"

typedef struct picture { qx_value *v; int64_t ch, side; } picture;
typedef struct unet { builder *b; int64_t batch, base, groups, head, context, words, embedding; qx_value *emb, *text; } unet;

static qx_value *norm(const unet *u, picture x, float eps)
{
    builder *b = u->b;
    qx_value *r = reshape(b, x.v, INTS(0, u->groups, -1));
    qx_value *n = with_float(op(b, "InstanceNormalization", r, filled(b, INTS(u->groups), 1), filled(b, INTS(u->groups), 0), NULL),
                             "epsilon", eps);
    qx_value *y = reshape(b, n, INTS(u->batch, x.ch, x.side, x.side));
    return op(b, "Add", op(b, "Mul", y, filled(b, INTS(x.ch, 1, 1), 1), NULL, NULL), weight(b, INTS(x.ch, 1, 1)), NULL, NULL);
}

static picture conv(const unet *u, qx_value *x, picture like, int64_t out, int64_t kernel, int64_t stride)
{
    builder *b = u->b;
    const int64_t pad = kernel / 2, side = like.side / stride;
    qx_value *y = op(b, "Conv", x, weight(b, INTS(out, like.ch, kernel, kernel)), weight(b, INTS(out)), NULL);
    with_ints(with_ints(with_ints(y, "kernel_shape", INTS(kernel, kernel)), "pads", INTS(pad, pad, pad, pad)), "strides",
              INTS(stride, stride));
    b->flops += 2.0 * (double)u->batch * (double)(side * side) * (double)(out * like.ch) * (double)(kernel * kernel);
    return (picture){y, out, side};
}

static picture resnet(const unet *u, picture x, int64_t out)
{
    builder *b = u->b;
    picture h = conv(u, silu(b, norm(u, x, 1e-5f)), x, out, 3, 1);
    qx_value *t = linear(b, silu(b, u->emb), u->batch, u->embedding, out, true);
    h.v = op(b, "Add", h.v, reshape(b, t, INTS(u->batch, out, 1, 1)), NULL, NULL);
    h = conv(u, silu(b, norm(u, h, 1e-5f)), h, out, 3, 1);
    const picture skip = x.ch == out ? x : conv(u, x.v, x, out, 1, 1);
    h.v = op(b, "Add", skip.v, h.v, NULL, NULL);
    return h;
}

static qx_value *heads(builder *b, qx_value *x, int64_t batch, int64_t rows, int64_t ch, int64_t head)
{
    return transpose(b, reshape(b, x, INTS(batch, rows, ch / head, head)), INTS(0, 2, 1, 3));
}

/* keys: the picture itself, or the text. */
static qx_value *attention(const unet *u, qx_value *x, int64_t rows, int64_t ch, qx_value *keys, int64_t n_keys, int64_t key_ch)
{
    builder *b = u->b;
    qx_value *q = heads(b, linear(b, x, u->batch * rows, ch, ch, false), u->batch, rows, ch, u->head);
    qx_value *k = heads(b, linear(b, keys, u->batch * n_keys, key_ch, ch, false), u->batch, n_keys, ch, u->head);
    qx_value *v = heads(b, linear(b, keys, u->batch * n_keys, key_ch, ch, false), u->batch, n_keys, ch, u->head);
    qx_value *s = op(b, "MatMul", q, transpose(b, k, INTS(0, 1, 3, 2)), NULL, NULL);
    s = op(b, "Mul", s, filled(b, 0, NULL, 0.125f), NULL, NULL);
    qx_value *o = op(b, "MatMul", with_int(op(b, "Softmax", s, NULL, NULL, NULL), "axis", -1), v, NULL, NULL);
    o = reshape(b, transpose(b, o, INTS(0, 2, 1, 3)), INTS(u->batch, rows, ch));
    b->flops += 4.0 * (double)u->batch * (double)rows * (double)n_keys * (double)ch;
    return linear(b, o, u->batch * rows, ch, ch, true);
}

static qx_value *layer_norm(builder *b, qx_value *x, int64_t ch)
{
    return with_float(with_int(op(b, "LayerNormalization", x, filled(b, INTS(ch), 1), weight(b, INTS(ch)), NULL), "axis", -1), "epsilon",
                      1e-5f);
}

static qx_value *half(builder *b, qx_value *x, int64_t from, int64_t to)
{
    return op(b, "Slice", x, ints(b, INTS(from)), ints(b, INTS(to)), ints(b, INTS(2)));
}

static qx_value *gated(const unet *u, qx_value *x, int64_t rows, int64_t ch)
{
    builder *b = u->b;
    qx_value *h = linear(b, x, u->batch * rows, ch, 8 * ch, true), *low = half(b, h, 0, 4 * ch), *high = half(b, h, 4 * ch, 8 * ch);
    qx_value *e = op(b, "Erf", op(b, "Div", high, filled(b, 0, NULL, 1.41421356f), NULL, NULL), NULL, NULL, NULL);
    qx_value *g = op(b, "Mul", op(b, "Mul", high, op(b, "Add", e, filled(b, 0, NULL, 1), NULL, NULL), NULL, NULL),
                     filled(b, 0, NULL, 0.5f), NULL, NULL);
    return linear(b, op(b, "Mul", low, g, NULL, NULL), u->batch * rows, 4 * ch, ch, true);
}

static picture transformer(const unet *u, picture x, int blocks)
{
    builder *b = u->b;
    const int64_t rows = x.side * x.side;
    if (!blocks) return x;
    qx_value *h = reshape(b, transpose(b, norm(u, x, 1e-6f), INTS(0, 2, 3, 1)), INTS(u->batch, rows, x.ch));
    h = linear(b, h, u->batch * rows, x.ch, x.ch, true);
    for (int i = 0; i < blocks; i++) {
        qx_value *n = layer_norm(b, h, x.ch);
        h = op(b, "Add", attention(u, n, rows, x.ch, n, rows, x.ch), h, NULL, NULL);
        h = op(b, "Add", attention(u, layer_norm(b, h, x.ch), rows, x.ch, u->text, u->words, u->context), h, NULL, NULL);
        h = op(b, "Add", gated(u, layer_norm(b, h, x.ch), rows, x.ch), h, NULL, NULL);
    }
    h = reshape(b, linear(b, h, u->batch * rows, x.ch, x.ch, true), INTS(u->batch, x.side, x.side, x.ch));
    return (picture){op(b, "Add", transpose(b, h, INTS(0, 3, 1, 2)), x.v, NULL, NULL), x.ch, x.side};
}

/* [n] to [n, width]: cosines, then sines, of x by falling frequencies. */
static qx_value *waves(const unet *u, qx_value *x, int64_t n, int64_t width)
{
    builder *b = u->b;
    qx_value *p = op(b, "Mul", reshape(b, x, INTS(n, 1)), weight(b, INTS(1, width / 2)), NULL, NULL);
    return with_int(op(b, "Concat", op(b, "Cos", p, NULL, NULL, NULL), op(b, "Sin", p, NULL, NULL, NULL), NULL, NULL), "axis", -1);
}

static qx_value *two_layers(const unet *u, qx_value *x, int64_t in)
{
    return linear(u->b, silu(u->b, linear(u->b, x, u->batch, in, u->embedding, true)), u->batch, u->embedding, u->embedding, true);
}

static void time_embedding(unet *u, int64_t pooled, int64_t wave)
{
    builder *b = u->b;
    qx_value *t = waves(u, op(b, "Expand", input(b, "timestep"), ints(b, INTS(u->batch)), NULL, NULL), u->batch, u->base);
    qx_value *ids = reshape(b, waves(u, reshape(b, input(b, "time_ids"), INTS(6 * u->batch)), 6 * u->batch, wave),
                            INTS(u->batch, 6 * wave));
    qx_value *add = with_int(op(b, "Concat", input(b, "text_embeds"), ids, NULL, NULL), "axis", -1);
    u->emb = op(b, "Add", two_layers(u, t, u->base), two_layers(u, add, pooled + 6 * wave), NULL, NULL);
}

static picture joined(builder *b, picture x, picture skip)
{
    return (picture){with_int(op(b, "Concat", x.v, skip.v, NULL, NULL), "axis", 1), x.ch + skip.ch, x.side};
}

static picture doubled(const unet *u, picture x)
{
    builder *b = u->b;
    qx_weight *w = NULL;
    static const float scales[4] = {1, 1, 2, 2};
    qx_value *s = NULL;
    check(b, qx_weight_from_bytes(b->m, QX_DT_FLOAT, 1, (const int64_t[]){4}, scales, &w));
    check(b, qx_init_add(b->g, "scales", w, &s));
    qx_value *y = op(b, "Resize", x.v, NULL, s, NULL);
    check(b, qx_attr_set_string(y->def, "mode", "nearest"));
    check(b, qx_attr_set_string(y->def, "coordinate_transformation_mode", "asymmetric"));
    check(b, qx_attr_set_string(y->def, "nearest_mode", "floor"));
    x.side *= 2;
    return conv(u, y, (picture){y, x.ch, x.side}, x.ch, 3, 1);
}

static void down_and_up(const unet *u, const int *blocks)
{
    builder *b = u->b;
    const int64_t ch[3] = {u->base, 2 * u->base, 4 * u->base};
    picture x = {input(b, "sample"), 4, 0}, skips[9];
    int n = 0;
    x.side = x.v->type.dims[2].n;
    skips[n++] = x = conv(u, x.v, x, ch[0], 3, 1);
    for (int level = 0; level < 3; level++) {
        for (int i = 0; i < 2; i++) skips[n++] = x = transformer(u, resnet(u, x, ch[level]), blocks[level]);
        if (level < 2) skips[n++] = x = conv(u, x.v, x, ch[level], 3, 2);
    }
    x = resnet(u, transformer(u, resnet(u, x, ch[2]), blocks[2]), ch[2]);
    for (int level = 2; level >= 0; level--) {
        for (int i = 0; i < 3; i++) x = transformer(u, resnet(u, joined(b, x, skips[--n]), ch[level]), blocks[level]);
        if (level > 0) x = doubled(u, x);
    }
    build_output(b, "out_sample", conv(u, silu(b, norm(u, x, 1e-5f)), x, 4, 3, 1).v);
}

void build_unet(builder *b, const char *dir, bool tiny)
{
    static const int full_blocks[3] = {0, 2, 10}, tiny_blocks[3] = {0, 1, 1};
    unet u = {.b = b, .batch = 2, .base = tiny ? 32 : 320, .groups = 32, .head = tiny ? 16 : 64, .context = tiny ? 64 : 2048,
              .words = tiny ? 7 : 77};
    const int64_t side = tiny ? 8 : 128, pooled = tiny ? 40 : 1280, wave = tiny ? 16 : 256;
    char text[768];
    u.embedding = 4 * u.base;
    snprintf(text, sizeof text,
             "<ir_version: 8, opset_import: [\"\" : 17]> unet (float16[2,4,%lld,%lld] sample, float16 timestep, "
             "float16[2,%lld,%lld] encoder_hidden_states, float16[2,%lld] text_embeds,"
             " float16[2,6] time_ids) => (float16[2,4,%lld,%lld] out_sample) { out_sample = Identity(sample) }",
             (long long)side, (long long)side, (long long)u.words, (long long)u.context, (long long)pooled, (long long)side,
                 (long long)side);
    build_start(b, text, 4 * u.base * 8 * u.base * 9);
    u.text = input(b, "encoder_hidden_states");
    time_embedding(&u, pooled, wave);
    down_and_up(&u, tiny ? tiny_blocks : full_blocks);
    build_finish(b, dir, NULL, 0);
}
