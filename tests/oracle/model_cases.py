"""Tiny random models with the shapes people publish, and the tool that runs them here."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

ROOT = Path(__file__).resolve().parents[2]
FULL = os.environ.get("EXPERT_ORACLE_VOLUME") == "full"
TOLERANCE = 1e-4
torch.set_num_threads(1)  # the models are too small to share

CLASSES = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}
SHAPE = dict(
    vocab_size=260,
    hidden_size=48,
    intermediate_size=88,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=512,
    bos_token_id=1,
    eos_token_id=2,
)


class ToolError(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.code = int(text.split(" ", 1)[0]) if text[:1].isdigit() else -1


def tool_path():
    build = Path(os.environ.get("EXPERT_BUILD_DIR", ROOT / "build" / "release"))
    path = build / "tests" / "models" / "logits_tool"
    assert path.exists(), f"{path} is not built"
    return path


def run_tool(directory, requests, *options):
    lines = "\n".join(" ".join(map(str, ids)) for ids in requests) + "\n"
    run = subprocess.run([tool_path(), str(directory), *map(str, options)], input=lines.encode(), capture_output=True, check=False)
    if run.returncode != 0:
        raise ToolError(run.stderr.decode() or f"exit {run.returncode}")
    return run.stdout


def logits_of(directory, requests, *options, vocab=SHAPE["vocab_size"]):
    """Of each request alone; the model is loaded once."""
    ends = np.cumsum([len(ids) for ids in requests])
    rows = np.frombuffer(run_tool(directory, requests, *options), np.float32).reshape(ends[-1], vocab)
    return np.split(rows, ends[:-1])


def logits(directory, ids, *options, vocab=SHAPE["vocab_size"]):
    return logits_of(directory, [ids], *options, vocab=vocab)[0]


def greedy(directory, ids, count, *options):
    return list(map(int, run_tool(directory, [ids], "--greedy", count, *options).split()))


def randomise(model, seed):
    """Weights large enough that every part of the model shows in the logits; norms and biases away from 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.3 * noise)
            elif "embed" in name or "lm_head" in name:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(1.2 * noise / parameter.shape[1] ** 0.5)
    return model


def make_model(directory, kind, dtype=torch.float32, seed=1, shard_size=None, edit=None, **changes):
    """Saves a model and returns its directory. `edit` changes the dict of config.json after it was written."""
    config_class, model_class = CLASSES[kind]
    config = config_class(**{**SHAPE, **({"sliding_window": None} if kind == "mistral" else {}), **changes})
    model = randomise(model_class(config), seed).to(dtype)
    model.save_pretrained(directory, **({"max_shard_size": shard_size} if shard_size else {}))
    if edit:
        path = Path(directory) / "config.json"
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))
    return Path(directory)


def reference_model(directory, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="eager").eval()


def reference_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits[0].float().numpy()


def relative_error(ours, reference):
    return float(np.abs(ours - reference).max() / np.abs(reference).max())


def prompt(length, seed=7, vocab=SHAPE["vocab_size"]):
    return np.random.default_rng(seed).integers(0, vocab, length).tolist()


def assert_same_greedy(ours, model, ids, count):
    """Equal tokens, but for a step where the reference's two best logits are closer than the tolerance."""
    tokens = list(ids)
    with torch.no_grad():
        cache = None
        step = torch.tensor([tokens])
        for position in range(count):
            out = model(step, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            row = out.logits[0, -1]
            best = torch.topk(row, 2)
            expected = int(best.indices[0])
            if ours[position] != expected:
                gap = float((best.values[0] - row[ours[position]]) / row.abs().max())
                print(f"token {position}: ours {ours[position]}, reference {expected}, gap {gap:.2e}")
                assert gap < TOLERANCE
                expected = ours[position]
            step = torch.tensor([[expected]])
