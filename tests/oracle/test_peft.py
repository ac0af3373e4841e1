"""LoRA experts against PEFT, alone and together, and against the formula in FP64 where PEFT has no weights."""

import json

import numpy as np
import pytest
import torch
from model_cases import (
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
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORAS = {
    "plain": dict(r=8, lora_alpha=16, target_modules=ALL),
    "float_alpha": dict(r=4, lora_alpha=5.5, target_modules=["q_proj", "v_proj"]),
    "rslora": dict(r=9, lora_alpha=8, use_rslora=True, target_modules=ALL),
    "rank_one": dict(r=1, lora_alpha=4, target_modules=["down_proj"]),
    "wide": dict(r=40, lora_alpha=20, target_modules=["gate_proj", "o_proj"]),
    "patterns": dict(
        r=4,
        lora_alpha=8,
        target_modules=ALL,
        rank_pattern={"layers.0.self_attn.q_proj": 2, "layers.0.mlp.up_proj": 6, r"model\.layers\.[12]\.mlp\..*": 3},
        alpha_pattern={"^model.layers.1.self_attn.v_proj": 32, "layers.0.*": 3},
        use_rslora=True,
    ),
    "full_names": dict(r=3, target_modules=["model.layers.1.self_attn.k_proj", "layers.2.mlp.up_proj"]),
    "regex": dict(r=5, target_modules=r".*\.layers\.(0|2)\.(self_attn\.[qk]_proj|mlp\.(?:up|down)_proj)"),
    "looks_around": dict(r=3, target_modules=r"(?i)MODEL\.(?!layers\.1\.).*(?<=self_attn\.)(?:q|v)_proj"),
    "all_linear": dict(r=2, target_modules="all-linear"),
    "some_layers": dict(r=4, target_modules=["q_proj", "up_proj"], layers_to_transform=[0, 2]),
    "some_layers_by_name": dict(r=4, target_modules=["q_proj", "up_proj"], layers_to_transform=[1], layers_pattern="layers"),
    "some_layers_by_expression": dict(r=4, target_modules=["q_proj", "up_proj"], layers_to_transform=[1, 2], layers_pattern=r"(?:h|layer[s])"),
    "excluded": dict(r=4, target_modules=["q_proj", "up_proj"], exclude_modules=["layers.1.mlp.up_proj"]),
    "gaussian": dict(r=4, target_modules=ALL, init_lora_weights="gaussian"),
    "orthogonal": dict(r=4, target_modules=["q_proj"], init_lora_weights="orthogonal"),
    "mica": dict(r=4, target_modules=ALL, init_lora_weights="mica"),
    "fan_in_fan_out": dict(r=4, target_modules=["q_proj", "down_proj"], fan_in_fan_out=True),
}


def make_adapter(base, directory, seed, **options):
    model = get_peft_model(reference_model(base), LoraConfig(task_type="CAUSAL_LM", **options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.3 if "lora_A" in name else 0.15))
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("base"), "qwen3", head_dim=16, tie_word_embeddings=True)


