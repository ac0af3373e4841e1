"""2, 3, 5 and 10 experts of mixed kinds against the formula in FP64, on whole models. PEFT cannot mix these kinds, so
the oracle is a double-precision model whose layers compute

    y = c * ( e * (W (d*x)) + sum w_i D_i (d*x) + sum w_i B_i (A_i (d*x)) + b + sum w_i db_i )

term by term from the adapters' files. Random kinds, ranks, modules and weights in [-0.5, 1.7]; a case that fails is
shrunk to the least set of experts that still fails."""

import json

import numpy as np
import pytest
import torch
from model_cases import FULL, TOLERANCE, logits, make_model, prompt, reference_logits, reference_model, relative_error
from peft import IA3Config, LoraConfig, PromptTuningConfig
from safetensors.torch import load_file
from test_peft_kinds import make_adapter

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS = ["lora", "rslora", "dora", "lora_bias", "bias_all", "ia3", "save_head", "embedding", "tokens", "prompt"]
BASES = {
    "qwen3_tied": dict(kind="qwen3", head_dim=16, tie_word_embeddings=True),
    "qwen2": dict(kind="qwen2"),
    "llama_biases": dict(kind="llama", attention_bias=True, mlp_bias=True),
    "mistral": dict(kind="mistral"),
}


def config_of(kind, rng):
    rank = int(rng.integers(1, 24))
    modules = sorted(rng.choice(MODULES, rng.integers(1, 8), replace=False).tolist())
    common = dict(task_type="CAUSAL_LM", r=rank, lora_alpha=float(rng.uniform(0.5, 2) * rank), target_modules=modules)
    if kind == "rslora":
        return LoraConfig(**{**common, "use_rslora": True, "lora_alpha": rank**0.5})
    if kind == "dora":
        return LoraConfig(**common, use_dora=True)
    if kind == "lora_bias":
        return LoraConfig(**common, lora_bias=True)
    if kind == "bias_all":
        return LoraConfig(**common, bias="all")
    if kind == "ia3":
        return IA3Config(task_type="CAUSAL_LM", target_modules=modules, feedforward_modules=[m for m in modules if m in ("down_proj", "o_proj")])
    if kind == "save_head":
        return LoraConfig(**common, modules_to_save=["lm_head"])
    if kind == "embedding":
        return LoraConfig(**{**common, "target_modules": ["embed_tokens", "lm_head", "q_proj"]})
    if kind == "tokens":
        return LoraConfig(**common, trainable_token_indices=sorted(rng.choice(260, 4, replace=False).tolist()))
    if kind == "prompt":
        return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=int(rng.integers(1, 7)))
    return LoraConfig(**common)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {name: make_model(root / name, **case) for name, case in BASES.items()}


@pytest.fixture(scope="module")
def pool(bases, tmp_path_factory):
    """For every base two experts of every kind."""
    root = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(11)
    made = {}
    for base, directory in bases.items():
        made[base] = []
        for i, kind in enumerate(KINDS * 2):
            path = root / base / f"{i:02d}-{kind}"
            made[base].append(make_adapter(directory, path, i, lambda: config_of(kind, rng)))
    return made


class Terms:
    """What one expert does to one layer, from its files."""

    def __init__(self):
        self.d = self.e = self.c = None
        self.delta = 0  # [out, in]
        self.bias = 0


def terms_of(directory, model):
    """By module name; None stands for the soft prompt's rows."""
    config = json.loads((directory / "adapter_config.json").read_text())
    tensors = {key: value.double() for key, value in load_file(directory / "adapter_model.safetensors").items()}
    if config["peft_type"] == "PROMPT_TUNING":
        return {None: tensors["prompt_embeddings"]}
    terms = {}
    weights = dict(model.named_parameters(remove_duplicate=False))

    def at(key, ending):
        name = key.removeprefix("base_model.model.").removesuffix(ending)
        return name, terms.setdefault(name, Terms())

    if config["peft_type"] == "IA3":
        for key, value in tensors.items():
            name, term = at(key, ".ia3_l")
            if value.shape[0] == 1:
                term.d = value.flatten()
            else:
                term.c = value.flatten()
        return terms
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
    for key, a in tensors.items():
        if key.endswith(".lora_A.weight"):
            name, term = at(key, ".lora_A.weight")
            term.delta = scale * tensors[key.replace("lora_A", "lora_B")] @ a
            magnitude = tensors.get(key.replace("lora_A.weight", "lora_magnitude_vector"))
            if magnitude is not None:
                term.e = magnitude / (weights[name + ".weight"] + term.delta).norm(dim=1)
                term.delta = term.e[:, None] * term.delta
        elif key.endswith(".lora_embedding_A"):
            name, term = at(key, ".lora_embedding_A")
            term.delta = scale * tensors[key.replace("embedding_A", "embedding_B")] @ a  # [hidden, vocab]
        elif key.endswith(".lora_B.bias"):
            at(key, ".lora_B.bias")[1].bias = scale * a
        elif key.endswith(".bias"):
            name, term = at(key, ".base_layer.bias" if ".base_layer." in key else ".bias")
            term.bias = a - weights[name + ".bias"]
        elif key == "base_model.model.lm_head.weight" and config["modules_to_save"]:
            name, term = at(key, ".weight")
            term.e = torch.zeros(len(a), dtype=torch.float64)
            term.delta = a
        elif key.endswith(".trainable_tokens_delta"):
            name, term = at(key, ".token_adapter.trainable_tokens_delta")
            table = weights[name + ".weight"]
            change = torch.zeros_like(table)
            change[config["trainable_token_indices"]] = a - table[config["trainable_token_indices"]]
            term.delta = change.T
            if model.config.tie_word_embeddings:
                terms.setdefault("lm_head", Terms()).delta = change
    return terms


