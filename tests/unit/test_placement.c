/* test_placement.c - where codes go: one row a graph, with what is decided for its operators and which of them read a DequantizeLinear.
 * Nodes, scales and types of the written graph are golden tests; here are the rules of sizes, names and residual Adds, one row each. */
#include "rewrite.h"

typedef struct row {
    const char *what, *options, *graph;
    const char *decided; /* "/c/Conv few channels; /big/MatMul fp8": how each decision begins; NULL: not looked at */
    /* "/c/Conv 2 /add 1": inputs that come from DequantizeLinear, for every other node that has some; NULL: not looked at */
    const char *fed;
} row;

/* ---- sizes -------------------------------------------------------------------------------------------------------------------- */

#define BIG "[\"/big/MatMul\"] z = MatMul(x2, w2)" /* something is quantized in each graph */
#define CONV(oc, ic, kh, kw) "g (float[1," #ic ",8,8] x, float[4,32] x2) => (y, z) <float[" #oc "," #ic "," #kh "," #kw "] w = random(1), float[32,32] w2 = random(2)> " \
    "{ [\"/c/Conv\"] y = Conv(x, w) " BIG " }"
#define MATMUL(m, k, n) "g (float[" #m "," #k "] x, float[4,32] x2) => (y, z) <float[" #k "," #n "] w = random(1), float[32,32] w2 = random(2)> { [\"/fc/MatMul\"] y = MatMul(x, w) " BIG " }"
#define GEMM(k, dims, trans) "g (float[4," #k "] x, float[4,32] x2) => (y, z) <float[" dims "] w = random(1), float[32,32] w2 = random(2)> { [\"/fc/Gemm\"] y = Gemm<transB=" #trans ">(x, w) " BIG " }"
#define FP8_KEPT(oc, ic) {"channels " #oc " " #ic, "fp8", CONV(oc, ic, 3, 3), "/c/Conv few channels: " #oc " and " #ic "; /big/MatMul fp8", "/big/MatMul 2 "}
#define FP8_TAKEN(oc, ic) {"channels " #oc " " #ic, "fp8", CONV(oc, ic, 3, 3), "/c/Conv fp8; /big/MatMul fp8", "/c/Conv 2 /big/MatMul 2 "}
#define INT8_CONV(oc, ic, kh, kw, kept) {"channels " #oc " " #ic " " #kh "x" #kw, "int8", CONV(oc, ic, kh, kw), "/c/Conv " kept, NULL}
#define SIZE_KEPT(m, k, n, why) {"MatMul " #m " " #k " " #n, "int8", MATMUL(m, k, n), "/fc/MatMul small " why, "/big/MatMul 2 "}
#define SIZE_TAKEN(m, k, n) {"MatMul " #m " " #k " " #n, "int8", MATMUL(m, k, n), "/fc/MatMul int8", "/fc/MatMul 2 /big/MatMul 2 "}

