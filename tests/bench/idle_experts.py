"""What a token costs while experts are loaded and not used, in instructions, as JSON:

    tests/bench/idle_experts.py [build/release]

Counts, not seconds, so a busy machine does no harm. Loading and starting cancel out: each figure is the difference of a
long and a short answer, divided by the tokens between. Valgrind knows no AVX-512, hence AVX2.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "release")
SHORT, LONG = 32, 160


def instructions(tokens: int, experts: list, folder: str) -> int:
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", BUILD / "tests" / "bench" / "idle_experts",
               ROOT / "models" / "base", f"{folder}/home", tokens, *experts]  # fmt: skip
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, env={**os.environ, "EXPERT_ISA": "avx2"})
    if run.returncode != 0:
        sys.exit(run.stderr)
    return int(re.search(r"Collected : (\d+)", run.stderr).group(1))


def per_token(experts: list) -> float:
    with tempfile.TemporaryDirectory(prefix="expert-idle-") as folder:
        instructions(1, experts, folder)  # what is computed once and kept on disk
        return (instructions(LONG, experts, folder) - instructions(SHORT, experts, folder)) / (LONG - SHORT)


def main() -> None:
    experts = sorted(path for path in (ROOT / "models" / "experts").iterdir() if path.is_dir())
    alone, beside = per_token([]), per_token(experts)
    print(json.dumps({"experts": len(experts), "instructions_per_token_alone": round(alone),
                      "instructions_per_token_beside": round(beside), "ratio": round(beside / alone, 6)}))  # fmt: skip


if __name__ == "__main__":
    main()
