"""Trains the base from scratch, or further.  Resumable: run the same command again.

    python train_base.py --minutes 55 --procs 2
    python train_base.py --minutes 70 --procs 2 --further ../models/base --out out/base-2
    python train_base.py --smoke

`--further` starts from an exported base, with a fresh optimiser, a rate that rises again to a part of the first one,
and the mixture of `tasks_base.LATER`, which leans on what the first stage learns last.
"""
import argparse
import copy
import datetime
import json
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist

import lora
import startup
import tasks_base
from data import Stream, pool
from model import Config, Qwen3
from optim import Muon, reduce_gradients
from tokenizer import Encoder
from words import Words

HERE = Path(__file__).resolve().parent
WARMUP = 40
WIRED = ("model.layers.0.self_attn", "model.layers.1.self_attn")


@dataclass
class Stage:
    mixture: list
    peak: float           # share of the learning rates
    flat: float           # progress at which the rate begins to fall
    wired_rate: float     # learning rate factor of the layers that startup.wire wrote
    budget: tuple         # tokens per process and step, before and after 40 % of the way

    def budget_at(self, progress):
        return self.budget[progress >= 0.4]

    def rate_at(self, step, progress):
        warm = min(1.0, (step + 1) / WARMUP)
        return self.peak * warm * (1.0 if progress < self.flat else max(0.02, (1 - progress) / (1 - self.flat)))


# Muon's steps have full rank whatever the gradient: at full rate they wash out the wired circuit while gradients are
# still noise. Small batches first, so copying appears early.
SCRATCH = Stage(tasks_base.MIXTURE, 1.0, 0.45, 0.05, (1536, 2048))
FURTHER = Stage(tasks_base.LATER, 0.7, 0.35, 0.2, (2560, 2560))


def held_out(encoder, tasks, n, seed=99):
    """A fixed set of documents over words never trained on, per task."""
    words = Words("test")
    return {name: pool(lambda r, t=t: t(r, words), encoder, f"{seed}/{name}", n, 1) for name, t in tasks.items()}


@torch.no_grad()
def measure(model, batches):
    """{task: (loss, answer-token accuracy)} on held-out documents."""
    out, all_loss, all_right, all_n = {}, 0.0, 0.0, 0.0
    for name, group in batches.items():
        sums = [torch.stack([torch.as_tensor(v) for v in model.loss(*b)]) for b in group]
        loss, n, right = torch.stack(sums).sum(0).tolist()
        out[name] = (round(loss / n, 4), round(right / n, 4))
        all_loss, all_right, all_n = all_loss + loss, all_right + right, all_n + n
    out["all"] = (round(all_loss / all_n, 4), round(all_right / all_n, 4))
    return out


def save(path, model, muon, adam, streams, step, tokens, elapsed, earlier):
    temporary = path.with_suffix(".tmp")
    torch.save({"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict(), "stream": streams,
                "step": step, "tokens": tokens, "elapsed": elapsed, "earlier": earlier, "config": vars(model.cfg)}, temporary)
    temporary.replace(path)


