"""The whole recipe in about a minute, in a scratch folder: a few steps of everything, answered by libexpert.

    python smoke.py            models/ is read for its tokenizer and never written

What it shows is that the stages still fit together: training, resuming, export, binding, scoring.  A model of a few
steps knows nothing, so no score is looked at.
"""
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXPERT = "sql"


def stage(*command):
    print("--", *command, flush=True)
    subprocess.run([sys.executable, "-B", *map(str, command)], cwd=HERE, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def last_step(folder):
    return max(line["step"] for line in log_of(folder))


def main():
    with tempfile.TemporaryDirectory(prefix="expert-smoke-") as name:
        out = Path(name)
        models, base, experts = out / "models", out / "base", out / "experts"
        stage("train_base.py", "--smoke", "--out", base)
        first = last_step(base)
        stage("train_base.py", "--smoke", "--steps", first + 2, "--out", base)
        assert last_step(base) == first + 2, "the second run did not continue the first"
        assert all(math.isfinite(line["held_out"]["all"][0]) for line in log_of(base) if "held_out" in line)
        stage("export.py", "base", "--checkpoint", base / "checkpoint.pt", "--models", models)
        stage("train_expert.py", EXPERT, "--smoke", "--base", models / "base", "--out", experts)
        stage("train_expert.py", "jsonfmt", "--smoke", "--base", models / "base", "--out", experts, "--company", EXPERT)
        stage("export.py", "expert", EXPERT, "--from", experts / EXPERT, "--models", models)
        scored = out / "results.json"
        stage("evaluate.py", "run", "--models", models, "--n", 4, "--base-n", 1, "--only", f"{EXPERT},readme", "--out", scored)
        cells = {(c["cases"], c["active"]) for c in json.loads(scored.read_text())["cells"]}
        assert {(EXPERT, "base"), (EXPERT, EXPERT), ("readme", EXPERT)} <= cells, cells
    print("smoke training: ok")


if __name__ == "__main__":
    main()
