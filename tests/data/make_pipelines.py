"""Writes tiny pipeline folders with random weights, as exporters lay them out, and what diffusers draws with them (recorded.npz: latents after every
   step, timesteps, picture): SDXL, Turbo, LCM, refiner, SD 1.5, SD 2 with v-prediction, SD for inpainting, TensorRT's names, float16.
   usage: make_pipelines.py TOKENIZER_DIR TOKENIZER_2_DIR OUT [NAME...]   (needs torch, diffusers, transformers)"""
import json, os, sys, warnings
import numpy as np
import torch
import diffusers as D
D.utils.logging.disable_progress_bar()
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from diffusers.models.attention_processor import AttnProcessor

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
TOK, TOK2, OUT = sys.argv[1:4]
PROMPT, NEGATIVE, SEED = "a red circle left of a blue square on a gray background", "a green ring", 7
SD = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def loud(m, seed):
    """Random weights large enough that every input shows in the output."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in m.parameters():
            if p.dim() >= 2: p.copy_(torch.randn(p.shape, generator=g) * 1.3 / p[0].numel() ** 0.5)
    return m.eval()


def text_config(tok, dim, act):
    return CLIPTextConfig(vocab_size=len(tok), hidden_size=dim, intermediate_size=2 * dim, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77, projection_dim=dim,
                          hidden_act=act, bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, attn_implementation="eager")


def parts(kind, seed):
    torch.manual_seed(seed)
    xl = kind in ("sdxl", "lcm", "refiner", "trt", "half")
    one, two = CLIPTokenizer.from_pretrained(TOK), CLIPTokenizer.from_pretrained(TOK2)
    p = {}
    if kind != "refiner": p["text_encoder"] = CLIPTextModel(text_config(one if kind != "sd2" else two, 8, "quick_gelu" if kind != "sd2" else "gelu"))
    if xl: p["text_encoder_2"] = CLIPTextModelWithProjection(text_config(two, 16, "gelu"))
    cross = {"refiner": 16}.get(kind, 24 if xl else 8)
    more = dict(addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 8 * (5 if kind == "refiner" else 6)) if xl else {}
    if kind == "lcm": more["time_cond_proj_dim"] = 16
    down, up = (["DownBlock2D", "CrossAttnDownBlock2D"], ["CrossAttnUpBlock2D", "UpBlock2D"]) if xl else (["CrossAttnDownBlock2D", "DownBlock2D"], ["UpBlock2D", "CrossAttnUpBlock2D"])
    p["unet"] = D.UNet2DConditionModel(sample_size=8, in_channels=9 if kind == "inpaint" else 4, out_channels=4, down_block_types=down, up_block_types=up, block_out_channels=(4, 8), layers_per_block=1,
                                       norm_num_groups=2, attention_head_dim=(1, 2), cross_attention_dim=cross, use_linear_projection=kind not in ("sd15", "inpaint"), **more)
    p["vae"] = D.AutoencoderKL(down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=(4, 4, 4, 4), norm_num_groups=2, layers_per_block=1,
                               latent_channels=4, sample_size=64, scaling_factor=0.13025 if xl else 0.18215)
    for i, m in enumerate(p.values()): loud(m, seed + i)
    if kind != "refiner": p["tokenizer"] = one if kind != "sd2" else two
    if xl: p["tokenizer_2"] = two
    p["unet"].set_attn_processor(AttnProcessor()), p["vae"].set_attn_processor(AttnProcessor())
    return p


SCHEDULERS = dict(
    sdxl=D.EulerDiscreteScheduler(**SD, steps_offset=1, timestep_spacing="leading"),
    lcm=D.LCMScheduler(**SD, original_inference_steps=50), refiner=D.EulerDiscreteScheduler(**SD, steps_offset=1, timestep_spacing="leading"),
    sd15=D.PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False),
    sd2=D.DDIMScheduler(**SD, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    inpaint=D.PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False),
    trt=D.EulerDiscreteScheduler(**SD, steps_offset=1, timestep_spacing="leading"), half=D.EulerDiscreteScheduler(**SD, steps_offset=1, timestep_spacing="leading"))
TURBO = D.EulerAncestralDiscreteScheduler(**SD, steps_offset=1, timestep_spacing="trailing")
FORCE_ZEROS = dict(sdxl=True, lcm=True, refiner=False, trt=True, half=True)


def pipeline(kind, p, s=None):
    s = s or SCHEDULERS[kind]
    if kind == "refiner": return D.StableDiffusionXLImg2ImgPipeline(text_encoder=None, tokenizer=None, scheduler=s, requires_aesthetics_score=True, force_zeros_for_empty_prompt=False, **p)
    if "text_encoder_2" in p: return D.StableDiffusionXLPipeline(scheduler=s, force_zeros_for_empty_prompt=FORCE_ZEROS[kind], **p)
    return D.StableDiffusionPipeline(scheduler=s, safety_checker=None, feature_extractor=None, requires_safety_checker=False, **p)


def wrap(forward):
    class M(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *a): return forward(self.inner, *a)
    return M


def put(folder, module, args, ins, outs, free, half):
    os.makedirs(folder, exist_ok=True)
    dt = torch.float16 if half else torch.float32
    args = tuple(a.to(dt) if a.is_floating_point() else a for a in args)
    torch.onnx.export(module.to(dt).eval(), args, folder + "/model.onnx", input_names=ins, output_names=outs, dynamic_axes={k: v for k, v in free.items() if k in ins + outs}, opset_version=17, dynamo=False)
    module.float()


def export(kind, p, out):
    trt, half, xl = kind == "trt", kind == "half", "text_encoder_2" in p
    name = lambda part: out + "/" + ({"text_encoder": "clip.opt", "text_encoder_2": "clip2.opt", "unet": "unetxl.opt", "vae_decoder": "vae.opt", "vae_encoder": "vae_encoder.opt"}[part] if trt else part)
    ids = torch.full((2, 77), 5, dtype=torch.int32 if trt else torch.int64)
    rows = {0: "batch"}
    for part in ("text_encoder", "text_encoder_2"):
        if part not in p: continue
        second = part == "text_encoder_2"
        last = lambda o: o.last_hidden_state
        if trt:
            m, outs = wrap(lambda t, i, s=second: (lambda o: (o.text_embeds if s else o.last_hidden_state, o.hidden_states[-2]))(t(input_ids=i.long(), output_hidden_states=True))), ["text_embeddings", "hidden_states"]
        elif xl:
            m = wrap(lambda t, i, s=second: (lambda o: (o.text_embeds if s else o.pooler_output, o.last_hidden_state) + tuple(o.hidden_states))(t(input_ids=i, output_hidden_states=True)))
            outs = ["text_embeds" if second else "pooler_output", "last_hidden_state"] + [f"hidden_states.{k}" for k in range(3)]
        else:
            m, outs = wrap(lambda t, i: (lambda o: (o.last_hidden_state, o.pooler_output))(t(input_ids=i))), ["last_hidden_state", "pooler_output"]
        put(name(part), m(p[part]), (ids,), ["input_ids"], outs, {k: rows for k in ["input_ids"] + outs}, half)
    u = p["unet"].config
    args = [torch.randn(2, u.in_channels, 8, 8), torch.tensor(500.0), torch.randn(2, 77, u.cross_attention_dim)]
    ins = ["sample", "timestep", "encoder_hidden_states"]
    if kind == "sd15": args[1] = torch.tensor([500])
    if trt: args[1] = torch.tensor([500.0])
    if xl:
        args += [torch.randn(2, 16), torch.ones(2, 5 if kind == "refiner" else 6)]
        ins += ["text_embeds", "time_ids"]
    if u.time_cond_proj_dim:
        args.append(torch.randn(2, u.time_cond_proj_dim))
        ins.append("timestep_cond")

    def run_unet(m, x, t, h, *rest):
        added = dict(text_embeds=rest[0], time_ids=rest[1]) if xl else None
        return m(x, t, encoder_hidden_states=h, added_cond_kwargs=added, timestep_cond=rest[2] if len(rest) > 2 else None, return_dict=False)[0]
    plane = {0: "batch", 2: "height", 3: "width"}
    o = "latent" if trt else "out_sample"
    put(name("unet"), wrap(run_unet)(p["unet"]), tuple(args), ins, [o], {"sample": plane, o: plane, **{k: rows for k in ins[2:]}}, half)
    i, o = ("latent", "images") if trt else ("latent_sample", "sample")
    put(name("vae_decoder"), wrap(lambda v, z: v.decode(z, return_dict=False)[0])(p["vae"]), (torch.randn(1, 4, 8, 8),), [i], [o], {i: plane, o: plane}, half)
    if kind in ("sdxl", "refiner", "sd15", "inpaint"):
        put(name("vae_encoder"), wrap(lambda v, x: v.encode(x, return_dict=False)[0].parameters)(p["vae"]), (torch.randn(1, 3, 64, 64),), ["sample"], ["latent_parameters"], {"sample": plane, "latent_parameters": plane}, half)
    if not trt: configs(kind, p, out)


def configs(kind, p, out):
    for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
        if part in p: p[part].config.to_json_file(f"{out}/{'vae_decoder' if part == 'vae' else part}/config.json") if hasattr(p[part].config, "to_json_file") else json.dump(dict(p[part].config), open(f"{out}/{'vae_decoder' if part == 'vae' else part}/config.json", "w"), default=str)
    SCHEDULERS[kind].save_pretrained(out + "/scheduler")
    index = {"_class_name": type(pipeline(kind, p)).__name__, "force_zeros_for_empty_prompt": FORCE_ZEROS.get(kind)}
    if kind == "refiner": index["requires_aesthetics_score"] = True
    json.dump({k: v for k, v in index.items() if v is not None}, open(out + "/model_index.json", "w"))


RUNS = dict(sdxl=(4, 5.0, None), lcm=(3, 2.0, None), refiner=(4, 5.0, None), sd15=(4, 7.5, NEGATIVE), sd2=(4, 6.0, NEGATIVE), trt=(4, 5.0, NEGATIVE), half=(4, 5.0, NEGATIVE), inpaint=(6, 7.5, NEGATIVE))


def start_picture(out):
    """A picture to begin from, as FILE and as what the pipelines take."""
    from PIL import Image
    y, x = np.mgrid[0:64, 0:64]
    image = Image.fromarray(np.stack([x * 4, y * 4, (x + y) * 2], -1).astype(np.uint8))
    image.save(out + "/init.png")
    return image


def mask_picture(out):
    """White where the picture is drawn anew: a disc, whose edge no cell of the latent follows."""
    from PIL import Image
    y, x = np.mgrid[0:64, 0:64]
    image = Image.fromarray((((x - 40) ** 2 + (y - 28) ** 2 < 400) * 255).astype(np.uint8))
    image.save(out + "/mask.png")
    return image


def record_masked(kind, p, out, scheduler, runs):
    """runs: file, strength. All beside the pipeline for inpainting, whose picture and mask they share."""
    xl, out = "text_encoder_2" in p, os.path.dirname(out) + "/inpaint"
    os.makedirs(out, exist_ok=True)
    image, mask, index = start_picture(out), mask_picture(out), dict(steps=RUNS[kind][0], guidance=RUNS[kind][1], negative=NEGATIVE)
    pipe = D.StableDiffusionXLInpaintPipeline(scheduler=scheduler, **p) if xl else D.StableDiffusionInpaintPipeline(scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False, **p)
    for name, strength in runs: record(pipe, path=f"{out}/{name}.npz", image=image, mask_image=mask, strength=strength, **index)


def record(pipe, steps, guidance, negative, path, refiner=None, how=None, **kw):
    """A run of pipe, its latents kept; then, where a refiner follows, that one's part of the picture."""
    seen = []

    def keep(_, i, t, kw):
        seen.append((float(t), kw["latents"].numpy().copy()[0]))
        return kw
    common = dict(negative_prompt=negative, num_inference_steps=steps, guidance_scale=guidance, generator=torch.Generator().manual_seed(SEED))
    if "image" not in kw: kw.update(height=64, width=64)
    first = dict(denoising_end=0.8) if how == "ensemble" else {}
    picture = pipe(PROMPT, **common, **kw, **first, output_type="latent" if refiner else "pil", callback_on_step_end=keep, callback_on_step_end_tensor_inputs=["latents"]).images[0]
    if refiner: picture = refiner(PROMPT, **common, image=picture[None], **(dict(denoising_start=0.8) if how == "ensemble" else dict(strength=0.3))).images[0]
    print(path, len(seen), "latent std", [round(float(x.std()), 3) for _, x in seen], "picture std", round(float(np.array(picture).std()), 1), flush=True)
    np.savez_compressed(path, timesteps=np.array([t for t, _ in seen], np.float32), latents=np.stack([x for _, x in seen]), picture=np.array(picture))