def worker(rank, args):
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    out = Path(args.out)
    if args.procs > 1:
        dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous-{args.token}", rank=rank,
                                world_size=args.procs, timeout=datetime.timedelta(hours=2))
    encoder, words = Encoder(Path(args.tokenizer)), Words("train")
    stage = FURTHER if args.further else SCRATCH
    if args.batch:
        stage = replace(stage, budget=(args.batch, args.batch))
    if args.further:
        model, earlier = lora.load_base(Path(args.further)), lora.stages_of(Path(args.further))
        model.requires_grad_(True)
    else:
        model, earlier = Qwen3(Config()), []
        startup.wire(model, args.seed, copy_gain=6.0)
    params = list(model.parameters())
    # With BF16 products the model that runs is a rounded copy; the optimisers keep and change the F32 weights.
    running = copy.deepcopy(model).bfloat16() if args.bf16 else model
    run_params = list(running.parameters())
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    scales = [stage.wired_rate if n.startswith(WIRED) else 1.0 for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    muon = Muon(matrices, scales, rank=rank, world=args.procs,
                dtype=torch.bfloat16 if args.bf16 else torch.float32)
    adam = torch.optim.AdamW(others, lr=args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
    step, tokens, before, state = 0, 0, 0.0, (0, 0)
    path = out / "checkpoint.pt"
    if path.exists():
        c = torch.load(path, weights_only=False)
        model.load_state_dict(c["model"])
        muon.load_state_dict(c["muon"])
        adam.load_state_dict(c["adam"])
        step, tokens, before, state, earlier = c["step"], c["tokens"], c["elapsed"], c["stream"], c["earlier"]
        mine = out / f"stream-{rank}.json"
        if mine.exists():
            state = tuple(json.loads(mine.read_text())["state"])
    seed = f"{args.seed}/{rank}" if not earlier else f"{args.seed}/stage {len(earlier) + 1}/{rank}"
    stream = Stream(lambda r: tasks_base.document(r, words, stage.mixture), encoder, seed, stage.budget_at, state)
    checks = held_out(encoder, tasks_base.TASKS, 2500)
    if not args.no_compile:
        running.compile()
    limit, start, shown, sums = args.minutes * 60, time.time(), time.time(), [0.0] * 5
    progress = tokens / args.tokens if args.tokens else before / limit
    while progress < 1 and (not args.steps or step < args.steps):
        ids, targets, weights = stream.next(progress)
        if running is not model:
            with torch.no_grad():
                torch._foreach_copy_(run_params, params)
        loss, n, right = running.loss(ids, targets, weights)
        for p in run_params:
            p.grad = None
        loss.backward()
        for p, r in zip(params, run_params):
            p.grad = r.grad.float()
        mine = [n.item(), loss.item(), right.item(), float(ids.numel()), before + time.time() - start]
        total = reduce_gradients(params, mine, args.procs)
        # The clock is averaged, so that every process follows the same schedule.
        elapsed = total[4] / args.procs
        rate = stage.rate_at(step, progress)
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        adam.param_groups[0]["lr"] = args.adam_lr * rate
        adam.step()
        muon.step(args.muon_lr * rate)
        step, tokens = step + 1, tokens + int(total[3])
        progress = tokens / args.tokens if args.tokens else elapsed / limit
        sums = [a + b for a, b in zip(sums, total)]
        if step % 10 == 0 and rank == 0:
            now = time.time()
            line = {"step": step, "tokens": tokens, "minutes": round(elapsed / 60, 2),
                    "loss": round(sums[1] / sums[0], 4), "accuracy": round(sums[2] / sums[0], 4),
                    "tokens_per_second": round(sums[3] / (now - shown)), "rate": round(rate, 3)}
            log(out, line)
            shown, sums = now, [0.0] * 5
        if step % args.check_every == 0 or progress >= 1 or step == args.steps:
            if rank == 0:
                log(out, {"step": step, "tokens": tokens, "held_out": measure(running, checks)})
                save(path, model, muon, adam, stream.state(), step, tokens, elapsed, earlier)
            # Every process keeps its own place in its own stream of documents.
            (out / f"stream-{rank}.json").write_text(json.dumps({"step": step, "state": stream.state()}))
    if args.procs > 1:
        dist.barrier()


def log(out, line):
    print(json.dumps(line), flush=True)
    with open(out / "log.jsonl", "a") as f:
        f.write(json.dumps(line) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", default=str(HERE / "out/base"))
    p.add_argument("--tokenizer", default=str(HERE.parent / "models/base"))
    p.add_argument("--minutes", type=float, default=55)
    p.add_argument("--tokens", type=float, default=0, help="end after so many tokens instead of by the clock")
    p.add_argument("--procs", type=int, default=2)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--further", default="", metavar="DIR", help="train an exported base further")
    p.add_argument("--muon-lr", type=float, default=4e-3)
    p.add_argument("--adam-lr", type=float, default=2e-3)
    p.add_argument("--batch", type=int, default=0, help="tokens per process and step (0: the stage's own)")
    p.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=torch.cpu._is_amx_tile_supported(),
                   help="products in BF16, weights and optimiser in F32; by default where the CPU has AMX")
    p.add_argument("--check-every", type=int, default=50)
    p.add_argument("--steps", type=int, default=0, help="stop after so many steps (0: by the clock)")
    p.add_argument("--no-compile", action="store_true")
    p.add_argument("--smoke", action="store_true", help="a few steps, to see that everything runs")
    args = p.parse_args()
    if args.smoke:
        args.minutes, args.steps, args.check_every, args.no_compile, args.procs = 30, args.steps or 6, 3, True, 1
    Path(args.out).mkdir(parents=True, exist_ok=True)
    args.token = f"{time.time():.0f}-{random.randrange(1 << 30)}"
    if args.procs == 1:
        worker(0, args)
    else:
        torch.multiprocessing.spawn(worker, (args,), nprocs=args.procs)


if __name__ == "__main__":
    main()
