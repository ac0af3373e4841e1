"""Our engine behind compare.py.   worker_ours.py MODEL WEIGHTS THREADS"""

import itertools
import json
import sys
import tempfile
from pathlib import Path

import expert
from random_lora import write_lora

MOST_EXPERTS = 10
model, weights, threads = sys.argv[1:4]
engine = expert.Engine(model, weights=weights, threads=int(threads), kv="bf16")
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


def answer(prompt, experts, max_tokens):
    return engine.infer(prompt, raw=True, experts=experts, max_tokens=max_tokens, temperature=0, ignore_eos=True,
                        cache_salt=f"compare-{next(salt)}").timings  # fmt: skip


with tempfile.TemporaryDirectory() as folder:
    loaded = []
    for i in range(MOST_EXPERTS):
        write_lora(Path(model), Path(folder) / f"random-{i}", i)
        loaded.append(engine.load_expert(Path(folder) / f"random-{i}"))
    prompts = {n: text_of(n) for n in (16, 512)}
    info = engine.info()
    hello = {"engine": f"libexpert {info['isa']} {info['weights']}", "most_experts": MOST_EXPERTS, "ids": prompts[512][1],
             "bytes_per_token": engine.stats()["bytes_per_token"], "expert_bytes": loaded[0].size_bytes}  # fmt: skip
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        experts = loaded[: command["experts"]]
        tokens = command["tokens"]
        if command["do"] == "prefill":
            if tokens not in prompts:
                prompts[tokens] = text_of(tokens)
            seconds = answer(prompts[tokens][0], experts, 1).prefill_ms / 1e3
        else:  # the first token comes with the prefill
            seconds = answer(prompts[16][0], experts, tokens + 1).decode_ms / 1e3
        print(json.dumps({"seconds": seconds}), flush=True)
