"""The tables of docs/sdxl-numbers.md: one UNet quantized by qonnx and by its peers with the same number of calibration inputs, judged on the same pictures.

usage: sdxl_peers.py BUILD_DIR PIPELINE_DIR WORK_DIR [--modelopt PYTHON] [--only NAME,NAME] [--calls 160] [--ort-pictures]

BUILD_DIR holds qonnx and qonnx-sdxl; PIPELINE_DIR is samples/models/micro-sdxl or one like it with calib.txt and heldout.txt. Every
quantizer runs in a process of its own (seconds and peak memory are that process's); a file that exists in WORK_DIR is not made again. PYTHON is
an interpreter that has nvidia-modelopt[onnx]. Pictures: 25 steps, guidance 4, seeds 0, 1, ..., the float folder as reference. "grade" is the
share of what the prompts ask for that the pictures show (grade() of samples/models/make/shapes.py)."""
import argparse, json, os, re, shutil, subprocess, sys, time
import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [here, os.path.join(here, "../../samples/models/make")]
STEPS, GUIDANCE = 25, 4.0


class Reader:
    """What ONNX Runtime and Model Optimizer read calibration inputs from."""
    def __init__(self, path):
        z = np.load(path)
        self.calls = [{n: np.asarray(z[n][i]) for n in z.files} for i in range(len(z["timestep"]))]
        self.rewind()

    def get_next(self): return next(self.at, None)
    def rewind(self): self.at = iter(self.calls)
    def get_first(self): return self.calls[0]
    def __iter__(self): return iter(self.calls)


def make_ort_int8(model, calls, out):
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    quant_pre_process(model, out + ".pre", skip_symbolic_shape=True)
    quantize_static(out + ".pre", out, Reader(calls), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax, extra_options={"CalibMaxIntermediateOutputs": None})
    os.unlink(out + ".pre")


def make_ort_int4(model, calls, out):
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    q = MatMulNBitsQuantizer(onnx.load(model), block_size=32, is_symmetric=True)
    q.process()
    q.model.save_model_to_file(out)


def make_ort_int8_weights(model, calls, out):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    quantize_dynamic(model, out, per_channel=True, weight_type=QuantType.QInt8)


def make_modelopt(mode, model, calls, out, method="max", **more):
    from modelopt.onnx.quantization import quantize
    shutil.copy(model, out + ".in.onnx")  # it writes over its input
    quantize(out + ".in.onnx", quantize_mode=mode, calibration_data_reader=Reader(calls), calibration_method=method, calibration_eps=["cpu"], output_path=out,
             high_precision_dtype="fp32", log_level="ERROR", **more)


MAKERS = {"ort-int8": make_ort_int8, "ort-dynamic": make_ort_int8_weights, "ort-int4": make_ort_int4,
          "modelopt-int8": lambda *a: make_modelopt("int8", *a), "modelopt-fp8": lambda *a: make_modelopt("fp8", *a),
          "modelopt-int4": lambda *a: make_modelopt("int4", *a, "rtn_dq", block_size=32), "modelopt-int4-awq": lambda *a: make_modelopt("int4", *a, "awq_clip", block_size=32)}
# label: passes or preset, target, whether they need statistics of their own
OURS = {"sdxl-int8": ("sdxl-int8", "generic", True), "sdxl-fp8": ("sdxl-fp8", "generic", True), "sdxl-int8 for tensorrt": ("sdxl-int8", "tensorrt", True),
        "2:4 and int8": ("merge-shapes,sparsity,int8(level=3,zero-point,rest=weights,end=float,outputs=off)", "generic", True),
        **{name: (name, "generic", True) for name in (
            "int8-weights", "fp8-weights", "int4(block=32,unblocked=float)", "gptq,int4(block=32,unblocked=float)", "int4(block=32)", "gptq,int4(block=32)", "nvfp4(unblocked=float)",
            "nvfp4", "gptq,nvfp4", "svdquant(rank=16),int4(block=32)", "svdquant(rank=16),gptq,int4(block=32)", "gptq,mixed(size=33%)", "gptq,mixed(size=29%)")}}


# A small process that starts the command: what Linux says of a child's memory includes what its parent had when it was made.
STARTER = """import resource, subprocess, sys
p = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
print(p.stdout, end="")
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(p.returncode != 0)"""


