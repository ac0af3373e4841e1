"""INT8 and INT4 against F32, beside llama.cpp's Q8_0 and Q4_0 on the same weights, activations and tokens.

The peers' rounding is written out here in NumPy from its published definition: blocks of 32 with an FP16 scale; Q8_0 in
255 steps of max |x| / 127, Q4_0 in 16 steps of x_max / -8; activations in Q8_0 for both. As in llama.cpp's own Q4_0 files
of such models, embedding and head are Q8_0 there; all-INT4 is compared with Q4_0 throughout.

    EXPERT_QUANTISED_MODEL=DIR   another model than the bundled one; EXPERT_QUANTISED_TOKENS=N of each of two prompts
"""

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_cases import ROOT, logits_of, make_model, reference_model

MODEL = os.environ.get("EXPERT_QUANTISED_MODEL", str(ROOT / "models" / "base"))
TOKENS = int(os.environ.get("EXPERT_QUANTISED_TOKENS", "192"))
BLOCK = 32


def blocks_of(x):
    """Rows in blocks, padded with zeros: llama.cpp has no such tensors, but this is what they would lose."""
    padding = -x.shape[-1] % BLOCK
    return np.pad(x.astype(np.float32), [(0, 0)] * (x.ndim - 1) + [(0, padding)]).reshape(-1, BLOCK)


def rows_of(blocks, shape):
    return blocks.reshape(*shape[:-1], -1)[..., : shape[-1]].copy()


def q8_0(x):
    blocks = blocks_of(x)
    exact = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, exact, where=exact != 0, out=np.zeros_like(exact))
    codes = np.rint(blocks * inverse)
    return rows_of(codes * exact.astype(np.float16).astype(np.float32), x.shape)


def q4_0(x):
    blocks = blocks_of(x)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    exact = largest / np.float32(-8)
    inverse = np.divide(1, exact, where=exact != 0, out=np.zeros_like(exact))
    codes = np.clip(np.floor(blocks * inverse + np.float32(8.5)), 0, 15) - 8
    return rows_of(codes * exact.astype(np.float16).astype(np.float32), x.shape)


def peer(directory, layers, vocabulary):
    """The model as llama.cpp computes it: weights rounded, and the input of every matrix product as well."""
    model = reference_model(directory)

    def rounded_input(_, inputs):
        return (torch.from_numpy(q8_0(inputs[0].numpy())),)

    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(rounded_input)
                if name == "lm_head" and model.config.tie_word_embeddings:
                    continue
                rounding = vocabulary if name == "lm_head" else layers
                module.weight.copy_(torch.from_numpy(rounding(module.weight.numpy())))
            elif isinstance(module, torch.nn.Embedding):
                module.weight.copy_(torch.from_numpy(vocabulary(module.weight.numpy())))
    return model


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def mean_kl(truth, other):
    p, q = log_softmax(truth), log_softmax(other)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def run(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


FORMATS = {"int8": ("Q8_0", q8_0, q8_0), "int4": ("Q4_0, head Q8_0", q4_0, q8_0), "int4-all": ("Q4_0", q4_0, q4_0)}


def kls(directory, prompts):
    """{format: (ours, theirs)}: mean KL to F32 over all positions of the prompts."""
    vocab = reference_model(directory).config.vocab_size
    truth = logits_of(directory, prompts, "--weights", "f32", vocab=vocab)
    result = {}
    for ours, (_, layers, vocabulary) in FORMATS.items():
        model = peer(directory, layers, vocabulary)
        theirs = [mean_kl(t, run(model, ids)) for t, ids in zip(truth, prompts)]
        del model
        mine = list(map(mean_kl, truth, logits_of(directory, prompts, "--weights", ours, vocab=vocab)))
        result[ours] = (float(np.mean(mine)), float(np.mean(theirs)))
    return result


def assert_no_worse(of_models):
    """Over all models together: one model's KL is a matter of luck within some ten percent."""
    for ours, (name, _, _) in FORMATS.items():
        mine, theirs = np.sum([kl[ours] for kl in of_models], axis=0)
        print(f"{ours}: mean KL {mine / len(of_models):.3e}, {name} {theirs / len(of_models):.3e}, ratio {mine / theirs:.2f}")
        assert mine <= theirs, ours


def prompts_for(vocab, count=2, tokens=TOKENS):
    generator = np.random.default_rng(5)
    return [generator.integers(0, min(vocab, 4000), tokens).tolist() for _ in range(count)]


def bundled_texts(count=60):
    """What the bundled model is a model of: documents of its own tasks, over words it was not trained on. On random tokens
    a few positions where it is sure of nonsense make up the whole mean."""
    sys.path.insert(0, str(ROOT / "training"))
    import tasks_base
    from tokenizer import Encoder
    from words import Words

    rng, words, encoder = random.Random(5), Words("test"), Encoder(Path(MODEL))
    return [encoder.document(tasks_base.document(rng, words))[0] for _ in range(count)]


def test_no_worse_than_llama_cpp_on_a_trained_model():
    bundled = MODEL == str(ROOT / "models" / "base")
    assert_no_worse([kls(MODEL, bundled_texts() if bundled else prompts_for(reference_model(MODEL).config.vocab_size))])


@pytest.mark.parametrize("sizes", [(256, 512), (80, 152)], ids=["whole groups", "cut groups"])
def test_no_worse_than_llama_cpp_on_random_weights(tmp_path, sizes):
    hidden, intermediate = sizes
    models = []
    for seed in range(1, 5):
        directory = make_model(tmp_path / str(seed), ("qwen3", "llama")[seed % 2], seed=seed, hidden_size=hidden,
                               intermediate_size=intermediate, num_attention_heads=4)  # fmt: skip
        models.append(kls(str(directory), prompts_for(260, 3, 128)))
    assert_no_worse(models)
