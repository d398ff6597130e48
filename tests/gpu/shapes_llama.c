/* shapes_llama.c - decoder layers of Llama 3 8B (4096 wide, 32 heads over 8 key heads of 128, 14336 inside, 128256 words) with
 * key and value caches, as ONNX Runtime's model builder writes them: GroupQueryAttention with rotary tables, simplified layer
 * norm. Source: the config.json of meta-llama/Meta-Llama-3-8B. */
#include <stdio.h>
#include <string.h>

#include "tests/gpu/shapes.h"

typedef struct llama { builder *b; int64_t hidden, heads, kv_heads, head, inner, words, tokens, past; qx_value *cos, *sin; } llama;

static qx_value *rms(builder *b, qx_value *x, int64_t ch)
{
    return with_float(with_int(op(b, "SimplifiedLayerNormalization", x, filled(b, INTS(ch), 1), NULL, NULL), "axis", -1), "epsilon", 1e-5f);
}

static qx_value *attention(const llama *l, qx_value *q, qx_value *k, qx_value *v, int64_t layer)
{
    builder *b = l->b;
    char name[4][40];
    const char *out[3] = {name[0], "present_key", "present_value"};
    qx_node *n = NULL;
    snprintf(name[0], sizeof name[0], "attention_%lld", (long long)layer);
    snprintf(name[1], sizeof name[1], "past_key_%lld", (long long)layer);
    snprintf(name[2], sizeof name[2], "past_value_%lld", (long long)layer);
    const bool cached = l->past > 0;
    qx_value *in[9] = {q, k, v, cached ? input(b, name[1]) : NULL, cached ? input(b, name[2]) : NULL, input(b, "seqlens_k"),
                       input(b, "total_sequence_length"), l->cos, l->sin};
    const qx_node_spec spec = {.op_type = "GroupQueryAttention", .domain = "com.microsoft", .name = name[0], .in = in, .n_in = 9,
                               .out_names = out, .n_out = 3};
    check(b, qx_node_add(b->g, &spec, NULL, &n));
    with_int(with_int(with_int(n->out[0], "num_heads", l->heads), "kv_num_heads", l->kv_heads), "do_rotary", 1);
    b->flops += 4.0 * (double)l->tokens * (double)(l->past + l->tokens) * (double)(l->heads * l->head);
    snprintf(name[3], sizeof name[3], "present_key_%lld", (long long)layer);
    build_output(b, name[3], n->out[1]);
    snprintf(name[3], sizeof name[3], "present_value_%lld", (long long)layer);
    build_output(b, name[3], n->out[2]);
    return n->out[0];
}

static qx_value *layer(const llama *l, qx_value *x, int64_t i)
{
    builder *b = l->b;
    const int64_t kv = l->kv_heads * l->head;
    qx_value *n = rms(b, x, l->hidden);
    qx_value *q = linear(b, n, l->tokens, l->hidden, l->hidden, false), *k = linear(b, n, l->tokens, l->hidden, kv, false),
        *v = linear(b, n, l->tokens, l->hidden, kv, false);
    x = op(b, "Add", x, linear(b, attention(l, q, k, v, i), l->tokens, l->hidden, l->hidden, false), NULL, NULL);
    n = rms(b, x, l->hidden);
    qx_value *gate = silu(b, linear(b, n, l->tokens, l->hidden, l->inner, false)),
        *up = linear(b, n, l->tokens, l->hidden, l->inner, false);
    return op(b, "Add", x, linear(b, op(b, "Mul", gate, up, NULL, NULL), l->tokens, l->inner, l->hidden, false), NULL, NULL);
}

/* The text of inputs and outputs: ids, lengths, and two caches a layer. */
static void interface(const llama *l, int64_t layers, char *text, size_t cap)
{
    const long long total = (long long)(l->past + l->tokens), kv = (long long)l->kv_heads, head = (long long)l->head;
    size_t n = (size_t)snprintf(text, cap, "<ir_version: 8, opset_import: [\"\" : 17, \"com.microsoft\" : 1]> llama "
                                           "(int64[1,%lld] input_ids, int32[1,1] seqlens_k, int32[1] total_sequence_length",
                                (long long)l->tokens);
    for (long long i = 0; l->past && i < layers; i++)
        n += (size_t)snprintf(text + n, cap - n, ", float16[1,%lld,%lld,%lld] past_key_%lld, float16[1,%lld,%lld,%lld] past_value_%lld",
                              kv, (long long)l->past, head, i, kv, (long long)l->past, head, i);
    n += (size_t)snprintf(text + n, cap - n, ") => (float16[1,1,%lld] logits", (long long)l->words);
    for (long long i = 0; i < layers; i++)
        n += (size_t)snprintf(text + n, cap - n,
                              ", float16[1,%lld,%lld,%lld] present_key_%lld, float16[1,%lld,%lld,%lld] present_value_%lld", kv, total,
                              head, i, kv, total, head, i);
    n += (size_t)snprintf(text + n, cap - n, ") { logits = Identity(input_ids)");
    for (long long i = 0; i < layers; i++)
        n += (size_t)snprintf(text + n, cap - n, " present_key_%lld = Identity(input_ids) present_value_%lld = Identity(input_ids)", i, i);
    snprintf(text + n, cap - n, " }");
}

void build_llama(builder *b, const char *dir, bool tiny, int64_t layers, int64_t tokens, int64_t past)
{
    static char text[1 << 16];
    llama l = {.b = b, .hidden = 4096, .heads = 32, .kv_heads = 8, .head = 128, .inner = 14336, .words = 128256, .tokens = tokens,
               .past = past};
    if (tiny)
        l = (llama){.b = b, .hidden = 64, .heads = 4, .kv_heads = 2, .head = 16, .inner = 128, .words = 500, .tokens = tokens,
                    .past = past};
    if (layers > 64) check(b, qx_fail(b->ctx, QX_E_USAGE, "at most 64 layers"));
    interface(&l, layers, text, sizeof text);
    build_start(b, text, l.words * l.hidden);
    l.cos = weight(b, INTS(past + tokens, l.head / 2));
    l.sin = weight(b, INTS(past + tokens, l.head / 2));
    qx_value *x = op(b, "Gather", weight(b, INTS(l.words, l.hidden)), input(b, "input_ids"), NULL, NULL);
    for (int64_t i = 0; i < layers; i++) x = layer(&l, x, i);
    x = op(b, "Slice", rms(b, x, l.hidden), ints(b, INTS(-1)), ints(b, INTS(tokens)), ints(b, INTS(1))); /* the last token only */
    build_output(b, "logits", linear(b, x, 1, l.hidden, l.words, false));
    const fixed_input fixed[] = {{"input_ids", 11}, {"seqlens_k", past + tokens - 1}, {"total_sequence_length", past + tokens}};
    build_finish(b, dir, fixed, 3);
}
