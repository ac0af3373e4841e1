#!/usr/bin/env python3
"""The tier that is run by hand before an issue is called resolved: what CI has no time for.

    tests/full/run.py [--only STAGE …] [--fuzz-runs 10000000] [--fuzz-seconds N] [--fuzz-jobs N] [--fuzz-targets NAME …] [--logs tests/full/last]

Stages: asan, tsan, isa, neon, oracles, fuzz, consumers, hammer, bench, cuda. They take hours, so each stage, and each fuzz target,
writes a log of its own, which begins with commit, date and machine; the last of each is committed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import datetime
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import bootstrap  # noqa: E402

ISAS = ["baseline", "avx2", "avxvnni", "avx512", "avx512bf16", "amx"]


class Log:
    """The log of one stage; several threads may write."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("w", encoding="utf-8")
        self.lock = threading.Lock()
        self.failed = 0
        self.passed = 0
        self.write(f"commit {commit()}\n"
                   f"date {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC\n"
                   f"machine {cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}")  # fmt: skip

    def write(self, text: str) -> None:
        with self.lock:
            print(text, flush=True)
            self.file.write(text + "\n")
            self.file.flush()

    def run(self, name: str, command: list, keep: int = 6, **environment: str) -> None:
        started = time.monotonic()
        result = subprocess.run([str(part) for part in command], cwd=ROOT, env={**os.environ, **environment},
                                capture_output=True, text=True, errors="replace")  # fmt: skip
        good = result.returncode == 0
        self.passed += good
        self.failed += not good
        output = (result.stdout + result.stderr).rstrip().splitlines()[-(keep if good else 60):]
        self.write("\n".join([f"\n== {name}: {'ok' if good else f'FAILED ({result.returncode})'}, {time.monotonic() - started:.0f} s",
                              *("   " + line.replace(str(ROOT), ".") for line in output)]))  # fmt: skip

    def close(self) -> int:
        self.write(f"\n{self.passed} passed, {self.failed} failed")
        self.file.close()
        return self.failed


def commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!tests/full/last")
    return git("rev-parse", "HEAD") + (" with changes" if changed else "")


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def has_isa(release: Path, isa: str) -> bool:
    probe = subprocess.run([release / "cli" / "expert-cli", "run", "x", "--experts", "", "--max-tokens", "1"],
                           env={**os.environ, "EXPERT_ISA": isa}, capture_output=True)  # fmt: skip
    return probe.returncode == 0


@dataclasses.dataclass
class Builds:
    release: Path
    python: Path
    node: Path
    ctest: str


def asan(log: Log, builds: Builds, arguments: argparse.Namespace) -> None:
    directory = bootstrap.build("asan-full", "--preset", "asan")
    log.run("every unit test under AddressSanitizer and UBSan, at full volume",
            [builds.ctest, "--test-dir", directory, "--output-on-failure"], EXPERT_TEST_VOLUME="full")  # fmt: skip


def tsan(log: Log, builds: Builds, arguments: argparse.Namespace) -> None:
    directory = bootstrap.build("tsan", "--preset", "tsan")
    log.run("every unit test under ThreadSanitizer", [builds.ctest, "--test-dir", directory, "--output-on-failure"],
            EXPERT_TEST_VOLUME="full")  # fmt: skip


def isa(log: Log, builds: Builds, arguments: argparse.Namespace) -> None:
    for name in ISAS:
        if has_isa(builds.release, name):
            log.run(f"every unit test on {name}", [builds.ctest, "--test-dir", builds.release, "--output-on-failure"], EXPERT_ISA=name)
        else:
            log.write(f"\n== {name}: this machine does not have it, not run")


def neon(log: Log, builds: Builds, arguments: argparse.Namespace) -> None:
    log.run("NEON kernels under emulation", [ROOT / "tests" / "kernels" / "run_neon.sh"])