static const row sizes[] = {
    FP8_KEPT(16, 64), FP8_KEPT(64, 16), FP8_KEPT(8, 8), FP8_KEPT(16, 16), FP8_KEPT(15, 64), FP8_KEPT(64, 15), FP8_KEPT(1, 1),
    FP8_TAKEN(17, 64), FP8_TAKEN(64, 17), FP8_TAKEN(17, 17), FP8_TAKEN(32, 32), FP8_TAKEN(64, 64),
    {"a kernel of 49 elements", "fp8", CONV(32, 32, 7, 7), "/c/Conv int8-weights; /big/MatMul fp8", "/c/Conv 1 /big/MatMul 2 "},
    {"... with too few channels for INT8", "fp8", CONV(17, 4, 7, 7), "/c/Conv few channels: 17 and 4", NULL},
    {"a kernel of 25 elements", "fp8", CONV(32, 32, 5, 5), "/c/Conv fp8", NULL},
    {"a large kernel in INT8", "int8", CONV(32, 32, 7, 7), "/c/Conv int8", NULL},
    INT8_CONV(8, 64, 3, 3, "int8"), INT8_CONV(15, 64, 3, 3, "int8"), INT8_CONV(15, 63, 3, 3, "few channels"),
    INT8_CONV(8, 64, 3, 1, "few channels"),
    INT8_CONV(4, 64, 3, 3, "few channels: 4 and 64"), INT8_CONV(64, 3, 3, 3, "few channels: 64 and 3"),
    INT8_CONV(64, 4, 3, 3, "few channels: 64 and 4"),
    SIZE_KEPT(32, 64, 8, "output size: N 8"), SIZE_KEPT(32, 64, 15, "output size: N 15"), SIZE_KEPT(32, 8, 64, "contraction: K 8"),
    SIZE_KEPT(32, 15, 64, "contraction: K 15"),
    SIZE_KEPT(32, 8, 8, "contraction: K 8"), SIZE_KEPT(4, 32, 1, "output size: N 1"),
    SIZE_TAKEN(32, 64, 16), SIZE_TAKEN(32, 16, 64), SIZE_TAKEN(32, 64, 64), SIZE_TAKEN(32, 32, 32), SIZE_TAKEN(128, 256, 64),
    SIZE_TAKEN(1, 32, 48), /* most of the model is products of one row */
    {"K of a Gemm", "int8", GEMM(10, "10,64", 0), "/fc/Gemm small contraction: K 10", NULL},
    {"K of a turned Gemm", "int8", GEMM(10, "64,10", 1), "/fc/Gemm small contraction: K 10", NULL},
    {"K 8 of a turned Gemm", "int8", GEMM(8, "64,8", 1), "/fc/Gemm small contraction: K 8", NULL},
    {"a turned Gemm that is large enough", "int8", GEMM(64, "64,64", 1), "/fc/Gemm int8", "/fc/Gemm 2 /big/MatMul 2 "},
    {"B is an input", "int8", "g (float[4,8] x, float[8,64] w, float[4,32] x2) => (y, z) <float[32,32] w2 = random(2)> { "
                              "[\"/fc/MatMul\"] y = MatMul(x, w) " BIG " }", "/fc/MatMul product of two activations",
     "/big/MatMul 2 "},
    {"B is an input of unknown size", "int8",
     "g (float[a,k] x, float[k,n] w, float[4,32] x2) => (y, z) <float[32,32] w2 = random(2)> { [\"/fc/MatMul\"] y = MatMul(x, w) " BIG " }",
     "/fc/MatMul product of two activations", "/big/MatMul 2 "},
    {"B is computed and has one column", "int8", "g (float[4,32] x, float[32,1] b, float[4,32] x2) => (y, z) <float[32,32] w2 = "
                                                 "random(2)> { b2 = Relu(b) [\"/fc/MatMul\"] y = MatMul(x, b2) " BIG " }",
     "/fc/MatMul product of two activations", "/big/MatMul 2 "},
    {"two products by one weight", "int8",
     "g (float[4,32] x, float[6,32] x2) => (y, z) <float[32,32] w2 = random(1)> { [\"/a/MatMul\"] y = MatMul(x, w2) " BIG " }",
     "/a/MatMul int8; /big/MatMul int8",
     "/a/MatMul 2 /big/MatMul 2 "},
    {"weights alone have no least size", "passes int8-weights", MATMUL(32, 8, 8), "/fc/MatMul int8-weights", "/fc/MatMul 1 /big/MatMul 1 "},
};

/* ---- names -------------------------------------------------------------------------------------------------------------------- */

#define NAMED(options, name, decision) {name, options, "g (float[4,32] x, float[4,32] x2) => (y, z) <float[32,32] w = random(1), float[32,32] w2 = random(2)> " \
    "{ [\"" name "\"] y = MatMul(x, w) [\"/ff/net.0/MatMul\"] z = MatMul(x2, w2) }", name " " decision, NULL}
