"""Records diffusers' own runs of a pipeline. usage: record_sdxl.py PIPELINE_DIR ONNX_DIR OUT SECOND_OUT
OUT/recorded/NAME.npz: latents after every step [steps,4,h,w], sigmas/timesteps, initial latents, prompt embeddings, final picture, for each scheduler; ONNX_DIR parts get sample.npz and expect.npz."""
import sys, os, json, numpy as np, torch
from PIL import Image
from diffusers import StableDiffusionXLPipeline, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, DDIMScheduler, DPMSolverMultistepScheduler, LCMScheduler
pd, od, so, ho = sys.argv[1:5]; torch.set_num_threads(2); pipe = StableDiffusionXLPipeline.from_pretrained(pd); pipe.set_progress_bar_config(disable=True); base = pipe.scheduler.config
os.makedirs(so + "/recorded", exist_ok=True); os.makedirs(ho, exist_ok=True)
def run(prompt, seed, steps, g, neg=None):
    L = []
    def cb(p, i, t, kw): L.append((float(t), kw["latents"].float().numpy().copy()[0])); return kw
    gen = torch.Generator().manual_seed(seed); im = pipe(prompt, negative_prompt=neg, num_inference_steps=steps, guidance_scale=g, height=128, width=128, generator=gen, callback_on_step_end=cb, callback_on_step_end_tensor_inputs=["latents"]).images[0]
    return im, np.array([t for t, _ in L], np.float32), np.stack([x for _, x in L])
S = dict(euler=EulerDiscreteScheduler.from_config(base), euler_a=EulerAncestralDiscreteScheduler.from_config(base), ddim=DDIMScheduler.from_config(base, set_alpha_to_one=False, clip_sample=False), dpmpp_2m=DPMSolverMultistepScheduler.from_config(base),
    dpmpp_2m_karras=DPMSolverMultistepScheduler.from_config(base, use_karras_sigmas=True), lcm=LCMScheduler.from_config(base), euler_trailing=EulerDiscreteScheduler.from_config(base, timestep_spacing="trailing"))
for n, s in S.items():
    pipe.scheduler = s; steps = {"lcm": 4, "euler_trailing": 4}.get(n, 12); g = {"lcm": 1.0}.get(n, 4.0); p = "a red circle left of a blue square on a gray background"
    im, t, l = run(p, 3, steps, g); np.savez_compressed(f"{so}/recorded/{n}.npz", timesteps=t, latents=l, picture=np.array(im), config=json.dumps({k: v for k, v in s.config.items() if not k.startswith("_")}, default=str), prompt=p, seed=3, steps=steps, guidance=g); print(n, l.shape, float(np.abs(l[-1]).max()), flush=True)
pipe.scheduler = S["euler"]; rec = []
for i, (p, seed) in enumerate([("a yellow star on a navy background", 11), ("a big purple ring on a beige background", 12), ("a cyan cross above an orange square on a black background", 13), ("a small white triangle on a brown background", 14)]):
    im, _, _ = run(p, seed, 25, 4.0); im.save(f"{ho}/{i}.png"); rec.append(dict(prompt=p, seed=seed, steps=25, guidance=4.0, file=f"{i}.png"))
json.dump(rec, open(ho + "/recorded.json", "w"), indent=1)
import onnxruntime as ort
g = np.random.default_rng(4); ids = np.array(pipe.tokenizer("a green ring on a teal background", padding="max_length", max_length=77).input_ids, np.int64)[None]
pe, _, pp, _ = pipe.encode_prompt(["a green ring on a teal background", ""], do_classifier_free_guidance=False); f = lambda *s: g.standard_normal(s).astype(np.float32)
X = {"unet": dict(sample=f(2, 4, 16, 16), timestep=np.array(421, np.float32), encoder_hidden_states=pe.detach().numpy(), text_embeds=pp.detach().numpy(), time_ids=np.array([[128, 128, 0, 0, 128, 128]] * 2, np.float32)),
    "text_encoder": dict(input_ids=ids), "text_encoder_2": dict(input_ids=ids), "vae_decoder": dict(latent_sample=f(1, 4, 16, 16)), "vae_encoder": dict(sample=np.clip(f(1, 3, 128, 128), -1, 1))}
for n, x in X.items():
    s = ort.InferenceSession(f"{od}/{n}/model.onnx", providers=["CPUExecutionProvider"])
    if n == "unet":
        with torch.no_grad(): y = [pipe.unet(torch.from_numpy(x["sample"]), torch.tensor(421.), encoder_hidden_states=torch.from_numpy(x["encoder_hidden_states"]), added_cond_kwargs=dict(text_embeds=torch.from_numpy(x["text_embeds"]), time_ids=torch.from_numpy(x["time_ids"]))).sample.numpy()]
        z = s.run(None, x); print("unet onnx vs torch", np.abs(z[0] - y[0]).max())
    else: y = s.run(None, x)
    np.savez(f"{od}/{n}/sample.npz", **x); np.savez(f"{od}/{n}/expect.npz", **dict(zip([o.name for o in s.get_outputs()], y)))
