#!/usr/bin/env python3
"""What decoding, serving and swapping cost on a CUDA device, beside PEFT with the same adapters in the same run, as JSON.

    bench.py --model DIR [--build build/cuda] [--device cuda] [--weights bf16 int4] [--kv bf16] [--bandwidth-gb-s N]
             [--experts 0 1 3 10] [--batches 1 8 64] [--contexts 128 2048 32768] [--no-peft]

`--bandwidth-gb-s`: of the device's memory, as its maker says; without it no share of it is given. Exit code 3 where there
is no GPU: nothing is measured on another device instead. It has never run on a GPU yet.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "bench" / "compare"))
DECODED = 32
RANK = 16


def require_gpu(program, device):
    probe = subprocess.run([program, "run", "x", "--experts", "", "--max-tokens", "1", "--device", device],
                           capture_output=True, text=True)  # fmt: skip
    if probe.returncode != 0:
        print(f"no benchmark: {probe.stderr.splitlines()[0] if probe.stderr else 'no answer'}", file=sys.stderr)
        sys.exit(3)


def decode_and_swap(program, options, weights):
    """expert-cli bench: decode and prefill per number of experts, swap p50 and p99."""
    run = subprocess.run([program, "bench", "--json", "--model", options.model, "--device", options.device, "--weights", weights,
                          "--kv", options.kv, "--experts", ",".join(map(str, options.experts)), "--prompt-tokens", "128,2048",
                          "--decode-tokens", "128"], capture_output=True, text=True, check=True)  # fmt: skip
    found = json.loads(run.stdout)
    found.pop("bandwidth_gb_s", None)  # of the host's memory, which has no part in this
    for row in found["rows"]:
        row.pop("share_of_bandwidth", None)
        if options.bandwidth_gb_s and row.get("bytes_per_token"):
            read = row["bytes_per_token"] * row["decode_tokens_per_second"]
            row["share_of_bandwidth"] = read / (options.bandwidth_gb_s * 1e9)
    return found


def text_of(engine, tokens):
    count = tokens
    while (found := len(engine.tokenize("a" + " a" * (count - 1)))) != tokens:
        count += tokens - found
    return "a" + " a" * (count - 1)


def decode_seconds(engine, prompts, sets):
    """Seconds per step of one batch, what the prompts cost taken off by a second run of one token."""
    def run(tokens):
        requests = [{"prompt": prompt, "raw": True, "experts": experts, "max_tokens": tokens, "temperature": 0,
                     "ignore_eos": True, "cache_salt": "gpu"} for prompt, experts in zip(prompts, sets)]  # fmt: skip
        started = time.perf_counter()
        engine.infer_batch(requests)
        return time.perf_counter() - started

    run(1)  # the prompts are in the prefix cache now
    return (run(1 + DECODED) - run(1)) / DECODED


def serving(options, weights, folders):
    """Batches of requests with a set of their own each, and contexts of one request."""
    import expert

    with expert.Engine(options.model, device=options.device, weights=weights, kv=options.kv,
                       max_batch=max(options.batches)) as engine:  # fmt: skip
        loaded = [engine.load_expert(folder) for folder in folders]
        batches = []
        for size in options.batches:
            sets = [[loaded[i % len(loaded)]] for i in range(size)]
            seconds = [decode_seconds(engine, [text_of(engine, 512)] * size, sets) for _ in range(3)]
            batches.append({"requests": size, "step_ms": statistics.median(seconds) * 1e3,
                            "tokens_per_second": size / statistics.median(seconds)})  # fmt: skip
        contexts = []
        for tokens in options.contexts:
            if tokens + DECODED + 1 > engine.info()["context_size"]:
                contexts.append({"tokens": tokens, "skipped": "longer than the model's context"})
                continue
            seconds = [decode_seconds(engine, [text_of(engine, tokens)], [[]]) for _ in range(3)]
            contexts.append({"tokens": tokens, "tokens_per_second": 1 / statistics.median(seconds)})
    return {"batches": batches, "contexts": contexts}


def peft(options, folders):
    """PEFT in BF16 on the same device: tokens per second of one request, base and one adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    place = "cuda" + options.device.removeprefix("cuda")
    base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16).to(place).eval()

    @torch.inference_mode()
    def rate(model):
        out = model(input_ids=torch.full((1, 128), 5, device=place), use_cache=True, logits_to_keep=1)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(DECODED):
            token = out.logits[:, -1:].argmax(-1)
            out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        torch.cuda.synchronize()
        return DECODED / (time.perf_counter() - started)

    found = {"torch": torch.__version__, "base": statistics.median(rate(base) for _ in range(3))}
    bent = PeftModel.from_pretrained(base, folders[0])
    found["one_adapter"] = statistics.median(rate(bent) for _ in range(3))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "base"))
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "cuda")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--weights", nargs="+", default=["bf16", "int4"])
    parser.add_argument("--kv", default="bf16")
    parser.add_argument("--bandwidth-gb-s", type=float)
    parser.add_argument("--experts", nargs="+", type=int, default=[0, 1, 3, 10])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 16, 32, 64])
    parser.add_argument("--contexts", nargs="+", type=int, default=[128, 2048, 8192, 32768])
    parser.add_argument("--no-peft", action="store_true")
    options = parser.parse_args()
    program = options.build / "cli" / "expert-cli"
    if not program.exists():
        parser.error(f"{program} is not built: cmake --preset cuda && cmake --build build/cuda")
    os.environ.setdefault("EXPERT_CUDA_PLUGIN", str(options.build / "capi" / "libexpert_cuda.so"))
    require_gpu(program, options.device)

    from random_lora import write_lora

    card = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.strip()
    result = {"date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC", "command": sys.argv, "cards": card}
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / f"random-{i}" for i in range(max(options.batches))]
        for seed, folder in enumerate(folders):
            write_lora(options.model, folder, seed, RANK)
        for weights in options.weights:
            result[weights] = {"bench": decode_and_swap(program, options, weights), **serving(options, weights, folders)}
        if not options.no_peft:
            result["peft"] = peft(options, folders)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