def record_all(kind, p, out):
    steps, guidance, negative = RUNS[kind]
    if kind == "refiner":
        record(pipeline(kind, p), *RUNS[kind], out + "/recorded.npz", image=start_picture(out), strength=0.5)
        base = parts("sdxl", 0)
        both = pipeline(kind, {**p, "vae": base["vae"]})
        for how in ("ensemble", "img2img"): record(pipeline("sdxl", base), 10, 5.0, NEGATIVE, f"{out}/{how}.npz", refiner=both, how=how)
        return
    if kind == "inpaint": return record_masked(kind, p, out, SCHEDULERS[kind], (("recorded", 1.0), ("strength", 0.5)))
    record(pipeline(kind, p), *RUNS[kind], out + "/recorded.npz")
    if kind == "sdxl":
        record(pipeline(kind, p, TURBO), 3, 0.0, None, out + "/turbo.npz")
        record(pipeline(kind, p), 4, 5.0, NEGATIVE, out + "/clip-skip.npz", clip_skip=1)
        record_masked(kind, p, out, SCHEDULERS[kind], (("xl-strength", 0.75),))
        record_masked(kind, p, out, TURBO, (("xl-turbo", 1.0),))
    if kind == "sd15":
        again = D.StableDiffusionImg2ImgPipeline(scheduler=SCHEDULERS[kind], safety_checker=None, feature_extractor=None, requires_safety_checker=False, **p)
        record(again, 8, guidance, negative, out + "/img2img.npz", image=start_picture(out), strength=0.5)


