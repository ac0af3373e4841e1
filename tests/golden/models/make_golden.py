#!/usr/bin/env python3
"""Writes the tiny models beside this file and what Transformers and PEFT (F32) compute from them.

Needs torch 2.13, transformers, peft. usage: make_golden.py"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "oracle"))
from model_cases import make_model, prompt, reference_model  # noqa: E402

SMALL = dict(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=10000.0)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16, rope_theta=10000.0)
MODELS = {
    "qwen3": dict(head_dim=8, tie_word_embeddings=True, rope_parameters=YARN),
    "qwen2": dict(rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=10000.0)),
    "llama": dict(attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3),
    "mistral": dict(head_dim=6),
}
ADAPTERS = {
    "lora": dict(r=3, lora_alpha=6, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
    "rslora": dict(r=4, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "up_proj"], rank_pattern={"layers.0.self_attn.q_proj": 2}),
}


def logits(model, ids):
    with torch.no_grad():
        return model.eval()(torch.tensor([ids])).logits[0].float().contiguous()


def make_adapter(base, directory, seed, options):
    model = get_peft_model(reference_model(base), LoraConfig(**options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(directory)
    config = json.loads((directory / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "qwen3"  # no path of the machine this ran on
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (directory / "README.md").unlink(missing_ok=True)


for seed, (kind, changes) in enumerate(MODELS.items()):
    directory = make_model(HERE / kind, kind, dtype=torch.float16, seed=seed, **{**SMALL, **changes})
    ids = prompt(40, seed=seed, vocab=SMALL["vocab_size"])
    expected = {"ids": torch.tensor(ids, dtype=torch.int32), "base": logits(reference_model(directory), ids)}
    if kind == "qwen3":
        for number, (name, options) in enumerate(ADAPTERS.items()):
            make_adapter(directory, HERE / name, number, options)
            expected[name] = logits(PeftModel.from_pretrained(reference_model(directory), HERE / name), ids)
        both = PeftModel.from_pretrained(reference_model(directory), HERE / "lora", adapter_name="one")
        both.load_adapter(HERE / "rslora", adapter_name="two")
        both.base_model.set_adapter(["one", "two"])
        expected["both"] = logits(both, ids)
    save_file(expected, directory / "expected.safetensors")
