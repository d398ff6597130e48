"""How much of a quantized UNet's picture error is chance: errors of the same power and the same spectrum that have nothing to do with the picture.

usage: sdxl_chance.py PIPELINE_DIR UNET [--turns 8] [--prompts 32]

The UNet's errors, its noise predictions less the float UNet's, are recorded on the float UNet's way to each held-out prompt. Then the float UNet draws the same
prompts, and to each prediction the error is added that another prompt had at the same step, with a random sign, mirrored and rolled round the picture at random.
Such an error has the file's power, step by step, and its spectrum, but no meaning. A row is one such turn over all prompts: mean and worst PSNR to the float
pictures, and the share of the prompts kept (grade of shapes.py). The first row is the file itself. ONNX Runtime draws everything; seeds 0, 1, ..."""
import argparse
import numpy as np

from sdxl_ort import Pipeline, prompts, psnr, session
from sdxl_peers import GUIDANCE, STEPS, meta


class Placebo:
    """Stands in for the float UNet's session: its predictions, and at each step the error of another of the bank's prompts than the k-th."""
    def __init__(self, unet, bank, k, rng): self.unet, self.bank, self.k, self.rng, self.step = unet, bank, k, rng, 0

    def run(self, names, feed):
        other = (self.k + self.rng.integers(1, len(self.bank))) % len(self.bank)
        self.step += 1
        return [self.unet.run(names, feed)[0] + moved(self.bank[other][self.step - 1], self.rng)]


def errors_of(p, other, texts):
    """[prompt][step]: the other UNet's predictions less the float one's, on the float one's way."""
    bank = []
    for k, text in enumerate(texts):
        calls = []
        p.latents(text, k, STEPS, GUIDANCE, lambda f: calls.append({n: v.copy() for n, v in f.items()}))
        bank.append([other.run(None, f)[0] - p.unet.run(None, f)[0] for f in calls])
    return np.array(bank)


def moved(e, rng):
    e = e * rng.choice([-1, 1])
    if rng.random() < 0.5: e = e[..., ::-1]
    return np.roll(e, rng.integers(0, e.shape[-1], 2), (-2, -1)).astype(np.float32)


def turn(p, texts, unet_of):
    """Pictures of all prompts, each with the UNet that unet_of(prompt) gives."""
    real, out = p.unet, []
    for k, text in enumerate(texts):
        p.unet = unet_of(k)
        out.append(p.draw(text, k, STEPS, GUIDANCE))
    p.unet = real
    return out


def row(label, pictures, ref, texts):
    from shapes import grade
    v = np.sort([psnr(a, b) for a, b in zip(ref, pictures)])
    kept = np.mean([grade(a, meta(t)) for a, t in zip(pictures, texts)])
    print(f"| {label} | {v.mean():.1f} / {v[0]:.1f}, next {v[1]:.1f} | {kept:.3f} |", flush=True)


def main():
    a = argparse.ArgumentParser(usage=__doc__)
    a.add_argument("folder"), a.add_argument("unet"), a.add_argument("--turns", type=int, default=8), a.add_argument("--prompts", type=int, default=32)
    o = a.parse_args()
    texts, p, rng = prompts(o.folder + "/heldout.txt", o.prompts), Pipeline(o.folder, threads=1), np.random.default_rng(0)
    other = session(o.unet, threads=1, keep_pairs=True)
    bank = errors_of(p, other, texts)
    real = p.unet
    ref = turn(p, texts, lambda k: real)
    print("| | mean / worst | kept |\n|---|---|---|")
    row("float", ref, ref, texts)
    row("the file", turn(p, texts, lambda k: other), ref, texts)
    for n in range(o.turns): row(f"errors of other prompts, {n + 1}", turn(p, texts, lambda k: Placebo(real, bank, k, rng)), ref, texts)


if __name__ == "__main__":
    main()
