"""make_corpus.py DIR - the seeds of the fuzz corpora that cannot be typed by hand: small models, npz files, tokenizers."""
import io, json, sys, zipfile
from pathlib import Path
import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

out = Path(sys.argv[1])


def put(kind, name, data):
    (out / kind).mkdir(parents=True, exist_ok=True)
    (out / kind / name).write_bytes(data)


def model(name, nodes, inputs, outputs, init=(), opset=17, functions=(), **kw):
    g = h.make_graph(nodes, name, inputs, outputs, list(init), doc_string="seed", **kw)
    domains = [h.make_opsetid("", opset)] + [h.make_opsetid(f.domain, 1) for f in functions]
    m = h.make_model(g, opset_imports=domains, functions=list(functions), ir_version=9)
    h.set_model_props(m, {"origin": "seed"})
    put("model", name, m.SerializeToString())
    return m


f = lambda n, s, t=T.FLOAT: h.make_tensor_value_info(n, t, s)
w = nh.from_array(np.arange(32, dtype=np.float32).reshape(8, 4), "w")
model("matmul", [h.make_node("MatMul", ["x", "w"], ["y"], name="/mm")], [f("x", ["batch", 8])], [f("y", ["batch", 4])], [w])
model("conv", [h.make_node("Conv", ["x", "k"], ["y"], pads=[1, 1, 1, 1], strides=[1, 1])], [f("x", [1, 3, "H", "W"])], [f("y", None)],
      [nh.from_array(np.ones((2, 3, 3, 3), np.float16).astype(np.float32), "k")])
q = [h.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]), h.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
     h.make_node("DequantizeLinear", ["wq", "ws"], ["wd"], axis=1), h.make_node("MatMul", ["d", "wd"], ["y"])]
model("qdq", q, [f("x", [2, 8])], [f("y", [2, 4])], [nh.from_array(np.float32(.1), "s"), nh.from_array(np.int8(0), "z"),
      nh.from_array(np.ones((8, 4), np.int8), "wq"), nh.from_array(np.ones(4, np.float32), "ws")])
then = h.make_graph([h.make_node("Identity", ["x"], ["a"])], "then", [], [f("a", None)])
other = h.make_graph([h.make_node("Neg", ["x"], ["b"])], "else", [], [f("b", None)])
model("if", [h.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)], [f("x", [2]), f("c", [], T.BOOL)], [f("y", None)])
body = h.make_graph([h.make_node("Identity", ["c0"], ["c1"]), h.make_node("Add", ["v0", "v0"], ["v1"])], "body",
                    [f("i", [], T.INT64), f("c0", [], T.BOOL), f("v0", [2])], [f("c1", [], T.BOOL), f("v1", [2])])
model("loop", [h.make_node("Loop", ["n", "", "x"], ["y"], body=body)], [f("x", [2])], [f("y", [2])], [nh.from_array(np.int64(3), "n")])
fn = h.make_function("local", "Twice", ["a"], ["b"], [h.make_node("Add", ["a", "a"], ["b"])], [h.make_opsetid("", 17)])
model("function", [h.make_node("Twice", ["x"], ["y"], domain="local")], [f("x", [2])], [f("y", [2])], functions=[fn])
sp = h.make_sparse_tensor(h.make_tensor("sv", T.FLOAT, [2], [1, 2]), h.make_tensor("si", T.INT64, [2], [0, 5]), [2, 4])
model("sparse", [h.make_node("MatMul", ["x", "sv"], ["y"])], [f("x", [3, 2])], [f("y", [3, 4])], sparse_initializer=[sp])
ext = h.make_tensor("e", T.FLOAT, [4], b"\0" * 16, raw=True)
ext.ClearField("raw_data"); ext.data_location = T.EXTERNAL
for k, v in dict(location="w.data", offset="0", length="16").items():
    e = ext.external_data.add(); e.key, e.value = k, v
model("external", [h.make_node("Add", ["x", "e"], ["y"])], [f("x", [4])], [f("y", [4])], [ext])
many = [h.make_tensor("t%d" % t, t, [2], [1, 0]) for t in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 21, 22)] + [h.make_tensor("str", T.STRING, [2], [b"a", b"b"])]
model("types", [h.make_node("Identity", ["t1"], ["y"])], [], [f("y", [2])], many)
shape = [h.make_node("Shape", ["x"], ["s"]), h.make_node("Gather", ["s", "zero"], ["b"]), h.make_node("Unsqueeze", ["b", "ax"], ["b1"]),
         h.make_node("Concat", ["b1", "minus"], ["to"], axis=0), h.make_node("Reshape", ["x", "to"], ["y"])]
model("shapes", shape, [f("x", ["n", 4, 2])], [f("y", None)], [nh.from_array(np.int64(0), "zero"), nh.from_array(np.array([0]), "ax"), nh.from_array(np.array([-1]), "minus")])

b = io.BytesIO(); np.savez(b, x=np.arange(6, dtype=np.float32).reshape(2, 3), ids=np.arange(4), empty=np.zeros((0, 2)), half=np.ones(3, np.float16), yes=np.array(True)); put("npz", "plain", b.getvalue())
b = io.BytesIO(); np.savez_compressed(b, x=np.zeros((100, 100), np.float32)); put("npz", "deflated", b.getvalue())
b = io.BytesIO(); np.savez(b, x=np.asfortranarray(np.arange(6.).reshape(2, 3)), big=np.arange(3, dtype=">f4")); put("npz", "orders", b.getvalue())
b = io.BytesIO(); z = zipfile.ZipFile(b, "w"); z.writestr("x.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 4), }" + b" " * 40 + b"\n"); z.close(); put("npz", "liar", b.getvalue())

alphabet = [chr(c) for c in list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256)) + list(range(256, 324))]
vocab = {c: i + 2 for i, c in enumerate(alphabet)}; vocab.update({"<s>": 0, "</s>": 1, "th": 258, "the": 259, "\u0120t": 260})
base = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [{"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} for i, c in ((0, "<s>"), (1, "</s>"))],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}, "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": False, "vocab": vocab, "merges": ["t h", "th e", "\u0120 t"]}}
put("tokenizer", "bpe", json.dumps(base, ensure_ascii=False).encode())
base["model"]["merges"] = [["t", "h"], ["th", "e"]]
base["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\p{L}+|\\p{N}{1,3}|\\s+"}, "behavior": "Isolated", "invert": False}, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]}
put("tokenizer", "split", json.dumps(base).encode())
base["model"] = {"type": "WordPiece", "vocab": {"a": 0}}
put("tokenizer", "wordpiece", json.dumps(base).encode())
put("tokenizer", "unigram", (Path(__file__).parent.parent / "data/tokenizer/albert.json").read_bytes())
