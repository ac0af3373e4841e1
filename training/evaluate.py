"""Measures the bundled model: every cell of the table, with its n.

    python evaluate.py run                     all cells, answered by libexpert
    python evaluate.py run --engine pytorch    the same by the training's own model
    python evaluate.py run --n 60 --only sql   a quick look
    python evaluate.py run --out ../models/results.json   what the cards and the README quote
    python evaluate.py cases --out cases.jsonl [--small]
    python evaluate.py judge --cases cases.jsonl --predictions preds.jsonl

`cases` writes one case per line: prompt, schema, body, the experts to activate
(weight 1 each), the messages as the engine builds them, and how to judge.
`judge` scores another engine's answers: lines of {"id": ..., "text": ...}.
"""
import argparse
import datetime
import json
import random
import time
from collections import defaultdict
from pathlib import Path

import torch

import judges
import lora
import tasks_base
import tasks_experts as te
from generate import answers
from tokenizer import Encoder
from words import Words

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"
SEED = 2024
# Another expert put in an expert's place.
OTHER = {"sql": "shell", "shell": "classify", "classify": "json", "json": "sql", "jsonfmt": "json"}


def case_sets(n, seed=SEED):
    """name -> cases.  Words, schemas, files and values of all are test-only."""
    sets = {"sql": te.sql_cases(n, seed), "shell": te.shell_cases(n, seed), "classify": te.classify_cases(n, seed),
            "json": te.json_cases(n, seed), "jsonfmt": te.jsonfmt_cases(n, seed)}
    sets["sql-held-out-shapes"] = te.sql_cases(max(20, n * 2 // 5), seed, "shapes")
    sets["sql-adjectives"] = te.sql_cases(max(20, n * 2 // 5), seed, "adjective")
    sets["sql-in-json"] = te.composed(sets["sql"], "query", seed)
    sets["shell-in-json"] = te.composed(sets["shell"], "command", seed)
    sets["readme"] = [te.README_CASE]
    return sets


def cells():
    """(case set, active experts)"""
    out = []
    for name, other in OTHER.items():
        out += [(name, ()), (name, (name,)), (name, (other,))]
        if name != "jsonfmt":
            out.append((name, (name, "jsonfmt")))
    for name in ("sql", "shell"):
        wrapped = f"{name}-in-json"
        out += [(wrapped, ()), (wrapped, (name,)), (wrapped, ("jsonfmt",)), (wrapped, (name, "jsonfmt"))]
    out += [("sql-held-out-shapes", ("sql",)), ("sql-adjectives", ("sql",)), ("readme", ("sql",)), ("readme", ())]
    return out


def score(cases, texts):
    right, by_shape = 0, defaultdict(lambda: [0, 0])
    wrong = []
    for c, text in zip(cases, texts):
        ok = judges.judge(c, text)
        right += ok
        by_shape[c.get("shape", "")][0] += ok
        by_shape[c.get("shape", "")][1] += 1
        if not ok:
            wrong.append((c, text))
    return right, dict(by_shape), wrong


def base_tasks(engine, n, seed=SEED):
    """Whole answers of the base on its own tasks, over words never trained on."""
    words, out = Words("test"), {}
    for name, task in tasks_base.TASKS.items():
        rng, docs, want = random.Random(f"{seed}/base/{name}"), [], []
        for _ in range(n):
            doc = task(rng, words)
            at = 2 if doc[0][0] == "system" else 1
            docs.append(doc[:at])
            want.append(doc[at][1])
        got = engine.continue_chats(docs)
        right = sum(g == w for g, w in zip(got, want))
        out[name] = {"right": right, "n": n, "percent": round(100 * right / n, 1)}
    return out


def dialect_for(active):
    """With several experts of equal weight the first by name leads (its manifest decides the dialect line)."""
    return bool(active) and sorted(active)[0] == "sql"


class PyTorch:
    """The training's own model and decoder."""

    def __init__(self, args):
        torch.set_num_threads(args.threads)
        base = Path(args.models) / "base"
        self.name = "pytorch " + torch.__version__
        self.encoder, self.model = Encoder(base), lora.load_base(base)
        self.experts = {n: lora.load_expert(f) for n, f in expert_folders(args).items()}

    def answers(self, cases, active):
        lora.activate(self.model, *(self.experts[a] for a in active))
        return answers(self.model, self.encoder, [te.messages(c, dialect_for(active)) for c in cases])

    def continue_chats(self, docs):
        lora.activate(self.model)
        return answers(self.model, self.encoder, docs)


class Libexpert:
    """The engine itself: prompt, schema and body as a program would give them."""

    def __init__(self, args):
        import expert
        self.engine = expert.Engine(base_model=str(Path(args.models) / "base"), weights=args.weights, threads=args.threads,
                                    context_size=512)
        self.name = f"libexpert {expert.__version__}, weights {args.weights}"
        self.experts = {n: self.engine.load_expert(str(f)) for n, f in expert_folders(args).items()}

    def answers(self, cases, active):
        experts = [self.experts[a] for a in active]
        return self._all([{k: c[k] for k in ("prompt", "schema", "body") if c.get(k)} | {"experts": experts} for c in cases])

    def continue_chats(self, docs):
        return self._all([{"messages": [{"role": r, "content": t} for r, t in doc], "experts": []} for doc in docs])

    def _all(self, requests):
        results = self.engine.infer_batch([r | {"max_tokens": 110, "temperature": 0} for r in requests])
        return [r.text for r in results]


def expert_folders(args):
    source = Path(args.experts or Path(args.models) / "experts")
    return {n: source / n for n in te.EXPERTS if (source / n / "adapter_config.json").exists()}


def run(args):
    engine = {"libexpert": Libexpert, "pytorch": PyTorch}[args.engine](args)
    sets, rows = case_sets(args.n), []
    for name, active in cells():
        unwanted = args.only and not any(name.startswith(o) for o in args.only.split(","))
        if unwanted or any(a not in engine.experts for a in active):
            continue
        start, cases = time.time(), sets[name]
        right, shapes, wrong = score(cases, engine.answers(cases, active))
        row = {"cases": name, "active": "+".join(active) or "base", "right": right, "n": len(cases),
               "percent": round(100 * right / len(cases), 1), "judge": cases[0]["judge"], "seed": SEED,
               "date": datetime.date.today().isoformat(), "by_shape": {k: f"{a}/{b}" for k, (a, b) in sorted(shapes.items())}}
        rows.append(row)
        print(f"{name:22s} {row['active']:20s} {right:4d}/{len(cases):<4d} {row['percent']:5.1f} %  {time.time() - start:5.1f} s", flush=True)
        for c, text in wrong[:args.show]:
            print("     ", c["prompt"].replace("\n", " / "), "|", (c.get("body") or c.get("schema") or "").replace("\n", " / "),
                  "\n        want", c["expected"], "\n        got ", text)
    own = base_tasks(engine, args.base_n) if args.base_n else {}
    for k, v in own.items():
        print("base on its own task", k, v)
    if args.out:
        result = {"date": datetime.date.today().isoformat(), "seed": SEED, "decoding": "greedy", "engine": engine.name,
                  "cells": rows, "base_tasks": own, "relative_change": relative_changes(args)}
        Path(args.out).write_text(json.dumps(result, indent=1) + "\n")


def relative_changes(args):
    model = lora.load_base(Path(args.models) / "base")
    return {n: round(lora.relative_change(model, lora.load_expert(f)), 3) for n, f in expert_folders(args).items()}


def write_cases(args):
    sets = case_sets(args.n)
    chosen = []
    for name, group in sets.items():
        take = group if not args.small else random.Random(SEED).sample(group, min(len(group), 5))
        chosen += [dict(c, set=name, messages=te.messages(c, dialect_for(c["experts"]))) for c in take]
    with open(args.out, "w") as f:
        for c in chosen:
            f.write(json.dumps(c) + "\n")
    print(len(chosen), "cases")


def judge_file(args):
    cases = [json.loads(line) for line in open(args.cases)]
    preds = {}
    for line in open(args.predictions):
        p = json.loads(line)
        preds[p["id"]] = p.get("text", p.get("output", ""))
    groups = defaultdict(list)
    for c in cases:
        groups[(c.get("set", ""), "+".join(c["experts"]))].append(c)
    report = {}
    for (name, active), group in groups.items():
        right, _, _ = score(group, [preds.get(c["id"], "") for c in group])
        report[name] = {"active": active, "right": right, "n": len(group), "percent": round(100 * right / len(group), 1)}
    print(json.dumps(report, indent=1))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="what", required=True)
    r = sub.add_parser("run")
    r.add_argument("--engine", choices=("libexpert", "pytorch"), default="libexpert")
    r.add_argument("--weights", default="auto", help="weight format of libexpert")
    r.add_argument("--threads", type=int, default=2)
    r.add_argument("--models", default=str(MODELS))
    r.add_argument("--experts", default="", help="another folder with experts")
    r.add_argument("--n", type=int, default=500)
    r.add_argument("--base-n", type=int, default=100)
    r.add_argument("--only", default="")
    r.add_argument("--show", type=int, default=0, help="print so many wrong answers per cell")
    r.add_argument("--out", default="")
    c = sub.add_parser("cases")
    c.add_argument("--out", required=True)
    c.add_argument("--n", type=int, default=500)
    c.add_argument("--small", action="store_true")
    j = sub.add_parser("judge")
    j.add_argument("--cases", required=True)
    j.add_argument("--predictions", required=True)
    a = p.parse_args()
    {"run": run, "cases": write_cases, "judge": judge_file}[a.what](a)


if __name__ == "__main__":
    main()
