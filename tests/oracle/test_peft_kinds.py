"""Every kind of expert against PEFT: DoRA, IA3, biases, heads and embeddings, soft prompts, on all architectures."""

import functools
import itertools
import json

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
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file

LOAD, INCOMPATIBLE = 3, 6
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TASK = dict(task_type="CAUSAL_LM")


def lora(**options):
    return lambda: LoraConfig(**TASK, **{"r": 4, "lora_alpha": 6, **options})


def ia3(**options):
    return lambda: IA3Config(**TASK, **options)


MODELS = {
    "qwen3_tied": dict(kind="qwen3", head_dim=16, tie_word_embeddings=True),
    "qwen3": dict(kind="qwen3", head_dim=8),
    "qwen2": dict(kind="qwen2"),
    "qwen2_tied": dict(kind="qwen2", tie_word_embeddings=True),
    "llama_biases": dict(kind="llama", attention_bias=True, mlp_bias=True),
    "llama_tied": dict(kind="llama", tie_word_embeddings=True),
    "mistral": dict(kind="mistral", head_dim=4, num_key_value_heads=3),
}

KINDS = {
    "dora": lora(use_dora=True, target_modules=ALL),
    "dora_rslora_patterns": lora(
        use_dora=True, use_rslora=True, target_modules=["q_proj", "up_proj"], rank_pattern={"up_proj": 7}, alpha_pattern={"q_proj": 9}
    ),
    "dora_bias_all": lora(use_dora=True, bias="all", target_modules=["q_proj", "o_proj", "down_proj"]),
    "lora_bias": lora(lora_bias=True, target_modules=["q_proj", "o_proj", "down_proj"]),
    "bias_all": lora(bias="all", target_modules=["q_proj", "down_proj"]),
    "bias_lora_only": lora(bias="lora_only", target_modules=["q_proj", "v_proj", "o_proj"]),
    "lora_fa": lora(target_modules=ALL),
    "ia3": ia3(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "ia3_many": ia3(target_modules=ALL, feedforward_modules=["o_proj", "down_proj", "gate_proj"]),
    "ia3_regex": ia3(target_modules=r".*\.(0|2)\..*(v_proj|down_proj|up_proj)", feedforward_modules=r".*mlp\.down_proj"),
    "ia3_head": ia3(target_modules=["v_proj", "lm_head"], feedforward_modules=[]),
    "head": lora(target_modules=["lm_head", "q_proj"]),
    "head_dora": lora(target_modules=["lm_head"], use_dora=True),
    "embedding": lora(target_modules=["embed_tokens", "v_proj"]),
    "embedding_dora": lora(target_modules=["embed_tokens"], use_dora=True),
    "embedding_and_head": lora(target_modules=["embed_tokens", "lm_head"]),
    "both_tied": lora(target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True),
    "embedding_ensure": lora(target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True),
    "head_ensure": lora(target_modules=["lm_head"], ensure_weight_tying=True),
    "pattern_ensure": lora(target_modules=r"(.*\.)?(embed_tokens|lm_head|q_proj)", ensure_weight_tying=True),
    "save_head": lora(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "save_embedding": lora(target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    "save_both": lora(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]),
    "save_embedding_ensure": lora(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "save_linear": lora(target_modules=["q_proj"], modules_to_save=["v_proj", "mlp"]),
    "ia3_save_head": ia3(target_modules=["v_proj"], feedforward_modules=[], modules_to_save=["lm_head"]),
    "save_linear_bias_all": lora(bias="all", target_modules=["q_proj"], modules_to_save=["v_proj"]),
    "save_linear_ensure": lora(target_modules=["embed_tokens", "q_proj"], modules_to_save=["v_proj"], ensure_weight_tying=True),
    "ia3_square": ia3(target_modules=["q_proj", "o_proj"], feedforward_modules=["o_proj"]),
    "tokens": lora(target_modules=["q_proj"], trainable_token_indices=[3, 250, 7]),
    "tokens_by_name": lora(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [1, 0]}),
    "tokens_of_head": lora(target_modules=["q_proj"], trainable_token_indices={"lm_head": [5, 9]}),
    "tokens_of_both": lora(target_modules=["q_proj"], trainable_token_indices={"lm_head": [5, 9], "embed_tokens": [5, 9]}),
    "tokens_apart": lora(target_modules=["q_proj"], trainable_token_indices={"lm_head": [5, 8], "embed_tokens": [5, 9]}),
    "tokens_under_a_head": lora(target_modules=["q_proj", "lm_head"], trainable_token_indices=[5, 9, 250]),
    "prompt_tuning": lambda: PromptTuningConfig(**TASK, num_virtual_tokens=5),
    "p_tuning": lambda: PromptEncoderConfig(**TASK, num_virtual_tokens=3, encoder_hidden_size=20),
}
# Three of the architectures run every kind, the others a few that differ there.
EVERYWHERE = ["qwen3_tied", "qwen2", "llama_biases"]
CASES = list(itertools.product(EVERYWHERE if not FULL else MODELS, KINDS))
CASES += [
    (model, kind)
    for model in MODELS
    for kind in ("dora", "ia3_many", "embedding_and_head", "head_ensure", "tokens", "save_embedding", "prompt_tuning")
    if (model, kind) not in CASES
]


def randomise_adapter(model, seed):
    """Every part away from where it began, so that a part that was forgotten shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if not parameter.requires_grad:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if "magnitude" in name or "ia3_l" in name:
                parameter.mul_(1 + 0.3 * noise)
            elif "lora_A" in name or "embedding_A" in name:
                parameter.copy_(0.3 * noise)
            elif "lora_B" in name or "embedding_B" in name:
                parameter.copy_(0.2 * noise)
            else:
                parameter.add_(0.3 * noise)
    return model


def make_adapter(base, directory, seed, config, **saving):
    randomise_adapter(get_peft_model(reference_model(base), config()), seed).save_pretrained(directory, **saving)
    return directory


def with_peft(base, adapter):
    return PeftModel.from_pretrained(reference_model(base), adapter).eval()


def peft_logits(base, adapter, ids):
    """PEFT's rows of `ids`, without those of soft prompts."""
    return reference_logits(with_peft(base, adapter), ids)[-len(ids) :]


@functools.cache
def untouched(base, length):
    return reference_logits(reference_model(base), prompt(length, seed=length))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: make_model(root / name, seed=seed, **case) for seed, (name, case) in enumerate(MODELS.items())}


@pytest.fixture(scope="module")
def adapters(models, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    made = {}

    def get(model, kind):
        if (model, kind) not in made:
            made[model, kind] = make_adapter(models[model], root / f"{model}-{kind}", len(made), KINDS[kind])
        return made[model, kind]

    return get


@pytest.mark.parametrize("model, kind", CASES)
def test_equals_peft(models, adapters, model, kind):
    adapter = adapters(model, kind)
    reference = with_peft(models[model], adapter)
    for length in (1, 70) if not FULL else (1, 17, 70, 300):
        ids = prompt(length, seed=length)
        expected = reference_logits(reference, ids)[-length:]
        if length > 1:
            assert relative_error(expected, untouched(models[model], length)) > 0.003, "the adapter must matter"
        assert relative_error(logits(models[model], ids, "--adapter", f"{adapter}=1"), expected) <= TOLERANCE


@pytest.mark.parametrize("kind", ["dora", "ia3_many", "embedding_and_head", "save_both", "tokens_of_both", "prompt_tuning"])
def test_scalar_reference_agrees(models, adapters, kind):
    ids = prompt(40)
    adapter = adapters("qwen2", kind)
    ours = logits(models["qwen2"], ids, "--device", "reference", "--adapter", f"{adapter}=1")
    assert relative_error(ours, peft_logits(models["qwen2"], adapter, ids)) <= TOLERANCE


@pytest.mark.parametrize("kind", ["dora", "ia3_many", "both_tied", "tokens"])
def test_greedy_tokens_equal_peft(models, adapters, kind):
    ids = prompt(10)
    adapter = adapters("qwen3_tied", kind)
    ours = greedy(models["qwen3_tied"], ids, 64, "--adapter", f"{adapter}=1")
    assert_same_greedy(ours, with_peft(models["qwen3_tied"], adapter), ids, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_nothing(models, adapters, kind):
    ids = prompt(40)
    options = ["--adapter", f"{adapters('qwen3_tied', kind)}=1"]
    whole = logits(models["qwen3_tied"], ids, *options)
    for chunk in (1, 16):
        assert np.array_equal(whole, logits(models["qwen3_tied"], ids, *options, "--chunk", chunk))


@pytest.mark.parametrize("kind", KINDS)
def test_weight_zero_is_the_base_bitwise(models, adapters, kind):
    ids = prompt(20)
    base = models["llama_biases"]
    assert np.array_equal(logits(base, ids, "--adapter", f"{adapters('llama_biases', kind)}=0"), logits(base, ids))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize("kind", ["dora", "ia3", "lora_bias", "embedding", "tokens", "prompt_tuning"])
def test_half_precision_tensors(models, adapters, tmp_path, kind, dtype):
    adapter = rewritten(adapters("qwen2", kind), tmp_path / "half", change=lambda t: t.update({k: v.to(dtype) for k, v in t.items()}))
    wide = rewritten(adapter, tmp_path / "wide", change=lambda t: t.update({k: v.float() for k, v in t.items()}))
    if kind == "embedding":  # a rounded copy of an F32 base is not that base to PEFT, and is to us
        load = lambda directory, tensors: save_file({k: v for k, v in tensors.items() if "base_layer" not in k}, directory / "adapter_model.safetensors")
        load(wide, load_file(wide / "adapter_model.safetensors"))
    ids = prompt(30)
    ours = logits(models["qwen2"], ids, "--adapter", f"{adapter}=1")
    assert relative_error(ours, peft_logits(models["qwen2"], wide, ids)) <= TOLERANCE


@pytest.mark.parametrize("kind", ["dora", "embedding_dora", "ia3", "head", "save_both", "tokens", "prompt_tuning"])
def test_over_bf16_weights(tmp_path, kind):
    """PEFT in F32 over the same BF16 weights. Our matrices of experts are rounded to BF16 as well, so no kind may be
    further away than twice what that costs a plain LoRA on all modules."""
    base = make_model(tmp_path / "base", "qwen2", dtype=torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter", 5, KINDS[kind])
    plain = make_adapter(base, tmp_path / "plain", 5, KINDS["lora_fa"])
    ids = prompt(40)
    error, rounding = [relative_error(logits(base, ids, "--adapter", f"{one}=1"), peft_logits(base, one, ids)) for one in (adapter, plain)]
    assert error <= 2 * rounding
    exact = logits(base, ids, "--weights", "f32", "--adapter", f"{adapter}=1")
    assert relative_error(exact, peft_logits(base, adapter, ids)) <= TOLERANCE


def rewritten(adapter, directory, rename=lambda key: key, change=lambda tensors: None, config=lambda values: None):
    directory.mkdir()
    values = json.loads((adapter / "adapter_config.json").read_text())
    config(values)
    (directory / "adapter_config.json").write_text(json.dumps(values))
    tensors = {rename(key): value for key, value in load_file(adapter / "adapter_model.safetensors").items()}
    change(tensors)
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


SPELLINGS = {
    "dora": [
        lambda key: key.replace("lora_magnitude_vector", "lora_magnitude"),
        lambda key: key.replace("lora_magnitude_vector", "lora_magnitude_vector.weight"),
        lambda key: key.replace("lora_magnitude_vector", "lora_magnitude_vector.default.weight"),
        lambda key: key.replace("base_model.model.model.", "base_model.model."),
    ],
    "ia3": [lambda key: key.replace("ia3_l", "ia3_scale"), lambda key: key + ".default"],
    "embedding": [lambda key: key + ".default" if "embedding" in key else key],
    "lora_bias": [lambda key: key.replace("lora_B.bias", "lora_B.default.bias")],
    "tokens": [lambda key: key + ".default" if key.endswith("_delta") else key],
    "save_head": [lambda key: key.replace("lm_head.weight", "lm_head.modules_to_save.default.weight")],
}


@pytest.mark.parametrize("kind, spelling", [(kind, i) for kind, all in SPELLINGS.items() for i in range(len(all))])
def test_other_spellings_of_keys(models, adapters, tmp_path, kind, spelling):
    adapter = adapters("qwen2", kind)
    other = rewritten(adapter, tmp_path / "other", rename=SPELLINGS[kind][spelling])
    ids = prompt(20)
    ours = [logits(models["qwen2"], ids, "--adapter", f"{directory}=1") for directory in (adapter, other)]
    assert np.array_equal(*ours)


def test_flat_ia3_vectors(models, adapters, tmp_path):
    adapter = adapters("qwen2", "ia3")
    flat = rewritten(adapter, tmp_path / "flat", change=lambda t: t.update({k: v.flatten() for k, v in t.items()}))
    ids = prompt(20)
    assert np.array_equal(*[logits(models["qwen2"], ids, "--adapter", f"{directory}=1") for directory in (adapter, flat)])


def test_embedding_layers_saved_along_are_compared(models, tmp_path):
    base = models["qwen2"]
    adapter = make_adapter(base, tmp_path / "saved", 3, lora(target_modules=["q_proj"]), save_embedding_layers=True)
    assert "base_model.model.lm_head.weight" in load_file(adapter / "adapter_model.safetensors")
    ids = prompt(20)
    assert relative_error(logits(base, ids, "--adapter", f"{adapter}=1"), peft_logits(base, adapter, ids)) <= TOLERANCE


SAVED_ALONG = {
    "a replaced head": lora(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "a replaced embedding": lora(target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    "both": lora(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]),
    "a soft prompt": lambda: PromptTuningConfig(**TASK, num_virtual_tokens=5),
    "ia3": ia3(target_modules=["v_proj"], feedforward_modules=[]),
}


@pytest.mark.parametrize("kind", SAVED_ALONG)
@pytest.mark.parametrize("model", ["qwen2", "qwen3_tied"])
def test_embedding_layers_saved_along_with(models, tmp_path, model, kind):
    base = models[model]
    adapter = make_adapter(base, tmp_path / "saved", 3, SAVED_ALONG[kind], save_embedding_layers=True)
    assert any("embed_tokens" in key for key in load_file(adapter / "adapter_model.safetensors"))
    ids = prompt(20)
    assert relative_error(logits(base, ids, "--adapter", f"{adapter}=1"), peft_logits(base, adapter, ids)) <= TOLERANCE


def test_state_of_the_training_is_skipped(models, adapters, tmp_path):
    """VeLoRA keeps a buffer of its backward pass beside the pair."""
    adapter = adapters("qwen2", "lora_fa")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_velora_embed"
    velora = rewritten(adapter, tmp_path / "velora", change=lambda t: t.update({name: torch.ones(3)}))
    ids = prompt(20)
    assert np.array_equal(*[logits(models["qwen2"], ids, "--adapter", f"{directory}=1") for directory in (adapter, velora)])


def test_ia3_without_feedforward_modules_is_pefts_default(models, adapters, tmp_path):
    adapter = adapters("qwen2", "ia3")
    untold = rewritten(adapter, tmp_path / "untold", config=lambda c: c.update(feedforward_modules=None))
    ids = prompt(20)
    assert relative_error(logits(models["qwen2"], ids, "--adapter", f"{untold}=1"), peft_logits(models["qwen2"], untold, ids)) <= TOLERANCE


def test_two_doras_follow_the_formula(models, adapters):
    """PEFT's own result depends on the order here; the formula does not: sums of what each one does to the base."""
    base = models["qwen2"]
    pairs = [(adapters("qwen2", "dora"), 0.7), (adapters("qwen2", "dora_rslora_patterns"), -0.4)]
    ids = prompt(30)
    options = [["--adapter", f"{directory}={weight}"] for directory, weight in pairs]
    ours = logits(base, ids, *options[0], *options[1])
    assert np.array_equal(ours, logits(base, ids, *options[1], *options[0])), "order-free"
    expected = merged_by_peft(base, pairs)
    assert relative_error(ours, reference_logits(expected, ids)) <= TOLERANCE


def merged_by_peft(base, pairs):
    """W + sum w (W_i - W) in FP64, where W_i is the base with one expert merged in by PEFT."""
    plain = reference_model(base).double()
    total = {name: value.clone() for name, value in plain.state_dict().items()}
    for directory, weight in pairs:
        merged = PeftModel.from_pretrained(reference_model(base).double(), directory).merge_and_unload().state_dict()
        for name, value in plain.state_dict().items():
            total[name] += weight * (merged[name] - value)
    plain.load_state_dict(total)
    return DoubleModel(plain)


class DoubleModel:
    """reference_logits of a model in FP64."""

    def __init__(self, model):
        self.model = model

    def __call__(self, ids):
        return self.model(ids)


@pytest.mark.parametrize("kind", ["dora", "lora_bias", "bias_all", "save_both", "tokens", "tokens_of_both"])
@pytest.mark.parametrize("weight", [0.5, -1.0, 1.7])
def test_any_weight(models, adapters, kind, weight):
    base = models["llama_biases"]
    adapter = adapters("llama_biases", kind)
    ids = prompt(30)
    expected = reference_logits(merged_by_peft(base, [(adapter, weight)]), ids)
    assert relative_error(logits(base, ids, "--adapter", f"{adapter}={weight}"), expected) <= TOLERANCE


# ------------------------------------------------------------------------------------------------- soft prompts


def test_a_soft_prompt_is_not_scaled(models, adapters):
    ids = prompt(20)
    adapter = adapters("qwen2", "prompt_tuning")
    one = logits(models["qwen2"], ids, "--adapter", f"{adapter}=1")
    assert np.array_equal(one, logits(models["qwen2"], ids, "--adapter", f"{adapter}=0.3"))


def test_soft_prompts_beside_a_lora(models, adapters):
    """The rows stand before the prompt in a model that PEFT has merged the LoRA into."""
    base = models["qwen2"]
    first, second = adapters("qwen2", "prompt_tuning"), adapters("qwen2", "p_tuning")
    bent = PeftModel.from_pretrained(reference_model(base), adapters("qwen2", "lora_fa")).merge_and_unload().eval()
    ids = prompt(25)
    rows = [load_file(directory / "adapter_model.safetensors")["prompt_embeddings"] for directory in sorted([first, second])]
    with torch.no_grad():
        embeddings = torch.cat([*rows, bent.get_input_embeddings()(torch.tensor(ids))])[None]
        expected = bent(inputs_embeds=embeddings).logits[0, -len(ids) :].numpy()
    names = [f"{directory}=1" for directory in (second, adapters("qwen2", "lora_fa"), first)]
    for order in itertools.permutations(names):
        ours = logits(base, ids, *[word for name in order for word in ("--adapter", name)])
        assert relative_error(ours, expected) <= TOLERANCE


# ---------------------------------------------------------------------------------------------- what is refused

REFUSED = {
    "magnitude of another size": ("dora", dict(change=lambda t: t.update({first(t, "magnitude"): torch.ones(5)})), INCOMPATIBLE, "does not fit the base's"),
    "magnitude gone": ("dora", dict(change=lambda t: t.pop(first(t, "magnitude"))), LOAD, "DoRA's magnitude of .* is missing"),
    "magnitude NaN": ("dora", dict(change=lambda t: t[first(t, "magnitude")].fill_(float("nan"))), LOAD, "magnitude_vector holds a value"),
    "unknown IA3 key": ("ia3", dict(config=lambda c: c.update(scaling=2)), LOAD, "\"scaling\": 2 is not supported"),
    "vector of another size": ("ia3", dict(change=lambda t: t.update({first(t, "k_proj.ia3_l"): torch.ones(7, 1)})), INCOMPATIBLE, "does not fit the base's 16 outputs"),
    "vector gone": ("ia3", dict(change=lambda t: t.pop(first(t, "k_proj.ia3_l"))), LOAD, "ia3_l of targeted module .* is missing"),
    "feed-forward untold": ("ia3", dict(config=lambda c: c.update(feedforward_modules=[])), INCOMPATIBLE, "does not fit the base's 48 outputs"),
    "a direction that was not trained": ("ia3_square", dict(config=lambda c: c.update(feedforward_modules=[])), LOAD, r"scales the inputs of .*o_proj, but feedforward_modules says its outputs"),
    "rows of another base": ("prompt_tuning", dict(change=lambda t: t.update(prompt_embeddings=torch.ones(5, 40)), config=lambda c: c.update(token_dim=40)), INCOMPATIBLE, "hidden size is 48"),
    "another number of rows": ("prompt_tuning", dict(config=lambda c: c.update(num_virtual_tokens=6)), LOAD, "has 5 rows"),
    "rows NaN": ("prompt_tuning", dict(change=lambda t: t["prompt_embeddings"].fill_(float("inf"))), LOAD, "holds a value that is not finite"),
    "an encoder-decoder": ("prompt_tuning", dict(config=lambda c: c.update(num_transformer_submodules=2)), INCOMPATIBLE, "num_transformer_submodules"),
    "a second tensor": ("p_tuning", dict(change=lambda t: t.update(more=torch.ones(2))), LOAD, "more is no part of a soft prompt"),
    "token outside": ("tokens", dict(config=lambda c: c.update(trainable_token_indices=[3, 260, 7])), INCOMPATIBLE, "260 is outside the base's vocabulary"),
    "a token too many": ("tokens", dict(config=lambda c: c.update(trainable_token_indices=[3, 7])), LOAD, "does not fit 2 trainable tokens"),
    "tokens of nothing": ("tokens", dict(config=lambda c: c.update(trainable_token_indices={"v_head": [3, 250, 7]})), INCOMPATIBLE, "v_head, which is neither head nor embedding"),
    "token rows unnamed": ("tokens", dict(config=lambda c: c.update(trainable_token_indices=None)), LOAD, "trainable_token_indices names none"),
    "a head of another vocabulary": ("save_head", dict(change=lambda t: t.update({HEAD: torch.ones(300, 48)})), INCOMPATIBLE, "vocabulary was resized"),
    "a head of another size": ("save_head", dict(change=lambda t: t.update({HEAD: torch.ones(260, 40)})), INCOMPATIBLE, "does not fit the base's weight"),
    "half an embedding pair": ("embedding", dict(change=lambda t: t.pop(first(t, "embedding_B"))), LOAD, "lora_B of targeted module model.embed_tokens is missing"),
    "an altered copy": ("head", dict(change=lambda t: t[first(t, "base_layer")][3].add_(1)), INCOMPATIBLE, "differs from the base's"),
    "a bias gone": ("bias_all", dict(change=lambda t: t.pop(first(t, "k_proj.bias"))), LOAD, "the bias of .*k_proj is missing"),
    "a bias the base lacks": ("bias_lora_only", dict(change=lambda t: t.update({first(t, "q_proj.base").replace("q_proj", "o_proj"): torch.ones(48)})), INCOMPATIBLE, "a copy of something the base does not have"),
}
HEAD = "base_model.model.lm_head.weight"


def first(tensors, part):
    return next(name for name in sorted(tensors) if part in name)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(models, adapters, tmp_path, name):
    kind, changes, code, message = REFUSED[name]
    broken = rewritten(adapters("qwen2", kind), tmp_path / "broken", **changes)
    with pytest.raises(ToolError, match=message) as refused:
        run_tool(models["qwen2"], [[1]], "--adapter", f"{broken}=1")
    assert refused.value.code == code
    assert str(broken) in str(refused.value)


def test_tied_copies_that_differ(models, adapters, tmp_path):
    adapter = adapters("qwen3_tied", "both_tied")
    broken = rewritten(adapter, tmp_path / "broken", change=lambda t: t[first(t, "lm_head.lora_A")].add_(1))
    with pytest.raises(ToolError, match="are not one pair"):
        run_tool(models["qwen3_tied"], [[1]], "--adapter", f"{broken}=1")
    lone = rewritten(adapter, tmp_path / "lone", change=lambda t: [t.pop(k) for k in list(t) if "lm_head" in k])
    ids = prompt(20)
    ours = logits(models["qwen3_tied"], ids, "--adapter", f"{lone}=1")
    assert np.array_equal(ours, logits(models["qwen3_tied"], ids, "--adapter", f"{adapter}=1"))


def test_prefix_tuning_is_refused_by_name(models, tmp_path):
    adapter = tmp_path / "prefix"
    get_peft_model(reference_model(models["qwen2"]), PrefixTuningConfig(**TASK, num_virtual_tokens=2)).save_pretrained(adapter)
    with pytest.raises(ToolError, match="PREFIX_TUNING experts are not supported") as refused:
        run_tool(models["qwen2"], [[1]], "--adapter", f"{adapter}=1")
    assert refused.value.code == INCOMPATIBLE


@pytest.mark.parametrize(
    "method", "ADALORA LOKR LOHA VERA OFT BOFT HRA FOURIERFT XLORA LN_TUNING POLY ADAPTION_PROMPT MULTITASK_PROMPT_TUNING CPT TRAINABLE_TOKENS NEW".split()
)
def test_other_methods_are_refused_by_name(models, adapters, tmp_path, method):
    broken = rewritten(adapters("qwen2", "lora_fa"), tmp_path / "other", config=lambda c: c.update(peft_type=method))
    with pytest.raises(ToolError, match=f"adapter_config.json: {method} experts are not supported") as refused:
        run_tool(models["qwen2"], [[1]], "--adapter", f"{broken}=1")
    assert refused.value.code == INCOMPATIBLE
