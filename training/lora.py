"""LoRA experts beside frozen weights, stored as PEFT stores them."""
import json
from pathlib import Path

import torch
import torch.nn as nn
from safetensors.torch import load_file, save_file

from model import PROJECTIONS, Config, Linear, Qwen3


def load_base(folder: Path) -> Qwen3:
    """Reads a published directory (config.json, model.safetensors) in F32."""
    c = json.loads((folder / "config.json").read_text())
    cfg = Config(**{k: c[k] for k in vars(Config()) if k in c})
    model = Qwen3(cfg)
    model.load_state_dict({k: v.float() for k, v in load_file(str(folder / "model.safetensors")).items()})
    for p in model.parameters():
        p.requires_grad_(False)
    return model


def stages_of(folder):
    """What was done to an exported base or expert before, one entry a stage."""
    info = json.loads((folder / "training.json").read_text())
    return info.get("earlier", []) + [{k: info[k] for k in ("steps", "tokens", "minutes")}]


def targets(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, Linear) and n.split(".")[-1] in PROJECTIONS}


def new_expert(model, rank, alpha, seed):
    """A ~ N(0, 1/in), B = 0: the expert starts as no change at all."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, m in targets(model).items():
        o, i = m.weight.shape
        a = nn.Parameter(torch.randn(rank, i, generator=generator) * i ** -0.5)
        b = nn.Parameter(torch.zeros(o, rank))
        tensors[name] = (a, b, alpha / rank)
    return tensors


def activate(model, *experts):
    """Sets the active experts; the weights stay untouched."""
    for name, m in targets(model).items():
        m.experts = [e[name] for e in experts]


def relative_change(model, expert) -> float:
    """|dW| / |W| over all adapted matrices; above about 0.3 company suffers."""
    num = den = 0.0
    for name, m in targets(model).items():
        a, b, s = expert[name]
        num += ((b @ a) * s).detach().pow(2).sum().item()
        den += m.weight.float().pow(2).sum().item()
    return (num / den) ** 0.5


def save_expert(expert, folder: Path, rank, alpha, base_name="expert-tiny", dtype=torch.bfloat16):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (a, b, _) in expert.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.detach().to(dtype).contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.detach().to(dtype).contiguous()
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    (folder / "adapter_model.safetensors").chmod(0o644)
    config = {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": base_name, "bias": "none",
        "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True, "layers_pattern": None,
        "layers_to_transform": None, "lora_alpha": alpha, "lora_dropout": 0.0, "modules_to_save": None,
        "peft_type": "LORA", "r": rank, "rank_pattern": {}, "revision": None, "target_modules": sorted(PROJECTIONS),
        "task_type": "CAUSAL_LM", "use_dora": False, "use_rslora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_expert(folder: Path):
    c = json.loads((folder / "adapter_config.json").read_text())
    raw = load_file(str(folder / "adapter_model.safetensors"))
    out = {}
    for key in raw:
        if key.endswith("lora_A.weight"):
            name = key[len("base_model.model."):-len(".lora_A.weight")]
            b = raw[key.replace("lora_A", "lora_B")]
            out[name] = (raw[key].float(), b.float(), c["lora_alpha"] / c["r"])
    return out
