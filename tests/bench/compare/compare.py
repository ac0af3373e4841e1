#!/usr/bin/env python3
"""Ours beside llama.cpp, ONNX Runtime GenAI and PyTorch, alternately, on one model of random or trained weights.

    compare.py --work DIR --model HF_DIR [--pairs int8,int4,int4-all,bf16] [--experts 0,1,3,10] [--rounds 5]
               [--prompt 128,512] [--decode 64] [--contexts 4096,8192] [--kv bf16|int8] [--threads N] [--json OUT.json]
               [--svg OUT.svg]

DIR holds what prepare.sh made of the model. Every engine is one process that loads once and then measures one sample per
command (worker_*.py, worker_llama.mjs), so that a round is: ours, peer, ours, peer, … for each number of experts, then
bandwidth. Like is compared with like: the same threads, prompt tokens, number of decoded tokens and KV format (16 bits, or
INT8 against llama.cpp's Q8_0, flash attention on); INT4 with an INT8 head against Q4_0 with its Q8_0 head, all-INT4 against
ORT's int4 with its int4 head. --contexts decodes behind a prompt of that many tokens, without experts. Peak memory is read
after prompts and tokens of the base alone, less what the process held before its engine was loaded.

What memory gives moves from second to second on a shared machine, so it is read before and after each sample of decode too,
of both engines alike: "share_beside" is the median of what our samples made of the reads around them, "share_of_bandwidth"
the best sample beside the best of the rounds' reads.

llama.cpp is reached through Node. The cost of one hop to its thread pool and back is measured with an empty job in the
same run and taken off every call; both figures are in the JSON.

A sample during which other processes used more than --foreign of one core is thrown away and repeated; after --tries of
them nothing is reported (exit 3), because a figure from a busy machine is worth nothing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from picture import draw

HERE = Path(__file__).resolve().parent
PEER_CONTEXT = 1024  # positions of llama.cpp's context: it too is made before the first sample, and written again and again
PAIRS = {  # ours: [(peer, its variant)]
    "int8": [("llama.cpp", "q8_0")],
    "int4": [("llama.cpp", "q4_0")],
    "int4-all": [("ort", "int4")],
    "bf16": [("llama.cpp", "bf16"), ("torch", "bf16")],
}


class Busy(Exception):
    pass


def machine_seconds():
    """CPU seconds all processes have used since boot."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def process_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Worker:
    """One engine in a process of its own; a line of JSON in, a line of JSON out."""

    def __init__(self, name, command, environment):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **environment}, cwd=HERE)  # fmt: skip
        self.hello = self.read()

    def read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                answer = json.loads(line)
                if "error" in answer:
                    raise RuntimeError(f"{self.name}: {answer['error']}")
                return answer
        raise RuntimeError(f"{self.name} ended with {self.process.wait()}")

    def ask(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


class Sampler:
    def __init__(self, foreign, tries):
        self.foreign, self.tries, self.worst, self.repeated = foreign, tries, 0.0, 0

    def measure(self, run, pids):
        """run() while nothing else uses the machine."""
        for _ in range(self.tries):
            own = sum(map(process_seconds, pids))
            all_before, start = machine_seconds(), time.monotonic()
            result = run()
            elapsed = max(time.monotonic() - start, 0.05)
            share = (machine_seconds() - all_before - (sum(map(process_seconds, pids)) - own)) / elapsed
            if share <= self.foreign:
                self.worst = max(self.worst, share)
                return result
            self.repeated += 1
            time.sleep(1)
        raise Busy(f"other processes used {share:.2f} of a core during a sample, {self.tries} times in a row")


def bandwidth(args, repeat=9):
    run = subprocess.run([args.build / "tests/bench/kernel_bench", "--bandwidth", "1", "--threads", str(args.threads),
                          "--repeat", str(repeat)], capture_output=True, text=True, check=True)  # fmt: skip
    return json.loads(run.stdout)["bandwidth_gb_s"]


def between_reads(args, sample):
    """What sample() answers, and the mean of the bandwidths right before and after it."""
    before = bandwidth(args, repeat=3)
    answer = sample()
    return answer, (before + bandwidth(args, repeat=3)) / 2


def start_ours(args, weights):
    python_path = {"PYTHONPATH": str(args.build / "python"), "EXPERT_HOME": str(args.work / "home")}
    positions = PEER_CONTEXT + max(args.contexts, default=0)
    return Worker(f"ours {weights}", [sys.executable, "worker_ours.py", str(args.model), weights, str(args.threads), args.kv,
                                      str(positions), "whole" if args.whole_head else "screen"], python_path)  # fmt: skip


def start_peer(args, peer, variant):
    threads = str(args.threads)
    name = f"{peer} {variant}"
    if peer == "llama.cpp":
        command = ["node", "worker_llama.mjs", str(args.work / f"{variant}.gguf"), str(args.work / "lora"), threads, args.kv]
        return Worker(name, command, {"NODE_MODULES_AT": str(args.work)})
    if peer == "ort":
        return Worker(name, [args.peer_python, "worker_ort.py", str(args.work / "ort-int4"), threads], {})
    return Worker(name, [args.peer_python, "worker_torch.py", str(args.model), threads],
                  {"OMP_NUM_THREADS": threads})  # fmt: skip


def commands(args, experts):
    """(what, tokens, context before them)"""
    deep = [("decode", args.decode, n) for n in args.contexts] if experts == 0 else []
    return [("prefill", n, 0) for n in args.prompt] + [("decode", args.decode, 0)] + deep


def able(worker, experts, context):
    return experts <= worker.hello.get("most_experts", 0) and (context == 0 or worker.hello.get("contexts", False))


def base_memory(worker):
    """What the engine took at most, in bytes; None where a worker does not tell."""
    if not worker.hello.get("contexts", False):
        return None
    answer = worker.ask(do="memory")
    return answer["peak"] - answer["before"]


def measure_memory(args, worker, ids):
    for what, tokens, _ in commands(args, experts=1):
        worker.ask(do=what, tokens=tokens, context=0, experts=0, ids=ids)
    return base_memory(worker)


def take(args, sampler, worker, command):
    """Tokens per second of one sample; of decode also the bandwidth around it, else None."""

    def sample():  # the other engine too must be at rest
        return sampler.measure(lambda: worker.ask(**command), [worker.process.pid, os.getpid()])

    answer, read = between_reads(args, sample) if command["do"] == "decode" else (sample(), None)
    return command["tokens"] / answer["seconds"], read


def measure_pair(args, weights, peer, variant, sampler):
    ours, other = start_ours(args, weights), start_peer(args, peer, variant)
    try:
        workers = [ours, other]
        ids = ours.hello["ids"]
        rates = {}  # (worker index, experts, what, tokens, context) -> tokens per second
        memory = [measure_memory(args, worker, ids) for worker in workers]
        for round_ in range(args.rounds + 1):  # round 0 warms up
            for experts in args.experts:
                for what, tokens, context in commands(args, experts):
                    command = {"do": what, "tokens": tokens, "context": context, "experts": experts, "ids": ids}
                    for index, worker in enumerate(workers):
                        if not able(worker, experts, context):
                            continue
                        if round_ == 0:
                            reply = worker.ask(**command)
                            worker.hello.update({key: reply.get(key, 0) for key in ("expert_bytes", "bytes_per_token")})
                            continue
                        rate, read = take(args, sampler, worker, command)
                        rates.setdefault((index, experts, what, tokens, context), []).append(rate)
                        if read is not None:
                            rates.setdefault(("reads", index, experts, what, tokens, context), []).append(read)
            if round_ > 0:
                rates.setdefault("bandwidth", []).append(bandwidth(args))
        return {**report(args, weights, f"{peer} {variant}", workers, rates), "peak_memory_bytes": memory}
    finally:
        ours.close()
        other.close()


def summary(samples):
    middle = statistics.median(samples)
    return {"best": round(max(samples), 2), "median": round(middle, 2),
            "spread": round((max(samples) - min(samples)) / middle, 3), "samples": [round(x, 2) for x in samples]}  # fmt: skip


def share_beside(bytes_per_token, rates, reads):
    """The median over samples of bytes read per second beside the bandwidth (GB/s) around that sample."""
    return round(statistics.median(bytes_per_token * rate / 1e9 / read for rate, read in zip(rates, reads)), 3)


def report(args, weights, peer, workers, rates):
    band = summary(rates["bandwidth"])
    rows = []
    for experts in args.experts:
        for what, tokens, context in commands(args, experts):
            row = {"experts": experts, "what": what, "tokens": tokens, "context": context}
            for index, name in enumerate(("ours", "peer")):
                samples = rates.get((index, experts, what, tokens, context))
                row[name] = summary(samples) if samples else None
            if row["ours"] and row["peer"]:
                row["ratio_of_medians"] = round(row["ours"]["median"] / row["peer"]["median"], 2)
                row["ratio_of_bests"] = round(row["ours"]["best"] / row["peer"]["best"], 2)
            if what == "decode" and row["ours"] and context == 0:
                read = workers[0].hello["bytes_per_token"] + experts * workers[0].hello["expert_bytes"]
                row["bytes_per_token"] = read
                row["share_of_bandwidth"] = round(row["ours"]["best"] * read / 1e9 / band["best"], 3)
                key = (0, experts, what, tokens, context)
                row["bandwidth_beside"] = summary(rates[("reads", *key)])
                row["share_beside"] = share_beside(read, rates[key], rates[("reads", *key)])
            rows.append(row)
            print(f"{weights:9} {peer:15} {experts:2} experts {what:7} {tokens:4}{f' at {context}' if context else '':8}: ours "
                  f"{row['ours']['median'] if row['ours'] else '-':>8}  peer {row['peer']['median'] if row['peer'] else '-':>8}"
                  f"  {row.get('ratio_of_medians', '-')} x", file=sys.stderr)  # fmt: skip
    return {"ours": weights, "peer": peer, "bandwidth_gb_s": band, "rows": rows,
            "workers": [{k: v for k, v in w.hello.items() if k != "ids"} for w in workers]}  # fmt: skip


def machine():
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().split("\n")
                  if line.startswith("model name")), "?")  # fmt: skip
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "date": time.strftime("%Y-%m-%d")}


