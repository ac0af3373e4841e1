"""PyTorch in BF16, the base alone, behind compare.py.   worker_torch.py MODEL THREADS"""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM

directory, threads = sys.argv[1:3]
torch.set_num_threads(int(threads))
base = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()

@torch.inference_mode()
def prefill(model, ids):
    start = time.perf_counter()
    model(input_ids=torch.tensor([ids]), use_cache=True, logits_to_keep=1)
    return time.perf_counter() - start


@torch.inference_mode()
def decode(model, ids, tokens):
    out = model(input_ids=torch.tensor([ids[:16]]), use_cache=True, logits_to_keep=1)
    start = time.perf_counter()
    for _ in range(tokens):
        token = out.logits[:, -1:].argmax(-1)
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
    return time.perf_counter() - start


print(json.dumps({"engine": f"torch {torch.__version__}", "most_experts": 0}), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    ids = command["ids"]
    if command["do"] == "prefill":
        seconds = prefill(base, ids[: command["tokens"]])
    else:
        seconds = decode(base, ids, command["tokens"])
    print(json.dumps({"seconds": seconds}), flush=True)
