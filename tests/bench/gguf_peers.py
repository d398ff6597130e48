#!/usr/bin/env python3
"""llama.cpp's formats on a Llama-like model, judged as scripts/accuracy.sh judges qonnx: what its files store, on the same held-out tokens.

  gguf_peers.py HF_DIR TEXT_DIR FILE.gguf ...

HF_DIR holds the float model (config.json, model.safetensors), TEXT_DIR tokenizer.json and heldout.txt; the files are what llama-quantize wrote of the same model. Their weights are
unpacked (gguf-py) and computed in float32: llama.cpp itself also rounds activations to 8 bits, which costs it a little more than the table says. Needs torch,
transformers, gguf, tokenizers, numpy. Prints size, perplexity, mean KL to the float model, largest KL and top-1 agreement.
"""
import argparse
import os

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

SEQ = 256
PARTS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
TOPS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}


def hf_name(name):
    if name in TOPS:
        return TOPS[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{PARTS[part]}.weight"


def unpermute(w, heads):
    """GGUF keeps the rows of q and k as pairs that rotate together; transformers keeps the two halves of a head apart."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def weights(path, config):
    for t in gguf.GGUFReader(path).tensors:
        if t.name == "rope_freqs.weight":
            continue
        w = np.array(gguf.quants.dequantize(t.data, t.tensor_type), dtype=np.float32)
        if ".attn_q." in t.name:
            w = unpermute(w, config.num_attention_heads)
        if ".attn_k." in t.name:
            w = unpermute(w, config.num_key_value_heads)
        yield hf_name(t.name), torch.from_numpy(w)


def log_probabilities(model, held):
    with torch.no_grad():
        for w in held:
            yield torch.log_softmax(model(torch.from_numpy(w[None, :SEQ])).logits[0].double(), -1).numpy()


def judge(label, size, model, reference, held):
    loss, kls, same = 0, [], 0
    for w, p, q in zip(held, reference, log_probabilities(model, held)):
        loss -= q[np.arange(SEQ), w[1:]].sum()
        kls.append((np.exp(p) * (p - q)).sum(1))
        same += (p.argmax(1) == q.argmax(1)).sum()
    kls = np.concatenate(kls)
    print(f"| {label} | {size / 1e6:.1f} | {np.exp(loss / kls.size):.2f} | {kls.mean():.4f} | {kls.max():.1f} | {100 * same / kls.size:.1f} % |", flush=True)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("hf"), a.add_argument("text"), a.add_argument("files", nargs="+"), a.add_argument("--held", type=int, default=20)
    o = a.parse_args()
    tokenizer = Tokenizer.from_file(os.path.join(o.text, "tokenizer.json"))
    with open(os.path.join(o.text, "heldout.txt"), encoding="utf-8") as f:
        ids = tokenizer.encode(f.read()).ids
    held = [np.array(ids[i * SEQ : (i + 1) * SEQ + 1], dtype=np.int64) for i in range(o.held)]
    model = AutoModelForCausalLM.from_pretrained(o.hf, dtype=torch.float32).eval()
    reference = list(log_probabilities(model, held))
    print("| file | MB | perplexity | mean KL | largest KL | same top-1 |\n|---|---|---|---|---|---|")
    judge("float", os.path.getsize(os.path.join(o.hf, "model.safetensors")), model, reference, held)
    for path in o.files:
        model.load_state_dict(dict(weights(path, model.config)), strict=False)
        model.tie_weights()
        judge(os.path.basename(path), os.path.getsize(path), model, reference, held)


if __name__ == "__main__":
    main()
