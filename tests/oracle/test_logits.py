"""Base models against Transformers: logits, greedy tokens, every RoPE in both spellings, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from model_cases import (
    FULL,
    TOLERANCE,
    ToolError,
    assert_same_greedy,
    greedy,
    logits,
    make_model,
    prompt,
    reference_logits,
    reference_model,
    relative_error,
    run_tool,
)
from safetensors.torch import load_file, save_file

YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
ROPES = {
    "default": dict(rope_type="default", rope_theta=5000.0),
    "linear": dict(rope_type="linear", factor=2.5, rope_theta=10000.0),
    "yarn": dict(YARN, rope_theta=10000.0),
    "yarn_untruncated": dict(YARN, rope_theta=10000.0, truncate=False, beta_fast=24, beta_slow=2),
    "yarn_mscale": dict(YARN, rope_theta=1e6, mscale=0.8, mscale_all_dim=0.5),
    "yarn_attention_factor": dict(YARN, rope_theta=1e6, attention_factor=1.3),
    "llama3": dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, rope_theta=500000.0, original_max_position_embeddings=64),
}

MODELS = {
    "qwen3_tied": dict(kind="qwen3", head_dim=16, tie_word_embeddings=True),
    "qwen3_own_head_bias": dict(kind="qwen3", head_dim=8, attention_bias=True),
    "qwen3_one_kv_head": dict(kind="qwen3", head_dim=12, num_key_value_heads=1),
    "qwen2": dict(kind="qwen2"),
    "qwen2_tied_no_groups": dict(kind="qwen2", num_key_value_heads=6, tie_word_embeddings=True),
    "llama": dict(kind="llama"),
    "llama_biases_wide_heads": dict(kind="llama", attention_bias=True, mlp_bias=True, head_dim=20),
    "mistral": dict(kind="mistral"),
    "mistral_head_dim": dict(kind="mistral", head_dim=4, num_key_value_heads=3),
    "odd_sizes": dict(kind="llama", hidden_size=42, intermediate_size=37, num_attention_heads=3, num_key_value_heads=1, head_dim=14, num_hidden_layers=2),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: make_model(root / name, **case) for name, case in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_transformers(models, name):
    reference = reference_model(models[name])
    for length in (1, 17, 300) if not FULL else (1, 2, 15, 16, 17, 33, 100, 300):
        ids = prompt(length, seed=length)
        assert relative_error(logits(models[name], ids), reference_logits(reference, ids)) <= TOLERANCE


@pytest.mark.parametrize("name", ["qwen3_tied", "llama_biases_wide_heads"])
def test_scalar_reference_agrees(models, name):
    ids = prompt(40)
    assert relative_error(logits(models[name], ids, "--device", "reference"), reference_logits(reference_model(models[name]), ids)) <= TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens_equal_transformers(models, name):
    ids = prompt(12)
    count = 256
    assert_same_greedy(greedy(models[name], ids, count), reference_model(models[name]), ids, count)


def test_chunks_change_nothing(models):
    ids = prompt(150)
    whole = logits(models["qwen3_tied"], ids)
    for chunk in (1, 7, 16, 64):
        assert np.array_equal(whole, logits(models["qwen3_tied"], ids, "--chunk", chunk))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_stored_types_read_as_f32(tmp_path, dtype):
    directory = make_model(tmp_path, "qwen3", dtype=dtype, head_dim=16)
    ids = prompt(60)
    assert relative_error(logits(directory, ids, "--weights", "f32"), reference_logits(reference_model(directory), ids)) <= TOLERANCE


def test_shards_with_an_index(tmp_path):
    whole = make_model(tmp_path / "whole", "llama")
    shards = make_model(tmp_path / "shards", "llama", shard_size="60KB")
    assert (shards / "model.safetensors.index.json").exists() and len(list(shards.glob("*.safetensors"))) > 3
    ids = prompt(30)
    assert np.array_equal(logits(whole, ids), logits(shards, ids))


@pytest.mark.parametrize("spelling", ["rope_parameters", "rope_scaling", "rope_scaling_type"])
@pytest.mark.parametrize("rope", ROPES)
def test_rope(tmp_path, rope, spelling):
    def old_spelling(config):
        parameters = config.pop("rope_parameters")
        config["rope_theta"] = parameters.pop("rope_theta")
        if spelling == "rope_scaling_type":
            parameters["type"] = parameters.pop("rope_type")
        config["rope_scaling"] = parameters if rope != "default" else None

    kind = "qwen3" if rope.startswith("yarn") else "llama"
    directory = make_model(tmp_path, kind, head_dim=16, rope_parameters=dict(ROPES[rope]), edit=None if spelling == "rope_parameters" else old_spelling)
    ids = prompt(300)
    assert relative_error(logits(directory, ids), reference_logits(reference_model(directory), ids)) <= TOLERANCE


@pytest.mark.parametrize("rope", ["default", "yarn", "llama3"])
def test_far_positions(tmp_path, rope):
    parameters = dict(ROPES[rope], **({} if rope == "default" else {"original_max_position_embeddings": 4096}))
    directory = make_model(tmp_path, "llama", num_hidden_layers=1, max_position_embeddings=65536, rope_parameters=parameters)
    ids = prompt(12000 if FULL else 2500)
    ours, reference = logits(directory, ids), reference_logits(reference_model(directory), ids)
    assert relative_error(ours[-200:], reference[-200:]) <= TOLERANCE


def test_dynamic_rope_within_its_context(tmp_path):
    directory = make_model(tmp_path, "llama", rope_parameters=dict(rope_type="dynamic", factor=4.0, rope_theta=10000.0))
    ids = prompt(200)
    assert relative_error(logits(directory, ids), reference_logits(reference_model(directory), ids)) <= TOLERANCE
    with pytest.raises(ToolError, match="dynamic RoPE") as refused:
        logits(directory, ids, "--context", 1024)
    assert refused.value.code == 2


def test_rope_scaling_given_at_load(tmp_path):
    plain = make_model(tmp_path / "plain", "qwen3", head_dim=16)
    override = dict(YARN, factor=16.0)
    extended = make_model(tmp_path / "extended", "qwen3", head_dim=16, rope_parameters=dict(override, rope_theta=10000.0), max_position_embeddings=1024)
    ids = prompt(600)
    with pytest.raises(ToolError, match="above the 512 positions"):
        logits(plain, ids, "--context", 1024)
    ours = logits(plain, ids, "--context", 1024, "--rope", json.dumps(override))
    assert relative_error(ours, reference_logits(reference_model(extended), ids)) <= TOLERANCE


def test_sliding_window_within_the_window(tmp_path):
    directory = make_model(tmp_path, "mistral", sliding_window=40)
    ids = prompt(40)
    assert relative_error(logits(directory, ids), reference_logits(reference_model(directory), ids)) <= TOLERANCE
    with pytest.raises(ToolError, match="outside the context of 40") as refused:
        logits(directory, prompt(41))
    assert refused.value.code == 2


def test_old_checkpoints_with_buffers_and_a_copied_head(tmp_path):
    directory = make_model(tmp_path / "old", "llama", tie_word_embeddings=True)
    ids = prompt(20)
    expected = logits(directory, ids)
    path = directory / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    assert np.array_equal(expected, logits(directory, ids))
    # A head that differs is used, as Transformers does; an embedding that is missing is taken from the head.
    tensors["lm_head.weight"] = torch.randn_like(tensors["lm_head.weight"])
    save_file(tensors, path, metadata={"format": "pt"})
    assert relative_error(logits(directory, ids), reference_logits(reference_model(directory), ids)) <= TOLERANCE
    del tensors["model.embed_tokens.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    assert relative_error(logits(directory, ids), reference_logits(reference_model(directory), ids)) <= TOLERANCE


def mean_kl(reference, other):
    p = torch.log_softmax(torch.tensor(reference, dtype=torch.float64), -1)
    q = torch.log_softmax(torch.tensor(other, dtype=torch.float64), -1)
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "llama", "mistral"])
def test_bf16_is_no_further_from_f32_than_transformers(tmp_path, kind):
    directory = make_model(tmp_path, kind, dtype=torch.bfloat16, hidden_size=96, intermediate_size=256)
    ids = prompt(300)
    exact = reference_logits(reference_model(directory), ids)
    theirs = mean_kl(exact, reference_logits(reference_model(directory, torch.bfloat16), ids))
    ours = mean_kl(exact, logits(directory, ids, "--kv", "bf16"))
    print(f"{kind}: mean KL to F32: ours {ours:.3e}, Transformers {theirs:.3e}, ratio {ours / theirs:.2f}")
    assert ours <= 1.2 * theirs


# ---------------------------------------------------------------------------------------------- what is refused

LOAD, UNSUPPORTED, INVALID = 3, 10, 2


def edited(models, tmp_path, change):
    directory = tmp_path / "edited"
    shutil.copytree(models["qwen3_tied"], directory)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return directory


def with_tensors(models, tmp_path, change):
    directory = edited(models, tmp_path, lambda config: None)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
    return directory


def poison(name, value):
    def change(tensors):
        tensors[name].view(-1)[5] = value

    return change


@pytest.mark.parametrize(
    "change, code, message",
    [
        (poison("model.layers.1.mlp.up_proj.weight", float("nan")), LOAD, "model.layers.1.mlp.up_proj.weight holds a value"),
        (poison("model.norm.weight", float("inf")), LOAD, "model.norm.weight holds a value"),
        (lambda t: t.pop("model.layers.2.self_attn.q_norm.weight"), LOAD, "model.layers.2.self_attn.q_norm.weight is missing"),
        (lambda t: t.update({"model.layers.0.extra.weight": torch.ones(3)}), LOAD, "model.layers.0.extra.weight belongs to no part"),
        (lambda t: t.update({"model.norm.weight": torch.ones(47)}), LOAD, r"model.norm.weight has shape \[47\]"),
        (lambda t: t.update({"model.norm.weight": torch.ones(48, dtype=torch.float64)}), UNSUPPORTED, "model.norm.weight is F64"),
    ],
)
def test_bad_tensors(models, tmp_path, change, code, message):
    with pytest.raises(ToolError, match=message) as refused:
        run_tool(with_tensors(models, tmp_path, change), [[1]])
    assert refused.value.code == code


def test_truncated_weights(models, tmp_path):
    directory = edited(models, tmp_path, lambda config: None)
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ToolError) as refused:
        run_tool(directory, [[1]])
    assert refused.value.code == LOAD


def test_token_outside_the_vocabulary(models):
    with pytest.raises(ToolError, match="token 260 is outside the vocabulary") as refused:
        run_tool(models["llama"], [[1, 260]])
    assert refused.value.code == INVALID
