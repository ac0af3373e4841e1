"""Trains one LoRA expert on the frozen base.  Resumable.

    python train_expert.py sql --minutes 8
    python train_expert.py jsonfmt --minutes 10 --company sql shell json classify
    python train_expert.py sql --smoke

`--company` is for an expert that will be left on beside others: in part of the steps one of them, finished and frozen,
is active too, on its own plain requests (which must come out as without us) and on the base's requests in our format.
The cell that composition is judged by, their content in our format, is in no training data.
"""
import argparse
import json
import time
from pathlib import Path

import torch

import lora
import tasks_experts
from data import Stream, pool
from tokenizer import Encoder
from words import Words

HERE = Path(__file__).resolve().parent
WARMUP = 30


def held_out(name, encoder, n=4000):
    words = Words("test")
    return pool(lambda r: tasks_experts.EXPERTS[name](r, words), encoder, f"check/{name}", n, 1)


@torch.no_grad()
def measure(model, batches):
    sums = [torch.stack([torch.as_tensor(v) for v in model.loss(*b)]) for b in batches]
    loss, n, right = torch.stack(sums).sum(0).tolist()
    return round(loss / n, 4), round(right / n, 4)


class Company:
    """One slot beside the expert in training, which holds a finished expert, or nothing (B = 0)."""

    def __init__(self, model, folders):
        self.experts = {f.name: lora.load_expert(f) for f in folders}
        self.names = sorted(self.experts)
        rank = max(a.shape[0] for e in self.experts.values() for a, _, _ in e.values())
        self.slot = {n: (torch.zeros(rank, m.in_features), torch.zeros(m.out_features, rank), 1.0)
                     for n, m in lora.targets(model).items()}

    def invite(self, name):
        for module, (a, b, _) in self.slot.items():
            a.zero_()
            b.zero_()
            if name:
                own_a, own_b, scale = self.experts[name][module]
                a[:own_a.shape[0]] = own_a
                b[:, :own_b.shape[1]] = own_b * scale

    def guest_of(self, step):
        """Nobody in every other step, else each in turn."""
        return self.names[step // 2 % len(self.names)] if self.names and step % 2 else None


def train(args):
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    base = Path(args.base)
    out = Path(args.out) / args.name
    out.mkdir(parents=True, exist_ok=True)
    encoder, model = Encoder(base), lora.load_base(base)
    rank = args.rank or tasks_experts.RANK[args.name]
    expert = lora.new_expert(model, rank, 2 * rank, args.seed)
    company = Company(model, [Path(args.out) / n for n in args.company]) if args.company else None
    lora.activate(model, expert, *([company.slot] if company else []))
    if args.bf16:
        model.bfloat16()   # the expert itself stays F32
    params = [t for a, b, _ in expert.values() for t in (a, b)]
    adam = torch.optim.AdamW(params, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0)
    step, tokens, before, states, earlier = 0, 0, 0.0, {}, []
    path = out / "checkpoint.pt"
    if path.exists():
        c = torch.load(path, weights_only=False)
        for p, saved in zip(params, c["params"]):
            p.data.copy_(saved)
        adam.load_state_dict(c["adam"])
        step, tokens, before, states, earlier = c["step"], c["tokens"], c["elapsed"], c["streams"], c["earlier"]
    elif args.warm:
        earlier = lora.stages_of(Path(args.warm))
        for name, (a, b, _) in lora.load_expert(Path(args.warm)).items():
            expert[name][0].data.copy_(a)
            expert[name][1].data.copy_(b)
    makers = {None: tasks_experts.document(args.name)}
    makers |= {n: tasks_experts.in_company(n) for n in (company.names if company else [])}
    streams = {n: Stream(make, encoder, f"{args.seed}/{args.name}" + (f"/{n}" if n else ""), lambda p: args.batch,
                         states.get(n, (0, 0))) for n, make in makers.items()}
    checks = held_out(args.name, encoder)
    if not args.no_compile:
        model.compile()
    limit, start, shown = args.minutes * 60, time.time(), time.time()
    progress, sums = (tokens / args.tokens if args.tokens else before / limit), [0.0] * 4
    while progress < 1 and (not args.steps or step < args.steps):
        guest = company.guest_of(step) if company else None
        if company:
            company.invite(guest)
        ids, targets, weights = streams[guest].next(progress)
        loss, n, right = model.loss(ids, targets, weights)
        adam.zero_grad(set_to_none=True)
        (loss / n.clamp(min=1)).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        rate = min(1.0, (step + 1) / WARMUP) * max(0.0, 1 - progress)
        adam.param_groups[0]["lr"] = args.lr * rate
        adam.step()
        step, tokens = step + 1, tokens + ids.numel()
        sums = [a + b for a, b in zip(sums, (n.item(), loss.item(), right.item(), ids.numel()))]
        elapsed = before + time.time() - start
        progress = tokens / args.tokens if args.tokens else elapsed / limit
        if step % 50 == 0 or progress >= 1 or step == args.steps:
            now = time.time()
            line = {"expert": args.name, "step": step, "tokens": tokens, "minutes": round(elapsed / 60, 2),
                    "loss": round(sums[1] / sums[0], 4), "accuracy": round(sums[2] / sums[0], 4),
                    "tokens_per_second": round(sums[3] / (now - shown))}
            shown, sums = now, [0.0] * 4
            if step % 200 == 0 or progress >= 1 or step == args.steps:
                if company:
                    company.invite(None)
                line["held_out"] = measure(model, checks)
                line["change"] = round(lora.relative_change(model, expert), 4)
                torch.save({"params": [p.data for p in params], "adam": adam.state_dict(), "step": step, "tokens": tokens,
                            "elapsed": elapsed, "earlier": earlier, "company": company.names if company else [], "streams": {n: s.state() for n, s in streams.items()}}, path)
                lora.save_expert(expert, out, rank, 2 * rank)
            print(json.dumps(line), flush=True)
            with open(out / "log.jsonl", "a") as f:
                f.write(json.dumps(line) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("name", choices=sorted(tasks_experts.EXPERTS))
    p.add_argument("--base", default=str(HERE.parent / "models/base"))
    p.add_argument("--out", default=str(HERE / "out/experts"))
    p.add_argument("--minutes", type=float, default=8)
    p.add_argument("--tokens", type=float, default=0, help="end after so many tokens instead of by the clock")
    p.add_argument("--rank", type=int, default=0, help="0: the expert's own")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--batch", type=int, default=1536, help="tokens per step")
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--steps", type=int, default=0)
    p.add_argument("--warm", default="", metavar="DIR", help="start from this expert, of an earlier state of the base")
    p.add_argument("--company", nargs="*", default=[], metavar="EXPERT", help="finished experts (in --out) to get along with")
    p.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=torch.cpu._is_amx_tile_supported(),
                   help="products in BF16; by default where the CPU has AMX")
    p.add_argument("--no-compile", action="store_true")
    p.add_argument("--smoke", action="store_true")
    args = p.parse_args()
    if args.smoke:
        args.minutes, args.steps, args.no_compile = 30, args.steps or 6, True
    if args.company and args.name != "jsonfmt":
        p.error("--company is for jsonfmt: only of a format it is known what to say beside another expert")
    train(args)


if __name__ == "__main__":
    main()
