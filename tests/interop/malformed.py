"""malformed.py --qonnx PATH [--only ID] [--say] - hostile and broken input, one tiny file a row, through the command as a user meets it.

A row is an id, what it makes, and what must come of it: an exit code and words of the message, or acceptance. A refusal names what is wrong on stderr,
ends within seconds (of processor time: other work on the machine does not count), is no signal, and leaves no output behind. --say prints the messages."""
import argparse, io, json, os, resource, signal, socket, struct, subprocess, sys, tempfile, zipfile
from pathlib import Path
import numpy as np
from onnx import AttributeProto as A, TensorProto as T, helper as h, numpy_helper as nh, ModelProto, SparseTensorProto

N, NAN, INF = h.make_node, float("nan"), float("inf")
ROWS = []
SECONDS = 20


def row(ids, *words, ok=False, code=1, cmd=None, warn=False):
    """Registers a maker; words: what the message must hold ("a|b": one of them). ok: accepted (warn: with these words). cmd: arguments behind `qonnx`, {} is the file made."""
    def register(make):
        ROWS.append((ids, make, words, 0 if ok else code, cmd or ["check", "{}"], warn))
        return make
    return register


def many(table, **options):
    """Rows (id, maker, words...)."""
    for ids, make, *words in table:
        row(ids, *words, **options)(make)


# ---- what rows are made of ---------------------------------------------------------------------------------------------------------------------------

def x(name="x", *dims, type=T.FLOAT):
    return h.make_tensor_value_info(name, type, dims or [2, 4])


def tensor(name="w", **fields):
    """A float [4,3] of zeros, with fields set or, when None, cleared."""
    t = T(name=name, data_type=T.FLOAT, dims=[4, 3], raw_data=bytes(48))
    for k, v in fields.items():
        if isinstance(v, (list, tuple)) or v is None:
            t.ClearField(k)
            getattr(t, k).extend(v or []) if v else None
        else:
            setattr(t, k, v)
    return t


def model(nodes=None, inits=None, opset=17, ir=10, inputs=None, outputs=None, functions=(), imports=None, **graph):
    nodes = [N("MatMul", ["x", "w"], ["y"], name="/fc/MatMul")] if nodes is None else nodes
    inits = [tensor()] if inits is None else inits
    g = h.make_graph(nodes, "g", [x()] if inputs is None else inputs, [h.make_tensor_value_info("y", T.FLOAT, None)] if outputs is None else outputs, inits, **graph)
    m = h.make_model(g, opset_imports=[h.make_opsetid("", opset)] if imports is None else imports, functions=list(functions), ir_version=ir)
    return m


def one(op, ins, inits=(), opset=17, inputs=None, attrs=None, **kw):
    """A single node that makes y."""
    return model([N(op, ins, ["y"], name="/n", **(attrs or {}))], list(inits), opset, inputs=inputs, **kw)


def with_tensor(**fields):
    return lambda d: model(inits=[tensor(**fields)])


def beside(**fields):
    """v, which no node reads."""
    return lambda d: model(inits=[tensor(), tensor("v", **fields)])


def const(name, value, type=np.int64):
    return nh.from_array(np.asarray(value, type), name)


def external(*entries, data=bytes(48), name="w.bin", **fields):
    """w lies in the file `name`; entries: (key, value)."""
    def make(d):
        if data is not None:
            (d / name).parent.mkdir(parents=True, exist_ok=True)
            (d / name).write_bytes(data)
        t = tensor(raw_data=None, data_location=T.EXTERNAL, **fields)
        for k, v in entries:
            e = t.external_data.add(key=k)
            if v is not None:
                e.value = v
        return model(inits=[t])
    return make


def at(location, **more):
    return external(("location", location), **more)


# ---- P: the wire format --------------------------------------------------------------------------------------------------------------------------------

def varint(v):
    out = b""
    while v > 127:
        out, v = out + bytes([v & 127 | 128]), v >> 7
    return out + bytes([v])


def field(number, wire, payload=b""):
    return varint(number << 3 | wire) + payload


def blob(number, payload):
    return field(number, 2, varint(len(payload)) + payload)


def behind(extra):
    return lambda d: model().SerializeToString() + extra


def subgraphs(levels):
    """Graph > node > attribute > graph ..., three messages a level."""
    g = blob(2, b"g")
    for _ in range(levels):
        g = blob(1, blob(5, blob(6, g)))
    return lambda d: field(1, 0, varint(8)) + blob(7, g)


def fifo(d):
    os.mkfifo(d / "m.onnx")


def name_of(raw):
    """A node whose name has these bytes."""
    node = blob(1, blob(1, b"x") + blob(2, b"y") + blob(3, raw) + blob(4, b"Neg"))
    ends = b"".join(blob(n, v.SerializeToString()) for n, v in ((11, x()), (12, x("y"))))
    return lambda d: field(1, 0, varint(8)) + blob(8, field(2, 0, varint(17))) + blob(7, node + blob(2, b"g") + ends)


