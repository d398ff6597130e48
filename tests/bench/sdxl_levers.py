"""What each lever gives, judged by pictures: the table of docs/sdxl-numbers.md. One sweep of the pipeline serves all rows; each row is one `qonnx quantize` and the
pictures of prompts that calibration did not see, beside the float UNet's of the same seeds.

usage: sdxl_levers.py BUILD_DIR PIPELINE_DIR WORK_DIR [--only LABEL,LABEL] [--prompts 16] [--seeds 2] [--steps 20]

The first 16 prompts of PIPELINE_DIR/calib.txt are calibrated with, the following ones are drawn (25 steps, guidance 4, two seeds each); heldout.txt stays unseen
for the final numbers. A row says mean and worst PSNR in dB and, against noise, the mean over pictures of the difference to the preset's PSNR with its standard error.
Groups of channels have no pass: the scale of a quantized convolution's input becomes a vector over its channels here, to see what such a pass would give."""
import argparse, os, re, sys
import numpy as np

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]
from sdxl_ort import prompts, psnr
from sdxl_peers import GUIDANCE, STEPS, read_png, run

INT8 = "merge-shapes,{before}int8(level={level},{zero}rest=weights,{end}{act})"
FP8 = "merge-shapes,{before}fp8(level={level},rest=weights,{end}{act})"
PRESET = dict(before="", level=3, zero="zero-point,", end="end=float", act="")
# label: what differs from the preset, patterns whose inputs stay float, groups of channels. Formats: INT8 and FP8 unless `only`.
LEVERS = {
    "the preset without gptq": {},
    "symmetric instead of zero points": dict(zero="", only="int8"),
    "ranges: largest value": dict(act=",act=max"),
    "ranges: least squared error": dict(act=",act=mse"),
    "ranges: entropy": dict(act=",act=entropy"),
    "ranges: 99.99 % of the values": dict(act=",act=percentile,percentile=99.99"),
    "ranges: least over steps of the mean largest": dict(act=",act=steps-min-mean"),
    "ranges: mean over steps of the largest": dict(act=",act=steps-mean-max"),
    "the same over the first half of the steps": dict(act=",act=steps-mean-max,step-fraction=0.5"),
    "scales for 4 groups of a convolution's input channels": dict(groups=4),
    "a scale for each input channel of convolutions": dict(groups=0),
    "gptq": dict(before="gptq,"),
    "bias-correction": dict(before="bias-correction,"),
    "gptq, bias-correction": dict(before="gptq,bias-correction,"),
    "gptq, bias-correction, least squared error": dict(before="gptq,bias-correction,", act=",act=mse", only="fp8"),
    "bias-correction, least squared error": dict(before="bias-correction,", act=",act=mse", only="fp8"),
    "smoothquant": dict(before="smoothquant(float-effect=0,float-below=0),"),
    "first down and last up block quantized too": dict(end="end=quantize"),
    "second-last up block's inputs float": dict(floats=["up_blocks.1.*"]),
    "its convolutions' inputs float": dict(floats=["up_blocks.1.resnets*", "up_blocks.1.upsamplers*"]),
    "its attention's inputs float": dict(floats=["up_blocks.1.attentions*"]),
    "all convolutions' inputs float": dict(floats=["*resnets*", "*samplers*"]),  # not conv_in and conv_out: their weights stay float
    "level 1": dict(level=1), "level 2": dict(level=2), "level 2.5": dict(level=2.5), "level 3": dict(level=3), "level 4": dict(level=4),
    "weights alone": dict(passes="merge-shapes,{}-weights"),
}


def text_of(form, lever):
    if "passes" in lever: return lever["passes"].format(form)
    base = dict(PRESET, level=4 if form == "fp8" else 3)
    return (FP8 if form == "fp8" else INT8).format(**dict(base, **{k: v for k, v in lever.items() if k in base}))


