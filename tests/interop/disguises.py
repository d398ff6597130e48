"""disguises.py --sdxl PATH --qonnx PATH --folder MICRO_SDXL - one pipeline as every exporter lays it out: names, types, ranks and orders of inputs, fixed
batches, folders, names of data files, what configs lack. Each draws the same pixels as the folder itself. Then a float16 copy of all parts: drawn,
quantized, and with a VAE that overflows and is made safe by fp16-safe. Exits 1 when a row differs."""
import argparse, copy, json, os, shutil, subprocess, sys, tempfile, zlib
from pathlib import Path
import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

STEPS, PROMPT = "2", "a red circle left of a blue square on a gray background"
UNET, VAE, TE, TE2 = "unet/model.onnx", "vae_decoder/model.onnx", "text_encoder/model.onnx", "text_encoder_2/model.onnx"


def png(path):
    """Rows of an 8-bit RGB file without interlacing."""
    data, at, body = Path(path).read_bytes(), 8, b""
    while at < len(data):
        n = int.from_bytes(data[at:at + 4], "big")
        if data[at + 4:at + 8] == b"IHDR": w, rows = (int.from_bytes(data[at + 8 + 4 * i:at + 12 + 4 * i], "big") for i in (0, 1))
        if data[at + 4:at + 8] == b"IDAT": body += data[at + 8:at + 8 + n]
        at += n + 12
    raw = np.frombuffer(zlib.decompress(body), np.uint8).reshape(rows, 1 + 3 * w).astype(np.int64)
    out = np.zeros((rows, 3 * w), np.int64)
    for y in range(rows):
        up = out[y - 1] if y else np.zeros(3 * w, np.int64)
        for x in range(3 * w):
            a, c = (out[y, x - 3], up[x - 3]) if x > 2 else (0, 0)
            p = a + up[x] - c
            paeth = min((a, up[x], c), key=lambda v: abs(p - v))
            out[y, x] = (raw[y, x + 1] + (0, a, up[x], (a + up[x]) // 2, paeth)[raw[y, 0]]) & 255
    return out


def psnr(a, b):
    e = np.mean((png(a) - png(b)) ** 2) / 255**2
    return 100.0 if e == 0 else -10 * np.log10(e)


# ---- edits of a model ----

def rename(m, **names):
    g, new = m.graph, lambda n: names.get(n, n)
    for v in [*g.input, *g.output]: v.name = new(v.name)
    for n in g.node:
        n.input[:], n.output[:] = [new(i) for i in n.input], [new(o) for o in n.output]


def in_front(m, name, op, to=None, shape=None, **attr):
    """The input gets another type or shape and a node that gives the graph what it had."""
    v = next(i for i in m.graph.input if i.name == name)
    inner = f"{name}_{len(m.graph.node)}"
    for n in m.graph.node: n.input[:] = [inner if i == name else i for i in n.input]
    m.graph.node.insert(0, h.make_node(op, [name], [inner], **attr))
    old = [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
    v.CopyFrom(h.make_tensor_value_info(name, to or v.type.tensor_type.elem_type, old if shape is None else shape))


def input_type(name, to):
    def edit(m):
        was = next(i for i in m.graph.input if i.name == name).type.tensor_type.elem_type
        in_front(m, name, "Cast", to=to)
        m.graph.node[0].attribute.append(h.make_attribute("to", was))
    return edit


def output_type(name, to):
    def edit(m):
        v = next(o for o in m.graph.output if o.name == name)
        for n in m.graph.node: n.output[:] = [name + "_inner" if o == name else o for o in n.output]
        m.graph.node.append(h.make_node("Cast", [name + "_inner"], [name], to=to))
        v.type.tensor_type.elem_type = to
    return edit


def both(*edits):
    def edit(m):
        for e in edits: e(m)
    return edit


def fixed_batch(n):
    def edit(m):
        for v in [*m.graph.input, *m.graph.output]:
            if len(v.type.tensor_type.shape.dim): v.type.tensor_type.shape.dim[0].dim_value = n
    return edit


def backwards(m):
    ins = [copy.deepcopy(i) for i in m.graph.input][::-1]
    del m.graph.input[:]
    m.graph.input.extend(ins)


def hide_states(m):
    """Without output_hidden_states: the residual stream is inside the graph alone, under TorchScript's name."""
    keep = [o for o in m.graph.output if not o.name.startswith("hidden_states.")]
    states = sorted((o.name for o in m.graph.output if o.name.startswith("hidden_states.")), key=lambda s: int(s.split(".")[1]))
    del m.graph.output[:]
    m.graph.output.extend(keep)
    rename(m, **{states[-2]: f"/text_model/encoder/layers.{len(states) - 3}/Add_1_output_0"})


def one_state(m):
    """TensorRT's text encoders: one sequence and, for the second, the pooled vector as text_embeddings."""
    states = sorted((o.name for o in m.graph.output if o.name.startswith("hidden_states.")), key=lambda s: int(s.split(".")[1]))
    second = any(o.name == "text_embeds" for o in m.graph.output)
    keep = [o for o in m.graph.output if o.name == states[-2] or (second and o.name == "text_embeds")]
    del m.graph.output[:]
    m.graph.output.extend(keep)
    rename(m, **({states[-2]: "hidden_states", "text_embeds": "text_embeddings"} if second else {states[-2]: "hidden_states"}))


SCALAR, ONE, ROWS = [], [1], ["batch_size"]
flat = dict(op="ReduceMax", keepdims=0)
NAMES = {
    "webui": dict(sample="x", timestep="timesteps", encoder_hidden_states="context", text_embeds="y"),
    "pipelines": dict(sample="latent_model_input", timestep="t", encoder_hidden_states="prompt_embeds", text_embeds="added_cond_kwargs.text_embeds", time_ids="added_cond_kwargs.time_ids", out_sample="noise_pred"),
    "TensorRT": dict(out_sample="latent"), "unknown": dict(sample="a", timestep="b", encoder_hidden_states="c", text_embeds="d", time_ids="e", out_sample="f"),
}
# what it is: the part and what is done to it
MODELS = {f"UNet with {k} names": {UNET: lambda m, n=n: rename(m, **n)} for k, n in NAMES.items()}
MODELS |= {f"timestep as {T.DataType.Name(t)}": {UNET: input_type("timestep", t)} for t in (T.DOUBLE, T.INT64, T.INT32, T.FLOAT16)}
MODELS |= {
    "timestep of rank 1, [1]": {UNET: lambda m: in_front(m, "timestep", shape=ONE, **flat)},
    "timestep of rank 1, [batch]": {UNET: lambda m: in_front(m, "timestep", shape=ROWS, **flat)},
    "timestep [batch] of INT64": {UNET: both(input_type("timestep", T.INT64), lambda m: in_front(m, "timestep", shape=ROWS, **flat))},
    "inputs backwards": {UNET: backwards},
    "batch fixed to 1": {UNET: fixed_batch(1), VAE: fixed_batch(1), TE: fixed_batch(1), TE2: fixed_batch(1)},
    "batch fixed to 2": {UNET: fixed_batch(2)},
    "DOUBLE in and out": {UNET: both(input_type("sample", T.DOUBLE), input_type("encoder_hidden_states", T.DOUBLE), output_type("out_sample", T.DOUBLE))},
    "tokens as INT32": {TE: input_type("input_ids", T.INT32), TE2: input_type("input_ids", T.INT32)},
    "hidden states inside the graph": {TE: hide_states, TE2: hide_states},
    "TensorRT's text encoders": {TE: one_state, TE2: one_state},
    "TensorRT's VAE": {VAE: lambda m: rename(m, latent_sample="latent", sample="images")},
}


# ---- edits of a folder ----

def data_file(name):
    def edit(d):
        m = onnx.load(d / UNET)
        onnx.save(m, d / UNET, save_as_external_data=True, location=name, size_threshold=1024)
    return edit


def without(name):
    return lambda d: (d / name).unlink() if (d / name).is_file() else shutil.rmtree(d / name)


def class_name(d): (d / "model_index.json").write_text(json.dumps({"_class_name": "ORTStableDiffusionXLPipeline", "watermarker": [None, None]}))
def torch_vae(d):
    (d / "vae").mkdir()
    (d / "vae_decoder/config.json").rename(d / "vae/config.json")


def other_file(d): (d / UNET).rename(d / "unet/unet_fp32.onnx")
def fast_tokenizer(d):
    for t in ("tokenizer", "tokenizer_2"):
        for f in ("vocab.json", "merges.txt"): (d / t / f).unlink(missing_ok=True)


FOLDERS = {"data in model.onnx_data": data_file("model.onnx_data"), "data in model.onnx.data": data_file("model.onnx.data"), "data in weights.pb": data_file("weights.pb"),
           "data in a file named by a UUID": data_file("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"), "ORT's class name": class_name, "no model_index.json": without("model_index.json"),
           "the VAE's config in vae/": torch_vae, "the only .onnx of the folder": other_file, "no VAE encoder": without("vae_encoder"), "tokenizer.json alone": fast_tokenizer}


def folder(base, where, models, edit):
    """A copy in which files are links until something is written."""
    shutil.copytree(base, where, copy_function=os.link, ignore=shutil.ignore_patterns("recorded", "*.npz", "sheet.png"))
    for part, change in models.items():
        m = onnx.load(where / part)
        change(m)
        (where / part).unlink()
        onnx.save(m, where / part)
    for j in [*where.rglob("*.json"), where / UNET] if edit else []:  # what is written to must not be the original
        data = j.read_bytes()
        j.unlink()
        j.write_bytes(data)
    if edit: edit(where)
    return where


def draw(o, d, out, *more):
    p = subprocess.run([o.sdxl, d, "-p", PROMPT, "-n", "", "--steps", STEPS, "--guidance", "4", "-q", "-o", out, *more], capture_output=True, text=True)
    return p.stderr.strip()[:300] if p.returncode else None


def check(label, ok, said):
    print(f"{'ok' if ok else 'FAILED':7}{label}: {said}", flush=True)
    return ok


def all_disguises(o, tmp, ref):
    rows = [(label, models, None) for label, models in MODELS.items()] + [(label, {}, edit) for label, edit in FOLDERS.items()]
    good = True
    for i, (label, models, edit) in enumerate(rows):
        d = folder(o.folder, tmp / f"d{i}", models, edit)
        said = draw(o, d, tmp / "x.png")
        same = said is None and np.array_equal(png(tmp / "x.png"), png(ref))
        good &= check(label, same or (said is None and psnr(tmp / "x.png", ref) > CLOSE.get(label, 999)), said or ("same pixels" if same else f"{psnr(tmp / 'x.png', ref):.1f} dB"))
        shutil.rmtree(d)
    return good


CLOSE = {"batch fixed to 1": 80}  # sums in another order


def noise_file(o, tmp):
    """The first latent from a file: the seed says nothing more; another count of values is refused."""
    x, shape = np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32), (1, 4, 8, 8)
    np.savez(tmp / "noise.npz", noise=x), np.savez(tmp / "short.npz", noise=np.zeros(shape, np.float32))
    said = [draw(o, o.folder, tmp / f"n{seed}.png", "--noise", tmp / "noise.npz", "--seed", str(seed)) for seed in (0, 1)]
    same = said == [None, None] and np.array_equal(png(tmp / "n0.png"), png(tmp / "n1.png")) and not np.array_equal(png(tmp / "n0.png"), png(tmp / "ref.png"))
    short = draw(o, o.folder, tmp / "x.png", "--noise", tmp / "short.npz") or "drew"
    return check("noise from a file", same and "noise has 256 values, the latent 1024" in short, said if not same else short)


def more_inputs(m):
    """A ControlNet's residual, as exporters name it."""
    m.graph.input.append(h.make_tensor_value_info("mid_block_additional_residual", T.FLOAT, ["batch", 8, 4, 4]))


def refused(o, tmp):
    """What is not drawn is told what can be done."""
    said = draw(o, folder(o.folder, tmp / "more", {UNET: more_inputs}, None), tmp / "x.png") or "drew"
    return check("a ControlNet's residuals among the inputs", "ControlNet" in said and "--preset sdxl-int8 --calib FOLDER" in said, said)


# ---- float16 ----

def half(t): return nh.from_array(np.clip(nh.to_array(t), -65504, 65504).astype(np.float16), t.name)


def to_half(m):
    """Everything but the timestep, the sines of time_proj, which diffusers makes in float32, and the scales of Resize."""
    g, values = m.graph, onnx.shape_inference.infer_shapes(m).graph
    floats = {v.name for v in [*values.value_info, *values.input, *values.output] if v.type.tensor_type.elem_type == T.FLOAT}
    keep = {n.name for n in g.node if "time_proj" in n.name}
    consts = {n.output[0] for n in g.node if n.op_type == "Constant"} | {i.name for i in g.initializer}
    wide = {i for n in g.node for k, i in enumerate(n.input) if i in consts and (n.name in keep or (n.op_type == "Resize" and k == 2))}
    made_wide = {o for n in g.node if n.name in keep for o in n.output}
    for t in g.initializer:
        if t.data_type == T.FLOAT and t.name not in wide: t.CopyFrom(half(t))
    for v in [*g.input, *g.output]:
        if v.type.tensor_type.elem_type == T.FLOAT and v.name != "timestep": v.type.tensor_type.elem_type = T.FLOAT16
    nodes, casts = [], {}

    def cast(name, to):
        if (name, to) not in casts:
            casts[name, to] = f"{name}_as_{to}"
            nodes.append(h.make_node("Cast", [name], [casts[name, to]], to=to))
        return casts[name, to]
    for n in g.node:
        for a in n.attribute:
            if a.type == a.TENSOR and a.t.data_type == T.FLOAT and not set(n.output) & wide: a.t.CopyFrom(half(a.t))
            if n.op_type == "Cast" and a.name == "to" and a.i == T.FLOAT and n.name not in keep: a.i = T.FLOAT16
        for k, i in enumerate(n.input):
            if n.name in keep and i in floats and i not in made_wide | consts: n.input[k] = cast(i, T.FLOAT)
            elif n.name not in keep and i in made_wide & floats: n.input[k] = cast(i, T.FLOAT16)
        nodes.append(n)
    del g.node[:], g.value_info[:]
    g.node.extend(nodes)


def overflow(m):
    """The same VAE with sums beyond 65,504 between two normalisations: what a convolution makes, only a normalisation reads."""
    for i in m.graph.initializer:
        if i.name.endswith(("decoder.mid_block.resnets.0.conv1.weight", "decoder.mid_block.resnets.0.conv1.bias")): i.CopyFrom(nh.from_array(nh.to_array(i) * np.float32(2**11), i.name))


def half_folder(o, tmp, ref):
    parts = {p: to_half for p in (UNET, VAE, TE, TE2)}
    d, out = folder(o.folder, tmp / "half", parts, None), tmp / "half.png"
    said = draw(o, d, out)
    good = check("float16 in all parts", said is None and psnr(out, ref) > 35, said or f"{psnr(out, ref):.1f} dB")
    (tmp / "one.txt").write_text(PROMPT + "\n")
    for form, least in (("int8", 20), ("fp8", 20), ("int4", 15)):
        new = tmp / ("half-" + form)
        p = subprocess.run([o.sdxl, d, "--quantize", form, *(["--calibrate", tmp / "one.txt", "--steps", STEPS] if form != "int4" else []), "-q", "-o", new], capture_output=True, text=True)
        said = p.stderr[:300] if p.returncode else draw(o, new, tmp / "q.png")
        good &= check(f"float16, {form}", said is None and psnr(tmp / "q.png", ref) > least, said or f"{psnr(tmp / 'q.png', ref):.1f} dB, {(new / UNET).stat().st_size / (d / UNET).stat().st_size:.2f} of the file")
    bad = folder(o.folder, tmp / "bad", {**parts, VAE: both(overflow, to_half)}, None)
    said = draw(o, bad, out) or "no complaint"
    good &= check("float16 VAE that overflows is named", "not finite" in said and "conv1" in said, said[:160])
    p = subprocess.run([o.qonnx, "quantize", bad / VAE, "--passes", "fp16-safe(factor=4096)", "--no-verify", "-q", "-o", tmp / "safe.onnx"], capture_output=True, text=True)
    said = p.stderr[:300] if p.returncode else draw(o, bad, out, "--vae", tmp / "safe.onnx")
    return good & check("and is well after fp16-safe", said is None and psnr(out, ref) > 35, said or f"{psnr(out, ref):.1f} dB")


def main():
    a = argparse.ArgumentParser(usage=__doc__)
    a.add_argument("--sdxl", required=True), a.add_argument("--qonnx", required=True), a.add_argument("--folder", type=Path, required=True)
    o = a.parse_args()
    with tempfile.TemporaryDirectory(dir=o.folder.parent if os.stat(o.folder).st_dev != os.stat(tempfile.gettempdir()).st_dev else None) as t:
        tmp = Path(t)
        ref = tmp / "ref.png"
        said = draw(o, o.folder, ref)
        if said: sys.exit(said)
        good = all_disguises(o, tmp, ref)
        good &= noise_file(o, tmp)
        good &= refused(o, tmp)
        good &= half_folder(o, tmp, ref)
    sys.exit(not good)


if __name__ == "__main__":
    main()