def overflow(out):
    """A float16 VAE decoder that carries sums beyond 65,504 between its normalisations, as SDXL's does; expect.npz is float32."""
    vae = parts("sdxl", 900)["vae"]
    big = lambda name: any(k in name for k in ("decoder.conv_in.", ".conv2.", ".to_out.0.")) or (name.endswith("bias") and any(k in name for k in ("conv_shortcut", "upsamplers")))
    with torch.no_grad():
        for name, p in vae.named_parameters():
            if name.startswith("decoder.") and big(name): p.mul_(16384)  # the residual stream, and all that is added to it
        z = torch.randn(1, 4, 8, 8).half().float()
        peak = []
        hooks = [m.register_forward_hook(lambda m, i, o: peak.append(float(o.abs().max()))) for m in vae.decoder.modules() if type(m).__name__ == "ResnetBlock2D"]
        y = vae.decode(z, return_dict=False)[0]
        for h in hooks: h.remove()
    print("overflow: largest sum", max(peak), "picture std", float(y.std()))
    plane = {0: "batch", 2: "height", 3: "width"}
    put(out, wrap(lambda v, x: v.decode(x, return_dict=False)[0])(vae), (z,), ["latent_sample"], ["sample"], {"latent_sample": plane, "sample": plane}, True)
    np.savez(out + "/sample.npz", latent_sample=z.half().numpy())
    np.savez(out + "/expect.npz", sample=y.numpy())


if len(sys.argv) == 4 or "overflow" in sys.argv[4:]: overflow(OUT + "/overflow")
for n, kind in enumerate(SCHEDULERS):
    if len(sys.argv) > 4 and kind not in sys.argv[4:]: continue
    out = f"{OUT}/{kind}"
    os.makedirs(out, exist_ok=True)
    p = parts(kind, 100 * n)
    record_all(kind, p, out)
    export(kind, p, out)
