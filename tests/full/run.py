#!/usr/bin/env python3
"""The tier that is run by hand before an issue is called resolved: what CI has no time for.

    tests/full/run.py [--fuzz-runs 10000000] [--fuzz-seconds N] [--only STAGE …] [--log tests/full/last.log]

Stages: tsan, isa, neon, oracles, fuzz, consumers, hammer, bench. The log begins with commit, date and machine; the last one is committed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import bootstrap  # noqa: E402

STAGES = ["tsan", "isa", "neon", "oracles", "fuzz", "consumers", "hammer", "bench"]
ISAS = ["baseline", "avx2", "avxvnni", "avx512", "amx"]


class Log:
    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")
        self.failed = 0
        self.passed = 0
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        self.line(f"commit {commit}")
        self.line(f"date {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC")
        self.line(f"machine {cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}")

    def line(self, text: str) -> None:
        print(text, flush=True)
        self.file.write(text + "\n")
        self.file.flush()

    def stage(self, name: str, command: list, keep: int = 6, **environment: str) -> None:
        started = time.monotonic()
        result = subprocess.run([str(part) for part in command], cwd=ROOT, env={**os.environ, **environment},
                                capture_output=True, text=True, errors="replace")  # fmt: skip
        good = result.returncode == 0
        self.passed += good
        self.failed += not good
        self.line(f"\n== {name}: {'ok' if good else f'FAILED ({result.returncode})'}, {time.monotonic() - started:.0f} s")
        output = (result.stdout + result.stderr).rstrip().splitlines()
        for text in output[-(keep if good else 60):]:
            self.line("   " + text.replace(str(ROOT), "."))


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def has_isa(release: Path, isa: str) -> bool:
    probe = subprocess.run([release / "cli" / "expert-cli", "run", "x", "--experts", "", "--max-tokens", "1"],
                           env={**os.environ, "EXPERT_ISA": isa}, capture_output=True)  # fmt: skip
    return probe.returncode == 0


def consumers(log: Log, python: Path) -> None:
    log.stage("static, add_subdirectory, Conan, wheel, sdist, auditwheel",
              [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/full/consumers.py"])  # fmt: skip


def hammer(log: Log, release: Path, python: Path, seconds: int) -> None:
    for preset in ("asan", "tsan"):
        program = bootstrap.build(preset, "--preset", preset) / "tests" / "stress" / "stress_hammer"
        log.stage(f"hammer in C++, {preset}", [program, seconds, 32])
    log.stage("hammer in Python", [python, "tests/stress/hammer.py", seconds, 32], PYTHONPATH=str(release / "python"))
    package = release / "node" / "node_modules" / "@hivellm" / "expert"
    log.stage("hammer in Node", ["node", "tests/stress/hammer.js", package, seconds, 8])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--fuzz-runs", type=int, default=10_000_000)
    parser.add_argument("--fuzz-seconds", type=int, default=0, help="end each fuzz target after so long (0: by its runs alone)")
    parser.add_argument("--hammer-seconds", type=int, default=60)
    parser.add_argument("--bench-model", help="directory of a model to time; default: the bundled one")
    parser.add_argument("--log", type=Path, default=ROOT / "tests" / "full" / "last.log")
    arguments = parser.parse_args()

    bootstrap.ensure_packages(bootstrap.BUILD_PACKAGES + bootstrap.TEST_PACKAGES)
    python = bootstrap.python_with_oracles()
    ctest = str(Path(bootstrap.cmake()).with_name("ctest"))
    node = bootstrap.node_with_tools()
    os.environ["PATH"] = f"{node}:{os.environ['PATH']}"
    release = bootstrap.build("release", "--preset", "release", f"-DPython_EXECUTABLE={python}", "-DEXPERT_NODE=ON",
                              f"-DEXPERT_NODE_PROGRAM={node / 'node'}")  # fmt: skip
    log = Log(arguments.log)

    if "tsan" in arguments.only:
        tsan = bootstrap.build("tsan", "--preset", "tsan")
        log.stage("ThreadSanitizer", [ctest, "--test-dir", tsan, "--output-on-failure"])
    if "isa" in arguments.only:
        for isa in ISAS:
            if has_isa(release, isa):
                log.stage(f"every test on {isa}", [ctest, "--test-dir", release, "--output-on-failure"], EXPERT_ISA=isa)
            else:
                log.line(f"\n== {isa}: this machine does not have it, not run")
    if "neon" in arguments.only:
        log.stage("NEON kernels under emulation", [ROOT / "tests" / "kernels" / "run_neon.sh"])
    if "oracles" in arguments.only:
        log.stage("oracles at volume", [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/oracle"],
                  EXPERT_ORACLE_VOLUME="full", EXPERT_BUILD_DIR=str(release), PYTHONPATH=str(release / "python"))  # fmt: skip
    if "fuzz" in arguments.only:
        # A folder of its own: with this many runs what a run takes counts, not what the compiler takes.
        fuzzers = bootstrap.build("fuzz", "--preset", "asan", "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O2 -g1")
        for program in bootstrap.fuzz_targets(fuzzers):
            command = bootstrap.fuzz_command(program, fuzzers, f"-runs={arguments.fuzz_runs}", "-print_final_stats=1", "-verbosity=0",
                                             *([f"-max_total_time={arguments.fuzz_seconds}"] if arguments.fuzz_seconds else []))  # fmt: skip
            log.stage(f"{program.name}, {arguments.fuzz_runs:,} runs", command, keep=8, **bootstrap.FUZZ_ENVIRONMENT)
    if "consumers" in arguments.only:
        consumers(log, python)
    if "hammer" in arguments.only:
        hammer(log, release, python, arguments.hammer_seconds)
    if "bench" in arguments.only:
        model = ["--model", arguments.bench_model] if arguments.bench_model else []
        log.stage("bench", [release / "cli" / "expert-cli", "bench", "--json", *model], keep=80)
    log.line(f"\n{log.passed} passed, {log.failed} failed")
    sys.exit(1 if log.failed else 0)


if __name__ == "__main__":
    main()