@pytest.fixture(scope="module")
def adapters(base, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    return {name: make_adapter(base, root / name, seed, **options) for seed, (name, options) in enumerate(LORAS.items())}


@pytest.mark.parametrize("name", LORAS)
def test_one_lora_equals_peft(base, adapters, name):
    ids = prompt(70)
    reference = PeftModel.from_pretrained(reference_model(base), adapters[name]).eval()
    expected = reference_logits(reference, ids)
    assert relative_error(expected, reference_logits(reference_model(base), ids)) > 0.01, "the adapter must matter"
    assert relative_error(logits(base, ids, "--adapter", f"{adapters[name]}=1"), expected) <= TOLERANCE


def test_greedy_with_a_lora(base, adapters):
    reference = PeftModel.from_pretrained(reference_model(base), adapters["plain"]).eval()
    ids = prompt(10)
    assert_same_greedy(greedy(base, ids, 128, "--adapter", f"{adapters['plain']}=1"), reference, ids, 128)


@pytest.mark.parametrize("kind", ["qwen2", "llama", "mistral"])
def test_other_architectures(tmp_path, kind):
    base = make_model(tmp_path / "base", kind, **({"attention_bias": True, "mlp_bias": True} if kind == "llama" else {}))
    adapter = make_adapter(base, tmp_path / "adapter", 3, r=6, lora_alpha=12, target_modules=ALL)
    ids = prompt(50)
    expected = reference_logits(PeftModel.from_pretrained(reference_model(base), adapter).eval(), ids)
    assert relative_error(logits(base, ids, "--adapter", f"{adapter}=1"), expected) <= TOLERANCE


def test_two_loras_equal_peft_with_both_active(base, adapters):
    ids = prompt(70)
    reference = PeftModel.from_pretrained(reference_model(base), adapters["plain"], adapter_name="one")
    reference.load_adapter(adapters["rslora"], adapter_name="two")
    reference.base_model.set_adapter(["one", "two"])
    expected = reference_logits(reference.eval(), ids)
    options = [f"{adapters['plain']}=1", f"{adapters['rslora']}=1"]
    ours = logits(base, ids, "--adapter", options[0], "--adapter", options[1])
    assert relative_error(ours, expected) <= TOLERANCE
    assert np.array_equal(ours, logits(base, ids, "--adapter", options[1], "--adapter", options[0])), "order-free"


def merged_fp64(base, weighted):
    """The formula W + sum w s B A in FP64, by merging into a copy of the base."""
    model = reference_model(base).double()
    for directory, weight in weighted:
        config = json.loads((directory / "adapter_config.json").read_text())
        tensors = load_file(directory / "adapter_model.safetensors")
        scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
        for key, a in tensors.items():
            if ".lora_A." not in key:
                continue
            b = tensors[key.replace(".lora_A.", ".lora_B.")]
            module = model.get_submodule(key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
            with torch.no_grad():
                module.weight += weight * scale * (b.double() @ a.double())
    return model


@pytest.mark.parametrize("weights", [(0.5, 1.0), (-1.0, 0.25), (2.0, 0.0)])
def test_weights_equal_the_formula(base, adapters, weights):
    ids = prompt(50)
    pairs = list(zip((adapters["plain"], adapters["float_alpha"]), weights))
    with torch.no_grad():
        expected = merged_fp64(base, pairs)(torch.tensor([ids])).logits[0].numpy()
    options = [word for directory, weight in pairs for word in ("--adapter", f"{directory}={weight}")]
    assert relative_error(logits(base, ids, *options), expected) <= TOLERANCE


def test_weight_zero_is_the_base_bitwise(base, adapters):
    ids = prompt(30)
    assert np.array_equal(logits(base, ids, "--adapter", f"{adapters['plain']}=0"), logits(base, ids))


def rewritten(adapter, directory, rename=lambda key: key, change=lambda tensors: None, config=lambda values: None):
    directory.mkdir()
    values = json.loads((adapter / "adapter_config.json").read_text())
    config(values)
    (directory / "adapter_config.json").write_text(json.dumps(values))
    tensors = {rename(key): value for key, value in load_file(adapter / "adapter_model.safetensors").items()}
    change(tensors)
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: key.replace("base_model.model.model.", "base_model.model."),
        lambda key: key.removesuffix(".weight"),
        lambda key: key.replace(".weight", ".default.weight"),
        lambda key: key.removeprefix("base_model.model."),
    ],
)
def test_other_spellings_of_keys(base, adapters, tmp_path, rename):
    ids = prompt(20)
    other = rewritten(adapters["plain"], tmp_path / "other", rename)
    assert np.array_equal(logits(base, ids, "--adapter", f"{other}=1"), logits(base, ids, "--adapter", f"{adapters['plain']}=1"))