#define KEPT(name) NAMED("int8\ntables float", name, "kept by default"), NAMED("fp8\ntables float", name, "kept by default"), \
    NAMED("passes int4\ntables float", name, "kept by default")
/* Half of this file: its weight is stored, not so its input. */
#define STORED(name) NAMED("int8", name, "int8-weights"), NAMED("fp8", name, "int8-weights"), NAMED("passes int4", name, "int8-weights"), \
    NAMED("int8\ntarget tensorrt", name, "kept by default")

static const row names[] = {
    KEPT("/down_blocks.0/resnets.0/time_emb_proj/Gemm"), KEPT("/time_embedding/linear_1/MatMul"), KEPT("/conv_in/MatMul"),
    KEPT("/conv_out/MatMul"),
    KEPT("/up_blocks.0/resnets.0/conv_shortcut/MatMul"), KEPT("/add_embedding/linear_2/MatMul"), KEPT("/pos_embed/proj/MatMul"),
    KEPT("/time_text_embed/text_embedder/linear_1/MatMul"),
    KEPT("/context_embedder/MatMul"), KEPT("/norm_out/linear/MatMul"), KEPT("/x_embedder/MatMul"), KEPT("/proj_out/MatMul"),
    KEPT("/time_guidance_embed/linear/MatMul"), KEPT("/stream_modulation/MatMul"),
    KEPT("/proj_in/MatMul"), KEPT("/time_embed/emb/MatMul"), KEPT("/caption_projection/linear_1/MatMul"), KEPT("/patchify_proj/MatMul"),
    KEPT("/adaln_single/linear/MatMul"),
    KEPT("/patch_embedding/MatMul"), KEPT("/condition_embedder/text/MatMul"), KEPT("/lm_head/MatMul"),
    KEPT("/model/layers.0/mlp/gate/MatMul"), KEPT("/model/layers.0/block_sparse_moe/gate/MatMul"),
    STORED("/pos_embed/proj/MatMul"), STORED("/time_embedding/linear_1/MatMul"), STORED("/proj_out/MatMul"),
    NAMED("int8", "/model/layers.0/mlp/gate/MatMul", "kept by default"),
    NAMED("int8", "/model/layers.0/mlp/gate_proj/MatMul", "int8"), NAMED("int8", "/blocks.0/proj_out/MatMul", "int8"),
    NAMED("int8", "/conv_inner/MatMul", "int8"),
    NAMED("passes fp8(level=2)", "/blocks.0/ff.net.2/MatMul", "fp8"), NAMED("passes fp8(level=2)", "/blocks.0/ff/net.0/proj/MatMul", "fp8"),
    NAMED("passes fp8(level=2)", "/blocks.0/attn/to_q/MatMul", "above the chosen level"),
    NAMED("passes fp8(level=2.5)", "/blocks.0/attn/to_q/MatMul", "fp8"),
    NAMED("passes fp8(level=2.5)", "/blocks.0/attn/to_out.0/MatMul", "above the chosen level"),
    NAMED("passes fp8(level=3)", "/blocks.0/attn/to_out.0/MatMul", "fp8"),
    NAMED("passes fp8(level=3)", "/blocks.0/proj_out/MatMul", "above the chosen level"),
    NAMED("int8\nset /lm_head*=int8", "/lm_head/MatMul", "int8"), NAMED("int8\ninclude /lm_head*\ninclude /ff*", "/lm_head/MatMul", "int8"),
};

/* ---- between operators ---------------------------------------------------------------------------------------------------------- */

#define PADDED "<pads=[1,1,1,1]>"
#define WEIGHTS "<float[16,16,3,3] w1 = random(1), float[16,16,3,3] w2 = random(2), float[16,16,1,1] w3 = random(3), float[16] s = fill(1), float[16] z = fill(0)> "
#define BLOCK(n, in, out) "[\"/" #n "a/Conv\"] a" #n " = Conv" PADDED "(" in ", w1) r" #n " = Relu(a" #n ") [\"/" #n "b/Conv\"] b" #n " = Conv" PADDED "(r" #n ", w2) " \
    "[\"/" #n "/Add\"] c" #n " = Add(b" #n ", " in ") " out " = Relu(c" #n ") "