def oracles(log: Log, builds: Builds, arguments: argparse.Namespace) -> None:
    log.run("oracles at volume", [builds.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/oracle"],
            EXPERT_ORACLE_VOLUME="full", EXPERT_BUILD_DIR=str(builds.release), PYTHONPATH=str(builds.release / "python"))  # fmt: skip


def fuzz(arguments: argparse.Namespace) -> int:
    # A folder of its own: with this many runs what a run takes counts, not what the compiler takes.
    directory = bootstrap.build("fuzz", "--preset", "asan", "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O2 -g1")
    limits = [f"-runs={arguments.fuzz_runs}", "-print_final_stats=1", "-verbosity=0",
              "-timeout=600"]  # by the wall clock, and the machine may be busy; the slowest input's time is in the log  # fmt: skip
    if arguments.fuzz_seconds:
        limits.append(f"-max_total_time={arguments.fuzz_seconds}")

    def run(program: Path) -> int:
        log = Log(arguments.logs / f"{program.name}.log")
        log.run(f"{program.name}, {arguments.fuzz_runs:,} runs", bootstrap.fuzz_command(program, directory, *limits), keep=8,
                **bootstrap.FUZZ_ENVIRONMENT)  # fmt: skip
        return log.close()

    programs = {program.name.removeprefix("fuzz_"): program for program in bootstrap.fuzz_targets(directory)}
    with concurrent.futures.ThreadPoolExecutor(arguments.fuzz_jobs) as pool:
        return sum(pool.map(run, [programs[name] for name in arguments.fuzz_targets or programs]))


def consumers(log: Log, builds: Builds, arguments: argparse.Namespace) -> None:
    log.run("static, add_subdirectory, without optional parts, Conan, wheel, sdist, auditwheel",
            [builds.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/full/consumers.py"])  # fmt: skip


def hammer(log: Log, builds: Builds, arguments: argparse.Namespace) -> None:
    seconds = arguments.hammer_seconds
    # A freed block that waits in the sanitizer's quarantine is no growth of ours.
    for preset, swaps, environment in (("asan", 0, {"ASAN_OPTIONS": "quarantine_size_mb=8"}), ("tsan", 100_000, {})):
        program = bootstrap.build(preset, "--preset", preset) / "tests" / "stress" / "stress_hammer"
        log.run(f"hammer in C++, {preset}", [program, seconds, 32, swaps], **environment)
    log.run("hammer in Python", [builds.python, "tests/stress/hammer.py", seconds, 32], PYTHONPATH=str(builds.release / "python"))
    package = builds.release / "node" / "node_modules" / "@hivellm" / "expert"
    log.run("hammer in Node", ["node", "tests/stress/hammer.js", package, seconds, 8])


def bench(log: Log, builds: Builds, arguments: argparse.Namespace) -> None:
    model = ["--model", arguments.bench_model] if arguments.bench_model else []
    log.run("bench", [builds.release / "cli" / "expert-cli", "bench", "--json", *model], keep=80)


def cuda(log: Log, builds: Builds, arguments: argparse.Namespace) -> None:
    """The emulated device under AddressSanitizer; then every operation on a true one, and the benchmark. Where nvcc or a device
    is missing, that is said and those do not run."""
    sanitised = bootstrap.build("asan-full", "--preset", "asan", "-DEXPERT_CUDA_EMULATOR=ON")
    log.run("the emulated device under AddressSanitizer", [builds.ctest, "--test-dir", sanitised, "-L", "cuda", "--output-on-failure"])
    if not bootstrap.nvcc():
        log.write("\n== cuda: there is no nvcc, so the plug-in is not built and not run")
        return
    directory = bootstrap.build("cuda", "--preset", "cuda")
    plugin = {"EXPERT_CUDA_PLUGIN": str(directory / "capi" / "libexpert_cuda.so")}
    probe = subprocess.run([directory / "cli" / "expert-cli", "run", "x", "--experts", "", "--max-tokens", "1", "--device", "cuda"],
                           env={**os.environ, **plugin}, capture_output=True, text=True)  # fmt: skip
    if probe.returncode == 2:
        log.write(f"\n== cuda: built; not run: {probe.stderr.splitlines()[0]}")
        return
    log.run("every operation on the device", [directory / "tests" / "cuda" / "cuda_device_test"], keep=60, **plugin)
    model = ["--model", arguments.bench_model] if arguments.bench_model else []
    log.run("benchmark", [builds.python, "tests/bench/gpu/bench.py", "--build", directory, *model], keep=400)


STAGES = {stage.__name__: stage for stage in (asan, tsan, isa, neon, oracles, fuzz, consumers, hammer, bench, cuda)}
WITH_OWN_LOGS = ["fuzz"]


def prepare() -> Builds:
    bootstrap.ensure_packages(bootstrap.BUILD_PACKAGES + bootstrap.TEST_PACKAGES)
    python = bootstrap.python_with_oracles()
    node = bootstrap.node_with_tools()
    os.environ["PATH"] = f"{node}:{os.environ['PATH']}"
    release = bootstrap.build("release", "--preset", "release", f"-DPython_EXECUTABLE={python}", "-DEXPERT_NODE=ON",
                              f"-DEXPERT_NODE_PROGRAM={node / 'node'}")  # fmt: skip
    return Builds(release, python, node, str(Path(bootstrap.cmake()).with_name("ctest")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(STAGES), default=list(STAGES), metavar="STAGE")
    parser.add_argument("--fuzz-runs", type=int, default=10_000_000)
    parser.add_argument("--fuzz-seconds", type=int, default=0, help="end each fuzz target after so long (0: by its runs alone)")
    parser.add_argument("--fuzz-jobs", type=int, default=os.cpu_count(), help="targets at once")
    parser.add_argument("--fuzz-targets", nargs="+", metavar="NAME", help="archive, tokenizer, …; default: all")
    parser.add_argument("--hammer-seconds", type=int, default=60)
    parser.add_argument("--bench-model", help="directory of a model to time; default: the bundled one")
    parser.add_argument("--logs", type=Path, default=ROOT / "tests" / "full" / "last")
    arguments = parser.parse_args()

    builds = prepare() if set(arguments.only) - set(WITH_OWN_LOGS) else None
    failed = 0
    for name in arguments.only:
        if name in WITH_OWN_LOGS:
            failed += STAGES[name](arguments)
            continue
        log = Log(arguments.logs / f"{name}.log")
        STAGES[name](log, builds, arguments)
        failed += log.close()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
