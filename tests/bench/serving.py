#!/usr/bin/env python3
"""What serving costs at true size, beside its floor, as JSON: long contexts, a shared prefix, a thousand loaded experts.

    serving.py MODEL --kernel-bench BUILD/tests/bench/kernel_bench [--parts contexts prefix many] [--weights bf16 int8 int4]
               [--kv bf16 int8] [--threads N] [--experts 1000]

Run it alone on the machine. Every ratio stands beside its absolute value.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "compare"))
import expert  # noqa: E402
from random_lora import write_lora  # noqa: E402

DECODED = 32
PREFIX_TOKENS = 1000
ACTIVE = 16


def text_of(engine, tokens, word=" a"):
    count = tokens
    while True:
        text = "a" + word * (count - 1)
        found = len(engine.tokenize(text))
        if found == tokens:
            return text
        count += tokens - found


def request(prompt, max_tokens, salt, **more):
    return {"prompt": prompt, "raw": True, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "cache_salt": salt,
            **more}  # fmt: skip


def bandwidth(kernel_bench):
    output = subprocess.run([kernel_bench, "--bandwidth", "1", "--repeat", "3"], check=True, capture_output=True, text=True)
    return json.loads(output.stdout)["bandwidth_gb_s"]


def kv_bytes_per_token(config, kv):
    """INT8 stores one F32 scale per head and token beside the values."""
    per_head = config["head_dim"] * 2 if kv == "bf16" else config["head_dim"] + 4
    return 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * per_head


def contexts(arguments, config):
    """Decode at long contexts: the time of a token over (weights + keys and values read) / bandwidth."""
    rows = []
    for weights in arguments.weights:
        for kv in arguments.kv:
            with expert.Engine(arguments.model, weights=weights, kv=kv, threads=arguments.threads, context_size=8256) as engine:
                read = bandwidth(arguments.kernel_bench)
                for tokens in (4096, 8192):
                    result = engine.infer(**request(text_of(engine, tokens), DECODED + 1, "the longer one goes on from the shorter"))
                    read = max(read, bandwidth(arguments.kernel_bench))
                    size = engine.stats()["bytes_per_token"] + kv_bytes_per_token(config, kv) * (tokens + DECODED / 2)
                    milliseconds = result.timings.decode_ms / DECODED
                    floor = size / read / 1e6
                    rows.append({"weights": weights, "kv": kv, "context": tokens, "token_ms": round(milliseconds, 2),
                                 "read_gb": round(size / 1e9, 3), "bandwidth_gb_s": read, "floor_ms": round(floor, 2),
                                 "over_floor": round(milliseconds / floor, 3),
                                 "prefill_tokens_per_second": round(
                                     (tokens - result.usage.cached_tokens) / result.timings.prefill_ms * 1e3, 1)})  # fmt: skip
                    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def prefix(arguments, config):
    """Time to the first token of a second request that shares 1,000 tokens with the first."""
    rows = []
    for weights in arguments.weights:
        with expert.Engine(arguments.model, weights=weights, threads=arguments.threads) as engine, tempfile.TemporaryDirectory() as folder:
            write_lora(Path(arguments.model), Path(folder) / "one", 1)
            one = engine.load_expert(Path(folder) / "one")
            shared = text_of(engine, PREFIX_TOKENS)
            for experts in ([], [one]):
                first = engine.infer(**request(shared + " first", 4, "same", experts=experts))
                second = engine.infer(**request(shared + " second", 4, "same", experts=experts))
                rows.append({"weights": weights, "experts": len(experts), "first_ms": round(first.timings.first_token_ms, 1),
                             "second_ms": round(second.timings.first_token_ms, 1), "cached_tokens": second.usage.cached_tokens,
                             "ratio": round(second.timings.first_token_ms / first.timings.first_token_ms, 4)})  # fmt: skip
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def many(arguments, config):
    """Sixteen requests with an expert each (r = 4), with 5 and then with a thousand experts loaded; alternating engines
    would need their memory twice, so the small engine is measured before and after the large one."""

    def rate(count, paths):
        options = {"weights": "bf16", "threads": arguments.threads, "expert_cache_bytes": 8 << 30, "max_batch": ACTIVE}
        with expert.Engine(arguments.model, **options) as engine:
            loaded = [engine.load_expert(path) for path in paths[:count]]
            rates = []
            for turn in range(4):
                chosen = [loaded[(turn * ACTIVE + i) % count] for i in range(ACTIVE)]
                results = engine.infer_batch(
                    [request(text_of(engine, 16), 48, f"{turn}-{i}", experts=[chosen[i]]) for i in range(ACTIVE)])
                rates.append(ACTIVE * 47 / max(result.timings.decode_ms for result in results) * 1e3)
            return {"loaded": count, "tokens_per_second": [round(rate, 1) for rate in rates], "best": round(max(rates), 1),
                    "expert_bytes": sum(one.size_bytes for one in loaded)}  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}" for i in range(arguments.experts)]
        for i, path in enumerate(paths):
            write_lora(Path(arguments.model), path, i, rank=4)
        rows = [rate(5, paths), rate(arguments.experts, paths), rate(5, paths)]
    few = max(rows[0]["best"], rows[2]["best"])
    return {"rows": rows, "loss": round(1 - rows[1]["best"] / few, 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--kernel-bench", required=True)
    parser.add_argument("--parts", nargs="+", default=["contexts", "prefix", "many"])
    parser.add_argument("--weights", nargs="+", default=["bf16", "int8", "int4"])
    parser.add_argument("--kv", nargs="+", default=["bf16", "int8"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--experts", type=int, default=1000)
    arguments = parser.parse_args()
    config = json.loads((Path(arguments.model) / "config.json").read_text())
    parts = {"contexts": contexts, "prefix": prefix, "many": many}
    print(json.dumps({part: parts[part](arguments, config) for part in arguments.parts}, indent=1))


if __name__ == "__main__":
    main()