static const row between[] = {
    {"a bias that is added", "int8", "g (float[1,16,16,16] x) => (y) <float[64,16,7,7] w = random(1), float[64,1,1] b = "
                                     "random(2)> { [\"/c/Conv\"] t = Conv<strides=[2,2], pads=[3,3,3,3]>(x, w) [\"/Add\"] y = Add(t, b) }",
     "/c/Conv int8", "/c/Conv 2 "},
    {"a residual block", "int8\ntarget tensorrt",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) b = BatchNormalization(a, s, z, z, s) c = Relu(b) "
     "[\"/2/Conv\"] d = Conv" PADDED "(c, w2) e = BatchNormalization(d, s, z, z, s) [\"/Add\"] f = Add(e, x) y = Relu(f) }", NULL,
     "/1/Conv 2 /2/Conv 2 /Add 1 "},
    {"a residual block with a convolution beside it", "int8\ntarget tensorrt",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) c = Relu(a) "
     "[\"/2/Conv\"] d = Conv" PADDED "(c, w2) [\"/3/Conv\"] q = Conv(x, w3) [\"/Add\"] f = Add(d, q) y = Relu(f) }", NULL,
     "/1/Conv 2 /2/Conv 2 /3/Conv 2 /Add 1 "},
    {"a residual block for runtimes that do not fuse it", "int8\ntarget openvino",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) [\"/Add\"] f = Add(a, x) y = Relu(f) }", NULL,
     "/1/Conv 2 "},
    {"five residual blocks", "int8\ntarget tensorrt", "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ " BLOCK(1, "x", "p1") BLOCK(2, "p1",
        "p2") BLOCK(3, "p2", "p3") BLOCK(4, "p3", "p4") BLOCK(5, "p4", "y") "}", NULL,
     "/1a/Conv 2 /1b/Conv 2 /1/Add 1 /2a/Conv 2 /2b/Conv 2 /2/Add 1 /3a/Conv 2 /3b/Conv 2 /3/Add 1 /4a/Conv 2 /4b/Conv 2 /4/Add 1 "
     "/5a/Conv 2 /5b/Conv 2 /5/Add 1 "},
    {"a timestep added to all pixels is no skip", "int8\ntarget tensorrt",
     "g (float[n,16,h,w] x, float[n,16,1,1] t) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) [\"/Add\"] b = Add(a, t) c = Relu(b) "
     "[\"/2/Conv\"] y = Conv" PADDED "(c, w2) }", NULL, "/1/Conv 2 /2/Conv 2 "},
    {"SiLU on the residual branch", "int8\ntarget tensorrt",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ r = Relu(x) [\"/1/Conv\"] a = Conv" PADDED "(r, w1) b = Sigmoid(a) m = Mul(a, b) [\"/Add\"] f = Add(m, r) y = Relu(f) }",
     NULL, "/1/Conv 2 /Add 1 "},
    {"a transformer's residual", "int8\ntarget tensorrt", "g (float[4,32] x) => (y) <float[32,32] w = random(1), float[32,32] v = "
                                                          "random(2)> { [\"/1\"] a = MatMul(x, w) b = Relu(a) [\"/2\"] c = MatMul(b, v) "
     "[\"/Add\"] y = Add(c, x) }", NULL, "/1 2 /2 2 "},
    {"a pool between convolutions", "int8\ntarget tensorrt",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) b = Relu(a) [\"/pool\"] p = MaxPool<kernel_shape=[3,3], strides=[2,2]>(b) "
     "[\"/2/Conv\"] y = Conv" PADDED "(p, w2) }", NULL, "/1/Conv 2 /2/Conv 2 "},
    {"a pool behind a Reshape", "int8\ntarget tensorrt", "g (float[1,16,8,8] x) => (y) <float[16,16,3,3] w1 = random(1), "
                                                         "float[16,16,3,3] w2 = random(2), int64[4] shape = {1, 16, 4, 16}> { [\"/1/Conv\"] a = Conv" PADDED "(x, w1) "
     "b = Relu(a) c = Reshape(b, shape) [\"/pool\"] p = MaxPool<kernel_shape=[3,3], strides=[2,2]>(c) [\"/2/Conv\"] y = "
     "Conv" PADDED "(p, w2) }", NULL, "/1/Conv 2 /2/Conv 2 "},
    {"a normalisation between convolutions stays float", "int8\ntarget tensorrt",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) t = Transpose<perm=[0,2,3,1]>(a) "
     "[\"/norm\"] n = LayerNormalization(t, s, z) u = Transpose<perm=[0,3,1,2]>(n) [\"/2/Conv\"] y = Conv(u, w3) }", NULL,
     "/1/Conv 2 /2/Conv 2 "},
    {"what is not linear keeps its types", "int8\ntarget openvino",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) d = Cast<to=11>(a) i = IsInf(d) n = Not(i) [\"/where\"] y = Where(n, a, x) }", NULL,
     "/1/Conv 2 "},
    {"depthwise convolutions", "int8", "g (float[1,32,8,8] x) => (y) <float[32,32,3,3] w = random(1), float[32,1,2,2] d = "
                                       "random(2), float[32,1,3,3] e = random(3)> { [\"/1/Conv\"] a = Conv" PADDED "(x, w) "
     "[\"/d\"] b = Conv<group=32>(a, d) [\"/e\"] y = Conv<group=32>(b, e) }", "/1/Conv int8; /d few channels: 32 and 1; /e int8",
     "/1/Conv 2 /d 1 /e 2 "},
    {"what a convolution writes, for ONNX Runtime", "int8\ntarget ort",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) [\"/silu/Sigmoid\"] b = Sigmoid(a) [\"/silu/Mul\"] c = Mul(a, b) "
     "[\"/2/Conv\"] d = Conv" PADDED "(c, w2) [\"/Add\"] f = Add(d, x) y = Relu(f) }", NULL,
     "/1/Conv 2 c_QuickGelu 1 /2/Conv 2 /Add 1 "},
    {"... behind its Relu, and one pair for all who read it", "int8\ntarget ort",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) [\"/Relu\"] b = Relu(a) "
     "[\"/2/Conv\"] d = Conv" PADDED "(b, w2) [\"/Add\"] f = Add(d, b) y = Relu(f) }", NULL,
     "/1/Conv 2 /2/Conv 2 /Add 2 "},
    {"... not where codes are all that is read", "int8\ntarget ort",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) t = Transpose<perm=[0,1,3,2]>(a) "
     "[\"/2/Conv\"] d = Conv" PADDED "(t, w2) y = Relu(d) }", NULL,
     "/1/Conv 2 /2/Conv 2 "},
    {"... a Concat reads both parts", "int8\ntarget ort",
     "g (float[1,16,8,8] x) => (y) <float[16,16,3,3] w1 = random(1), float[16,32,3,3] w2 = random(2)> { [\"/1/Conv\"] a = Conv" PADDED "(x, w1) "
     "[\"/Concat\"] t = Concat<axis=1>(x, a) [\"/2/Conv\"] d = Conv" PADDED "(t, w2) y = Relu(d) }", NULL, "/1/Conv 2 /Concat 2 /2/Conv 2 "},
    {"... when told not to", "passes int8(outputs=off)\ntarget ort",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) y = Sigmoid(a) }", NULL, "/1/Conv 2 "},
    {"... when told to", "passes int8(outputs=on)",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) [\"/s\"] y = Sigmoid(a) }", NULL, "/1/Conv 2 /s 1 "},
    {"... nor what a detector's maps are joined from, in the standard's operators", "int8",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Conv\"] a = Conv" PADDED "(x, w1) [\"/2/Conv\"] b = Conv" PADDED "(x, w2) "
     "c = Concat<axis=1>(a, b) t = Transpose<perm=[0,2,3,1]>(c) y = Softmax(t) }", NULL, "/1/Conv 2 /2/Conv 2 "},
    {"a picture comes in, and is pooled, for OpenVINO", "int8\ntarget openvino",
     "g (float[1,3,8,8] x) => (y) <float[16,3,3,3] w1 = random(1), float[16,16,3,3] w2 = random(2)> { [\"/1/Conv\"] a = Conv" PADDED "(x, w1) r = Relu(a) "
     "[\"/p\"] p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) [\"/2/Conv\"] d = Conv" PADDED "(p, w2) s = Sigmoid(d) [\"/3/Conv\"] e = Conv" PADDED "(s, w2) y = Relu(e) }",
     "/1/Conv int8", "/1/Conv 2 /p 1 /2/Conv 2 /3/Conv 2 "},
    {"no operator of ONNX Runtime takes codes", "int8\ntarget ort",
     "g (float[1,16,8,8] x) => (y) " WEIGHTS "{ [\"/1/Up\"] a = ConvTranspose(x, w1) y = Sigmoid(a) }", "/1/Up int8-weights", "/1/Up 1 "},
    {"the scale of attention comes before its codes", "passes fp8(attention=true)",
     "g (float[1,2,8,32] q, float[1,2,8,32] k, float[1,2,8,32] v, float[4,32] x2) => (y, z) <float c = {0.5}, float[32,32] w2 = random(2)> "
     "{ qs = Mul(q, c) kt = Transpose<perm=[0,1,3,2]>(k) ks = Mul(kt, c) [\"/qk\"] s = MatMul(qs, ks) p = Softmax<axis=-1>(s) "
     "[\"/pv\"] y = MatMul(p, v) " BIG " }", NULL, "/qk 2 /pv 2 /big/MatMul 2 "},
    {"keys that more than attention reads", "passes fp8(attention=true)",
     "g (float[1,2,8,32] q, float[1,2,8,32] k, float[1,2,8,32] v, float[4,32] x2) => (y, o, z) <float[32,32] w2 = random(2)> "
     "{ kt = Transpose<perm=[0,1,3,2]>(k) [\"/qk\"] s = MatMul(q, kt) p = Softmax<axis=-1>(s) [\"/pv\"] y = MatMul(p, v) "
     "[\"/other\"] o = Neg(kt) " BIG " }", NULL, "/qk 2 /pv 2 /big/MatMul 2 "},
};