def numbers(text):
    return [int(x) for x in text.split(",")]


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--build", type=Path, default=HERE.parents[2] / "build/release")
    parser.add_argument("--peer-python", help="with torch, transformers, onnxruntime-genai; default: DIR/venv/bin/python")
    parser.add_argument("--pairs", default=",".join(PAIRS))
    parser.add_argument("--peers", default="llama.cpp,ort,torch")
    parser.add_argument("--experts", type=numbers, default=[0, 1, 3, 10])
    parser.add_argument("--prompt", type=numbers, default=[128, 512])
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--contexts", type=numbers, default=[])
    parser.add_argument("--kv", choices=["bf16", "int8"], default="bf16")
    parser.add_argument("--whole-head", action="store_true", help="ours without the screen of the head: every logit computed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--foreign", type=float, default=0.08)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    args = parser.parse_args()
    args.work, args.model, args.build = args.work.resolve(), args.model.resolve(), args.build.resolve()
    args.peer_python = args.peer_python or str(args.work / "venv/bin/python")
    unknown = set(args.pairs.split(",")) - set(PAIRS)
    if unknown:
        parser.error(f"--pairs knows {', '.join(PAIRS)}, not {', '.join(sorted(unknown))}")
    return args


def main():
    args = options()
    sampler = Sampler(args.foreign, args.tries)
    result = {"machine": machine(), "model": args.model.name, "threads": args.threads, "rounds": args.rounds, "pairs": []}
    try:
        sampler.measure(lambda: time.sleep(1), [os.getpid()])  # before anything is loaded
        for weights in args.pairs.split(","):
            for peer, variant in PAIRS[weights]:
                if peer in args.peers.split(","):
                    result["pairs"].append(measure_pair(args, weights, peer, variant, sampler))
    except Busy as busy:
        print(f"nothing is reported: {busy}", file=sys.stderr)
        return 3
    result["foreign_share_worst"] = round(sampler.worst, 3)
    result["samples_repeated"] = sampler.repeated
    text = json.dumps(result, indent=1)
    if args.json:
        args.json.write_text(text + "\n")
    else:
        print(text)
    if args.svg:
        args.svg.write_text(draw(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
