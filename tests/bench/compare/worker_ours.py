"""Our engine behind compare.py.   worker_ours.py MODEL WEIGHTS THREADS KV POSITIONS HEAD (screen or whole)"""

import itertools
import json
import sys
import tempfile
from pathlib import Path

from memory import peak, resident

before = resident()
import expert  # noqa: E402
from random_lora import write_lora  # noqa: E402

MOST_EXPERTS = 10
model, weights, threads, kv, positions, head = sys.argv[1:7]
engine = expert.Engine(model, weights=weights, threads=int(threads), kv=kv, context_size=int(positions),
                       head_screen=head == "screen")  # fmt: skip
salt = itertools.count()


def text_of(tokens):
    """A text of exactly that many tokens, and its tokens: the peers get the same."""
    words = tokens
    while True:
        text = "a" + " a" * (words - 1)
        ids = engine.tokenize(text)
        if len(ids) == tokens:
            return text, ids
        words += tokens - len(ids)


def answer(prompt, experts, max_tokens, cache_salt=None):
    return engine.infer(prompt, raw=True, experts=experts, max_tokens=max_tokens, temperature=0, ignore_eos=True,
                        cache_salt=cache_salt or f"compare-{next(salt)}").timings  # fmt: skip


def bytes_per_token():
    """Of the weights; where the head has a screen, as the answers so far read them."""
    stats = engine.stats()
    return (stats["head_screen"] or {}).get("bytes_per_token") or stats["bytes_per_token"]


def prompt_of(tokens):
    if tokens not in prompts:
        prompts[tokens] = text_of(tokens)
    return prompts[tokens][0]


def first_experts(count, folder):
    while len(loaded) < count:
        directory = Path(folder) / f"random-{len(loaded)}"
        write_lora(Path(model), directory, len(loaded))
        loaded.append(engine.load_expert(directory))
    return loaded[:count]


def decode_at(context, tokens):
    """After a prompt of `context` tokens, which is computed once and then found again."""
    prompt, cache_salt = prompt_of(context), f"compare-at-{context}"
    if context not in computed:
        answer(prompt, [], 1, cache_salt)
        computed.add(context)
    return answer(prompt, [], tokens + 1, cache_salt).decode_ms / 1e3


prompts = {n: text_of(n) for n in (16, 512)}
loaded, computed = [], set()
with tempfile.TemporaryDirectory() as folder:
    info = engine.info()
    hello = {"engine": f"libexpert {info['isa']} {info['weights']}", "most_experts": MOST_EXPERTS, "ids": prompts[512][1],
             "contexts": True}  # fmt: skip
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "memory":
            print(json.dumps({"before": before, "peak": peak()}), flush=True)
            continue
        experts = first_experts(command["experts"], folder)
        tokens = command["tokens"]
        if command["do"] == "prefill":
            seconds = answer(prompt_of(tokens), experts, 1).prefill_ms / 1e3
        elif command.get("context"):
            seconds = decode_at(command["context"], tokens)
        else:  # the first token comes with the prefill
            seconds = answer(prompt_of(16), experts, tokens + 1).decode_ms / 1e3
        print(json.dumps({"seconds": seconds, "expert_bytes": loaded[0].size_bytes if loaded else 0,
                          "bytes_per_token": bytes_per_token()}), flush=True)  # fmt: skip
