#!/usr/bin/env python3
"""Speed of the executor against ONNX Runtime's CPU provider, in turns of two runs of which the second counts, so that whatever else the machine does hits both.

against_ort.py [-t 1] [-n 15] [--bench build/bin/bench_exec] [CASE ...]
    CASE is the name of one of the cases below (default: all whose files are there), or MODEL.onnx:INPUTS.npz.

On one thread processor time is compared (a busy machine shows least there), on more wall time. "ratio" is ORT's time by ours: over 1 is
faster than ONNX Runtime; of the minima and of the medians. "start" is what comes before the first result, less the fastest run, of both: open, plan and pack, and fresh
pages for activations (ORT's session alone stands beside it). A process that has run another model before has warm pages: for starts name one case a call.
QONNX_MODELS is the folder of exported models; SMOLLM2 that of SmolLM2-135M (tests/README.md); SDXL_BLOCKS what make_block.py wrote."""
import argparse, os, signal, statistics, subprocess, sys, tempfile, time

import numpy as np
import onnxruntime as ort

MODELS = os.environ.get("QONNX_MODELS", "")
SMOL = os.environ.get("SMOLLM2", "")
BLOCKS = os.environ.get("SDXL_BLOCKS", "")


def tokens(n):
    def make(sample, rng):
        out = {}
        for k, v in sample.items():
            if "mask" in k: out[k] = np.ones((v.shape[0] if v.ndim else 1, n), v.dtype)
            elif "position" in k: out[k] = np.arange(n, dtype=v.dtype)[None, :].repeat(v.shape[0], 0)
            elif v.dtype.kind == "i": out[k] = rng.integers(3, int(max(v.max(), 4)), (v.shape[0], n)).astype(v.dtype)
            else: out[k] = v
        return out
    return make


def latents(px):
    return lambda sample, rng: {k: (rng.standard_normal((v.shape[0], v.shape[1], px // 8, px // 8)).astype(v.dtype) if v.ndim == 4 else v) for k, v in sample.items()}


CASES = {
    "unet128": ("{m}/micro-sdxl/unet", latents(128)), "unet512": ("{m}/micro-sdxl/unet", latents(512)),
    "vae128": ("{m}/micro-sdxl/vae_decoder", latents(128)), "vae512": ("{m}/micro-sdxl/vae_decoder", latents(512)),
    "vae-decoder": ("{m}/vae-decoder", None), "bert": ("{m}/bert", None), "bert128": ("{m}/bert", tokens(128)),
    "clip-text": ("{m}/clip-text", None), "micro-llama": ("{m}/micro-llama", None), "sd3": ("{m}/sd3-mmdit-dynamo", None),
    "block640": ("{b}/block640", None), "block1280": ("{b}/block1280", None),
    "smollm2-prefill256": ("{s}", tokens(256)), "smollm2-1": ("{s}", tokens(1)),
}


def case_files(name, tmp):
    if ":" in name: return name.split(":")
    folder, make = CASES[name]
    folder = folder.format(m=MODELS, s=SMOL, b=BLOCKS)
    model, sample = f"{folder}/model.onnx", f"{folder}/sample.npz"
    if not os.path.exists(model): return None
    if not make: return model, sample
    feeds = make(dict(np.load(sample)), np.random.default_rng(1))
    path = f"{tmp}/{name}.npz"
    np.savez(path, **feeds)
    return model, path


class Ours:
    """Stopped outside of its turns: its threads spin while they wait, and would take a core from the other side."""
    def __init__(self, bench, model, npz, threads, options):
        env = dict(os.environ, OMP_WAIT_POLICY=os.environ.get("OMP_WAIT_POLICY", "active"))
        self.p = subprocess.Popen([bench, model, npz, str(threads)] + options, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        line = self.p.stdout.readline().split()
        if not line: sys.exit(f"{model}: bench_exec failed")
        self.start = float(line[1]), float(line[2])
        self.p.send_signal(signal.SIGSTOP)

    def run(self):
        self.p.send_signal(signal.SIGCONT)
        self.p.stdin.write("\n")
        self.p.stdin.flush()
        times = [float(x) for x in self.p.stdout.readline().split()]
        self.p.send_signal(signal.SIGSTOP)
        return times

    def close(self):
        self.p.send_signal(signal.SIGCONT)
        self.p.stdin.close()
        return int(self.p.stdout.readline().split()[1]) / 1024


class Ort:
    def __init__(self, model, npz, threads):
        o = ort.SessionOptions()
        o.intra_op_num_threads, o.log_severity_level = threads, 3
        wall, cpu = time.perf_counter(), time.process_time()
        self.s = ort.InferenceSession(model, o, providers=["CPUExecutionProvider"])
        self.start = time.perf_counter() - wall, time.process_time() - cpu
        wanted = {i.name for i in self.s.get_inputs()}
        self.feeds = {k: v for k, v in np.load(npz).items() if k in wanted}
        self.first = self.run()
        self.threads = threads

    def run(self):
        wall, cpu = time.perf_counter(), time.process_time()
        self.s.run(None, self.feeds)
        return time.perf_counter() - wall, time.process_time() - cpu

    def settle(self):
        """Its threads spin for 35 to 40 ms behind a run (measured by processor time), and would take a core from our run or start."""
        if self.threads > 1: time.sleep(0.06)


def measure(name, files, a):
    theirs = Ort(*files, a.threads)
    theirs.settle()
    ours = Ours(a.bench, *files, a.threads, [a.options] if a.options else [])
    which = 1 if a.threads == 1 else 0
    t, o = [], []
    for i in range(a.runs + 1):
        for side, out in ((theirs, t), (ours, o)) if i % 2 else ((ours, o), (theirs, t)):
            theirs.settle()
            side.run() # its data back into the caches, from which the other side's run has driven it
            v = side.run()[which]
            if i: out.append(v)
    m = statistics.median
    before, session = ours.start[which] - min(o), theirs.start[which]
    ort_before = session + max(theirs.first[which] - min(t), 0)
    print(f"{name:22s} {min(o) * 1e3:9.2f} ms  ORT {min(t) * 1e3:9.2f} ms  ratio min {min(t) / min(o):5.2f} median {m(t) / m(o):5.2f}  "
          f"start {before:.3f} s, ORT {ort_before:.3f} s (session {session:.3f}), {before / ort_before:.2f} of it  rss {ours.close():.0f} MiB", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-t", "--threads", type=int, default=1)
    p.add_argument("-n", "--runs", type=int, default=15)
    p.add_argument("--bench", default="build/bin/bench_exec")
    p.add_argument("--options", help="of our session: simulate=1, compute=bf16 ...")
    p.add_argument("cases", nargs="*")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        for name in a.cases or CASES:
            files = case_files(name, tmp)
            if files: measure(name, files, a)
            else: print(f"{name:22s} skipped: no model there")


if __name__ == "__main__":
    main()