many([
    ("P01", behind(field(5, 0, b"\x80")), "model_version", "varint is cut off"),
    ("P02", behind(field(5, 0, b"\x80" * 10 + b"\x01")), "varint of more than 10 bytes"),
    ("P03", behind(field(2, 2, varint(500) + b"abc")), "producer_name", "length 500 runs past"),
    ("P04", behind(field(2, 2, b"\xff" * 9 + b"\x01")), "length 18446744073709551615"),
    ("P05", behind(field(5, 5, b"abcd")), "model_version", "wire type 5 where 0 belongs"),
    ("P06", behind(b"\0\1"), "field number 0"),
    ("P07", behind(varint(536870912 << 3) + b"\1"), "536870912", "536870911"),
    *[(f"P08 wire {w}", behind(field(99, w)), f"wire type {w}") for w in (3, 4, 6, 7)],
    ("P09 G22", subgraphs(34), "100 deep"),
    ("P10", subgraphs(10000), "100 deep"),
    ("P11", lambda d: b"", "empty file"),
    ("P12 directory", lambda d: (d / "m.onnx").mkdir(), "directory"),
    ("P12 fifo", fifo, "fifo"),
    ("P12 device", lambda d: (d / "m.onnx").symlink_to("/dev/zero"), "device"),
    ("P12 text", lambda d: b"This is not a model.\n" * 9, "text file"),
    ("P12 gzip", lambda d: b"\x1f\x8b\x08\0\0\0\0\0\0\0", "gzip"),
    ("P12 zip", lambda d: b"PK\3\4\0\0\0\0\0\0", "zip"),
    ("P12 html", lambda d: b"<!DOCTYPE html><html></html>", "HTML"),
    ("P13", lambda d: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    ("P14 two graphs", behind(blob(7, blob(2, b"h"))), "graph", "twice"),
    ("P14 two payloads", lambda d: model(inits=[T.FromString(tensor().SerializeToString())]).SerializeToString().replace(blob(9, bytes(48)), blob(9, bytes(22)) + blob(9, bytes(22))), "raw_data", "twice"),
    ("P16", behind(b"\0\0\0\0"), "field number 0"),
    ("P18", lambda d: field(1, 0, varint(8)) + blob(7, b"\x0a\0" * 20_000_000), "memory|more than"),
    ("P20", name_of(b"a\0b"), "NUL"),
])
many([
    ("P09 deep enough", lambda d: model([N("If", ["c"], ["y"], then_branch=nested(8, "t"), else_branch=nested(1, "e"))], [const("c", True, bool)])),
    ("P15", behind(blob(1000, b"unknown"))),
    ("P21", lambda d: model([N("MatMul", ["x", "w"], ["y"], name="\x1b[31m\n/\"'" + "n" * (1 << 20))])),
], ok=True)
many([("P19", name_of(b"bad\xff\xfename"), "UTF-8")], ok=True, warn=True)


def nested(levels, tag):
    """A body that holds a body that ..."""
    g = h.make_graph([N("Neg", ["x"], [f"{tag}_0"])], tag, [], [h.make_tensor_value_info(f"{tag}_0", T.FLOAT, None)])
    for i in range(1, levels + 1):
        flat = h.make_graph([N("Abs", ["x"], [f"{tag}f{i}"])], f"{tag}f", [], [h.make_tensor_value_info(f"{tag}f{i}", T.FLOAT, None)])
        g = h.make_graph([N("If", ["c"], [f"{tag}_{i}"], then_branch=g, else_branch=flat)], tag, [], [h.make_tensor_value_info(f"{tag}_{i}", T.FLOAT, None)])
    return g


# ---- M: the model ------------------------------------------------------------------------------------------------------------------------------------------

def changed(change, **kw):
    def make(d):
        m = model(**kw)
        change(m)
        return m
    return make


def function(name, *nodes, ins=("a",), outs=("b",), imports=(("", 17), ("l", 1))):
    return h.make_function("l", name, ins, outs, list(nodes), [h.make_opsetid(*i) for i in imports])


def calls(*functions):
    return lambda d: model([N("f0", ["x"], ["y"], domain="l")], [], functions=functions, imports=[h.make_opsetid("", 17), h.make_opsetid("l", 1)])


def call(i):
    return N(f"f{i}", ["a"], ["b"], domain="l")


def chain(count):
    return [function(f"f{i}", call(i + 1) if i + 1 < count else N("Neg", ["a"], ["b"])) for i in range(count)]


def hidden_call():
    body = [h.make_graph([N("f0", ["a", "c"], [o], domain="l")], o, [], [h.make_tensor_value_info(o, T.FLOAT, None)]) for o in "pq"]
    return function("f0", N("If", ["c"], ["b"], then_branch=body[0], else_branch=body[1]), ins=("a", "c"))


def imports(*pairs):
    return lambda d: model(imports=[h.make_opsetid(*p) for p in pairs])


many([
    ("M01", changed(lambda m: m.ClearField("graph")), "no graph"),
    ("M02 absent", changed(lambda m: m.ClearField("ir_version")), "no IR version"),
    ("M02 zero", changed(lambda m: setattr(m, "ir_version", 0)), "no IR version"),
    ("M04", changed(lambda m: m.ClearField("opset_import")), "imports no operator set"),
    ("M05", imports(("", 17), ("ai.onnx", 18)), "twice", "17", "18"),
    ("M06 zero", imports(("", 0)), "version 0"),
    ("M06 unknown", imports(("", 99)), "version 99"),
    ("M06 large", imports(("", 17), ("q", 1 << 31)), "2147483648", "'q'"),
    ("M07", lambda d: model([N("Thing", ["x"], ["y"], domain="other")]), "other", "import"),
    ("M10", changed(lambda m: [m.metadata_props.add(key="k", value=v) for v in "12"]), "'k'", "twice"),
    ("M11", calls(function("f0", call(0))), "f0", "calls itself"),
    ("M12", calls(function("f0", call(1)), function("f1", call(0))), "calls itself"),
    ("M13", lambda d: model([N("f0", ["x", "c"], ["y"], domain="l")], [const("c", True, bool)], functions=[hidden_call()], imports=[h.make_opsetid("", 17), h.make_opsetid("l", 1)]), "f0", "calls itself"),
    ("M14", lambda d: calls(*chain(101))(d), "100 calls"),
    ("M15", lambda d: calls(*[function(f"f{i}", N("Neg", ["a"], ["b"])) for i in range(10001)])(d), "10001", "10000"),
    ("M16", calls(function("f0", N("Neg", ["a"], ["b"])), function("f0", N("Abs", ["a"], ["b"]))), "f0", "defined twice"),
])
many([
    ("M03", lambda d: model(ir=15), "IR version is 15", "3 to 14"),
    ("M08", lambda d: model([N("MatMull", ["x", "w"], ["y"])]), "MatMull", "no operator of this name"),
], code=3)
many([("M09", lambda d: model([N("Thing", ["x"], ["z"], domain="other"), N("MatMul", ["z", "w"], ["y"])], imports=[h.make_opsetid("", 17), h.make_opsetid("other", 1)]))], ok=True)

# ---- T: tensors --------------------------------------------------------------------------------------------------------------------------------------------

many([
    ("T01", with_tensor(data_type=0), "'w'", "type"),
    ("T02 above", with_tensor(data_type=27), "'w'", "27"),
    ("T02 below", with_tensor(data_type=-1), "'w'", "-1"),
    ("T03", with_tensor(dims=[-4, 3]), "'w'", "-4"),
    ("T04", with_tensor(dims=[1 << 32, 1 << 32]), "'w'", "overflow"),
    ("T05", with_tensor(dims=[1 << 31, 1 << 31]), "'w'", "4611686018427387904 elements of FLOAT overflow"),
    ("T06", with_tensor(raw_data=bytes(44)), "'w'", "44", "48"),
    ("T07", with_tensor(raw_data=bytes(52)), "'w'", "52", "48"),
    ("T08", with_tensor(data_type=T.INT4, dims=[3, 3], raw_data=bytes(9)), "'w'", "9", "5"),
    ("T09", with_tensor(data_type=T.INT2, dims=[3, 3], raw_data=bytes(5)), "'w'", "5", "3"),
    ("T10", with_tensor(data_type=T.BOOL, raw_data=bytes(11)), "'w'", "11", "12"),
    ("T11", with_tensor(data_type=T.COMPLEX64, raw_data=bytes(48)), "'w'", "48", "96"),
    ("T12 float", with_tensor(raw_data=None, float_data=[0.0] * 11), "'w'", "11", "12"),
    ("T12 int4", with_tensor(data_type=T.INT4, raw_data=None, int32_data=[0] * 12), "'w'", "12"),
    ("T12 int2", with_tensor(data_type=T.INT2, raw_data=None, int32_data=[0] * 12), "'w'", "12"),
    ("T12 complex", with_tensor(data_type=T.COMPLEX64, raw_data=None, float_data=[0.0] * 12), "'w'", "12", "24"),
    ("T13", with_tensor(float_data=[0.0] * 12), "'w'", "2 value fields"),
    ("T14", with_tensor(raw_data=None, int64_data=[0] * 12), "'w'", "int64_data"),
    ("T15", with_tensor(data_type=T.STRING), "'w'", "STRING"),
    ("T16", with_tensor(dims=[0, 3]), "'w'", "48", "0"),
    ("T17", with_tensor(raw_data=None), "'w'", "12"),
    ("T18", with_tensor(data_location=T.EXTERNAL), "'w'", "external|location"),
    ("T19", with_tensor(data_type=T.INT8, raw_data=None, int32_data=[0] * 11 + [300]), "'w'", "300"),
    ("T20", changed(lambda m: setattr(m.graph.initializer[0].segment, "end", 3)), "'w'", "segment"),
])
many([
    ("T21", beside(data_type=T.BOOL, raw_data=b"\x02" * 12), "'v'", "is 2"),
    ("T22", beside(data_type=T.INT4, dims=[3, 3], raw_data=bytes(4) + b"\xf0"), "'v'", "padding"),
], ok=True, warn=True)
many([
    ("T24 zeros", with_tensor()),
    ("T25", lambda d: model([N("MatMul", ["x", "w"], ["z"]), N("Mul", ["z", "s"], ["y"])], [tensor(), tensor("s", dims=[], raw_data=bytes(4))])),
    ("T26", behind(b"")),
], ok=True)
plan = ["quantize", "{}", "-o", "{d}/out.onnx", "--passes", "int8-weights", "--no-verify"]
row("T23", "'w'", "1 NaN", ok=True, warn=True, cmd=plan)(with_tensor(raw_data=bytes(44) + struct.pack("<f", NAN)))
row("T23 infinite", "'w'", "1 Inf", ok=True, warn=True, cmd=plan)(with_tensor(raw_data=bytes(44) + struct.pack("<f", INF)))
row("T24 quantized", ok=True, cmd=plan + ["--set", "*=int8-weights"])(with_tensor())

# ---- E: external data --------------------------------------------------------------------------------------------------------------------------------------


def linked(target, how):
    """w.bin in the model's folder is a link of some kind to bytes elsewhere."""
    def make(d):
        outside = d.parent / (d.name + "-elsewhere")
        outside.mkdir()
        (outside / "w.bin").write_bytes(bytes(48))
        how(d, outside)
        return at(target, data=None)(d)
    return make


def hub(d):
    """A Hugging Face cache: snapshots/REV/m.onnx and its data are links into blobs/."""
    blobs, snap = d / "blobs", d / "snapshots" / "abc"
    blobs.mkdir(), snap.mkdir(parents=True)
    (blobs / "1").write_bytes(at("m.onnx_data", data=None)(d).SerializeToString())
    (blobs / "2").write_bytes(bytes(48))
    (snap / "m.onnx").symlink_to("../../blobs/1")
    (snap / "m.onnx_data").symlink_to("../../blobs/2")


def special(make_it):
    def make(d):
        make_it(d)
        return at("w.bin", data=None)(d)
    return make


def unix_socket(d):
    here = os.getcwd()
    os.chdir(d)
    socket.socket(socket.AF_UNIX).bind("w.bin")
    os.chdir(here)


def everywhere(kind):
    """A bad location in a Constant, a body and a function."""
    def make(d):
        bad = at("../w.bin", data=None)(d).graph.initializer[0]
        if kind == "constant":
            return model([N("Constant", [], ["w"], value=bad), N("MatMul", ["x", "w"], ["y"])], [])
        if kind == "body":
            g = [h.make_graph([N("MatMul", ["x", "w"], [o])], o, [], [h.make_tensor_value_info(o, T.FLOAT, None)], [bad]) for o in "pq"]
            return model([N("If", ["c"], ["y"], then_branch=g[0], else_branch=g[1])], [const("c", True, bool)])
        f = function("f0", N("Constant", [], ["k"], value=bad), N("MatMul", ["a", "k"], ["b"]))
        return calls(f)(d)
    return make


def two_ranges(second):
    def make(d):
        (d / "w.bin").write_bytes(bytes(96))
        ts = [at("w.bin", data=None, name="w.bin")(d).graph.initializer[0] for _ in range(2)]
        ts[1].name = "v"
        ts[1].external_data.add(key="offset", value=str(second))
        return model([N("MatMul", ["x", "w"], ["p"]), N("MatMul", ["x", "v"], ["q"]), N("Add", ["p", "q"], ["y"])], ts)
    return make


numbers = ["-1", "0x10", "1e3", " 5", "+5", ""]
many([
    ("E01", external(("offset", "0")), "'w'", "location"),
    ("E02", at(""), "'w'", "location", "empty"),
    ("E03", at("/etc/passwd"), "'w'", "/etc/passwd", "absolute"),
    ("E04", at("../x"), "'w'", "../x"),
    ("E05", at("a/../../x"), "'w'", "a/../../x"),
    ("E06", at("a/../b"), "'w'", "a/../b"),
    *[(f"E08 {s}", at(s), "'w'", "backslash|drive") for s in ("C:\\x", "..\\x", "\\\\host\\x")],
    ("E09 control", at("w\x07.bin"), "'w'", "control"),
    ("E09 NUL", at("w\0.bin"), "NUL"),
    ("E10", linked("w.bin", lambda d, o: (d / "w.bin").symlink_to(o / "w.bin")), "'w'", "outside", "--allow-symlinks"),
    ("E11", linked("sub/w.bin", lambda d, o: (d / "sub").symlink_to(o)), "'w'", "outside", "--allow-symlinks"),
    ("E12", linked("w.bin", lambda d, o: (d / "w.bin").symlink_to("w.bin")), "'w'", "symbolic links"),
    ("E16 directory", special(lambda d: (d / "w.bin").mkdir()), "'w'", "directory"),
    ("E16 fifo", special(lambda d: os.mkfifo(d / "w.bin")), "'w'", "fifo"),
    ("E16 socket", special(unix_socket), "'w'", "socket|No such device"),
    ("E16 device", special(lambda d: (d / "w.bin").symlink_to("/dev/zero")), "'w'", "device|outside"),
    ("E16 proc", special(lambda d: (d / "w.bin").symlink_to("/proc/self/status")), "'w'", "kernel|outside"),
    ("E17", at("gone.bin", data=None), "'w'", "gone.bin", "No such file"),
    *[(f"E18 E19 {k} {v!r}", external(("location", "w.bin"), (k, v)), "'w'", k) for k in ("offset", "length") for v in numbers],
    ("E20", external(("location", "w.bin"), ("offset", "9223372036854775808")), "'w'", "9223372036854775808"),
    ("E21", external(("location", "w.bin"), ("offset", "9223372036854775807"), ("length", "48")), "'w'", "9223372036854775807"),
    ("E22", external(("location", "w.bin"), ("offset", "49")), "'w'", "49", "48"),
    ("E23", external(("location", "w.bin"), ("offset", "1")), "'w'", "48"),
    ("E24", external(("location", "w.bin"), ("length", str(1 << 60)), dims=[1 << 29, 1 << 29]), "'w'", str(1 << 60)),
    ("E25", external(("location", "w.bin"), ("length", "44")), "'w'", "44", "48"),
    ("E26", external(("location", "w.bin"), ("length", "0")), "'w'", "length", "48"),
    ("E31", external(("location", "w.bin"), ("location", "w.bin")), "'w'", "location", "twice"),
    ("E32", external(("location", "w.bin"), ("offset", None)), "'w'", "entry 1", "no value"),
    ("E33", external(("location", "*/_ORT_MEM_ADDR_/*"), ("offset", "1234")), "'w'", "_ORT_MEM_ADDR_"),
    ("E34", external(("location", "w.bin"), ("checksum", "0" * 40)), "'w'", "checksum", "0" * 40),
    ("E35", external(("location", "w.bin"), ("checksum", "xyz")), "'w'", "checksum", "40"),
    ("E38", at("m.onnx", data=None), "'w'", "model"),
    *[(f"E41 {k}", everywhere(k), "../w.bin") for k in ("constant", "body", "function")],
    ("P13 as data", at("w.bin", data=b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "git lfs pull"),
])
many([
    *[(f"E07 {s}", at(s, name=s)) for s in ("w..bin", "..data", "./w.bin", "sub/w.bin", "weights")],
    ("E15", linked("w.bin", lambda d, o: os.link(o / "w.bin", d / "w.bin"))),
    ("E27", external(("location", "w.bin"), ("offset", "0"))),
    ("E30", external(("location", "w.bin"), ("prepacked_1", "key|0;48;0"))),
    ("E36", two_ranges(0)),
], ok=True)
row("E13", ok=True, cmd=["check", "{d}/snapshots/abc/m.onnx"])(hub)
row("E14", ok=True, cmd=["check", "{}", "--allow-symlinks"])(linked("w.bin", lambda d, o: (d / "w.bin").symlink_to(o / "w.bin")))
row("E14 root", ok=True, cmd=["check", "{}", "--external-data-root", "{d}-elsewhere"])(linked("w.bin", lambda d, o: (d / "w.bin").symlink_to(o / "w.bin")))
row("E15 strict", "'w'", "link", cmd=["check", "{}", "--strict"])(linked("w.bin", lambda d, o: os.link(o / "w.bin", d / "w.bin")))
many([
    ("E28", external(("location", "w.bin"), ("__class__", "x")), "__class__"),
    ("E29", changed(lambda m: m.graph.initializer[0].external_data.add(key="location", value="w.bin")), "'w'", "external"),
    ("E37", two_ranges(16), "overlap"),
], ok=True, warn=True)

# ---- G: the graph ------------------------------------------------------------------------------------------------------------------------------------------


def attribute(**fields):
    """Softmax whose axis attribute has these fields."""
    def make(d):
        m = one("Softmax", ["x"], attrs={"axis": 1})
        a = m.graph.node[0].attribute[0]
        a.Clear()
        a.name = "axis"
        for k, v in fields.items():
            getattr(a, k).extend(v) if isinstance(v, list) else setattr(a, k, v)
        return m
    return make


def sparse(values, indices, dims=(4, 3), index_type=np.int64):
    s = SparseTensorProto(dims=dims)
    s.values.CopyFrom(nh.from_array(np.asarray(values, np.float32), "w"))
    s.indices.CopyFrom(nh.from_array(np.asarray(indices, index_type), "at"))
    return lambda d: model(inits=[], sparse_initializer=[s])


def shadow(d):
    g = [h.make_graph([N("Neg", ["x"], [o])], o, [], [h.make_tensor_value_info(o, T.FLOAT, None)]) for o in ("z", "q")]
    return model([N("MatMul", ["x", "w"], ["z"]), N("If", ["c"], ["y"], then_branch=g[0], else_branch=g[1])], [tensor(), const("c", True, bool)])


two = [N("MatMul", ["x", "w"], ["z"], name="first"), N("Neg", ["z"], ["y"], name="second")]
many([
    ("G01", lambda d: model([N("MatMul", ["x", "v"], ["y"])]), "'v'", "never produced"),
    ("G02", lambda d: model(two[::-1]), "not sorted", "second", "first"),
    ("G03", lambda d: model([N("Add", ["x", "b"], ["a"]), N("Neg", ["a"], ["b"]), N("Neg", ["a"], ["y"])]), "cycle"),
    ("G04", lambda d: model([N("Neg", ["x"], ["y"]), N("Abs", ["x"], ["y"])]), "'y'", "already"),
    ("G05", lambda d: model([N("Neg", ["x"], ["x"]), N("Neg", ["x"], ["y"])]), "'x'", "graph input"),
    ("G06", lambda d: model([N("Neg", ["x"], ["w"]), N("Neg", ["w"], ["y"])]), "'w'", "initializer"),
    ("G07 dense", lambda d: model(inits=[tensor(), tensor()]), "'w'", "twice"),
    ("G07 sparse", lambda d: model(inits=[tensor()], sparse_initializer=[sparse([1], [0])(d).graph.sparse_initializer[0]]), "'w'", "twice"),
    ("G08", lambda d: model(inputs=[x(), x()]), "'x'", "twice"),
    ("G09", with_tensor(name=""), "initializer", "name"),
    ("G10 old", lambda d: model(ir=3), "'w'", "not a graph input"),
    ("G11", lambda d: model(outputs=[h.make_tensor_value_info("q", T.FLOAT, None)]), "'q'", "never produced"),
    ("G12 missing", lambda d: model([N("MatMul", ["x"], ["y"])]), "MatMul", "no input 1"),
    ("G12 empty", lambda d: model([N("MatMul", ["", "w"], ["y"])]), "MatMul", "no input 0"),
    ("G13", lambda d: model([*two, N("Identity", [], [])]), "Identity"),
    ("G14", lambda d: model([N("", ["x"], ["y"], name="n")]), "'n'", "operator|op_type"),
    ("G15", lambda d: (m := one("Softmax", ["x"], attrs={"axis": 1}), m.graph.node[0].attribute.add().CopyFrom(m.graph.node[0].attribute[0]))[0], "'axis'", "twice"),
    ("G16", attribute(type=A.INT, f=1.0), "'axis'"),
    ("G17", attribute(type=A.INT, i=1, f=1.0), "'axis'"),
    ("G18", attribute(i=1), "'axis'", "type"),
    ("G19", attribute(type=A.INT, ref_attr_name="k"), "'axis'", "'k'", "function"),
    ("G20", lambda d: calls(function_with_ref())(d), "'axis'", "'k'"),
    ("G21", shadow, "'z'"),
    ("G26", changed(lambda m: m.graph.input[0].ClearField("type")), "'x'", "no type"),
    ("G27", sparse([1, 2], [0, 12]), "'w'", "12"),
    ("G28", sparse([1, 2], [5, 3]), "'w'", "5", "3"),
    ("G29", sparse([1, 2], [0, 1, 2]), "'w'", "2", "3"),
    ("G30", sparse([1, 2], [0, 1], index_type=np.int32), "'w'", "i64|INT64|int64"),
    ("G31", sparse([1], [0], dims=(4, -3)), "'w'", "-3"),
])


def function_with_ref():
    n = N("Softmax", ["a"], ["b"], axis=1)
    n.attribute[0].ref_attr_name = "k"
    return h.make_function("l", "f0", ["a"], ["b"], [n], [h.make_opsetid("", 17)], ["k"])


many([
    ("G10", lambda d: model(inputs=[x(), x("w", 4, 3)])),
    ("G23", lambda d: model([N("Clip", ["x", "", "s"], ["z"]), N("MatMul", ["z", "w"], ["y"])], [tensor(), tensor("s", dims=[], raw_data=bytes(4))])),
    ("G24", lambda d: model([N("Neg", ["x"], ["a"], name="n"), N("Neg", ["a"], ["b"], name="n"), N("MatMul", ["b", "w"], ["y"])])),
], ok=True)
row("G25", "'y'", ok=True, warn=True)(lambda d: model(outputs=[x("y", 9, 9)]))

# ---- S: shapes and attributes ------------------------------------------------------------------------------------------------------------------------------
picture = [x("x", 1, 4, 8, 8)]
kernel = [tensor(dims=[6, 4, 3, 3], raw_data=bytes(864))]


def conv(op="Conv", **attrs):
    return lambda d: one(op, ["x", "w"] if op.startswith("Conv") else ["x"], kernel if op.startswith("Conv") else (), inputs=picture, attrs=attrs)


def op(name, ins, *inits, opset=17, inputs=None, **attrs):
    return lambda d: one(name, ins, inits, opset, inputs, attrs)


def body(name, nodes, inputs, outputs):
    return h.make_graph(nodes, name, inputs, outputs)


scan = body("s", [N("Neg", ["e"], ["o"])], [x("e", 4)], [x("o", 4)])
many([
    ("S01 stride", conv(strides=[0, 1]), "'/n'", "stride"),
    ("S01 dilation", conv(dilations=[1, 0]), "'/n'", "dilation"),
    ("S01 kernel", conv("MaxPool", kernel_shape=[0, 2]), "'/n'", "kernel"),
    ("S01 group 0", conv(group=0), "'/n'", "group"),
    ("S01 group 3", conv(group=3), "'/n'", "group|channels"),
    ("S02 dims", op("Slice", ["s", "a", "b", "c"], const("a", [0]), const("b", [1]), const("c", [0]), tensor("s", dims=[], raw_data=bytes(4))), "'/n'"),
    ("S02 step", op("Slice", ["x", "a", "b", "a", "c"], const("a", [0]), const("b", [1]), const("c", [0])), "'/n'", "step"),
    ("S03", op("Scan", ["x"], body=scan, num_scan_inputs=3), "'/n'", "3"),
    ("S04 two", op("Reshape", ["x", "s"], const("s", [-1, -1])), "'/n'", "-1"),
    ("S04 product", op("Reshape", ["x", "s"], const("s", [3, 3])), "'/n'", "8", "9"),
    ("S05", op("Transpose", ["x"], perm=[0, 0]), "'/n'", "perm"),
    ("S06 Concat", op("Concat", ["x", "x"], axis=2), "'/n'", "axis"),
    ("S06 Softmax", op("Softmax", ["x"], axis=-3), "'/n'", "axis"),
    ("S06 Gather", op("Gather", ["x", "i"], const("i", [0]), axis=2), "'/n'", "axis"),
    ("S06 Split", op("Split", ["x"], axis=2), "'/n'", "axis"),
    ("S06 LayerNormalization", op("LayerNormalization", ["x", "s"], tensor("s", dims=[4], raw_data=bytes(16)), axis=3), "'/n'", "axis"),
    ("S07", lambda d: model([N("Split", ["x", "s"], ["y", "z"], axis=1, name="/n")], [const("s", [1, 2])]), "'/n'", "3", "4"),
    ("S12", op("Cast", ["x"], to=99), "'/n'", "99"),
    ("S13", lambda d: model([N("If", ["c"], ["y"], name="/n", then_branch=body("t", [N("Neg", ["x"], ["p"])], [], [h.make_tensor_value_info("p", T.FLOAT, None)]),
            else_branch=body("e", [N("Cast", ["x"], ["q"], to=T.INT64)], [], [h.make_tensor_value_info("q", T.INT64, None)]))], [], inputs=[x(), h.make_tensor_value_info("c", T.BOOL, [])]), "'/n'", "f32", "i64"),
    ("Gather by floats", op("Gather", ["x", "i"], tensor("i", dims=[1], raw_data=bytes(4))), "'/n'", "f32"),
])
feed = ["run", "{}", "-i", "{d}/in.npz", "-o", "{d}/o.npz", "--max-memory", "1G"]


def running(make, **arrays):
    def also(d):
        np.savez(d / "in.npz", **({"x": np.ones((2, 4), np.float32)} | arrays))
        return make(d)
    return also


forever = body("l", [N("Identity", ["c_in"], ["c_out"]), N("Identity", ["x"], ["o"])], [x("i", type=T.INT64), x("c_in", type=T.BOOL)], [x("c_out", type=T.BOOL), x("o", 2, 4)])
del forever.input[0].type.tensor_type.shape.dim[:], forever.input[1].type.tensor_type.shape.dim[:], forever.output[0].type.tensor_type.shape.dim[:]
huge = const("s", [1 << 20, 1 << 20])
many([
    ("S08 ConstantOfShape", running(lambda d: model([N("ConstantOfShape", ["s"], ["c"], name="/n"), N("ReduceSum", ["c"], ["t"]), N("Add", ["x", "t"], ["y"])], [huge])), "/n|memory"),
    ("S08 Expand", running(op("Expand", ["v", "s"], huge, tensor("v", dims=[], raw_data=bytes(4)))), "/n|memory"),
    ("S08 Tile", running(op("Tile", ["x", "s"], huge)), "/n|memory"),
    ("S09", running(lambda d: model([N("Loop", ["n", "c"], ["y"], body=forever, name="/n")], [const("n", (1 << 62)), const("c", True, bool)])), "/n|memory|iterations"),
    ("S10", running(op("Gather", ["x", "i"], inputs=[x(), x("i", 1, type=T.INT64)]), i=np.array([9])), "'/n'", "9"),
    ("S11 zero", running(op("Resize", ["x", "", "s"], const("s", [1, 1, 0, 1], np.float32), inputs=picture), x=np.ones((1, 4, 8, 8), np.float32)), "'/n'", "scale"),
    ("S11 NaN", running(op("Resize", ["x", "", "s"], const("s", [1, 1, NAN, 1], np.float32), inputs=picture), x=np.ones((1, 4, 8, 8), np.float32)), "'/n'", "scale"),
    ("S11 huge", running(op("Resize", ["x", "", "s"], const("s", [1, 1, 1e30, 1], np.float32), inputs=picture), x=np.ones((1, 4, 8, 8), np.float32)), "'/n'"),
], cmd=feed)

# ---- Q: quantization ---------------------------------------------------------------------------------------------------------------------------------------


def dq(codes=np.int8, dims=(4, 3), scale=(1.0,), zero=None, zero_type=None, opset=21, stype=np.float32, **attrs):
    def make(d):
        q = nh.from_array(np.zeros(dims, codes), "q") if not isinstance(codes, int) else h.make_tensor("q", codes, dims, bytes(-(-int(np.prod(dims)) * (4 if codes in (T.INT4, T.FLOAT4E2M1) else 8) // 8)), raw=True)
        s = np.asarray(scale, stype)
        s = s.reshape(()) if s.size == 1 else s
        inits = [q, nh.from_array(s, "s")]
        if zero is not None:
            inits.append(nh.from_array(np.asarray(zero, zero_type or codes), "z") if not isinstance(zero_type, int) else h.make_tensor("z", zero_type, [], bytes([zero]), raw=True))
        return model([N("DequantizeLinear", ["q", "s"] + ["z"] * (zero is not None), ["w"], name="/dq", **attrs), N("MatMul", ["x", "w"], ["y"])], inits, opset)
    return make


many([
    ("Q01 zero", dq(scale=[0.0]), "'s'", "0", "positive"),
    ("Q01 negative", dq(scale=[-1.0]), "'s'", "-1"),
    ("Q02 NaN", dq(scale=[NAN]), "'s'", "NaN"),
    ("Q02 infinite", dq(scale=[INF]), "'s'", "infinite"),
    ("Q03 subnormal", dq(scale=[1e-40]), "'s'", "subnormal"),
    ("Q03 half", dq(scale=[1e-9], stype=np.float16), "'s'", "0"),
    ("Q04", dq(zero=0, zero_type=np.uint8), "zero point", "u8", "i8"),
    ("Q05", dq(zero=[0, 0]), "zero point", "2"),
    ("Q06", dq(codes=T.FLOAT8E4M3FN, zero=1, zero_type=T.FLOAT8E4M3FN), "zero point", "'z'"),
    ("Q07", dq(scale=[1.0] * 3, axis=2), "/dq", "axis", "2"),
    ("Q08", dq(scale=[1.0] * 5, axis=1), "/dq", "5", "3"),
    ("Q09", dq(scale=[[1.0] * 3], axis=0, block_size=3), "/dq", "block"),
    ("Q10", dq(scale=[[1.0, 1.0], [1.0, 1.0]]), "/dq", "scale"),
    ("Q11 fp8", dq(codes=T.FLOAT8E4M3FN, opset=17), "opset 19", "17"),
    ("Q11 half", dq(stype=np.float16, opset=17), "opset 19", "17"),
    ("Q11 int4", dq(codes=T.INT4, opset=19), "opset 21", "19"),
    ("Q11 int16", dq(codes=np.int16, opset=19), "opset 21", "19"),
    ("Q11 blocks", dq(scale=[[1.0] * 3] * 2, axis=0, block_size=2, opset=19), "opset 21", "19"),
    ("Q11 fp4", dq(codes=T.FLOAT4E2M1, opset=21), "opset 23", "21"),
])
row("Q12", "quantized", "--allow-requantize", code=3, cmd=plan)(dq())

# ---- D: samples --------------------------------------------------------------------------------------------------------------------------------------------
calib = ["quantize", "{}", "-o", "{d}/out.onnx", "--passes", "int8", "--calib", "{d}/c.npz", "--no-verify", "--set", "*=int8"]
good = np.ones((8, 2, 4), np.float32)


def npy(dtype="<f4", shape="(2, 4)", fortran="False", data=bytes(32), magic=b"\x93NUMPY\x01\0", head=None):
    text = (head or "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }" % (dtype, fortran, shape)).encode()
    text += b" " * (64 - (10 + len(text) + 1) % 64) + b"\n"
    return magic + struct.pack("<H", len(text)) + text + data


def samples(content, name="x.npy", how=zipfile.ZIP_STORED, change=None, more=()):
    def make(d):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", how) as z:
            for n, c in [(name, content), *more]:
                z.writestr(n, c)
        raw = bytearray(out.getvalue())
        if change:
            change(raw)
        (d / "c.npz").write_bytes(raw)
        return model(inits=[nh.from_array(np.eye(4, 3, dtype=np.float32), "w")])
    return make


def arrays(make=None, **a):
    def also(d):
        np.savez(d / "c.npz", **a)
        return make(d) if make else model(inits=[nh.from_array(np.eye(4, 3, dtype=np.float32), "w")])
    return also


def flip(at):
    def change(raw):
        raw[at] ^= 0xFF
    return change


def local_size(raw):
    raw[18:22] = struct.pack("<I", 7)  # compressed size of the local header


def encrypt(raw):
    raw[6] |= 1
    i = raw.index(b"PK\1\2")
    raw[i + 8] |= 1


embed = lambda d: model([N("Gather", ["e", "ids"], ["h"], name="/embed"), N("MatMul", ["h", "w"], ["y"])], [nh.from_array(np.ones((10, 4), np.float32), "e"), nh.from_array(np.eye(4, 3, dtype=np.float32), "w")],
                        inputs=[x("ids", 2, 5, type=T.INT64)])
many([
    ("D01 magic", samples(npy(magic=b"\x93NUMPX\x01\0")), "x"),
    ("D01 version", samples(npy(magic=b"\x93NUMPY\x09\0")), "x", "version"),
    ("D02", samples(b"\x93NUMPY\x01\0" + struct.pack("<H", 60000) + b"{"), "x", "header"),
    ("D03", samples(npy(head="[1, 2]")), "x", "header"),
    ("D06 overflow", samples(npy(shape="(4294967296, 4294967296)")), "x", "4294967296"),
    ("D06 size", samples(npy(data=bytes(28))), "x", "28|32"),
    ("D08", arrays(embed, ids=np.full((2, 5), 10)), "ids|/embed", "10"),
    ("D09 parent", samples(npy(), "../x.npy"), "../x"),
    ("D10", samples(npy(shape="(50000000, 2, 4)", data=bytes(1_600_000_000 // 8)), how=zipfile.ZIP_DEFLATED), "x"),
    ("D11 CRC", samples(npy(), change=flip(165)), "x", "CRC|checksum|damaged"),
    ("D11 size", samples(npy(), change=local_size), "x|c.npz"),
    ("D15 NaN", arrays(x=np.full((2, 4), NAN, np.float32)), "x", "NaN"),
    ("D15 infinite", arrays(x=np.full((2, 4), INF, np.float32)), "x", "Inf|infinite"),
], cmd=calib)
many([
    ("D05 fortran", samples(npy(fortran="True", data=np.ones(8, "<f4").tobytes()))),
    ("D05 big-endian", samples(npy(">f4", data=np.ones(8, ">f4").tobytes()))),
], ok=True, cmd=calib)
many([("D04", samples(npy("|O")), "'x'", "Python objects"), ("D12", samples(npy(), change=encrypt), "x.npy", "encrypted")], code=3, cmd=calib)
many([
    ("D07 rank", arrays(x=np.ones((2, 2, 2, 2, 2), np.float32)), "'x'", "f32[2,2,2,2,2]", "f32[2,4]"),
    ("D07 dtype", arrays(x=np.ones((2, 4), np.complex64)), "'x'", "complex|c64"),
], code=2, cmd=calib)
many([("D09 absolute", samples(npy(), "/x.npy"), "no array 'x'", "It holds: /x"),  # a label, never a path: inputs have such names
      ("D13", arrays(z=good), "no array 'x'", "It holds: z", "x f32[2,4]"), ("D14", arrays(x=np.ones((0, 2, 4), np.float32)), "c.npz", "zero samples")], code=2, cmd=calib)
stats = calib[:6] + ["--load-stats", "{d}/s.stats", "--no-verify"]


def foreign_statistics(change):
    def make(d):
        m = arrays(x=good)(d)
        (d / "other.onnx").write_bytes(model([N("Neg", ["x"], ["n"]), N("MatMul", ["n", "w"], ["y"])], [nh.from_array(np.eye(4, 3, dtype=np.float32), "w")]).SerializeToString())
        subprocess.run([QONNX, "quantize", d / "other.onnx", "-o", d / "other.q.onnx", "--passes", "int8", "--calib", d / "c.npz", "--no-verify", "--set", "*=int8", "--save-stats", d / "s.stats", "-q"], check=True, capture_output=True)
        raw = bytearray((d / "s.stats").read_bytes())
        change(raw)
        (d / "s.stats").write_bytes(raw)
        return m
    return make


many([
    ("D16 cut", foreign_statistics(lambda raw: raw.__delitem__(slice(len(raw) // 2, None))), "s.stats"),
    ("D16 version", foreign_statistics(lambda raw: raw.__setitem__(slice(0, 8), b"notstats")), "s.stats"),
], cmd=stats)

row("D16 model", "s.stats", "another model", "hash", code=2, cmd=stats)(foreign_statistics(lambda raw: None))

# ---- J: texts ----------------------------------------------------------------------------------------------------------------------------------------------
textual = ["quantize", "{}", "-o", "{d}/out.onnx", "--int8", "--text", "{d}/t.txt", "--tokenizer", "{d}/tokenizer.json", "--no-verify"]


def tokenizer(text, prompt=b"a b a b\n" * 40):
    def make(d):
        (d / "tokenizer.json").write_bytes(text if isinstance(text, bytes) else json.dumps(text).encode())
        (d / "t.txt").write_bytes(prompt)
        m = embed(d)
        m.graph.input[0].name = "input_ids"
        m.graph.node[0].input[1] = "input_ids"
        return m
    return make


def bpe(vocab=None, merges=()):
    return {"model": {"type": "BPE", "vocab": vocab or {"a": 0, "b": 1, " ": 2, "ab": 3, "\n": 4}, "merges": list(merges)}}


many([
    ("J01", tokenizer(b"[" * 70 + b"]" * 70), "tokenizer.json", "deep|64"),
    ("J03", tokenizer(b'{"model": {}, "model": {}}'), "tokenizer.json", "model", "twice"),
    ("J04 1e999", tokenizer(b'{"model": 1e999}'), "tokenizer.json", "1e999|number|range"),
    ("J04 NaN", tokenizer(b'{"model": NaN}'), "tokenizer.json"),
    ("J05", tokenizer(b'{"model": {}} x'), "tokenizer.json"),
    ("J06", tokenizer({"model": 5}), "tokenizer.json", '"model" is no object'),
    ("J09 negative", tokenizer(bpe({"a": -1})), "tokenizer.json", "-1"),
    ("J09 large", tokenizer(bpe({"a": 1 << 40})), "tokenizer.json", "1.09951e+12"),
    ("J09 twice", tokenizer(bpe({"a": 1, "b": 1})), "tokenizer.json", "1"),
    ("J10", tokenizer(bpe(merges=["ab"])), "tokenizer.json", "merge"),
    ("J13 UTF-8", tokenizer(bpe(), b"\xff\xfe\xff" * 50), "t.txt", "UTF-8"),
], cmd=textual)
row("J13 empty", "t.txt", "0 tokens", code=2, cmd=textual)(tokenizer(bpe(), b""))
for i, option, value, word in [("J14 nothing", "--exclude", "*nothing*", "matches no"), ("J14 regex", "--include", "/(/", "/(/"), ("J14 set", "--set", "*nothing*=float", "matches no")]:
    row(i, word, code=2, cmd=plan + [option, value])(with_tensor())

# ---- O: outputs --------------------------------------------------------------------------------------------------------------------------------------------


def out_is(make_it):
    def make(d):
        make_it(d)
        return model()
    return make


def to(name, *more):
    return ["quantize", "{}", "-o", "{d}/" + name, "--passes", "none", "--force", *more]


row("O01 model", "m.onnx", "same file", code=2, cmd=to("m.onnx"))(lambda d: model())
row("O01 link", "m.onnx|link.onnx", "same file", code=2, cmd=to("link.onnx"))(out_is(lambda d: (d / "link.onnx").symlink_to("m.onnx")))
row("O01 data", "w.bin", "same file", code=2, cmd=to("w.bin"))(at("w.bin"))
row("O04", "dir.onnx", "folder", code=2, cmd=to("dir.onnx"))(out_is(lambda d: (d / "dir.onnx").mkdir()))
row("O05", ok=True, cmd=to("link.onnx"))(out_is(lambda d: ((d / "victim").write_bytes(b"keep"), (d / "link.onnx").symlink_to("victim"))))
row("no folder", "nowhere", cmd=to("nowhere/out.onnx"))(lambda d: model())


# ---- the run -----------------------------------------------------------------------------------------------------------------------------------------------

def judge(ids, make, words, code, cmd, warn, tmp, say):
    d = Path(tempfile.mkdtemp(dir=tmp))
    content = make(d)
    if isinstance(content, ModelProto):
        content = content.SerializeToString()
    if content is not None:
        (d / "m.onnx").write_bytes(content)
    before = {p.name for p in d.iterdir()}
    p = subprocess.run([QONNX, *[a.replace("{}", str(d / "m.onnx")).replace("{d}", str(d)) for a in cmd]], capture_output=True, stdin=subprocess.DEVNULL, env={**os.environ, "OMP_WAIT_POLICY": "passive"},
                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1)))
    said = p.stderr.decode(errors="replace")
    bad = []
    if p.returncode != code:
        bad.append(f"exit {p.returncode}, not {code}")
    if p.returncode == -signal.SIGXCPU:
        bad.append(f"more than {SECONDS} s of processor time")
    if code or warn:
        bad += [f"'{w}' is not said" for w in words if not any(part in said for part in w.split("|"))]
    if code and {q.name for q in d.iterdir()} - before:
        bad.append(f"left behind: {sorted({q.name for q in d.iterdir()} - before)}")
    if any(c in said for c in "\x1b\x07\0") or len(said) > 4000:
        bad.append("message is not fit for a terminal")
    if ids == "O05" and ((d / "victim").read_bytes() != b"keep" or (d / "link.onnx").is_symlink()):
        bad.append("the link was followed")
    if bad or say:
        print(f"{ids:24} {'; '.join(bad) or 'ok'}\n    {said.strip()[:600]}", flush=True)
    return not bad


def main():
    global QONNX
    p = argparse.ArgumentParser()
    p.add_argument("--qonnx", required=True)
    p.add_argument("--only", default="")
    p.add_argument("--say", action="store_true")
    a = p.parse_args()
    QONNX, failed, n = a.qonnx, 0, 0
    with tempfile.TemporaryDirectory() as tmp:
        for r in ROWS:
            if r[0].startswith(a.only):
                n += 1
                failed += not judge(*r, Path(tmp), a.say)
    print(f"{n} rows, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
