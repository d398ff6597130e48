"""An SDXL pipeline driven by ONNX Runtime, as small as it can be: what sdxl_peers.py compares qonnx-sdxl with. Euler, leading spacing, guidance with
one call of batch 2, noise of torch's CPU generator. Independent of the project: numpy, onnxruntime and tokenizers only.

usage: sdxl_ort.py QONNX_SDXL PIPELINE_DIR     processor seconds of one picture in both, on one thread, in turns"""
import json, os
import numpy as np
import onnxruntime as ort


def session(path, threads=0, keep_pairs=False):
    o = ort.SessionOptions()
    o.intra_op_num_threads = threads
    o.log_severity_level = 3
    if keep_pairs:  # without this ONNX Runtime builds operators on float8 and then refuses them
        o.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])


def noise(seed, shape):
    """torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for 16 and more values, a multiple of 16."""
    n = int(np.prod(shape))
    u = (np.random.RandomState(seed).randint(0, 2**32, n, np.uint32) & 0xFFFFFF).astype(np.float32) / 2**24
    a, b = u.reshape(-1, 2, 8)[:, 0], u.reshape(-1, 2, 8)[:, 1]
    r, t = np.sqrt(-2 * np.log(1 - a)), np.float32(2 * np.pi) * b
    return np.stack([r * np.cos(t), r * np.sin(t)], 1).reshape(shape).astype(np.float32)


def psnr(a, b):
    mse = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2) / 255**2
    return 100.0 if mse == 0 else -10 * np.log10(mse)


class Pipeline:
    def __init__(self, folder, unet=None, threads=0, keep_pairs=False):
        part = lambda name: session(f"{folder}/{name}/model.onnx", threads)
        self.folder, self.te = folder, [part("text_encoder"), part("text_encoder_2")]
        self.unet, self.vae = session(unet or f"{folder}/unet/model.onnx", threads, keep_pairs), part("vae_decoder")
        self.config = json.load(open(f"{folder}/unet/config.json"))
        self.scaling = json.load(open(f"{folder}/vae_decoder/config.json"))["scaling_factor"]

    def encode(self, prompt):
        from tokenizers import Tokenizer
        hidden, pooled = [], None
        for i, name in enumerate(("tokenizer", "tokenizer_2")):
            tok = Tokenizer.from_file(f"{self.folder}/{name}/tokenizer.json")
            pad = json.load(open(f"{self.folder}/{name}/tokenizer_config.json"))["pad_token"]
            tok.no_padding(), tok.no_truncation()
            ids = tok.encode(prompt).ids[:77]
            ids += [tok.token_to_id(pad)] * (77 - len(ids))
            names = [o.name for o in self.te[i].get_outputs()]
            got = dict(zip(names, self.te[i].run(None, {"input_ids": np.array([ids], np.int64)})))
            layers = sum(n.startswith("hidden_states.") for n in names)
            hidden.append(got[f"hidden_states.{layers - 2}"])
            pooled = got.get("text_embeds", pooled)
        return np.concatenate(hidden, -1), pooled

    def latents(self, prompt, seed, steps, guidance, on_call=None):
        size = self.config["sample_size"]
        side = np.float32(size * 8)
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
        table = ((1 - np.cumprod(1 - betas)) / np.cumprod(1 - betas)) ** 0.5
        t = np.arange(steps)[::-1] * (1000 // steps) + 1
        sigma = np.append(np.interp(t, np.arange(1000), table), 0)
        (hp, pp), (hn, pn) = self.encode(prompt), self.encode("")
        feed = {"encoder_hidden_states": np.concatenate([hn, hp]), "text_embeds": np.concatenate([pn, pp]),
                "time_ids": np.array([[side, side, 0, 0, side, side]] * 2, np.float32)}
        x = noise(seed, (1, 4, size, size)) * np.float32((sigma[0] ** 2 + 1) ** 0.5)
        for i in range(steps):
            z = (x / (sigma[i] ** 2 + 1) ** 0.5).astype(np.float32)
            feed.update(sample=np.concatenate([z, z]), timestep=np.array(t[i], np.float32))
            if on_call:
                on_call(feed)
            n, p = np.split(self.unet.run(None, feed)[0], 2)
            x = (x + (n + guidance * (p - n)) * (sigma[i + 1] - sigma[i])).astype(np.float32)
        return x

    def picture(self, x):
        y = self.vae.run(None, {"latent_sample": (x / self.scaling).astype(np.float32)})[0][0]
        return np.rint(np.clip(y / 2 + 0.5, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)

    def draw(self, prompt, seed, steps=25, guidance=4.0):
        return self.picture(self.latents(prompt, seed, steps, guidance))


def prompts(path, n=None):
    return [l.strip() for l in open(path) if l.strip() and not l.startswith("#")][:n]


def processor_seconds(command):
    import resource, subprocess
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    t = used()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return used() - t


def main(program, folder, pictures=4, turns=5):
    import time
    texts, p = prompts(folder + "/heldout.txt", pictures), Pipeline(folder, threads=1)
    draw = lambda n: processor_seconds([program, folder, *sum((["-p", t] for t in texts[:n]), []), "--steps", "25", "--guidance", "4", "--threads", "1", "-q", "-o", "/tmp/sdxl_ort.png"])
    p.draw(texts[0], 0)
    for _ in range(turns):
        t = time.process_time()
        for i, text in enumerate(texts): p.draw(text, i)
        theirs, ours = (time.process_time() - t) / pictures, (draw(pictures) - draw(1)) / (pictures - 1)  # without what is done once
        print(f"ONNX Runtime {theirs:.3f} s, qonnx-sdxl {ours:.3f} s: {theirs / ours:.2f} times", flush=True)


if __name__ == "__main__":
    import sys
    main(*sys.argv[1:])
