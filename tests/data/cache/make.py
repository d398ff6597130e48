"""Makes gqa.onnx and concat.onnx: the same two-layer decoder with caches, once as onnxruntime-genai exports it (GroupQueryAttention, Skip norms) and once as
optimum does (Concat of past and new entries, attention in single operators). ids.npz: a prompt with an empty past. Needs onnx and numpy."""
import numpy as np, onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

H, KV, D, HID, V, LAYERS, LONGEST = 2, 1, 16, 32, 48, 2, 64


class Graph:
    def __init__(self):
        self.rng, self.nodes, self.inits = np.random.default_rng(0), [], []

    def const(self, name, value):
        self.inits.append(nh.from_array(np.asarray(value), name))
        return name

    def weight(self, name, *shape, scale=None):
        return self.const(name, (self.rng.standard_normal(shape) * (scale or shape[0] ** -0.5)).astype(np.float32))

    def op(self, op, ins, outs, domain="", **attrs):
        outs = [outs] if isinstance(outs, str) else outs
        self.nodes.append(h.make_node(op, ins, outs, name=outs[0], domain=domain, **attrs))
        return outs[0]


def weights(g):
    """The same numbers for both forms."""
    g.weight("embed", V, HID, scale=1.0)
    for l in range(LAYERS):
        for w, n in (("q", H * D), ("k", KV * D), ("v", KV * D)):
            g.weight(f"{w}{l}", HID, n)
        g.weight(f"o{l}", H * D, HID)
        g.const(f"gamma{l}", (1 + 0.3 * g.rng.standard_normal(HID)).astype(np.float32))
    g.const("gamma_last", np.ones(HID, np.float32))
    g.weight("head", HID, V)


def ports():
    ins = [h.make_tensor_value_info("input_ids", T.INT64, ["batch_size", "sequence_length"]), h.make_tensor_value_info("attention_mask", T.INT64, ["batch_size", "total_sequence_length"])]
    outs = [h.make_tensor_value_info("logits", T.FLOAT, ["batch_size", "sequence_length", V])]
    for l in range(LAYERS):
        for kv in ("key", "value"):
            ins.append(h.make_tensor_value_info(f"past_key_values.{l}.{kv}", T.FLOAT, ["batch_size", KV, "past_sequence_length", D]))
            outs.append(h.make_tensor_value_info(f"present.{l}.{kv}", T.FLOAT, ["batch_size", KV, "total_sequence_length", D]))
    return ins, outs


def save(g, name):
    ins, outs = ports()
    m = h.make_model(h.make_graph(g.nodes, name, ins, outs, g.inits), opset_imports=[h.make_opsetid("", 17), h.make_opsetid("com.microsoft", 1)], ir_version=8)
    onnx.save(m, name + ".onnx")


def gqa():
    g = Graph()
    weights(g)
    g.op("ReduceSum", ["attention_mask", g.const("one", np.array([1], np.int64))], "lengths", keepdims=0)
    g.op("Sub", ["lengths", "one"], "last")
    g.op("Cast", ["last"], "seqlens", to=T.INT32)
    g.op("Shape", ["attention_mask"], "mask_shape")
    g.op("Gather", ["mask_shape", g.const("at1", np.array(1, np.int64))], "total64")
    g.op("Cast", ["total64"], "total", to=T.INT32)
    angle = np.arange(LONGEST)[:, None] / 10000 ** (np.arange(0, D, 2) / D)
    g.const("cos", np.cos(angle).astype(np.float32))
    g.const("sin", np.sin(angle).astype(np.float32))
    stream = g.op("Gather", ["embed", "input_ids"], "x0")
    g.op("SimplifiedLayerNormalization", [stream, "gamma0"], "n0", epsilon=1e-5, axis=-1, stash_type=1)
    for l in range(LAYERS):
        for w in "qkv":
            g.op("MatMul", [f"n{l}", f"{w}{l}"], f"{w}{l}_out")
        g.op("GroupQueryAttention", [f"q{l}_out", f"k{l}_out", f"v{l}_out", f"past_key_values.{l}.key", f"past_key_values.{l}.value", "seqlens", "total", "cos", "sin"],
             [f"a{l}", f"present.{l}.key", f"present.{l}.value"], "com.microsoft", num_heads=H, kv_num_heads=KV, do_rotary=1)
        g.op("MatMul", [f"a{l}", f"o{l}"], f"o{l}_out")
        gamma = f"gamma{l + 1}" if l + 1 < LAYERS else "gamma_last"
        g.op("SkipSimplifiedLayerNormalization", [stream, f"o{l}_out", gamma], [f"n{l + 1}", "", "", f"x{l + 1}"], "com.microsoft", epsilon=1e-5)
        stream = f"x{l + 1}"
    g.op("MatMul", [f"n{LAYERS}", "head"], "logits")
    save(g, "gqa")