/* ---- versions -------------------------------------------------------------------------------------------------------------------- */

/* What the written types need, and never less than the model has. */
static const struct { const char *passes, *dtype; int opset, ir, needs_opset, needs_ir; } versions[] = {
    {"int8", "float", 12, 7, 13, 7},           {"int8", "float", 13, 7, 13, 7},     {"int8", "float16", 17, 8, 19, 9},
    {"int8", "bfloat16", 17, 8, 19, 9},
    {"fp8", "float", 18, 8, 19, 9},            {"fp8", "float", 19, 9, 19, 9},      {"fp8", "float", 20, 9, 20, 9},
    {"passes int4", "float", 20, 9, 21, 10},
    {"passes int4", "float", 21, 10, 21, 10},  {"passes int4", "float", 22, 10, 22, 10}, {"passes nvfp4", "float", 17, 8, 23, 11},
    {"passes mxfp8", "float", 17, 8, 24, 12},
    {"passes int8-weights", "float", 22, 12, 22, 12},
};

/* ---- the run -------------------------------------------------------------------------------------------------------------------- */

/* Names of nodes with inputs from DequantizeLinear, and how many. */
static void print_fed(const qx_model *m, qx_buf *out)
{
    QX_FOR_NODES(m->graph, n) {
        int count = 0;
        for (uint32_t i = 0; i < n->n_in; i++) count += n->in[i] && n->in[i]->def && n->in[i]->def->op->id == QX_OP_DequantizeLinear;
        if (count && n->op->id != QX_OP_DequantizeLinear && n->op->id != QX_OP_Transpose)
            qx_buf_printf(out, "%s %d ", n->name[0] ? n->name : n->op_type, count);
    }
}

