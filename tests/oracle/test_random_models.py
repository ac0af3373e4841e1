"""Models nobody wrote a case for: random sizes, RoPE, spellings, dtypes, shards and adapters, against Transformers and PEFT.

A few by default, many with EXPERT_ORACLE_VOLUME=full; EXPERT_ORACLE_SEED begins somewhere else. By hand:
EXPERT_ORACLE_SEED=1000 EXPERT_ORACLE_VOLUME=full pytest tests/oracle/test_random_models.py
"""

import json
import os
import random

import pytest
import torch
from model_cases import FULL, TOLERANCE, logits, make_model, prompt, reference_logits, reference_model, relative_error
from peft import LoraConfig, PeftModel, get_peft_model

FIRST = int(os.environ.get("EXPERT_ORACLE_SEED", "0"))
COUNT = 60 if FULL else 6
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def random_rope(rng, positions, head_dim):
    theta = rng.choice([100.0, 10000.0, 500000.0, 1e6, 1234567.5])
    # Transformers divides by head_dim - 2 in dynamic RoPE.
    kind = rng.choice(["default", "default", "linear", "yarn", "llama3"] + ["dynamic"] * (head_dim > 2))
    rope = {"rope_type": kind, "rope_theta": theta}
    if kind in ("linear", "yarn", "llama3", "dynamic"):
        rope["factor"] = rng.choice([1.0, 1.7, 2.0, 4.0, 8.0])
    if kind in ("yarn", "llama3"):
        rope["original_max_position_embeddings"] = rng.choice([positions // 8, positions // 4, positions // 2])
    if kind == "yarn":
        for key, values in {"beta_fast": [16, 32.0], "beta_slow": [1, 2.0], "attention_factor": [0.9, 1.2], "truncate": [False, True]}.items():
            if rng.random() < 0.3:
                rope[key] = rng.choice(values)
        if rng.random() < 0.3:
            rope.update(mscale=rng.choice([0.7, 1.0]), mscale_all_dim=rng.choice([0.6, 1.0]))
    if kind == "llama3":
        rope.update(low_freq_factor=rng.choice([1.0, 2.0]), high_freq_factor=rng.choice([4.0, 6.0]))
    return rope


def random_shape(rng):
    """Keyword arguments of make_model."""
    kind = rng.choice(["qwen3", "qwen2", "llama", "mistral"])
    heads = rng.choice([1, 2, 3, 4, 5, 7, 8, 12])
    kv_heads = rng.choice([n for n in range(1, heads + 1) if heads % n == 0])
    head_dim = rng.choice([2, 4, 6, 8, 10, 16, 18, 26, 32, 64])
    # Qwen2's class has no head_dim of its own in its configuration: hidden / heads.
    hidden = heads * head_dim if kind == "qwen2" else rng.choice([17, 24, 33, 48, 65, 100, heads * head_dim])
    if kind == "llama":  # Transformers insists, though head_dim is given
        hidden = -(-hidden // heads) * heads
    shape = dict(
        kind=kind,
        vocab_size=rng.choice([5, 31, 97, 160, 259, 1001]),
        hidden_size=hidden,
        intermediate_size=rng.choice([1, 7, 16, 40, 77, 130]),
        num_hidden_layers=rng.choice([1, 2, 3]),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=rng.choice([128, 256, 1000]),
        rms_norm_eps=rng.choice([1e-6, 1e-5, 1e-3]),
        tie_word_embeddings=rng.random() < 0.5,
    )
    if kind != "qwen2":
        shape["head_dim"] = head_dim
    if kind in ("qwen3", "llama"):
        shape["attention_bias"] = rng.random() < 0.5
    if kind == "llama":
        shape["mlp_bias"] = rng.random() < 0.5
    shape["rope_parameters"] = random_rope(rng, shape["max_position_embeddings"], head_dim)
    shape["dtype"] = rng.choice([torch.float32, torch.float32, torch.float16, torch.bfloat16])
    shape["shard_size"] = rng.choice([None, "20KB", "100KB"])
    return shape


def random_spelling(rng):
    """An edit of config.json: the older spellings, keys that are null or left to their defaults."""
    old, short, nulls = rng.random() < 0.5, rng.random() < 0.3, rng.random() < 0.3

    def edit(config):
        rope = config["rope_parameters"]
        if old:
            config.pop("rope_parameters")
            config["rope_theta"] = rope.pop("rope_theta")
            if short:
                rope["type"] = rope.pop("rope_type")
            config["rope_scaling"] = None if "default" in rope.values() else rope
        if nulls:
            config.update(quantization_config=None, rope_scaling=config.get("rope_scaling"), sliding_window=None, pad_token_id=None)
        if config["model_type"] == "llama" and config["num_key_value_heads"] == config["num_attention_heads"] and rng.random() < 0.5:
            config["num_key_value_heads"] = None
        config["torch_dtype"] = config.pop("dtype", "float32")

    return edit


def random_adapter(rng, base, directory):
    whole = rng.random() < 0.3
    options = dict(
        r=rng.choice([1, 2, 5, 8, 17, 40]),
        lora_alpha=rng.choice([1, 8, 12.5, 64]),
        use_rslora=rng.random() < 0.4,
        target_modules="all-linear" if whole else rng.sample(MODULES, rng.randrange(1, 8)),
    )
    if rng.random() < 0.3:
        options["rank_pattern"] = {rng.choice(["q_proj", "layers.0.mlp.up_proj", r"layers\.[01]\..*down_proj"]): rng.choice([1, 3, 9])}
    if rng.random() < 0.3:
        options["alpha_pattern"] = {rng.choice(["v_proj", "mlp.gate_proj", r".*\.0\..*"]): rng.choice([2, 30])}
    model = get_peft_model(reference_model(base), LoraConfig(task_type="CAUSAL_LM", **options))
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    # A change many times larger than the base makes single positions so ill-conditioned that no F32 agrees with FP64.
    scale = options["lora_alpha"] / options["r"] ** (0.5 if options["use_rslora"] else 1)
    size = 0.15 / max(1.0, scale)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.3 if "lora_A" in name else size))
    model.save_pretrained(directory)
    return options


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_random_model(tmp_path, seed):
    rng = random.Random(seed)
    shape = random_shape(rng)
    base = make_model(tmp_path / "base", seed=seed, edit=random_spelling(rng), **shape)
    note = json.dumps({k: str(v) for k, v in shape.items()}) + "\n" + (base / "config.json").read_text()
    reference, vocab = reference_model(base), shape["vocab_size"]
    for length in (1, rng.randrange(2, 60), 128):
        ids = prompt(length, seed=seed, vocab=vocab)
        error = relative_error(logits(base, ids, "--weights", "f32", vocab=vocab), reference_logits(reference, ids))
        assert error <= TOLERANCE, f"{length} tokens: {error}\n{note}"

    options = random_adapter(rng, base, tmp_path / "adapter")
    expected = reference_logits(PeftModel.from_pretrained(reference_model(base), tmp_path / "adapter").eval(), ids)
    ours = logits(base, ids, "--weights", "f32", "--adapter", f"{tmp_path / 'adapter'}=1", vocab=vocab)
    assert relative_error(ours, expected) <= TOLERANCE, f"{options}\n{note}"