def run(cmd, env=None):
    """Seconds and peak MB of a command; its last lines when it fails."""
    t = time.time()
    p = subprocess.run([sys.executable, "-c", STARTER, *cmd], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    *text, kib = p.stdout.strip().splitlines()
    return dict(seconds=time.time() - t, mb=int(kib) / 1024, ok=p.returncode == 0, text="\n".join(text), last=" ".join(text[-1:])[:160])


def collect(folder, out, n_calls, prompts_of="calib.txt"):
    """Inputs of the UNet on the way of 16 prompts; n_calls of them, evenly over prompts and steps."""
    from sdxl_ort import Pipeline, prompts
    texts, calls = prompts(f"{folder}/{prompts_of}", 16), []
    p = Pipeline(folder)
    for k, text in enumerate(texts):
        p.latents(text, k, n_calls // len(texts), GUIDANCE, lambda f: calls.append({n: v.copy() for n, v in f.items()}))
    np.savez(out, **{n: np.stack([c[n] for c in calls]) for n in calls[0]})


def meta(prompt):
    """What shapes.grade wants to know, read from a caption."""
    from shapes import BACKS, COLORS, SHAPES
    rel = next((r for r in ("left of", "right of", "above", "below") if f" {r} " in prompt), None)
    words = prompt.split()
    objs = [(w, words[i + 1], "") for i, w in enumerate(words[:-1]) if w in COLORS and words[i + 1] in SHAPES]
    return dict(bg=next(b for b in BACKS if re.search(rf"on an? {b} background", prompt)), rel=rel, objs=objs)


def read_png(path):
    """8-bit RGB without interlacing, which is what qonnx-sdxl writes."""
    import struct, zlib
    data, at, body = open(path, "rb").read(), 8, b""
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR": w, h = struct.unpack(">II", data[at + 8:at + 16])
        if kind == b"IDAT": body += data[at + 8:at + 8 + n]
        at += n + 12
    rows, out = np.frombuffer(zlib.decompress(body), np.uint8).reshape(h, 1 + 3 * w), np.zeros((h, w * 3), np.int32)
    for y in range(h):
        f, x, up = rows[y, 0], rows[y, 1:].astype(np.int32), out[y - 1] if y else np.zeros(w * 3, np.int32)
        if f == 2: out[y] = (x + up) & 255
        elif f == 0: out[y] = x
        else:
            for i in range(w * 3):
                a, b, c = (out[y, i - 3] if i > 2 else 0), up[i], (up[i - 3] if i > 2 else 0)
                pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - 2 * c)
                out[y, i] = (x[i] + (a if f == 1 else (a + b) // 2 if f == 3 else a if pa <= pb and pa <= pc else b if pb <= pc else c)) & 255
    return out.reshape(h, w, 3).astype(np.uint8)


def grades(paths, texts):
    from shapes import grade
    return float(np.mean([grade(read_png(p), meta(t)) for p, t in zip(paths, texts)]))


def judge(build, folder, unet):
    from sdxl_ort import prompts
    report = unet + ".report"
    got = run([f"{build}/qonnx-sdxl", folder, "--unet", unet, "--ref", "--prompts", folder + "/heldout.txt", "--steps", str(STEPS), "--guidance",
               str(GUIDANCE), "--report", report, "-q"])
    if not got["ok"]: return dict(error=got["last"])
    j, texts = json.load(open(report + "/report.json")), prompts(folder + "/heldout.txt")
    j["grade"], j["grade_float"] = (grades([f"{report}/{side}-{i:03d}.png" for i in range(len(texts))], texts) for side in ("test", "ref"))
    return j


def draw_by_ort(folder, unet):
    """PSNR of ONNX Runtime's pictures with this UNet to its pictures with the float one; an error text when it does not load."""
    from sdxl_ort import Pipeline, prompts, psnr
    texts = prompts(folder + "/heldout.txt")
    try: test = Pipeline(folder, unet)
    except Exception as e: return str(e).strip().splitlines()[-1][:100]
    ref = Pipeline(folder)
    v = [psnr(ref.draw(t, i, STEPS, GUIDANCE), test.draw(t, i, STEPS, GUIDANCE)) for i, t in enumerate(texts)]
    return f"{np.mean(v):.1f} / {np.min(v):.1f}"


def calibrate(o, stats, passes):
    """qonnx-sdxl's own statistics: the same number of calls."""
    from sdxl_ort import prompts
    texts = o.work + "/calib16.txt"
    with open(texts, "w") as f: f.write("\n".join(prompts(o.folder + "/calib.txt", 16)) + "\n")
    got = run([f"{o.build}/qonnx-sdxl", o.folder, "--calibrate", texts, "--steps", str(o.calls // 16), "--guidance", str(GUIDANCE), "--stats", stats, "-q"] +
              (["--passes", passes] if passes else []))
    if not got["ok"]: sys.exit(got["last"])
    return got


def predictions(unet, calls):
    """Guided noise predictions [call, ...] in float64, by ONNX Runtime as the file says (pairs kept)."""
    from sdxl_ort import session
    s = session(unet, keep_pairs=True)
    both = [np.split(s.run(None, c)[0].astype(np.float64), 2) for c in calls]
    return np.stack([n + GUIDANCE * (p - n) for n, p in both])


def by_step(o, unet):
    """Signal to noise of guided predictions at the first, middle and last of 10 steps, over 16 prompts that calibration did not see; inputs are the float
    pipeline's. An error's text when ONNX Runtime does not load the file."""
    held = o.work + "/held.npz"
    if not os.path.exists(held): collect(o.folder, held, 160, "heldout.txt")
    calls, steps = Reader(held).calls, 10
    if o.want is None: o.want = predictions(o.folder + "/unet/model.onnx", calls)
    try: got = predictions(unet, calls)
    except Exception as e: return str(e).strip().splitlines()[-1][:100]
    db = [10 * np.log10((o.want[i::steps] ** 2).sum() / ((got - o.want)[i::steps] ** 2).sum()) for i in (0, steps // 2, steps - 1)]
    return " / ".join(f"{v:.1f}" for v in db)


def make_ours(o, name, out):
    passes, target, own = OURS[name]
    stats = out + ".stats" if own else o.work + "/unet.stats"
    first = calibrate(o, stats, passes if own else None) if not os.path.exists(stats) else dict(seconds=0, mb=0)
    got = run([f"{o.build}/qonnx", "quantize", o.folder + "/unet/model.onnx", "--preset" if passes.startswith("sdxl-") else "--passes", passes, "--load-stats", stats,
               "-o", out, "--force", "--no-verify", "-q", "--target", target])
    return dict(got, seconds=got["seconds"] + first["seconds"], mb=max(got["mb"], first["mb"]))


def row(o, name):
    model, out = o.folder + "/unet/model.onnx", f"{o.work}/{re.sub('[^a-z0-9-]', '_', name)}.onnx"
    python = o.modelopt if name.startswith("modelopt") else sys.executable
    if name in MAKERS and not python: return None
    cost = dict(seconds=float("nan"), mb=float("nan"), last="")
    if name in OURS: cost = make_ours(o, name, out)
    elif not os.path.exists(out): cost = run([python, os.path.abspath(__file__), o.build, o.folder, o.work, "--make", name])
    if not os.path.exists(out): return f"| {name} | failed: {cost['last']} |"
    j = judge(o.build, o.folder, out)
    if "error" in j: return f"| {name} | {j['error']} |"
    size = sum(os.path.getsize(out + e) for e in ("", ".data") if os.path.exists(out + e)) / os.path.getsize(model)
    ort = draw_by_ort(o.folder, out) if o.ort_pictures else "not drawn"
    return (f"| {name} | {by_step(o, out)} | {j['mean_psnr_db']:.1f} / {j['worst_psnr_db']:.1f} | {j['mean_ssim']:.3f} | {j['grade']:.3f} ({j['grade_float']:.3f}) | {size:.2f} "
            f"| {cost['seconds']:.0f} | {cost['mb']:.0f} | {ort} |")


def main():
    a = argparse.ArgumentParser(usage=__doc__)
    a.add_argument("build"), a.add_argument("folder"), a.add_argument("work")
    a.add_argument("--modelopt"), a.add_argument("--only", default=""), a.add_argument("--calls", type=int, default=160)
    a.add_argument("--make", help=argparse.SUPPRESS), a.add_argument("--ort-pictures", action="store_true")
    o = a.parse_args()
    o.want = None
    calls = o.work + "/calls.npz"
    if o.make: return MAKERS[o.make](o.folder + "/unet/model.onnx", calls, f"{o.work}/{o.make}.onnx")
    os.makedirs(o.work, exist_ok=True)
    if not os.path.exists(calls): collect(o.folder, calls, o.calls)
    print("| UNet | predictions at the first, middle, last step, dB | PSNR mean / worst | SSIM | grade (float) | file, of the float one | s | peak MB | ONNX Runtime's own pictures |\n|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in o.only.split(",") if o.only else [*MAKERS, *OURS]:
        line = row(o, name)
        if line: print(line, flush=True)


if __name__ == "__main__":
    main()