class Composed:
    """The model with these experts, in FP64."""

    def __init__(self, base, weighted):
        self.model = reference_model(base).double()
        if self.model.config.tie_word_embeddings:  # one matrix, two uses: each has its own experts
            self.model.lm_head.weight = torch.nn.Parameter(self.model.lm_head.weight.detach().clone())
        experts = [(float(np.float32(weight)), terms_of(directory, self.model)) for directory, weight in weighted]
        # In the order of their names, as the tool has it; any weight but zero means present.
        rows = [(str(directory), terms[None]) for (directory, _), (_, terms) in zip(weighted, experts) if None in terms]
        self.rows = torch.cat([value for _, value in sorted(rows, key=lambda pair: pair[0])]) if rows else None
        for name, module in self.model.named_modules():
            mine = [(weight, terms[name]) for weight, terms in experts if name in terms]
            if mine:
                module.forward = self.forward_of(module, mine)

    @staticmethod
    def forward_of(module, mine):
        def scale(part, size):
            product = torch.ones(size, dtype=torch.float64)
            for weight, term in mine:
                value = getattr(term, part)
                if value is not None:
                    product = product * (1 + weight * (value - 1))
            return product

        def forward(x):
            embedding = isinstance(module, torch.nn.Embedding)
            weight = module.weight.T if embedding else module.weight
            out, size = weight.shape
            rows = torch.nn.functional.one_hot(x, size).double() if embedding else x
            rows = rows * scale("d", size)
            e = torch.ones(out, dtype=torch.float64)
            rest = torch.zeros(out, dtype=torch.float64)
            if not embedding and module.bias is not None:
                rest = rest + module.bias
            for w, term in mine:
                if term.e is not None:
                    e = e + w * (term.e - 1)
                if isinstance(term.delta, torch.Tensor):
                    rest = rest + w * (rows @ term.delta.T)
                rest = rest + w * term.bias
            return scale("c", out) * (e * (rows @ weight.T) + rest)

        return forward

    def logits(self, ids):
        with torch.no_grad():
            embeddings = self.model.get_input_embeddings()(torch.tensor(ids))
            if self.rows is not None:
                embeddings = torch.cat([self.rows, embeddings])
            return self.model(inputs_embeds=embeddings[None]).logits[0, -len(ids) :].numpy()


def error_of(base, weighted, ids):
    options = [word for directory, weight in weighted for word in ("--adapter", f"{directory}={weight!r}")]
    return relative_error(logits(base, ids, *options), Composed(base, weighted).logits(ids))


def shrunk(base, weighted, ids):
    """The least set that still fails: without one expert after the other, then at weight 1."""
    changed = True
    while changed:
        changed = False
        for i in range(len(weighted)):
            for candidate in (weighted[:i] + weighted[i + 1 :], weighted[:i] + [(weighted[i][0], 1.0)] + weighted[i + 1 :]):
                if candidate and candidate != weighted and error_of(base, candidate, ids) > TOLERANCE:
                    weighted, changed = candidate, True
                    break
            if changed:
                break
    return weighted


@pytest.mark.parametrize("seed", range(24 if FULL else 6))
@pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
def test_mixed_experts_are_the_formula(bases, pool, count, seed):
    rng = np.random.default_rng([count, seed])
    name = list(BASES)[(count + seed) % len(BASES)]
    chosen = rng.choice(len(pool[name]), count, replace=False)
    weighted = [(pool[name][i], round(float(rng.uniform(-0.5, 1.7)), 3)) for i in chosen]
    ids = prompt(int(rng.integers(1, 60)), seed=seed)
    error = error_of(bases[name], weighted, ids)
    if error <= TOLERANCE:
        return
    least = shrunk(bases[name], weighted, ids)
    pytest.fail(f"{name}: {error_of(bases[name], least, ids):.2e} with {[(d.name, w) for d, w in least]}")


def test_every_expert_alone_is_the_formula(bases, pool):
    """The oracle above is itself right where PEFT can be asked: every kind at weight 1 (test_peft_kinds.py has PEFT)."""
    ids = prompt(25)
    for directory in pool["qwen2"][: len(KINDS)]:
        assert error_of(bases["qwen2"], [(directory, 1.0)], ids) <= TOLERANCE, directory.name


def test_order_does_not_matter(bases, pool):
    ids = prompt(20)
    weighted = [(directory, 0.1 * i - 0.3) for i, directory in enumerate(pool["llama_biases"][:10]) if i != 3]
    runs = [
        logits(bases["llama_biases"], ids, *[word for d, w in order for word in ("--adapter", f"{d}={w!r}")])
        for order in (weighted, weighted[::-1])
    ]
    assert np.array_equal(*runs)