def norm(g, x, gamma, out):
    g.op("Pow", [x, "two"], out + "_sq")
    g.op("ReduceMean", [out + "_sq"], out + "_mean", axes=[-1], keepdims=1)
    g.op("Add", [out + "_mean", "eps"], out + "_eps")
    g.op("Sqrt", [out + "_eps"], out + "_root")
    g.op("Div", [x, out + "_root"], out + "_unit")
    return g.op("Mul", [gamma, out + "_unit"], out)


def concat():
    """Without rotary embedding; a key sees itself and what is before it."""
    g = Graph()
    weights(g)
    for name, value in (("two", np.float32(2)), ("eps", np.float32(1e-5)), ("scale", np.float32(D ** -0.5)), ("low", np.float32(-1e4)), ("zero", np.float32(0))):
        g.const(name, value)
    for name, value in (("heads", [0, 0, H, D]), ("kv_heads", [0, 0, KV, D]), ("flat", [0, 0, H * D])):
        g.const(name, np.array(value, np.int64))
    for name, value in (("i0", 0), ("i1", 1)):
        g.const(name, np.array(value, np.int64))
    g.op("Shape", ["attention_mask"], "mask_shape")
    g.op("Gather", ["mask_shape", "i1"], "total")
    g.op("Shape", ["input_ids"], "ids_shape")
    g.op("Gather", ["ids_shape", "i1"], "fresh")
    g.op("Sub", ["total", "fresh"], "before")
    g.op("Range", ["before", "total", "i1"], "rows")
    g.op("Range", ["i0", "total", "i1"], "cols")
    g.op("Unsqueeze", ["rows", g.const("axis1", np.array([1], np.int64))], "rows2")
    g.op("LessOrEqual", ["cols", "rows2"], "seen")
    g.op("Where", ["seen", "zero", "low"], "mask")
    stream = g.op("Gather", ["embed", "input_ids"], "x0")
    for l in range(LAYERS):
        n = norm(g, stream, f"gamma{l}", f"n{l}")
        for w in "qkv":
            g.op("MatMul", [n, f"{w}{l}"], f"{w}{l}_out")
            g.op("Reshape", [f"{w}{l}_out", "heads" if w == "q" else "kv_heads"], f"{w}{l}_split")
            g.op("Transpose", [f"{w}{l}_split"], f"{w}{l}_heads", perm=[0, 2, 1, 3])
        for w, kv in (("k", "key"), ("v", "value")):
            g.op("Concat", [f"past_key_values.{l}.{kv}", f"{w}{l}_heads"], f"present.{l}.{kv}", axis=-2)
            g.op("Unsqueeze", [f"present.{l}.{kv}", g.const(f"axis2_{w}{l}", np.array([2], np.int64))], f"{w}{l}_five")
            g.op("Expand", [f"{w}{l}_five", g.const(f"twice_{w}{l}", np.array([1, 1, H // KV, 1, 1], np.int64))], f"{w}{l}_twice")
            g.op("Reshape", [f"{w}{l}_twice", g.const(f"all_{w}{l}", np.array([0, H, -1, D], np.int64))], f"{w}{l}_all")
        g.op("Transpose", [f"k{l}_all"], f"k{l}_t", perm=[0, 1, 3, 2])
        g.op("MatMul", [f"q{l}_heads", f"k{l}_t"], f"s{l}_raw")
        g.op("Mul", [f"s{l}_raw", "scale"], f"s{l}")
        g.op("Add", [f"s{l}", "mask"], f"s{l}_masked")
        g.op("Softmax", [f"s{l}_masked"], f"p{l}", axis=-1)
        g.op("MatMul", [f"p{l}", f"v{l}_all"], f"a{l}_heads")
        g.op("Transpose", [f"a{l}_heads"], f"a{l}_t", perm=[0, 2, 1, 3])
        g.op("Reshape", [f"a{l}_t", "flat"], f"a{l}")
        g.op("MatMul", [f"a{l}", f"o{l}"], f"o{l}_out")
        stream = g.op("Add", [stream, f"o{l}_out"], f"x{l + 1}")
    g.op("MatMul", [norm(g, stream, "gamma_last", "n_last"), "head"], "logits")
    save(g, "concat")


gqa()
concat()
feeds = {"input_ids": np.random.default_rng(1).integers(0, V, (1, 24)), "attention_mask": np.ones((1, 24), np.int64)}
for l in range(LAYERS):
    for kv in ("key", "value"):
        feeds[f"past_key_values.{l}.{kv}"] = np.zeros((1, KV, 0, D), np.float32)
np.savez("ids.npz", **feeds)
