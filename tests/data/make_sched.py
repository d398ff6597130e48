"""Writes tests/unit/sched_recorded.h: what diffusers' schedulers make of a known latent and a known function instead of a UNet,
   model(x, t) = 0.7 sin(2 x + t / 1000), after every step. usage: make_sched.py OUT.h (needs diffusers and torch)"""
import sys
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, PNDMScheduler

SD = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
V = dict(prediction_type="v_prediction")
# name, scheduler, what it sets in c, a sx_sched_config; steps, eta
CASES = [
    ("pndm", PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False), ".sampler = SX_PNDM", 9, 0),
    ("pndm_v", PNDMScheduler(**SD, **V, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False), ".sampler = SX_PNDM, .prediction = SX_V_PREDICTION", 9, 0),
    ("pndm_alpha_one", PNDMScheduler(**SD, skip_prk_steps=True, set_alpha_to_one=True), ".sampler = SX_PNDM, .steps_offset = 0, .set_alpha_to_one = true", 5, 0),
    ("euler_v", EulerDiscreteScheduler(**SD, **V, steps_offset=1, timestep_spacing="leading"), ".prediction = SX_V_PREDICTION", 6, 0),
    ("euler_v_zero_snr", EulerDiscreteScheduler(**SD, **V, timestep_spacing="trailing", rescale_betas_zero_snr=True), ".prediction = SX_V_PREDICTION, .spacing = SX_TRAILING, .zero_snr = true", 6, 0),
    ("euler_karras", EulerDiscreteScheduler(**SD, steps_offset=1, timestep_spacing="leading", use_karras_sigmas=True), ".karras = true", 6, 0),
    ("euler_linspace", EulerDiscreteScheduler(**SD, timestep_spacing="linspace"), ".spacing = SX_LINSPACE", 6, 0),
    ("euler_a_v", EulerAncestralDiscreteScheduler(**SD, **V, steps_offset=1, timestep_spacing="leading"), ".sampler = SX_EULER_A, .prediction = SX_V_PREDICTION", 6, 0),
    ("ddim_v_zero_snr", DDIMScheduler(**SD, **V, clip_sample=False, set_alpha_to_one=False, timestep_spacing="trailing", rescale_betas_zero_snr=True), ".sampler = SX_DDIM, .prediction = SX_V_PREDICTION, .spacing = SX_TRAILING, .zero_snr = true", 6, 0),
    ("ddim_eta", DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1), ".sampler = SX_DDIM, .eta = 0.6", 6, 0.6),
    ("ddim_clip_linear", DDIMScheduler(num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear"), ".sampler = SX_DDIM, .betas = SX_LINEAR, .beta_start = 0.0001, .beta_end = 0.02, .steps_offset = 0, .clip_sample = true, .clip_range = 1, .set_alpha_to_one = true", 6, 0),
    ("dpmpp_v", DPMSolverMultistepScheduler(**SD, **V, steps_offset=1, timestep_spacing="leading"), ".sampler = SX_DPMPP_2M, .prediction = SX_V_PREDICTION", 7, 0),
]


def setting(config): return "; ".join("c" + part.strip() for part in config.split(", "))
def numbers(x): return ", ".join(f"{float(v):.9g}" for v in x.flatten())


with open(sys.argv[1], "w") as f:
    f.write("/* Made by tests/data/make_sched.py from diffusers: latents after every step. Do not edit. */\n")
    for name, s, config, steps, eta in CASES:
        s.set_timesteps(steps)
        g = torch.Generator().manual_seed(5)
        x = torch.randn(1, 1, 4, 4, generator=g) * s.init_noise_sigma
        start, rows, t_list = x.clone(), [], []
        for t in s.timesteps:
            out = 0.7 * torch.sin(2 * s.scale_model_input(x, t) + float(t) / 1000)
            kw = dict(eta=eta, generator=g) if isinstance(s, DDIMScheduler) else dict(generator=g) if isinstance(s, (EulerDiscreteScheduler, EulerAncestralDiscreteScheduler)) else {}
            x = s.step(out, t, x, **kw).prev_sample
            rows.append(x.clone()), t_list.append(float(t))
        f.write(f"static const float {name}_start[16] = {{{numbers(start)}}};\nstatic const float {name}_t[{len(rows)}] = {{{', '.join(f'{t:.9g}' for t in t_list)}}};\n")
        f.write(f"static const float {name}_x[{len(rows)}][16] = {{\n" + "".join(f"    {{{numbers(r)}}},\n" for r in rows) + "};\n")
    f.write("#define RECORDED(CASE) \\\n")
    f.write(" \\\n".join(f"    CASE({name}, {steps}, {setting(config)})" for name, _, config, steps, _ in CASES) + "\n")