/* "a b; c d": each must be how a line of decisions begins. */
static void check_decisions(const row *r, const char *said)
{
    char want[512];
    for (const char *s = r->decided; s && *s; s += strcspn(s, ";"), s += strspn(s, "; ")) {
        const size_t name = strcspn(s, " "), all = strcspn(s, ";");
        snprintf(want, sizeof want, "// %.*s: %.*s", (int)name, s, (int)(all - name - 1), s + name + 1);
        if (!strstr(said, want)) fail_msg("%s (%s): '%s' is not among\n%s", r->what, r->options, want, said);
    }
}

/* The model rewritten, with decisions appended to said (which is of f->ctx). */
static void decide(fixture *f, const char *text, const char *how, qx_buf *said)
{
    char options[200];
    qx_job_args *a;
    qx_report *report;
    qx_stats *stats = NULL;
    const qx_quantize_options *o;
    snprintf(options, sizeof options, "%s\ndry-run", how);
    ok(f, qx_job_args_new(f->ctx, &a));
    ok(f, qx_report_new(f->ctx, &report));
    set_options(f->ctx, a, options);
    ok(f, qx_job_args_options(a, &o));
    if (qx_model_parse_text(f->ctx, text, &f->m) != QX_OK || rewrite(f->ctx, o, f->m, report, &stats) != QX_OK)
        fail_msg("%s: %s\n%s", how, qx_ctx_error(f->ctx), text);
    print_decisions(report, said);
    qx_stats_free(stats);
    qx_report_free(report);
    qx_job_args_free(a);
}

