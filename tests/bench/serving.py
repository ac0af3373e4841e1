#!/usr/bin/env python3
"""What serving costs at true size, beside its floor, as JSON: long contexts, a shared prefix, a thousand loaded experts.

    serving.py MODEL --kernel-bench BUILD/tests/bench/kernel_bench [--parts contexts prefix many wide] [--weights bf16 int8 int4]
               [--kv bf16 int8] [--threads N] [--repeats 5] [--experts 1000]

Run it alone on the machine. Every ratio stands beside its absolute value.
"""

import argparse
import json
import statistics
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
TURNS = 12


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
    per_head = {"f32": config["head_dim"] * 4, "bf16": config["head_dim"] * 2, "int8": config["head_dim"] + 4}[kv]
    return 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * per_head


def contexts(arguments, config):
    """Decode at long contexts: the time of a token over (weights + keys and values read) / bandwidth. The machine's speed
    moves, so each time stands beside the better of the read tests right before and right after it; medians of --repeats."""
    rows = []
    for weights in arguments.weights:
        for kv in arguments.kv:
            with expert.Engine(arguments.model, weights=weights, kv=kv, threads=arguments.threads, context_size=8256) as engine:
                for tokens in (4096, 8192):
                    rows.append({"weights": weights, "kv": kv, "context": tokens, **context(arguments, config, engine, kv, tokens)})
                    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def weight_bytes_per_token(engine):
    """Of greedy requests, once there were some: those may read less of the head."""
    stats = engine.stats()
    return stats["head_screen"]["bytes_per_token"] if stats["head_screen"] else stats["bytes_per_token"]


def context(arguments, config, engine, kv, tokens):
    asked = request(text_of(engine, tokens), DECODED + 1, "the longer one goes on from the shorter")
    first = engine.infer(**asked)  # the later ones find its prompt in the cache
    reads, times = [bandwidth(arguments.kernel_bench)], []
    for _ in range(arguments.repeats):
        times.append(engine.infer(**asked).timings.decode_ms / DECODED)
        reads.append(bandwidth(arguments.kernel_bench))
    size = weight_bytes_per_token(engine) + kv_bytes_per_token(config, kv) * (tokens + DECODED / 2)
    ratios = [time / (size / max(reads[i : i + 2]) / 1e6) for i, time in enumerate(times)]
    return {"token_ms": round(statistics.median(times), 2), "read_gb": round(size / 1e9, 3),
            "bandwidth_gb_s": reads, "over_floor": round(statistics.median(ratios), 3),
            "all_token_ms": [round(time, 2) for time in times], "all_over_floor": [round(ratio, 3) for ratio in ratios],
            "prefill_tokens_per_second": round((tokens - first.usage.cached_tokens) / first.timings.prefill_ms * 1e3, 1)}  # fmt: skip


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
    """Sixteen requests with an expert each (r = 4), 5 experts loaded and a thousand: two engines that take turns. They map
    the same cached weights, so the base is in memory once (load it once before, for the cache to be there)."""
    options = {"weights": "bf16", "threads": arguments.threads, "expert_cache_bytes": 8 << 30, "max_batch": ACTIVE}

    def rate(engine, loaded, turn):
        chosen = [loaded[(turn * ACTIVE + i) % len(loaded)] for i in range(ACTIVE)]
        results = engine.infer_batch(
            [request(text_of(engine, 16), 48, f"{turn}-{i}", experts=[chosen[i]]) for i in range(ACTIVE)])
        return ACTIVE * 47 / max(result.timings.decode_ms for result in results) * 1e3

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}" for i in range(arguments.experts)]
        for i, path in enumerate(paths):
            write_lora(Path(arguments.model), path, i, rank=4)
        with expert.Engine(arguments.model, **options) as few, expert.Engine(arguments.model, **options) as lots:
            sides = [(few, [few.load_expert(path) for path in paths[:5]]),
                     (lots, [lots.load_expert(path) for path in paths])]  # fmt: skip
            rows = [{"loaded": len(loaded), "expert_bytes": sum(one.size_bytes for one in loaded), "tokens_per_second": []}
                    for _, loaded in sides]  # fmt: skip
            for turn in range(TURNS):
                for (engine, loaded), row in zip(sides, rows, strict=True):
                    row["tokens_per_second"].append(round(rate(engine, loaded, turn), 1))
    pairs = zip(rows[0]["tokens_per_second"], rows[1]["tokens_per_second"], strict=True)
    return {"rows": rows, "loss": round(statistics.median(1 - with_lots / with_few for with_few, with_lots in pairs), 4)}


def wide(arguments, config):
    """Decode of 64 requests at 512 tokens of context, on the base and with an expert each (r = 16). Prompts are computed
    before and found in the cache, so that the steps measured are decode alone."""
    count, tokens, decoded = 64, 512, 24
    options = {"weights": "bf16", "threads": arguments.threads, "max_batch": count, "prefix_cache_bytes": 8 << 30}
    rows = []
    with tempfile.TemporaryDirectory() as folder, expert.Engine(arguments.model, **options) as engine:
        text = text_of(engine, tokens)
        for i in range(count):
            write_lora(Path(arguments.model), Path(folder) / f"{i}", i, rank=16)
        loaded = [engine.load_expert(Path(folder) / f"{i}") for i in range(count)]
        for name, sets in (("base", [[]] * count), ("experts", [[one] for one in loaded])):
            def batch(max_tokens):
                return engine.infer_batch(
                    [request(text, max_tokens, f"{i}", experts=used) for i, used in enumerate(sets)])  # fmt: skip

            batch(1)
            rates = []
            for _ in range(2):
                results = batch(decoded + 1)
                rates.append(count * decoded * 1e3 / statistics.median(result.timings.decode_ms for result in results))
            rows.append({"sets": name, "tokens_per_second": [round(rate, 1) for rate in rates],
                         "cached_tokens": min(result.usage.cached_tokens for result in results)})  # fmt: skip
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return {"rows": rows, "share": round(max(rows[1]["tokens_per_second"]) / max(rows[0]["tokens_per_second"]), 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--kernel-bench", required=True)
    parser.add_argument("--parts", nargs="+", default=["contexts", "prefix", "many", "wide"])
    parser.add_argument("--weights", nargs="+", default=["bf16", "int8", "int4"])
    parser.add_argument("--kv", nargs="+", default=["bf16", "int8"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=5, help="of a row of contexts")
    parser.add_argument("--experts", type=int, default=1000)
    arguments = parser.parse_args()
    config = json.loads((Path(arguments.model) / "config.json").read_text())
    parts = {"contexts": contexts, "prefix": prefix, "many": many, "wide": wide}
    print(json.dumps({part: parts[part](arguments, config) for part in arguments.parts}, indent=1))


if __name__ == "__main__":
    main()
