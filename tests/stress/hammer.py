"""32 threads that load, infer, stream, cancel and close in random order. argv: seconds, threads."""

import gc
import os
import random
import sys
import threading
import time
from pathlib import Path

import expert

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["sql", "json", "jsonfmt", "shell", "classify"]
seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3
count = int(sys.argv[2]) if len(sys.argv) > 2 else 32


def open_engine():
    return expert.Engine(ROOT / "models" / "base", threads=1, home="/nonexistent/expert-home")


shared = [open_engine()]
lock = threading.Lock()
calls = [0, 0]


def act(dice):
    engine = shared[0]
    options = {"prompt": f"Find all users older than {dice.randrange(90)}", "max_tokens": dice.randrange(1, 12),
               "experts": [(name, 0.5) for name in dice.sample(NAMES, dice.randrange(3))]}  # fmt: skip
    match dice.randrange(7):
        case 0:
            with engine.load_expert(ROOT / "models" / "experts" / dice.choice(NAMES)) as loaded:
                loaded.generate("Hello", max_tokens=2)
        case 1:
            for chunk in engine.stream(**options):
                if len(chunk.text) % 2:
                    break
        case 2:
            engine.submit(**options)
        case 3:
            engine.route(**options)
        case 4 if dice.randrange(40) == 0:
            with lock:
                old, shared[0] = shared[0], open_engine()
                old.close()
        case _:
            engine.infer(**options)


def work(seed, end):
    dice = random.Random(seed)
    while time.monotonic() < end:
        try:
            act(dice)
            calls[0] += 1
        except expert.InferenceError:
            calls[1] += 1


def run(duration):
    end = time.monotonic() + duration
    threads = [threading.Thread(target=work, args=(seed, end)) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


before = run(max(1.0, seconds / 4))
after = run(seconds)
print(f"{calls[0]} calls, {calls[1]} refused, {count} threads; resident {before:.0f} MB, then {after:.0f} MB")
sys.exit(0 if calls[0] and after < before * 1.5 + 64 else 1)