def split_channels(path, calls, groups):
    """Convolution inputs with a scale a group of channels (0: each): ranges of the inputs from `calls` of the quantized UNet itself."""
    import onnx
    from onnx import helper as h, numpy_helper as nh
    from sdxl_ort import session
    m = onnx.load(path)
    init = {i.name: i for i in m.graph.initializer}
    by = {o: n for n in m.graph.node for o in n.output}
    pairs = [(by[d.input[0]], d) for c in m.graph.node if c.op_type == "Conv" and (d := by.get(c.input[0])) is not None and d.op_type == "DequantizeLinear"]
    probe = onnx.load(path)
    names = sorted({q.input[0] for q, _ in pairs})
    probe.graph.output.extend(h.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    onnx.save(probe, path + ".probe")
    s, low, high = session(path + ".probe", keep_pairs=True), {}, {}
    z = np.load(calls)
    for k in range(len(z["timestep"])):
        for n, v in zip(names, s.run(names, {f: np.asarray(z[f][k]) for f in z.files})):
            low[n] = np.minimum(low.get(n, 0), v.min((0, 2, 3)))
            high[n] = np.maximum(high.get(n, 0), v.max((0, 2, 3)))
    os.unlink(path + ".probe")
    for q, d in pairs:
        n = q.input[0]
        zero, old = init[q.input[2]], nh.to_array(init[q.input[1]])
        count = groups or len(high[n])
        order = np.argsort(np.maximum(high[n], -low[n]), kind="stable")
        top, bottom = high[n].copy(), low[n].copy()
        for part in np.array_split(order, min(count, len(order))): top[part], bottom[part] = top[part].max(), bottom[part].min()
        if zero.data_type == onnx.TensorProto.FLOAT8E4M3FN:
            scale, code = np.maximum(top, -bottom) / 448, h.make_tensor(n + "_group_zero", zero.data_type, top.shape, np.zeros(len(top), np.uint8).tobytes(), raw=True)
        else:
            scale = np.maximum(top - bottom, 1e-9) / 255
            code = nh.from_array(np.clip(np.rint(-bottom / scale), 0, 255).astype(np.uint8), n + "_group_zero")
        new = [nh.from_array(np.maximum(scale, 1e-12).astype(old.dtype), n + "_group_scale"), code]
        for t in new:
            if t.name not in init: m.graph.initializer.append(t); init[t.name] = t
        for node in (q, d):
            node.input[1], node.input[2] = n + "_group_scale", n + "_group_zero"
            for a in [a for a in node.attribute if a.name == "axis"]: node.attribute.remove(a)
            node.attribute.append(h.make_attribute("axis", 1))
    onnx.save(m, path)


def draw(o, folder, name, unet=None):
    """PNG files of all judged prompts."""
    out = f"{o.work}/{name}"
    os.makedirs(out, exist_ok=True)
    paths = [f"{out}/p-{i}.png" for i in range(o.prompts * o.seeds)]
    if all(map(os.path.exists, paths)): return paths
    got = run([f"{o.build}/qonnx-sdxl", folder, "--prompts", o.work + "/drawn.txt", "--count", str(o.seeds), "--steps", str(STEPS), "--guidance", str(GUIDANCE), "-q", "-o", out + "/p.png"] + (["--unet", unet] if unet else []))
    if not got["ok"]: raise RuntimeError(got["last"])
    return paths


def prepare(o):
    texts = prompts(o.folder + "/calib.txt", 16 + o.prompts)
    for name, lines in (("calib16", texts[:16]), ("drawn", texts[16:])):
        with open(f"{o.work}/{name}.txt", "w") as f: f.write("\n".join(lines) + "\n")
    stats = o.work + "/all.stats"
    if not os.path.exists(stats):
        got = run([f"{o.build}/qonnx-sdxl", o.folder, "--calibrate", o.work + "/calib16.txt", "--steps", str(o.steps), "--guidance", str(GUIDANCE), "--stats", stats, "-q",
                   "--passes", "smoothquant,gptq,bias-correction,int8(level=4,zero-point)"])
        if not got["ok"]: sys.exit(got["last"])
    calls = o.work + "/calls.npz"
    if not os.path.exists(calls):
        from sdxl_peers import collect
        collect(o.folder, calls, 16 * o.steps)
    return stats, calls, [read_png(p) for p in draw(o, o.folder, "float")]


def judge(o, form, label, lever, stats, calls, ref):
    name = form + "-" + re.sub("[^a-z0-9.]+", "-", label)
    out = f"{o.work}/{name}.onnx"
    if not os.path.exists(out):
        got = run([f"{o.build}/qonnx", "quantize", o.folder + "/unet/model.onnx", "--passes", text_of(form, lever), "--load-stats", stats, "-o", out, "--force", "--no-verify", "-q", *[a for f in lever.get("floats", []) for a in ("--set", f + "=int8-weights")]])
        if not got["ok"]: raise RuntimeError(got["last"])
        if "groups" in lever: split_channels(out, calls, lever["groups"])
    v = np.array([psnr(a, read_png(b)) for a, b in zip(ref, draw(o, o.folder, name, out))])
    return v, os.path.getsize(out) / os.path.getsize(o.folder + "/unet/model.onnx")


def cell(got, preset):
    if isinstance(got, str): return got
    v, size = got
    gain = v - preset
    text = f"{v.mean():.1f} / {v.min():.1f}"
    return text + (f" | {gain.mean():+.1f} ± {gain.std(ddof=1) / len(v) ** 0.5:.1f} | {size:.2f}" if np.any(gain) else f" | | {size:.2f}")


def main():
    a = argparse.ArgumentParser(usage=__doc__)
    a.add_argument("build"), a.add_argument("folder"), a.add_argument("work")
    a.add_argument("--only", default=""), a.add_argument("--prompts", type=int, default=16), a.add_argument("--seeds", type=int, default=2), a.add_argument("--steps", type=int, default=20)
    o = a.parse_args()
    os.makedirs(o.work, exist_ok=True)
    stats, calls, ref = prepare(o)
    preset = {f: judge(o, f, "the preset without gptq", {}, stats, calls, ref)[0] for f in ("int8", "fp8")}
    print("| lever | INT8, mean / worst | beside the preset | file | FP8, mean / worst | beside the preset | file |\n|---|---|---|---|---|---|---|", flush=True)
    for label, lever in LEVERS.items():
        if o.only and label not in o.only.split(","): continue
        cells = []
        for form in ("int8", "fp8"):
            try: got = judge(o, form, label, lever, stats, calls, ref) if lever.get("only", form) == form else " | | "
            except RuntimeError as e: got = f"{e} | | "
            cells.append(cell(got, preset[form]))
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