static void check(const row *r)
{
    char text[4096];
    fixture f = {.ctx = qx_ctx_new(NULL)};
    qx_buf said = QX_BUF_INIT(f.ctx), fed = QX_BUF_INIT(f.ctx);
    snprintf(text, sizeof text, HEAD(17) "%s", r->graph);
    decide(&f, text, r->options, &said);
    print_fed(f.m, &fed);
    check_decisions(r, said.data);
    if (r->fed && strcmp(r->fed, fed.data ? fed.data : ""))
        fail_msg("%s (%s): DequantizeLinear feeds\n%s, not\n%s", r->what, r->options, fed.data, r->fed);
    qx_buf_free(&said);
    qx_buf_free(&fed);
    unload(&f);
}

#define ROWS(table) \
    static void table##_decide(void **state) \
    { \
        (void)state; \
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) check(&table[i]); \
    }
ROWS(sizes)
ROWS(names)
ROWS(between)

static void versions_are_what_types_need(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        char text[400];
        fixture f = {.ctx = qx_ctx_new(NULL)};
        qx_buf said = QX_BUF_INIT(f.ctx);
        snprintf(text, sizeof text, "<ir_version: %d, opset_import: [\"\" : %d]> g (%s[4,32] x) => (y) <%s[32,32] w = random(1)> "
                                    "{ [\"/fc\"] y = MatMul(x, w) }", versions[i].ir, versions[i].opset,
                 versions[i].dtype, versions[i].dtype);
        decide(&f, text, versions[i].passes, &said);
        const int64_t opset = qx_graph_opset(f.m->graph, "");
        if (opset != versions[i].needs_opset || f.m->ir_version != versions[i].needs_ir)
            fail_msg("%s of %s at opset %d, IR %d: written as opset %lld, IR %lld", versions[i].passes, versions[i].dtype,
                     versions[i].opset, versions[i].ir, (long long)opset, (long long)f.m->ir_version);
        qx_buf_free(&said);
        unload(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes_decide), cmocka_unit_test(names_decide), cmocka_unit_test(between_decide),
                                       cmocka_unit_test(versions_are_what_types_need)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