FIRST_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
LOAD, INCOMPATIBLE = 3, 6
MAGNITUDE = FIRST_A.replace("lora_A.weight", "lora_magnitude_vector")
REFUSED = {
    "half a pair": (dict(change=lambda t: t.pop(FIRST_A)), LOAD, "lora_A of targeted module model.layers.0.self_attn.q_proj is missing"),
    "an extra tensor": (dict(change=lambda t: t.update({"base_model.model.x": torch.ones(1)})), LOAD, "base_model.model.x is no part of a LoRA"),
    "NaN": (dict(change=lambda t: t.update({FIRST_A: t[FIRST_A] * float("nan")})), LOAD, "lora_A.weight holds a value"),
    "another rank": (dict(config=lambda c: c.update(r=7)), LOAD, "do not have the rank 7"),
    "another width": (dict(change=lambda t: t.update({FIRST_A: torch.ones(8, 50)})), INCOMPATIBLE, r"\[8, 50\].*do not fit the base's weight \[96, 48\]"),
    "another base": (dict(rename=lambda k: k.replace("layers.2.", "layers.9.")), INCOMPATIBLE, "a module the base model does not have"),
    "absent module": (dict(config=lambda c: c["target_modules"].append("query_key_value")), INCOMPATIBLE, "no module query_key_value"),
    "untargeted tensor": (dict(config=lambda c: c["target_modules"].remove("q_proj")), LOAD, "target_modules leaves out"),
    "DoRA without magnitude": (dict(config=lambda c: c.update(use_dora=True)), LOAD, "DoRA's magnitude of model.layers.0.self_attn.q_proj is missing"),
    "a magnitude without DoRA": (dict(change=lambda t: t.update({MAGNITUDE: torch.ones(96)})), LOAD, "use_dora"),
    "lora_bias without one": (dict(config=lambda c: c.update(lora_bias=True)), LOAD, "lora_B.bias of model.layers.0.self_attn.q_proj is missing"),
    "a lora_bias without the option": (dict(change=lambda t: t.update({FIRST_A.replace("A.weight", "B.bias"): torch.ones(96)})), LOAD, "lora_bias"),
    "unknown bias": (dict(config=lambda c: c.update(bias="mine")), LOAD, "mine"),
    "modules_to_save without them": (dict(config=lambda c: c.update(modules_to_save=["lm_head"])), LOAD, "lm_head .modules_to_save. is missing"),
    "modules_to_save of nothing": (dict(config=lambda c: c.update(modules_to_save=["score"])), INCOMPATIBLE, "modules_to_save names score"),
    "a changed norm": (dict(change=lambda t: t.update({"base_model.model.model.norm.weight": torch.ones(48)})), LOAD, "changed norm"),
    "IA3 in a LoRA": (dict(change=lambda t: t.update({FIRST_A.replace("lora_A.weight", "ia3_l"): torch.ones(96, 1)})), LOAD, "is for a module"),
    "layer_replication": (dict(config=lambda c: c.update(layer_replication=[[0, 2]])), LOAD, "layer_replication"),
    "alora": (dict(config=lambda c: c.update(alora_invocation_tokens=[1, 2])), LOAD, "alora_invocation_tokens"),
    "target_parameters": (dict(config=lambda c: c.update(target_parameters=["q_proj.weight"])), LOAD, "target_parameters"),
    "arrow": (dict(config=lambda c: c.update(arrow_config={"top_k": 3})), LOAD, "arrow_config"),
    "BD-LoRA": (dict(config=lambda c: c.update(use_bdlora={"nblocks": 2})), LOAD, "use_bdlora"),
    "KaSA": (dict(config=lambda c: c.update(kasa_config={"beta": 1e-4})), LOAD, "kasa_config"),
    "no alpha": (dict(config=lambda c: c.pop("lora_alpha")), LOAD, "lora_alpha"),
    "CorDA": (dict(config=lambda c: c.update(init_lora_weights="corda")), LOAD, "alters the base weights"),
    "LoftQ": (dict(config=lambda c: c.update(init_lora_weights="loftq")), LOAD, "alters the base weights"),
    "LoRA-GA": (dict(config=lambda c: c.update(init_lora_weights="lora_ga")), LOAD, "alters the base weights"),
    "layers_pattern alone": (dict(config=lambda c: c.update(layers_pattern="layers")), LOAD, "layers_pattern"),
    "a rank of its own": (dict(config=lambda c: c.update(rank_pattern={"q_proj": 5})), LOAD, "do not have the rank 5"),
    "Inf": (dict(change=lambda t: t.update({FIRST_A: t[FIRST_A] / 0})), LOAD, "lora_A.weight holds a value"),
    "integers": (dict(change=lambda t: t.update({FIRST_A: torch.ones(8, 48, dtype=torch.int32)})), LOAD, "F32, F16 and BF16 are supported"),
    "a resized vocabulary": (dict(change=lambda t: t.update({"base_model.model.model.embed_tokens.weight": torch.ones(270, 48)})), INCOMPATIBLE, "vocabulary was resized"),
    "another head beside": (dict(change=lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(260, 48)})), INCOMPATIBLE, "differs from the base's"),
    "PiSSA": (dict(config=lambda c: c.update(init_lora_weights="pissa_niter_16")), LOAD, "alters the base weights"),
    "MiCA with DoRA": (dict(config=lambda c: c.update(init_lora_weights="mica", use_dora=True)), LOAD, "cannot go with"),
    "OLoRA": (dict(config=lambda c: c.update(init_lora_weights="olora")), LOAD, "alters the base weights"),
    "unknown option": (dict(config=lambda c: c.update(use_qalora=True)), LOAD, "use_qalora"),
    "no rank": (dict(config=lambda c: c.update(r=0)), LOAD, "out of range"),
    "back-reference": (dict(config=lambda c: c.update(target_modules=r".*(p)roj\1?")), LOAD, "escape that is not supported"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(base, adapters, tmp_path, name):
    changes, code, message = REFUSED[name]
    broken = rewritten(adapters["plain"], tmp_path / "broken", **changes)
    with pytest.raises(ToolError, match=message) as refused:
        run_tool(base, [[1]], "--adapter", f"{broken}=1")
    assert refused.value.code == code


def test_bad_sets(base, adapters):
    plain = f"{adapters['plain']}="
    for options, message in (
        (["--adapter", plain + "1", "--adapter", plain + "1"], "named twice"),
        (["--adapter", plain + "nan"], "not a finite number"),
    ):
        with pytest.raises(ToolError, match=message) as refused:
            run_tool(base, [[1]], *options)
        assert refused.value.code == 2
