"""Writes a training checkpoint as published directories.

    python export.py base   --checkpoint out/base/checkpoint.pt
    python export.py expert sql --from out/experts/sql
"""
import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

import tokenizer

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"


def config_json(c) -> dict:
    """`tokenizer.SIZE` rows are reserved; the unused last rows are never produced."""
    return {
        "_name_or_path": "expert-tiny", "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": None, "eos_token_id": c["end"], "pad_token_id": c["pad"], "head_dim": c["head_dim"],
        "hidden_act": "silu", "hidden_size": c["hidden_size"], "initializer_range": 0.02,
        "intermediate_size": c["intermediate_size"], "max_position_embeddings": c["max_position_embeddings"],
        "max_window_layers": c["num_hidden_layers"], "model_type": "qwen3",
        "num_attention_heads": c["num_attention_heads"], "num_hidden_layers": c["num_hidden_layers"],
        "num_key_value_heads": c["num_key_value_heads"], "rms_norm_eps": c["rms_norm_eps"], "rope_scaling": None,
        "rope_theta": c["rope_theta"], "sliding_window": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "use_cache": True, "use_sliding_window": False, "vocab_size": c["vocab_size"],
    }


def export_base(checkpoint: Path, out: Path) -> None:
    state = torch.load(checkpoint, weights_only=False, map_location="cpu")
    out.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        if not (out / file).exists():  # exported elsewhere than where tokenizer.py wrote
            shutil.copyfile(MODELS / "base" / file, out / file)
    encoder = tokenizer.Encoder(out)
    c = dict(state["config"], end=encoder.end, pad=encoder.pad)
    tensors = {k: v.to(torch.bfloat16).contiguous() for k, v in state["model"].items()}
    save_file(tensors, str(out / "model.safetensors"), metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    (out / "config.json").write_text(json.dumps(config_json(c), indent=2) + "\n")
    generation = {"do_sample": False, "eos_token_id": [c["end"], c["pad"]], "pad_token_id": c["pad"]}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    _info(out, state, Path(checkpoint).parent / "log.jsonl")
    print("base written:", {k: state[k] for k in ("step", "tokens", "elapsed")})


def _info(out, state, log):
    """What the card needs to know about the training."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    held = [line["held_out"] for line in lines if line.get("step", 0) <= state["step"] and "held_out" in line]
    info = {"steps": state["step"], "tokens": state["tokens"], "minutes": round(state["elapsed"] / 60, 1), "seed": state.get("seed", 1)}
    if state.get("earlier"):
        info["earlier"] = state["earlier"]
    if state.get("company"):
        info["company"] = state["company"]
    if "model" in state:
        info["parameters"] = sum(v.numel() for v in state["model"].values())
        info["held_out"] = held[-1] if held else {}
    (out / "training.json").write_text(json.dumps(info, indent=1) + "\n")


def export_expert(name: str, source: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(source / file, out / file)
        (out / file).chmod(0o644)
    state = torch.load(source / "checkpoint.pt", weights_only=False)
    _info(out, {k: state[k] for k in ("step", "tokens", "elapsed", "earlier")} | {"seed": state.get("seed", 7), "company": state.get("company", [])}, source / "log.jsonl")
    from manifests import write_manifest
    write_manifest(name, out)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("what", choices=("base", "expert"))
    p.add_argument("name", nargs="?")
    p.add_argument("--checkpoint", default=str(HERE / "out/base/checkpoint.pt"))
    p.add_argument("--from", dest="source")
    p.add_argument("--models", default=str(MODELS))
    a = p.parse_args()
    if a.what == "base":
        export_base(Path(a.checkpoint), Path(a.models) / "base")
    else:
        export_expert(a.name, Path(a.source or HERE / "out/experts" / a.name), Path(a.models) / "experts" / a.name)


if __name__ == "__main__":
    main()
